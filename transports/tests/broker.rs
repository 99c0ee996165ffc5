//! Brokers inside this process: any number, over any stream.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use lmx_core::wire::{Answer, Command, Hello, MAGIC, Reply, Request, frame};
use lmx_core::{FencingToken, Instant};
use lmx_transports::broker::{BindError, BrokerError, default_config};
use lmx_transports::clock::Alarm;
use lmx_transports::launch::{Launched, launch_if_absent};
use lmx_transports::net::{Address, ListenError};
use lmx_transports::state::{StateError, StatePlace};
use lmx_transports::{Broker, BrokerBuilder, Client};
use smol::future::FutureExt as _;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn builder() -> BrokerBuilder {
    Broker::builder().state(StatePlace::Ephemeral)
}

async fn broker() -> Broker {
    builder().tcp("127.0.0.1", 0).bind().await.unwrap()
}

async fn client(broker: &Broker) -> Client {
    let port = broker.tcp_address().unwrap().port();
    let client = Client::builder().host("127.0.0.1").port(port);
    client.connect().await.unwrap()
}

#[test]
fn neither_a_broker_nor_what_it_is_made_of_shows_its_secrets() {
    smol::block_on(async {
        let token = b"open sesame";
        let builder = builder().tcp("127.0.0.1", 0).auth_token(token);
        let secrets = [format!("{token:?}"), "seed".to_owned()];
        let hides = |shown: String| !secrets.iter().any(|secret| shown.contains(secret));
        assert!(hides(format!("{builder:?}")));
        let broker = builder.bind().await.unwrap();
        assert!(hides(format!("{broker:?}")));
        let client = Client::builder().auth_token(token);
        assert!(hides(format!("{client:?}")));
    });
}

#[test]
fn any_number_of_brokers_run_in_one_process_and_share_nothing() {
    smol::block_on(async {
        let mut brokers = Vec::new();
        let mut guards = Vec::new();
        for _ in 0..8 {
            let broker = broker().await;
            let client = client(&broker).await;
            guards.push(client.lock("one key for all").try_now().await.unwrap());
            brokers.push(broker);
        }
        drop(guards);
        for broker in brokers {
            broker.stop().await.unwrap();
        }
    });
}

#[test]
fn port_zero_is_replaced_by_the_real_one() {
    smol::block_on(async {
        let broker = broker().await;
        assert_ne!(broker.tcp_address().unwrap().port(), 0);
        assert!(matches!(broker.addresses(), [Address::Tcp(_)]));
    });
}

#[test]
fn a_stopped_broker_gives_its_address_back() {
    smol::block_on(async {
        let first = broker().await;
        let port = first.tcp_address().unwrap().port();
        let taken = builder().tcp("127.0.0.1", port).bind().await.unwrap_err();
        assert!(
            matches!(taken, BindError::Listen(ListenError::InUse { .. })),
            "{taken}"
        );
        first.stop().await.unwrap();
        builder().tcp("127.0.0.1", port).bind().await.unwrap();
    });
}

#[test]
fn nothing_is_opened_to_other_machines_by_accident() {
    smol::block_on(async {
        let refused = builder().tcp("0.0.0.0", 0).bind().await.unwrap_err();
        assert!(
            matches!(refused, BindError::Listen(ListenError::Public { .. })),
            "{refused}"
        );
        let with_token = builder().tcp("0.0.0.0", 0).auth_token("secret");
        with_token.bind().await.unwrap();
        let allowed = builder().tcp("0.0.0.0", 0).allow_public(true);
        allowed.bind().await.unwrap();
    });
}

#[test]
fn without_an_address_there_is_no_broker() {
    let error = smol::block_on(builder().bind()).unwrap_err();
    assert!(matches!(error, BindError::NoAddress), "{error}");
}

#[test]
fn a_state_is_for_one_broker_and_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = StatePlace::Directory(folder.path().join("state"));
    let path = folder.path().join("socket");
    let start = || Broker::builder().unix(&path).state(place.clone()).bind();
    let client = || async {
        let client = Client::builder().unix(&path);
        client.connect().await.unwrap()
    };
    smol::block_on(async {
        let first = start().await.unwrap();
        let guard = client().await.lock("key").await.unwrap();
        let token = guard.token();
        guard.release().await.unwrap();
        first.stop().await.unwrap();
        let second = start().await.unwrap();
        let guard = client().await.lock("key").wait_forever().await.unwrap();
        assert!(guard.token() > token);
        drop(guard);
        second.stop().await.unwrap();
    });
}

/// The token of a grant by this broker, which then stops.
async fn last_token(broker: Broker) -> FencingToken {
    let address = broker.addresses()[0].clone();
    let client = Client::builder().endpoint(address).connect().await.unwrap();
    let guard = client.lock("key").wait_forever().await.unwrap();
    let token = guard.token();
    guard.release().await.unwrap();
    broker.stop().await.unwrap();
    token
}

#[test]
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn a_socket_that_does_not_listen_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (one_end, _other_end) = UnixStream::pair().unwrap();
    smol::block_on(async {
        for builder in [
            builder().listener(OwnedFd::from(connection).into()),
            builder().unix_listener(OwnedFd::from(one_end).into()),
        ] {
            let error = builder.bind().await.map(drop).unwrap_err();
            assert!(matches!(error, BindError::System(_)), "{error}");
            assert!(error.to_string().contains("does not listen"), "{error}");
        }
    });
}

/// All of them would have one state.
#[test]
#[cfg(target_os = "linux")]
fn a_socket_without_a_path_is_refused() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let name = format!("lmx-test-{}", process::id());
    let name = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&name).unwrap();
    smol::block_on(async {
        let broker = builder().unix_listener(listener).bind().await;
        let error = broker.map(drop).unwrap_err();
        assert!(error.to_string().contains("has no path"), "{error}");
    });
}

#[test]
fn a_broker_at_another_address_of_its_port_goes_on_with_its_state() {
    let folder = tempfile::tempdir().unwrap();
    let start = |listener| {
        let place = StatePlace::Directory(folder.path().join("state"));
        Broker::builder().listener(listener).state(place).bind()
    };
    // Handed over, so that the port cannot become somebody else's in between.
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = one.local_addr().unwrap().port();
    let other = TcpListener::bind(("127.0.0.2", port)).unwrap();
    smol::block_on(async {
        let first = start(one).await.unwrap();
        let second = start(other.try_clone().unwrap()).await;
        let second = second.map(drop).unwrap_err();
        assert!(
            matches!(second, BindError::State(StateError::InUse { .. })),
            "{second}"
        );
        let token = last_token(first).await;
        assert!(last_token(start(other).await.unwrap()).await > token);
    });
}

#[test]
fn a_broker_on_any_port_goes_on_with_the_state_in_its_directory() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let place = StatePlace::Directory(folder.path().join("state"));
        Broker::builder().tcp("127.0.0.1", 0).state(place).bind()
    };
    smol::block_on(async {
        let token = last_token(start().await.unwrap()).await;
        assert!(last_token(start().await.unwrap()).await > token);
    });
}

#[test]
fn a_disk_that_does_not_answer_keeps_a_stop_waiting_only_for_so_long() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("state");
    let path = folder.path().join("socket");
    smol::block_on(async {
        let broker = Broker::builder().unix(&path);
        let broker = broker.state(StatePlace::Directory(place.clone()));
        let broker = broker.bind().await.unwrap();
        let client = Client::builder().unix(&path).connect().await.unwrap();
        let _guard = client.lock("key").await.unwrap();
        let state = fs::read_dir(&place)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|what| what == "state"));
        // To write the next one is to open this, which waits for a reader.
        let mut mkfifo = process::Command::new("mkfifo");
        mkfifo.arg(state.unwrap().with_extension("new"));
        mkfifo.stderr(process::Stdio::null());
        // While one is written, it has the name.
        while !mkfifo.status().unwrap().success() {}
        let end = within_reason(broker.stop()).await;
        assert!(matches!(end, Err(BrokerError::StateNotWritten)), "{end:?}");
    });
}

#[test]
fn of_many_that_launch_at_one_time_one_starts_and_all_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    smol::block_on(async {
        let launches: Vec<_> = (0..16)
            .map(|_| smol::spawn(launch_if_absent(builder().unix(&path))))
            .collect();
        let mut started = Vec::new();
        for launch in launches {
            match launch.await.unwrap() {
                Launched::Started(broker) => started.push(broker),
                Launched::Present(address) => assert_eq!(address, Address::Unix(path.clone())),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(started.len(), 1);
        let client = Client::builder().unix(&path).connect().await.unwrap();
        client.lock("key").await.unwrap().release().await.unwrap();
    });
}

#[test]
fn of_a_burst_of_connections_none_waits_for_something_else_to_happen() {
    // More than are accepted in one round, and fewer than the kernel may keep.
    const BURST: usize = 100;
    let mut config = default_config();
    config.handshake_max = Duration::from_hours(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut burst: Vec<_> = (0..BURST)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    smol::block_on(async {
        let _broker = builder()
            .config(config)
            .listener(listener)
            .bind()
            .await
            .unwrap();
        let last = burst.pop().unwrap();
        let mut last = smol::Async::new(last).unwrap();
        last.write_all(&MAGIC).await.unwrap();
        last.write_all(&request(1, hello())).await.unwrap();
        within_reason(reply(&mut last)).await.unwrap();
    });
}

/// One end of a pipe in memory, for both directions.
fn pipe() -> (impl Duplex, impl Duplex) {
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    (
        smol::Async::new(one).unwrap(),
        smol::Async::new(other).unwrap(),
    )
}

trait Duplex: smol::io::AsyncRead + smol::io::AsyncWrite + Unpin + Send + 'static {}

impl<T: smol::io::AsyncRead + smol::io::AsyncWrite + Unpin + Send + 'static> Duplex for T {}

async fn within_reason<T>(what: impl Future<Output = T>) -> T {
    let hang = async {
        Alarm::after(Duration::from_mins(1)).await;
        panic!("it hangs")
    };
    what.or(hang).await
}

fn request(tag: u32, body: Command<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::append(&Request { tag, seen: 0, body }, &mut bytes);
    bytes
}

fn hello() -> Command<'static> {
    Command::Hello(Hello {
        auth: &[],
        resume_window: Duration::ZERO,
        resume: None,
        name: "",
    })
}

async fn reply(stream: &mut impl Duplex) -> Option<(Instant, String)> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).await.ok()?;
    let reply = Reply::decode(&body).unwrap();
    Some((reply.now, format!("{:?}", reply.body)))
}

#[test]
fn any_stream_will_do_as_a_transport() {
    smol::block_on(async {
        let broker = Arc::new(broker().await);
        let (mut near, far) = pipe();
        let serving = Arc::clone(&broker);
        let serving = smol::spawn(async move { serving.serve(far).await });
        near.write_all(&MAGIC).await.unwrap();
        near.write_all(&request(1, hello())).await.unwrap();
        let (_, welcome) = reply(&mut near).await.unwrap();
        assert!(welcome.starts_with("Welcome"), "{welcome}");

        // A grant to it is written when another connection gives the lock back.
        let other = client(&broker).await;
        let guard = other.lock("key").await.unwrap();
        let near_client = {
            let (near, far) = pipe();
            let serving = Arc::clone(&broker);
            smol::spawn(async move { serving.serve(far).await }).detach();
            let near = std::sync::Mutex::new(Some(near));
            Client::builder()
                .connector(move || {
                    let near = near.lock().unwrap().take();
                    async move { near.ok_or_else(|| std::io::ErrorKind::NotConnected.into()) }
                })
                .connect()
                .await
                .unwrap()
        };
        let waiting = near_client.lock("key").wait_forever();
        let waiting = smol::spawn(async move { waiting.await });
        while other.inspect("key").await.unwrap().key.waiters == 0 {}
        guard.release().await.unwrap();
        let granted = waiting.await.unwrap();
        granted.release().await.unwrap();

        near.write_all(&request(2, Command::Goodbye)).await.unwrap();
        let (_, bye) = reply(&mut near).await.unwrap();
        assert_eq!(bye, format!("{:?}", Answer::Bye));
        assert_eq!(reply(&mut near).await, None);
        serving.await.unwrap();
    });
}

#[test]
fn streams_end_with_their_broker() {
    smol::block_on(async {
        let broker = broker().await;
        let (mut near, far) = pipe();
        let serving = broker.serve(far);
        let talk = async {
            near.write_all(&MAGIC).await.unwrap();
            near.write_all(&request(1, hello())).await.unwrap();
            reply(&mut near).await.unwrap();
            near
        };
        let mut serving = Box::pin(serving);
        let mut near = smol::future::or(talk, async {
            (&mut serving).await.unwrap();
            panic!("it ended early")
        })
        .await;
        drop(serving);
        assert_eq!(reply(&mut near).await, None);
        broker.stop().await.unwrap();
    });
}

#[test]
fn clients_are_told_of_a_stop() {
    smol::block_on(async {
        let broker = broker().await;
        let address = broker.tcp_address().unwrap();
        let mut stream = smol::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(&MAGIC).await.unwrap();
        stream.write_all(&request(1, hello())).await.unwrap();
        reply(&mut stream).await.unwrap();
        let stop = smol::spawn(broker.stop());
        let (_, told) = reply(&mut stream).await.unwrap();
        assert_eq!(told, "Stopping");
        assert_eq!(reply(&mut stream).await, None);
        drop(stream);
        stop.await.unwrap();
    });
}

//! Connections that break, and brokers that fall silent.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lmx_core::broker::BrokerConfig;
use lmx_core::client::Loss;
use lmx_transports::broker::default_config;
use lmx_transports::clock::Alarm;
use lmx_transports::{Broker, Client, ConnectError, LockError};

use super::proxy::Proxy;
use super::{LONG, broker, connect, run, until};

fn address(broker: &Broker) -> SocketAddr {
    broker.tcp_address().expect("it listens on TCP")
}

pub(crate) async fn through(proxy: &Proxy, window: Duration) -> Client {
    Client::builder()
        .endpoint(proxy.address().parse::<lmx_transports::Endpoint>().unwrap())
        .resume_window(window)
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .connect()
        .await
        .expect("a connection")
}

#[test]
fn a_broken_connection_is_invisible_within_the_resume_window() {
    run(async {
        let broker = broker().await;
        let proxy = Proxy::new(address(&broker));
        let (client, direct) = (through(&proxy, LONG).await, connect(&broker).await);
        let held = client.lock("held").no_lease().await.expect("a grant");
        let first = direct.lock("queued").await.expect("a grant");
        let waiting = smol::spawn(client.lock("queued").wait_forever().into_future());
        until(&direct, "queued", 1, 1).await;
        let behind = smol::spawn(direct.lock("queued").wait_forever().into_future());
        until(&direct, "queued", 1, 2).await;
        proxy.cut();
        // Its place in the queue is kept, too.
        let token = first.token();
        first.release().await.expect("a release");
        let second = waiting.await.expect("a grant");
        assert!(second.token() > token);
        assert!(held.is_valid());
        held.release().await.expect("a release");
        second.release().await.expect("a release");
        drop(behind.await.expect("a grant"));
        assert!(proxy.connections() > 1);
    });
}

#[test]
fn requests_in_flight_across_cut_connections_are_neither_lost_nor_doubled() {
    run(async {
        let broker = broker().await;
        let proxy = Arc::new(Proxy::new(address(&broker)));
        let client = through(&proxy, LONG).await;
        let done = Arc::new(AtomicBool::new(false));
        let grants = Arc::new(AtomicU32::new(0));
        let cutter = std::thread::spawn({
            let (proxy, done) = (Arc::clone(&proxy), Arc::clone(&done));
            let grants = Arc::clone(&grants);
            move || {
                let mut cuts = 0;
                let mut seen = 0;
                while !done.load(Ordering::SeqCst) {
                    // After each step forward, so that there are steps forward, whatever is
                    // in the connection.
                    if grants.load(Ordering::SeqCst) > seen {
                        seen = grants.load(Ordering::SeqCst);
                        proxy.cut();
                        cuts += 1;
                    }
                    std::thread::yield_now();
                }
                cuts
            }
        });
        let inside = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (client, inside) = (client.clone(), Arc::clone(&inside));
                let grants = Arc::clone(&grants);
                smol::spawn(async move {
                    for _ in 0..10 {
                        let lock = client.lock("key").no_lease().wait_forever();
                        let guard = lock.await.expect("a grant");
                        grants.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        guard.release().await.expect("a release");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        done.store(true, Ordering::SeqCst);
        let cuts = cutter.join().expect("no panic");
        assert!(cuts > 0);
        let direct = connect(&broker).await;
        until(&direct, "key", 0, 0).await;
        // A doubled request would have been granted twice.
        assert_eq!(direct.status().await.expect("an answer").grants, 100);
    });
}

#[test]
fn without_a_resume_window_a_broken_connection_loses_the_lock_at_once() {
    run(async {
        let broker = broker().await;
        let proxy = Proxy::new(address(&broker));
        let client = through(&proxy, Duration::ZERO).await;
        let guard = client.lock("key").await.expect("a grant");
        proxy.cut();
        assert_eq!(guard.lost().await, Loss::SessionLost);
        client.ensure().await.expect("a connection");
        drop(client.lock("key").await.expect("a grant"));
    });
}

#[test]
fn a_silent_broker_loses_the_lock_here_before_it_is_granted_there() {
    run(async {
        let config = BrokerConfig {
            idle_max: Duration::from_secs(3),
            ..default_config()
        };
        let broker = Broker::builder().tcp("127.0.0.1", 0).config(config);
        let broker = broker.bind().await.expect("a broker");
        let proxy = Proxy::new(address(&broker));
        let window = Duration::from_millis(600);
        let (client, direct) = (through(&proxy, window).await, connect(&broker).await);
        let guard = client.lock("key").no_lease().await.expect("a grant");
        let next = smol::spawn(direct.lock("key").wait_forever().into_future());
        until(&direct, "key", 1, 1).await;
        proxy.silence(true);
        assert_eq!(guard.lost().await, Loss::Unconfirmed);
        assert!(!guard.is_valid());
        let found = direct.inspect("key").await.expect("an answer");
        assert_eq!(
            found.requests[0].id,
            guard.id(),
            "granted while it was held"
        );
        // The broker notices by itself.
        drop(next.await.expect("a grant"));
        proxy.silence(false);
    });
}

#[test]
fn ensure_connects_again_and_says_when_it_cannot() {
    run(async {
        let broker = broker().await;
        let proxy = Proxy::new(address(&broker));
        let client = through(&proxy, LONG).await;
        proxy.refuse(true);
        while client.is_connected() {
            smol::future::yield_now().await;
        }
        let error = client.ensure().await.expect_err("nobody is let through");
        assert!(error.to_string().contains(&proxy.address()), "{error}");
        let wait = Duration::from_millis(30);
        let error = client
            .lock("key")
            .wait(wait)
            .await
            .expect_err("nobody answers");
        assert!(matches!(error, LockError::Connect(_)), "{error}");
        proxy.refuse(false);
        while client.ensure().await.is_err() {}
        drop(client.lock("key").await.expect("a grant"));
    });
}

#[test]
fn a_guard_dropped_without_a_connection_gives_its_lock_back_later() {
    run(async {
        let broker = broker().await;
        let proxy = Proxy::new(address(&broker));
        let (client, direct) = (through(&proxy, LONG).await, connect(&broker).await);
        let guard = client.lock("key").no_lease().await.expect("a grant");
        proxy.refuse(true);
        while client.is_connected() {
            smol::future::yield_now().await;
        }
        drop(guard);
        until(&direct, "key", 1, 0).await;
        proxy.refuse(false);
        until(&direct, "key", 0, 0).await;
    });
}

#[test]
fn a_connector_may_look_at_its_client() {
    run(async {
        let own: Arc<OnceLock<Client>> = Arc::default();
        let (tell, told) = smol::channel::unbounded();
        let seen = Arc::clone(&own);
        let connector = move || {
            if let Some(client) = seen.get() {
                let _ = tell.try_send(client.is_connected());
            }
            async { Err::<smol::net::TcpStream, _>(io::ErrorKind::ConnectionRefused.into()) }
        };
        let client = Client::builder()
            .connector(connector)
            .backoff(Duration::from_millis(1), Duration::from_millis(1));
        // In there only: where this hangs, to drop one would hang as well.
        own.set(client.build().expect("a client")).ok();
        assert_eq!(told.recv().await, Ok(false));
        own.get().expect("it is set").clone().close().await;
    });
}

#[test]
fn a_connector_that_panics_ends_its_own_client_only() {
    run(async {
        let broker = broker().await;
        let other = connect(&broker).await;
        let guard = other.lock("key").await.expect("a grant");
        let panics = || -> std::future::Ready<std::io::Result<smol::net::TcpStream>> {
            panic!("a bug in a connector")
        };
        let error = Client::builder().connector(panics).connect().await;
        let error = error.expect_err("it has panicked");
        assert!(matches!(error, ConnectError::Closed), "{error}");
        guard.release().await.expect("a release");
    });
}

#[test]
fn a_stream_of_the_users_own_is_as_good() {
    run(async {
        let broker = broker().await;
        let address = address(&broker);
        let connector = move || smol::net::TcpStream::connect(address);
        let client = Client::builder().connector(connector).connect().await;
        let client = client.expect("a connection");
        let guard = client.lock("key").await.expect("a grant");
        let waiting = smol::spawn(client.lock("key").into_future());
        guard.release().await.expect("a release");
        drop(waiting.await.expect("a grant"));
        client.close().await;
    });
}

/// The machine cannot be suspended here, so this asks the kernel what is waited for.
#[test]
#[cfg(target_os = "linux")]
fn the_time_that_the_machine_is_suspended_counts() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let _guard = client.lock("key").lease(LONG).await.expect("a grant");
        // CLOCK_BOOTTIME, and a time that it is set to.
        let is_set =
            |info: String| info.contains("clockid: 7\n") && !info.contains("it_value: (0, 0)");
        let is_one_set = || {
            let mut open = std::fs::read_dir("/proc/self/fdinfo").expect("a folder");
            open.any(|fd| std::fs::read_to_string(fd.expect("an entry").path()).is_ok_and(is_set))
        };
        while !is_one_set() {
            // Between two looks, not instead of one.
            Alarm::after(Duration::from_millis(2)).await;
        }
    });
}

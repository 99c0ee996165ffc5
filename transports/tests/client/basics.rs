//! Locking, and all that can be asked.

use std::time::{Duration, Instant};

use lmx_core::RequestId;
use lmx_core::client::Loss;
use lmx_transports::clock;
use lmx_transports::state::StatePlace;
use lmx_transports::{Broker, Client, ConnectError, Endpoint, LockError, Pool, ReleaseError};
use smol::future::FutureExt;

use super::{LONG, broker, connect, run, setup, until};

fn now() -> Instant {
    clock::to_std(clock::now()).expect("a time like any other")
}

#[test]
fn a_lock_is_granted_and_released() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let guard = client.lock("key").await.expect("a grant");
        assert!(guard.is_valid());
        assert_eq!(guard.key(), b"key");
        let shown = format!("{guard:?}");
        assert!(
            shown.starts_with(r#"Guard { keys: ["key"], id: "#),
            "{shown}"
        );
        assert!(guard.deadline().is_some_and(|deadline| {
            let now = now();
            deadline > now && deadline < now + Duration::from_secs(4)
        }));
        let first = guard.token();
        guard.release().await.expect("a release");
        let guard = client.lock("key").await.expect("a grant");
        assert!(guard.token() > first);
        client.close().await;
    });
}

#[test]
fn what_is_not_said_is_as_in_live_mutex() {
    assert_eq!(Endpoint::default().to_string(), "localhost:6970");
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        assert_eq!(client.status().await.expect("an answer").sessions, 1);
        let guard = client.lock("key").await.expect("a grant");
        let found = client.inspect("key").await.expect("an answer");
        let lease = found.requests[0].remaining.expect("it has a lease");
        assert!(lease <= Duration::from_secs(4), "{lease:?}");
        assert!(!found.requests[0].keep);
        // What waits does so for three times three seconds.
        let lock = format!("{:?}", client.lock("key"));
        assert!(lock.contains("wait: For(9s)"), "{lock}");
        drop(guard);
    });
}

#[test]
fn dropping_a_guard_gives_its_lock_back() {
    run(async {
        let broker = broker().await;
        let (one, two) = (connect(&broker).await, connect(&broker).await);
        let guard = one.lock("key").await.expect("a grant");
        let waiting = smol::spawn(two.lock("key").into_future());
        until(&one, "key", 1, 1).await;
        drop(guard);
        drop(waiting.await.expect("a grant"));
    });
}

#[test]
fn dropping_a_waiting_future_cancels_the_request_at_the_broker() {
    run(async {
        let broker = broker().await;
        let (one, two) = (connect(&broker).await, connect(&broker).await);
        let guard = one.lock("key").await.expect("a grant");
        let waiting = smol::spawn(two.lock("key").wait_forever().into_future());
        until(&one, "key", 1, 1).await;
        waiting.cancel().await;
        until(&one, "key", 1, 0).await;
        guard.release().await.expect("a release");
        until(&one, "key", 0, 0).await;
    });
}

#[test]
fn a_future_that_was_never_polled_asks_for_nothing() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        drop(client.lock("key").into_future());
        until(&client, "key", 0, 0).await;
    });
}

#[test]
fn a_lock_that_may_not_wait_says_who_holds_it() {
    run(async {
        let broker = broker().await;
        let one = setup(&broker).name("printer-7").connect().await.unwrap();
        let guard = one.lock("key").label("page 3").await.expect("a grant");
        let error = connect(&broker).await.lock("key").try_now().await;
        let error = error.expect_err("a refusal");
        let text = error.to_string();
        assert!(
            matches!(error, LockError::Busy { waiting: 0, .. }),
            "{text}"
        );
        for part in ["key", "printer-7", "page 3", &guard.id().to_string()] {
            assert!(text.contains(part), "{text}");
        }
    });
}

#[test]
fn a_wait_ends_with_a_timeout_error() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let _guard = client.lock("key").await.expect("a grant");
        let wait = Duration::from_millis(30);
        let error = client.lock("key").wait(wait).await.expect_err("a timeout");
        assert!(
            matches!(error, LockError::TimedOut { waited } if waited == wait),
            "{error}"
        );
        until(&client, "key", 1, 0).await;
    });
}

#[test]
fn a_lease_that_the_caller_sets_is_a_hard_limit() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let guard = client.lock("key").lease(Duration::from_millis(100));
        let guard = guard.await.expect("a grant");
        assert_eq!(guard.lost().await, Loss::Expired);
        assert!(!guard.is_valid());
        assert!(guard.deadline().is_some_and(|deadline| deadline <= now()));
        let error = guard.release().await.expect_err("it is lost");
        assert!(
            matches!(error, ReleaseError::Lost(Loss::Expired)),
            "{error}"
        );
    });
}

#[test]
fn a_lease_that_is_renewed_moves_on_whatever_the_executor_does() {
    // Nothing runs on this executor while the other thread looks.
    let other = run(async { broker().await });
    run(async {
        let client = connect(&other).await;
        let lease = Duration::from_millis(1200);
        let guard = client
            .lock("key")
            .lease(lease)
            .renewed()
            .await
            .expect("a grant");
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                run(async {
                    let looker = connect(&other).await;
                    let mut longest = Duration::ZERO;
                    loop {
                        let found = looker.inspect("key").await.expect("an answer");
                        longest = longest.max(found.requests[0].age);
                        // Held for twice its lease.
                        if longest > 2 * lease {
                            break;
                        }
                    }
                });
            });
            looking.join().expect("it was held throughout");
        });
        assert!(guard.is_valid());
    });
}

#[test]
fn a_lease_is_changed_by_hand() {
    run(async {
        let broker = broker().await;
        let client = setup(&broker).resume_window(LONG);
        let client = client.connect().await.expect("a connection");
        let guard = client
            .lock("key")
            .lease(Duration::from_secs(50))
            .await
            .expect("a grant");
        guard.renew(Some(LONG)).await.expect("a renewal");
        assert!(guard.deadline().is_some_and(|at| at > now() + LONG / 2));
        guard
            .renew(Some(Duration::from_millis(20)))
            .await
            .expect("a renewal");
        assert_eq!(guard.lost().await, Loss::Expired);
        guard.renew(Some(LONG)).await.expect_err("it is lost");
    });
}

#[test]
fn a_kept_lock_outlives_its_client_and_is_released_by_key_and_id() {
    run(async {
        let broker = broker().await;
        let (one, two) = (connect(&broker).await, connect(&broker).await);
        let id = one
            .lock("key")
            .keep()
            .no_lease()
            .await
            .expect("a grant")
            .into_id();
        one.close().await;
        until(&two, "key", 1, 0).await;
        let error = two.release("other", id).await.expect_err("the wrong key");
        assert!(matches!(error, ReleaseError::WrongKey { .. }), "{error}");
        let wrong = RequestId::from_u128(1);
        two.release("key", wrong).await.expect_err("the wrong id");
        two.release("key", id).await.expect("a release");
        two.release_id(id).await.expect_err("it is released");
        until(&two, "key", 0, 0).await;
    });
}

#[test]
fn force_ends_a_hold_and_tells_its_holder() {
    run(async {
        let broker = broker().await;
        let (one, two) = (connect(&broker).await, connect(&broker).await);
        let guard = one.lock("key").await.expect("a grant");
        let ended = two.force_release("key").await.expect("an answer");
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].id, guard.id());
        assert_eq!(guard.lost().await, Loss::Revoked);
        let next = one.lock("key").await.expect("a grant");
        let ended = two
            .force_release_request(next.id())
            .await
            .expect("an answer");
        assert_eq!(ended.map(|holder| holder.id), Some(next.id()));
        assert_eq!(two.force_release("key").await.expect("an answer").len(), 0);
    });
}

#[test]
fn a_request_is_cancelled_by_its_id() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let _guard = client.lock("key").await.expect("a grant");
        let id = RequestId::from_u128(77);
        let waiting = smol::spawn(client.lock("key").id(id).into_future());
        until(&client, "key", 1, 1).await;
        let twice = client
            .lock("key")
            .id(id)
            .await
            .expect_err("it waits already");
        assert!(matches!(twice, LockError::DuplicateId(_)), "{twice}");
        assert!(client.cancel(id).await);
        let error = waiting.await.expect_err("it was cancelled");
        assert!(matches!(error, LockError::Cancelled), "{error}");
        assert!(!client.cancel(id).await);
    });
}

#[test]
fn the_broker_is_asked_what_it_has() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        // More than one page of each.
        let count = 3000_u32;
        let mut guards = Vec::new();
        for number in 0..count {
            let name = format!("key number {number:0200}");
            guards.push(client.lock(name).await.expect("a grant"));
        }
        assert_eq!(client.list().await.expect("an answer").len(), guards.len());
        let mut readers = Vec::new();
        for _ in 0..count {
            readers.push(client.lock("shared").shared().await.expect("a grant"));
        }
        let found = client.inspect("shared").await.expect("an answer");
        assert_eq!(found.requests.len(), readers.len());
        assert_eq!(client.status().await.expect("an answer").held, 2 * count);
        client.ping().await.expect("an answer");
        let nobody = client.inspect("nobody").await.expect("an answer");
        assert!(nobody.requests.is_empty());
        client.inspect("").await.expect_err("no key");
    });
}

#[test]
fn one_client_carries_any_number_of_requests_at_one_time() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let held = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (client, held) = (client.clone(), held.clone());
                smol::spawn(async move {
                    for _ in 0..20 {
                        let guard = client.lock("key").wait_forever().await.expect("a grant");
                        let others = held.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(others, 0, "two held at one time");
                        held.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        guard.release().await.expect("a release");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn a_pool_has_several_sessions() {
    run(async {
        let broker = broker().await;
        let pool = Pool::connect(setup(&broker), 3).await.expect("connections");
        assert_eq!(pool.size(), 3);
        let looker = connect(&broker).await;
        assert_eq!(looker.status().await.expect("an answer").sessions, 4);
        let _one = pool.lock("one").await.expect("a grant");
        let _two = pool.lock_all(["two", "three"]).await.expect("a grant");
        pool.close().await;
    });
}

#[test]
fn no_broker_is_an_error_that_names_the_address_and_what_to_do() {
    run(async {
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let error = Client::connect(&address.to_string())
            .await
            .expect_err("nobody");
        let text = error.to_string();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{text}");
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(
            text.contains(&format!("lmx start {}", address.port())),
            "{text}"
        );
        let error = Client::connect("unix:/nowhere/lmx.sock")
            .await
            .expect_err("nobody");
        assert!(
            error
                .to_string()
                .contains("lmx start --unix /nowhere/lmx.sock")
        );
        Client::connect("host:port").await.expect_err("no address");
    });
}

#[test]
fn a_client_that_is_not_let_in_says_why() {
    run(async {
        let broker = Broker::builder().tcp("127.0.0.1", 0).auth_token("sesame");
        let broker = broker.bind().await.expect("a broker");
        let error = connect_error(setup(&broker)).await;
        assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("token"), "{error}");
        let let_in = setup(&broker).auth_token("sesame").connect().await;
        let_in.expect("a connection");
    });
}

async fn connect_error(builder: lmx_transports::ClientBuilder) -> ConnectError {
    builder.connect().await.expect_err("it is not let in")
}

#[test]
fn what_is_no_broker_is_said_to_be_none() {
    run(async {
        let listener = smol::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let hang_up = async {
            loop {
                drop(listener.accept().await);
            }
        };
        let error = Client::connect(&address)
            .or(hang_up)
            .await
            .expect_err("nobody");
        assert!(matches!(error, ConnectError::HungUp { .. }), "{error}");
        assert!(error.to_string().contains(&address), "{error}");
    });
}

#[test]
fn who_says_nothing_is_not_said_to_have_hung_up() {
    run(async {
        let listener = smol::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = Client::builder()
            .port(address.port())
            .host("127.0.0.1")
            .connect_timeout(Duration::from_millis(20));
        let error = client.connect().await.expect_err("nobody");
        assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    });
}

#[test]
fn bad_requests_are_refused_with_what_would_be_right() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let long = vec![b'k'; 2000];
        for (request, part) in [
            (client.lock(""), "at least one byte"),
            (client.lock(&long), "at most 1024 bytes"),
            (client.lock("a").also("a"), "only once"),
            (client.lock_all([""; 0]), "at least one key"),
            (client.lock("a").lease(Duration::ZERO), "longer than zero"),
            (client.lock("a").lease(Duration::MAX), "at most"),
            (client.lock("a").semaphore(2, 3), "1 to 2 permits"),
            (client.lock("a").label([b'l'; 300]), "at most 256 bytes"),
        ] {
            let error = request.await.expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        drop(client.lock("a").await.expect("the client goes on"));
    });
}

#[test]
fn a_closed_client_refuses_and_its_locks_are_given_back() {
    run(async {
        let broker = broker().await;
        let (one, two) = (connect(&broker).await, connect(&broker).await);
        let clone = one.clone();
        let guard = one.lock("key").await.expect("a grant");
        one.close().await;
        assert_eq!(guard.lost().await, Loss::SessionLost);
        let error = clone.lock("key").await.expect_err("it is closed");
        assert!(matches!(error, LockError::Closed), "{error}");
        clone.ensure().await.expect_err("it is closed");
        drop(two.lock("key").await.expect("a grant"));
    });
}

#[test]
fn a_session_ends_with_its_last_handle() {
    run(async {
        let broker = broker().await;
        let looker = connect(&broker).await;
        let client = connect(&broker).await;
        let guard = client.lock("key").await.expect("a grant");
        drop(client);
        assert!(guard.is_valid());
        until(&looker, "key", 1, 0).await;
        drop(guard);
        while looker.status().await.expect("an answer").sessions > 1 {}
    });
}

#[test]
fn a_unix_socket_is_as_good() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lmx.sock");
        let broker = Broker::builder()
            .unix(&path)
            .state(StatePlace::Ephemeral)
            .bind()
            .await
            .expect("a broker");
        let client = Client::builder()
            .unix(&path)
            .connect()
            .await
            .expect("a connection");
        drop(client.lock("key").await.expect("a grant"));
        drop(broker);
    });
}

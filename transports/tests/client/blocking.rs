//! The client without async.

use std::time::Duration;

use lmx_core::client::Loss;
use lmx_transports::LockError;
use lmx_transports::blocking::Client;

use super::{broker, run, setup};

#[test]
fn it_does_what_the_async_one_does() {
    let broker = run(broker());
    let client = setup(&broker).connect_blocking().expect("a connection");
    let guard = client.lock("key").acquire().expect("a grant");
    assert!(guard.is_valid());
    let error = client
        .lock("key")
        .try_now()
        .acquire()
        .expect_err("it is held");
    assert!(matches!(error, LockError::Busy { .. }), "{error}");
    assert_eq!(client.inspect("key").expect("an answer").requests.len(), 1);
    guard.release().expect("a release");
    let short = client.lock("key").lease(Duration::from_millis(50));
    let guard = short.acquire().expect("a grant");
    assert_eq!(guard.lost(), Loss::Expired);
    drop(guard);
    let mut guard = client.lock("key").acquire().expect("a grant");
    guard.downgrade().expect("a conversion");
    guard.upgrade().expect("a conversion");
    guard
        .renew(Some(Duration::from_secs(9)))
        .expect("a renewal");
    let id = guard.into_id();
    client.release("key", id).expect("a release");
    assert!(client.list().expect("an answer").is_empty());
    client.close();
}

#[test]
fn threads_share_a_client() {
    let broker = run(broker());
    let client = setup(&broker).connect_blocking().expect("a connection");
    let inside = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let guard = client
                        .lock("key")
                        .wait_forever()
                        .acquire()
                        .expect("a grant");
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    guard.release().expect("a release");
                }
            });
        }
    });
}

#[test]
fn nobody_there_is_an_error() {
    let error = Client::connect("unix:/nowhere/lmx.sock").expect_err("nobody");
    assert!(error.to_string().contains("/nowhere/lmx.sock"), "{error}");
}

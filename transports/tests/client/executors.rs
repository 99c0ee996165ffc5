//! Any executor will do.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use lmx_transports::Guard;

use super::{broker, connect, guarded, run, setup, until};

#[test]
fn tokio_with_several_threads() {
    let broker = run(broker());
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    tokio.block_on(guarded(async {
        let client = connect(&broker).await;
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move {
                    for _ in 0..10 {
                        let guard = client.lock("key").wait_forever().await.expect("a grant");
                        tokio::task::yield_now().await;
                        guard.release().await.expect("a release");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
    }));
}

#[test]
fn tokio_with_one_thread_where_dropping_a_future_cancels_its_request() {
    let broker = run(broker());
    let tokio = tokio::runtime::Builder::new_current_thread().build();
    tokio.expect("a runtime").block_on(guarded(async {
        let client = connect(&broker).await;
        let guard = client.lock("key").await.expect("a grant");
        let waiting = client.clone();
        let waiting = tokio::spawn(async move { waiting.lock("key").wait_forever().await });
        until(&client, "key", 1, 1).await;
        waiting.abort();
        until(&client, "key", 1, 0).await;
        drop(guard);
        until(&client, "key", 0, 0).await;
    }));
}

#[test]
fn an_executor_that_knows_nothing_but_to_poll() {
    let broker = run(broker());
    smol::future::block_on(guarded(async {
        let client = setup(&broker).connect().await.expect("a connection");
        let guard = client.lock("key").await.expect("a grant");
        guard.release().await.expect("a release");
    }));
}

/// A task of an executor that leaves it to wakers to keep tasks, with the lock that it has.
struct Task {
    _lock: Guard,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn an_executor_whose_tasks_end_with_their_last_waker() {
    let broker = run(broker());
    run(async {
        let client = connect(&broker).await;
        let other = client.lock("other").await.expect("a grant");
        let task = async |key: &str| {
            let lock = client.lock(key).await.expect("a grant");
            Waker::from(Arc::new(Task { _lock: lock }))
        };
        let waker = task("a").await;
        {
            let lost = pin!(other.lost());
            assert!(lost.poll(&mut Context::from_waker(&waker)).is_pending());
        }
        drop(waker);
        drop(other);
        let waker = task("b").await;
        {
            let status = pin!(client.status());
            // It may be answered at once.
            let _ = status.poll(&mut Context::from_waker(&waker));
            drop(waker);
        }
        for key in ["other", "a", "b"] {
            until(&client, key, 0, 0).await;
        }
    });
}

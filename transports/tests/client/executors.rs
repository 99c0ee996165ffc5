//! Any executor will do.

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

//! Brokers and clients that never sleep: whatever is learned elsewhere from how long waits
//! were, here all of them are short.

use std::time::Duration;

use lmx_transports::{Broker, Client};
use smol::LocalExecutor;
use smol::future::{self, FutureExt as _};

use super::{LONG, run, until};

/// Longer than the tests live.
const ALWAYS: Duration = Duration::from_hours(1);

async fn awake() -> (Broker, Client) {
    let builder = Broker::builder().tcp("127.0.0.1", 0).busy_poll(ALWAYS);
    let broker = builder.bind().await.expect("a broker");
    let setup = Client::builder().endpoint(broker.addresses()[0].clone());
    let client = setup.busy_poll(ALWAYS).connect().await;
    let client = client.expect("a connection");
    // A few short waits, and neither side sleeps any more.
    for _ in 0..20 {
        client.ping().await.expect("an answer");
    }
    (broker, client)
}

#[test]
fn those_who_are_woken_together_are_all_served() {
    run(async {
        let (broker, client) = awake().await;
        let executor = LocalExecutor::new();
        let cycles = async || {
            for _ in 0..100 {
                let guard = client.lock("key").lease(LONG).wait_forever().await;
                guard.expect("a grant").release().await.expect("a release");
            }
        };
        let tasks: Vec<_> = (0..20).map(|_| executor.spawn(cycles())).collect();
        let all = async {
            for task in tasks {
                task.await;
            }
        };
        executor.run(all).await;
        let status = client.status().await.expect("an answer");
        assert_eq!((status.grants, status.held, status.waiting), (2000, 0, 0));
        broker.stop().await.expect("a clean end");
    });
}

#[test]
fn those_who_are_woken_and_have_gone_keep_nobody_waiting() {
    run(async {
        let (broker, client) = awake().await;
        let executor = LocalExecutor::new();
        let cycles = async |impatience: usize| {
            for turn in 0..100 {
                let locked = async { Some(client.lock("key").wait_forever().await) };
                let gives_up = async {
                    for _ in 0..(turn * impatience) % 7 {
                        future::yield_now().await;
                    }
                    None
                };
                // What is given up on may be granted at that moment.
                if let Some(guard) = locked.or(gives_up).await {
                    drop(guard.expect("a grant"));
                }
            }
        };
        let tasks: Vec<_> = (1..20).map(|by| executor.spawn(cycles(by))).collect();
        let all = async {
            for task in tasks {
                task.await;
            }
        };
        executor.run(all).await;
        until(&client, "key", 0, 0).await;
        broker.stop().await.expect("a clean end");
    });
}

#[test]
fn an_awake_broker_hears_of_its_stop_and_of_deadlines() {
    run(async {
        let (broker, client) = awake().await;
        let lease = Duration::from_millis(20);
        let guard = client.lock("key").lease(lease).await;
        guard.expect("a grant").lost().await;
        broker.stop().await.expect("a clean end");
    });
}

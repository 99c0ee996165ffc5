//! The clients against a real broker, over real sockets.

mod awake;
mod basics;
mod blocking;
mod executors;
mod faults;
mod modes;
mod proxy;
mod semantics;

use std::time::Duration;

use lmx_transports::clock::Alarm;
use lmx_transports::{Broker, Client, ClientBuilder};
use smol::future::FutureExt;

/// A lease or window that no test lives to see the end of.
const LONG: Duration = Duration::from_mins(10);

/// Runs `test` on this thread, and ends it if it hangs.
fn run<T>(test: impl Future<Output = T>) -> T {
    smol::block_on(guarded(test))
}

async fn guarded<T>(test: impl Future<Output = T>) -> T {
    let hang = async {
        Alarm::after(Duration::from_mins(1)).await;
        panic!("the test hangs")
    };
    test.or(hang).await
}

async fn broker() -> Broker {
    Broker::builder()
        .tcp("127.0.0.1", 0)
        .bind()
        .await
        .expect("a broker")
}

fn setup(broker: &Broker) -> ClientBuilder {
    Client::builder().endpoint(broker.addresses()[0].clone())
}

async fn connect(broker: &Broker) -> Client {
    setup(broker).connect().await.expect("a connection")
}

/// Waits until `client` sees so many requests hold `key` and so many wait for it.
async fn until(client: &Client, key: &str, holders: u32, waiters: u32) {
    loop {
        let key = client.inspect(key).await.expect("an answer").key;
        if (key.holders, key.waiters) == (holders, waiters) {
            return;
        }
        smol::future::yield_now().await;
    }
}

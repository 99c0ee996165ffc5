//! Workers that do a job only while they have its lock, and a store that refuses whoever has
//! lost it without knowing.
//!
//! ```sh
//! cargo run --example worker                       # with a broker of its own
//! cargo run --example worker -- localhost:6970     # with that of `lmx start`
//! ```

use std::cell::Cell;
use std::error::Error;
use std::time::Duration;

use lmx::{Broker, Client, Endpoint, FencingToken};
use smol::future;

/// What the lock protects. It needs no clock and asks no broker: it remembers one number.
#[derive(Default)]
struct Ledger {
    newest: Cell<Option<FencingToken>>,
}

impl Ledger {
    fn write(&self, line: &str, token: FencingToken) -> Result<(), String> {
        if let Some(newest) = self.newest.get().filter(|newest| token < *newest) {
            return Err(format!("{line} comes with token {token}, after {newest}"));
        }
        self.newest.set(Some(token));
        println!("{line}, with token {token}");
        Ok(())
    }
}

/// Returns the token that it worked under.
async fn work(
    client: &Client,
    ledger: &Ledger,
    name: &str,
) -> Result<FencingToken, Box<dyn Error>> {
    let guard = client
        .lock("the ledger")
        .label(name)
        .wait(Duration::from_secs(30))
        .await?;
    let token = guard.token();
    let job = async {
        for line in 1..=3 {
            ledger.write(&format!("{name}, line {line}"), token)?;
            // Here others run, and the lock may be lost.
            future::yield_now().await;
        }
        Ok(())
    };
    // Once the lock is lost the job is dropped where it stands.
    let lost = async { Err(guard.lost().await.into()) };
    let done: Result<(), Box<dyn Error>> = future::or(job, lost).await;
    done?;
    guard.release().await?;
    Ok(token)
}

fn main() -> Result<(), Box<dyn Error>> {
    run(std::env::args().nth(1).as_deref())
}

fn run(address: Option<&str>) -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let mut broker = None;
        let endpoint: Endpoint = if let Some(address) = address {
            address.parse()?
        } else {
            let own = Broker::builder().tcp("127.0.0.1", 0).bind().await?;
            let address = own.addresses()[0].clone();
            broker = Some(own);
            address.into()
        };
        let client = Client::builder().endpoint(endpoint).connect().await?;

        let ledger = Ledger::default();
        let (one, two) =
            future::zip(work(&client, &ledger, "one"), work(&client, &ledger, "two")).await;
        let first = one?.min(two?);
        let late = ledger.write("somebody who overslept", first);
        println!(
            "refused: {}",
            late.expect_err("its lock is another's by now")
        );

        client.close().await;
        if let Some(broker) = broker {
            broker.stop().await?;
        }
        Ok(())
    })
}

#[test]
fn runs() {
    run(None).expect("it runs");
}

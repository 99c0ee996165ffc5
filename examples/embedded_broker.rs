//! A broker inside a program, beside the clients that use it: no second process, nothing to
//! install.
//!
//! ```sh
//! cargo run --example embedded_broker
//! ```

use std::error::Error;
use std::time::Duration;

use lmx::{Broker, Client};

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        // Port 0: the kernel chooses. Others can connect to it, too.
        let broker = Broker::builder().tcp("127.0.0.1", 0).bind().await?;
        let address = broker.addresses()[0].clone();
        println!("the broker listens on {address}");

        let client = Client::builder()
            .endpoint(address)
            .name("the example")
            .connect()
            .await?;
        let guard = client.lock("the printer").label("page 1 of 1").await?;
        println!("locked, with token {}", guard.token());

        let busy = client.lock("the printer").try_now().await;
        println!("a second request: {}", busy.expect_err("it is held"));

        guard.release().await?;
        let short = client.lock("the printer").lease(Duration::from_secs(1));
        println!("locked again, until {:?}", short.await?.deadline());

        client.close().await;
        broker.stop().await?;
        Ok(())
    })
}

#[test]
fn runs() {
    main().expect("it runs");
}

//! The core's client and broker, connected by nothing but two calls, in virtual time.
//!
//! No sockets, no threads, no clock: an hour passes in an instant, and the same way on
//! every machine. It is how to test a program that locks.
//!
//! ```sh
//! cargo run --example in_memory_pipe
//! ```

use std::error::Error;
use std::time::Duration;

use lmx::RequestId;
use lmx::core::Instant;
use lmx::core::broker::{Broker, BrokerConfig, ConnectionId};
use lmx::core::client::{Client, ClientConfig, ClientEvent, LockRequest};

struct World {
    now: Instant,
    broker: Broker,
    client: Client,
    connection: Option<ConnectionId>,
}

impl World {
    fn new() -> Result<Self, Box<dyn Error>> {
        let now = Instant::EPOCH;
        Ok(Self {
            now,
            broker: Broker::new(now, BrokerConfig::default())?,
            client: Client::new(now, ClientConfig::default()),
            connection: None,
        })
    }

    /// Moves bytes until neither side has any.
    fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        if self.client.wants_connection(self.now) {
            self.connection = Some(self.broker.connect(self.now)?);
            self.client.handle_connected(self.now);
        }
        let Some(connection) = self.connection else {
            return Ok(());
        };
        loop {
            let request = self.client.output().to_vec();
            self.client.consume_output(request.len());
            self.broker.handle_input(self.now, connection, &request);
            while self.broker.poll_connection().is_some() {}
            let reply = self.broker.output(connection).to_vec();
            self.broker
                .consume_output(self.now, connection, reply.len());
            self.client.handle_input(self.now, &reply);
            if request.is_empty() && reply.is_empty() {
                return Ok(());
            }
        }
    }

    /// Lets time pass, doing what is due when it is due.
    fn pass(&mut self, span: Duration) -> Result<(), Box<dyn Error>> {
        let end = self.now + span;
        loop {
            self.settle()?;
            let due = [self.client.poll_timeout(), self.broker.poll_timeout()];
            match due.into_iter().flatten().min() {
                Some(due) if due <= end => self.now = self.now.max(due),
                _ => break,
            }
            self.broker.handle_timeout(self.now);
            self.client.handle_timeout(self.now);
        }
        self.now = end;
        self.settle()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut world = World::new()?;
    world.settle()?;

    let id = RequestId::from_u128(1);
    let request = LockRequest {
        lease: Some(Duration::from_secs(4)),
        renew: true,
        ..LockRequest::new(id, b"the printer")
    };
    world.client.acquire(world.now, request)?;
    world.pass(Duration::from_hours(1))?;
    while let Some(event) = world.client.poll_event() {
        println!("{event:?}");
    }
    let held = world.client.held(world.now, id).ok_or("it was lost")?;
    println!("still held after an hour, with token {}", held.token);

    world.client.release(world.now, id);
    world.settle()?;
    let released = world.client.poll_event();
    println!("{released:?}");
    assert!(matches!(released, Some(ClientEvent::Released { .. })));
    Ok(())
}

#[test]
fn runs() {
    main().expect("it runs");
}

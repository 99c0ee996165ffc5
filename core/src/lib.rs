//! The sans-IO heart of LMX: a lock service as pure state machines.
//!
//! Three machines are stacked, and each can be used alone. None reads a clock, sleeps,
//! spawns, or draws randomness: time is an argument, and seeds are configuration.
//!
//! ```text
//!    bytes ─▶ Client ─▶ bytes ═══ any transport ═══ bytes ─▶ Broker ─▶ LockTable
//! ```
//!
//! All have the same four kinds of methods: getters; requests; `handle_timeout(now)`, due
//! not later than `poll_timeout()`; and `poll_*`, which drain what came of it.
//!
//! # The lock table alone
//!
//! [`LockTable`] has no bytes and no connections: whoever embeds it brings sessions of his
//! own. With [`storage::Fixed`] it needs no heap.
//!
//! ```
//! use core::time::Duration;
//! use lmx_core::storage::Fixed;
//! use lmx_core::{Acquire, Acquired, Event, Instant, Key, LockTable, Mode, RequestId, Wait, Want};
//!
//! // Room for 4 keys, 8 requests and 2 sessions.
//! let mut table = LockTable::<Fixed<4, 8, 2>>::new(Fixed::<4, 8, 2>::config())?;
//! let mut now = Instant::EPOCH;
//! let (one, two) = (
//!     table.open_session(now, Duration::ZERO)?,
//!     table.open_session(now, Duration::ZERO)?,
//! );
//!
//! // Requests are answered at once, with a grant or a place in the queue ...
//! let wants = [Want { key: Key::new(b"spi", 16)?, mode: Mode::Exclusive }];
//! let ask = |id| Acquire {
//!     lease: Some(Duration::from_millis(10)),
//!     wait: Wait::For(Duration::from_millis(50)),
//!     ..Acquire::new(RequestId::from_u128(id), &wants)
//! };
//! let first = table.acquire(now, one, &ask(1))?;
//! assert!(matches!(first, Acquired::Granted(grant) if grant.deadline == Some(Instant::from_millis(10))));
//! assert_eq!(table.acquire(now, two, &ask(2))?, Acquired::Queued { ahead: 0 });
//!
//! // ... and what happens later is an event. The run loop: sleep until something is due,
//! // tell the table so, and tell those whom it concerns.
//! let mut told = Vec::new();
//! while let Some(due) = table.poll_timeout() {
//!     now = due;
//!     table.handle_timeout(now);
//!     while let Some(session) = table.poll_session() {
//!         while let Some(event) = table.poll_event(session) {
//!             told.push((session, event));
//!         }
//!     }
//! }
//! assert!(matches!(told[0], (session, Event::Expired { .. }) if session == one));
//! assert!(matches!(told[1], (session, Event::Granted { .. }) if session == two));
//! assert!(matches!(told[2], (session, Event::Expired { .. }) if session == two));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The broker and the client
//!
//! [`broker::Broker`] adds connections, sessions that survive them, and the wire;
//! [`client::Client`] is the other end. Here both live in one program, and bytes pass from
//! hand to hand where otherwise a transport stands; the heads of [`broker`] and [`client`]
//! have the run loop of each alone.
//!
//! ```
//! # #[cfg(feature = "alloc")] {
//! use lmx_core::broker::{Broker, BrokerConfig};
//! use lmx_core::client::{Client, ClientConfig, ClientEvent, LockRequest};
//! use lmx_core::{Instant, RequestId};
//!
//! let mut now = Instant::EPOCH;
//! let mut broker = Broker::new(now, BrokerConfig::default())?;
//! let mut client = Client::new(now, ClientConfig::default());
//! client.acquire(now, LockRequest::new(RequestId::from_u128(1), b"the printer"))?;
//!
//! let mut connection = None;
//! let mut token = None;
//! while !client.is_closed() {
//!     // The client says when it wants a connection.
//!     if client.wants_connection(now) {
//!         connection = Some(broker.connect(now)?);
//!         client.handle_connected(now);
//!     }
//!     // Bytes from the client to the broker, and back.
//!     if let Some(id) = connection {
//!         let bytes = client.output().to_vec();
//!         client.consume_output(bytes.len());
//!         broker.handle_input(now, id, &bytes);
//!     }
//!     while let Some(changed) = broker.poll_connection() {
//!         let bytes = broker.output(changed).to_vec();
//!         broker.consume_output(now, changed, bytes.len());
//!         client.handle_input(now, &bytes);
//!     }
//!     // What the client has to tell its user, and what that one says to it.
//!     while let Some(event) = client.poll_event() {
//!         match event {
//!             ClientEvent::Granted { id, held } => {
//!                 token = Some(held.token);
//!                 client.release(now, id);
//!             }
//!             ClientEvent::Released { result, .. } => {
//!                 result?;
//!                 client.close(now);
//!             }
//!             _ => {}
//!         }
//!     }
//!     // Either side may end the connection.
//!     if let Some(id) = connection
//!         && (client.is_closing() || broker.is_closing(id))
//!     {
//!         broker.handle_disconnect(now, id);
//!         client.handle_disconnected(now);
//!         connection = None;
//!     }
//!     // Time passes, and what is due is done. (With nothing to move, sleep until the
//!     // earlier of the two `poll_timeout()`s.)
//!     now = now + core::time::Duration::from_micros(1);
//!     broker.handle_timeout(now);
//!     client.handle_timeout(now);
//! }
//! assert!(token.is_some());
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod arena;
#[cfg(feature = "alloc")]
pub mod broker;
#[cfg(feature = "alloc")]
pub mod client;
mod config;
#[cfg(feature = "alloc")]
mod dialect;
mod hash;
mod id;
mod index;
mod key;
mod list;
#[cfg(lmx_planted)]
pub mod planted;
#[cfg(not(lmx_planted))]
mod planted;
pub mod storage;
pub mod table;
mod time;
mod timers;
pub mod wire;

pub use config::{ConfigError, TableConfig};
pub use id::{FencingToken, RequestId, SessionId};
pub use key::{Key, KeyError};
pub use table::{Acquire, Acquired, Event, Grant, LockTable, Mode, Wait, Want};
pub use time::Instant;

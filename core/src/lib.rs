//! The sans-IO heart of LMX.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

mod arena;
#[cfg(feature = "alloc")]
pub mod broker;
#[cfg(feature = "alloc")]
pub mod client;
mod config;
#[cfg(feature = "alloc")]
pub mod dialect;
mod id;
mod index;
mod key;
mod list;
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

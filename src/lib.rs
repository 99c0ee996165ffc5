//! LMX: a networked lock service.
//!
//! A small broker queues lock requests and pushes grants, with leases, fencing tokens and
//! fair queues. [`Client`] asks it for locks from any async executor, [`blocking::Client`]
//! from none; [`core`] is everything without input and output, for runtimes of your own.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = lmx::Client::connect("localhost:6970").await?;
//! let guard = client.lock("the printer").await?;
//! println!("mine, with token {}", guard.token());
//! guard.release().await?;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use lmx_core as core;
pub use lmx_core::client::{Holder, KeyInfo, Loss};
pub use lmx_core::{FencingToken, Mode, RequestId};
pub use lmx_transports::*;

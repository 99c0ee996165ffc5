//! LMX over TCP and Unix sockets.

pub mod broker;
pub mod clock;
pub mod launch;
pub mod net;

pub use broker::{Broker, BrokerBuilder};

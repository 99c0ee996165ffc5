//! LMX over TCP and Unix sockets.

pub mod blocking;
pub mod broker;
mod busy_poll;
mod client;
pub mod clock;
pub mod launch;
pub mod net;
mod pool;
pub mod state;
#[cfg(feature = "tls")]
pub mod tls;

pub use broker::{Broker, BrokerBuilder};
pub use client::{
    BoxStream, Client, ClientBuilder, ConnectError, ConvertError, Guard, Inspection, Lock,
    LockError, LockFuture, Lost, QueryError, ReleaseError, RenewError, Stream,
};
pub use launch::launch_if_absent;
pub use net::{DEFAULT_HOST, DEFAULT_PORT, Endpoint, EndpointError};
pub use pool::Pool;

//! LMX over TCP and Unix sockets.

pub mod clock;

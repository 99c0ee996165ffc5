//! LMX over TCP and Unix sockets.

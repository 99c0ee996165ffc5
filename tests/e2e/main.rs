//! The built product: real processes, real sockets.

mod acquire;
mod bench;
mod garbage;
mod harness;
mod launch;
mod lessons;
mod live_mutex;
mod mistakes;
mod order;
mod run;
mod semantics;
mod start;
mod stopped;

//! What a client does, as scripts: with a broker whose every word is written down, and with
//! the real one. Time is virtual throughout.

mod edges;
mod faults;
mod random;
mod real;
mod scripted;
mod world;

use core::time::Duration;

use crate::Instant;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

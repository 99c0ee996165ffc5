//! Open descriptors: whether this process may have as many as it needs.

use std::io;
use std::os::unix::net::UnixStream;

use super::exit::{self, Failure};

/// Pairs of descriptors without which the runtime does not start: it panics.
pub(super) const OF_RUNTIME: usize = 3;
/// Pairs of descriptors without which a broker would start, and serve nobody.
pub(super) const OF_START: usize = 12;
/// What a broker opens besides its connections, or somewhat more.
const OF_BROKER: u64 = 32;

/// Fails if there is not even room for so many pairs.
pub(super) fn check(pairs: usize) -> Result<(), Failure> {
    let opened: io::Result<Vec<_>> = (0..pairs).map(|_| UnixStream::pair()).collect();
    match opened {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(
            exit::SYSTEM,
            format!("cannot open the few descriptors that this command needs: {error}"),
        )
        .hint("raise the limit of open descriptors: ulimit -n")),
    }
}

/// What to say of a limit that does not let a broker have most of the connections that it may
/// have.
pub(super) fn shortage(limit: u64, connections_max: u32) -> Option<String> {
    let wanted = u64::from(connections_max);
    let room = limit.saturating_sub(OF_BROKER);
    (room < wanted * 9 / 10).then(|| {
        format!(
            "this process may open {limit} descriptors, too few for {connections_max} \
             connections (--connections-max): those that do not fit will wait; raise the limit \
             (ulimit -n, or LimitNOFILE= of systemd), or allow fewer connections"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_difference_is_not_told_of() {
        for (limit, connections_max, is_told) in [
            (u64::MAX, u32::MAX, false),
            (16_384, 16_384, false),
            (15_000, 16_384, false),
            (1024, 16_384, true),
            (1024, 1000, false),
            (1024, 10, false),
            (20, 10, true),
        ] {
            let told = shortage(limit, connections_max);
            assert_eq!(told.is_some(), is_told, "{limit} for {connections_max}");
        }
    }
}

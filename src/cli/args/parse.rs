//! Single values, parsed at the edge with errors that say what would be right.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// A TCP port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "a port is a number from 0 to 65535; the default is 6970".to_owned())
}

/// A number of things of which there is at least one.
pub(super) fn at_least_one(text: &str) -> Result<NonZeroU32, String> {
    text.parse()
        .map_err(|_| format!("write a number from 1 to {}", u32::MAX))
}

/// A length of time: with units, or a bare number of milliseconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(millis) = text.parse::<u64>() {
        return Ok(Duration::from_millis(millis));
    }
    humantime::parse_duration(text).map_err(|_| {
        "write a time as 500ms, 4s, 1m30s or 2h, or as a bare number of milliseconds".to_owned()
    })
}

/// A length of time that is not zero.
pub(super) fn lease(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => {
            Err("a lease is longer than zero; leave it out for a lock without one".to_owned())
        }
        lease => Ok(lease),
    }
}

/// A length of time, or for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaybeForever {
    /// Without end.
    Forever,
    /// So long.
    For(Duration),
}

impl FromStr for MaybeForever {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        duration(text)
            .map(Self::For)
            .map_err(|error| format!("{error}, or say forever"))
    }
}

/// A semaphore as it is typed: `CAPACITY` or `CAPACITY:PERMITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permits {
    /// Permits in all.
    pub(crate) capacity: NonZeroU32,
    /// Permits that are asked for.
    pub(crate) permits: NonZeroU32,
}

impl FromStr for Permits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "write CAPACITY or CAPACITY:PERMITS, as in 10 or 10:2; both are at least 1".to_owned()
        };
        let number = |text: &str| text.parse::<NonZeroU32>().map_err(|_| wrong());
        let (capacity, permits) = match text.split_once(':') {
            Some((capacity, permits)) => (number(capacity)?, number(permits)?),
            None => (number(text)?, NonZeroU32::MIN),
        };
        if permits > capacity {
            return Err(format!(
                "{permits} permits can never be had of a capacity of {capacity}"
            ));
        }
        Ok(Self { capacity, permits })
    }
}

/// Permissions of a socket's file.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or("write permissions in octal, as in 600 or 660; the default is 600")?;
    if mode & 0o222 == 0 {
        return Err(format!(
            "with permissions {mode:03o} nobody could connect, which takes the one to write; \
             the default is 600"
        ));
    }
    Ok(mode)
}

/// The number of an owner.
pub(super) fn owner(text: &str) -> Result<NonZeroU32, String> {
    text.parse()
        .map_err(|_| format!("an owner is a number from 1 to {}", u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_milliseconds() {
        assert_eq!(duration("4000"), Ok(Duration::from_secs(4)));
        assert_eq!(duration("4s"), Ok(Duration::from_secs(4)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "-1", "4 parsecs", "1.5", "NaN", "99999999999999999999"] {
            assert!(duration(wrong).unwrap_err().contains("500ms"), "{wrong}");
        }
    }

    #[test]
    fn a_lease_is_longer_than_zero() {
        for zero in ["0", "0s", "0ms"] {
            assert!(lease(zero).unwrap_err().contains("longer than zero"));
        }
    }

    #[test]
    fn for_ever_is_a_word() {
        assert_eq!("forever".parse(), Ok(MaybeForever::Forever));
        assert_eq!("0".parse(), Ok(MaybeForever::For(Duration::ZERO)));
        assert!("never".parse::<MaybeForever>().is_err());
    }

    #[test]
    fn permits_fit_their_capacity() {
        let one = NonZeroU32::MIN;
        let three = NonZeroU32::new(3).unwrap();
        assert_eq!(
            "3".parse(),
            Ok(Permits {
                capacity: three,
                permits: one
            })
        );
        assert_eq!(
            "3:3".parse(),
            Ok(Permits {
                capacity: three,
                permits: three
            })
        );
        for wrong in ["", "0", "3:0", "3:4", "3:", ":3", "3:1:1", "-1", "x"] {
            assert!(wrong.parse::<Permits>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_no_number() {
        assert_eq!(at_least_one("1"), Ok(NonZeroU32::MIN));
        for wrong in ["0", "-1", "", "x", "4294967296"] {
            assert!(at_least_one(wrong).unwrap_err().contains("from 1"));
        }
    }

    #[test]
    fn permissions_let_somebody_connect() {
        assert_eq!(mode("600"), Ok(0o600));
        assert_eq!(mode("020"), Ok(0o020));
        assert_eq!(mode("777"), Ok(0o777));
        for wrong in ["0", "000", "555", "400"] {
            assert!(mode(wrong).unwrap_err().contains("nobody"), "{wrong}");
        }
        for wrong in ["", "8", "1777", "-1", "rw"] {
            assert!(mode(wrong).unwrap_err().contains("octal"), "{wrong}");
        }
    }

    #[test]
    fn ports_fit_sixteen_bits() {
        assert_eq!(port("0"), Ok(0));
        assert_eq!(port("65535"), Ok(65535));
        for wrong in ["65536", "-1", "http", ""] {
            assert!(port(wrong).unwrap_err().contains("65535"));
        }
    }
}

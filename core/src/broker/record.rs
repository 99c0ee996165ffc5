//! What a broker must remember across a restart, and how that is written down.
//!
//! ```text
//! magic "LMXS" │ version u32 │ body length u32 │ checksum u64 │ body (postcard)
//! ```
//!
//! All integers are little-endian; the checksum is `SipHash` under a fixed key, of
//! everything before it and the body. It finds accidents, not forgers: who can write the
//! file can do anything.

use alloc::vec::Vec;
use core::hash::Hasher as _;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use crate::{FencingToken, Mode, RequestId, SessionId};

const MAGIC: [u8; 4] = *b"LMXS";
/// Version of the format; others are refused.
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 20;

/// What safety needs after a restart, and no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The run of the broker that wrote this.
    pub incarnation: u64,
    /// No larger token was given.
    pub token_ceiling: FencingToken,
    /// Key for the secrets of sessions: clients show to the successor what they were
    /// given by this run.
    pub secret_seed: [u8; 16],
    /// How long a holder whose session is not listed may still believe in its hold after
    /// the broker is gone.
    pub reach: Duration,
    /// Whether there may be holders that are not in `sessions`: live-mutex clients, kept
    /// holds with short leases, or more sessions than are listed.
    pub has_unlisted: bool,
    /// The native sessions that may hold something.
    pub sessions: Vec<Believer>,
    /// Kept holds that may be believed in for longer than `reach`, or for ever.
    pub holds: Vec<KeptHold>,
}

/// A session that may hold something when the broker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Believer {
    /// The run of the broker that opened it.
    pub incarnation: u64,
    /// Which.
    pub session: SessionId,
    /// How long it may still believe after the broker is gone.
    pub reach: Duration,
}

/// A hold that outlives its session, and the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptHold {
    /// Its request.
    pub id: RequestId,
    /// Its token.
    pub token: FencingToken,
    /// How long it may still be believed in, at most; `None` for ever.
    pub lease: Option<Duration>,
    /// Its keys, and how each is held.
    pub keys: Vec<(Vec<u8>, Mode)>,
    /// Who and why.
    pub label: Vec<u8>,
    /// Delay after its end by expiry.
    pub lock_delay: Duration,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It does not begin as one.
    #[error("it is not a state file of an LMX broker")]
    Foreign,
    /// It is of another version.
    #[error("it has format version {found}, and this broker reads version {VERSION} only")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It ends too early, or too late.
    #[error("it has {found} bytes, and should have {expected}")]
    Length {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        expected: usize,
    },
    /// Its bytes are not those that were written.
    #[error("its checksum is wrong: it was damaged")]
    Checksum,
    /// Its body is not one, although the checksum is right.
    #[error("its body cannot be read, although its checksum is right")]
    Body,
}

impl Record {
    /// The record as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_allocvec(self).expect("a record has only plain data");
        let length = u32::try_from(body.len()).expect("a record is shorter than 4 GiB");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        let checksum = checksum(&bytes, &body);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The record in `bytes`, which must be all of it and nothing else.
    ///
    /// # Errors
    ///
    /// When they are not exactly what [`encode`](Self::encode) gave.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let is_begun = bytes
            .iter()
            .zip(&MAGIC)
            .all(|(found, right)| found == right);
        let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
            let (found, expected) = (bytes.len(), HEADER_BYTES);
            return Err(if is_begun {
                RecordError::Length { found, expected }
            } else {
                RecordError::Foreign
            });
        };
        if !is_begun {
            return Err(RecordError::Foreign);
        }
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if word(4) != VERSION {
            return Err(RecordError::Version { found: word(4) });
        }
        let expected = HEADER_BYTES.saturating_add(word(8) as usize);
        if bytes.len() != expected {
            let found = bytes.len();
            return Err(RecordError::Length { found, expected });
        }
        let stored = u64::from(word(12)) | u64::from(word(16)) << 32;
        if checksum(&header[..12], body) != stored {
            return Err(RecordError::Checksum);
        }
        match postcard::take_from_bytes(body) {
            Ok((record, [])) => Ok(record),
            _ => Err(RecordError::Body),
        }
    }
}

fn checksum(header: &[u8], body: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(header);
    hasher.write(body);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn record() -> Record {
        Record {
            incarnation: 7,
            token_ceiling: FencingToken::new(1 << 20).unwrap(),
            secret_seed: *b"0123456789abcdef",
            reach: Duration::from_secs(10),
            has_unlisted: false,
            sessions: vec![Believer {
                incarnation: 6,
                session: SessionId::from_u64(9),
                reach: Duration::from_secs(4),
            }],
            holds: vec![KeptHold {
                id: RequestId::from_u128(3),
                token: FencingToken::FIRST,
                lease: None,
                keys: vec![(b"key".to_vec(), Mode::Exclusive)],
                label: b"who".to_vec(),
                lock_delay: Duration::from_millis(3),
            }],
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        assert_eq!(Record::decode(&record().encode()), Ok(record()));
    }

    #[test]
    fn no_truncation_passes() {
        let bytes = record().encode();
        for length in 0..bytes.len() {
            let error = Record::decode(&bytes[..length]).unwrap_err();
            assert!(
                matches!(error, RecordError::Length { .. }),
                "{length}: {error}"
            );
        }
    }

    #[test]
    fn no_flipped_bit_passes() {
        let bytes = record().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = record().encode();
        bytes[4] = 1;
        assert_eq!(
            Record::decode(&bytes),
            Err(RecordError::Version { found: 1 })
        );
        assert_eq!(
            Record::decode(b"something else altogether"),
            Err(RecordError::Foreign)
        );
    }
}

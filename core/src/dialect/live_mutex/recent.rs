//! What became of requests and keys that the table has forgotten.
//!
//! The original never forgets a key it has seen, and answers a second unlock by
//! what became of the first. A fixed cache gives the same answers for as long as
//! anybody asks in practice, within bounds: a newer entry drives out an older one, and
//! what is driven out is answered as never seen.

use alloc::vec::Vec;
use core::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::RequestId;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its client has confirmed the grant; it may still be held.
    Received,
    /// Released by its id.
    Released,
    /// Its ttl ran out, or somebody ended it by force: its client does not know yet,
    /// and its own release is to succeed, once.
    Ended,
    /// It ended with its connection: the same, but a retry is a new request, since the answer
    /// to the first may have been lost, too.
    Lost,
}

impl Fate {
    /// Whether a release is still to be answered by it.
    const fn is_to_be_told(self) -> bool {
        matches!(self, Self::Ended | Self::Lost)
    }
}

/// The newest requests that ended, and the newest keys that were locked.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// In sets, the newest of each first.
    requests: Vec<Option<Known>>,
    keys: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    id: RequestId,
    fate: Fate,
    /// Whether its client confirmed the grant, whatever came then.
    is_confirmed: bool,
}

/// Places of each cache; a power of two.
const PLACES: usize = 8192;

/// Places of a set of requests.
const WAYS: usize = 8;

impl Recent {
    pub(super) fn fate(&self, id: RequestId) -> Option<Fate> {
        self.known(id).map(|known| known.fate)
    }

    /// Whether a retry under this id is one that its own grant has overtaken. After a grant that
    /// was confirmed there is none: clients repeat only what they have no answer to.
    pub(super) fn overtakes_retries(&self, id: RequestId) -> bool {
        self.known(id)
            .is_some_and(|known| !known.is_confirmed && known.fate != Fate::Lost)
    }

    /// Drives out the oldest of its set, but first of all what nobody is to be told any more:
    /// so that a busy broker does not forget in no time whose release is still to succeed.
    pub(super) fn note(&mut self, id: RequestId, fate: Fate) {
        if self.requests.is_empty() {
            self.requests.resize(PLACES, None);
        }
        let set = &mut self.requests[set(id)];
        let same = set
            .iter()
            .position(|known| known.is_some_and(|known| known.id == id));
        let is_confirmed = fate == Fate::Received
            || same.is_some_and(|at| set[at].is_some_and(|known| known.is_confirmed));
        let at = same
            .or_else(|| set.iter().position(Option::is_none))
            .or_else(|| {
                set.iter()
                    .rposition(|known| known.is_some_and(|known| !known.fate.is_to_be_told()))
            })
            .unwrap_or(WAYS - 1);
        set[..=at].rotate_right(1);
        set[0] = Some(Known {
            id,
            fate,
            is_confirmed,
        });
    }

    /// Forgets a request whose id begins a new life.
    pub(super) fn forget(&mut self, id: RequestId) {
        for known in self.requests.get_mut(set(id)).unwrap_or_default() {
            if known.is_some_and(|known| known.id == id) {
                *known = None;
            }
        }
    }

    fn known(&self, id: RequestId) -> Option<Known> {
        let set = self.requests.get(set(id))?;
        set.iter().flatten().find(|known| known.id == id).copied()
    }

    pub(super) fn knows_key(&self, key: &[u8]) -> bool {
        let hash = hash(key);
        self.keys.get(place(hash.into())) == Some(&hash)
    }

    pub(super) fn note_key(&mut self, key: &[u8]) {
        if self.keys.is_empty() {
            self.keys.resize(PLACES, 0);
        }
        let hash = hash(key);
        self.keys[place(hash.into())] = hash;
    }
}

fn set(id: RequestId) -> core::ops::Range<usize> {
    let first = (id.as_u128() % (PLACES / WAYS) as u128) as usize * WAYS;
    first..first + WAYS
}

fn place(bits: u128) -> usize {
    (bits % PLACES as u128) as usize
}

/// Zero stands for an empty place. Two keys of one hash only share an answer's words.
fn hash(key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(key);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_last_until_their_place_is_needed() {
        let mut recent = Recent::default();
        let nth = |n: usize| RequestId::from_u128((5 + n * (PLACES / WAYS)) as u128);
        assert_eq!(recent.fate(nth(0)), None);
        recent.note(nth(0), Fate::Received);
        recent.note(nth(0), Fate::Ended);
        assert_eq!(recent.fate(nth(0)), Some(Fate::Ended));
        assert_eq!(recent.fate(nth(1)), None);
        recent.forget(nth(1));
        assert_eq!(recent.fate(nth(0)), Some(Fate::Ended));
        // Those that were released make room for each other.
        for n in 1..100 {
            recent.note(nth(n), Fate::Released);
            assert_eq!(recent.fate(nth(n)), Some(Fate::Released));
        }
        assert_eq!(recent.fate(nth(0)), Some(Fate::Ended));
        assert_eq!(recent.fate(nth(93)), Some(Fate::Released));
        assert_eq!(recent.fate(nth(92)), None);
        // If there are none, the oldest goes.
        for n in 100..100 + WAYS {
            recent.note(nth(n), Fate::Ended);
        }
        assert_eq!(recent.fate(nth(0)), None);
        assert_eq!(recent.fate(nth(100)), Some(Fate::Ended));
        recent.forget(nth(100));
        assert_eq!(recent.fate(nth(100)), None);
    }

    #[test]
    fn a_retry_is_overtaken_by_a_grant_that_was_not_confirmed() {
        let mut recent = Recent::default();
        let id = RequestId::from_u128(5);
        assert!(!recent.overtakes_retries(id));
        recent.note(id, Fate::Released);
        assert!(recent.overtakes_retries(id));
        recent.note(id, Fate::Received);
        recent.note(id, Fate::Released);
        assert!(!recent.overtakes_retries(id));
        recent.forget(id);
        recent.note(id, Fate::Ended);
        assert!(recent.overtakes_retries(id));
        recent.note(id, Fate::Lost);
        assert!(!recent.overtakes_retries(id));
    }

    #[test]
    fn keys_are_known_once_noted() {
        let mut recent = Recent::default();
        assert!(!recent.knows_key(b"a"));
        recent.note_key(b"a");
        assert!(recent.knows_key(b"a") && !recent.knows_key(b"b"));
    }
}

//! What became of requests and keys that the table has forgotten.
//!
//! The original never forgets a key it has seen, and answers a second unlock by
//! what became of the first. A fixed cache gives the same answers for as long as
//! anybody asks in practice, within bounds: a newer entry overwrites an older one
//! that shares its place, and what is overwritten is answered as never seen.

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
}

/// The newest requests that ended, and the newest keys that were locked.
#[derive(Debug, Default)]
pub(super) struct Recent {
    requests: Vec<Option<(RequestId, Fate)>>,
    keys: Vec<u64>,
}

/// Places of each cache; a power of two.
const PLACES: usize = 8192;

impl Recent {
    pub(super) fn fate(&self, id: RequestId) -> Option<Fate> {
        match self.requests.get(place(id.as_u128())) {
            Some(Some((known, fate))) if *known == id => Some(*fate),
            _ => None,
        }
    }

    pub(super) fn note(&mut self, id: RequestId, fate: Fate) {
        if self.requests.is_empty() {
            self.requests.resize(PLACES, None);
        }
        self.requests[place(id.as_u128())] = Some((id, fate));
    }

    /// Forgets a request whose id begins a new life.
    pub(super) fn forget(&mut self, id: RequestId) {
        if self.fate(id).is_some() {
            self.requests[place(id.as_u128())] = None;
        }
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
        let id = RequestId::from_u128(5);
        assert_eq!(recent.fate(id), None);
        recent.note(id, Fate::Received);
        recent.note(id, Fate::Ended);
        assert_eq!(recent.fate(id), Some(Fate::Ended));
        let rival = RequestId::from_u128(5 + PLACES as u128);
        assert_eq!(recent.fate(rival), None);
        recent.forget(rival);
        assert_eq!(recent.fate(id), Some(Fate::Ended));
        recent.note(rival, Fate::Released);
        assert_eq!(recent.fate(id), None);
        recent.forget(rival);
        assert_eq!(recent.fate(rival), None);
    }

    #[test]
    fn keys_are_known_once_noted() {
        let mut recent = Recent::default();
        assert!(!recent.knows_key(b"a"));
        recent.note_key(b"a");
        assert!(recent.knows_key(b"a") && !recent.knows_key(b"b"));
    }
}

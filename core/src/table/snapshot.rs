//! Saving the whole state of a table, and making a table of it again.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::TableConfig;
use crate::arena::{Arena, NONE};
use crate::index::Index;
use crate::storage::{Spare, Storage};
use crate::table::core::Core;
use crate::table::slots::{
    ClaimSlot, ExtrasSlot, Head, LockSlot, Piece, RequestSlot, SessionSlot, State,
};
use crate::table::text::hash_of;
use crate::table::{LoadError, LockTable, Parts};
use crate::timers::Timer;

/// The whole state of a table, without its configuration.
///
/// It is the same whatever the storage and the hash seed, so tables that were asked the
/// same have equal states. What is in it is not for reading; see
/// [`LockTable::keys`] for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    head: Head,
    requests: Vec<RequestSlot>,
    request_timers: Vec<Timer>,
    claims: Vec<ClaimSlot>,
    locks: Vec<LockSlot>,
    lock_timers: Vec<Timer>,
    sessions: Vec<SessionSlot>,
    session_timers: Vec<Timer>,
    extras: Vec<ExtrasSlot>,
    pieces: Vec<Piece>,
}

impl<S: Storage> LockTable<S> {
    /// The whole state of the table.
    #[must_use]
    pub fn save(&self) -> Snapshot {
        let core = self.core_ref();
        let (head, parts) = (core.head, core.parts);
        let mut saved = Snapshot {
            requests: used(parts.requests, &head.requests),
            request_timers: armed(parts.request_heap, head.request_timers),
            claims: used(parts.claims, &head.claims),
            locks: used(parts.locks, &head.locks),
            lock_timers: armed(parts.lock_heap, head.lock_timers),
            sessions: used(parts.sessions, &head.sessions),
            session_timers: armed(parts.session_heap, head.session_timers),
            extras: used(parts.extras, &head.extras),
            pieces: used(parts.pieces, &head.pieces),
            head: head.clone(),
        };
        saved.forget_indices();
        saved
    }

    /// A table in the state that was saved.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if no table with this configuration can be in that state. That is
    /// found out without a panic whatever the state is made of.
    pub fn load(config: TableConfig, saved: &Snapshot) -> Result<Self, LoadError> {
        let mut table = Self::new(config)?;
        let head = &saved.head;
        let sizes = [
            (saved.requests.len(), head.requests.fresh),
            (saved.request_timers.len(), head.request_timers),
            (saved.claims.len(), head.claims.fresh),
            (saved.locks.len(), head.locks.fresh),
            (saved.lock_timers.len(), head.lock_timers),
            (saved.sessions.len(), head.sessions.fresh),
            (saved.session_timers.len(), head.session_timers),
            (saved.extras.len(), head.extras.fresh),
            (saved.pieces.len(), head.pieces.fresh),
        ];
        if sizes.iter().any(|(len, said)| *len != *said as usize) {
            return Err(LoadError::Corrupt {
                what: "there are as many slots as are said to be",
            });
        }
        let spare = Spare {
            sessions: head.sessions.fresh,
            requests: head.requests.fresh,
            claims: head.claims.fresh,
            locks: head.locks.fresh,
            delaying_claims: head.lock_timers.saturating_add(head.delaying_claims),
            extras: head.extras.fresh,
            pieces: head.pieces.fresh,
        };
        table.storage.reserve(&table.head, &table.config, spare);
        table
            .core()
            .restore(saved)
            .and_then(|()| table.core_ref().verify())
            .map_err(|what| LoadError::Corrupt { what })?;
        Ok(table)
    }
}

impl Snapshot {
    /// The indices depend on the hash seed, and are made again.
    fn forget_indices(&mut self) {
        self.head.request_index = Index::new();
        self.head.lock_index = Index::new();
        self.head.owner_index = Index::new();
        self.locks.iter_mut().for_each(|lock| lock.hash = 0);
    }
}

impl Core<'_> {
    /// Takes on the state, whose vectors are as long as its head says.
    fn restore(&mut self, saved: &Snapshot) -> Result<(), &'static str> {
        let Parts {
            requests,
            request_heap,
            claims,
            locks,
            lock_heap,
            sessions,
            session_heap,
            extras,
            pieces,
            ..
        } = &mut self.parts;
        let fits = copy(requests, &saved.requests)
            && copy(request_heap, &saved.request_timers)
            && copy(claims, &saved.claims)
            && copy(locks, &saved.locks)
            && copy(lock_heap, &saved.lock_timers)
            && copy(sessions, &saved.sessions)
            && copy(session_heap, &saved.session_timers)
            && copy(extras, &saved.extras)
            && copy(pieces, &saved.pieces);
        if !fits {
            return Err("no limit is exceeded");
        }
        *self.head = saved.head.clone();
        let placed = place(self.parts.request_places, &saved.request_timers)
            && place(self.parts.lock_places, &saved.lock_timers)
            && place(self.parts.session_places, &saved.session_timers);
        if !placed {
            return Err("a slot knows where its deadline stands");
        }
        self.as_ref().verify_slots()?;
        self.check_pieces()?;
        self.index_all();
        Ok(())
    }

    /// Every piece belongs to one text, and every text ends.
    fn check_pieces(&self) -> Result<(), &'static str> {
        let mut seen = alloc::vec![false; self.head.pieces.fresh as usize];
        let texts = self.parts.locks[..self.head.locks.fresh as usize]
            .iter()
            .filter(|lock| lock.has_pieces())
            .map(LockSlot::first_piece);
        let labels = self.parts.extras[..self.head.extras.fresh as usize]
            .iter()
            .map(|extras| extras.label);
        for first in texts.chain(labels) {
            let mut at = first;
            while at != NONE {
                match seen.get_mut(at as usize) {
                    Some(seen @ false) => *seen = true,
                    _ => return Err("every piece belongs to a key or a label"),
                }
                at = self.parts.pieces[at as usize].next;
            }
        }
        Ok(())
    }

    fn index_all(&mut self) {
        self.head.request_index = Index::with_buckets(self.head.requests.fresh);
        self.head.lock_index = Index::with_buckets(self.head.locks.fresh);
        self.head.owner_index = Index::new();
        for request in 0..self.head.requests.fresh {
            let slot = &self.parts.requests[request as usize];
            if slot.state != State::Vacant {
                self.index_request(request, self.hasher.id(slot.id));
            }
        }
        for lock in 0..self.head.locks.fresh {
            if self.parts.locks[lock as usize].key_bytes() != 0 {
                let slot = &mut self.parts.locks[lock as usize];
                slot.hash = hash_of(slot, self.parts.pieces, self.hasher);
                let hash = slot.hash;
                self.index_lock(lock, hash);
            }
        }
        for extras in 0..self.head.extras.fresh {
            let slot = &self.parts.extras[extras as usize];
            if slot.has_owner() {
                self.index_owner(extras, slot.owner);
            }
        }
    }
}

fn used<T: Clone>(slots: &[T], arena: &Arena) -> Vec<T> {
    slots[..arena.fresh as usize].to_vec()
}

fn armed(heap: &[Timer], len: u32) -> Vec<Timer> {
    heap[..len as usize].to_vec()
}

/// Copies into the beginning of `slots`, if there are that many.
fn copy<T: Copy>(slots: &mut [T], saved: &[T]) -> bool {
    let Some(slots) = slots.get_mut(..saved.len()) else {
        return false;
    };
    slots.copy_from_slice(saved);
    true
}

/// Notes where each timer stands, if each has a slot of its own.
fn place(places: &mut [u32], timers: &[Timer]) -> bool {
    timers
        .iter()
        .zip(0..)
        .all(|(timer, place)| match places.get_mut(timer.slot as usize) {
            Some(free) if *free == NONE => {
                *free = place;
                true
            }
            _ => false,
        })
}

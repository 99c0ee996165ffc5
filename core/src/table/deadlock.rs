//! Owners that wait for each other in a circle: found before the circle is closed.
//!
//! A waiting request waits for the owners of the holders that it does not go together
//! with, and of those who wait before it on the same key. Each of these owners in turn
//! waits for whatever its own waiting requests wait for. The search goes depth-first over
//! waiting requests, marks them, and links them through their own slots into a stack. One
//! that is being searched stays on the stack below all that it led to: those that are
//! marked so are the way from the new request to the one that is looked at.

use core::num::NonZeroU32;

use crate::arena::NONE;
use crate::index::Index;
use crate::table::Owners;
use crate::table::core::Core;
use crate::table::slots::{Flags, Kind, State};
use crate::{Acquire, Mode};

/// One search: its work lists, and what is left of its budget.
struct Search {
    /// Who would close the circle.
    owner: NonZeroU32,
    /// The lock at whose front the new request would stand, if it would.
    front: u32,
    /// The top of the stack.
    top: u32,
    /// The newest of those that led nowhere.
    done: u32,
    left: u32,
}

impl Core<'_> {
    /// The circle in which the owner of `want` would come to wait for itself if `want`
    /// waited.
    pub(crate) fn closed_cycle(&mut self, want: &Acquire<'_>) -> Option<Owners> {
        let mut search = self.search(want.owner?);
        let mut found = false;
        for one in want.wants {
            let lock = self.as_ref().place_of(one.key).lock;
            if lock != NONE && !found {
                if want.front {
                    search.front = lock;
                }
                let upto = if want.front {
                    self.parts.locks[lock as usize].first_waiter
                } else {
                    NONE
                };
                found = self.look_at(&mut search, lock, upto, one.mode == Mode::Shared);
            }
        }
        self.finish(search, found)
    }

    /// The circle in which the owner of the shared hold would come to wait for itself if
    /// it waited to be the only holder.
    ///
    /// Two kinds of waiting begin with that: the upgrade waits for the other holders, and
    /// whoever waits to share the key waits for the upgrade. So the owner may close a
    /// circle by what it has waited for all along.
    pub(crate) fn cycle_closed_by_upgrade(&mut self, request: u32) -> Option<Owners> {
        let owner = self.as_ref().owner_of(request)?;
        let claim = self.parts.requests[request as usize].claim;
        let lock = self.parts.claims[claim as usize].lock();
        self.parts.locks[lock as usize].set_upgrade_waits(true);
        let mut search = self.search(owner);
        let found = self.look_at_holders(&mut search, request);
        if !found {
            self.search_waits_of(&mut search, owner);
        }
        let cycle = self.finish(search, found);
        self.parts.locks[lock as usize].set_upgrade_waits(false);
        cycle
    }

    fn search(&self, owner: NonZeroU32) -> Search {
        Search {
            owner,
            front: NONE,
            top: NONE,
            done: NONE,
            left: self.config.deadlock_search_max,
        }
    }

    /// Goes on until the circle is found, or nothing is left to look at.
    fn finish(&mut self, mut search: Search, found: bool) -> Option<Owners> {
        let mut found = found;
        while search.top != NONE && !found && search.left > 0 {
            let at = search.top;
            let flags = &mut self.parts.requests[at as usize].flags;
            if flags.has(Flags::SEARCHING) {
                flags.clear(Flags::SEARCHING);
                search.top = self.searched_after(at);
                self.link_searched(at, search.done);
                search.done = at;
            } else {
                flags.set(Flags::SEARCHING);
                found = self.look_at_waiter(&mut search, at);
            }
        }
        let cycle = found.then(|| self.found_cycle(&search));
        for list in [search.top, search.done] {
            let mut at = list;
            while at != NONE {
                let next = self.searched_after(at);
                let flags = &mut self.parts.requests[at as usize].flags;
                flags.clear(Flags::SEARCHED);
                flags.clear(Flags::SEARCHING);
                self.link_searched(at, NONE);
                at = next;
            }
        }
        cycle
    }

    /// The owners on the way from the one who asked to where it was found again.
    fn found_cycle(&self, search: &Search) -> Owners {
        let mut cycle = Owners::default();
        let mut at = search.top;
        while at != NONE {
            let owner = self.as_ref().owner_of(at);
            if self.parts.requests[at as usize].flags.has(Flags::SEARCHING)
                && let Some(owner) = owner
            {
                if owner == search.owner {
                    // One of its other requests is on the way: the circle is shorter.
                    break;
                }
                // An owner can come to wait for itself, behind its own waiting request.
                if cycle.first() != Some(owner) {
                    cycle.put_first(owner);
                }
            }
            at = self.searched_after(at);
        }
        cycle.put_first(search.owner);
        cycle
    }

    /// Looks at all that this waiting request, or waiting upgrade, waits for.
    fn look_at_waiter(&mut self, search: &mut Search, request: u32) -> bool {
        let slot = self.parts.requests[request as usize];
        if slot.state == State::Held {
            return self.look_at_holders(search, request);
        }
        let mut at = slot.claim;
        while at != NONE {
            let claim = self.parts.claims[at as usize];
            let lock = claim.lock();
            if lock == search.front || self.look_at(search, lock, at, claim.kind() == Kind::Shared)
            {
                return true;
            }
            at = claim.next;
        }
        false
    }

    /// Looks at those who keep a claim from being granted that stands on the lock right
    /// before the waiter `upto`, or last of all.
    fn look_at(&mut self, search: &mut Search, lock: u32, upto: u32, shares: bool) -> bool {
        let slot = self.parts.locks[lock as usize];
        let mut at = slot.first;
        while at != NONE && at != upto {
            let claim = self.parts.claims[at as usize];
            let waits = self.parts.requests[claim.request as usize].state == State::Waiting;
            let apart = !(shares && claim.kind() == Kind::Shared) || slot.upgrade_waits();
            if apart && self.look_at_blocker(search, claim.request) {
                return true;
            }
            // It is granted first, whether or not it is waited for after that.
            if waits {
                self.search_later(search, claim.request);
            }
            if search.left == 0 {
                return false;
            }
            at = crate::list::next(self.parts.claims, slot.first, at);
        }
        false
    }

    /// Looks at all holders of the request's key but itself.
    fn look_at_holders(&mut self, search: &mut Search, request: u32) -> bool {
        let claim = self.parts.requests[request as usize].claim;
        let lock = self.parts.claims[claim as usize].lock();
        let slot = self.parts.locks[lock as usize];
        let mut at = slot.first;
        for _ in 0..slot.holders {
            let claim = self.parts.claims[at as usize];
            if claim.request != request && self.look_at_blocker(search, claim.request) {
                return true;
            }
            at = claim.links.next;
        }
        false
    }

    /// Looks at the owner of somebody who is waited for: whether it is the one who would
    /// close the circle, and if not, what else it waits for itself.
    fn look_at_blocker(&mut self, search: &mut Search, request: u32) -> bool {
        search.left = search.left.saturating_sub(1);
        let Some(owner) = self.as_ref().owner_of(request) else {
            return false;
        };
        if owner == search.owner {
            return true;
        }
        self.search_waits_of(search, owner);
        false
    }

    /// Puts all that this owner waits for on the stack.
    fn search_waits_of(&mut self, search: &mut Search, owner: NonZeroU32) {
        let hash = self.hasher.owner(owner.get());
        let mut at = self.head.owner_index.first(self.parts.owner_cells, hash);
        while let Some(extras) = at
            && search.left > 0
        {
            let slot = &self.parts.extras[extras as usize];
            if slot.owner == owner.get() {
                search.left -= 1;
                let request = slot.request;
                let slot = &self.parts.requests[request as usize];
                if slot.state == State::Waiting || slot.flags.has(Flags::UPGRADING) {
                    self.search_later(search, request);
                }
            }
            at = Index::after(self.parts.owner_cells, extras);
        }
    }

    /// Puts a request that waits on the stack, once.
    fn search_later(&mut self, search: &mut Search, request: u32) {
        let flags = &mut self.parts.requests[request as usize].flags;
        if flags.has(Flags::SEARCHED) {
            return;
        }
        flags.set(Flags::SEARCHED);
        self.link_searched(request, search.top);
        search.top = request;
    }

    /// Links a request of a work list. Only those that have an owner can be held, and
    /// those have room in their extras; the others wait, and their `scratch` is free.
    fn link_searched(&mut self, request: u32, next: u32) {
        let slot = &mut self.parts.requests[request as usize];
        if slot.extras == NONE {
            slot.scratch = next;
        } else {
            self.parts.extras[slot.extras as usize].search = next;
        }
    }

    fn searched_after(&self, request: u32) -> u32 {
        let slot = &self.parts.requests[request as usize];
        if slot.extras == NONE {
            slot.scratch
        } else {
            self.parts.extras[slot.extras as usize].search
        }
    }
}

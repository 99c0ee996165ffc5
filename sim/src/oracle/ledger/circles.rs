//! Owners that wait for each other: whoever would close a circle is refused.
//!
//! Only what surely waits is looked at here: for a holder, or for one ahead in the queue,
//! with whom it can never hold at one time. And only where queues are so short that the
//! broker must have looked everywhere, for its search is bounded.

use super::books::{Place, excludes};
use super::{Ledger, Verdict, index};
use crate::oracle::Property;
use crate::oracle::wire::Asked;
use crate::plan::Mode;

impl Ledger {
    /// Nobody waits in a circle of owners. On the pages that were just turned.
    pub(super) fn judge_circles(&mut self) -> Option<Verdict> {
        if !self.has_owners {
            return None;
        }
        self.gave_up_searching |= self.looks_max() > self.limits.deadlock_search_max as usize;
        let mut waiting: Vec<u32> = Vec::new();
        for key in &self.keys {
            let upgraders = key.old.holders.iter().filter(|holder| holder.is_upgrading);
            waiting.extend(
                (key.old.waiters.iter().chain(upgraders)).filter_map(|place| self.owner(place)),
            );
        }
        // Who came while the broker did not look at all may be in a circle as long as they wait.
        self.gave_up_searching &= !waiting.is_empty();
        if self.gave_up_searching {
            return None;
        }
        waiting.sort_unstable();
        waiting.dedup();
        let owner = waiting
            .into_iter()
            .find(|owner| self.waits_for_itself(*owner))?;
        let detail = format!("owner {owner} waits for itself, in a circle that was not refused");
        Some((Property::Deadlock, detail))
    }

    /// More places than the broker can have had to look at.
    fn looks_max(&self) -> usize {
        let pages = self.keys.iter().map(|key| &key.old);
        let counts = pages.map(|page| page.holders.len() + page.waiters.len());
        let (all, squares) = counts.fold((0, 0), |(all, squares), count| {
            (all + count, squares + count * count)
        });
        squares * (all + 1)
    }

    fn waits_for_itself(&self, owner: u32) -> bool {
        let mut known = vec![owner];
        let mut at = 0;
        while let Some(waits) = known.get(at).copied() {
            for blocker in self.blockers(waits) {
                if blocker == owner {
                    return true;
                }
                if !known.contains(&blocker) {
                    known.push(blocker);
                }
            }
            at += 1;
        }
        false
    }

    /// The owners that this one waits for.
    fn blockers(&self, owner: u32) -> Vec<u32> {
        let mut blockers = Vec::new();
        for key in &self.keys {
            let page = &key.old;
            let mine = |place: &Place| self.owner(place) == Some(owner);
            for (at, waiter) in page.waiters.iter().enumerate().filter(|(_, one)| mine(one)) {
                let before = page.holders.iter().chain(&page.waiters[..at]);
                let in_the_way = before.filter(|other| excludes(other.mode, waiter.mode));
                blockers.extend(in_the_way.filter_map(|other| self.owner(other)));
            }
            for upgrader in page
                .holders
                .iter()
                .filter(|one| one.is_upgrading && mine(one))
            {
                let others = page.holders.iter().filter(|other| other.id != upgrader.id);
                blockers.extend(others.filter_map(|other| self.owner(other)));
            }
        }
        blockers
    }

    /// Who holds and waits for what, and on whose behalf, if this is asked for now. `None` if
    /// there are so many that a circle among them is not worth checking.
    pub(super) fn queues(&self, asked: &Asked) -> Option<Queues> {
        if self.looks_max() > self.limits.deadlock_search_max as usize {
            return None;
        }
        let seat = |place: &Place| Seat {
            id: place.id,
            owner: (index(place.id).and_then(|at| self.requests.get(at)))
                .map_or(0, |request| request.owner),
            mode: place.mode,
            is_upgrading: place.is_upgrading,
        };
        let mut queues = Vec::new();
        for key in &self.keys {
            let asks = asked.wants.iter().find(|(name, _)| *name == key.name);
            let last = asks.map(|(_, mode)| Seat {
                id: asked.id,
                owner: asked.owner,
                mode: *mode,
                is_upgrading: false,
            });
            let page = &key.old;
            let seats = page.holders.iter().chain(&page.waiters).map(seat);
            queues.push((page.holders.len(), seats.chain(last).collect()));
        }
        Some(Queues(queues))
    }

    /// On whose behalf it is, if that was looked at when it began to hold or wait.
    fn owner(&self, place: &Place) -> Option<u32> {
        let request = self.requests.get(index(place.id)?)?;
        (request.owner != 0 && !request.came_back).then_some(request.owner)
    }
}

/// One who holds or waits.
#[derive(Clone, Copy, Debug)]
struct Seat {
    id: u128,
    /// Zero for nobody.
    owner: u32,
    mode: Mode,
    is_upgrading: bool,
}

/// For each key, how many hold it, and they and those who wait for it, in order.
#[derive(Debug)]
pub(super) struct Queues(Vec<(usize, Vec<Seat>)>);

impl Queues {
    /// For which owners each of these waits, directly or for others who wait on nobody's behalf. No
    /// fewer: who goes together with whom is not looked at but for those who share.
    pub(super) fn waits_of(&self, owners: &[u32]) -> Vec<(u32, u32)> {
        let mut waits: Vec<(Seat, Seat)> = Vec::new();
        for (holders, seats) in &self.0 {
            let upgrader = seats.iter().find(|seat| seat.is_upgrading);
            for (at, one) in seats.iter().enumerate().skip(*holders) {
                let in_the_way = |(place, other): &(usize, &Seat)| {
                    let both_share = one.mode == Mode::Shared && other.mode == Mode::Shared;
                    *place >= *holders || !both_share || upgrader.is_some()
                };
                let before = seats[..at].iter().enumerate().filter(in_the_way);
                waits.extend(before.map(|(_, other)| (*one, *other)));
            }
            if let Some(one) = upgrader {
                let others = seats[..*holders].iter().filter(|other| other.id != one.id);
                waits.extend(others.map(|other| (*one, *other)));
            }
        }
        let (mut of_owners, mut done) = (Vec::new(), Vec::new());
        for (one, _) in waits.iter().filter(|(one, _)| owners.contains(&one.owner)) {
            if done.contains(&one.id) {
                continue;
            }
            done.push(one.id);
            let mut known = vec![one.id];
            let mut at = 0;
            while let Some(id) = known.get(at).copied() {
                for (_, next) in waits.iter().filter(|(waiter, _)| waiter.id == id) {
                    if next.owner != 0 {
                        of_owners.push((one.owner, next.owner));
                    } else if !known.contains(&next.id) {
                        known.push(next.id);
                    }
                }
                at += 1;
            }
        }
        of_owners
    }
}

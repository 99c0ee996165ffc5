//! Owners that wait for each other: whoever would close a circle is refused.
//!
//! Only what surely waits is looked at here: for a holder, or for one ahead in the queue,
//! with whom it can never hold at one time. And only where queues are so short that the
//! broker must have looked everywhere, for its search is bounded.

use super::books::{Place, excludes};
use super::{Ledger, Verdict, index};
use crate::oracle::Property;

/// What the broker's search is bounded by.
const SEARCH_MAX: usize = 10_000;

impl Ledger {
    /// Nobody waits in a circle of owners. On the pages that were just turned.
    pub(super) fn judge_circles(&self) -> Option<Verdict> {
        if !self.has_owners || self.looks_max() > SEARCH_MAX {
            return None;
        }
        let mut waiting: Vec<u32> = Vec::new();
        for key in &self.keys {
            let upgraders = key.old.holders.iter().filter(|holder| holder.is_upgrading);
            waiting.extend(
                (key.old.waiters.iter().chain(upgraders)).filter_map(|place| self.owner(place)),
            );
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

    /// On whose behalf it is, if that was looked at when it began to hold or wait.
    fn owner(&self, place: &Place) -> Option<u32> {
        let request = self.requests.get(index(place.id)?)?;
        (request.owner != 0 && !request.came_back).then_some(request.owner)
    }
}

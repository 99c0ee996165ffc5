//! The holders' own view: who believes to hold what, in true time.

use crate::plan::Mode;
use crate::plan::fault::NodeId;

/// One who believes to hold a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) op: u32,
    pub(crate) node: NodeId,
    pub(crate) mode: Mode,
    /// On the holder's own clock; `None` if no clock ends it.
    pub(crate) good_until_local_ns: Option<u64>,
    /// The same in true time, as far as is known now.
    pub(crate) until_ns: u64,
}

/// All who believe to hold something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds {
    by_key: Vec<Vec<Hold>>,
}

impl Holds {
    /// `hold` begins at `now_ns`. Returns whom it overlaps with, if it may not.
    pub(crate) fn enter(&mut self, now_ns: u64, key: u32, hold: Hold) -> Option<Hold> {
        if hold.until_ns <= now_ns {
            return None;
        }
        let key = key as usize;
        if self.by_key.len() <= key {
            self.by_key.resize(key + 1, Vec::new());
        }
        let holders = &mut self.by_key[key];
        holders.retain(|other| other.until_ns > now_ns);
        let clash = clash(holders, hold);
        holders.push(hold);
        clash
    }

    /// The hold of `op` on `key` ends.
    pub(crate) fn leave(&mut self, key: u32, op: u32) {
        if let Some(holders) = self.by_key.get_mut(key as usize)
            && let Some(place) = holders.iter().position(|hold| hold.op == op)
        {
            holders.swap_remove(place);
        }
    }

    /// The hold of `op` on `key` is in another mode from now on, or good for another time.
    pub(crate) fn change(
        &mut self,
        now_ns: u64,
        key: u32,
        op: u32,
        change: impl FnOnce(&mut Hold),
    ) -> Option<Hold> {
        let holders = self.by_key.get_mut(key as usize)?;
        let place = holders.iter().position(|hold| hold.op == op)?;
        let mut hold = holders.swap_remove(place);
        change(&mut hold);
        self.enter(now_ns, key, hold)
    }

    /// The hold of `op` on `key` is good until another time, if it is.
    pub(crate) fn extend(
        &mut self,
        now_ns: u64,
        key: u32,
        op: u32,
        good_until_local_ns: Option<u64>,
        until_ns: u64,
    ) -> Option<Hold> {
        let holders = self.by_key.get(key as usize)?;
        let hold = holders.iter().find(|hold| hold.op == op)?;
        if hold.good_until_local_ns == good_until_local_ns {
            return None;
        }
        self.change(now_ns, key, op, |hold| {
            hold.good_until_local_ns = good_until_local_ns;
            hold.until_ns = until_ns;
        })
    }

    /// The node's clock changed: its holds end at other true times.
    pub(crate) fn reclock(&mut self, node: NodeId, true_ns: impl Fn(u64) -> u64) {
        for hold in self.by_key.iter_mut().flatten() {
            if hold.node == node
                && let Some(local_ns) = hold.good_until_local_ns
            {
                hold.until_ns = true_ns(local_ns);
            }
        }
    }

    /// The node's process died, and its belief with it.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.forget_unless(node, |_| false);
    }

    /// The same of those of which this is not so.
    pub(crate) fn forget_unless(&mut self, node: NodeId, is_so: impl Fn(u32) -> bool) {
        for holders in &mut self.by_key {
            holders.retain(|hold| hold.node != node || is_so(hold.op));
        }
    }
}

/// Somebody among `holders` with whom `hold` may not hold.
fn clash(holders: &[Hold], hold: Hold) -> Option<Hold> {
    match hold.mode {
        Mode::Exclusive => holders.first().copied(),
        Mode::Shared => holders
            .iter()
            .find(|other| other.mode != Mode::Shared)
            .copied(),
        Mode::Semaphore { capacity, permits } => {
            let mut taken = permits;
            for other in holders {
                let Mode::Semaphore { permits, .. } = other.mode else {
                    return Some(*other);
                };
                taken = taken.saturating_add(permits);
            }
            // One who asks for more than a lowered capacity may hold alone.
            (taken > capacity)
                .then(|| holders.last().copied())
                .flatten()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(op: u32, mode: Mode, until_ns: u64) -> Hold {
        Hold {
            op,
            node: 1,
            mode,
            good_until_local_ns: Some(until_ns),
            until_ns,
        }
    }

    #[test]
    fn holds_that_overlap_clash_and_those_that_touch_do_not() {
        let mut holds = Holds::default();
        assert_eq!(holds.enter(0, 0, hold(1, Mode::Exclusive, 10)), None);
        assert_eq!(holds.enter(10, 0, hold(2, Mode::Exclusive, 20)), None);
        let clash = holds.enter(19, 0, hold(3, Mode::Exclusive, 30));
        assert_eq!(clash.map(|other| other.op), Some(2));
    }

    #[test]
    fn readers_share_and_permits_add_up() {
        let mut holds = Holds::default();
        assert_eq!(holds.enter(0, 0, hold(1, Mode::Shared, 10)), None);
        assert_eq!(holds.enter(0, 0, hold(2, Mode::Shared, 10)), None);
        assert!(holds.enter(0, 0, hold(3, Mode::Exclusive, 10)).is_some());
        let two_of_three = Mode::Semaphore {
            capacity: 3,
            permits: 2,
        };
        assert_eq!(holds.enter(0, 1, hold(4, two_of_three, 10)), None);
        assert!(holds.enter(0, 1, hold(5, two_of_three, 10)).is_some());
    }

    #[test]
    fn a_clock_that_slows_down_makes_a_hold_last_longer() {
        let mut holds = Holds::default();
        holds.enter(0, 0, hold(1, Mode::Exclusive, 10));
        holds.reclock(1, |local_ns| local_ns * 2);
        assert!(holds.enter(15, 0, hold(2, Mode::Exclusive, 30)).is_some());
    }
}

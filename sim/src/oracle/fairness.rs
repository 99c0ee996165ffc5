//! Order: how often a waiter is overtaken.

/// A request that waits and was told so.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    op: u32,
    queued_ns: u64,
    /// Faults that had struck when it was queued: an order is promised while nothing
    /// is wrong.
    faults: u32,
    overtaken: u32,
    /// When that had become too often.
    too_often_ns: Option<u64>,
}

/// A request that was granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Winner {
    pub(crate) key: u32,
    pub(crate) op: u32,
    pub(crate) asked_ns: u64,
}

/// The waiters of all keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiters {
    by_key: Vec<Vec<Waiter>>,
}

impl Waiters {
    /// `op` was told that it waits.
    pub(crate) fn queued(&mut self, now_ns: u64, key: u32, op: u32, faults: u32) {
        let key = key as usize;
        if self.by_key.len() <= key {
            self.by_key.resize(key + 1, Vec::new());
        }
        if self.by_key[key].iter().all(|waiter| waiter.op != op) {
            self.by_key[key].push(Waiter {
                op,
                queued_ns: now_ns,
                faults,
                overtaken: 0,
                too_often_ns: None,
            });
        }
    }

    /// `op` waits no longer.
    pub(crate) fn leave(&mut self, key: u32, op: u32) {
        if let Some(waiters) = self.by_key.get_mut(key as usize) {
            waiters.retain(|waiter| waiter.op != op);
        }
    }

    /// `winner` was granted. Returns who was overtaken more than `bypass_max` times and
    /// is so `grace_ns` later: its own grant may have been under way.
    pub(crate) fn granted(
        &mut self,
        now_ns: u64,
        winner: &Winner,
        faults: u32,
        bypass_max: u32,
        grace_ns: u64,
    ) -> Option<u32> {
        let Winner { key, op, asked_ns } = *winner;
        let waiters = self.by_key.get_mut(key as usize)?;
        let mut starved = None;
        for waiter in waiters {
            if waiter.op != op && waiter.queued_ns < asked_ns && waiter.faults == faults {
                waiter.overtaken += 1;
                if waiter.overtaken > bypass_max {
                    let since_ns = *waiter.too_often_ns.get_or_insert(now_ns);
                    if now_ns - since_ns > grace_ns {
                        starved = Some(waiter.op);
                    }
                }
            }
        }
        starved
    }
}

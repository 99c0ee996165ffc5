//! One page of the ledger per key, one line per request.

use lmx_core::broker::Broker;

use crate::plan::Mode;

/// A request, from the first time it was heard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Request {
    pub(super) asked: bool,
    /// `None` for one that came in another dialect, about which nothing was read.
    pub(super) session: Option<u64>,
    pub(super) keep: bool,
    pub(super) lock_delay_ns: u64,
    pub(super) lease_ns: Option<u64>,
    /// In the broker's time; `None` waits for ever.
    pub(super) wait_until_ns: Option<u64>,
    pub(super) waiting: bool,
    pub(super) token: Option<u64>,
    /// The token it had when it last held.
    pub(super) token_before: Option<u64>,
    pub(super) reclaimed: Option<u64>,
    /// A release, a cancel or force was heard.
    pub(super) may_end: bool,
    /// A renewal was heard, and would move the deadline here.
    pub(super) renewed: bool,
    pub(super) due_ns: Option<u64>,
    pub(super) converts: bool,
    /// It was asked for since the last page.
    pub(super) heard: bool,
    pub(super) seen: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) window_ns: u64,
    /// When it lost its connection.
    pub(super) lost_ns: Option<u64>,
    /// It was ended for good.
    pub(super) ended: bool,
}

/// Who holds or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: u128,
    pub(crate) mode: Mode,
    pub(crate) token: u64,
    pub(crate) granted_ns: u64,
    pub(crate) deadline_ns: Option<u64>,
}

/// A key's holders and waiters, before and now.
#[derive(Debug, Default)]
pub(super) struct KeyBook {
    pub(super) name: Vec<u8>,
    pub(super) holders: Vec<Place>,
    pub(super) waiters: Vec<Place>,
    pub(super) new_holders: Vec<Place>,
    pub(super) new_waiters: Vec<Place>,
    pub(super) capacity: u32,
    /// The largest capacity that was heard since the last page.
    pub(super) capacity_heard_max: u32,
    pub(super) delayed_until_ns: u64,
    /// Force was heard since the last page.
    pub(super) forced: bool,
    pub(super) has_dialect: bool,
}

impl KeyBook {
    pub(super) fn new(name: Vec<u8>) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// Reads the new page off the broker.
    pub(super) fn look(&mut self, broker: &Broker) {
        self.new_holders.clear();
        self.new_waiters.clear();
        let Some(view) = super::key(&self.name).and_then(|key| broker.table().inspect(key)) else {
            return;
        };
        let place = |request: lmx_core::table::RequestView<'_>| {
            let grant = request.grant();
            Place {
                id: request.id().as_u128(),
                mode: mode(request.mode()),
                token: grant.map_or(0, |grant| grant.token.as_u64()),
                granted_ns: grant.map_or(0, |grant| grant.granted_at.as_nanos()),
                deadline_ns: grant
                    .and_then(|grant| grant.deadline)
                    .map(lmx_core::Instant::as_nanos),
            }
        };
        self.new_holders.extend(view.holders().map(place));
        self.new_waiters.extend(view.waiters().map(place));
        if let Some(capacity) = view.capacity() {
            self.capacity = capacity;
        }
    }

    /// The new page becomes the old one.
    pub(super) fn turn_page(&mut self) {
        std::mem::swap(&mut self.holders, &mut self.new_holders);
        std::mem::swap(&mut self.waiters, &mut self.new_waiters);
        self.forced = false;
        self.capacity_heard_max = 0;
    }

    /// Somebody with whom the holder at `at` of the new page may not hold.
    pub(super) fn clash(&self, at: usize) -> Option<Place> {
        let grant = self.new_holders[at];
        let mut others = self
            .new_holders
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != at)
            .map(|(_, other)| *other);
        match grant.mode {
            Mode::Exclusive => others.next_back(),
            Mode::Shared => others.find(|other| other.mode != Mode::Shared),
            Mode::Semaphore { permits, .. } => {
                let mut taken = permits;
                let mut last = None;
                for other in others {
                    let Mode::Semaphore { permits, .. } = other.mode else {
                        return Some(other);
                    };
                    taken += permits;
                    last = Some(other);
                }
                // Alone it may hold more than a lowered capacity has.
                let capacity = self.capacity.max(self.capacity_heard_max);
                last.filter(|_| taken > capacity)
            }
        }
    }

    /// Whether `id`, if it is first in this queue, is compatible with the holders.
    pub(super) fn fits(&self, id: u128) -> bool {
        let Some(waiter) = self.new_waiters.iter().find(|waiter| waiter.id == id) else {
            return true;
        };
        let holders = &self.new_holders;
        if holders.is_empty() {
            return true;
        }
        match waiter.mode {
            Mode::Exclusive => false,
            Mode::Shared => holders.iter().all(|holder| holder.mode == Mode::Shared),
            Mode::Semaphore { permits, .. } => {
                let mut taken = permits;
                for holder in holders {
                    let Mode::Semaphore { permits, .. } = holder.mode else {
                        return false;
                    };
                    taken += permits;
                }
                taken <= self.capacity
            }
        }
    }
}

/// The core's mode as the simulator's.
fn mode(mode: lmx_core::Mode) -> Mode {
    match mode {
        lmx_core::Mode::Exclusive => Mode::Exclusive,
        lmx_core::Mode::Shared => Mode::Shared,
        lmx_core::Mode::Semaphore { capacity, permits } => Mode::Semaphore { capacity, permits },
    }
}

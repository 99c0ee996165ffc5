//! One book per key, one line per request: what is known of them.

use lmx_core::broker::Broker;
use lmx_core::table::RequestView;

use super::notices::Notes;
use crate::plan::Mode;

/// A request, from the first time it was heard. What is looked at with every page stands
/// together.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(super) struct Request {
    /// `None` for one that came in another dialect, about which nothing was read.
    pub(super) session: Option<u64>,
    /// In the broker's time, from when it was first seen to wait.
    pub(super) wait_until_ns: Option<u64>,
    /// At which look it was last counted.
    pub(super) counted_at: u64,
    pub(super) token: Option<u64>,
    pub(super) asked: bool,
    pub(super) waiting: bool,
    /// It was asked for since the last page.
    pub(super) heard: bool,
    pub(super) keep: bool,
    /// Its holder is to be told when somebody waits.
    pub(super) notifies: bool,
    /// A release, a cancel or force was heard.
    pub(super) may_end: bool,
    /// What its session was told, and may be told, unasked.
    pub(super) notes: Notes,
    /// What its label is known by.
    pub(super) label: u64,
    /// On whose behalf; zero for nobody's.
    pub(super) owner: u32,
    pub(super) lock_delay_ns: u64,
    pub(super) lease_ns: Option<u64>,
    /// `None` waits for ever.
    pub(super) wait_ns: Option<u64>,
    pub(super) reclaimed: Option<u64>,
    /// How often its hold was put back after it had ended.
    pub(super) returns: u32,
    /// Its hold was put back after a restart: who waits for whom was not looked at then.
    pub(super) came_back: bool,
    /// Somebody was told of this token.
    pub(super) told: Option<u64>,
    /// Under which token it held last, and when that was seen to have ended, in this run.
    pub(super) ended: Option<(u64, u64)>,
    /// Somebody was told that its hold under this token has ended.
    pub(super) told_ended: Option<u64>,
    /// It must be back with this token after the restart.
    pub(super) must_return: Option<u64>,
    /// A release or a cancel was heard.
    pub(super) given_back: bool,
    /// The last renewal that was heard, and those before it that may not be carried out yet.
    pub(super) renewals: Vec<Renewal>,
    /// A conversion was heard.
    pub(super) converts: bool,
    /// It may stop waiting to be alone: that was cancelled, or a downgrade was heard.
    pub(super) may_give_up: bool,
    /// That was to be before all who wait: live-mutex's retries and `force` are.
    pub(super) front: bool,
    /// It was asked for since the last page though it waited or held on that one.
    pub(super) again: Option<Ask>,
}

/// What a request begins with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ask {
    pub(super) at_ns: u64,
    pub(super) session: Option<u64>,
    pub(super) keep: bool,
    pub(super) label: u64,
    pub(super) owner: u32,
    pub(super) lock_delay_ns: u64,
    pub(super) notifies: bool,
    pub(super) lease_ns: Option<u64>,
    pub(super) wait_ns: Option<u64>,
}

impl Request {
    /// It was not there before, or what was is over.
    pub(super) fn begin(&mut self, ask: Ask) {
        self.asked = true;
        self.session = ask.session;
        self.keep = ask.keep;
        self.label = ask.label;
        self.owner = ask.owner;
        self.lock_delay_ns = ask.lock_delay_ns;
        self.notifies = ask.notifies;
        self.lease_ns = ask.lease_ns;
        self.wait_ns = ask.wait_ns;
        self.may_end = false;
        self.given_back = false;
        self.notes = Notes::begin(ask.at_ns, &self.notes);
        self.renewals.clear();
        self.converts = false;
        self.may_give_up = false;
        self.came_back = false;
        // Of this one nobody was told, even if it is reclaimed under the token of one before,
        // which may have been too short to be kept over a restart.
        self.told = None;
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    lease_ns: Option<u64>,
    /// It was carried out no earlier and no later than then, as far as is known: a broker
    /// without room for answers puts off what it hears.
    from_ns: u64,
    until_ns: u64,
}

impl Renewal {
    pub(super) const fn heard(now_ns: u64, lease_ns: Option<u64>) -> Self {
        Self {
            lease_ns,
            from_ns: now_ns,
            until_ns: u64::MAX,
        }
    }

    /// Whether it explains a deadline that is seen at `now_ns`. If it does, it is known when
    /// it was carried out, and it explains no other.
    pub(super) fn explains(&mut self, now_ns: u64, deadline_ns: Option<u64>) -> bool {
        let (Some(lease_ns), Some(deadline_ns)) = (self.lease_ns, deadline_ns) else {
            return self.lease_ns == deadline_ns;
        };
        let times = self.from_ns..=self.until_ns.min(now_ns);
        match deadline_ns.checked_sub(lease_ns) {
            Some(at_ns) if times.contains(&at_ns) => {
                (self.from_ns, self.until_ns) = (at_ns, at_ns);
                true
            }
            _ => false,
        }
    }
}

/// Who holds or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: u128,
    /// Whose it is; nobody's once a kept hold has outlived its session.
    pub(crate) session: Option<u64>,
    /// It outlives that.
    pub(crate) keep: bool,
    pub(crate) mode: Mode,
    pub(crate) token: u64,
    /// Since when it holds or, before that, has waited.
    pub(crate) since_ns: u64,
    pub(crate) deadline_ns: Option<u64>,
    /// It holds the key shared and waits to have it alone.
    pub(crate) is_upgrading: bool,
}

impl Place {
    fn read(request: &RequestView<'_>) -> Self {
        let grant = request.grant();
        Self {
            id: request.id().as_u128(),
            session: request.session().map(lmx_core::SessionId::as_u64),
            keep: request.keep(),
            mode: mode(request.mode()),
            token: grant.map_or(0, |grant| grant.token.as_u64()),
            since_ns: request.since().as_nanos(),
            deadline_ns: grant
                .and_then(|grant| grant.deadline)
                .map(lmx_core::Instant::as_nanos),
            is_upgrading: request.is_upgrading(),
        }
    }

    /// Whether the broker shows the request as it is known here: what would be read is the same.
    fn is_still(&self, request: &RequestView<'_>) -> bool {
        let holds_as_before = || match request.grant() {
            None => self.token == 0 && self.deadline_ns.is_none(),
            Some(grant) => {
                let deadline_ns = grant.deadline.map(lmx_core::Instant::as_nanos);
                self.token == grant.token.as_u64() && self.deadline_ns == deadline_ns
            }
        };
        self.id == request.id().as_u128()
            && self.since_ns == request.since().as_nanos()
            && holds_as_before()
            && self.session == request.session().map(lmx_core::SessionId::as_u64)
            && self.keep == request.keep()
            && self.is_upgrading == request.is_upgrading()
            && self.mode == mode(request.mode())
    }

    /// Whether the other place, which is seen at `now_ns`, is what became of this one, and not
    /// what somebody else has begun since under the same id.
    pub(super) fn goes_on_as(&self, other: &Self, now_ns: u64) -> bool {
        let is_over = self.deadline_ns.is_some_and(|due| due <= now_ns);
        let keeps_session = self.session == other.session || other.session.is_none();
        let is_it = match (self.token, other.token) {
            (0, 0) => keeps_session && self.since_ns == other.since_ns,
            (0, _) => keeps_session,
            (_, 0) => false,
            (before, now) if before == now => true,
            // It was converted: a kept one that had lost its session perhaps by another.
            _ => !is_over && (keeps_session || self.keep),
        };
        self.id == other.id && is_it
    }
}

/// What the broker shows of one key at one time.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) holders: Vec<Place>,
    pub(super) waiters: Vec<Place>,
    pub(super) capacity: Option<u32>,
    /// A lock-delay keeps it from being granted until then.
    pub(super) delayed_until_ns: Option<u64>,
}

/// A key's pages, the last and the new one.
#[derive(Debug, Default)]
pub(super) struct KeyBook {
    pub(super) name: Vec<u8>,
    pub(super) old: Page,
    /// That is kept only where it is not the same as the old one.
    pub(super) new: Page,
    pub(super) differs: bool,
    /// For each who waits on the new page, its place on the old one, if it waited there.
    pub(super) stood: Vec<Option<usize>>,
    /// Whether each who waited on the old page does so on the new one.
    pub(super) stays: Vec<bool>,
    pub(super) capacity: u32,
    /// Requests that were heard and not yet answered, and the capacity that each named. They
    /// may be carried out later than they are heard.
    pub(super) capacities_open: Vec<(u128, u32)>,
    /// A lock-delay surely keeps it from being granted until then.
    pub(super) delayed_until_ns: u64,
    /// From the next page on it does so until then.
    pub(super) delayed_next_ns: u64,
    /// The longest lock-delay that was ever heard.
    pub(super) lock_delay_ns_max: u64,
    /// Force may have been used since the last page.
    pub(super) forced: bool,
    /// Times that force was asked for and not yet answered: it may be used at any time.
    pub(super) forces_open: u32,
    /// Somebody may have begun to wait since the last page.
    pub(super) asked: bool,
    /// Requests that were heard and not yet answered.
    pub(super) asks_open: u32,
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

    /// Reads the new page off the broker, and keeps it if it is not the same as the old one.
    pub(super) fn look(&mut self, broker: &Broker) {
        let Self { old, new, .. } = self;
        new.clear();
        let view = super::key(&self.name).and_then(|key| broker.table().inspect(key));
        let Some(view) = view else {
            self.differs = !old.is_empty();
            return;
        };
        new.capacity = view.capacity();
        new.delayed_until_ns = view.delayed_until().map(lmx_core::Instant::as_nanos);
        let holders_differ = read_on(&old.holders, view.holders(), &mut new.holders);
        let waiters_differ = read_on(&old.waiters, view.waiters(), &mut new.waiters);
        let differs = holders_differ
            || waiters_differ
            || new.capacity != old.capacity
            || new.delayed_until_ns != old.delayed_until_ns;
        if differs && !holders_differ {
            new.holders.extend_from_slice(&old.holders);
        }
        if differs && !waiters_differ {
            new.waiters.extend_from_slice(&old.waiters);
        }
        self.differs = differs;
        self.capacity = new.capacity.unwrap_or(self.capacity);
    }

    /// What the broker shows as it is looked at.
    pub(super) const fn now(&self) -> &Page {
        if self.differs { &self.new } else { &self.old }
    }

    /// Finds out who waits on both pages.
    pub(super) fn compare_queues(&mut self, now_ns: u64) {
        let old = &self.old.waiters;
        let now = if self.differs { &self.new } else { &self.old };
        self.stood.clear();
        self.stays.clear();
        self.stays.resize(old.len(), false);
        let mut next = 0;
        for waiter in &now.waiters {
            // Most stand behind whom they stood behind before.
            let is_it = |one: &Place| one.id == waiter.id;
            let stood = match old.get(next) {
                Some(one) if is_it(one) => Some(next),
                _ => old.iter().position(is_it),
            };
            let stood = stood.filter(|at| old[*at].goes_on_as(waiter, now_ns));
            if let Some(at) = stood {
                self.stays[at] = true;
                next = at + 1;
            }
            self.stood.push(stood);
        }
    }

    /// The new page becomes the old one.
    pub(super) fn turn_page(&mut self) {
        if self.differs {
            std::mem::swap(&mut self.old, &mut self.new);
        }
        self.delayed_until_ns = self.delayed_until_ns.max(self.delayed_next_ns);
        self.forced = self.forces_open > 0;
        self.asked = self.asks_open > 0;
    }

    /// Somebody with whom the holder at `at` of the new page may not hold.
    pub(super) fn clash(&self, at: usize) -> Option<Place> {
        let grant = self.now().holders[at];
        let mut others = self
            .now()
            .holders
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
                // Nor has one that was lowered after it let this one in.
                let before = self.old.capacity.unwrap_or(0);
                let open = self.capacities_open.iter().map(|(_, capacity)| *capacity);
                let capacity = open.fold(self.capacity.max(before), u32::max);
                last.filter(|_| taken > capacity)
            }
        }
    }

    /// Whether `id` could be granted at `now_ns` as far as this key is concerned.
    pub(super) fn lets_in(&self, now_ns: u64, id: u128) -> bool {
        let Some(at) = self.now().waiters.iter().position(|waiter| waiter.id == id) else {
            return true;
        };
        at == 0
            && !self.now().is_closed(now_ns)
            && self.now().fits(self.now().waiters[at].mode, self.capacity)
    }

    /// Whether nobody and nothing keeps one in this mode from being granted on the old page.
    pub(super) fn is_open(&self, now_ns: u64, mode: Mode) -> bool {
        let page = &self.old;
        // The capacity is what the last who asked says it is.
        let capacity = match mode {
            Mode::Semaphore { capacity, .. } => capacity,
            Mode::Exclusive | Mode::Shared => 0,
        };
        page.waiters.is_empty() && !page.is_closed(now_ns) && page.fits(mode, capacity)
    }
}

impl Page {
    /// Whether one in this mode is compatible with the holders.
    fn fits(&self, mode: Mode, capacity: u32) -> bool {
        let holders = &self.holders;
        if holders.is_empty() {
            return true;
        }
        match mode {
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
                taken <= capacity
            }
        }
    }

    fn is_empty(&self) -> bool {
        let nobody = self.holders.is_empty() && self.waiters.is_empty();
        nobody && self.capacity.is_none() && self.delayed_until_ns.is_none()
    }

    fn clear(&mut self) {
        self.holders.clear();
        self.waiters.clear();
        self.capacity = None;
        self.delayed_until_ns = None;
    }

    pub(super) fn holder(&self, id: u128) -> Option<&Place> {
        self.holders.iter().find(|holder| holder.id == id)
    }

    pub(super) fn waits(&self, id: u128) -> bool {
        self.waiters.iter().any(|waiter| waiter.id == id)
    }

    pub(super) fn waiter(&self, id: u128) -> Option<&Place> {
        self.waiters.iter().find(|waiter| waiter.id == id)
    }

    /// Who holds, and then who waits.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.holders.iter().chain(&self.waiters)
    }

    /// Who waits to have the key alone.
    pub(super) fn upgrader(&self) -> Option<&Place> {
        self.holders.iter().find(|holder| holder.is_upgrading)
    }

    pub(super) fn is_delayed(&self, now_ns: u64) -> bool {
        self.delayed_until_ns.is_some_and(|until| until > now_ns)
    }

    /// Whether nobody who waits may be granted, compatible or not.
    fn is_closed(&self, now_ns: u64) -> bool {
        self.is_delayed(now_ns) || self.upgrader().is_some()
    }
}

/// Whether two can never hold a key at one time.
pub(super) const fn excludes(one: Mode, other: Mode) -> bool {
    !matches!(
        (one, other),
        (Mode::Shared, Mode::Shared) | (Mode::Semaphore { .. }, Mode::Semaphore { .. })
    )
}

/// Reads requests whose places were `old`. Returns whether they are others by now; only then are
/// they put into `new`.
fn read_on<'a>(
    old: &[Place],
    requests: impl Iterator<Item = RequestView<'a>>,
    new: &mut Vec<Place>,
) -> bool {
    let (mut seen, mut next, mut differs) = (0, 0, false);
    for request in requests {
        // As it was, or behind one that is gone.
        let mut at = next;
        let known = loop {
            match old.get(at) {
                Some(place) if place.is_still(&request) => break Some(at),
                Some(_) if at == next => at += 1,
                _ => break None,
            }
        };
        if !differs && known != Some(seen) {
            differs = true;
            new.extend_from_slice(&old[..seen]);
        }
        if differs {
            new.push(known.map_or_else(|| Place::read(&request), |known| old[known]));
        }
        next = known.map_or(next, |known| known + 1);
        seen += 1;
    }
    if !differs && seen < old.len() {
        differs = true;
        new.extend_from_slice(&old[..seen]);
    }
    differs
}

/// The core's mode as the simulator's.
fn mode(mode: lmx_core::Mode) -> Mode {
    match mode {
        lmx_core::Mode::Exclusive => Mode::Exclusive,
        lmx_core::Mode::Shared => Mode::Shared,
        lmx_core::Mode::Semaphore { capacity, permits } => Mode::Semaphore { capacity, permits },
    }
}

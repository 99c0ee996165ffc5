//! What a command must be answered, as far as the books tell when it is heard: a refusal
//! has a reason, and where there is a reason there is a refusal.
//!
//! What depends on who holds and who waits is told only of a command that is carried out at
//! once, in a state that the books show; and it is held against the answer only if that is of
//! the same instant.

use std::hash::{DefaultHasher, Hasher as _};

use super::books::{KeyBook, Place};
use super::circles::Queues;
use super::tally::Tally;
use super::{Ledger, Tap, Verdict, index};
use crate::oracle::Property;
use crate::oracle::wire::{Asked, Heard, KeyShown, Kind, RequestShown, Said};
use crate::plan::Mode;

/// What a broker may be asked for at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) keys_per_request_max: u32,
    pub(crate) key_bytes_max: u32,
    pub(crate) label_bytes_max: u32,
    pub(crate) lease_ns_max: u64,
    pub(crate) lock_delay_ns_max: u64,
    pub(crate) requests_max: u32,
    pub(crate) requests_per_session_max: u32,
    pub(crate) connections_max: u32,
    pub(crate) sessions_max: u32,
    pub(crate) keys_max: u32,
    /// Keys of all requests together.
    pub(crate) claims_max: u32,
    /// Pieces of 28 bytes that labels and long keys take.
    pub(crate) pieces_max: u32,
    /// Requests looked at before a search for a circle is given up.
    pub(crate) deadlock_search_max: u32,
    pub(crate) name_bytes_max: u32,
    pub(crate) frame_bytes_max: u32,
    /// What whoever connects must show.
    pub(crate) token: Option<&'static str>,
    /// It may have no token left until it is given more.
    pub(crate) may_run_out_of_tokens: bool,
}

/// What the answer to a command must be.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// When it must have been answered for this to be right.
    heard_ns: Option<u64>,
    kinds: Kinds,
    /// What a refusal names as the limit.
    limit: Option<u64>,
    /// How many are before it, if it is queued.
    ahead: u32,
    /// On whose behalf it was asked.
    owner: u32,
    /// Who would wait for whom.
    queues: Option<Queues>,
    /// The keys that it names, or all, as they were.
    keys: Vec<KeyExpected>,
    /// The broker's counters.
    status: Option<Box<Tally>>,
}

/// A key as it must be shown.
#[derive(Debug)]
struct KeyExpected {
    name: Vec<u8>,
    capacity: Option<u32>,
    holders: Vec<Place>,
    waiters: Vec<Place>,
    /// Whether each of them is kept, and its label.
    about: Vec<Option<(bool, u64)>>,
    /// How many of them are not shown.
    skip: usize,
    /// So many of them have room in an answer, however long they are.
    room: usize,
}

/// Some kinds of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kinds(u64);

impl Kinds {
    const fn of(kind: Kind) -> Self {
        Self(1 << kind as u32)
    }

    fn any(kinds: &[Kind]) -> Self {
        kinds
            .iter()
            .fold(Self::default(), |all, kind| all.or(*kind))
    }

    const fn or(self, kind: Kind) -> Self {
        Self(self.0 | 1 << kind as u32)
    }

    const fn or_if(self, is_so: bool, kind: Kind) -> Self {
        if is_so { self.or(kind) } else { self }
    }

    const fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }
}

/// What a request does just now, in the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Waits,
    Holds { upgrades: bool },
}

/// So many owners of a circle are named.
const OWNERS_NAMED_MAX: usize = 8;

/// It may be queued behind any number.
const ANY: u32 = u32::MAX;

/// What a label is known by.
pub(super) fn label_hash(label: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(label);
    hasher.finish()
}

impl Ledger {
    /// What is to be answered to a command. It is carried out `at_once`, after nothing else
    /// since the books were last compared, or at some time.
    pub(super) fn expect(
        &self,
        now_ns: u64,
        tap: &Tap,
        heard: &Heard,
        at_once: bool,
    ) -> Option<Expected> {
        // The first command that is no reclaim may end the grace period.
        let is_known = !self.may_change()
            && !self.in_grace
            && now_ns < self.due_ns
            && self.booted
            && !tap.closed;
        let now = (at_once && is_known).then_some(now_ns);
        self.expect_always(heard)
            .or_else(|| self.expect_now(now?, tap.session?, heard))
            .or_else(|| expect_no_reason(heard))
    }

    /// What must be answered whoever holds and waits.
    fn expect_always(&self, heard: &Heard) -> Option<Expected> {
        let key_bytes_max = u64::from(self.limits.key_bytes_max);
        let lease_ns_max = self.limits.lease_ns_max;
        let (kind, limit) = match heard {
            Heard::Acquire(asked) if self.is_new(asked) => {
                let reasons = self.reasons(asked);
                let (_, limit) = *reasons.first()?;
                let kinds = reasons.iter().map(|(why, _)| *why);
                return Some(Expected {
                    // Which of several reasons it names is its own affair.
                    kinds: kinds.fold(Kinds::default(), Kinds::or),
                    limit: limit.filter(|_| reasons.len() == 1),
                    ..Expected::default()
                });
            }
            Heard::Renew { lease_ns, .. } if *lease_ns == Some(0) => (Kind::LeaseZero, None),
            Heard::Renew { lease_ns, .. } if *lease_ns > Some(lease_ns_max) => {
                (Kind::LeaseTooLong, Some(lease_ns_max))
            }
            Heard::Inspect { key, .. } | Heard::ForceKey(key) if key.is_empty() => {
                (Kind::KeyEmpty, None)
            }
            Heard::Inspect { key, .. } | Heard::ForceKey(key)
                if key.len() as u64 > key_bytes_max =>
            {
                (Kind::KeyTooLong, Some(key_bytes_max))
            }
            Heard::Ping => (Kind::Other, None),
            _ => return None,
        };
        Some(Expected {
            kinds: Kinds::of(kind),
            limit,
            ..Expected::default()
        })
    }

    fn expect_now(&self, now_ns: u64, session: u64, heard: &Heard) -> Option<Expected> {
        let mut expected = Expected {
            heard_ns: Some(now_ns),
            ..Expected::default()
        };
        expected.kinds = match heard {
            Heard::Acquire(asked) => return self.expect_of_ask(now_ns, asked, expected),
            Heard::Release(id) => self.expect_of_end(session, *id, |doing| match doing {
                Doing::Nothing => Kind::NotHeld,
                Doing::Waits => Kind::StillWaiting,
                Doing::Holds { .. } => Kind::Released,
            })?,
            Heard::Cancel(id) => self.expect_of_end(session, *id, |doing| match doing {
                Doing::Nothing => Kind::NotWaiting,
                Doing::Waits | Doing::Holds { upgrades: true } => Kind::Cancelled,
                Doing::Holds { upgrades: false } => Kind::AlreadyGranted,
            })?,
            Heard::Renew { id, .. } => self.expect_of_end(session, *id, |doing| match doing {
                Doing::Nothing => Kind::NotHeld,
                Doing::Waits => Kind::StillWaiting,
                Doing::Holds { .. } => Kind::Renewed,
            })?,
            Heard::Convert { id, downgrade } => {
                self.expect_of_convert(now_ns, session, (*id, *downgrade))?
            }
            Heard::Inspect { key, skip } => {
                let mut shown = self.key_expected(self.book(key)?);
                shown.skip = *skip as usize;
                expected.keys.push(shown);
                Kinds::of(Kind::Inspected)
            }
            Heard::ForceKey(key) => {
                expected.keys.push(self.key_expected(self.book(key)?));
                Kinds::of(Kind::ForceReleased)
            }
            Heard::List { start: 0 } if self.complete => {
                let used = self.keys.iter().filter(|book| is_used(now_ns, book));
                expected
                    .keys
                    .extend(used.map(|book| self.key_expected(book)));
                Kinds::of(Kind::Listed)
            }
            Heard::Status => {
                expected.status = Some(self.expected_status(now_ns));
                Kinds::of(Kind::Status)
            }
            _ => return None,
        };
        Some(expected)
    }

    fn expect_of_end(
        &self,
        session: u64,
        id: u128,
        own: impl FnOnce(Doing) -> Kind,
    ) -> Option<Kinds> {
        let request = self.requests.get(index(id)?)?;
        let doing = self.doing(id);
        match request.session? {
            // Somebody else may have taken a kept one over.
            _ if request.keep && (self.has_been_down || doing == Doing::Nothing) => None,
            whose if whose == session => Some(Kinds::of(own(doing))),
            _ if request.keep || doing == Doing::Nothing => None,
            _ => Some(Kinds::of(Kind::NotOwner)),
        }
    }

    fn expect_of_convert(
        &self,
        now_ns: u64,
        session: u64,
        (id, downgrade): (u128, bool),
    ) -> Option<Kinds> {
        let request = self.requests.get(index(id)?)?;
        if request.keep && self.has_been_down {
            return None;
        }
        let Doing::Holds { upgrades } = self.doing(id) else {
            return (request.session? == session).then(|| Kinds::of(Kind::NotHeld));
        };
        if request.session? != session {
            return (!request.keep).then(|| Kinds::of(Kind::NotOwner));
        }
        let holds = |key: &&KeyBook| key.old.holder(id).is_some();
        let mut keys = self.keys.iter().filter(holds);
        let key = keys.next()?;
        let mode = key.old.holder(id)?.mode;
        if keys.next().is_some() || matches!(mode, Mode::Semaphore { .. }) {
            return self.complete.then(|| Kinds::of(Kind::NotConvertible));
        }
        if downgrade || mode == Mode::Exclusive {
            return Some(Kinds::of(Kind::Granted));
        }
        if upgrades {
            return Some(Kinds::of(Kind::Queued));
        }
        if key.old.upgrader().is_some() {
            return Some(Kinds::of(Kind::UpgradeConflict));
        }
        let is_alone = key.old.holders.len() == 1 && !key.old.is_delayed(now_ns);
        Some(
            Kinds::default()
                .or_if(is_alone, Kind::Granted)
                .or_if(!is_alone || self.may_stall, Kind::Queued)
                .or_if(request.owner != 0, Kind::Deadlock),
        )
    }

    fn expect_of_ask(
        &self,
        now_ns: u64,
        asked: &Asked,
        mut expected: Expected,
    ) -> Option<Expected> {
        let is_in_books = index(asked.id).is_some_and(|at| at < self.requests.len());
        if !is_in_books || !self.is_new(asked) {
            return None;
        }
        expected.owner = asked.owner;
        let may_be_full = self.may_be_full();
        let books: Option<Vec<&KeyBook>> =
            asked.wants.iter().map(|(key, _)| self.book(key)).collect();
        let Some(books) = books else {
            // Keys that are not in the books: only that there is nothing against it.
            expected.ahead = ANY;
            if asked.owner != 0 {
                expected.queues = self.queues(asked);
            }
            expected.kinds = Kinds::any(&[Kind::Granted, Kind::Queued, Kind::Busy])
                .or_if(asked.owner != 0, Kind::Deadlock)
                .or_if(may_be_full, Kind::Full);
            return Some(expected);
        };
        let obstacles: Vec<&KeyBook> = (books.iter().zip(&asked.wants))
            .filter(|(book, (_, mode))| !book.is_open(now_ns, *mode))
            .map(|(book, _)| *book)
            .collect();
        // Another capacity than the key has may let in those who wait, and then it.
        let resizes = (books.iter().zip(&asked.wants)).any(|(book, (_, mode))| {
            matches!((mode, book.old.capacity), (Mode::Semaphore { capacity, .. }, Some(before))
                if *capacity != before)
        });
        let ahead = books.iter().map(|book| book.old.waiters.len() as u32).max();
        expected.ahead = ahead.filter(|_| !resizes).unwrap_or(ANY);
        let refuses = asked.wait_ns == Some(0);
        let closed = if refuses { Kind::Busy } else { Kind::Queued };
        let may_close = !obstacles.is_empty() || self.may_stall;
        let may_open = obstacles.is_empty() || resizes;
        let may_deadlock = may_close && asked.owner != 0;
        if may_deadlock {
            expected.queues = self.queues(asked);
        }
        expected.kinds = Kinds::default()
            .or_if(may_open, Kind::Granted)
            .or_if(may_close, closed)
            .or_if(may_deadlock, Kind::Deadlock)
            .or_if(may_be_full, Kind::Full);
        if refuses {
            expected.keys = (obstacles.into_iter())
                .map(|book| self.key_expected(book))
                .collect();
        }
        Some(expected)
    }

    /// Whether so much was asked for that there may be no room for more.
    fn may_be_full(&self) -> bool {
        let limits = &self.limits;
        let requests_max = limits.requests_max.min(limits.requests_per_session_max);
        // What is asked for now needs room, too, and is not counted yet.
        let claims = self
            .claims_asked
            .saturating_add(limits.keys_per_request_max);
        let pieces = self.pieces_asked.saturating_add(16);
        self.asks >= requests_max
            || self.asks == u32::MAX
            || claims > limits.keys_max.min(limits.claims_max)
            || pieces > limits.pieces_max
    }

    /// Whether what was full had as much as is allowed, by its name and number.
    pub(super) fn judge_full(&self, said: &Said) -> Option<Verdict> {
        let Said::Refused {
            full: Some(what),
            limit,
            ..
        } = said
        else {
            return None;
        };
        let limits = &self.limits;
        let max = match what {
            0 => limits.keys_max,
            1 => limits.requests_max,
            2 => limits.requests_per_session_max,
            3 => limits.pieces_max,
            _ => limits.claims_max,
        };
        (*limit != Some(u64::from(max)) || !self.may_be_full()).then(|| {
            let detail = format!("{said:?}, where {max} are allowed: {limits:?}");
            (Property::Answer, detail)
        })
    }

    /// Why it must be refused, whatever else there is; and the limit that it breaks.
    fn reasons(&self, asked: &Asked) -> Vec<(Kind, Option<u64>)> {
        let limits = &self.limits;
        let mut reasons = Vec::new();
        let mut add = |is_so: bool, why, limit| {
            if is_so {
                reasons.push((why, limit));
            }
        };
        let (keys_max, bytes_max) = (limits.keys_per_request_max, limits.key_bytes_max);
        add(asked.wants.is_empty(), Kind::NoKeys, None);
        add(
            asked.wants.len() > keys_max as usize,
            Kind::TooManyKeys,
            Some(u64::from(keys_max)),
        );
        for (at, (key, mode)) in asked.wants.iter().enumerate() {
            add(key.is_empty(), Kind::KeyEmpty, None);
            add(
                key.len() > bytes_max as usize,
                Kind::KeyTooLong,
                Some(u64::from(bytes_max)),
            );
            let twice = asked.wants[..at].iter().any(|(other, _)| other == key);
            add(twice, Kind::DuplicateKey, None);
            if let Mode::Semaphore { capacity, permits } = mode {
                add(*permits == 0 || permits > capacity, Kind::Permits, None);
            }
        }
        add(
            asked.label.len() > limits.label_bytes_max as usize,
            Kind::LabelTooLong,
            Some(u64::from(limits.label_bytes_max)),
        );
        add(asked.lease_ns == Some(0), Kind::LeaseZero, None);
        add(
            asked.lease_ns > Some(limits.lease_ns_max),
            Kind::LeaseTooLong,
            Some(limits.lease_ns_max),
        );
        add(
            asked.lock_delay_ns > limits.lock_delay_ns_max,
            Kind::LockDelayTooLong,
            Some(limits.lock_delay_ns_max),
        );
        reasons
    }

    /// Whether nothing was ever heard of a request under this id.
    fn is_new(&self, asked: &Asked) -> bool {
        let known = index(asked.id).and_then(|at| self.requests.get(at));
        known.is_none_or(|known| !known.asked && known.session.is_none() && !known.keep)
    }

    fn doing(&self, id: u128) -> Doing {
        for key in &self.keys {
            if let Some(holder) = key.old.holder(id) {
                let upgrades = holder.is_upgrading;
                return Doing::Holds { upgrades };
            }
            if key.old.waits(id) {
                return Doing::Waits;
            }
        }
        Doing::Nothing
    }

    fn book(&self, name: &[u8]) -> Option<&KeyBook> {
        self.keys.iter().find(|key| key.name == name)
    }

    fn key_expected(&self, book: &KeyBook) -> KeyExpected {
        let page = &book.old;
        let about = |place: &Place| {
            let request = index(place.id).and_then(|at| self.requests.get(at))?;
            let known = request.session.is_some() && !self.has_been_down;
            known.then_some((request.keep, request.label))
        };
        // Beside the names in it: what is fixed is at most so long.
        let request_bytes = 96 + self.limits.label_bytes_max + self.limits.name_bytes_max;
        let answer_bytes = self.limits.frame_bytes_max.min(4096) - 128 - book.name.len() as u32;
        KeyExpected {
            room: (answer_bytes / request_bytes) as usize,
            name: book.name.clone(),
            capacity: page.capacity,
            holders: page.holders.clone(),
            waiters: page.waiters.clone(),
            about: page
                .holders
                .iter()
                .chain(&page.waiters)
                .map(about)
                .collect(),
            skip: 0,
        }
    }
}

impl Expected {
    /// Holds an answer against what it must be.
    pub(super) fn judge(&self, at_ns: u64, said: &Said) -> Option<Verdict> {
        if self.heard_ns.is_some_and(|heard| heard != at_ns) {
            return None;
        }
        if matches!(said, Said::Fault { .. }) {
            return None;
        }
        let kind = said.kind();
        if !self.kinds.has(kind) {
            let detail = format!("the answer is {said:?}, where only another is right: {self:?}");
            return Some((Property::Answer, detail));
        }
        let is_right = match said {
            Said::Queued { ahead, .. } => self.ahead == ANY || *ahead == self.ahead,
            Said::Refused { limit, owners, .. } => {
                (self.limit.is_none() || *limit == self.limit)
                    && (self.owner == 0 || self.is_circle(owners) || kind != Kind::Deadlock)
            }
            Said::Busy {
                key,
                waiting,
                holders,
                ..
            } => {
                self.keys.is_empty()
                    || self.keys.iter().any(|it| {
                        it.name == *key
                            && *waiting == it.waiters.len() as u32
                            && it.shows(holders, it.holders.len())
                    })
            }
            Said::ForceReleased { holders, count } => self.keys.first().is_none_or(|it| {
                *count == it.holders.len() as u32 && it.shows(holders, it.holders.len())
            }),
            Said::Inspected { key, requests } => (self.keys.first())
                .is_none_or(|it| it.is(key) && it.shows(requests, it.about.len())),
            Said::Listed { keys, next } => {
                self.heard_ns.is_none() || next.is_some() || same_keys(keys, &self.keys)
            }
            Said::Status(status) => {
                let tally = self.status.as_ref();
                tally.is_none_or(|tally| tally.differs(status).is_none())
            }
            _ => true,
        };
        (!is_right).then(|| {
            let detail = format!("the answer {said:?} does not say what is: {self:?}");
            (Property::Answer, detail)
        })
    }

    /// Whether these begin with the one who asks, and each waits for the next; the last for
    /// the first, unless there are more than are named.
    fn is_circle(&self, owners: &[u32]) -> bool {
        let Some(queues) = &self.queues else {
            return true;
        };
        let waits = queues.waits_of(owners);
        let waits = |one, other| waits.contains(&(one, other));
        let is_whole = owners.len() < OWNERS_NAMED_MAX;
        owners.first() == Some(&self.owner)
            && owners.windows(2).all(|pair| waits(pair[0], pair[1]))
            && (!is_whole || owners.last().is_some_and(|last| waits(*last, self.owner)))
    }
}

/// What has no reason to be refused is not refused for one of these.
fn expect_no_reason(heard: &Heard) -> Option<Expected> {
    let reasons: &[Kind] = match heard {
        Heard::Acquire(_) | Heard::Reclaim(..) => &[
            Kind::NoKeys,
            Kind::TooManyKeys,
            Kind::DuplicateKey,
            Kind::KeyEmpty,
            Kind::KeyTooLong,
            Kind::LabelTooLong,
            Kind::LeaseZero,
            Kind::LeaseTooLong,
            Kind::LockDelayTooLong,
            Kind::Permits,
            Kind::FrontWithManyKeys,
            Kind::UnknownSession,
        ],
        Heard::Renew { .. } => &[Kind::LeaseZero, Kind::LeaseTooLong],
        Heard::Inspect { .. } | Heard::ForceKey(_) => &[Kind::KeyEmpty, Kind::KeyTooLong],
        _ => return None,
    };
    Some(Expected {
        kinds: Kinds(!Kinds::any(reasons).0),
        ahead: ANY,
        ..Expected::default()
    })
}

fn is_used(now_ns: u64, book: &KeyBook) -> bool {
    let page = &book.old;
    !page.holders.is_empty() || !page.waiters.is_empty() || page.is_delayed(now_ns)
}

fn same_keys(shown: &[KeyShown], expected: &[KeyExpected]) -> bool {
    shown.len() == expected.len() && (expected.iter()).all(|it| shown.iter().any(|key| it.is(key)))
}

impl KeyExpected {
    fn is(&self, shown: &KeyShown) -> bool {
        shown.key == self.name
            && shown.holders as usize == self.holders.len()
            && shown.waiters as usize == self.waiters.len()
            && shown.capacity == self.capacity
    }

    /// Whether the first `count` are shown as they are, but those that are skipped, or as
    /// many of them as there was room for.
    fn shows(&self, shown: &[RequestShown], count: usize) -> bool {
        let places = self.holders.iter().chain(&self.waiters).zip(&self.about);
        let places: Vec<_> = places.take(count).skip(self.skip).collect();
        let has_room = places.len() <= self.room;
        (shown.len() == places.len() || (!has_room && shown.len() < places.len()))
            && places.iter().zip(shown).all(|((place, about), shown)| {
                let grant =
                    (place.token != 0).then_some((place.token, place.since_ns, place.deadline_ns));
                shown.id == place.id
                    && shown.mode == place.mode
                    && shown.grant == grant
                    && about.is_none_or(|about| about == (shown.keep, label_hash(&shown.label)))
                    && shown.since_ns == place.since_ns
            })
    }
}

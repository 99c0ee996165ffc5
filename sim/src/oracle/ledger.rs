//! The broker's ledger: what it holds now, what it held before, and whether the
//! difference has a reason that was seen on the wire or on the clock.
//!
//! Nothing is predicted, everything is demanded: a grant needs a request that was
//! heard, an empty place in the queue before it, and a larger token; the end of a hold
//! needs a release, a passed deadline, an ended session, or force.
//!
//! ```text
//! heard.rs     what reaches the broker: noted          books.rs     what is known
//! open.rs      what has no answer yet                  sessions.rs  who has a session, until when
//! answers.rs   what that must be answered
//! said.rs      what it answers: judged                 restart.rs   what must outlive it
//! ends.rs      every end has a reason                  grants.rs    every grant is right
//! presence.rs  nothing outstays its time               circles.rs   nobody waits for himself
//! notices.rs   what is told unasked                    tally.rs     what is counted
//! ```

mod answers;
mod books;
mod circles;
mod ends;
mod grants;
mod heard;
mod notices;
mod open;
mod presence;
mod restart;
mod said;
mod sessions;
mod tally;
#[cfg(test)]
mod tests;

use lmx_core::broker::Broker;
use lmx_core::{FencingToken, Key};

use super::Property;
use super::wire::{Frames, Lines};
pub(crate) use answers::Limits;
use books::{KeyBook, Place, Request};
use notices::Owed;
use open::Unanswered;
use sessions::{Session, Sessions};
use tally::Tally;
pub(crate) use tally::counters;

/// A verdict: what was broken, and how.
pub(crate) type Verdict = (Property, String);

/// A connection's two directions, as the oracle reads them.
#[derive(Debug)]
pub(crate) struct Tap {
    heard: Frames,
    /// The same of a live-mutex client.
    lines: Lines,
    said: Frames,
    /// Commands that have no answer yet.
    open: Unanswered,
    /// How many of these are to be carried out, and no mere questions.
    commands_open: u32,
    session: Option<u64>,
    /// The broker was seen to count the session as this connection's.
    is_bound: bool,
    /// The session that it has asked to go on with before its end, until that is answered,
    /// and how many connections had asked that by then.
    resumes: Option<(u64, u32)>,
    closed: bool,
    /// Which of all connections it is.
    number: u32,
    /// The broker has said that it ends, or why.
    is_over: bool,
    standing: Standing,
    /// The session that it has said goodbye to, which is not carried out yet.
    leaves: Option<u64>,
    /// Its greeting goes on with an earlier session.
    is_resuming: bool,
}

/// Whether a connection may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unknown,
    /// It has shown the right token, or need not.
    Admitted,
    /// It has not, or has called itself by too long a name.
    Refused,
}

/// One of a request's holds: its token, and how often it had been put back before.
type HoldOf = (u64, u32);

impl Tap {
    pub(crate) fn new(number: u32, frame_bytes_max: u32) -> Self {
        Self {
            heard: Frames::new(true, frame_bytes_max),
            lines: Lines::default(),
            said: Frames::new(false, frame_bytes_max),
            open: Unanswered::default(),
            commands_open: 0,
            session: None,
            is_bound: false,
            resumes: None,
            closed: false,
            number,
            is_over: false,
            standing: Standing::Unknown,
            leaves: None,
            is_resuming: false,
        }
    }
}

/// What is known of one broker over all its runs.
#[derive(Debug)]
pub(crate) struct Ledger {
    keys: Vec<KeyBook>,
    requests: Vec<Request>,
    sessions: Sessions,
    token_max: u64,
    /// Operations whose holds are kept, with each token under which they held before: what
    /// the disk had when the broker died may be older than a conversion.
    kept: Vec<(usize, u64)>,
    /// Kept holds with longer leases than this outlive the broker; `None` if none does.
    kept_from_ns: Option<u64>,
    /// Something was heard that may have changed the books.
    heard: bool,
    /// Commands of all connections that have no answer yet: what was heard may be carried out
    /// later.
    commands_open: u32,
    /// The broker keeps back what some connection said, or did when it was last looked at.
    keeps_input: [bool; 2],
    /// Places of the requests that were asked for since the last page.
    heard_of: Vec<usize>,
    /// Requests were made on somebody's behalf.
    has_owners: bool,
    /// Circles may have been too long to be searched for, since last nobody waited on somebody's
    /// behalf.
    gave_up_searching: bool,
    /// A deadline of the books, in the broker's time: they are to be looked at then.
    due_ns: u64,
    /// The first of those deadlines for which the broker must have a timer.
    timer_ns: u64,
    /// What of all that is known from the pages, and how many requests hold and wait there.
    on_pages: OnPages,
    counts: (u32, u32, u64, u32),
    /// Whether everything in the broker is on keys that are in the books.
    complete: bool,
    booted: bool,
    has_restarted: bool,
    /// It died before.
    has_been_down: bool,
    /// It may keep from granting what it could for want of something written down.
    may_stall: bool,
    limits: Limits,
    /// It was in its grace period when it was last looked at.
    in_grace: bool,
    /// How often keys were asked for.
    asks: u32,
    /// How many keys all those named, and how many pieces their texts were at most.
    claims_asked: u32,
    pieces_asked: u32,
    /// The broker's time when it was last looked at in this run.
    looked_ns: Option<u64>,
    settled: u64,
    /// What is to be told unasked, and was not yet.
    owed: Vec<Owed>,
    /// Something came in another dialect.
    has_lines: bool,
    tally: Tally,
    /// Until when it grants nothing but what is reclaimed.
    grace_until_ns: Option<u64>,
}

/// What the pages say of all keys together.
#[derive(Clone, Copy, Debug)]
struct OnPages {
    /// Requests that hold, and that wait.
    counted: (u32, u32),
    /// When the first hold ends, and when the first wait does.
    hold_ends_ns: u64,
    wait_ends_ns: u64,
}

impl OnPages {
    const EMPTY: Self = Self {
        counted: (0, 0),
        hold_ends_ns: u64::MAX,
        wait_ends_ns: u64::MAX,
    };
}

/// The circumstances of one look at the broker.
#[derive(Clone, Copy, Debug)]
struct Look {
    now_ns: u64,
    /// How long nobody had looked.
    slept_ns: u64,
    in_grace: bool,
}

impl Ledger {
    /// For keys named by [`key_name`], and operations below `ops`. A durable broker keeps
    /// those kept holds whose leases are longer than `kept_from_ns`.
    pub(crate) fn new(keys: u32, ops: usize, kept_from_ns: Option<u64>, limits: Limits) -> Self {
        Self {
            keys: (0..keys).map(|key| KeyBook::new(key_name(key))).collect(),
            requests: vec![Request::default(); ops],
            sessions: Sessions::default(),
            token_max: 0,
            kept: Vec::new(),
            kept_from_ns,
            heard: false,
            commands_open: 0,
            keeps_input: [false; 2],
            heard_of: Vec::new(),
            has_owners: false,
            gave_up_searching: false,
            due_ns: u64::MAX,
            timer_ns: u64::MAX,
            on_pages: OnPages::EMPTY,
            counts: (0, 0, 0, 0),
            complete: true,
            booted: false,
            has_restarted: false,
            has_been_down: false,
            may_stall: kept_from_ns.is_some() || limits.may_run_out_of_tokens,
            limits,
            in_grace: false,
            asks: 0,
            claims_asked: 0,
            pieces_asked: 0,
            looked_ns: None,
            settled: 0,
            owed: Vec::new(),
            has_lines: false,
            tally: Tally::default(),
            grace_until_ns: None,
        }
    }

    /// Readers and writers of live-mutex use this key: whoever reads or writes holds another one
    /// beside it, under ids that the broker makes.
    pub(crate) fn watch_readers(&mut self, key: u32) {
        let name = readers_name(key);
        self.keys.push(KeyBook::new(name));
        self.complete = false;
    }

    /// Which session the connection is bound to.
    pub(crate) const fn session(tap: &Tap) -> Option<u64> {
        tap.session
    }

    /// Whether it is to be told whether it goes on with the session that it asked for.
    pub(crate) const fn is_resuming(tap: &Tap) -> bool {
        tap.resumes.is_some()
    }

    /// Whether a connection that ends now leaves no question unanswered, or that it ends was
    /// said on it.
    pub(crate) const fn is_answered(tap: &Tap) -> bool {
        tap.open.is_empty() || tap.is_over
    }

    /// Whether the broker has said that the connection ends.
    pub(crate) const fn is_over(tap: &Tap) -> bool {
        tap.is_over
    }

    /// Whether anything that was read off the connection is yet to be carried out.
    pub(crate) const fn is_asked(tap: &Tap) -> bool {
        tap.commands_open > 0
    }

    /// Whether all that came over the connection was read.
    pub(crate) const fn is_native(tap: &Tap) -> bool {
        tap.heard.is_native()
    }

    /// The broker counts the connection's session as its own.
    pub(crate) const fn is_bound(tap: &mut Tap) {
        tap.is_bound = true;
    }

    /// Whether anything that was heard is yet to be carried out.
    pub(crate) const fn is_any_asked(&self) -> bool {
        self.commands_open > 0
    }

    /// Whether the books may change with the broker's next call, without anything being due.
    const fn may_change(&self) -> bool {
        self.heard || self.commands_open > 0 && (self.keeps_input[0] || self.keeps_input[1])
    }

    /// Whether the broker keeps input back, as it is looked at.
    pub(crate) const fn note_kept_input(&mut self, keeps: bool) {
        self.keeps_input = [self.keeps_input[1], keeps];
    }

    /// Compares the broker with the books, if anything can have changed, and brings the
    /// books up to date.
    pub(crate) fn settle(&mut self, now_ns: u64, broker: &Broker) -> Option<Verdict> {
        self.grace_until_ns = broker.grace_until().map(lmx_core::Instant::as_nanos);
        let counts = broker.table().counts();
        let token = counts.last_token.map_or(0, FencingToken::as_u64);
        let looked_ns = self.looked_ns.replace(now_ns).unwrap_or(now_ns);
        let counts = (counts.held, counts.waiting, token, counts.keys);
        if !self.may_change() && counts == self.counts && now_ns < self.due_ns {
            return None;
        }
        self.heard = false;
        self.counts = counts;
        let beyond = self.judge_limits(broker);
        for key in &mut self.keys {
            key.look(broker);
        }
        self.in_grace = self.grace_until_ns.is_some_and(|until| until > now_ns);
        let verdict = self.compare(Look {
            now_ns,
            slept_ns: now_ns.saturating_sub(looked_ns),
            in_grace: self.in_grace,
        });
        if self.settled.is_multiple_of(CHECK_EVERY) {
            broker.check();
        }
        beyond.or(verdict)
    }

    /// There is never more than is allowed.
    fn judge_limits(&self, broker: &Broker) -> Option<Verdict> {
        let limits = &self.limits;
        let (held, waiting, _, keys) = self.counts;
        let sessions = broker.table().counts().sessions;
        let all = [
            ("requests", held + waiting, limits.requests_max),
            ("keys", keys, limits.keys_max),
            ("sessions", sessions, limits.sessions_max),
        ];
        let (what, count, max) = all.into_iter().find(|(_, count, max)| count > max)?;
        let detail = format!("there are {count} {what}, where {max} are allowed");
        Some((Property::Answer, detail))
    }

    /// Judges the new pages against the old ones, and turns them.
    fn compare(&mut self, look: Look) -> Option<Verdict> {
        self.settled += 1;
        let mut verdict = self.judge_restored();
        let others_are_over = self.sessions.note_over(look.now_ns);
        self.mark_forced();
        let mut keys = std::mem::take(&mut self.keys);
        let is_due = look.now_ns >= self.due_ns || others_are_over;
        let differs = keys.iter().any(|key| key.differs);
        if is_due || differs {
            let judged = self.judge_pages(look, &mut keys, is_due);
            verdict = verdict.or(judged);
        }
        for key in &keys {
            let judged = self.judge_head(look, &keys, key);
            verdict = verdict.or(judged);
        }
        self.note_contended(&keys);
        for key in &mut keys {
            key.turn_page();
        }
        self.keys = keys;
        if differs {
            let judged = self.judge_circles();
            verdict = verdict.or(judged);
        }
        for at in self.heard_of.drain(..) {
            let request = &mut self.requests[at];
            (request.heard, request.front, request.again) = (false, false, None);
        }
        self.note_due();
        let (held, waiting, _, _) = self.counts;
        let counted = self.on_pages.counted;
        if verdict.is_none() && self.complete && counted != (held, waiting) {
            let detail = format!(
                "the broker counts {held} held and {waiting} waiting; on its keys are {} and {}",
                counted.0, counted.1
            );
            verdict = Some((Property::Orphan, detail));
        }
        verdict
    }

    /// Judges those pages that are not as they were; all of them if more is due by now.
    fn judge_pages(&mut self, look: Look, keys: &mut [KeyBook], is_due: bool) -> Option<Verdict> {
        let token_before = self.token_max;
        let mut verdict = None;
        // Several keys of one request change in one transition: all were looked at before
        // any is judged. And what has ended is judged by what was known of it, before what
        // has begun since under the same id.
        let concerns = |key: &KeyBook| is_due || key.differs;
        for key in keys.iter_mut().filter(|key| concerns(key)) {
            key.compare_queues(look.now_ns);
        }
        for place in 0..keys.len() {
            if concerns(&keys[place]) {
                let judged = self.judge_ends(look, keys, &keys[place]);
                verdict = verdict.or(judged);
                self.note_lock_delays(look.now_ns, &mut keys[place]);
            }
        }
        self.begin_anew(look.now_ns, keys);
        for key in keys.iter().filter(|key| concerns(key)) {
            let judged = self.judge_new(look, key, token_before);
            verdict = verdict.or(judged);
        }
        self.count_pages(keys);
        verdict
    }

    /// One call of the broker may end a request and then carry out what somebody else has
    /// asked for under its id.
    fn begin_anew(&mut self, now_ns: u64, keys: &[KeyBook]) {
        for nth in 0..self.heard_of.len() {
            let at = self.heard_of[nth];
            let Some(again) = self.requests[at].again else {
                continue;
            };
            let is_it = |place: &&Place| index(place.id) == Some(at);
            let (old, new) = keys.iter().fold((None, None), |(old, new), key| {
                let old = old.or_else(|| key.old.places().find(is_it));
                (old, new.or_else(|| key.now().places().find(is_it)))
            });
            // The session is not known of one who was not shown it yet, or is never shown it.
            let is_theirs = |now: &Place| again.session.is_none() || now.session == again.session;
            let begins = new.is_some_and(|now| {
                is_theirs(now) && old.is_none_or(|before| !before.goes_on_as(now, now_ns))
            });
            if begins {
                self.requests[at].begin(again);
            }
        }
    }

    /// Judges the new page of one of the keys.
    fn judge_new(&mut self, look: Look, book: &KeyBook, token_before: u64) -> Option<Verdict> {
        Self::judge_capacity(book)
            .or_else(|| self.judge_grants(look, book, token_before))
            .or_else(|| self.judge_presence(look, book))
    }

    /// Counts who holds and who waits on the new pages, and notes who of them is first to end.
    fn count_pages(&mut self, keys: &[KeyBook]) {
        let Self {
            requests, settled, ..
        } = self;
        let is_first = |request: &mut Request| {
            std::mem::replace(&mut request.counted_at, *settled) != *settled
        };
        let (mut held, mut waiting) = (0, 0);
        let (mut hold_ends_ns, mut wait_ends_ns) = (u64::MAX, u64::MAX);
        for key in keys {
            for holder in &key.now().holders {
                hold_ends_ns = hold_ends_ns.min(holder.deadline_ns.unwrap_or(u64::MAX));
                if let Some(request) = index(holder.id).and_then(|at| requests.get_mut(at)) {
                    held += u32::from(is_first(request));
                }
            }
            for waiter in &key.now().waiters {
                if let Some(request) = index(waiter.id).and_then(|at| requests.get_mut(at)) {
                    waiting += u32::from(is_first(request));
                    wait_ends_ns = wait_ends_ns.min(request.wait_until_ns.unwrap_or(u64::MAX));
                }
            }
        }
        self.on_pages = OnPages {
            counted: (held, waiting),
            hold_ends_ns,
            wait_ends_ns,
        };
    }

    /// Notes what is due next.
    fn note_due(&mut self) {
        self.timer_ns = self.on_pages.hold_ends_ns.min(self.sessions.next_end_ns());
        self.due_ns = self.timer_ns.min(self.on_pages.wait_ends_ns);
    }

    fn session_of(&self, id: u128) -> Option<&Session> {
        let session = self.requests.get(index(id)?)?.session?;
        self.sessions.get(session)
    }

    fn session_may_be_over(&self, now_ns: u64, id: u128) -> bool {
        self.session_of(id)
            .is_some_and(|session| session.may_be_over(now_ns))
    }

    /// Whether the session was ended by a goodbye: that gives back what it held.
    fn said_goodbye(&self, id: u128) -> bool {
        self.session_of(id).is_some_and(|session| session.ended)
    }

    /// Which of its request's holds one is.
    fn hold_of(&self, holder: &Place) -> HoldOf {
        let request = index(holder.id).and_then(|at| self.requests.get(at));
        (holder.token, request.map_or(0, |request| request.returns))
    }

    fn request(&mut self, id: u128) -> Option<&mut Request> {
        self.requests.get_mut(index(id)?)
    }

    /// The requests that hold a key now, and how many wait: for traces.
    pub(crate) fn page(&self, key: u32) -> (&[Place], usize) {
        let page = &self.keys[key as usize].old;
        (&page.holders, page.waiters.len())
    }
}

/// The table's own check costs too much to be made every time.
const CHECK_EVERY: u64 = if cfg!(debug_assertions) { 4 } else { 64 };

/// The name of key number `key`.
pub(crate) fn key_name(key: u32) -> Vec<u8> {
    format!("k{key}").into_bytes()
}

/// The key that readers and writers of live-mutex hold beside `key`.
pub(crate) fn readers_name(key: u32) -> Vec<u8> {
    [&key_name(key)[..], b" (live-mutex readers and writers)"].concat()
}

/// The id of operation `op`'s request: anything above, the operation below.
pub(crate) const fn request_id(seed_bits: u64, op: u32) -> u128 {
    (seed_bits as u128) << 64 | 0x4000_8000 << 32 | op as u128
}

/// The operation of a request's id.
fn index(id: u128) -> Option<usize> {
    let is_ours = (id >> 32) as u32 == 0x4000_8000;
    usize::try_from(id as u32).ok().filter(|_| is_ours)
}

fn name(id: u128) -> String {
    format!("#{}", id as u32)
}

fn key(bytes: &[u8]) -> Option<Key<'_>> {
    Key::new(bytes, u32::MAX).ok()
}

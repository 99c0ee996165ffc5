//! The broker's ledger: what it holds now, what it held before, and whether the
//! difference has a reason that was seen on the wire or on the clock.
//!
//! Nothing is predicted, everything is demanded: a grant needs a request that was
//! heard, an empty place in the queue before it, and a larger token; the end of a hold
//! needs a release, a passed deadline, an ended session, or force.

mod books;

use lmx_core::broker::Broker;
use lmx_core::{FencingToken, Key, RequestId};

use super::Property;
use super::wire::{Asked, Frames, Heard, Said, command, reply};
use crate::plan::Mode;
use books::{KeyBook, Place, Request, Session};

/// A verdict: what was broken, and how.
pub(crate) type Verdict = (Property, String);

/// A connection's two directions, as the oracle reads them.
#[derive(Debug)]
pub(crate) struct Tap {
    heard: Frames,
    said: Frames,
    /// Commands that have no answer yet.
    tags: Vec<u32>,
    session: Option<u64>,
    window_ns: u64,
    closed: bool,
}

impl Tap {
    pub(crate) const fn new(frame_bytes_max: u32) -> Self {
        Self {
            heard: Frames::new(true, frame_bytes_max),
            said: Frames::new(false, u32::MAX),
            tags: Vec::new(),
            session: None,
            window_ns: 0,
            closed: false,
        }
    }
}

/// What is known of one broker over all its runs.
#[derive(Debug)]
pub(crate) struct Ledger {
    keys: Vec<KeyBook>,
    requests: Vec<Request>,
    sessions: Vec<Session>,
    token_max: u64,
    /// Something was heard that may have changed the books.
    heard: bool,
    /// A deadline of the books, in the broker's time: they are to be looked at then.
    due_ns: u64,
    counts: (u32, u32, u64, u32),
    /// Whether everything in the broker is on keys that are in the books.
    complete: bool,
    booted: bool,
    /// The broker's time when it was last looked at.
    looked_ns: u64,
    settled: u64,
}

impl Ledger {
    /// For keys named by [`key_name`], and operations below `ops`.
    pub(crate) fn new(keys: u32, ops: usize) -> Self {
        Self {
            keys: (0..keys).map(|key| KeyBook::new(key_name(key))).collect(),
            requests: vec![Request::default(); ops],
            sessions: Vec::new(),
            token_max: 0,
            heard: false,
            due_ns: u64::MAX,
            counts: (0, 0, 0, 0),
            complete: true,
            booted: false,
            looked_ns: 0,
            settled: 0,
        }
    }

    /// The broker died. What it held is remembered: only that may come back.
    pub(crate) fn broker_died(&mut self) {
        self.sessions.clear();
        self.counts = (0, 0, 0, 0);
        self.due_ns = u64::MAX;
        self.booted = false;
        for key in &mut self.keys {
            key.holders.clear();
            key.waiters.clear();
            key.delayed_until_ns = 0;
        }
        for request in &mut self.requests {
            request.waiting = false;
            request.token_before = request.token.take().or(request.token_before);
            // Session numbers begin anew, and mean others.
            request.session = None;
        }
    }

    /// The broker's first record is durable, or it needs none: grants can be demanded.
    pub(crate) const fn broker_booted(&mut self) {
        self.booted = true;
        self.heard = true;
    }

    /// Bytes have reached the broker.
    pub(crate) fn heard(&mut self, now_ns: u64, tap: &mut Tap, bytes: &[u8]) {
        if !tap.heard.is_native() || tap.closed {
            self.heard = true;
            return;
        }
        let mut frames = std::mem::replace(&mut tap.heard, Frames::new(false, 0));
        frames.feed(bytes, |body| {
            let Some((tag, heard)) = command(body) else {
                return false;
            };
            tap.tags.push(tag);
            self.command(now_ns, tap, heard);
            true
        });
        tap.heard = frames;
        self.heard |= !tap.heard.is_native();
    }

    fn command(&mut self, now_ns: u64, tap: &mut Tap, heard: Heard) {
        self.heard |= heard != Heard::Question;
        match heard {
            Heard::Hello { window_ns } => tap.window_ns = window_ns,
            Heard::Acquire(asked) => self.asked(now_ns, tap, &asked, None),
            Heard::Reclaim(asked, token) => self.asked(now_ns, tap, &asked, Some(token)),
            Heard::Release(id) | Heard::Cancel(id) => {
                let session = tap.session;
                if let Some(request) = self.request(id) {
                    // Of another's requests only kept ones can be given back.
                    let own = request.session.is_none() || request.session == session;
                    request.may_end |= own || request.keep;
                }
            }
            Heard::ForceRequest(id) => {
                if let Some(request) = self.request(id) {
                    request.may_end = true;
                }
            }
            Heard::ForceKey(name) => {
                if let Some(key) = self.keys.iter_mut().find(|key| key.name == name) {
                    key.forced = true;
                }
            }
            Heard::Convert(id) => {
                if let Some(request) = self.request(id) {
                    request.converts = true;
                }
            }
            Heard::Goodbye => self.session_lost(now_ns, tap, true),
            Heard::Renew { id, lease_ns } => {
                let session = tap.session;
                if let Some(request) = self.request(id)
                    && (request.session == session || request.keep)
                {
                    request.renewed = true;
                    request.due_ns = lease_ns.map(|lease| now_ns.saturating_add(lease));
                }
            }
            Heard::Question => {}
        }
    }

    fn asked(&mut self, now_ns: u64, tap: &Tap, asked: &Asked, reclaimed: Option<u64>) {
        for (name, mode) in &asked.wants {
            match self.keys.iter_mut().find(|key| key.name == *name) {
                None => self.complete = false,
                Some(key) => {
                    if let Mode::Semaphore { capacity, .. } = mode {
                        key.capacity_heard_max = key.capacity_heard_max.max(*capacity);
                    }
                }
            }
        }
        let session = tap.session;
        let Some(request) = self.request(asked.id) else {
            self.complete = false;
            return;
        };
        request.heard = true;
        if reclaimed.is_some() {
            request.reclaimed = reclaimed;
        }
        // A repeat of a request that waits or holds changes nothing.
        if !request.waiting && request.token.is_none() {
            request.asked = true;
            request.keep = asked.keep;
            request.lock_delay_ns = asked.lock_delay_ns;
            request.lease_ns = asked.lease_ns;
            request.may_end = false;
            request.renewed = false;
            request.session = session;
            request.wait_until_ns = asked.wait_ns.map(|wait_ns| now_ns.saturating_add(wait_ns));
        }
    }

    /// The broker has written bytes.
    pub(crate) fn said(&mut self, now_ns: u64, tap: &mut Tap, bytes: &[u8]) -> Option<Verdict> {
        if !tap.heard.native_so_far() {
            return None;
        }
        let mut verdict = None;
        let mut frames = std::mem::replace(&mut tap.said, Frames::new(false, 0));
        frames.feed(bytes, |body| {
            let Some((at_ns, tag, said)) = reply(body) else {
                let detail = "the broker wrote a frame that is no reply".to_owned();
                verdict = Some((Property::Answer, detail));
                return false;
            };
            let judged = self.reply(now_ns, tap, at_ns, tag, said);
            verdict = verdict.take().or(judged);
            true
        });
        tap.said = frames;
        verdict
    }

    fn reply(
        &mut self,
        now_ns: u64,
        tap: &mut Tap,
        at_ns: u64,
        tag: u32,
        said: Said,
    ) -> Option<Verdict> {
        if at_ns > now_ns {
            let detail = format!("a reply says it is {at_ns} when it is {now_ns}");
            return Some((Property::Answer, detail));
        }
        if tag != 0 {
            let Some(place) = tap.tags.iter().position(|other| *other == tag) else {
                let detail = format!("{said:?} answers tag {tag}, which has no question open");
                return Some((Property::Answer, detail));
            };
            tap.tags.swap_remove(place);
        }
        match said {
            Said::Welcome {
                session,
                window_ns,
                resumed,
            } => {
                tap.session = Some(session);
                tap.window_ns = window_ns;
                let known = self.sessions.iter_mut().find(|other| other.id == session);
                match known {
                    Some(known) => {
                        if known
                            .lost_ns
                            .is_some_and(|lost| lost + known.window_ns < at_ns)
                        {
                            let detail = format!("session {session} was resumed after its end");
                            return Some((Property::Disconnect, detail));
                        }
                        known.lost_ns = None;
                        known.ended = false;
                    }
                    None if resumed => {
                        let detail = format!("session {session} was resumed and never opened");
                        return Some((Property::Disconnect, detail));
                    }
                    None => self.sessions.push(Session {
                        id: session,
                        window_ns,
                        lost_ns: None,
                        ended: false,
                    }),
                }
                None
            }
            Said::Granted { id, token } => {
                let session = tap.session;
                let request = self.request(id)?;
                let own = request.session.is_some() && request.session == session;
                if own && request.token.is_some_and(|held| held != token) && !request.converts {
                    let detail = format!(
                        "{} is told token {token} and holds under {:?}",
                        name(id),
                        request.token
                    );
                    return Some((Property::Answer, detail));
                }
                None
            }
            Said::Released(id) | Said::Cancelled(id) => {
                let session = tap.session;
                let request = self.request(id)?;
                if request.session != session {
                    return None;
                }
                let still = matches!(said, Said::Released(_)) && request.token.is_some();
                let waits = matches!(said, Said::Cancelled(_)) && request.waiting;
                (still || waits).then(|| {
                    let detail = format!("{} is said to have ended, and has not", name(id));
                    (Property::Answer, detail)
                })
            }
            Said::Fault { taken_over } => {
                tap.closed = true;
                if taken_over {
                    Self::taken_over(tap);
                }
                None
            }
            Said::Other => None,
        }
    }

    /// The broker learned that a connection is gone, or decided that it is.
    pub(crate) fn connection_lost(&mut self, now_ns: u64, tap: &mut Tap) {
        self.heard = true;
        self.session_lost(now_ns, tap, false);
    }

    fn session_lost(&mut self, now_ns: u64, tap: &mut Tap, for_good: bool) {
        tap.closed = true;
        let Some(id) = tap.session.take() else {
            return;
        };
        if let Some(session) = self.sessions.iter_mut().find(|session| session.id == id)
            && session.lost_ns.is_none()
        {
            session.lost_ns = Some(now_ns);
            session.ended = for_good;
        }
    }

    /// Another connection has taken the session over: this one's end means nothing.
    pub(crate) const fn taken_over(tap: &mut Tap) {
        tap.session = None;
    }

    /// Which session the connection is bound to.
    pub(crate) const fn session(tap: &Tap) -> Option<u64> {
        tap.session
    }

    /// Compares the broker with the books, if anything can have changed, and brings the
    /// books up to date.
    pub(crate) fn settle(&mut self, now_ns: u64, broker: &Broker) -> Option<Verdict> {
        let counts = broker.table().counts();
        let token = counts.last_token.map_or(0, FencingToken::as_u64);
        let slept_ns = now_ns.saturating_sub(std::mem::replace(&mut self.looked_ns, now_ns));
        let counts = (counts.held, counts.waiting, token, counts.keys);
        if !self.heard && counts == self.counts && now_ns < self.due_ns {
            return None;
        }
        self.heard = false;
        self.counts = counts;
        self.settled += 1;
        let verdict = self.compare(now_ns, slept_ns, broker);
        if self.settled.is_multiple_of(CHECK_EVERY) {
            broker.table().check();
        }
        verdict
    }

    fn compare(&mut self, now_ns: u64, slept_ns: u64, broker: &Broker) -> Option<Verdict> {
        let mut verdict = None;
        let token_before = self.token_max;
        for place in 0..self.keys.len() {
            self.keys[place].look(broker);
        }
        self.mark_forced();
        // Several keys of one request change in one transition: look at all before
        // judging any.
        for place in 0..self.keys.len() {
            let judged = self.judge((now_ns, slept_ns), place, token_before, broker);
            verdict = verdict.or(judged);
        }
        let (mut held, mut waiting) = (0, 0);
        for place in 0..self.keys.len() {
            self.keys[place].turn_page();
        }
        for request in &mut self.requests {
            request.seen = false;
            request.heard = false;
        }
        self.due_ns = u64::MAX;
        for place in 0..self.keys.len() {
            for at in 0..self.keys[place].holders.len() {
                let holder = self.keys[place].holders[at];
                self.due_ns = self.due_ns.min(holder.deadline_ns.unwrap_or(u64::MAX));
                if let Some(request) = self.request(holder.id)
                    && !std::mem::replace(&mut request.seen, true)
                {
                    held += 1;
                }
            }
            for at in 0..self.keys[place].waiters.len() {
                let waiter = self.keys[place].waiters[at];
                let Some(request) = self.request(waiter.id) else {
                    continue;
                };
                if !std::mem::replace(&mut request.seen, true) {
                    waiting += 1;
                }
                let until_ns = request.wait_until_ns.unwrap_or(u64::MAX);
                self.due_ns = self.due_ns.min(until_ns);
            }
        }
        for session in &self.sessions {
            if let Some(lost_ns) = session.lost_ns.filter(|_| !session.ended) {
                let ends_ns = lost_ns.saturating_add(session.window_ns);
                if ends_ns > now_ns {
                    self.due_ns = self.due_ns.min(ends_ns);
                }
            }
        }
        let (counted_held, counted_waiting, _, _) = self.counts;
        if verdict.is_none() && self.complete && (held, waiting) != (counted_held, counted_waiting)
        {
            let detail = format!(
                "the broker counts {counted_held} held and {counted_waiting} waiting; on its \
                 keys are {held} and {waiting}"
            );
            verdict = Some((Property::Orphan, detail));
        }
        verdict
    }

    /// What is ended by force on one key ends on all its keys.
    fn mark_forced(&mut self) {
        let Self { keys, requests, .. } = self;
        for holder in keys
            .iter()
            .filter(|key| key.forced)
            .flat_map(|key| &key.holders)
        {
            if let Some(request) = index(holder.id).and_then(|at| requests.get_mut(at)) {
                request.may_end = true;
            }
        }
    }

    /// Whether the request waited, on the old pages, for a key that force was used on.
    fn waits_for_forced(&self, id: u128) -> bool {
        self.keys
            .iter()
            .any(|key| key.forced && key.waiters.iter().any(|place| place.id == id))
    }

    /// Judges one key's old page against its new one.
    fn judge(
        &mut self,
        (now_ns, slept_ns): (u64, u64),
        place: usize,
        token_before: u64,
        broker: &Broker,
    ) -> Option<Verdict> {
        let book = std::mem::take(&mut self.keys[place]);
        let verdict = self
            .judge_ends(now_ns, slept_ns, &book)
            .or_else(|| self.judge_grants(now_ns, &book, token_before))
            .or_else(|| self.judge_presence(now_ns, &book))
            .or_else(|| self.judge_head(now_ns, &book, broker));
        let mut book = book;
        for gone in &book.holders {
            let request = index(gone.id).and_then(|at| self.requests.get(at));
            let by_itself = request.is_some_and(|request| !request.may_end) && !book.forced;
            if !book.new_holders.iter().any(|other| other.id == gone.id)
                && by_itself
                && let Some(request) = request
            {
                let ended_ns = gone.deadline_ns.map_or(now_ns, |at| at.min(now_ns));
                let until_ns = ended_ns.saturating_add(request.lock_delay_ns);
                if request.lock_delay_ns > 0 {
                    book.delayed_until_ns = book.delayed_until_ns.max(until_ns);
                }
            }
        }
        self.keys[place] = book;
        verdict
    }

    /// Every hold and wait that ended has a reason.
    fn judge_ends(&mut self, now_ns: u64, slept_ns: u64, book: &KeyBook) -> Option<Verdict> {
        for gone in &book.holders {
            if book.new_holders.iter().any(|other| other.id == gone.id) {
                continue;
            }
            let forced = book.forced;
            let session_over = self.session_is_over(now_ns, gone.id);
            let Some(request) = self.request(gone.id) else {
                continue;
            };
            let expired = gone.deadline_ns.is_some_and(|deadline| deadline <= now_ns);
            let told = request.may_end || (session_over && !request.keep);
            request.token = None;
            request.token_before = Some(gone.token);
            request.asked = request.heard;
            if !(forced || expired || told || request.session.is_none()) {
                let detail = format!(
                    "{} held {} until {:?} and holds no longer at {now_ns}: nobody ended it",
                    name(gone.id),
                    book.shown(),
                    gone.deadline_ns
                );
                return Some((Property::EarlyExpiry, detail));
            }
        }
        for gone in &book.waiters {
            let stays = book.new_waiters.iter().any(|other| other.id == gone.id);
            let granted = book.new_holders.iter().any(|other| other.id == gone.id);
            if stays {
                continue;
            }
            let session_over = self.session_is_over(now_ns, gone.id);
            // It may have been granted and then been ended by force, in one batch.
            let forced = book.forced || self.waits_for_forced(gone.id);
            let Some(request) = self.request(gone.id) else {
                continue;
            };
            request.waiting = false;
            request.asked = request.heard || granted;
            let timed_out = request.wait_until_ns.is_some_and(|until| until <= now_ns);
            let told = request.may_end || session_over || request.session.is_none() || forced;
            // While the broker slept it may have been granted and have expired.
            let slept_through = request.lease_ns.is_some_and(|lease| lease <= slept_ns);
            if !(granted || timed_out || told || slept_through) {
                let session = request.session;
                let detail = format!(
                    "{} waited for {} and waits no longer: it was neither granted nor ended, \
                     and its session {session:?} lives",
                    name(gone.id),
                    book.shown()
                );
                return Some((Property::LostGrant, detail));
            }
        }
        None
    }

    /// Every grant was asked for, is compatible, in order, and has a larger token.
    fn judge_grants(&mut self, now_ns: u64, book: &KeyBook, token_before: u64) -> Option<Verdict> {
        for (at, grant) in book.new_holders.iter().enumerate() {
            let before = book.holders.iter().find(|other| other.id == grant.id);
            if let Some(before) = before
                && before.token == grant.token
            {
                let (due_ns, shown) = (grant.deadline_ns, book.shown());
                if due_ns == before.deadline_ns {
                    continue;
                }
                let Some(request) = self.request(grant.id) else {
                    continue;
                };
                if request.session.is_some() && !(request.renewed && due_ns == request.due_ns) {
                    let detail = format!(
                        "the deadline of {} on {shown} moved to {due_ns:?} without a renewal",
                        name(grant.id)
                    );
                    return Some((Property::LateExpiry, detail));
                }
                continue;
            }
            self.token_max = self.token_max.max(grant.token);
            let Some(request) = self.request(grant.id) else {
                continue;
            };
            request.token = Some(grant.token);
            request.waiting = false;
            let comes_back = request.reclaimed == Some(grant.token)
                || request.token_before == Some(grant.token) && request.keep;
            let asked = request.asked || request.heard || comes_back || request.session.is_none();
            let converts = before.is_some() && request.converts;
            if !asked {
                let detail = format!("{} holds {} and never asked", name(grant.id), book.shown());
                return Some((Property::UnaskedGrant, detail));
            }
            if grant.token <= token_before && !comes_back {
                let detail = format!(
                    "{} got token {} on {}, but {token_before} was given before",
                    name(grant.id),
                    grant.token,
                    book.shown()
                );
                return Some((Property::TokenOrder, detail));
            }
            let due_ns = request
                .lease_ns
                .map(|lease| grant.granted_ns.saturating_add(lease));
            let first = before.is_none() && request.session.is_some() && !request.converts;
            if first && !request.renewed && grant.deadline_ns != due_ns {
                let detail = format!(
                    "{} was granted {} until {:?}, and its lease ends at {due_ns:?}",
                    name(grant.id),
                    book.shown(),
                    grant.deadline_ns
                );
                return Some((Property::LateExpiry, detail));
            }
            if grant.granted_ns < book.delayed_until_ns && !comes_back && !converts {
                let detail = format!(
                    "{} was granted {} within its lock-delay",
                    name(grant.id),
                    book.shown()
                );
                return Some((Property::Exclusion, detail));
            }
            if let Some(other) = book.clash(at) {
                let detail = format!(
                    "{} and {} hold {} at one time, as {:?} and {:?}",
                    name(grant.id),
                    name(other.id),
                    book.shown(),
                    grant.mode,
                    other.mode
                );
                return Some((Property::Exclusion, detail));
            }
            if comes_back || converts || book.has_dialect {
                continue;
            }
            let stood = book.waiters.iter().position(|waiter| waiter.id == grant.id);
            let ahead = &book.waiters[..stood.unwrap_or(book.waiters.len())];
            let passed = ahead
                .iter()
                .find(|waiter| book.new_waiters.iter().any(|other| other.id == waiter.id));
            if let Some(passed) = passed {
                let detail = format!(
                    "{} was granted {} before {}, which waited longer",
                    name(grant.id),
                    book.shown(),
                    name(passed.id)
                );
                return Some((Property::Fifo, detail));
            }
        }
        let _ = now_ns;
        None
    }

    /// Nothing is there beyond its time or its session, and waiters keep their order.
    fn judge_presence(&mut self, now_ns: u64, book: &KeyBook) -> Option<Verdict> {
        for holder in &book.new_holders {
            if holder
                .deadline_ns
                .is_some_and(|deadline| deadline <= now_ns)
            {
                let detail = format!(
                    "{} holds {} past its deadline {:?}, at {now_ns}",
                    name(holder.id),
                    book.shown(),
                    holder.deadline_ns
                );
                return Some((Property::LateExpiry, detail));
            }
            let over = self.session_is_over(now_ns, holder.id);
            if over && self.request(holder.id).is_some_and(|request| !request.keep) {
                let detail = format!(
                    "{} holds {} and its session is over",
                    name(holder.id),
                    book.shown()
                );
                return Some((Property::Disconnect, detail));
            }
        }
        for waiter in &book.new_waiters {
            let over = self.session_is_over(now_ns, waiter.id);
            let Some(request) = self.request(waiter.id) else {
                continue;
            };
            let holds = book.new_holders.iter().any(|holder| holder.id == waiter.id);
            request.waiting |= !holds;
            let is_new = !book.waiters.iter().any(|other| other.id == waiter.id);
            request.asked |= request.heard;
            if is_new && !holds && !request.asked && request.session.is_some() {
                let detail = format!(
                    "{} waits for {} and never asked",
                    name(waiter.id),
                    book.shown()
                );
                return Some((Property::UnaskedGrant, detail));
            }
            if over {
                let detail = format!(
                    "{} waits for {} and its session is over",
                    name(waiter.id),
                    book.shown()
                );
                return Some((Property::Disconnect, detail));
            }
            let late = request.wait_until_ns.is_some_and(|until| until <= now_ns);
            if late && !holds && request.session.is_some() {
                let detail = format!("{} waits for {} too long", name(waiter.id), book.shown());
                return Some((Property::LateExpiry, detail));
            }
        }
        if book.has_dialect {
            return None;
        }
        let mut old = book.waiters.iter();
        let mut new = book
            .new_waiters
            .iter()
            .filter(|waiter| book.waiters.iter().any(|other| other.id == waiter.id));
        let ordered = new.all(|waiter| old.any(|other| other.id == waiter.id));
        (!ordered).then(|| {
            let detail = format!("the queue of {} was put in another order", book.shown());
            (Property::Fifo, detail)
        })
    }

    /// Who is first and compatible does not wait.
    fn judge_head(&self, now_ns: u64, book: &KeyBook, broker: &Broker) -> Option<Verdict> {
        let in_grace = broker
            .grace_until()
            .is_some_and(|until| until.as_nanos() > now_ns);
        if !self.booted || in_grace {
            return None;
        }
        if let [alone] = book.new_holders.as_slice() {
            let request = broker.table().request(RequestId::from_u128(alone.id))?;
            let delayed = request.keys().any(|key| {
                key.delayed_until()
                    .is_some_and(|until| until.as_nanos() > now_ns)
            });
            if request.is_upgrading() && !delayed {
                let detail = format!(
                    "{} waits to upgrade on {} and nobody else holds it",
                    name(alone.id),
                    book.shown()
                );
                return Some((Property::LostGrant, detail));
            }
        }
        let head = book.new_waiters.first()?;
        if !book.fits(head.id) || !self.fits_everywhere(head.id) {
            return None;
        }
        let request = broker.table().request(RequestId::from_u128(head.id))?;
        let free = request.keys().all(|key| {
            let is_head = key
                .waiters()
                .next()
                .is_some_and(|first| first.id() == request.id());
            let upgrading = key.holders().any(|holder| holder.is_upgrading());
            let delayed = key
                .delayed_until()
                .is_some_and(|until| until.as_nanos() > now_ns);
            is_head && !upgrading && !delayed
        });
        free.then(|| {
            let detail = format!(
                "{} is first in the queue of {} and nobody is in its way, but it waits",
                name(head.id),
                book.shown()
            );
            (Property::LostGrant, detail)
        })
    }

    fn fits_everywhere(&self, id: u128) -> bool {
        // The book that is judged is taken out meanwhile: an empty one is in its place.
        self.keys.iter().all(|book| book.fits(id))
    }

    fn session_is_over(&self, now_ns: u64, id: u128) -> bool {
        let session = index(id)
            .and_then(|at| self.requests.get(at))
            .and_then(|request| request.session);
        let session = session.and_then(|id| self.sessions.iter().find(|other| other.id == id));
        session.is_some_and(|session| {
            let over =
                |lost: u64| session.ended || lost.saturating_add(session.window_ns) <= now_ns;
            session.lost_ns.is_some_and(over)
        })
    }

    fn request(&mut self, id: u128) -> Option<&mut Request> {
        self.requests.get_mut(index(id)?)
    }

    /// The requests that hold or wait now, and on which key: for traces.
    pub(crate) fn page(&self, key: u32) -> (&[Place], usize) {
        let book = &self.keys[key as usize];
        (&book.holders, book.waiters.len())
    }
}

/// The table's own check costs too much to be made every time.
const CHECK_EVERY: u64 = if cfg!(debug_assertions) { 4 } else { 64 };

/// The name of key number `key`.
pub(crate) fn key_name(key: u32) -> Vec<u8> {
    format!("k{key}").into_bytes()
}

/// The id of operation `op`'s request: anything above, the operation below.
pub(crate) const fn request_id(seed_bits: u64, op: u32) -> u128 {
    (seed_bits as u128) << 64 | 0x4000_8000 << 32 | op as u128
}

/// The operation of a request's id.
fn index(id: u128) -> Option<usize> {
    usize::try_from(id as u32).ok()
}

fn name(id: u128) -> String {
    format!("#{}", id as u32)
}

fn key(bytes: &[u8]) -> Option<Key<'_>> {
    Key::new(bytes, u32::MAX).ok()
}

//! A restart breaks no promise: what must be durable before a client is told what.
//!
//! The broker hands out a [`Record`] whenever what it must remember has changed
//! ([`Broker::poll_record`]), and is told once it is durable
//! ([`Broker::handle_durable`]). The table never waits for that. Where a *promise*
//! depends on it, the bytes that make the promise are held back instead: that part of
//! that connection's output is not shown to the transport before.
//!
//! | promise | what must be durable first |
//! |---|---|
//! | tokens rise | the ceiling: reserved in blocks, the next long before it is needed |
//! | a session can reclaim | that there is such a session, or that there are some that are not listed: held back is its `Welcome` |
//! | a kept hold with a long lease, or none | the hold itself: held back is its grant, or its end, on every connection to which it is said |
//! | anything to holders that cannot reclaim | that there are such holders, and how long they may believe: held back is what is said to the first that may believe for so long |
//!
//! A grant in a session that is open waits for nothing. Of many sessions that are opened in
//! a row only the first waits: from then on the record says that it is not complete, until
//! no more have come for a moment and it lists them all.
//!
//! After a restart, the successor restores the kept holds, and grants nothing but
//! reclaims until nobody else can still believe in a hold: until every listed session has
//! come back and reclaimed, or its time is up; and if there may be others, until the
//! record's `reach` has passed.

mod takeover;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::connections::Queue;
use super::record::{Believer, KeptHold, Record};
use super::{Broker, BrokerConfig, ConfigError};
use crate::planted::planted;
use crate::table::RequestView;
use crate::{FencingToken, Instant, Mode, RequestId, SessionId};

/// Tokens reserved at one time.
const TOKEN_BLOCK: u64 = 1 << 22;
/// Sessions that are listed; with more, the others are only known to be.
const LISTED_MAX: usize = if cfg!(test) { 16 } else { 4096 };
/// When no session was opened for so long, all are listed.
const LIST_DELAY: Duration = Duration::from_millis(20);
/// How long the end of a session may take to be noted down. Nobody waits for that.
const REFRESH_DELAY: Duration = Duration::from_millis(200);

/// What is durable, and what has to be.
#[derive(Debug)]
pub(super) struct Durable {
    /// Off, nothing is recorded, and nothing waits.
    is_on: bool,
    /// The version of what must be remembered. It rises with the first change after a
    /// record was handed out.
    wanted: u64,
    /// The record that was handed out last.
    handed_out: Version,
    /// The record that was durable last.
    safe: Version,
    /// The ceiling in the record that was handed out last.
    ceiling: u64,
    /// Holders that will never be listed may believe for so long; zero if there are none.
    unlisted: Duration,
    /// Sessions were opened that are yet to be listed; they may believe for so long.
    opening: Option<Duration>,
    /// When to list them.
    list_at: Option<Instant>,
    /// Kept requests with a long lease or none, waiting or held.
    watched: BTreeMap<RequestId, Watched>,
    /// Those of them that held when it was last looked.
    held: BTreeMap<RequestId, (FencingToken, Mode)>,
    /// The version with the last change of any of those.
    kept_in: u64,
    /// The table's and the sessions' counts of changes when it was last looked.
    kept_changes: u32,
    sessions_ended: u64,
    /// When to note down that sessions have ended.
    refresh_at: Option<Instant>,
    /// Sessions of earlier runs that may still believe, and until when.
    outstanding: BTreeMap<(u64, SessionId), Instant>,
    /// Until when others of earlier runs may.
    unlisted_until: Option<Instant>,
    /// Connections with output that is held back.
    held_back: Vec<u32>,
    /// Who held when the broker was stopped.
    last: Option<Last>,
}

/// A request that may come to be a kept hold that a successor restores.
#[derive(Clone, Copy, Debug)]
struct Watched {
    /// The longest lease that it was ever given.
    longest: Option<Duration>,
    /// The version with its last change.
    kept_in: u64,
}

/// A record that went out, and whom it covers.
#[derive(Clone, Copy, Debug, Default)]
struct Version {
    number: u64,
    has_unlisted: bool,
    reach: Duration,
}

impl Version {
    /// Whether a successor would wait for a holder that is not listed.
    fn covers(&self, reach: Duration) -> bool {
        self.has_unlisted && self.reach >= reach
    }
}

#[derive(Debug)]
struct Last {
    sessions: Vec<Believer>,
    has_unlisted: bool,
}

/// Whether a broker remembers what it must across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It does not: a restart forgets tokens and holds.
    #[default]
    Ephemeral,
    /// It does, and this is what its predecessor left; `None` if it is the first. Its records
    /// must be taken from [`Broker::poll_record`] and made durable, then
    /// [`Broker::handle_durable`] be called: before that nothing is granted, no first session
    /// is welcomed, and no kept hold is told of.
    Durable(Option<Record>),
}

impl Durable {
    /// Takes over from the predecessor: adapts `config`, and says how long the grace
    /// period lasts and which holds are to be restored.
    ///
    /// # Errors
    ///
    /// When the predecessor left no number that is larger than all of its own.
    pub(super) fn new(
        now: Instant,
        config: &mut BrokerConfig,
    ) -> Result<(Self, Vec<KeptHold>), ConfigError> {
        let mut this = Self {
            is_on: false,
            wanted: 1,
            handed_out: Version::default(),
            safe: Version::default(),
            ceiling: 0,
            unlisted: Duration::ZERO,
            opening: None,
            list_at: None,
            watched: BTreeMap::new(),
            held: BTreeMap::new(),
            kept_in: 0,
            kept_changes: 0,
            sessions_ended: 0,
            refresh_at: None,
            outstanding: BTreeMap::new(),
            unlisted_until: None,
            held_back: Vec::new(),
            last: None,
        };
        let Durability::Durable(before) = core::mem::take(&mut config.durability) else {
            return Ok((this, Vec::new()));
        };
        this.is_on = true;
        let Some(before) = before else {
            return Ok((this, Vec::new()));
        };
        config.incarnation = next_number("incarnation", before.incarnation)?;
        config.secret_seed = before.secret_seed;
        let first = if planted!("tokens-begin-anew") {
            1
        } else {
            next_number("token_ceiling", before.token_ceiling.as_u64())?
        };
        config.table.first_token = FencingToken::new(first).expect("it is above one");
        for Believer {
            incarnation,
            session,
            reach,
        } in before.sessions
        {
            this.outstanding.insert((incarnation, session), now + reach);
        }
        this.unlisted_until = before.has_unlisted.then(|| now + before.reach);
        config.grace = this
            .grace_until()
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        Ok((this, before.holds))
    }

    /// Whether changes must be noted, and to which calls they belong.
    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// When sessions that came or went are noted down.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.refresh_at.into_iter().chain(self.list_at).min()
    }

    /// The version of the record that has the change that was just made.
    fn change(&mut self) -> u64 {
        if self.wanted == self.handed_out.number {
            self.wanted += 1;
        }
        self.wanted
    }

    /// The same of a change of this kept request.
    fn change_kept(&mut self, id: RequestId) {
        let version = self.change();
        self.kept_in = version;
        if let Some(watched) = self.watched.get_mut(&id) {
            watched.kept_in = version;
        }
    }

    /// Until when anybody of before may believe in a hold.
    fn grace_until(&self) -> Option<Instant> {
        self.outstanding
            .values()
            .copied()
            .chain(self.unlisted_until)
            .max()
    }

    /// What must be durable before a holder that is not listed may believe in anything for
    /// so long; nothing if it is.
    fn cover(&mut self, reach: Duration) -> Option<u64> {
        let is_next = self.handed_out.covers(reach);
        match (self.safe.covers(reach), is_next) {
            (true, true) => None,
            (false, true) => Some(self.handed_out.number),
            // It would no longer be once the next record is.
            (_, false) => Some(self.change()),
        }
    }

    /// As [`cover`](Self::cover), for one that will never be listed.
    fn cover_for_ever(&mut self, reach: Duration) -> Option<u64> {
        self.unlisted = self.unlisted.max(reach);
        self.cover(self.unlisted)
    }
}

impl Broker {
    /// What to make durable now, if anything; then call
    /// [`handle_durable`](Self::handle_durable). It replaces every earlier record.
    #[must_use]
    pub fn poll_record(&mut self) -> Option<Record> {
        let durable = &mut self.durable;
        if !durable.is_on || durable.handed_out.number > durable.safe.number {
            return None;
        }
        let first = self.config.table.first_token.as_u64();
        let last = self.table.counts().last_token.map(FencingToken::as_u64);
        let next = last.map_or(first, |last| last + 1);
        if is_nearly_used_up(next, durable.ceiling) {
            durable.change();
        }
        if durable.wanted == durable.safe.number {
            return None;
        }
        durable.ceiling = durable.ceiling.max(next.saturating_add(TOKEN_BLOCK));
        let record = self.record();
        self.durable.handed_out = Version {
            number: self.durable.wanted,
            has_unlisted: record.has_unlisted,
            reach: record.reach,
        };
        Some(record)
    }

    /// The record that was polled last is durable.
    pub fn handle_durable(&mut self, now: Instant) {
        let now = self.advance(now);
        self.durable.safe = self.durable.handed_out;
        if let Some(ceiling) = FencingToken::new(self.durable.ceiling) {
            self.table.set_token_ceiling(now, ceiling);
        }
        let safe = self.durable.safe.number;
        for index in core::mem::take(&mut self.durable.held_back) {
            let Some(connection) = self.connections.try_get_mut(index) else {
                continue;
            };
            if connection.output.release(safe) {
                self.durable.held_back.push(index);
            }
            self.connections.enqueue(Queue::Ready, index, now);
        }
        self.pump(now);
    }

    /// Whether everything that had to be made durable is.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        !self.durable.is_on || self.durable.wanted == self.durable.safe.number
    }

    /// Sessions of before a restart that may still reclaim.
    #[must_use]
    pub fn outstanding_sessions(&self) -> usize {
        self.durable.outstanding.len()
    }

    /// A session was opened for this connection, which is yet to be told.
    pub(super) fn note_session(&mut self, now: Instant, index: u32, window: Duration) {
        if !self.durable.is_on {
            return;
        }
        let reach = window.max(self.config.idle_max);
        self.durable.opening = self.durable.opening.max(Some(reach));
        self.durable.list_at = Some(now + LIST_DELAY);
        if let Some(version) = self.durable.cover(reach) {
            self.hold_back(index, version);
        }
    }

    /// A session goes on with this connection. What the one before was not shown, this
    /// one must not be shown either.
    pub(super) fn note_resumed(&mut self, index: u32) {
        if !self.is_durable() {
            let version = self.durable.wanted;
            self.hold_back(index, version);
        }
    }

    /// live-mutex clients, of which this is one, may hold, and will never reclaim.
    pub(super) fn note_dialect(&mut self, index: u32) {
        let reach = self.dialect.lease_longest().min(self.config.idle_max);
        if self.durable.is_on
            && !reach.is_zero()
            && let Some(version) = self.durable.cover_for_ever(reach)
        {
            self.hold_back(index, version);
        }
    }

    /// A kept request was accepted or renewed, and is held or will be.
    pub(super) fn note_kept(&mut self, index: u32, id: RequestId, lease: Option<Duration>) {
        if !self.durable.is_on {
            return;
        }
        let known = self.durable.watched.get(&id).map(|known| known.longest);
        if let (None, Some(short)) = (known, lease.filter(|lease| *lease <= self.config.idle_max)) {
            // It is not worth a line of its own.
            if let Some(version) = self.durable.cover_for_ever(short) {
                self.hold_back(index, version);
            }
            return;
        }
        let longest = match (known, lease) {
            (None, lease) => lease,
            (Some(Some(known)), Some(lease)) => Some(known.max(lease)),
            (Some(_), _) => None,
        };
        let kept_in = self
            .durable
            .watched
            .get(&id)
            .map_or(0, |known| known.kept_in);
        let watched = Watched { longest, kept_in };
        self.durable.watched.insert(id, watched);
        // A hold that was too short to be recorded, and has been renewed for longer, begins
        // without the table having changed; `guard` would not see it.
        let is_held = || {
            self.table
                .request(id)
                .is_some_and(|it| it.grant().is_some())
        };
        let has_grown = match known {
            Some(known) => known != longest,
            None => self.table.kept_changes() == self.durable.kept_changes && is_held(),
        };
        if has_grown {
            self.durable.change_kept(id);
        }
        self.note_told(index, id);
    }

    /// A kept request that was there already is about to be answered for, perhaps to
    /// somebody else.
    pub(super) fn note_kept_again(&mut self, index: u32, id: RequestId) {
        if self.durable.is_on
            && !self.durable.watched.contains_key(&id)
            // It has no line of its own, and its lease is among those of the unlisted.
            && let Some(version) = self.durable.cover_for_ever(Duration::ZERO)
        {
            self.hold_back(index, version);
        }
        self.note_told(index, id);
    }

    /// What is about to be said of this request may have been said before, to a connection
    /// that is gone, and held back there for it to be durable. Then it is here, too.
    pub(super) fn note_told(&mut self, index: u32, id: RequestId) {
        let safe = self.durable.safe.number;
        if self.durable.kept_in > safe
            && let Some(watched) = self.durable.watched.get(&id)
            && watched.kept_in > safe
        {
            self.hold_back(index, watched.kept_in);
        }
    }

    /// The same of what may be any request: one that is not there any more, or was not told of
    /// when it began or ended.
    pub(super) fn note_told_any(&mut self, index: u32) {
        if self.durable.kept_in > self.durable.safe.number {
            self.hold_back(index, self.durable.kept_in);
        }
    }

    /// After everything that a call did: holds back what it said if that depends on a
    /// kept hold having begun or ended.
    pub(super) fn guard(&mut self, now: Instant) {
        if !self.durable.is_on {
            return;
        }
        if self.sessions.ended() != self.durable.sessions_ended {
            self.durable.sessions_ended = self.sessions.ended();
            self.durable.refresh_at.get_or_insert(now + REFRESH_DELAY);
        }
        let changes = self.table.kept_changes();
        if changes == self.durable.kept_changes {
            return;
        }
        self.durable.kept_changes = changes;
        if !self.look_at_watched() {
            return;
        }
        let version = self.durable.kept_in;
        for (index, start) in self.connections.touched() {
            self.hold_back_from(index, start, version);
        }
    }

    /// Does what is due.
    pub(super) fn advance_durable(&mut self, now: Instant) {
        if self.durable.refresh_at.is_some_and(|at| at <= now) {
            self.durable.refresh_at = None;
            self.durable.change();
        }
        if self.durable.list_at.is_some_and(|at| at <= now) {
            if self.sessions.len() <= LISTED_MAX {
                self.durable.list_at = None;
                self.durable.opening = None;
                self.durable.change();
            } else {
                self.durable.list_at = Some(now + REFRESH_DELAY);
            }
        }
        if self.grace_until.is_none() && !self.durable.outstanding.is_empty() {
            self.durable.outstanding.clear();
            self.durable.refresh_at.get_or_insert(now + REFRESH_DELAY);
        }
    }

    /// Before the connections are closed: who holds must be waited for by the successor,
    /// and nobody else.
    pub(super) fn note_stop(&mut self, now: Instant) {
        if !self.durable.is_on || self.durable.last.is_some() {
            return;
        }
        let mut sessions = BTreeMap::new();
        let mut has_unlisted = false;
        for key in self.table.keys(0) {
            for holder in key.holders() {
                if holder.keep() && self.durable.watched.contains_key(&holder.id()) {
                    continue;
                }
                let reach = match holder.session() {
                    _ if holder.keep() => None,
                    Some(id) if self.sessions.get(id).is_some() => {
                        Some((id, self.session_reach(id)))
                    }
                    // A live-mutex client's: it cannot reclaim, nor believe beyond its `ttl`.
                    Some(id) if self.dialect.has_session(id) => {
                        let ends = holder.grant().and_then(|grant| grant.deadline);
                        let left = ends.map(|ends| ends.saturating_duration_since(now));
                        let reach = self.config.idle_max;
                        Some((id, left.map_or(reach, |left| left.min(reach))))
                    }
                    _ => None,
                };
                if let Some((id, reach)) = reach {
                    let listed = sessions.entry((self.config.incarnation, id));
                    let longest = listed.or_insert(reach);
                    *longest = reach.max(*longest);
                } else {
                    has_unlisted = true;
                }
            }
        }
        if self.grace_until.is_some() {
            sessions.extend(self.outstanding_reaches());
            has_unlisted |= self.durable.unlisted_until.is_some();
        }
        for reach in sessions.values().skip(LISTED_MAX) {
            has_unlisted = true;
            self.durable.unlisted = self.durable.unlisted.max(*reach);
        }
        let sessions = believers(sessions.into_iter().take(LISTED_MAX));
        self.durable.last = Some(Last {
            sessions,
            has_unlisted,
        });
        self.durable.refresh_at = None;
        self.durable.list_at = None;
        self.durable.opening = None;
        self.durable.change();
        self.now = self.now.max(now);
    }

    fn record(&mut self) -> Record {
        self.look_at_watched();
        let (sessions, has_unlisted) = match &self.durable.last {
            Some(last) => (last.sessions.clone(), last.has_unlisted),
            None => self.listed(),
        };
        Record {
            incarnation: self.config.incarnation,
            token_ceiling: FencingToken::new(self.durable.ceiling).expect("it is above zero"),
            secret_seed: self.config.secret_seed,
            reach: self.unlisted_reach(),
            has_unlisted,
            sessions,
            holds: self.kept_holds(),
        }
    }

    fn listed(&self) -> (Vec<Believer>, bool) {
        let own = self
            .sessions
            .ids()
            .map(|id| ((self.config.incarnation, id), self.session_reach(id)));
        let all = self.outstanding_reaches().chain(own);
        let has_unlisted = !self.unlisted_reach().is_zero();
        (believers(all.take(2 * LISTED_MAX)), has_unlisted)
    }

    /// How long those who are not listed may believe: of this run, and of earlier ones.
    fn unlisted_reach(&self) -> Duration {
        let durable = &self.durable;
        let of_before = durable
            .unlisted_until
            .filter(|_| self.grace_until.is_some())
            .map_or(Duration::ZERO, |until| {
                until.saturating_duration_since(self.now)
            });
        let opening = durable.opening.unwrap_or(Duration::ZERO);
        durable.unlisted.max(opening).max(of_before)
    }

    /// Sessions of earlier runs keep their reach: counted anew if this run ends, too.
    fn outstanding_reaches(&self) -> impl Iterator<Item = ((u64, SessionId), Duration)> {
        let now = self.now;
        self.durable
            .outstanding
            .iter()
            .map(move |(&id, &until)| (id, until.saturating_duration_since(now)))
    }

    /// How long the session's holder may believe after the broker is gone: for its resume
    /// window, or until it must have noticed.
    fn session_reach(&self, id: SessionId) -> Duration {
        let window = self
            .sessions
            .get(id)
            .map_or(Duration::ZERO, |session| session.resume_window);
        window.max(self.config.idle_max)
    }

    fn kept_holds(&self) -> Vec<KeptHold> {
        self.durable
            .held
            .iter()
            .filter_map(|(&id, &(token, _))| {
                let request = self.table.request(id)?;
                Some(KeptHold {
                    id,
                    token,
                    lease: self.durable.watched.get(&id)?.longest,
                    keys: keys_of(request),
                    label: request.label().flatten().copied().collect(),
                    lock_delay: request.lock_delay(),
                })
            })
            .collect()
    }

    /// Looks which of the watched requests hold; whether that has changed.
    fn look_at_watched(&mut self) -> bool {
        let mut held = BTreeMap::new();
        let table = &self.table;
        let Durable {
            watched,
            held: before,
            ..
        } = &mut self.durable;
        watched.retain(|&id, _| {
            // Its id may be another's by now, who does not keep what it holds.
            let Some(request) = table.request(id).filter(RequestView::keep) else {
                return false;
            };
            if let Some(grant) = request.grant() {
                held.insert(id, (grant.token, request.mode()));
            }
            true
        });
        if held == *before {
            return false;
        }
        let before = core::mem::replace(before, held);
        let version = self.durable.change();
        self.durable.kept_in = version;
        for (id, watched) in &mut self.durable.watched {
            if self.durable.held.get(id) != before.get(id) {
                watched.kept_in = version;
            }
        }
        true
    }

    /// Shows nothing of what is sent from here on before `version` is durable.
    fn hold_back(&mut self, index: u32, version: u64) {
        let start = self.connections[index].output.len();
        self.hold_back_from(index, start, version);
    }

    fn hold_back_from(&mut self, index: u32, start: usize, version: u64) {
        let Some(connection) = self.connections.try_get_mut(index) else {
            return;
        };
        if connection.output.hold_back(start, version) && !self.durable.held_back.contains(&index) {
            self.durable.held_back.push(index);
        }
    }
}

/// Whether to reserve more tokens, of which `next` is the next to be given.
const fn is_nearly_used_up(next: u64, ceiling: u64) -> bool {
    next.saturating_add(TOKEN_BLOCK / 2) > ceiling
}

/// The number after `last`, which is called `what` in a record.
fn next_number(what: &'static str, last: u64) -> Result<u64, ConfigError> {
    last.checked_add(1).ok_or(ConfigError::UsedUp { what })
}

fn believers(sessions: impl Iterator<Item = ((u64, SessionId), Duration)>) -> Vec<Believer> {
    sessions
        .map(|((incarnation, session), reach)| Believer {
            incarnation,
            session,
            reach,
        })
        .collect()
}

fn keys_of(request: RequestView<'_>) -> Vec<(Vec<u8>, Mode)> {
    request
        .keys()
        .filter_map(|key| {
            let holder = key.holders().find(|holder| holder.id() == request.id())?;
            Some((key.key().flatten().copied().collect(), holder.mode()))
        })
        .collect()
}

#[cfg(test)]
mod tests;

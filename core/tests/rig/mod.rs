//! A real table and the plain one side by side: each operation is put to both, and
//! their answers, states and events are compared.

use core::num::NonZeroU32;
use core::time::Duration;

use lmx_core::storage::Storage;
use lmx_core::table::{
    AcquireError, CancelError, Conversion, ConvertError, ForceTarget, Grant, KeyView, ReleaseError,
    RenewError, RequestView,
};
use lmx_core::{
    Acquire, Acquired, Event, FencingToken, Instant, Key, LockTable, RequestId, SessionId,
    TableConfig, Wait, Want,
};

use crate::model::{Answer, Ask, Limits, Mode, Model, State, Time, Told};

/// Tokens of before the restart are below this.
pub(crate) const FIRST_TOKEN: u64 = 1000;

/// One operation. Sessions are named by the order of their opening, modulo how many
/// there are.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Open {
        window: Time,
    },
    Acquire {
        by: usize,
        ask: Ask,
    },
    Reclaim {
        by: usize,
        ask: Ask,
        token: u64,
    },
    Release {
        by: usize,
        id: u128,
    },
    Renew {
        by: usize,
        id: u128,
        lease: Option<Time>,
    },
    Cancel {
        by: usize,
        id: u128,
    },
    Upgrade {
        by: usize,
        id: u128,
    },
    Downgrade {
        by: usize,
        id: u128,
    },
    ForceKey {
        key: String,
    },
    ForceRequest {
        id: u128,
    },
    Disconnect {
        of: usize,
    },
    Resume {
        of: usize,
    },
    Close {
        of: usize,
    },
    Poll {
        of: usize,
    },
    Confirm {
        of: usize,
        fewer: u32,
    },
    BeginGrace {
        lasts: Time,
    },
    EndGrace,
    Tokens {
        some: bool,
    },
    /// Time passes; the table hears of it, or not yet.
    Pass {
        time: Time,
        told: bool,
    },
}

#[derive(Clone)]
pub(crate) struct Rig<S: Storage> {
    pub(crate) table: LockTable<S>,
    pub(crate) model: Model,
    names: Vec<SessionId>,
    tokens_before: u64,
}

impl<S: Storage> Rig<S> {
    pub(crate) fn new(config: &TableConfig) -> Self {
        let limits = Limits {
            sessions: config.sessions_max as usize,
            keys: config.keys_max as usize,
            requests: config.requests_max as usize,
            claims: config.claims_max as usize,
            of_session: config.requests_per_session_max as usize,
            pieces: config.pieces_max as usize,
        };
        Self {
            table: LockTable::new(TableConfig {
                first_token: FencingToken::new(FIRST_TOKEN).unwrap(),
                ..config.clone()
            })
            .unwrap(),
            model: Model::new(limits, FIRST_TOKEN),
            names: vec![],
            tokens_before: FIRST_TOKEN - 1,
        }
    }

    /// Puts the operation to both tables, and compares what they say and have become.
    pub(crate) fn apply(&mut self, op: &Op) {
        let now = at(self.model.now);
        self.model.advance(self.model.now);
        let (is, ought) = self.put(now, op);
        assert_eq!(is, ought, "the answer to {op:?}");
        self.table.check();
        self.compare();
    }

    /// Carries out all that is due, call by call.
    pub(crate) fn catch_up(&mut self) {
        let now = at(self.model.now);
        self.model.advance(self.model.now);
        while self.is_behind() {
            self.table.handle_timeout(now);
            self.table.check();
        }
        self.compare();
    }

    /// Ends everything, and sees that nothing is left.
    pub(crate) fn drain(&mut self) {
        self.apply(&Op::EndGrace);
        self.apply(&Op::Tokens { some: true });
        for of in 0..self.names.len() {
            self.apply(&Op::Close { of });
        }
        for id in 0..64 {
            self.apply(&Op::ForceRequest { id });
        }
        self.apply(&Op::Pass {
            time: 1_000_000,
            told: true,
        });
        self.catch_up();
        let counts = self.table.counts();
        assert_eq!(
            (counts.sessions, counts.keys, counts.held, counts.waiting),
            (0, 0, 0, 0),
            "nothing is left over"
        );
    }

    fn is_behind(&self) -> bool {
        self.table
            .poll_timeout()
            .is_some_and(|due| due <= at(self.model.now))
    }

    fn session(&self, of: usize) -> Option<(usize, SessionId)> {
        let of = of.checked_rem(self.names.len())?;
        Some((of, self.names[of]))
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one arm per operation, each a few lines"
    )]
    fn put(&mut self, now: Instant, op: &Op) -> (Answer, Answer) {
        let nothing = (Answer::Done, Answer::Done);
        let (table, model) = (&mut self.table, &mut self.model);
        match op {
            Op::Open { window } => {
                let is = match table.open_session(now, ms(*window)) {
                    Ok(name) => {
                        assert!(!self.names.contains(&name), "names are never used again");
                        self.names.push(name);
                        Answer::Done
                    }
                    Err(_) => Answer::Refused("full"),
                };
                return (is, model.open(*window));
            }
            Op::ForceKey { key } => {
                let target = ForceTarget::Key(name(key));
                let is = Answer::Count(table.force_release(now, target));
                return (is, model.force_key(key));
            }
            Op::ForceRequest { id } => {
                let target = ForceTarget::Request(RequestId::from_u128(*id));
                let is = Answer::Count(table.force_release(now, target));
                return (is, model.force_request(*id));
            }
            Op::BeginGrace { lasts } => {
                table.begin_grace(now, now + ms(*lasts));
                model.begin_grace(model.now + lasts);
                return nothing;
            }
            Op::EndGrace => {
                table.end_grace(now);
                model.end_grace();
                return nothing;
            }
            Op::Tokens { some } => {
                let last = table.counts().last_token;
                let ceiling = if *some {
                    u64::MAX
                } else {
                    // No more than have been given; catching up may still give some.
                    table.handle_timeout(now);
                    while table.poll_timeout().is_some_and(|due| due <= now) {
                        table.handle_timeout(now);
                    }
                    let last = table.counts().last_token.or(last);
                    last.map_or(FIRST_TOKEN - 1, FencingToken::as_u64)
                };
                table.set_token_ceiling(now, FencingToken::new(ceiling).unwrap());
                model.set_tokens(*some);
                return nothing;
            }
            Op::Pass { time, told } => {
                model.now += time;
                model.advance(model.now);
                if *told {
                    table.handle_timeout(at(model.now));
                }
                return nothing;
            }
            _ => {}
        }
        let of = match op {
            Op::Acquire { by, .. }
            | Op::Reclaim { by, .. }
            | Op::Release { by, .. }
            | Op::Renew { by, .. }
            | Op::Cancel { by, .. }
            | Op::Upgrade { by, .. }
            | Op::Downgrade { by, .. } => by,
            Op::Disconnect { of }
            | Op::Resume { of }
            | Op::Close { of }
            | Op::Poll { of }
            | Op::Confirm { of, .. } => of,
            other => unreachable!("{other:?} was put already"),
        };
        let Some((of, session)) = self.session(*of) else {
            return nothing;
        };
        let (table, model) = (&mut self.table, &mut self.model);
        match op {
            Op::Acquire { ask, .. } => {
                let is = with_acquire(ask, |want| table.acquire(now, session, want));
                let is = match is {
                    Ok(Acquired::Granted(grant)) => granted(grant),
                    Ok(Acquired::Queued { ahead }) => Answer::Queued { ahead },
                    Err(error) => refused(error),
                };
                (is, model.acquire(of, ask))
            }
            Op::Reclaim { ask, token, .. } => {
                let token_given = FencingToken::new(*token).unwrap();
                let is = with_acquire(ask, |want| table.reclaim(now, session, want, token_given));
                let is = match is {
                    Ok(grant) => granted(grant),
                    Err(error) => refused(error),
                };
                (is, model.reclaim(of, ask, *token))
            }
            Op::Release { id, .. } => {
                let is = match table.release(now, session, RequestId::from_u128(*id)) {
                    Ok(()) => Answer::Done,
                    Err(ReleaseError::NotHeld) => Answer::Refused("not held"),
                    Err(ReleaseError::StillWaiting) => Answer::Refused("waits"),
                    Err(ReleaseError::NotOwner) => Answer::Refused("owner"),
                    Err(other) => panic!("{other}"),
                };
                (is, model.release(of, *id))
            }
            Op::Renew { id, lease, .. } => {
                let id_given = RequestId::from_u128(*id);
                let is = match table.renew(now, session, id_given, lease.map(ms)) {
                    Ok(deadline) => Answer::Deadline(deadline.map(millis)),
                    Err(RenewError::NotHeld) => Answer::Refused("not held"),
                    Err(RenewError::StillWaiting) => Answer::Refused("waits"),
                    Err(RenewError::NotOwner) => Answer::Refused("owner"),
                    Err(other) => panic!("{other}"),
                };
                (is, model.renew(of, *id, *lease))
            }
            Op::Cancel { id, .. } => {
                let is = match table.cancel(now, session, RequestId::from_u128(*id)) {
                    Ok(()) => Answer::Done,
                    Err(CancelError::NotWaiting) => Answer::Refused("not waiting"),
                    Err(CancelError::Granted) => Answer::Refused("granted"),
                    Err(CancelError::NotOwner) => Answer::Refused("owner"),
                    Err(other) => panic!("{other}"),
                };
                (is, model.cancel(of, *id))
            }
            Op::Upgrade { id, .. } | Op::Downgrade { id, .. } => {
                let up = matches!(op, Op::Upgrade { .. });
                let to = if up {
                    Conversion::Upgrade
                } else {
                    Conversion::Downgrade
                };
                let is = match table.convert(now, session, RequestId::from_u128(*id), to) {
                    Ok(Some(grant)) => granted(grant),
                    Ok(None) => Answer::Queued { ahead: 0 },
                    Err(ConvertError::NotHeld) => Answer::Refused("not held"),
                    Err(ConvertError::NotOwner) => Answer::Refused("owner"),
                    Err(ConvertError::NotConvertible) => Answer::Refused("not convertible"),
                    Err(ConvertError::UpgradeConflict) => Answer::Refused("upgrade"),
                    Err(ConvertError::Deadlock { .. }) => Answer::Refused("deadlock"),
                    Err(other) => panic!("{other}"),
                };
                (is, model.convert(of, *id, up))
            }
            Op::Disconnect { .. } => (
                done(table.disconnect(now, session).is_ok()),
                model.disconnect(of),
            ),
            Op::Resume { .. } => (done(table.resume(now, session).is_ok()), model.resume(of)),
            Op::Close { .. } => (
                done(table.close_session(now, session).is_ok()),
                model.close(of),
            ),
            Op::Poll { .. } => {
                self.poll(of, session);
                nothing
            }
            Op::Confirm { fewer, .. } => {
                let count = model.sessions[of].polled.saturating_sub(*fewer);
                table.confirm(session, count);
                model.confirm(of, count);
                nothing
            }
            other => unreachable!("{other:?} was put already"),
        }
    }

    /// Polls all events of one session from both.
    fn poll(&mut self, of: usize, session: SessionId) {
        self.catch_up();
        let mut events = vec![];
        while let Some(event) = self.table.poll_event(session) {
            self.table.check();
            let (id, told, token) = match event {
                Event::Granted { id, grant } => (id, Told::Granted, Some(grant.token)),
                Event::Contended { id } => (id, Told::Contended, None),
                Event::TimedOut { id } => (id, Told::Ended(State::TimedOut), None),
                Event::Expired { id, token } => (id, Told::Ended(State::Expired), Some(token)),
                Event::Revoked { id, token } => (id, Told::Ended(State::Revoked), token),
                other => panic!("{other:?}"),
            };
            let request = self
                .model
                .find(id.as_u128())
                .map(|at| &self.model.requests[at]);
            if let Some(known) = request.and_then(|request| request.token) {
                assert_eq!(token.map_or(known, FencingToken::as_u64), known);
            }
            events.push((id.as_u128(), told));
        }
        let mut ought = self.model.poll(of);
        let mut is = events.clone();
        ought.sort();
        is.sort();
        assert_eq!(is, ought, "events of session {of}");
        self.model.polled(of, &events);
    }

    fn compare(&mut self) {
        if self.is_behind() {
            return;
        }
        let model = &self.model;
        let counts = self.table.counts();
        assert_eq!(self.table.poll_timeout().map(millis), model.next_due());
        let keys = model.keys();
        assert_eq!(counts.keys as usize, keys.len(), "keys in use");
        assert_eq!(self.table.keys(0).count(), keys.len());
        assert_eq!(
            counts.sessions as usize,
            model.sessions.iter().filter(|session| session.open).count(),
        );
        for key in &keys {
            let view = self.table.inspect(name(key)).expect("the key is in use");
            compare_key(&view, model, key);
        }
        let mut newest = self.tokens_before;
        for at in 0..self.model.requests.len() {
            let request = &mut self.model.requests[at];
            let view = self.table.request(RequestId::from_u128(request.ask.id));
            if request.state != State::Held {
                let waits = request.state == State::Waiting;
                assert_eq!(view.is_some(), waits);
                continue;
            }
            let token = view.unwrap().grant().unwrap().token.as_u64();
            match request.token {
                Some(known) => assert_eq!(token, known, "a hold keeps its token"),
                None => assert!(token > self.tokens_before, "tokens only grow"),
            }
            request.token = Some(token);
            newest = newest.max(token);
        }
        self.tokens_before = counts.last_token.map_or(newest, FencingToken::as_u64);
        assert!(newest <= self.tokens_before, "the last token is known");
    }
}

fn compare_key(view: &KeyView<'_>, model: &Model, key: &str) {
    let bytes: Vec<u8> = view.key().flatten().copied().collect();
    assert_eq!(bytes, key.as_bytes());
    assert_eq!(view.capacity(), model.capacity.get(key).copied());
    let delayed = view.delayed_until().map(millis);
    assert_eq!(delayed, model.delayed.get(key).copied());
    let id = |view: RequestView<'_>| view.id().as_u128();
    let waiters: Vec<_> = view.waiters().map(id).collect();
    let ought: Vec<_> = model
        .waiters(key)
        .iter()
        .map(|at| model.requests[*at].ask.id)
        .collect();
    assert_eq!(waiters, ought, "who waits for {key}, in order");
    assert_eq!(view.waiters_len() as usize, ought.len());
    let mut holders: Vec<_> = view.holders().map(id).collect();
    let mut ought: Vec<_> = model
        .holders(key)
        .iter()
        .map(|at| model.requests[*at].ask.id)
        .collect();
    holders.sort_unstable();
    ought.sort_unstable();
    assert_eq!(holders, ought, "who holds {key}");
    assert_eq!(view.holders_len() as usize, ought.len());
    for view in view.holders().chain(view.waiters()) {
        compare_request(&view, model, key);
    }
}

fn compare_request(view: &RequestView<'_>, model: &Model, key: &str) {
    let at = model.find(view.id().as_u128()).unwrap();
    let request = &model.requests[at];
    let deadline = match view.grant() {
        Some(grant) => grant.deadline,
        None => view.wait_deadline(),
    };
    assert_eq!(deadline.map(millis), request.deadline);
    assert_eq!(millis(view.since()), request.since);
    assert_eq!(view.session().is_some(), request.session.is_some());
    assert_eq!(view.keep(), request.ask.keep);
    assert_eq!(view.is_upgrading(), request.upgrading);
    assert_eq!(view.owner().map(NonZeroU32::get), request.ask.owner);
    let label: Vec<u8> = view.label().flatten().copied().collect();
    assert_eq!(label, request.ask.label.as_bytes());
    let keys: Vec<Vec<u8>> = view
        .keys()
        .map(|view| view.key().flatten().copied().collect())
        .collect();
    let ought: Vec<_> = request
        .ask
        .wants
        .iter()
        .map(|want| want.key.as_bytes())
        .collect();
    assert_eq!(keys, ought);
    let capacity = model.capacity.get(key).copied().unwrap_or(0);
    let mode = match model.mode(at, key).unwrap() {
        Mode::Semaphore { permits, .. } => Mode::Semaphore { capacity, permits },
        other => other,
    };
    assert_eq!(view.mode(), real_mode(mode));
}

fn with_acquire<T>(ask: &Ask, then: impl FnOnce(&Acquire<'_>) -> T) -> T {
    let wants: Vec<_> = ask
        .wants
        .iter()
        .map(|want| Want {
            key: name(&want.key),
            mode: real_mode(want.mode),
        })
        .collect();
    let mut want = Acquire::new(RequestId::from_u128(ask.id), &wants);
    want.lease = ask.lease.map(ms);
    want.wait = match ask.wait {
        None => Wait::Forever,
        Some(0) => Wait::No,
        Some(bound) => Wait::For(ms(bound)),
    };
    want.keep = ask.keep;
    want.notify_contended = ask.notify;
    want.front = ask.front;
    want.owner = ask.owner.and_then(NonZeroU32::new);
    want.lock_delay = ms(ask.delay);
    want.label = ask.label.as_bytes();
    then(&want)
}

fn refused(error: AcquireError) -> Answer {
    Answer::Refused(match error {
        AcquireError::UnknownSession => "session",
        AcquireError::Busy => "busy",
        AcquireError::Deadlock { .. } => "deadlock",
        AcquireError::Full { .. } => "full",
        AcquireError::IdInUse => "id",
        AcquireError::Ended => "ended",
        AcquireError::ReclaimConflict => "conflict",
        AcquireError::ReclaimTooLate => "too late",
        other => panic!("{other}"),
    })
}

fn granted(grant: Grant) -> Answer {
    Answer::Granted {
        at: millis(grant.granted_at),
        deadline: grant.deadline.map(millis),
    }
}

fn done(ok: bool) -> Answer {
    if ok {
        Answer::Done
    } else {
        Answer::Refused("session")
    }
}

fn real_mode(mode: Mode) -> lmx_core::Mode {
    match mode {
        Mode::Exclusive => lmx_core::Mode::Exclusive,
        Mode::Shared => lmx_core::Mode::Shared,
        Mode::Semaphore { capacity, permits } => lmx_core::Mode::Semaphore { capacity, permits },
    }
}

fn name(key: &str) -> Key<'_> {
    Key::new(key.as_bytes(), 1024).unwrap()
}

fn at(time: Time) -> Instant {
    Instant::from_millis(time)
}

fn ms(time: Time) -> Duration {
    Duration::from_millis(time)
}

fn millis(at: Instant) -> Time {
    at.as_nanos() / 1_000_000
}

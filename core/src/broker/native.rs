//! The native protocol: what each command does.

use crate::planted::planted;
use alloc::vec::Vec;

use super::connection::Phase;
use super::connections::Queue;
use super::session;
use super::{Broker, report};
use crate::table::{
    AcquireError, Acquired, CancelError, ConvertError, ForceTarget, OpenError, ReleaseError,
    RenewError,
};
use crate::wire::{
    AcquireFields, Answer, Command, FaultKind, Hello, QueryError, Request, Resumed, Ticket, Welcome,
};
use crate::{
    Acquire, FencingToken, Instant, Key, KeyError, RequestId, SessionId, TableConfig, Want,
};

/// So many wants of one request are put together without an allocation.
const WANTS_INLINE: usize = 16;

impl Broker {
    pub(super) fn handle_frame(&mut self, now: Instant, index: u32, body: &[u8]) {
        let request = match Request::decode(body) {
            Ok(request) => request,
            Err(error) => {
                return self.fault(now, index, FaultKind::Malformed, format_args!("{error}"));
            }
        };
        if request.tag == 0 {
            let text = format_args!("a request has tag zero; number requests from one");
            return self.fault(now, index, FaultKind::Malformed, text);
        }
        match (self.connections[index].session, request.body) {
            (None, Command::Hello(hello)) => self.hello(now, index, request.tag, hello),
            (None, _) => {
                let text = format_args!("the first command must be Hello");
                self.fault(now, index, FaultKind::OutOfOrder, text);
            }
            (Some(_), Command::Hello(_)) => {
                let text = format_args!("this connection has a session already; Hello comes once");
                self.fault(now, index, FaultKind::OutOfOrder, text);
            }
            (Some(session), command) => {
                if self.confirm(now, index, session, request.seen) {
                    self.command(now, index, session, request.tag, command);
                }
            }
        }
    }

    /// Opens or resumes a session.
    fn hello(&mut self, now: Instant, index: u32, tag: u32, hello: Hello<'_>) {
        if let Some(token) = &self.config.auth_token
            && !session::is_authorized(token, hello.auth)
        {
            let text = if hello.auth.is_empty() {
                format_args!("this broker requires an authentication token, and none was shown")
            } else {
                format_args!("the authentication token is wrong")
            };
            return self.fault(now, index, FaultKind::Unauthorized, text);
        }
        let (bytes, bytes_max) = (hello.name.len(), self.config.name_bytes_max);
        if bytes > bytes_max as usize {
            let text = format_args!(
                "the session's name has {bytes} bytes; a name has at most {bytes_max}"
            );
            return self.fault(now, index, FaultKind::Malformed, text);
        }
        let opened = match hello.resume {
            None => self.open(now, index, hello, Resumed::New),
            Some(ticket) => self.resume(now, index, hello, ticket),
        };
        let Some((session, resumed)) = opened else {
            return;
        };
        self.connections.unlink(Queue::Handshake, index);
        let connection = &mut self.connections[index];
        connection.phase = Phase::Open;
        connection.session = Some(session);
        let welcome = Welcome {
            ticket: session::ticket(&self.config.secret_seed, self.config.incarnation, session),
            resumed,
            resume_window: self
                .sessions
                .get(session)
                .expect("it was opened or resumed above")
                .resume_window,
            idle_max: self.config.idle_max,
            frame_bytes_max: self.config.frame_bytes_max,
            grace_until: self.grace_until,
        };
        match resumed {
            Resumed::Resumed => self.note_resumed(index),
            _ => self.note_session(now, index, welcome.resume_window),
        }
        self.connections
            .send(now, index, tag, &Answer::Welcome(welcome));
        self.tell_events(now, session, true);
    }

    fn open(
        &mut self,
        now: Instant,
        index: u32,
        hello: Hello<'_>,
        resumed: Resumed,
    ) -> Option<(SessionId, Resumed)> {
        let window = hello.resume_window.min(self.config.table.resume_window_max);
        match self.table.open_session(now, window) {
            Ok(session) => {
                self.counters.0.sessions_total += 1;
                let connection = self.connections.id(index);
                let may_reclaim = resumed == Resumed::Restarted;
                self.sessions
                    .open(session, connection, hello.name, window, may_reclaim);
                Some((session, resumed))
            }
            Err(error) => {
                self.counters.open(error);
                let option = match error {
                    OpenError::Full { .. } => "sessions_max",
                    OpenError::WindowTooLong { .. } => "resume_window_max",
                };
                let text = format_args!("{error} ({option})");
                self.fault(now, index, FaultKind::Full, text);
                None
            }
        }
    }

    fn resume(
        &mut self,
        now: Instant,
        index: u32,
        hello: Hello<'_>,
        ticket: Ticket,
    ) -> Option<(SessionId, Resumed)> {
        let is_genuine = session::is_genuine(&self.config.secret_seed, &ticket);
        if ticket.incarnation != self.config.incarnation {
            let is_earlier = ticket.incarnation < self.config.incarnation;
            // A broker that has kept its seed knows its predecessors' tickets.
            let resumed = if is_genuine && is_earlier {
                Resumed::Restarted
            } else {
                Resumed::Lost
            };
            let opened = self.open(now, index, hello, resumed)?;
            if resumed == Resumed::Restarted
                && let Some(session) = self.sessions.get_mut(opened.0)
            {
                session.reclaims_from = Some((ticket.incarnation, ticket.session));
            }
            return Some(opened);
        }
        if !is_genuine {
            let text = format_args!(
                "the secret shown is not that of the session to be resumed; open a new one"
            );
            self.fault(now, index, FaultKind::Unauthorized, text);
            return None;
        }
        let session = ticket.session;
        if let Some(known) = self.sessions.get(session)
            && known.resume_window.is_zero()
            && !planted!("no-window-resumes")
        {
            // It ends with its connection, even if that still looks alive here: what it was
            // told over that connection would not be told again.
            let before = known.connection;
            if let Some(before) = before.and_then(|id| self.connections.index(id)) {
                let text = format_args!("the client has connected anew");
                self.fault(now, before, FaultKind::TakenOver, text);
            }
            return self.open(now, index, hello, Resumed::Lost);
        }
        if self.table.resume(now, session).is_err() {
            self.sessions.remove(session);
            return self.open(now, index, hello, Resumed::Lost);
        }
        self.counters.0.resumes += 1;
        let connection = self.connections.id(index);
        let before = self.sessions.attach(session, connection, hello.name);
        if let Some(before) = before.and_then(|id| self.connections.index(id)) {
            // From here on its end concerns nobody else.
            if !planted!("old-connection-ends-new-session") {
                self.connections[before].session = None;
            }
            let text = format_args!("another connection has resumed this session");
            self.fault(now, before, FaultKind::TakenOver, text);
        }
        Some((session, Resumed::Resumed))
    }

    /// The client has received so many of the replies that it was sent unasked.
    fn confirm(&mut self, now: Instant, index: u32, session: SessionId, seen: u32) -> bool {
        let connection = &mut self.connections[index];
        if seen == connection.seen {
            return true;
        }
        let told = connection.told;
        // Both counts wrap.
        if seen.wrapping_sub(connection.seen) > told.wrapping_sub(connection.seen) {
            let text = format_args!("{seen} replies with tag zero are confirmed; {told} were sent");
            self.fault(now, index, FaultKind::OutOfOrder, text);
            return false;
        }
        connection.seen = seen;
        self.table.confirm(session, seen);
        true
    }

    fn command(&mut self, now: Instant, index: u32, by: SessionId, tag: u32, command: Command<'_>) {
        if !matches!(command, Command::Reclaim { .. })
            && let Some(session) = self.sessions.get_mut(by)
            && let Some(before) = session.reclaims_from.take()
        {
            // Reclaims come first, so all there were have come.
            self.note_reclaimed(now, before);
        }
        let refusals = &mut self.counters;
        let answer = match command {
            Command::Hello(_) => unreachable!("told apart by the caller"),
            Command::Acquire(fields) => return self.acquire(now, index, by, tag, fields, None),
            Command::Reclaim { request, token } => {
                return self.acquire(now, index, by, tag, request, Some(token));
            }
            Command::Release { id } => match self.table.release(now, by, id) {
                Ok(()) => {
                    if planted!("release-answered-twice") {
                        self.connections
                            .send(now, index, tag, &Answer::Released { id });
                    }
                    Answer::Released { id }
                }
                Err(error) => {
                    refusals.0.refused_absent += 1;
                    if error == ReleaseError::NotHeld {
                        self.note_told_any(index);
                    }
                    Answer::ReleaseRefused { id, error }
                }
            },
            Command::Renew { id, lease } => match self.table.renew(now, by, id, lease) {
                Ok(deadline) => {
                    let is_kept = self.table.request(id).is_some_and(|request| request.keep());
                    if is_kept {
                        self.note_kept(index, id, lease);
                    }
                    Answer::Renewed { id, deadline }
                }
                Err(error) => {
                    refusals.renew(error);
                    if error == RenewError::NotHeld {
                        self.note_told_any(index);
                    }
                    Answer::RenewRefused { id, error }
                }
            },
            Command::Cancel { id } => match self.table.cancel(now, by, id) {
                Ok(()) => Answer::Cancelled { id },
                Err(error) => {
                    refusals.0.refused_absent += 1;
                    if error == CancelError::NotWaiting {
                        self.note_told_any(index);
                    }
                    Answer::CancelRefused { id, error }
                }
            },
            Command::Convert { id, to } => match self.table.convert(now, by, id, to) {
                Ok(Some(grant)) => {
                    self.note_told(index, id);
                    Answer::Granted { id, grant }
                }
                Ok(None) => Answer::Queued { id, ahead: 0 },
                Err(error) => {
                    refusals.convert(error);
                    if error == ConvertError::NotHeld {
                        self.note_told_any(index);
                    }
                    Answer::ConvertRefused { id, error }
                }
            },
            Command::Ping => Answer::Pong,
            Command::Goodbye => return self.goodbye(now, index, by, tag),
            Command::ForceReleaseKey { key } | Command::Inspect { key, .. } => {
                let key = match parse_key(key, self.config.table.key_bytes_max) {
                    Ok(key) => key,
                    Err(error) => {
                        refusals.0.refused_invalid += 1;
                        let answer = Answer::QueryRefused { error };
                        return self.connections.send(now, index, tag, &answer);
                    }
                };
                let (table, sessions) = (&mut self.table, &self.sessions);
                let scratch = &mut self.scratch;
                if let Command::Inspect { skip, .. } = command {
                    report::inspect(table, sessions, scratch, key, skip)
                } else {
                    let target = ForceTarget::Key(key);
                    report::force_release(table, sessions, scratch, now, target)
                }
            }
            Command::ForceReleaseRequest { id } => {
                let target = ForceTarget::Request(id);
                let (table, scratch) = (&mut self.table, &mut self.scratch);
                report::force_release(table, &self.sessions, scratch, now, target)
            }
            Command::List { start } => report::list(&self.table, &mut self.scratch, start),
            Command::Status => Answer::Status(self.status(now)),
        };
        self.connections.send(now, index, tag, &answer);
    }

    /// Carries out `Acquire`, or with a token `Reclaim`.
    fn acquire(
        &mut self,
        now: Instant,
        index: u32,
        by: SessionId,
        tag: u32,
        fields: AcquireFields<'_>,
        reclaimed: Option<FencingToken>,
    ) {
        let id = fields.id;
        // Who asks again changes nothing about what is kept, whatever it names now.
        let is_new_kept = fields.keep && self.table.request(id).is_none();
        let mut wants = Wants::default();
        let result = match wants.collect(&fields, &self.config.table) {
            Err(Unasked::Malformed(error)) => {
                let text = format_args!("a want of the request cannot be read: {error}");
                return self.fault(now, index, FaultKind::Malformed, text);
            }
            Err(Unasked::Refused(error)) => Err(error),
            Ok(()) => {
                let ask = fields.ask(wants.as_slice());
                match reclaimed {
                    None => self.table.acquire(now, by, &ask),
                    Some(_) if !self.may_reclaim(by, id) => Err(AcquireError::ReclaimTooLate),
                    Some(token) => {
                        let mut reclaimed = self.table.reclaim(now, by, &ask, token);
                        if reclaimed == Err(AcquireError::ReclaimConflict)
                            && self.drop_superseded(now, ask.wants, token)
                        {
                            reclaimed = self.table.reclaim(now, by, &ask, token);
                        }
                        reclaimed.map(Acquired::Granted)
                    }
                }
            }
        };
        match result {
            Ok(_) if is_new_kept => self.note_kept(index, id, fields.lease),
            Ok(_) if fields.keep => self.note_kept_again(index, id),
            Ok(_) => self.note_told(index, id),
            Err(_) => {}
        }
        if reclaimed.is_some() && result.is_err() {
            self.note_not_reclaimed(by);
        }
        let answer = match result {
            Ok(Acquired::Granted(grant)) => Answer::Granted { id, grant },
            Ok(Acquired::Queued { ahead }) => Answer::Queued { id, ahead },
            Err(error) => {
                self.counters.acquire(error);
                match error {
                    AcquireError::Busy => {
                        let (table, scratch) = (&self.table, &mut self.scratch);
                        report::busy(table, &self.sessions, scratch, id, wants.as_slice())
                    }
                    error => Answer::AcquireRefused { id, error },
                }
            }
        };
        self.connections.send(now, index, tag, &answer);
    }

    /// Whether the session held before the broker's restart, and the grace period lasts
    /// or the hold was restored.
    fn may_reclaim(&self, session: SessionId, id: RequestId) -> bool {
        let session = self.sessions.get(session);
        session.is_some_and(|session| session.may_reclaim)
            && (self.grace_until.is_some() || self.table.request(id).is_some())
    }

    fn goodbye(&mut self, now: Instant, index: u32, session: SessionId, tag: u32) {
        if planted!("goodbye-keeps-holds") {
            self.connections[index].session = None;
            self.connections.send(now, index, tag, &Answer::Bye);
            return self.close(now, index);
        }
        let known = self.table.close_session(now, session);
        debug_assert!(known.is_ok(), "a bound session is in the table");
        self.sessions.remove(session);
        self.connections[index].session = None;
        self.connections.send(now, index, tag, &Answer::Bye);
        self.close(now, index);
    }
}

fn parse_key(bytes: &[u8], bytes_max: u32) -> Result<Key<'_>, QueryError> {
    Key::new(bytes, bytes_max).map_err(|error| match error {
        KeyError::Empty { bytes_max: max } => QueryError::KeyEmpty { max },
        KeyError::TooLong { bytes_max: max, .. } => QueryError::KeyTooLong { max },
    })
}

impl AcquireFields<'_> {
    fn ask<'w>(&'w self, wants: &'w [Want<'w>]) -> Acquire<'w> {
        Acquire {
            id: self.id,
            wants,
            lease: self.lease,
            wait: self.wait,
            keep: self.keep,
            notify_contended: self.notify_contended,
            front: false,
            label: self.label,
            owner: self.owner,
            lock_delay: self.lock_delay,
        }
    }
}

/// Why fields are no request that the lock table could be asked.
enum Unasked {
    Malformed(postcard::Error),
    Refused(AcquireError),
}

/// The wants of one request, parsed.
#[derive(Default)]
struct Wants<'a> {
    few: heapless::Vec<Want<'a>, WANTS_INLINE>,
    many: Vec<Want<'a>>,
}

impl<'a> Wants<'a> {
    fn as_slice(&self) -> &[Want<'a>] {
        if self.many.is_empty() {
            &self.few
        } else {
            &self.many
        }
    }

    fn collect(&mut self, fields: &AcquireFields<'a>, limits: &TableConfig) -> Result<(), Unasked> {
        let max = limits.keys_per_request_max;
        for (position, want) in fields.wants.iter().enumerate() {
            let want = want.map_err(Unasked::Malformed)?;
            if position >= max as usize {
                return Err(Unasked::Refused(AcquireError::TooManyKeys { max }));
            }
            let key = Key::new(want.key, limits.key_bytes_max).map_err(|error| {
                Unasked::Refused(match error {
                    KeyError::Empty { .. } => AcquireError::KeyEmpty,
                    KeyError::TooLong { bytes_max: max, .. } => AcquireError::KeyTooLong { max },
                })
            })?;
            self.push(Want {
                key,
                mode: want.mode,
            });
        }
        Ok(())
    }

    fn push(&mut self, want: Want<'a>) {
        if !self.many.is_empty() {
            self.many.push(want);
        } else if let Err(want) = self.few.push(want) {
            self.many.extend_from_slice(&self.few);
            self.many.push(want);
        }
    }
}

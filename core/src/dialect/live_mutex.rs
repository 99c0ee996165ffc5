//! The protocol of live-mutex: one JSON object per line, as its clients speak it.
//!
//! Its locks are requests of the same [`LockTable`] that native clients use, so a key
//! is one lock whoever asks for it. A connection that locks anything gets a session
//! without a resume window; every lock is a semaphore, of capacity 1 unless `max` says
//! otherwise. Readers and writers hold a key of their own beside the one they name
//! (`live_mutex/rw.rs`), so the table queues and frees them like anybody else.
//!
//! What a peer makes this machine remember is bounded by the table's limits: each thing
//! it keeps for a connection belongs to a request that is in the table.

mod composite;
mod confirm;
mod frames;
mod lock;
mod parse;
mod recent;
mod report;
mod rw;
mod write_keys;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::broker::ConnectionId;
use crate::storage::Growable;
use crate::table::{AcquireError, Acquired, ForceTarget, OpenError};
use crate::{Acquire, Event, Instant, LockTable, RequestId, SessionId, TableConfig};

pub(crate) use parse::request_called;

use frames::Outbox;
use parse::{Frame, Line, Raw};
use recent::{Fate, Recent};

/// The version this broker passes for; clients compare it with their own.
const BROKER_VERSION: &str = "0.2.25";

/// How long a client of another version may take to confirm that it has understood.
const MISMATCH_GRACE: Duration = Duration::from_secs(2);

/// All connections that speak live-mutex's protocol, as a pure state machine.
#[derive(Debug)]
pub(crate) struct LiveMutex {
    connections: BTreeMap<ConnectionId, Connection>,
    sessions: BTreeMap<SessionId, ConnectionId>,
    write_keys: write_keys::WriteKeys,
    recent: Recent,
    outbox: Outbox,
    /// Requests to be kept that were made since it was last looked, and their leases.
    kept: Vec<(RequestId, Option<Duration>)>,
    /// Somebody who wanted to end a hold was told that there is none.
    says_not_held: bool,
    lease_longest: Duration,
    /// When to do something without being asked.
    wakes: BTreeSet<(Instant, ConnectionId, Wake)>,
    /// Request ids made so far for what has none of its own.
    ids_made: u64,
    /// Whether an id was ever used on several keys at a time.
    has_namesakes: bool,
    expiries: u64,
    started: Instant,
    key_bytes_max: u32,
    reply_bytes_max: u32,
}

/// What a connection's transport is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output<'a> {
    /// Write these bytes.
    Bytes {
        /// One or more whole lines.
        bytes: &'a [u8],
        /// They only say that requests wait.
        is_courtesy: bool,
    },
    /// Close, once everything before is written.
    Close,
}

impl LiveMutex {
    /// No connection yet. The longest replies, which list keys, end before
    /// `reply_bytes_max`.
    pub(crate) fn new(now: Instant, limits: &TableConfig, reply_bytes_max: u32) -> Self {
        Self {
            connections: BTreeMap::new(),
            sessions: BTreeMap::new(),
            write_keys: write_keys::WriteKeys::default(),
            recent: Recent::default(),
            outbox: Outbox::default(),
            kept: Vec::new(),
            says_not_held: false,
            lease_longest: Duration::ZERO,
            wakes: BTreeSet::new(),
            ids_made: 0,
            has_namesakes: false,
            expiries: 0,
            started: now,
            key_bytes_max: limits.key_bytes_max,
            reply_bytes_max,
        }
    }

    /// A connection turned out to speak this protocol.
    pub(crate) fn connect(&mut self, connection: ConnectionId) {
        self.connections.insert(connection, Connection::default());
    }

    /// Whether the session belongs to this protocol.
    pub(crate) fn has_session(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session) || self.write_keys.is_session(session)
    }

    /// The connection that a session of this protocol belongs to.
    pub(crate) fn connection_of(&self, session: SessionId) -> Option<ConnectionId> {
        self.sessions.get(&session).copied()
    }

    /// A line has arrived, without its newline.
    pub(crate) fn handle_line(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        line: &[u8],
        table: &mut LockTable<Growable>,
    ) {
        // As JavaScript decodes: what is no UTF-8 becomes a replacement character.
        let text = match core::str::from_utf8(line) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(line),
        };
        let mut at = At {
            now,
            by: connection,
            table,
        };
        match Line::parse(&text) {
            Line::Nothing => {}
            Line::NotAnObject => {
                if self.stage(connection) == Stage::Open {
                    self.refuse_kind(connection, &Frame::default());
                }
            }
            Line::Frame(frame) => self.handle_frame(&mut at, &frame),
        }
    }

    /// The table has an event for one of this protocol's sessions.
    pub(crate) fn handle_event(
        &mut self,
        now: Instant,
        session: SessionId,
        event: Event,
        table: &mut LockTable<Growable>,
    ) {
        if self.write_keys.is_session(session) {
            self.handle_write_key_event(event);
            return;
        }
        let Some(&connection) = self.sessions.get(&session) else {
            return;
        };
        let mut at = At {
            now,
            by: connection,
            table,
        };
        match event {
            Event::Granted { id, grant } => self.handle_granted(&mut at, id, grant),
            Event::Expired { id, .. } => {
                self.expiries += 1;
                self.handle_ended(&at, id, lock::UNTOLD_EXPIRY);
            }
            Event::Revoked { id, .. } => self.handle_ended(&at, id, lock::REVOKED),
            // Waits are without bound, and nobody asks to be told of contention.
            Event::TimedOut { .. } | Event::Contended { .. } => {}
        }
    }

    /// The connection is gone: its waits are cancelled, its holds released but those
    /// that were to be kept.
    pub(crate) fn handle_disconnect(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        table: &mut LockTable<Growable>,
    ) {
        let mut at = At {
            now,
            by: connection,
            table,
        };
        self.drop_everything_of(&mut at);
        if let Some(state) = self.connections.remove(&connection)
            && let Some(due) = state.ends_at
        {
            self.wakes.remove(&(due, connection, Wake::Mismatched));
        }
    }

    /// Does everything that is due at or before `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(due, connection, wake)) = self.wakes.first()
            && due <= now
        {
            self.wakes.pop_first();
            match wake {
                Wake::Mismatched => self.close(connection),
                Wake::Unconfirmed => self.ask_for_confirmation(now, connection),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due. May change with every call.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.wakes.first().map(|(due, ..)| *due)
    }

    /// The next thing to do to a connection. Drain it after every `handle_*` call.
    pub(crate) fn poll_output(&mut self) -> Option<(ConnectionId, Output<'_>)> {
        self.outbox.poll()
    }

    /// The next request that was made to be kept beyond its connection, and its lease: so
    /// that whoever owns the table can see to it that it is kept beyond a restart, too.
    pub(crate) fn poll_kept(&mut self) -> Option<(RequestId, Option<Duration>)> {
        self.kept.pop()
    }

    /// Whether it has said, since that was last asked, that something is not held: it may be
    /// what was kept and has just ended.
    pub(crate) const fn take_says_not_held(&mut self) -> bool {
        core::mem::replace(&mut self.says_not_held, false)
    }

    /// The longest lease that anybody has asked for who is to lose it with the connection:
    /// so long may such a client believe that it holds. Zero if nobody has asked.
    pub(crate) const fn lease_longest(&self) -> Duration {
        self.lease_longest
    }

    /// Every request goes through here.
    fn acquire(
        &mut self,
        at: &mut At<'_>,
        session: SessionId,
        request: &Acquire<'_>,
    ) -> Result<Acquired, AcquireError> {
        if request.keep {
            self.kept.push((request.id, request.lease));
        } else {
            let lease = request.lease.unwrap_or(Duration::MAX);
            self.lease_longest = self.lease_longest.max(lease);
        }
        at.table.acquire(at.now, session, request)
    }
}

/// What a call works on: when, for whom, and the locks.
struct At<'a> {
    now: Instant,
    by: ConnectionId,
    table: &'a mut LockTable<Growable>,
}

/// What is known of a connection.
#[derive(Debug, Default)]
struct Connection {
    stage: Stage,
    /// Opened by the first request that needs one.
    session: Option<SessionId>,
    /// Whether its locks outlive it unless they say so themselves.
    keeps: bool,
    waiting: BTreeMap<RequestId, Waiting>,
    /// Ids that are no UUIDs, as JSON text, of what it holds or waits for.
    names: BTreeMap<RequestId, Box<str>>,
    rw: rw::Share,
    unconfirmed: confirm::Unconfirmed,
    /// When it is woken to be asked what it has confirmed.
    asks_at: Option<Instant>,
    /// When it is closed for being of another version.
    ends_at: Option<Instant>,
}

impl Connection {
    /// A hold of it has ended.
    fn forget(&mut self, id: RequestId) {
        self.names.remove(&id);
        self.rw.forget(id);
        self.unconfirmed.remove(id);
    }
}

/// What a connection is to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    /// A client of another version has not confirmed that it has understood.
    Mismatched,
    /// A grant may be forgotten.
    Unconfirmed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// Of another version: told so, and no longer listened to.
    Mismatched,
    /// To be closed.
    Closing,
}

/// A request that waits, with what its reply will need.
#[derive(Debug)]
struct Waiting {
    uuid: Option<Box<str>>,
    key: Option<Box<str>>,
    purpose: Purpose,
}

impl Waiting {
    fn new(frame: &Frame<'_>, purpose: Purpose) -> Self {
        Self {
            uuid: frame.uuid.map(|raw| raw.text().into()),
            key: frame.key.map(|raw| raw.text().into()),
            purpose,
        }
    }
}

/// What is done once a waiting request is granted.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Lock {
        rw: parse::RwStatus,
        /// Its client is one that confirms its grants.
        confirms: bool,
    },
    Composite,
    Share(rw::Pending),
    /// To have a base lock again that was lent; nobody is told.
    TakeBack,
}

impl LiveMutex {
    fn handle_frame(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        let kind = frame.kind();
        if kind == "version-mismatch-confirmed" {
            self.close(at.by);
            return;
        }
        if self.stage(at.by) != Stage::Open {
            return;
        }
        match &*kind {
            "simulate-version-mismatch" => self.refuse_version(at, Some("\"0.0.1\"")),
            "end-connection-from-broker-for-testing-purposes"
            | "destroy-connection-from-broker-for-testing-purposes" => self.close(at.by),
            _ if frame.inspect_command.is_some_and(Raw::truthy) => self.inspect(at, frame),
            "version" => self.version(at, frame),
            "lock" => self.lock(at, frame),
            "unlock" => self.unlock(at, frame),
            "lock-received" => self.lock_received(at, frame),
            // What the clients of 0.0 say after every unlock; there is nothing left to do.
            "unlock-received" => {}
            "lock-client-timeout" | "lock-client-error" => self.lock_given_up(at, frame),
            "lock-received-rejected" => self.lock_rejected(at, frame),
            "acquire-many" => self.acquire_many(at, frame),
            "release-many" => self.release_many(at, frame),
            "register-write-flag-check" | "register-write-flag-check-queued" => {
                self.check_for_reader(at, frame);
            }
            "register-write-flag-and-readers-check" => self.check_for_writer(at, frame),
            "set-write-flag-false-and-broadcast" => self.end_write(at, frame),
            "increment-readers" => self.increment_readers(at, frame),
            "decrement-readers" => self.decrement_readers(at, frame),
            "ls" => self.ls(at, frame),
            "lock-info-request" => self.lock_info(at, frame),
            "ping" => self.ping(at, frame),
            "system-stats-request" => self.system_stats(at, frame),
            _ => self.refuse_kind(at.by, frame),
        }
    }

    /// The answer to what is no message of this protocol.
    fn refuse_kind(&mut self, connection: ConnectionId, frame: &Frame<'_>) {
        let kind = frame.kind.map_or("undefined", Raw::text);
        let mut error = String::from("Malformed data sent to Live-Mutex broker.");
        error.push_str(" Unknown 'type' field => ");
        error.extend(kind.chars().take(100));
        self.outbox
            .frame(connection)
            .raw("key", frame.key)
            .raw("uuid", frame.uuid)
            .text("error", &error);
    }

    fn version(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        let version = frame.value.and_then(Raw::string);
        if !version.as_deref().is_some_and(is_compatible) {
            self.refuse_version(at, frame.value.map(Raw::text));
            return;
        }
        let version = version.unwrap_or_default();
        if let Some(connection) = self.connections.get_mut(&at.by) {
            connection.rw.dialect = rw::Dialect::of(&version);
            connection.keeps = frame.keeps();
        }
    }

    fn refuse_version(&mut self, at: &mut At<'_>, client_version: Option<&str>) {
        self.drop_everything_of(at);
        let ends_at = at.now + MISMATCH_GRACE;
        if let Some(connection) = self.connections.get_mut(&at.by) {
            connection.stage = Stage::Mismatched;
            connection.ends_at = Some(ends_at);
            self.wakes.insert((ends_at, at.by, Wake::Mismatched));
        }
        self.outbox
            .frame(at.by)
            .text("type", "version-mismatch")
            .value("versions", |bytes| {
                bytes.push(b'{');
                if let Some(version) = client_version {
                    bytes.extend_from_slice(b"\"clientVersion\":");
                    bytes.extend_from_slice(version.as_bytes());
                    bytes.push(b',');
                }
                bytes.extend_from_slice(b"\"brokerVersion\":");
                frames::push_string(bytes, BROKER_VERSION);
                bytes.push(b'}');
            });
    }

    fn close(&mut self, connection: ConnectionId) {
        if let Some(state) = self.connections.get_mut(&connection)
            && state.stage != Stage::Closing
        {
            state.stage = Stage::Closing;
            self.outbox.close(connection);
        }
    }

    fn stage(&self, connection: ConnectionId) -> Stage {
        self.connections
            .get(&connection)
            .map_or(Stage::Closing, |state| state.stage)
    }

    /// Ends the connection's session, with all it waits for and all it holds that is
    /// not to be kept.
    fn drop_everything_of(&mut self, at: &mut At<'_>) {
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return;
        };
        let session = connection.session.take();
        connection.waiting.clear();
        connection.names.clear();
        let owed = core::mem::take(&mut connection.rw).into_owed_write_keys();
        connection.unconfirmed = confirm::Unconfirmed::default();
        if let Some(due) = connection.asks_at.take() {
            self.wakes.remove(&(due, at.by, Wake::Unconfirmed));
        }
        self.cancel_write_keys_of(at);
        if let Some(session) = session {
            self.sessions.remove(&session);
            // Its client comes back, and releases what it does not know it has lost.
            for request in at.table.requests_of(session) {
                if request.grant().is_some() && !request.keep() {
                    self.recent.note(request.id(), Fate::Lost);
                }
            }
            // It cannot be unknown: it ends here and nowhere else.
            let closed = at.table.close_session(at.now, session);
            debug_assert!(closed.is_ok(), "a dialect session ended by itself");
        }
        for id in owed {
            self.release_by_id(at, id);
        }
        self.release_unread_write_keys(at);
    }

    /// The connection's session, opened if it has none.
    fn session(&mut self, at: &mut At<'_>) -> Result<SessionId, OpenError> {
        let Some(connection) = self.connections.get_mut(&at.by) else {
            unreachable!("a line was handled for a connection that is not connected")
        };
        if let Some(session) = connection.session {
            return Ok(session);
        }
        let session = at.table.open_session(at.now, Duration::ZERO)?;
        connection.session = Some(session);
        self.sessions.insert(session, at.by);
        Ok(session)
    }

    /// An id for a request that has none of its own.
    fn make_id(&mut self) -> RequestId {
        make_id(&mut self.ids_made)
    }

    /// Ends a wait of one of this protocol's sessions, or the hold that has come of it.
    fn withdraw(&mut self, at: &mut At<'_>, session: SessionId, id: RequestId) {
        if at.table.cancel(at.now, session, id).is_err() {
            self.release_by_id(at, id);
        }
    }

    /// Ends a hold, whoever has it. A native holder is told that it was by force.
    fn release_by_id(&mut self, at: &mut At<'_>, id: RequestId) -> bool {
        let Some(request) = at.table.request(id) else {
            return false;
        };
        if request.grant().is_none() {
            return false;
        }
        match request.session() {
            Some(owner) if self.has_session(owner) => {
                self.forget_hold(owner, id);
                at.table.release(at.now, owner, id).is_ok()
            }
            _ => at.table.force_release(at.now, ForceTarget::Request(id)) > 0,
        }
    }

    /// A hold of one of this protocol's sessions has ended: nothing refers to it any more.
    fn forget_hold(&mut self, owner: SessionId, id: RequestId) {
        self.write_keys.remove(id);
        let Some(&by) = self.sessions.get(&owner) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&by) else {
            return;
        };
        connection.forget(id);
        // Ended by another before its own client could be told that it had begun.
        if let Some(waiting) = connection.waiting.remove(&id) {
            self.refuse_waiting(by, &waiting, lock::REVOKED);
        }
    }

    /// A hold or a wait of this connection has ended by itself, or by force.
    fn handle_ended(&mut self, at: &At<'_>, id: RequestId, untold: &str) {
        self.recent.note(id, Fate::Ended);
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return;
        };
        connection.forget(id);
        if let Some(waiting) = connection.waiting.remove(&id) {
            // Its client knows of no grant, so a retry is a new request.
            self.recent.forget(id);
            self.refuse_waiting(at.by, &waiting, untold);
        }
    }

    fn refuse_waiting(&mut self, by: ConnectionId, waiting: &Waiting, error: &str) {
        if matches!(waiting.purpose, Purpose::TakeBack) {
            return;
        }
        let mut frame = self.outbox.frame(by);
        match waiting.purpose {
            Purpose::Lock { .. } => frame.text("type", "lock").truth("acquired", false),
            Purpose::Composite => frame.text("type", "acquire-many").truth("acquired", false),
            Purpose::Share(_) | Purpose::TakeBack => &mut frame,
        };
        let key = match waiting.purpose {
            Purpose::Composite => "keys",
            _ => "key",
        };
        frame
            .echo(key, waiting.key.as_deref())
            .echo("uuid", waiting.uuid.as_deref())
            .text("error", error);
    }

    fn refuse_full(&mut self, at: &At<'_>, frame: &Frame<'_>, error: &dyn core::fmt::Display) {
        self.outbox
            .frame(at.by)
            .raw("type", frame.kind)
            .raw("key", frame.key)
            .raw("uuid", frame.uuid)
            .text("error", &error.to_string());
    }
}

/// The next id of those that this program makes. The high half keeps them apart from ids
/// that are hashes of text.
fn make_id(ids_made: &mut u64) -> RequestId {
    const HIGH: u64 = u64::from_be_bytes(*b"lmx\0lmx\0");
    *ids_made += 1;
    parse::made_id(u128::from(HIGH) << 64 | u128::from(*ids_made))
}

/// Whether a client of this version is served: the same major version, and a minor
/// version that begins with the same digit. The patch does not matter. The one release of
/// 0.1 that there is speaks the same messages, and is served too.
fn is_compatible(version: &str) -> bool {
    if version == "0.1.1066" {
        return true;
    }
    let mut parts = version.split('.');
    let major = parts.next();
    let Some(minor) = parts.next() else {
        return false;
    };
    // What does not begin with a digit is not told apart from what does.
    let is_other_minor = minor.starts_with(|first: char| first.is_ascii_digit() && first != '2');
    major == Some("0") && !is_other_minor
}

#[cfg(test)]
mod tests;

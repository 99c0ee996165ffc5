//! Readers and writers, as three generations of live-mutex's clients make them.
//!
//! The clients build their readers-writer locks from plain locks and from messages that
//! count readers and set a writer's flag. Here a reader's count and a writer's flag are
//! requests of the lock table, on a key beside the one the client names ([`shared_key`]):
//! each reader holds it shared, a writer holds it alone. So readers really share, a
//! writer excludes every reader, nobody starves, a dead client's part is freed with its
//! session, and those who inspect the broker see it.
//!
//! * Write-preferring, up to 0.2.25 ([`Dialect::Locked`]): the client takes the base lock
//!   (the plain lock of the key it names) around each message. `register-write-flag-check`
//!   begins a read, `decrement-readers` ends it; `register-write-flag-and-readers-check`
//!   begins a write, `set-write-flag-false-and-broadcast` ends it.
//! * Write-preferring, newer ([`Dialect::Held`]): the client holds the base lock while it
//!   reads (up to 10 at a time) or writes. `register-write-flag-check` only waits until no
//!   writer is there; `increment-readers` begins the read.
//! * Read-preferring: plain locks with `rwStatus`. The first reader locks a second key,
//!   which writers lock too, for all readers; the last one unlocks it (`write_keys.rs`).
//!
//! **Lending.** A client that has to wait in a check still has the base lock, which those
//! it waits for may need to finish. So the lock is given back for it (lent), and its unlock
//! later succeeds as if nothing had happened. A newer client keeps its base lock to exclude
//! plain lockers, so it is lent only if an older client is in the way, and taken back before
//! anybody else gets it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use crate::storage::Growable;
use crate::table::{AcquireError, Acquired, KeyView};
use crate::{Acquire, Instant, Key, LockTable, Mode, RequestId, Wait, Want};

use super::lock::Label;
use super::parse::{Frame, Raw};
use super::{At, LiveMutex, Purpose, Waiting};

/// How a write-preferring client goes about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Up to 0.2.25: the check counts the reader.
    Locked,
    /// Newer, or unknown.
    #[default]
    Held,
}

impl Dialect {
    pub(super) fn of(version: &str) -> Self {
        let mut numbers = version.split('.').skip(1).map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(minor)), Some(Ok(patch))) if (minor, patch) <= (2, 25) => Self::Locked,
            _ => Self::Held,
        }
    }
}

/// What a connection has of readers-writer locks.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) dialect: Dialect,
    /// Reads and writes of each base key, newest last.
    roles: BTreeMap<Box<[u8]>, Roles>,
    /// Base locks given back while their holder waits.
    lent: BTreeMap<RequestId, Lent>,
    /// The base lock under which a first reader now locks the key for writers.
    pub(super) first_reads: Vec<FirstRead>,
    /// Reads that a base lock began with its grant, by that lock while it is held.
    begun: BTreeMap<RequestId, RequestId>,
    /// Locks of write keys that this connection, having been the last reader, is about
    /// to unlock.
    pub(super) last_reads: Vec<RequestId>,
}

#[derive(Debug, Default)]
pub(super) struct Roles {
    pub(super) reads: Vec<RequestId>,
    writes: Vec<RequestId>,
}

#[derive(Clone, Copy, Debug)]
struct Lent {
    capacity: u32,
    deadline: Option<Instant>,
    keep: bool,
}

#[derive(Debug)]
pub(super) struct FirstRead {
    pub(super) base: RequestId,
    pub(super) key: Box<[u8]>,
}

/// What waits for the shared key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    ask: Ask,
    lent: Option<RequestId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Only to know that no writer is there.
    Probe,
    /// To read, begun by a check.
    Read,
    /// To read, begun by `increment-readers`.
    Increment,
    Write,
}

impl Share {
    pub(super) fn is_lent(&self, id: RequestId) -> bool {
        self.lent.contains_key(&id)
    }

    /// Ends the lending.
    pub(super) fn take_lent(&mut self, id: RequestId) -> bool {
        self.lent.remove(&id).is_some()
    }

    /// This hold has ended.
    pub(super) fn forget(&mut self, id: RequestId) {
        self.first_reads.retain(|read| read.base != id);
        self.begun.retain(|base, read| *base != id && *read != id);
        self.roles.retain(|_, roles| {
            roles.reads.retain(|read| *read != id);
            roles.writes.retain(|write| *write != id);
            !roles.reads.is_empty() || !roles.writes.is_empty()
        });
    }

    /// The grant of this base lock began this read.
    pub(super) fn note_begun(&mut self, base: RequestId, read: RequestId) {
        self.begun.insert(base, read);
    }

    /// The read that the grant of this base lock began.
    pub(super) fn take_begun(&mut self, base: RequestId) -> Option<RequestId> {
        self.begun.remove(&base)
    }

    /// The locks of write keys that were to be unlocked next.
    pub(super) fn into_owed_write_keys(self) -> Vec<RequestId> {
        self.last_reads
    }

    #[cfg(test)]
    pub(super) fn has_roles(&self) -> bool {
        !self.roles.is_empty()
    }

    fn roles_mut(&mut self, key: &[u8]) -> &mut Roles {
        self.roles.entry(key.into()).or_default()
    }

    /// Takes the newest read, or write, of a key out of the books.
    pub(super) fn end(
        &mut self,
        key: &[u8],
        pick: fn(&mut Roles) -> &mut Vec<RequestId>,
    ) -> Option<RequestId> {
        let roles = self.roles.get_mut(key)?;
        let id = pick(roles).pop();
        if roles.reads.is_empty() && roles.writes.is_empty() {
            self.roles.remove(key);
        }
        id
    }
}

/// The write-preferring clients' messages.
impl LiveMutex {
    pub(super) fn check_for_reader(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        let counts = self
            .connections
            .get(&at.by)
            .is_some_and(|connection| connection.rw.dialect == Dialect::Locked);
        let ask = if counts { Ask::Read } else { Ask::Probe };
        if self.ask(at, frame, ask) == Some(Asked::Waits) && !counts {
            let name = frame.key_name();
            let readers = self.readers_of(at.table, name.as_bytes());
            self.outbox
                .frame(at.by)
                .truth("writerFlag", true)
                .number("readersCount", readers.into())
                .raw("key", frame.key)
                .raw("uuid", frame.uuid)
                .text("type", "register-write-flag-check-queued");
        }
    }

    pub(super) fn increment_readers(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        self.ask(at, frame, Ask::Increment);
    }

    pub(super) fn check_for_writer(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        self.ask(at, frame, Ask::Write);
    }

    pub(super) fn decrement_readers(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        self.end_role(at, frame, |roles| &mut roles.reads);
        self.outbox
            .frame(at.by)
            .raw("key", frame.key)
            .raw("uuid", frame.uuid)
            .text("type", "decrement-readers-success");
    }

    pub(super) fn end_write(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        self.end_role(at, frame, |roles| &mut roles.writes);
        self.outbox
            .frame(at.by)
            .raw("uuid", frame.uuid)
            .raw("key", frame.key)
            .text("type", "write-flag-false-and-broadcast-success");
    }

    /// What was asked for, and had to wait, is there.
    pub(super) fn handle_shared(
        &mut self,
        at: &mut At<'_>,
        id: RequestId,
        waiting: &Waiting,
        pending: Pending,
    ) {
        let name = waiting
            .key
            .as_deref()
            .map_or("undefined".into(), |key| Raw::of(key).name());
        if let Some(base) = pending.lent {
            self.take_back(at, base, name.as_bytes());
        }
        self.begin_role(at, id, name.as_bytes(), pending.ask);
        self.answer_asked(
            at,
            name.as_bytes(),
            (waiting.uuid.as_deref(), waiting.key.as_deref()),
            pending.ask,
        );
    }

    /// How many read under this base key.
    pub(super) fn readers_of(&self, table: &LockTable<Growable>, key: &[u8]) -> u32 {
        if !self.write_keys.is_rw_used {
            return 0;
        }
        shared_view(table, key)
            .filter(|view| {
                view.holders()
                    .next()
                    .is_some_and(|holder| holder.mode() == Mode::Shared)
            })
            .map_or(0, |view| view.holders_len())
    }

    /// Asks for the shared key of `frame`'s key. `None` if that was refused.
    fn ask(&mut self, at: &mut At<'_>, frame: &Frame<'_>, ask: Ask) -> Option<Asked> {
        let name = frame.key_name();
        let id = self.make_id();
        let mode = if ask == Ask::Write {
            Mode::Exclusive
        } else {
            Mode::Shared
        };
        match self.acquire_shared(at, frame, id, name.as_bytes(), mode, Wait::Forever) {
            Ok(Acquired::Granted(_)) => {
                self.begin_role(at, id, name.as_bytes(), ask);
                let echo = (frame.uuid.map(Raw::text), frame.key.map(Raw::text));
                self.answer_asked(at, name.as_bytes(), echo, ask);
                Some(Asked::Granted)
            }
            Ok(Acquired::Queued { .. }) => {
                let lent = self.lend(at, name.as_bytes());
                if let Some(connection) = self.connections.get_mut(&at.by) {
                    let pending = Pending { ask, lent };
                    let waiting = Waiting::new(frame, Purpose::Share(pending));
                    connection.waiting.insert(id, waiting);
                }
                Some(Asked::Waits)
            }
            Err(refusal) => {
                self.refuse_full(at, frame, &refusal);
                None
            }
        }
    }

    pub(super) fn acquire_shared(
        &mut self,
        at: &mut At<'_>,
        frame: &Frame<'_>,
        id: RequestId,
        base: &[u8],
        mode: Mode,
        wait: Wait,
    ) -> Result<Acquired, Refusal> {
        let shared = shared_key(base);
        let key = Key::new(&shared, self.key_bytes_max).map_err(Refusal::Key)?;
        let session = self.session(at).map_err(Refusal::Session)?;
        self.write_keys.is_rw_used = true;
        let label = Label::of(frame);
        let wants = [Want { key, mode }];
        let request = Acquire {
            wait,
            label: label.as_bytes(),
            ..Acquire::new(id, &wants)
        };
        self.acquire(at, session, &request).map_err(Refusal::Table)
    }

    pub(super) fn begin_role(&mut self, at: &mut At<'_>, id: RequestId, base: &[u8], ask: Ask) {
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return;
        };
        match ask {
            Ask::Read | Ask::Increment => connection.rw.roles_mut(base).reads.push(id),
            Ask::Write => connection.rw.roles_mut(base).writes.push(id),
            Ask::Probe => {
                self.release_by_id(at, id);
            }
        }
    }

    fn end_role(
        &mut self,
        at: &mut At<'_>,
        frame: &Frame<'_>,
        pick: fn(&mut Roles) -> &mut Vec<RequestId>,
    ) {
        let name = frame.key_name();
        let ended = self
            .connections
            .get_mut(&at.by)
            .and_then(|connection| connection.rw.end(name.as_bytes(), pick));
        if let Some(id) = ended {
            self.release_by_id(at, id);
        }
    }

    fn answer_asked(
        &mut self,
        at: &At<'_>,
        base: &[u8],
        (uuid, key): (Option<&str>, Option<&str>),
        ask: Ask,
    ) {
        let readers = self.readers_of(at.table, base);
        let mut frame = self.outbox.frame(at.by);
        if ask != Ask::Increment {
            // The originals report what was before the change.
            let before = readers.saturating_sub(u32::from(ask == Ask::Read));
            frame
                .truth("writerFlag", false)
                .number("readersCount", before.into());
        }
        frame.echo("key", key).echo("uuid", uuid).text(
            "type",
            match ask {
                Ask::Read | Ask::Probe => "register-write-flag-success",
                Ask::Increment => "increment-readers-success",
                Ask::Write => "register-write-flag-and-readers-check-success",
            },
        );
    }

    /// Gives the base lock of a connection that waits back, if somebody may need it.
    fn lend(&mut self, at: &mut At<'_>, base: &[u8]) -> Option<RequestId> {
        let connection = self.connections.get(&at.by)?;
        let session = connection.session?;
        if connection.rw.dialect == Dialect::Held && !self.is_older_client_at(at.table, base) {
            return None;
        }
        let key = Key::new(base, self.key_bytes_max).ok()?;
        let view = at.table.inspect(key)?;
        let holder = view
            .holders()
            .find(|held| held.session() == Some(session))?;
        let id = holder.id();
        let lent = Lent {
            capacity: view.capacity()?,
            deadline: holder.grant()?.deadline,
            keep: holder.keep(),
        };
        at.table.release(at.now, session, id).ok()?;
        let connection = self.connections.get_mut(&at.by)?;
        connection.rw.lent.insert(id, lent);
        Some(id)
    }

    /// Takes a lent base lock back, unless its ttl has run out.
    fn take_back(&mut self, at: &mut At<'_>, id: RequestId, base: &[u8]) {
        let Some(connection) = self.connections.get(&at.by) else {
            return;
        };
        let (Some(session), Some(&lent), Dialect::Held) = (
            connection.session,
            connection.rw.lent.get(&id),
            connection.rw.dialect,
        ) else {
            return;
        };
        let lease = match lent.deadline {
            Some(deadline) if deadline <= at.now => return,
            Some(deadline) => Some(deadline.saturating_duration_since(at.now)),
            None => None,
        };
        let Ok(key) = Key::new(base, self.key_bytes_max) else {
            return;
        };
        let wants = [Want {
            key,
            mode: Mode::Semaphore {
                capacity: lent.capacity,
                permits: 1,
            },
        }];
        let request = Acquire {
            lease,
            keep: lent.keep,
            front: true,
            ..Acquire::new(id, &wants)
        };
        let acquired = self.acquire(at, session, &request);
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return;
        };
        match acquired {
            Ok(Acquired::Granted(_)) => {
                connection.rw.take_lent(id);
            }
            // Whoever has it now is about to give it back, and needs nothing of this
            // client for that.
            Ok(Acquired::Queued { .. }) => {
                let waiting = Waiting {
                    uuid: None,
                    key: None,
                    purpose: Purpose::TakeBack,
                };
                connection.waiting.insert(id, waiting);
            }
            Err(_) => {}
        }
    }

    /// Gives up a base lock that is lent. False if it is not.
    pub(super) fn release_lent(&mut self, at: &mut At<'_>, id: RequestId) -> bool {
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return false;
        };
        if !connection.rw.take_lent(id) {
            return false;
        }
        if let Some(session) = connection.session
            && connection.waiting.remove(&id).is_some()
        {
            self.withdraw(at, session, id);
        }
        true
    }

    fn is_older_client_at(&self, table: &LockTable<Growable>, base: &[u8]) -> bool {
        shared_view(table, base).is_some_and(|view| {
            view.holders().chain(view.waiters()).any(|request| {
                request
                    .session()
                    .and_then(|session| self.sessions.get(&session))
                    .and_then(|connection| self.connections.get(connection))
                    .is_some_and(|connection| connection.rw.dialect == Dialect::Locked)
            })
        })
    }
}

pub(super) enum Refusal {
    Table(AcquireError),
    Session(crate::table::OpenError),
    Key(crate::KeyError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(error) => error.fmt(f),
            Self::Session(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Granted,
    Waits,
}

const SHARED_SUFFIX: &[u8] = b" (live-mutex readers and writers)";

/// The key that the readers and writers of `base` hold.
fn shared_key(base: &[u8]) -> Vec<u8> {
    [base, SHARED_SUFFIX].concat()
}

/// The key whose readers and writers hold `shared`, if it is such a key.
pub(super) fn base_of(shared: &[u8]) -> Option<&[u8]> {
    shared.strip_suffix(SHARED_SUFFIX)
}

fn shared_view<'a>(table: &'a LockTable<Growable>, base: &[u8]) -> Option<KeyView<'a>> {
    let shared = shared_key(base);
    // It was checked when it was first held.
    table.inspect(Key::new(&shared, u32::MAX).ok()?)
}

/// Whether somebody reads or writes under the base key.
pub(super) fn is_shared(table: &LockTable<Growable>, base: &[u8]) -> bool {
    shared_view(table, base).is_some_and(|view| view.holders_len() > 0)
}

#[cfg(test)]
mod tests {
    use super::Dialect;

    #[test]
    fn dialects_go_by_version() {
        for version in ["0.2.25", "0.2.1", "0.1.99", "0.0.10050"] {
            assert_eq!(Dialect::of(version), Dialect::Locked, "{version}");
        }
        for version in ["0.2.26", "0.2.27", "0.29.0", "0.2", "0.2.x", ""] {
            assert_eq!(Dialect::of(version), Dialect::Held, "{version}");
        }
    }
}

//! The read-preferring client: plain locks with `rwStatus`, and a key that writers lock.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::table::Acquired;
use crate::{Acquire, Event, Key, Mode, RequestId, SessionId, Wait, Want};

use super::lock::{Label, REVOKED};
use super::parse::{Frame, Raw, RwStatus};
use super::recent::Fate;
use super::rw::{Ask, Dialect, FirstRead, Refusal};
use super::{At, ConnectionId, LiveMutex, Purpose, Waiting};

/// The locks that first readers hold for all readers, of the read-preferring client.
///
/// They belong to a session of their own, for they must outlive the first reader's
/// connection while others read.
#[derive(Debug, Default)]
pub(super) struct WriteKeys {
    session: Option<SessionId>,
    locks: BTreeMap<RequestId, WriteKey>,
    /// Whether anybody ever read or wrote: until then there are no readers to count.
    pub(super) is_rw_used: bool,
}

#[derive(Debug)]
struct WriteKey {
    /// The key whose readers hold it.
    readers_of: Box<[u8]>,
    /// The write key itself.
    key: Box<[u8]>,
    /// Who is to be told of the grant.
    by: ConnectionId,
    /// Its id, as JSON text.
    uuid: Option<Box<str>>,
    /// What its reply repeats; `None` once it is granted.
    waiting: Option<Waiting>,
}

impl WriteKeys {
    pub(super) fn session(&self) -> Option<SessionId> {
        self.session
    }

    pub(super) fn is_session(&self, session: SessionId) -> bool {
        self.session == Some(session)
    }

    /// The id of such a lock, as its client writes it.
    pub(super) fn uuid(&self, id: RequestId) -> Option<&str> {
        self.locks.get(&id)?.uuid.as_deref()
    }

    pub(super) fn is_asked_by(&self, id: RequestId, by: ConnectionId) -> bool {
        self.locks.get(&id).is_some_and(|lock| lock.by == by)
    }

    pub(super) fn remove(&mut self, id: RequestId) {
        self.locks.remove(&id);
    }
}

/// The read-preferring client's locks.
impl LiveMutex {
    /// The count of readers that a grant reports, after changing it as its role says. Nobody
    /// may read who is not counted.
    pub(super) fn count_for_role(
        &mut self,
        at: &mut At<'_>,
        key: &[u8],
        base: RequestId,
        rw: RwStatus,
    ) -> Result<u32, Refusal> {
        match rw {
            RwStatus::BeginRead => {
                let id = self.make_id();
                let frame = Frame::default();
                self.acquire_shared(at, &frame, id, key, Mode::Shared, Wait::No)?;
                self.begin_role(at, id, key, Ask::Read);
                if let Some(connection) = self.connections.get_mut(&at.by) {
                    connection.rw.note_begun(base, id);
                }
                let readers = self.readers_of(at.table, key);
                if readers == 1
                    && let Some(connection) = self.connections.get_mut(&at.by)
                {
                    connection.rw.first_reads.push(FirstRead {
                        base,
                        key: key.into(),
                    });
                }
                Ok(readers)
            }
            RwStatus::EndRead => Ok(self.end_read(at, key)),
            _ => Ok(self.readers_of(at.table, key)),
        }
    }

    /// Ends one of the connection's own reads. The newer client unlocks the write key
    /// if it hears that there was one reader, so it is told the count before the change.
    fn end_read(&mut self, at: &mut At<'_>, key: &[u8]) -> u32 {
        let before = self.readers_of(at.table, key);
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return before;
        };
        let dialect = connection.rw.dialect;
        let Some(id) = connection.rw.end(key, |roles| &mut roles.reads) else {
            return before;
        };
        if before == 1 {
            let ended = self
                .write_keys
                .locks
                .iter()
                .filter(|(_, lock)| lock.waiting.is_none() && *lock.readers_of == *key);
            connection.rw.last_reads.extend(ended.map(|(id, _)| *id));
        }
        self.release_by_id(at, id);
        match dialect {
            Dialect::Held => before,
            Dialect::Locked => before.saturating_sub(1),
        }
    }

    /// Locks the write key for all readers of the key whose first reader this is. False
    /// if it is no first reader's: then it is a lock like any other.
    pub(super) fn lock_write_key(
        &mut self,
        at: &mut At<'_>,
        frame: &Frame<'_>,
        id: RequestId,
        key: Key<'_>,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return false;
        };
        let (Some(session), Some(first)) = (connection.session, connection.rw.first_reads.pop())
        else {
            return false;
        };
        let readers = match self.write_keys.session {
            Some(readers) => readers,
            None => match at.table.open_session(at.now, Duration::ZERO) {
                Ok(readers) => *self.write_keys.session.insert(readers),
                Err(_) => return false,
            },
        };
        let label = Label::of(frame);
        let wants = [Want {
            key,
            mode: Mode::Semaphore {
                capacity: 1,
                permits: 1,
            },
        }];
        let request = Acquire {
            front: frame.is_forced() || frame.is_retry(),
            label: label.as_bytes(),
            ..Acquire::new(id, &wants)
        };
        let Ok(acquired) = self.acquire(at, readers, &request) else {
            return false;
        };
        // Others must not pass for later readers before the writers are locked out,
        // however long that takes: the client unlocks the base lock right after it.
        // (If that lock has just run out, there is nothing to be kept.) One that outlives
        // its connection keeps its ttl: nothing else ends it once the client is gone.
        let outlives = at.table.request(first.base).is_some_and(|base| base.keep());
        if !outlives {
            let _ = at.table.renew(at.now, session, first.base, None);
        }
        let mut lock = WriteKey {
            readers_of: first.key,
            key: key.as_bytes().into(),
            by: at.by,
            uuid: frame.uuid.map(|raw| raw.text().into()),
            waiting: None,
        };
        match acquired {
            Acquired::Granted(grant) => {
                let echo = (frame.uuid.map(Raw::text), frame.key.map(Raw::text));
                self.answer_write_key(at.by, echo, grant.token.as_u64());
            }
            Acquired::Queued { ahead } => {
                let purpose = Purpose::Lock {
                    rw: RwStatus::LockingWriteKey,
                    confirms: false,
                };
                lock.waiting = Some(Waiting::new(frame, purpose));
                self.answer_waiting(at, frame, key, ahead);
            }
        }
        self.write_keys.locks.insert(id, lock);
        true
    }

    pub(super) fn handle_write_key_event(&mut self, event: Event) {
        match event {
            Event::Granted { id, grant } => {
                let Some(lock) = self.write_keys.locks.get_mut(&id) else {
                    return;
                };
                let by = lock.by;
                if let Some(waiting) = lock.waiting.take() {
                    let echo = (waiting.uuid.as_deref(), waiting.key.as_deref());
                    self.answer_write_key(by, echo, grant.token.as_u64());
                }
            }
            Event::Revoked { id, .. } => {
                self.recent.note(id, Fate::Ended);
                let Some(lock) = self.write_keys.locks.remove(&id) else {
                    return;
                };
                if let Some(waiting) = lock.waiting {
                    self.refuse_waiting(lock.by, &waiting, REVOKED);
                }
            }
            _ => {}
        }
    }

    /// A first reader waits no longer for its write key, or rejects it: it does not read.
    /// False if `id` is no such lock of this connection.
    pub(super) fn give_up_write_key(&mut self, at: &mut At<'_>, id: RequestId) -> bool {
        if !self.write_keys.is_asked_by(id, at.by) || self.recent.fate(id) == Some(Fate::Received) {
            return false;
        }
        let (Some(lock), Some(session)) =
            (self.write_keys.locks.remove(&id), self.write_keys.session)
        else {
            return false;
        };
        let reader = self.connections.get_mut(&at.by).and_then(|connection| {
            connection
                .rw
                .end(&lock.readers_of, |roles| &mut roles.reads)
        });
        if let Some(reader) = reader {
            self.release_by_id(at, reader);
        }
        self.withdraw(at, session, id);
        true
    }

    /// The last reader unlocks the write key: what the readers hold of it, if they still
    /// do, or what this connection itself locked. By now a writer may have it, whom the
    /// client's `force` is not meant for.
    pub(super) fn unlock_write_key(&mut self, at: &mut At<'_>, key: Key<'_>) {
        let locks = &self.write_keys.locks;
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return;
        };
        let mut ended = None;
        connection.rw.last_reads.retain(|id| match locks.get(id) {
            Some(lock) if *lock.key == *key.as_bytes() => {
                ended = Some(*id);
                false
            }
            // The readers' lock ended with the connection of the last of them.
            None => false,
            Some(_) => true,
        });
        match ended {
            Some(id) => {
                self.release_by_id(at, id);
            }
            None => {
                self.unlock_own(at, key);
            }
        }
    }

    /// Cancels what the connection's first readers wait for.
    pub(super) fn cancel_write_keys_of(&mut self, at: &mut At<'_>) {
        let Some(session) = self.write_keys.session else {
            return;
        };
        let waiting: Vec<RequestId> = self
            .write_keys
            .locks
            .iter()
            .filter(|(_, lock)| lock.by == at.by && lock.waiting.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.write_keys.remove(id);
            self.withdraw(at, session, id);
        }
    }

    /// Releases the write keys whose readers are all gone.
    pub(super) fn release_unread_write_keys(&mut self, at: &mut At<'_>) {
        let unread: Vec<RequestId> = self
            .write_keys
            .locks
            .iter()
            .filter(|(_, lock)| lock.waiting.is_none())
            .filter(|(_, lock)| self.readers_of(at.table, &lock.readers_of) == 0)
            .map(|(id, _)| *id)
            .collect();
        for id in unread {
            self.release_by_id(at, id);
        }
    }

    fn answer_write_key(
        &mut self,
        by: ConnectionId,
        (uuid, key): (Option<&str>, Option<&str>),
        token: u64,
    ) {
        self.outbox
            .frame(by)
            .number("readersCount", 0)
            .echo("uuid", uuid)
            .number("lockRequestCount", 0)
            .echo("key", key)
            .text("type", "lock")
            .truth("acquired", true)
            .number("fencingToken", token);
    }
}

//! Locks and semaphores of one key: `lock`, `unlock`, and what clients say of grants.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::table::{AcquireError, Acquired, ForceTarget, Grant, RequestView};
use crate::{Acquire, Key, Mode, RequestId, SessionId, Wait, Want};

use super::frames::FrameWriter;
use super::parse::{Frame, Raw, RwStatus, is_usual_uuid, namesake, request_id};
use super::recent::Fate;
use super::{At, LiveMutex, Purpose, Waiting};

pub(super) const UNTOLD_EXPIRY: &str =
    "The lock was granted, and its ttl ran out, before the broker could say so; lock again.";
pub(super) const REVOKED: &str = "The lock request was ended by force.";
const WRONG_ID: &str = "You need to pass the correct uuid, or use force.";
const LATE: &str = "the lock had ended before it was released: its ttl ran out, its connection was lost, or it \
     was released by force.";

/// What a reply repeats of its request, as JSON text.
#[derive(Clone, Copy)]
struct Echo<'a> {
    uuid: Option<&'a str>,
    key: Option<&'a str>,
}

impl<'a> Echo<'a> {
    fn of(frame: &Frame<'a>) -> Self {
        Self {
            uuid: frame.uuid.map(Raw::text),
            key: frame.key.map(Raw::text),
        }
    }
}

/// What a lock is told whose id is in use.
struct Known {
    owner: Option<SessionId>,
    is_held: bool,
    /// How many wait for its first key.
    waiting: u32,
}

impl Known {
    fn of(request: RequestView<'_>) -> Self {
        Self {
            owner: request.session(),
            is_held: request.grant().is_some(),
            waiting: request.keys().next().map_or(0, |key| key.waiters_len()),
        }
    }
}

impl LiveMutex {
    pub(super) fn lock(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        let name = frame.key_name();
        let key = match Key::new(name.as_bytes(), self.key_bytes_max) {
            Ok(key) => key,
            Err(error) => return self.refuse_lock(at, frame, &error.to_string()),
        };
        let (lease, capacity) = match (frame.lease(), frame.capacity()) {
            (Ok(lease), Ok(capacity)) => (lease, capacity),
            (Err(unfit), _) | (_, Err(unfit)) => return self.refuse_lock(at, frame, unfit),
        };
        let session = match self.session(at) {
            Ok(session) => session,
            Err(error) => return self.refuse_lock(at, frame, &error.to_string()),
        };
        let id = match frame.uuid.filter(|raw| raw.truthy()) {
            Some(uuid) => {
                let Some(id) = self.id_to_lock(at, frame, uuid, key) else {
                    return;
                };
                id
            }
            None => self.make_id(),
        };
        let rw = frame.rw_status();
        if rw == RwStatus::LockingWriteKey && self.lock_write_key(at, frame, id, key) {
            return;
        }
        let capacity = match rw {
            // These guard the count of readers, which is no business of the readers' limit.
            RwStatus::BeginRead | RwStatus::EndRead => 1,
            _ => capacity
                .or_else(|| at.table.inspect(key)?.capacity())
                .unwrap_or(1),
        };
        let label = Label::of(frame);
        let wants = [Want {
            key,
            mode: Mode::Semaphore {
                capacity,
                permits: 1,
            },
        }];
        let request = Acquire {
            lease,
            wait: if frame.is_try() {
                Wait::No
            } else {
                Wait::Forever
            },
            keep: self.keeps(at, frame),
            front: frame.is_forced() || frame.is_retry(),
            label: label.as_bytes(),
            ..Acquire::new(id, &wants)
        };
        match self.acquire(at, session, &request) {
            Ok(Acquired::Granted(grant)) => {
                self.remember_name(at, frame, id);
                self.answer_granted(at, id, grant, Echo::of(frame), rw);
            }
            Ok(Acquired::Queued { ahead }) => {
                self.remember_name(at, frame, id);
                if let Some(connection) = self.connections.get_mut(&at.by) {
                    let confirms = frame.is_from_node();
                    let waiting = Waiting::new(frame, Purpose::Lock { rw, confirms });
                    connection.waiting.insert(id, waiting);
                }
                self.answer_waiting(at, frame, key, ahead);
            }
            Err(AcquireError::Busy) => {
                let waiting = at.table.inspect(key).map_or(0, |key| key.waiters_len());
                self.answer_not_acquired(at, frame, key, waiting);
            }
            Err(error) => self.refuse_lock(at, frame, &error.to_string()),
        }
    }

    pub(super) fn handle_granted(&mut self, at: &mut At<'_>, id: RequestId, grant: Grant) {
        let Some(waiting) = self
            .connections
            .get_mut(&at.by)
            .and_then(|connection| connection.waiting.remove(&id))
        else {
            return;
        };
        match waiting.purpose {
            Purpose::Lock { rw, confirms } => {
                let echo = Echo {
                    uuid: waiting.uuid.as_deref(),
                    key: waiting.key.as_deref(),
                };
                self.answer_granted(at, id, grant, echo, rw);
                // One that is refused after all is there no longer.
                if confirms && at.table.request(id).is_some() {
                    self.await_confirmation(at, id, waiting.key);
                }
            }
            Purpose::Composite => self.answer_composite(at, id, grant, waiting.uuid.as_deref()),
            Purpose::Share(pending) => self.handle_shared(at, id, &waiting, pending),
            Purpose::TakeBack => {
                if let Some(connection) = self.connections.get_mut(&at.by) {
                    connection.rw.take_lent(id);
                }
            }
        }
    }

    pub(super) fn unlock(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        let name = frame.key_name();
        let Ok(key) = Key::new(name.as_bytes(), self.key_bytes_max) else {
            return self.answer_unlocked(at, frame, 0, Unlock::UnknownKey);
        };
        let view = at.table.inspect(key);
        let waiting = view.map_or(0, |key| key.waiters_len());
        let is_known = view.is_some() || self.recent.knows_key(key.as_bytes());
        let lock_id = frame.lock_id.filter(|raw| raw.truthy());
        let outcome = match lock_id {
            Some(raw) => {
                let id = self.id_on_key(at, raw, key.as_bytes());
                self.unlock_by_id(at, frame, key, id, is_known)
            }
            None if self.unlock_by_role(at, frame, key) => Unlock::Done,
            None if frame.is_forced() => self.unlock_by_force(at, key, is_known),
            None if frame.is_unlock_of_0_0() && self.unlock_own(at, key) => Unlock::Done,
            None if is_known => Unlock::WrongId,
            None => Unlock::UnknownKey,
        };
        self.answer_unlocked(at, frame, waiting, outcome);
    }

    /// `lock-received`: from now on the grant is not to be rejected.
    pub(super) fn lock_received(&mut self, at: &At<'_>, frame: &Frame<'_>) {
        if let Some(id) = self.id_of(at, frame)
            && at
                .table
                .request(id)
                .is_some_and(|request| request.grant().is_some())
        {
            self.recent.note(id, Fate::Received);
            if let Some(connection) = self.connections.get_mut(&at.by) {
                connection.unconfirmed.confirm(id);
            }
        }
    }

    /// `lock-client-timeout`, `lock-client-error`: the client waits no longer. If the
    /// grant crossed that message, nobody is there to use it.
    pub(super) fn lock_given_up(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        if let Some(id) = self.id_of(at, frame) {
            self.give_up(at, id);
        }
    }

    /// `lock-received-rejected`: the client got a grant that it had stopped waiting for.
    pub(super) fn lock_rejected(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        if let Some(id) = self.id_of(at, frame)
            && !self.handle_answer(at, id)
        {
            self.give_up(at, id);
        }
    }

    fn give_up(&mut self, at: &mut At<'_>, id: RequestId) {
        if self.give_up_write_key(at, id) || self.recent.fate(id) == Some(Fate::Received) {
            return;
        }
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return;
        };
        let Some(session) = connection.session else {
            return;
        };
        if connection.waiting.remove(&id).is_some() {
            connection.names.remove(&id);
            self.withdraw(at, session, id);
        } else if at.table.request(id).and_then(|request| request.session()) == Some(session) {
            self.end_unused(at, id);
        }
    }

    /// Ends a hold that nobody is there to use, and what its grant began.
    pub(super) fn end_unused(&mut self, at: &mut At<'_>, id: RequestId) {
        let begun = self
            .connections
            .get_mut(&at.by)
            .and_then(|connection| connection.rw.take_begun(id));
        if let Some(read) = begun {
            self.release_by_id(at, read);
            self.release_unread_write_keys(at);
        }
        if self.release_by_id(at, id) {
            self.recent.note(id, Fate::Released);
        }
    }

    /// The request that the frame is about.
    fn id_of(&self, at: &At<'_>, frame: &Frame<'_>) -> Option<RequestId> {
        if !self.has_namesakes {
            return frame.id();
        }
        let uuid = frame.uuid.filter(|raw| raw.truthy())?;
        Some(self.id_on_key(at, uuid, frame.key_name().as_bytes()))
    }

    /// What the id names on this key, or anywhere.
    fn id_on_key(&self, at: &At<'_>, raw: Raw<'_>, key: &[u8]) -> RequestId {
        if self.has_namesakes {
            let id = namesake(raw, key);
            if at.table.request(id).is_some() {
                return id;
            }
        }
        request_id(raw)
    }

    /// Under which id a lock is asked for: the one it names, unless another client of this
    /// protocol, or the same, uses that on another key. `None` if it is answered: an id that
    /// is in use, or was lately, is queued once, and told `acquired:true` once.
    fn id_to_lock(
        &mut self,
        at: &mut At<'_>,
        frame: &Frame<'_>,
        raw: Raw<'_>,
        key: Key<'_>,
    ) -> Option<RequestId> {
        let mut id = self.id_on_key(at, raw, key.as_bytes());
        if let Some(request) = at.table.request(id) {
            let is_elsewhere = frame.rw_status() == RwStatus::Plain
                && request
                    .session()
                    .is_some_and(|owner| self.sessions.contains_key(&owner))
                && !request.keys().any(|held| is_key(held.key(), key));
            if !is_elsewhere {
                let known = Known::of(request);
                let is_answered = self.is_answered_as_known(at, frame, id, key, &known);
                return (!is_answered).then_some(id);
            }
            self.has_namesakes = true;
            id = namesake(raw, key.as_bytes());
        }
        // A retry that was overtaken by its grant, and even by the end of that. After a grant
        // that was confirmed it is none: the Node client writes id and count into its caller's
        // options, which may be used again.
        let connection = self.connections.get(&at.by);
        if connection.is_some_and(|connection| connection.rw.is_lent(id))
            || frame.is_retry() && self.recent.overtakes_retries(id)
        {
            self.answer_not_acquired(at, frame, key, 0);
            return None;
        }
        self.recent.forget(id);
        Some(id)
    }

    /// Answers a lock whose id is in use, unless it is now to be asked for anew.
    fn is_answered_as_known(
        &mut self,
        at: &mut At<'_>,
        frame: &Frame<'_>,
        id: RequestId,
        key: Key<'_>,
        known: &Known,
    ) -> bool {
        let connection = self.connections.get(&at.by);
        let session = connection.and_then(|connection| connection.session);
        let is_ours = known.owner == session || self.write_keys.is_asked_by(id, at.by);
        if known.is_held || !is_ours && frame.retry_count.is_some() {
            // It asks again.
            self.answer_not_acquired(at, frame, key, 0);
        } else if !is_ours {
            self.refuse_lock(at, frame, &AcquireError::IdInUse.to_string());
        } else if let Some(session) = session
            && known.owner == Some(session)
            && frame.is_forced()
        {
            // To the front, from where it is.
            self.withdraw(at, session, id);
            return false;
        } else {
            // How long the queue is, as from the original; its place in it is unchanged.
            self.answer_waiting(at, frame, key, known.waiting);
        }
        true
    }

    fn unlock_by_id(
        &mut self,
        at: &mut At<'_>,
        frame: &Frame<'_>,
        key: Key<'_>,
        id: RequestId,
        is_known: bool,
    ) -> Unlock {
        if self.release_lent(at, id) {
            self.recent.note(id, Fate::Released);
            return Unlock::Done;
        }
        // Not a part of a composite: that is released as a whole, by `release-many`.
        let holds_key = at.table.request(id).is_some_and(|request| {
            let mut keys = request.keys();
            request.grant().is_some()
                && keys.next().is_some_and(|held| is_key(held.key(), key))
                && keys.next().is_none()
        });
        if holds_key && self.release_by_id(at, id) {
            self.recent.note(id, Fate::Released);
            return Unlock::Done;
        }
        match self.recent.fate(id) {
            // Whatever became of the id: it was about another key.
            _ if !is_known => Unlock::UnknownKey,
            Some(Fate::Ended | Fate::Lost) => {
                self.recent.note(id, Fate::Released);
                Unlock::Late
            }
            _ if frame.is_forced() => Unlock::NotForced,
            _ => Unlock::WrongId,
        }
    }

    /// The releases of the readers-writer clients, which name no id: they end what the
    /// client's own role holds, never what somebody else was granted meanwhile.
    fn unlock_by_role(&mut self, at: &mut At<'_>, frame: &Frame<'_>, key: Key<'_>) -> bool {
        match frame.rw_status() {
            // An unknown key is answered as ever.
            _ if at.table.inspect(key).is_none() => return false,
            RwStatus::UnlockingWriteKey => self.unlock_write_key(at, key),
            RwStatus::EndWrite => self.unlock_as_writer(at, key),
            _ => return false,
        }
        true
    }

    /// Ends what this connection holds of a key; `false` if that is nothing.
    pub(super) fn unlock_own(&mut self, at: &mut At<'_>, key: Key<'_>) -> bool {
        let session = self.connections.get(&at.by).and_then(|c| c.session);
        self.unlock_those(at, key, Fate::Released, |owner| {
            session.is_some() && owner == session
        })
    }

    /// A writer ends its own hold of a write key; one on another connection than the one
    /// that locked ends whoever holds it, but never the readers.
    fn unlock_as_writer(&mut self, at: &mut At<'_>, key: Key<'_>) {
        if !self.unlock_own(at, key) {
            let readers = self.write_keys.session();
            self.unlock_those(at, key, Fate::Ended, |owner| {
                owner.is_none() || owner != readers
            });
        }
    }

    /// Ends the holds of a key whose owners are meant; `false` if there are none.
    fn unlock_those(
        &mut self,
        at: &mut At<'_>,
        key: Key<'_>,
        fate: Fate,
        is_meant: impl Fn(Option<SessionId>) -> bool,
    ) -> bool {
        let mut meant = Vec::new();
        if let Some(view) = at.table.inspect(key) {
            meant.extend(
                view.holders()
                    .filter(|held| is_meant(held.session()))
                    .map(|held| held.id()),
            );
        }
        for id in &meant {
            self.release_by_id(at, *id);
            self.recent.note(*id, fate);
        }
        !meant.is_empty()
    }

    fn unlock_by_force(&mut self, at: &mut At<'_>, key: Key<'_>, is_known: bool) -> Unlock {
        let holders: Vec<RequestId> = at.table.inspect(key).map_or_else(Vec::new, |view| {
            view.holders().map(|holder| holder.id()).collect()
        });
        at.table.force_release(at.now, ForceTarget::Key(key));
        for id in holders {
            self.recent.note(id, Fate::Ended);
        }
        if is_known {
            Unlock::Done
        } else {
            Unlock::UnknownKey
        }
    }

    fn answer_granted(
        &mut self,
        at: &mut At<'_>,
        id: RequestId,
        grant: Grant,
        echo: Echo<'_>,
        rw: RwStatus,
    ) {
        let mut key_bytes = Vec::new();
        let mut waiting = 0;
        if let Some(view) = at
            .table
            .request(id)
            .and_then(|request| request.keys().next())
        {
            waiting = view.waiters_len();
            for piece in view.key() {
                key_bytes.extend_from_slice(piece);
            }
        }
        self.recent.note_key(&key_bytes);
        let readers = match self.count_for_role(at, &key_bytes, id, rw) {
            Ok(readers) => readers,
            Err(refusal) => {
                self.end_unused(at, id);
                return self.refuse(at, echo, &refusal.to_string());
            }
        };
        let mut frame = self.outbox.frame(at.by);
        frame
            .number("readersCount", readers.into())
            .echo("uuid", echo.uuid)
            .number("lockRequestCount", waiting.into())
            .echo("key", echo.key)
            .text("type", "lock")
            .truth("acquired", true)
            .number("fencingToken", grant.token.as_u64());
    }

    /// Tells those who expect it that they have to wait. A client that does not send
    /// `retryCount` takes any answer for the last, so it is left to wait in silence.
    pub(super) fn answer_waiting(
        &mut self,
        at: &mut At<'_>,
        frame: &Frame<'_>,
        key: Key<'_>,
        ahead: u32,
    ) {
        if frame.retry_count.is_some() || frame.is_try() {
            let mut reply = self.answer_not_acquired(at, frame, key, ahead);
            if !frame.is_try() {
                reply.courtesy();
            }
        }
    }

    fn answer_not_acquired(
        &mut self,
        at: &mut At<'_>,
        frame: &Frame<'_>,
        key: Key<'_>,
        ahead: u32,
    ) -> FrameWriter<'_> {
        let readers = self.readers_of(at.table, key.as_bytes());
        let mut reply = self.outbox.frame(at.by);
        reply
            .number("readersCount", readers.into())
            .raw("key", frame.key)
            .raw("uuid", frame.uuid)
            .number("lockRequestCount", ahead.into())
            .text("type", "lock")
            .truth("acquired", false);
        reply
    }

    fn refuse_lock(&mut self, at: &At<'_>, frame: &Frame<'_>, error: &str) {
        self.refuse(at, Echo::of(frame), error);
    }

    fn refuse(&mut self, at: &At<'_>, echo: Echo<'_>, error: &str) {
        self.outbox
            .frame(at.by)
            .text("type", "lock")
            .echo("uuid", echo.uuid)
            .echo("key", echo.key)
            .truth("acquired", false)
            .number("lockRequestCount", 0)
            .number("readersCount", 0)
            .text("error", error);
    }

    fn answer_unlocked(&mut self, at: &At<'_>, frame: &Frame<'_>, waiting: u32, outcome: Unlock) {
        if !frame.uuid.is_some_and(Raw::truthy) {
            return;
        }
        self.says_not_held |= !matches!(outcome, Unlock::Done);
        let name = frame.key_name();
        let mut reply = self.outbox.frame(at.by);
        reply
            .raw("uuid", frame.uuid)
            .raw("key", frame.key)
            .number("lockRequestCount", waiting.into())
            .text("type", "unlock");
        match outcome {
            Unlock::Done => reply.truth("unlocked", true),
            Unlock::Late => reply.truth("unlocked", true).text("warning", LATE),
            Unlock::UnknownKey => reply.truth("unlocked", true).text(
                "warning",
                &alloc::format!("no lock with key => \"{name}\"."),
            ),
            Unlock::WrongId => reply.text("error", WRONG_ID).truth("unlocked", false),
            Unlock::NotForced => {
                let id = frame.lock_id.map(Raw::name).unwrap_or_default();
                let capacity = Key::new(name.as_bytes(), self.key_bytes_max)
                    .ok()
                    .and_then(|key| at.table.inspect(key)?.capacity())
                    .unwrap_or(1);
                let error = alloc::format!(
                    "force-unlock: no holder with _uuid='{id}' on key '{name}' (max={capacity})."
                );
                reply.text("error", &error).truth("unlocked", false)
            }
        };
    }

    /// Whether the lock is to outlive its connection. The Node client says what its
    /// constructor was told only in other frames than `lock`, first of all in `version`.
    pub(super) fn keeps(&self, at: &At<'_>, frame: &Frame<'_>) -> bool {
        frame.keeps() || self.connections.get(&at.by).is_some_and(|c| c.keeps)
    }

    /// Keeps an id that is no UUID, or stands for one on this key, for those who ask who
    /// holds the lock.
    fn remember_name(&mut self, at: &At<'_>, frame: &Frame<'_>, id: RequestId) {
        if let Some(uuid) = frame.uuid
            && (!is_usual_uuid(uuid.name().as_bytes())
                || self.has_namesakes && request_id(uuid) != id)
            && let Some(connection) = self.connections.get_mut(&at.by)
        {
            connection.names.insert(id, uuid.text().into());
        }
    }
}

/// What became of an unlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unlock {
    Done,
    /// Done already, by expiry or force.
    Late,
    UnknownKey,
    WrongId,
    /// Forced, but naming nobody who holds it: nobody else is to suffer for that.
    NotForced,
}

/// Whether the pieces are `key`.
pub(super) fn is_key<'a>(pieces: impl Iterator<Item = &'a [u8]>, key: Key<'_>) -> bool {
    let mut rest = key.as_bytes();
    for piece in pieces {
        match rest.strip_prefix(piece) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

/// What those who inspect a lock are told of its holder.
pub(super) struct Label {
    bytes: [u8; 40],
    len: usize,
}

impl Label {
    pub(super) fn of(frame: &Frame<'_>) -> Self {
        const WHAT: &[u8] = b"live-mutex pid ";
        let mut label = Self {
            bytes: [0; 40],
            len: 0,
        };
        let pid = frame.pid.map_or("", Raw::text);
        if pid.len() <= 20 && pid.bytes().all(|byte| byte.is_ascii_digit()) && !pid.is_empty() {
            label.push(WHAT);
            label.push(pid.as_bytes());
        } else {
            label.push(b"live-mutex");
        }
        label
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

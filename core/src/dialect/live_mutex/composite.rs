//! Several keys as one lock: `acquire-many` and `release-many`.
//!
//! The table grants all of the keys in one transition, so a composite neither holds a
//! part while it waits nor loses its place.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::table::{AcquireError, Acquired, Grant};
use crate::{Acquire, Key, Mode, RequestId, Wait, Want};

use super::frames::{push_list, push_number, push_string};
use super::lock::Label;
use super::parse::{Frame, Raw, request_id, strings};
use super::recent::Fate;
use super::{At, LiveMutex, Purpose, Waiting};

/// As many keys as the originals take.
const KEYS_MAX: usize = 64;

const UNFIT_KEYS: &str = "`keys` must be an array of 1 to 64 non-empty strings.";

impl LiveMutex {
    pub(super) fn acquire_many(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        let Some(names) = frame.keys.and_then(sorted_names) else {
            return self.refuse_composite(at, frame, UNFIT_KEYS);
        };
        let keys = names
            .iter()
            .map(|name| Key::new(name.as_bytes(), self.key_bytes_max))
            .collect::<Result<Vec<_>, _>>();
        let keys = match keys {
            Ok(keys) => keys,
            Err(error) => return self.refuse_composite(at, frame, &error.to_string()),
        };
        let lease = match frame.lease() {
            Ok(lease) => lease,
            Err(unfit) => return self.refuse_composite(at, frame, unfit),
        };
        let session = match self.session(at) {
            Ok(session) => session,
            Err(error) => return self.refuse_composite(at, frame, &error.to_string()),
        };
        let id = frame.id().unwrap_or_else(|| self.make_id());
        if let Some(known) = at.table.request(id) {
            let (owner, is_held) = (known.session(), known.grant().is_some());
            if !is_held && owner != Some(session) {
                return self.refuse_composite(at, frame, &AcquireError::IdInUse.to_string());
            }
            // A repeat: it keeps its place, and is told `acquired:true` once.
            self.answer_composite_waiting(at, frame, id, &names, is_held);
            return;
        }
        self.recent.forget(id);
        let label = Label::of(frame);
        let wants: Vec<Want<'_>> = keys
            .iter()
            .map(|&key| Want {
                key,
                mode: Mode::Semaphore {
                    capacity: at
                        .table
                        .inspect(key)
                        .and_then(|view| view.capacity())
                        .unwrap_or(1),
                    permits: 1,
                },
            })
            .collect();
        let request = Acquire {
            lease,
            wait: if frame.is_try() {
                Wait::No
            } else {
                Wait::Forever
            },
            keep: self.keeps(at, frame),
            label: label.as_bytes(),
            ..Acquire::new(id, &wants)
        };
        match self.acquire(at, session, &request) {
            Ok(Acquired::Granted(grant)) => {
                self.answer_composite(at, id, grant, frame.uuid.map(Raw::text));
            }
            Ok(Acquired::Queued { .. }) => {
                if let Some(connection) = self.connections.get_mut(&at.by) {
                    let mut waiting = Waiting::new(frame, Purpose::Composite);
                    waiting.key = frame.keys.map(|keys| keys.text().into());
                    connection.waiting.insert(id, waiting);
                }
                self.answer_composite_waiting(at, frame, id, &names, false);
            }
            Err(AcquireError::Busy) => self.answer_composite_waiting(at, frame, id, &names, true),
            Err(error) => self.refuse_composite(at, frame, &error.to_string()),
        }
    }

    pub(super) fn release_many(&mut self, at: &mut At<'_>, frame: &Frame<'_>) {
        let Some(raw) = frame.composite_id.filter(|raw| raw.truthy()) else {
            return self.refuse_release(at, frame, "`lockUuid` is required for `release-many`.");
        };
        let id = request_id(raw);
        let mut names = Vec::new();
        if let Some(held) = at.table.request(id) {
            names.extend(held.keys().map(|key| text_of(key.key())));
        }
        let is_late = self.recent.fate(id) == Some(Fate::Ended);
        let is_released = self.release_by_id(at, id);
        self.says_not_held |= !is_released;
        if is_released || is_late {
            self.recent.note(id, Fate::Released);
            if frame.uuid.is_some() {
                self.outbox
                    .frame(at.by)
                    .text("type", "release-many")
                    .raw("uuid", frame.uuid)
                    .raw("lockUuid", frame.composite_id)
                    .value("keys", |bytes| {
                        push_list(bytes, &names, |bytes, name| push_string(bytes, name));
                    })
                    .truth("released", true);
            }
            return;
        }
        let name = raw.name();
        let error =
            format!("Unknown composite lockUuid=\"{name}\" (already released or never granted).");
        self.refuse_release(at, frame, &error);
    }

    pub(super) fn answer_composite(
        &mut self,
        at: &mut At<'_>,
        id: RequestId,
        grant: Grant,
        uuid: Option<&str>,
    ) {
        let Some(request) = at.table.request(id) else {
            return;
        };
        let names: Vec<String> = request.keys().map(|key| text_of(key.key())).collect();
        let mut frame = self.outbox.frame(at.by);
        frame
            .text("type", "acquire-many")
            .echo("uuid", uuid)
            .value("keys", |bytes| {
                push_list(bytes, &names, |bytes, name| push_string(bytes, name));
            })
            .truth("acquired", true);
        // The lock's id is its request's; one without a uuid is named by what was made.
        match uuid {
            Some(uuid) => frame.echo("lockUuid", Some(uuid)),
            None => frame.text("lockUuid", &id.to_string()),
        };
        frame.value("fencingTokens", |bytes| {
            bytes.push(b'{');
            for (index, name) in names.iter().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                push_string(bytes, name);
                bytes.push(b':');
                // One grant, one token: it is larger than that of any grant before.
                push_number(bytes, grant.token.as_u64());
            }
            bytes.push(b'}');
        });
    }

    /// Tells that the lock is not there yet, and because of which key. Clients that send
    /// neither `pid` nor `retryCount` take that for the end, so they wait in silence.
    fn answer_composite_waiting(
        &mut self,
        at: &At<'_>,
        frame: &Frame<'_>,
        id: RequestId,
        names: &[Cow<'_, str>],
        is_final: bool,
    ) {
        let expects = frame.pid.is_some() || frame.retry_count.is_some();
        if !is_final && !expects {
            return;
        }
        let contended = names.iter().find_map(|name| {
            let key = Key::new(name.as_bytes(), self.key_bytes_max).ok()?;
            let view = at.table.inspect(key)?;
            let is_full = view.holders_len() >= view.capacity().unwrap_or(1);
            let is_overtaken = view.waiters().next().is_some_and(|first| first.id() != id);
            // As with plain locks, those before this one. It is not there if the same request
            // was asked for before with other keys.
            let ahead = view.waiters_len().saturating_sub(u32::from(!is_final));
            (is_full || is_overtaken).then_some((name, ahead))
        });
        let mut reply = self.outbox.frame(at.by);
        reply
            .text("type", "acquire-many")
            .raw("uuid", frame.uuid)
            .value("keys", |bytes| {
                push_list(bytes, names, |bytes, name| push_string(bytes, name));
            })
            .truth("acquired", false);
        if let Some((name, waiting)) = contended {
            reply
                .text("contendedKey", name)
                .number("lockRequestCount", waiting.into());
        }
    }

    fn refuse_composite(&mut self, at: &At<'_>, frame: &Frame<'_>, error: &str) {
        self.outbox
            .frame(at.by)
            .text("type", "acquire-many")
            .raw("uuid", frame.uuid)
            .raw("keys", frame.keys)
            .truth("acquired", false)
            .text("error", error);
    }

    fn refuse_release(&mut self, at: &At<'_>, frame: &Frame<'_>, error: &str) {
        self.outbox
            .frame(at.by)
            .text("type", "release-many")
            .raw("uuid", frame.uuid)
            .truth("released", false)
            .text("error", error);
    }
}

/// The keys without repeats, in the order of their UTF-16, which is JavaScript's.
fn sorted_names(raw: Raw<'_>) -> Option<Vec<Cow<'_, str>>> {
    let mut names = strings(raw)?;
    names.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
    names.dedup();
    let fits =
        !names.is_empty() && names.len() <= KEYS_MAX && names.iter().all(|name| !name.is_empty());
    fits.then_some(names)
}

/// A key's pieces as text. A native client's key may be no text.
pub(super) fn text_of<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend_from_slice(piece);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

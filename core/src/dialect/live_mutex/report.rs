//! What clients ask about the broker and its locks.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use crate::table::{KeyView, RequestView};
use crate::{FencingToken, Key, Mode};

use super::composite::text_of;
use super::frames::{push_list, push_number, push_string};
use super::parse::{Frame, Raw};
use super::rw;
use super::{At, LiveMutex};

/// Keys that the statistics look at, and name.
const KEYS_COUNTED: usize = 10_000;
const TOP_KEYS: usize = 10;

impl LiveMutex {
    /// The keys that somebody holds or waits for.
    pub(super) fn ls(&mut self, at: &At<'_>, frame: &Frame<'_>) {
        let bytes_max = self.reply_bytes_max as usize / 2;
        let mut is_cut = false;
        let mut reply = self.outbox.frame(at.by);
        reply.value("ls_result", |bytes| {
            let begin = bytes.len();
            bytes.push(b'[');
            for view in at.table.keys(0) {
                let name = text_of(view.key());
                let name = match rw::base_of(name.as_bytes()) {
                    // Under a key that is listed for itself.
                    Some(base) if is_in_use(at, base) => continue,
                    Some(base) => &name[..base.len()],
                    None => &name,
                };
                if bytes.len() - begin + name.len() > bytes_max {
                    is_cut = true;
                    break;
                }
                if bytes.len() > begin + 1 {
                    bytes.push(b',');
                }
                push_string(bytes, name);
            }
            bytes.push(b']');
        });
        if is_cut {
            reply.truth("truncated", true);
        }
        reply.raw("uuid", frame.uuid);
    }

    /// Who holds a key, and how many wait.
    pub(super) fn lock_info(&mut self, at: &At<'_>, frame: &Frame<'_>) {
        let name = frame.key_name();
        let view = Key::new(name.as_bytes(), self.key_bytes_max)
            .ok()
            .and_then(|key| at.table.inspect(key));
        let bytes_max = self.reply_bytes_max as usize / 2;
        let mut is_cut = false;
        let mut ids = Vec::from(*b"[");
        for holder in view.iter().flat_map(KeyView::holders) {
            let end = ids.len();
            if end > 1 {
                ids.push(b',');
            }
            self.push_id(&mut ids, holder);
            if ids.len() > bytes_max {
                ids.truncate(end);
                is_cut = true;
                break;
            }
        }
        ids.push(b']');
        let is_held = view.as_ref().is_some_and(|view| view.holders_len() > 0);
        let is_locked = is_held || rw::is_shared(at.table, name.as_bytes());
        let mut reply = self.outbox.frame(at.by);
        reply
            .raw("key", frame.key)
            .raw("uuid", frame.uuid)
            .value("lockholderUUIDs", |bytes| bytes.extend_from_slice(&ids));
        match &view {
            Some(view) => reply.number("lockRequestCount", view.waiters_len().into()),
            None => reply.echo("lockRequestCount", Some("null")),
        };
        reply
            .truth("isLocked", is_locked)
            .truth("lockInfo", true)
            .text("type", "lock-info-response");
        if is_cut {
            reply.truth("truncated", true);
        }
    }

    pub(super) fn ping(&mut self, at: &At<'_>, frame: &Frame<'_>) {
        let millis = at.now.as_nanos() / 1_000_000;
        let mut reply = self.outbox.frame(at.by);
        reply.raw("uuid", frame.uuid).text("type", "pong");
        match frame.timestamp.filter(|raw| raw.truthy()) {
            Some(raw) => reply.raw("timestamp", Some(raw)),
            None => reply.number("timestamp", millis),
        };
        reply.number("serverTimestamp", millis).truth("ping", true);
    }

    /// The broker's counters, under the names that Broker1 gives them. What a machine
    /// without an operating system cannot know (memory, pid, the time of day) is left out.
    pub(super) fn system_stats(&mut self, at: &At<'_>, frame: &Frame<'_>) {
        let counts = at.table.counts();
        let clients = self.connections.len();
        let uptime_ms = at.now.saturating_duration_since(self.started).as_millis();
        let survey = Survey::of(at);
        let expiries = self.expiries;
        let mut reply = self.outbox.frame(at.by);
        reply
            .raw("uuid", frame.uuid)
            .text("type", "system-stats-response")
            .value("stats", |bytes| {
                let whole = format!("{}.{:03}", uptime_ms / 1000, uptime_ms % 1000);
                bytes.extend_from_slice(b"{\"uptime\":");
                bytes.extend_from_slice(whole.as_bytes());
                for (name, value) in [
                    ("connectedClients", clients as u64),
                    ("totalLocks", counts.keys.into()),
                    ("totalHolders", counts.held.into()),
                    ("totalReaders", survey.readers),
                    ("pendingRequests", counts.waiting.into()),
                    ("activeTimeouts", survey.deadlines),
                    ("pendingDeadlines", survey.deadlines),
                    ("ttlEvictionsTotal", expiries),
                    ("maxConcurrencyCap", u32::MAX.into()),
                    ("concurrencyCapClampsTotal", 0),
                    ("compositeLocksHeld", survey.composites),
                    (
                        "fencingWatermark",
                        counts.last_token.map_or(0, FencingToken::as_u64),
                    ),
                ] {
                    bytes.push(b',');
                    push_string(bytes, name);
                    bytes.push(b':');
                    push_number(bytes, value);
                }
                bytes.extend_from_slice(b",\"topKeys\":");
                push_list(bytes, survey.top, push_top_key);
                bytes.push(b'}');
            });
    }

    /// `lmx inspect` of the original, with true numbers.
    pub(super) fn inspect(&mut self, at: &At<'_>, frame: &Frame<'_>) {
        let clients = self.connections.len() as u64;
        let command = frame.inspect_command.and_then(Raw::string);
        let mut reply = self.outbox.frame(at.by);
        reply.raw("uuid", frame.uuid);
        match command.as_deref() {
            None => reply.text("error", "inspectCommand was not a string"),
            Some("lockcount" | "lock-count" | "lock_count") => {
                reply.number("inspectResult", at.table.counts().keys.into())
            }
            Some("clientcount" | "client-count" | "client_count") => {
                reply.number("inspectResult", clients)
            }
            Some(other) => {
                let named: alloc::string::String = other.chars().take(100).collect();
                reply.echo("inspectResult", Some("null")).text(
                    "error",
                    &format!("unknown inspectCommand '{named}'; use lockcount or clientcount"),
                )
            }
        };
    }

    /// A request's id as its own client writes it.
    fn push_id(&self, bytes: &mut Vec<u8>, request: RequestView<'_>) {
        let name = request
            .session()
            .and_then(|session| self.sessions.get(&session))
            .and_then(|connection| self.connections.get(connection))
            .and_then(|connection| connection.names.get(&request.id()))
            .map(|name| &**name)
            .or_else(|| self.write_keys.uuid(request.id()));
        match name {
            Some(name) => bytes.extend_from_slice(name.as_bytes()),
            None => push_string(bytes, &request.id().to_string()),
        }
    }
}

fn is_in_use(at: &At<'_>, key: &[u8]) -> bool {
    Key::new(key, u32::MAX).is_ok_and(|key| at.table.inspect(key).is_some())
}

/// What a bounded look over the keys finds.
#[derive(Default)]
struct Survey<'a> {
    readers: u64,
    deadlines: u64,
    composites: u64,
    /// The most contended, most contended first.
    top: Vec<KeyView<'a>>,
}

impl<'a> Survey<'a> {
    fn of(at: &'a At<'_>) -> Self {
        let mut survey = Self::default();
        for key in at.table.keys(0).take(KEYS_COUNTED) {
            for holder in key.holders().take(KEYS_COUNTED) {
                survey.readers += u64::from(holder.mode() == Mode::Shared);
                let Some(grant) = holder.grant() else {
                    continue;
                };
                // A composite is counted under its first key.
                let mut keys = holder.keys();
                if keys.next().map(|first| first.position()) == Some(key.position()) {
                    survey.deadlines += u64::from(grant.deadline.is_some());
                    survey.composites += u64::from(keys.next().is_some());
                }
            }
            let rank = contention(key);
            let place = survey
                .top
                .partition_point(|other| contention(*other) >= rank);
            if place < TOP_KEYS {
                survey.top.insert(place, key);
                survey.top.truncate(TOP_KEYS);
            }
        }
        survey
    }
}

fn contention(key: KeyView<'_>) -> u64 {
    u64::from(key.holders_len()) + u64::from(key.waiters_len())
}

fn push_top_key(bytes: &mut Vec<u8>, key: KeyView<'_>) {
    bytes.extend_from_slice(b"{\"key\":");
    push_string(bytes, &text_of(key.key()));
    bytes.extend_from_slice(b",\"holders\":");
    push_number(bytes, key.holders_len().into());
    bytes.extend_from_slice(b",\"waiters\":");
    push_number(bytes, key.waiters_len().into());
    bytes.extend_from_slice(b",\"max\":");
    push_number(bytes, key.capacity().unwrap_or(1).into());
    bytes.push(b'}');
}

//! What the clients of live-mutex's generations say for one lock, step by step.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::key_text;
use crate::plan::{Lock, MS, Mode};

/// A client of live-mutex that follows a script of several messages for each lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Script {
    /// Readers and writers of 0.2.25, which prefer writers.
    Older,
    /// Readers and writers of 0.2.27, which prefer writers.
    Newer,
    /// Readers and writers of 0.2.27, which prefer readers.
    ReadPreferring,
    /// Several keys as one lock, as the clients in other languages have it.
    Composite,
    /// A client of 0.0: it sends no version, and unlocks without an id.
    Oldest,
    /// The one client of 0.1.
    Old,
}

impl Script {
    /// Which version it says it is of.
    pub(super) const fn version(self) -> Option<&'static str> {
        match self {
            Self::Older | Self::Composite => Some("0.2.25"),
            Self::Newer | Self::ReadPreferring => Some("0.2.27"),
            Self::Old => Some("0.1.1066"),
            Self::Oldest => None,
        }
    }

    /// Whether it has readers and writers, which share keys with nobody else.
    pub(in crate::lmx) const fn has_readers(self) -> bool {
        matches!(self, Self::Older | Self::Newer | Self::ReadPreferring)
    }

    /// What it does for one lock.
    pub(super) fn steps(self, mode: Mode) -> Vec<Step> {
        use Step::{
            AcquireMany, EndWrite, Enter, Leave, Lock, LockWriteKey, ReleaseMany, Say, Unlock,
            UnlockUnnamed, UnlockWriteKey,
        };
        let base = |max| Lock(None, Some(max));
        let begin = |role, max| Lock(Some(role), Some(max));
        match (self, mode) {
            (Self::Older, Mode::Shared) => vec![
                base(1),
                Say("register-write-flag-check"),
                Unlock,
                Enter,
                Leave,
                base(1),
                Say("decrement-readers"),
                Unlock,
            ],
            (Self::Older, _) => vec![
                base(1),
                Say("register-write-flag-and-readers-check"),
                Unlock,
                Enter,
                Leave,
                base(1),
                Say("set-write-flag-false-and-broadcast"),
                Unlock,
            ],
            (Self::Newer, Mode::Shared) => vec![
                Say("register-write-flag-check"),
                base(10),
                Say("increment-readers"),
                Enter,
                Leave,
                Say("decrement-readers"),
                Unlock,
            ],
            (Self::Newer, _) => vec![
                base(1),
                Say("register-write-flag-and-readers-check"),
                Enter,
                Leave,
                Unlock,
                Say("set-write-flag-false-and-broadcast"),
            ],
            (Self::ReadPreferring, Mode::Shared) => vec![
                begin("begin_read", 10),
                LockWriteKey,
                Unlock,
                Enter,
                Leave,
                begin("end_read", 1),
                Unlock,
                UnlockWriteKey,
            ],
            (Self::ReadPreferring, _) => vec![begin("begin_write", 1), Enter, Leave, EndWrite],
            (Self::Composite, _) => vec![AcquireMany, Enter, Leave, ReleaseMany],
            (Self::Oldest, _) => vec![Lock(None, None), Enter, Leave, UnlockUnnamed],
            (Self::Old, _) => vec![Lock(None, None), Enter, Leave, Unlock],
        }
    }
}

/// What a message depends on.
pub(super) struct Known<'a> {
    /// What was locked last, by its name.
    pub(super) base: Option<&'a str>,
    /// The last lock was told that there is one reader.
    pub(super) is_alone: bool,
    /// Its user tells the broker who it is.
    pub(super) says_who: bool,
}

impl Script {
    /// The message of a step, but for its id. `None` if there is nothing to be said.
    pub(super) fn frame(self, step: Step, lock: &Lock, known: &Known<'_>) -> Option<Value> {
        let key = key_text(lock.wants[0].key);
        let write_key = format!("{key}w");
        let ttl = match lock.lease_ns / MS {
            0 => Value::Null,
            ms => json!(ms),
        };
        let frame = match step {
            Step::Lock(role, max) => {
                let is_writer = role == Some("begin_write");
                let mut frame = json!({
                    "type": "lock", "key": if is_writer { write_key } else { key }, "ttl": ttl,
                    "pid": 7, "keepLocksAfterDeath": false, "retryCount": 0,
                });
                if self != Self::Oldest {
                    frame["rwStatus"] = json!(role);
                    frame["max"] = json!(max);
                }
                frame
            }
            Step::LockWriteKey if known.is_alone => json!({
                "type": "lock", "key": write_key, "ttl": null, "max": null, "pid": 7,
                "rwStatus": "locking_write_key", "keepLocksAfterDeath": false, "retryCount": 0,
            }),
            Step::UnlockWriteKey if known.is_alone => json!({
                "type": "unlock", "key": write_key, "force": true,
                "rwStatus": "unlocking_write_key",
            }),
            Step::Unlock => json!({
                "type": "unlock", "key": key, "_uuid": known.base, "force": false,
                "rwStatus": null, "max": null, "pid": 7,
            }),
            Step::UnlockUnnamed => json!({
                "type": "unlock", "key": key, "force": false, "pid": 7,
                "keepLocksAfterDeath": false,
            }),
            Step::EndWrite => json!({
                "type": "unlock", "key": write_key, "rwStatus": "end_write", "force": true,
            }),
            Step::Say(kind) => json!({"type": kind, "key": key}),
            Step::AcquireMany => {
                let keys = lock.wants.iter().map(|want| key_text(want.key));
                let keys: Vec<String> = keys.collect();
                let mut frame = json!({"type": "acquire-many", "keys": keys, "ttl": ttl});
                if known.says_who {
                    frame["pid"] = json!(7);
                }
                frame
            }
            Step::ReleaseMany => json!({"type": "release-many", "lockUuid": known.base}),
            Step::LockWriteKey | Step::UnlockWriteKey | Step::Enter | Step::Leave => return None,
        };
        Some(frame)
    }
}

/// One message, of which the answer is awaited, or what its user does between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Locks a key, in a role and for so many at a time.
    Lock(Option<&'static str>, Option<u32>),
    /// Unlocks what it locked last.
    Unlock,
    /// The same without naming it.
    UnlockUnnamed,
    /// A message that names only the key.
    Say(&'static str),
    /// The first reader, if it is that, locks the writers out.
    LockWriteKey,
    /// The last reader lets them in.
    UnlockWriteKey,
    EndWrite,
    AcquireMany,
    ReleaseMany,
    Enter,
    Leave,
}

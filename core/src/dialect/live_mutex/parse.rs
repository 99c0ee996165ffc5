//! One line, read as JavaScript would read it.
//!
//! The clients are loosely typed and the original broker takes what it gets, so a
//! field is kept as the JSON text it came as: it can be echoed exactly, and is
//! turned into a number, a truth or a string only where one is needed.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::RequestId;

/// What a line turned out to be.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives as long as its line is handled, and boxing it would cost an allocation"
)]
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// Nothing that could be answered: blank, or no JSON.
    Nothing,
    /// JSON, but no object.
    NotAnObject,
    /// An object.
    Frame(Frame<'a>),
}

impl<'a> Line<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        if text.starts_with('{') {
            return serde_json::from_str(text).map_or(Self::Nothing, Self::Frame);
        }
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Self::NotAnObject,
            Err(_) => Self::Nothing,
        }
    }
}

/// A field's value: the JSON text it came as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// What was kept of an earlier line.
    pub(super) const fn of(text: &'a str) -> Self {
        Self(text)
    }

    pub(super) const fn text(self) -> &'a str {
        self.0
    }

    pub(super) fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// Whether JavaScript would take it for true.
    pub(super) fn truthy(self) -> bool {
        match self.0 {
            "null" | "false" | "\"\"" => false,
            text if text.starts_with(['-', '0']) => self.number() != Some(0.0),
            _ => true,
        }
    }

    /// The number it is.
    pub(super) fn number(self) -> Option<f64> {
        self.0.parse().ok()
    }

    /// The number it is, or the number that its string spells.
    fn coerced_number(self) -> Option<f64> {
        self.number()
            .or_else(|| self.0.trim_matches('"').trim().parse().ok())
            .filter(|number: &f64| number.is_finite())
    }

    /// The string it is; `None` for anything but a string.
    pub(super) fn string(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if !inner.contains('\\') {
            return Some(Cow::Borrowed(inner));
        }
        // Half a surrogate pair is a string to JavaScript but not to Rust: its
        // escaped text then stands for it, which is as good for comparing.
        Some(serde_json::from_str::<String>(self.0).map_or(Cow::Borrowed(inner), Cow::Owned))
    }

    /// What JavaScript's `String()` makes of it: what keys and ids are compared by.
    pub(super) fn name(self) -> Cow<'a, str> {
        if let Some(string) = self.string() {
            return string;
        }
        match self.number() {
            // The digits as they came, unless JavaScript would write others.
            Some(number) if self.0.contains(['.', 'e', 'E']) && number.abs() < 1e21 => {
                Cow::Owned(alloc::format!("{number}"))
            }
            _ => Cow::Borrowed(self.0),
        }
    }
}

/// The fields of a line that anybody looks at.
#[derive(Debug, Default)]
pub(super) struct Frame<'a> {
    pub(super) kind: Option<Raw<'a>>,
    pub(super) uuid: Option<Raw<'a>>,
    /// `_uuid`: the id of the lock to be released.
    pub(super) lock_id: Option<Raw<'a>>,
    /// `lockUuid`: the id of the composite lock to be released.
    pub(super) composite_id: Option<Raw<'a>>,
    pub(super) key: Option<Raw<'a>>,
    pub(super) keys: Option<Raw<'a>>,
    pub(super) ttl: Option<Raw<'a>>,
    pub(super) max: Option<Raw<'a>>,
    pub(super) max_read: Option<Raw<'a>>,
    pub(super) max_write: Option<Raw<'a>>,
    pub(super) force: Option<Raw<'a>>,
    pub(super) wait: Option<Raw<'a>>,
    pub(super) retry_count: Option<Raw<'a>>,
    pub(super) rw_status: Option<Raw<'a>>,
    pub(super) keep_after_death: Option<Raw<'a>>,
    pub(super) keep_on_exit: Option<Raw<'a>>,
    pub(super) pid: Option<Raw<'a>>,
    pub(super) value: Option<Raw<'a>>,
    pub(super) timestamp: Option<Raw<'a>>,
    pub(super) inspect_command: Option<Raw<'a>>,
}

/// A `ttl` or `max` that cannot be meant; the text says what can.
pub(super) type Unfit = &'static str;

/// The original's words for a `max` that is none.
pub(super) const UNFIT_MAX: Unfit = "`max` must be a positive integer (>= 1) when provided; omit \
                                     the field to keep the default.";
const UNFIT_TTL: Unfit = "`ttl` must be a positive number of milliseconds, or null for a lock \
                          that does not expire; omit the field for the default of 5000.";

/// What a lock without a `ttl` gets.
const TTL_DEFAULT: Duration = Duration::from_secs(5);

impl<'a> Frame<'a> {
    /// The message's type; empty if it has none that is a string.
    pub(super) fn kind(&self) -> Cow<'a, str> {
        self.kind.and_then(Raw::string).unwrap_or_default()
    }

    /// The key, as it is compared. A missing one is called `undefined`, which is
    /// what it is called to the original.
    pub(super) fn key_name(&self) -> Cow<'a, str> {
        self.key.map_or(Cow::Borrowed("undefined"), Raw::name)
    }

    /// The request's id, if it has one.
    pub(super) fn id(&self) -> Option<RequestId> {
        self.uuid.filter(|raw| raw.truthy()).map(request_id)
    }

    pub(super) fn is_forced(&self) -> bool {
        self.force.is_some_and(Raw::truthy)
    }

    /// Whether it has every field that the Node client writes into a lock request, used
    /// or not, as nobody else does. That client confirms what it is granted.
    pub(super) fn is_from_node(&self) -> bool {
        [
            self.keep_after_death,
            self.retry_count,
            self.ttl,
            self.rw_status,
            self.max,
            self.pid,
        ]
        .iter()
        .all(Option::is_some)
    }

    /// Whether it has the fields that the Node client of 0.0 writes into an unlock and lacks
    /// those that its successors add.
    pub(super) fn is_unlock_of_0_0(&self) -> bool {
        self.force.is_some() && self.pid.is_some() && self.rw_status.is_none() && self.max.is_none()
    }

    /// Whether the request may not wait.
    pub(super) fn is_try(&self) -> bool {
        self.wait.is_some_and(|raw| raw.text() == "false")
    }

    /// Whether it repeats an earlier one.
    pub(super) fn is_retry(&self) -> bool {
        self.retry_count
            .and_then(Raw::number)
            .is_some_and(|count| count > 0.0)
    }

    pub(super) fn keeps(&self) -> bool {
        [self.keep_after_death, self.keep_on_exit]
            .into_iter()
            .flatten()
            .any(Raw::truthy)
    }

    /// How long the hold may last: 5 s if absent or 0, for ever if null.
    pub(super) fn lease(&self) -> Result<Option<Duration>, Unfit> {
        let Some(ttl) = self.ttl else {
            return Ok(Some(TTL_DEFAULT));
        };
        if ttl.is_null() {
            return Ok(None);
        }
        if !ttl.truthy() {
            return Ok(Some(TTL_DEFAULT));
        }
        match ttl.coerced_number() {
            Some(millis) if millis > 0.0 => Ok(Some(
                Duration::try_from_secs_f64(millis / 1e3)
                    .unwrap_or(Duration::MAX)
                    .max(Duration::from_millis(1)),
            )),
            _ => Err(UNFIT_TTL),
        }
    }

    /// How many may hold the key at one time; `None` to leave that as it is.
    pub(super) fn capacity(&self) -> Result<Option<u32>, Unfit> {
        let max = capacity_of(self.max)?;
        let max_read = capacity_of(self.max_read)?;
        let max_write = capacity_of(self.max_write)?;
        let by_role = if self.rw_status() == RwStatus::BeginRead {
            max_read
        } else {
            max_write
        };
        Ok(max.or(by_role))
    }

    /// What the lock is to the read-preferring readers-writer client.
    pub(super) fn rw_status(&self) -> RwStatus {
        match self.rw_status.map_or("null", Raw::text) {
            "\"begin_read\"" => RwStatus::BeginRead,
            "\"end_read\"" => RwStatus::EndRead,
            "\"end_write\"" => RwStatus::EndWrite,
            "\"locking_write_key\"" => RwStatus::LockingWriteKey,
            "\"unlocking_write_key\"" => RwStatus::UnlockingWriteKey,
            _ => RwStatus::Plain,
        }
    }
}

/// `rwStatus`. A writer's begin needs no distinction: it is a lock like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RwStatus {
    Plain,
    BeginRead,
    EndRead,
    EndWrite,
    LockingWriteKey,
    UnlockingWriteKey,
}

fn capacity_of(raw: Option<Raw<'_>>) -> Result<Option<u32>, Unfit> {
    let Some(raw) = raw.filter(|raw| !raw.is_null()) else {
        return Ok(None);
    };
    match raw.number() {
        Some(number) if number >= 1.0 && number % 1.0 == 0.0 => {
            #[expect(
                clippy::cast_sign_loss,
                reason = "it is at least 1, and a cast saturates"
            )]
            let capacity = number as u32;
            Ok(Some(capacity))
        }
        _ => Err(UNFIT_MAX),
    }
}

/// The request that goes by this id.
pub(super) fn request_id(raw: Raw<'_>) -> RequestId {
    request_called(&raw.name())
}

/// See [`RequestId::of_live_mutex`].
///
/// A UUID in its usual spelling is taken as it is, so that native clients can name the
/// request; any other id is hashed into a UUID (version 8) of its own. The hash need
/// not be secret: who knows an id may use it as it is.
pub(crate) fn request_called(name: &str) -> RequestId {
    if is_usual_uuid(name.as_bytes())
        && let Ok(id) = name.parse()
    {
        return id;
    }
    let mut hasher = SipHasher24::new();
    core::hash::Hasher::write(&mut hasher, name.as_bytes());
    made_id(hasher.finish128().as_u128())
}

/// What the id names on `key` while it names something else on another: live-mutex's ids
/// need to be unique among those who want one key only.
pub(super) fn namesake(raw: Raw<'_>, key: &[u8]) -> RequestId {
    let mut hasher = SipHasher24::new();
    let name = raw.name();
    core::hash::Hasher::write(&mut hasher, &name.len().to_le_bytes());
    core::hash::Hasher::write(&mut hasher, name.as_bytes());
    core::hash::Hasher::write(&mut hasher, key);
    made_id(hasher.finish128().as_u128())
}

/// Whether the id is written as native clients and this broker write it.
pub(super) fn is_usual_uuid(name: &[u8]) -> bool {
    name.len() == 36
        && name.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        })
}

/// A request id of version 8 (made by this program's own rule) out of any bits.
pub(super) const fn made_id(bits: u128) -> RequestId {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    RequestId::from_u128(bits & !VERSION & !VARIANT | 0x8 << 76 | 0b10 << 62)
}

/// The strings of an array of strings; `None` if it is anything else.
pub(super) fn strings(raw: Raw<'_>) -> Option<Vec<Cow<'_, str>>> {
    let items: Vec<&RawValue> = serde_json::from_str(raw.text()).ok()?;
    items
        .into_iter()
        .map(|item| Raw(item.get()).string())
        .collect()
}

impl<'de: 'a, 'a> Deserialize<'de> for Frame<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FrameVisitor)
    }
}

struct FrameVisitor;

impl<'de> Visitor<'de> for FrameVisitor {
    type Value = Frame<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    /// By hand rather than derived: a field that comes twice counts as its last, as in
    /// JavaScript, and is no error.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut frame = Frame::default();
        while let Some(Field(name)) = map.next_key()? {
            let slot = match &*name {
                "type" => &mut frame.kind,
                "uuid" => &mut frame.uuid,
                "_uuid" => &mut frame.lock_id,
                "lockUuid" => &mut frame.composite_id,
                "key" => &mut frame.key,
                "keys" => &mut frame.keys,
                "ttl" => &mut frame.ttl,
                "max" => &mut frame.max,
                "maxRead" => &mut frame.max_read,
                "maxWrite" => &mut frame.max_write,
                "force" => &mut frame.force,
                "wait" => &mut frame.wait,
                "retryCount" => &mut frame.retry_count,
                "rwStatus" => &mut frame.rw_status,
                "keepLocksAfterDeath" => &mut frame.keep_after_death,
                "keepLocksOnExit" => &mut frame.keep_on_exit,
                "pid" => &mut frame.pid,
                "value" => &mut frame.value,
                "timestamp" => &mut frame.timestamp,
                "inspectCommand" => &mut frame.inspect_command,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *slot = Some(Raw(map.next_value::<&RawValue>()?.get()));
        }
        Ok(frame)
    }
}

/// A field's name, borrowed unless it is written with escapes.
struct Field<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Field(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Field(Cow::Owned(name.into())))
    }
}

#[cfg(test)]
mod tests;

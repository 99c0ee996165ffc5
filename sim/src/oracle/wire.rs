//! Reads the native protocol off the wire, with a decoder of its own: what the broker
//! is asked and what it says is not taken from the code that is judged. Of live-mutex's
//! lines, only which requests they make.

mod replies;

pub(crate) use replies::{Counters, KeyShown, Kind, RequestShown, Said, Welcome, reply};

use crate::plan::Mode;

/// A command, as far as the oracle looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Hello {
        /// What it shows to be let in.
        token: Vec<u8>,
        name_bytes: usize,
        /// The run of the broker, and the session, that it is to go on with.
        resumes: Option<(u64, u64)>,
    },
    Acquire(Asked),
    Reclaim(Asked, u64),
    Release(u128),
    Renew {
        id: u128,
        lease_ns: Option<u64>,
    },
    Cancel(u128),
    ForceKey(Vec<u8>),
    ForceRequest(u128),
    Convert {
        id: u128,
        downgrade: bool,
    },
    Goodbye,
    /// One key, without the first so many who hold it or wait for it.
    Inspect {
        key: Vec<u8>,
        skip: u32,
    },
    /// The keys in use from there on.
    List {
        start: u32,
    },
    Status,
    Ping,
}

impl Heard {
    /// Whether it changes nothing.
    pub(crate) const fn is_question(&self) -> bool {
        matches!(
            self,
            Self::Inspect { .. } | Self::List { .. } | Self::Status | Self::Ping
        )
    }
}

/// A request for keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) id: u128,
    pub(crate) wants: Vec<(Vec<u8>, Mode)>,
    pub(crate) lease_ns: Option<u64>,
    pub(crate) wait_ns: Option<u64>,
    pub(crate) keep: bool,
    /// Its holder is to be told when somebody waits.
    pub(crate) notifies: bool,
    pub(crate) label: Vec<u8>,
    /// Zero for nobody.
    pub(crate) owner: u32,
    pub(crate) lock_delay_ns: u64,
}

/// Cuts a stream into the bodies of frames.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes of the magic that are still to come.
    magic_left: u8,
    /// Native at all: the first byte said so.
    native: bool,
    /// Nothing that follows can be read.
    broken: bool,
    partial: Vec<u8>,
    bytes_max: usize,
}

impl Frames {
    pub(crate) const fn new(magic: bool, bytes_max: u32) -> Self {
        Self {
            magic_left: if magic { 4 } else { 0 },
            native: true,
            broken: false,
            partial: Vec::new(),
            bytes_max: bytes_max as usize,
        }
    }

    pub(crate) const fn is_native(&self) -> bool {
        self.native && !self.broken
    }

    /// Whether it began as the native protocol, even if it did not go on so.
    pub(crate) const fn native_so_far(&self) -> bool {
        self.native
    }

    /// Whether something came that cannot be read, or was too long.
    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes `bytes` in and shows each complete body.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut show: impl FnMut(&[u8]) -> bool) {
        while self.magic_left > 0 && !self.broken {
            let Some((&byte, rest)) = bytes.split_first() else {
                return;
            };
            if byte != b"LMX\x01"[usize::from(4 - self.magic_left)] {
                self.native = self.magic_left < 4;
                self.broken = true;
            }
            self.magic_left -= 1;
            bytes = rest;
        }
        if self.broken {
            return;
        }
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(bytes);
            let mut partial = std::mem::take(&mut self.partial);
            let used = self.cut(&partial, &mut show);
            partial.drain(..used);
            self.partial = partial;
            return;
        }
        let used = self.cut(bytes, &mut show);
        if used < bytes.len() && !self.broken {
            self.partial.extend_from_slice(&bytes[used..]);
        }
    }

    fn cut(&mut self, bytes: &[u8], show: &mut impl FnMut(&[u8]) -> bool) -> usize {
        let mut used = 0;
        while let Some((length, rest)) = bytes[used..].split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length == 0 || length > self.bytes_max {
                self.broken = true;
                return bytes.len();
            }
            let Some(body) = rest.get(..length) else {
                break;
            };
            used += 4 + length;
            if !show(body) {
                self.broken = true;
                return bytes.len();
            }
        }
        used
    }
}

/// Cuts a stream of live-mutex's into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes `bytes` in and shows each complete line, without its end.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut show: impl FnMut(&[u8])) {
        // In what came before there is no end of a line.
        let mut searched = self.partial.len();
        self.partial.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(length) = self.partial[searched..].iter().position(|it| *it == b'\n') {
            let end = searched + length;
            show(&self.partial[used..end]);
            (used, searched) = (end + 1, end + 1);
        }
        self.partial.drain(..used);
    }
}

/// A reader of postcard's encoding: little-endian base-128 numbers, lengths before bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn raw(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.raw(usize::try_from(count).ok()?)
    }

    fn id(&mut self) -> Option<u128> {
        Some(u128::from_be_bytes(self.bytes()?.try_into().ok()?))
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    #[expect(clippy::option_option, reason = "unreadable, absent, or there")]
    fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? {
            read(self).map(Some)
        } else {
            Some(None)
        }
    }

    fn duration_ns(&mut self) -> Option<u64> {
        let (seconds, nanos) = (self.number()?, self.number()?);
        Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    fn mode(&mut self) -> Option<Mode> {
        match self.number()? {
            0 => Some(Mode::Exclusive),
            1 => Some(Mode::Shared),
            2 => Some(Mode::Semaphore {
                capacity: self.small()?,
                permits: self.small()?,
            }),
            _ => None,
        }
    }

    fn asked(&mut self) -> Option<Asked> {
        let id = self.id()?;
        let mut wants = Vec::with_capacity(1);
        let mut list = Reader(self.bytes()?);
        while !list.0.is_empty() {
            wants.push((list.bytes()?.to_vec(), list.mode()?));
        }
        let lease_ns = self.maybe(Self::duration_ns)?;
        let wait_ns = match self.number()? {
            0 => None,
            1 => Some(self.duration_ns()?),
            2 => Some(0),
            _ => return None,
        };
        let keep = self.flag()?;
        let notifies = self.flag()?;
        let label = self.bytes()?.to_vec();
        let owner = self.maybe(Self::small)?.unwrap_or(0);
        let lock_delay_ns = self.duration_ns()?;
        Some(Asked {
            id,
            wants,
            lease_ns,
            wait_ns,
            keep,
            notifies,
            label,
            owner,
            lock_delay_ns,
        })
    }
}

/// A command and its tag. `None` if it is none.
pub(crate) fn command(body: &[u8]) -> Option<(u32, Heard)> {
    let mut reader = Reader(body);
    let tag = reader.small()?;
    let _seen = reader.small()?;
    let heard = match reader.number()? {
        0 => {
            let token = reader.bytes()?.to_vec();
            let _window_ns = reader.duration_ns()?;
            let resumes = reader.maybe(|ticket| {
                let resumes = (ticket.number()?, ticket.number()?);
                ticket.raw(16).map(|_secret| resumes)
            })?;
            let name_bytes = reader.bytes()?.len();
            Heard::Hello {
                token,
                name_bytes,
                resumes,
            }
        }
        1 => Heard::Acquire(reader.asked()?),
        2 => Heard::Release(reader.id()?),
        3 => Heard::Renew {
            id: reader.id()?,
            lease_ns: reader.maybe(Reader::duration_ns)?,
        },
        4 => Heard::Cancel(reader.id()?),
        5 => Heard::ForceKey(reader.bytes()?.to_vec()),
        6 => Heard::ForceRequest(reader.id()?),
        7 => Heard::Convert {
            id: reader.id()?,
            downgrade: reader.number()? == 0,
        },
        8 => {
            let asked = reader.asked()?;
            Heard::Reclaim(asked, reader.number()?)
        }
        9 => Heard::Ping,
        10 => Heard::List {
            start: reader.small()?,
        },
        11 => Heard::Inspect {
            key: reader.bytes()?.to_vec(),
            skip: reader.small()?,
        },
        12 => Heard::Status,
        13 => Heard::Goodbye,
        _ => return None,
    };
    Some((tag, heard))
}

/// What a line of live-mutex's asks for, as far as the oracle looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A lock of one key, perhaps before all who wait. Of readers and writers it may take
    /// more than one request.
    Asks {
        id: u128,
        key: String,
        front: bool,
        is_shared: bool,
    },
    /// The end of what has this id: live-mutex's unlock is anybody's.
    Ends { id: u128 },
    /// The end of whatever is held of this key.
    Forces { key: String },
    /// Nothing that is held or waited for.
    AsksNothing,
    /// That is not known.
    Unread,
}

/// The fields of a line that are looked at, if they are texts.
#[derive(serde::Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    uuid: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, rename = "_uuid")]
    lock: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<std::borrow::Cow<'a, str>>,
    force: Option<serde_json::Value>,
    #[serde(rename = "rwStatus")]
    status: Option<serde::de::IgnoredAny>,
    #[serde(rename = "retryCount")]
    retries: Option<serde_json::Value>,
}

/// What a line asks for.
pub(crate) fn asked_in_line(line: &[u8]) -> Line {
    let Ok(line) = serde_json::from_slice::<Fields<'_>>(line) else {
        return Line::Unread;
    };
    let is_forced = line.force.as_ref().is_some_and(is_meant);
    let ends = line.lock.as_deref().and_then(number);
    match (
        line.kind.as_deref(),
        line.uuid.as_deref().and_then(number),
        line.key,
    ) {
        (Some("unlock"), _, Some(key)) if is_forced && line.lock.is_none() => Line::Forces {
            key: key.into_owned(),
        },
        (Some("unlock"), ..) => ends.map_or(Line::AsksNothing, |id| Line::Ends { id }),
        (Some("lock"), Some(id), Some(key)) => Line::Asks {
            id,
            key: key.into_owned(),
            front: is_forced || line.retries.as_ref().is_some_and(is_meant),
            is_shared: line.status.is_some(),
        },
        (Some("lock-received" | "lock-client-timeout" | "version"), ..) => Line::AsksNothing,
        _ => Line::Unread,
    }
}

/// Whether this line shows `token`.
pub(crate) fn shows_token(line: &[u8], token: &str) -> bool {
    let Ok(line) = serde_json::from_slice::<serde_json::Value>(line) else {
        return false;
    };
    line["type"] == "auth" && line["token"] == token
}

/// The id that a UUID is.
fn number(uuid: &str) -> Option<u128> {
    u128::from_str_radix(&uuid.replace('-', ""), 16).ok()
}

/// Whether JavaScript takes it for true.
fn is_meant(value: &serde_json::Value) -> bool {
    !matches!(value.as_f64(), Some(0.0)) && *value != false && *value != ""
}

/// Whether this is how a stream begins that ends with a fault, and says nothing else.
pub(crate) fn is_fault(stream: &[u8]) -> bool {
    let mut is_fault = true;
    Frames::new(false, u32::MAX).feed(stream, |body| {
        is_fault &= matches!(reply(body), Some((_, 0, Said::Fault { .. })));
        is_fault
    });
    is_fault
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let stream = [b"LMX\x01".as_slice(), &[2, 0, 0, 0, 7, 8], &[1, 0, 0, 0, 9]].concat();
        for cut in 0..stream.len() {
            let mut frames = Frames::new(true, 64);
            let mut bodies = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                frames.feed(part, |body| {
                    bodies.push(body.to_vec());
                    true
                });
            }
            assert_eq!(bodies, [vec![7, 8], vec![9]], "cut at {cut}");
        }
    }

    #[test]
    fn a_line_of_json_is_not_native() {
        let mut frames = Frames::new(true, 64);
        frames.feed(b"{\"type\":\"lock\"}\n", |_| panic!("no frame is in it"));
        assert!(!frames.is_native());
    }

    #[test]
    fn an_unlock_is_of_an_id_or_by_force() {
        let id = 9;
        let uuid = "00000000-0000-0000-0000-000000000009";
        let named = format!("\"type\":\"unlock\",\"_uuid\":\"{uuid}\",\"key\":\"k\"");
        let key = "k".to_owned();
        for (line, what) in [
            (format!("{{{named}}}"), Line::Ends { id }),
            (format!("{{{named},\"force\":true}}"), Line::Ends { id }),
            (
                "{\"type\":\"unlock\",\"key\":\"k\",\"force\":true}".to_owned(),
                Line::Forces { key },
            ),
            (
                "{\"type\":\"unlock\",\"key\":\"k\",\"force\":0}".to_owned(),
                Line::AsksNothing,
            ),
        ] {
            assert_eq!(asked_in_line(line.as_bytes()), what, "{line}");
        }
    }

    #[test]
    fn lines_are_found_however_the_stream_is_cut() {
        let stream = b"{\"type\":\"lock\",\"key\":\"k\",\"uuid\":\"00000000-0000-0000-4000-000000000009\"}\n\
                       {\"type\":\"unlock\",\"uuid\":\"5\"}\nno JSON\n{\"type\":";
        for cut in 0..stream.len() {
            let mut lines = Lines::default();
            let mut asked = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                lines.feed(part, |line| asked.push(asked_in_line(line)));
            }
            let asks = Line::Asks {
                id: 0x4000_0000_0000_0009,
                key: "k".to_owned(),
                front: false,
                is_shared: false,
            };
            assert_eq!(
                asked,
                [asks, Line::AsksNothing, Line::Unread],
                "cut at {cut}"
            );
        }
    }
}

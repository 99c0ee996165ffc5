//! What the broker says: replies, read off the wire.

use super::Reader;
use crate::plan::Mode;

/// A reply, as far as the oracle looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Welcome(Welcome),
    Granted {
        id: u128,
        token: u64,
        granted_ns: u64,
        deadline_ns: Option<u64>,
    },
    Queued {
        id: u128,
        ahead: u32,
    },
    Busy {
        id: u128,
        key: Vec<u8>,
        waiting: u32,
        holders: Vec<RequestShown>,
    },
    Released(u128),
    Renewed {
        id: u128,
        deadline_ns: Option<u64>,
    },
    Cancelled(u128),
    ForceReleased {
        holders: Vec<RequestShown>,
        count: u32,
    },
    Refused {
        /// To what: the number of the answer that refuses.
        group: u64,
        /// The request, if it is one.
        id: Option<u128>,
        why: Kind,
        /// What there is no room for.
        full: Option<u64>,
        /// The limit that it names.
        limit: Option<u64>,
        /// The owners that it names.
        owners: Vec<u32>,
    },
    Inspected {
        key: KeyShown,
        requests: Vec<RequestShown>,
    },
    Listed {
        keys: Vec<KeyShown>,
        next: Option<u32>,
    },
    Status(Box<Counters>),
    TimedOut(u128),
    Expired {
        id: u128,
        token: u64,
    },
    Revoked {
        id: u128,
        token: Option<u64>,
    },
    Contended(u128),
    Bye,
    Fault {
        kind: u64,
    },
    Other,
}

/// What kind of answer one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Granted,
    Queued,
    Busy,
    Released,
    Renewed,
    Cancelled,
    ForceReleased,
    Inspected,
    Listed,
    Status,
    Other,
    // Refusals.
    UnknownSession,
    NoKeys,
    TooManyKeys,
    DuplicateKey,
    KeyEmpty,
    KeyTooLong,
    LabelTooLong,
    LeaseZero,
    LeaseTooLong,
    LockDelayTooLong,
    Permits,
    FrontWithManyKeys,
    IdInUse,
    Deadlock,
    Full,
    ReclaimConflict,
    ReclaimTooLate,
    Ended,
    NotHeld,
    StillWaiting,
    NotOwner,
    NotWaiting,
    AlreadyGranted,
    NotConvertible,
    UpgradeConflict,
}

/// What a client is told of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) incarnation: u64,
    pub(crate) session: u64,
    pub(crate) window_ns: u64,
    pub(crate) resumed: bool,
}

/// A request as others are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestShown {
    pub(crate) id: u128,
    pub(crate) mode: Mode,
    /// Its token, when it was granted, and its deadline.
    pub(crate) grant: Option<(u64, u64, Option<u64>)>,
    pub(crate) since_ns: u64,
    pub(crate) keep: bool,
    pub(crate) label: Vec<u8>,
    /// Its session's.
    pub(crate) name: String,
}

/// A key as others are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyShown {
    pub(crate) key: Vec<u8>,
    pub(crate) holders: u32,
    pub(crate) waiters: u32,
    pub(crate) capacity: Option<u32>,
}

/// The broker's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) uptime_ns: u64,
    pub(crate) incarnation: u64,
    pub(crate) connections: u64,
    pub(crate) sessions: u64,
    pub(crate) keys: u32,
    pub(crate) held: u32,
    pub(crate) waiting: u32,
    pub(crate) last_token: u64,
    pub(crate) grants: u64,
    pub(crate) expiries: u64,
    pub(crate) refused: u64,
    pub(crate) faults: u64,
    pub(crate) grace_ns: Option<u64>,
    pub(crate) connections_total: u64,
    pub(crate) sessions_total: u64,
    pub(crate) resumes: u64,
    pub(crate) refused_busy: u64,
    pub(crate) refused_connections: u64,
    pub(crate) refused_sessions: u64,
    pub(crate) refused_keys: u64,
    pub(crate) refused_requests: u64,
    pub(crate) refused_requests_per_session: u64,
    pub(crate) refused_bytes: u64,
    pub(crate) refused_invalid: u64,
    pub(crate) refused_conflicts: u64,
    pub(crate) refused_absent: u64,
    /// By kind of fault.
    pub(crate) faults_of: [u64; 9],
}

impl Said {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Granted { .. } => Kind::Granted,
            Self::Queued { .. } => Kind::Queued,
            Self::Busy { .. } => Kind::Busy,
            Self::Released(_) => Kind::Released,
            Self::Renewed { .. } => Kind::Renewed,
            Self::Cancelled(_) => Kind::Cancelled,
            Self::ForceReleased { .. } => Kind::ForceReleased,
            Self::Refused { why, .. } => *why,
            Self::Inspected { .. } => Kind::Inspected,
            Self::Listed { .. } => Kind::Listed,
            Self::Status(_) => Kind::Status,
            _ => Kind::Other,
        }
    }
}

/// A reply's tag, the broker's time in it, and what it says. `None` if it is none.
pub(crate) fn reply(body: &[u8]) -> Option<(u64, u32, Said)> {
    let mut reader = Reader(body);
    let now_ns = reader.number()?;
    let tag = reader.small()?;
    let said = match reader.number()? {
        0 => {
            let (incarnation, session) = (reader.number()?, reader.number()?);
            let _secret = reader.raw(16)?;
            let resumed = reader.number()? == 1;
            Said::Welcome(Welcome {
                incarnation,
                session,
                window_ns: reader.duration_ns()?,
                resumed,
            })
        }
        1 => Said::Granted {
            id: reader.id()?,
            token: reader.number()?,
            granted_ns: reader.number()?,
            deadline_ns: reader.maybe(Reader::number)?,
        },
        2 => Said::Queued {
            id: reader.id()?,
            ahead: reader.small()?,
        },
        3 => Said::Busy {
            id: reader.id()?,
            key: reader.bytes()?.to_vec(),
            waiting: reader.small()?,
            holders: reader.list(Reader::request_shown)?,
        },
        5 => Said::Released(reader.id()?),
        7 => Said::Renewed {
            id: reader.id()?,
            deadline_ns: reader.maybe(Reader::number)?,
        },
        9 => Said::Cancelled(reader.id()?),
        11 => Said::ForceReleased {
            holders: reader.list(Reader::request_shown)?,
            count: reader.small()?,
        },
        group @ (4 | 6 | 8 | 10 | 12) => {
            let id = reader.id()?;
            reader.refusal(group, Some(id))?
        }
        14 => Said::Listed {
            keys: reader.list(Reader::key_shown)?,
            next: reader.maybe(Reader::small)?,
        },
        15 => Said::Inspected {
            key: reader.key_shown()?,
            requests: reader.list(Reader::request_shown)?,
        },
        16 => Said::Status(Box::new(reader.counters()?)),
        18 => Said::TimedOut(reader.id()?),
        19 => Said::Expired {
            id: reader.id()?,
            token: reader.number()?,
        },
        20 => Said::Revoked {
            id: reader.id()?,
            token: reader.maybe(Reader::number)?,
        },
        21 => Said::Contended(reader.id()?),
        23 => Said::Fault {
            kind: reader.number()?,
        },
        24 => reader.refusal(24, None)?,
        17 => Said::Bye,
        13 | 22 => Said::Other,
        _ => return None,
    };
    Some((now_ns, tag, said))
}

impl Reader<'_> {
    /// Items encoded one behind the other in so many bytes.
    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        let mut rest = Reader(self.bytes()?);
        while !rest.0.is_empty() {
            items.push(read(&mut rest)?);
        }
        Some(items)
    }

    fn request_shown(&mut self) -> Option<RequestShown> {
        let id = self.id()?;
        let mode = self.mode()?;
        let grant = self.maybe(|it| Some((it.number()?, it.number()?, it.maybe(Self::number)?)))?;
        let since_ns = self.number()?;
        let keep = self.flag()?;
        let label = self.bytes()?.to_vec();
        let name = String::from_utf8(self.bytes()?.to_vec()).ok()?;
        Some(RequestShown {
            id,
            mode,
            grant,
            since_ns,
            keep,
            label,
            name,
        })
    }

    fn key_shown(&mut self) -> Option<KeyShown> {
        Some(KeyShown {
            key: self.bytes()?.to_vec(),
            holders: self.small()?,
            waiters: self.small()?,
            capacity: self.maybe(Self::small)?,
        })
    }

    fn counters(&mut self) -> Option<Counters> {
        let mut counters = Counters {
            uptime_ns: self.duration_ns()?,
            incarnation: self.number()?,
            connections: self.number()?,
            sessions: self.number()?,
            keys: self.small()?,
            held: self.small()?,
            waiting: self.small()?,
            last_token: self.number()?,
            grants: self.number()?,
            expiries: self.number()?,
            refused: self.number()?,
            faults: self.number()?,
            grace_ns: self.maybe(Self::duration_ns)?,
            connections_total: self.number()?,
            sessions_total: self.number()?,
            resumes: self.number()?,
            refused_busy: self.number()?,
            refused_connections: self.number()?,
            refused_sessions: self.number()?,
            refused_keys: self.number()?,
            refused_requests: self.number()?,
            refused_requests_per_session: self.number()?,
            refused_bytes: self.number()?,
            refused_invalid: self.number()?,
            refused_conflicts: self.number()?,
            refused_absent: self.number()?,
            faults_of: [0; 9],
        };
        for count in &mut counters.faults_of {
            *count = self.number()?;
        }
        Some(counters)
    }

    /// Why something was refused: to an acquire (4), a release (6), a renewal (8), a
    /// cancel (10), a conversion (12), or a question about a key (24).
    fn refusal(&mut self, group: u64, id: Option<u128>) -> Option<Said> {
        let mut limit = None;
        let mut full = None;
        let mut owners = Vec::new();
        let why = match (group, self.number()?) {
            (4, 0) => Kind::UnknownSession,
            (4, 1) => Kind::Busy,
            (4, 2) => Kind::NoKeys,
            (4, 3) => Kind::TooManyKeys,
            (4, 4) => Kind::DuplicateKey,
            (4, 5) | (24, 1) => Kind::KeyTooLong,
            (4, 6) => Kind::LabelTooLong,
            (4, 7) | (8, 3) => Kind::LeaseZero,
            (4, 8) | (8, 4) => Kind::LeaseTooLong,
            (4, 9) => Kind::LockDelayTooLong,
            (4, 10) => Kind::Permits,
            (4, 11) => Kind::FrontWithManyKeys,
            (4, 12) => Kind::IdInUse,
            (4, 13) | (12, 4) => Kind::Deadlock,
            (4, 14) => Kind::Full,
            (4, 15) => Kind::ReclaimConflict,
            (4, 16) | (24, 0) => Kind::KeyEmpty,
            (4, 17) => Kind::ReclaimTooLate,
            (4, 18) => Kind::Ended,
            (6 | 8 | 12, 0) => Kind::NotHeld,
            (6 | 8, 1) => Kind::StillWaiting,
            (6 | 8 | 10, 2) | (12, 1) => Kind::NotOwner,
            (10, 0) => Kind::NotWaiting,
            (10, 1) => Kind::AlreadyGranted,
            (12, 2) => Kind::NotConvertible,
            (12, 3) => Kind::UpgradeConflict,
            _ => return None,
        };
        match why {
            Kind::TooManyKeys | Kind::KeyTooLong | Kind::LabelTooLong => {
                limit = Some(self.number()?);
            }
            Kind::LeaseTooLong | Kind::LockDelayTooLong => limit = Some(self.duration_ns()?),
            Kind::Full => {
                full = Some(self.number()?);
                limit = Some(self.number()?);
            }
            Kind::Deadlock => {
                let named: Option<Vec<u32>> = (0..8).map(|_| self.small()).collect();
                owners = named?;
                owners.truncate(self.small()? as usize);
            }
            _ => {}
        }
        Some(Said::Refused {
            group,
            id,
            why,
            full,
            limit,
            owners,
        })
    }
}

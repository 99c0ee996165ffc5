//! What can go wrong, and when.

use serde::{Deserialize, Serialize};

/// A node's number: servers first, then clients.
pub type NodeId = u16;

/// One fault: when it begins, how long it lasts, what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultEvent {
    /// When it begins.
    pub when: When,
    /// How long it lasts, at most until everything heals. Jumps and resets are over at once.
    pub lasts_ns: u64,
    /// What.
    pub fault: Fault,
}

/// When a fault begins. Bound to an operation it strikes where it hurts, and goes
/// with the operation when that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum When {
    /// At this time.
    At(u64),
    /// So long after the operation was asked for.
    Asked {
        /// Which operation.
        op: u32,
        /// How long after.
        after_ns: u64,
    },
    /// So long after the client learned that the operation was granted.
    Granted {
        /// Which operation.
        op: u32,
        /// How long after.
        after_ns: u64,
    },
    /// So long after the client gave the operation's hold back.
    Released {
        /// Which operation.
        op: u32,
        /// How long after.
        after_ns: u64,
    },
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Fault {
    /// The process stands still: what arrives waits, and so do its timers.
    Pause(NodeId),
    /// The process dies; its kernel tells its peers. It starts again when the fault ends.
    Crash(NodeId),
    /// The machine loses power: nobody is told. It starts again when the fault ends.
    PowerLoss(NodeId),
    /// The process is asked to stop, does so in good order, and starts again when the fault
    /// ends. What has no order of its own for that crashes.
    Stop(NodeId),
    /// The wall clock jumps; the monotonic clock does not.
    Jump {
        /// Whose.
        node: NodeId,
        /// By how much, either way.
        by_ns: i64,
    },
    /// The monotonic clock stands still, as over a suspended virtual machine.
    Freeze(NodeId),
    /// The monotonic clock leaps ahead.
    Step {
        /// Whose.
        node: NodeId,
        /// By how much.
        by_ns: u64,
    },
    /// Both clocks run at another rate.
    Drift {
        /// Whose.
        node: NodeId,
        /// How much faster, in parts per million.
        ppm: i32,
    },
    /// What is sent one way takes longer.
    Delay {
        /// From where.
        from: NodeId,
        /// To where.
        to: NodeId,
        /// How much longer.
        extra_ns: u64,
    },
    /// What is sent one way arrives only when this is over.
    Stall {
        /// From where.
        from: NodeId,
        /// To where.
        to: NodeId,
    },
    /// What is sent one way is lost. (Of a byte stream nothing is lost: it stalls.)
    Drop {
        /// From where.
        from: NodeId,
        /// To where.
        to: NodeId,
    },
    /// The connection between two nodes breaks; what is under way is lost.
    Reset {
        /// The one end.
        a: NodeId,
        /// The other.
        b: NodeId,
    },
    /// The connection breaks for one end; the other is not told.
    HalfOpen {
        /// Who learns of it.
        told: NodeId,
        /// Who does not.
        untold: NodeId,
    },
    /// Every connection of the node breaks at one time.
    Storm(NodeId),
    /// The node takes no new connections.
    Refuse(NodeId),
    /// Nothing gets to the node or from it.
    Isolate(NodeId),
    /// Nothing gets across, in either direction.
    Partition {
        /// The nodes of the one side, a bit each.
        side: u64,
    },
    /// Nothing gets from the one side to the other; the other direction works.
    PartitionOneWay {
        /// The nodes that are not heard, a bit each.
        side: u64,
    },
    /// The process reads few bytes at a time, and rarely.
    SlowReader(NodeId),
}

impl Fault {
    /// The same on another node, if it is something that befalls a machine.
    #[must_use]
    pub const fn on_another(self, node: NodeId) -> Option<Self> {
        match self {
            Self::Pause(_) => Some(Self::Pause(node)),
            Self::Crash(_) => Some(Self::Crash(node)),
            Self::PowerLoss(_) => Some(Self::PowerLoss(node)),
            Self::Jump { by_ns, .. } => Some(Self::Jump { node, by_ns }),
            Self::Step { by_ns, .. } => Some(Self::Step { node, by_ns }),
            Self::Freeze(_) => Some(Self::Freeze(node)),
            _ => None,
        }
    }

    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> FaultKind {
        match self {
            Self::Pause(_) => FaultKind::Pause,
            Self::Crash(_) => FaultKind::Crash,
            Self::PowerLoss(_) => FaultKind::Power,
            Self::Stop(_) => FaultKind::Stop,
            Self::Jump { .. } => FaultKind::Jump,
            Self::Freeze(_) => FaultKind::Freeze,
            Self::Step { .. } => FaultKind::Step,
            Self::Drift { .. } => FaultKind::Drift,
            Self::Delay { .. } => FaultKind::Delay,
            Self::Stall { .. } => FaultKind::Stall,
            Self::Drop { .. } => FaultKind::Drop,
            Self::Reset { .. } => FaultKind::Reset,
            Self::HalfOpen { .. } => FaultKind::HalfOpen,
            Self::Storm(_) => FaultKind::Storm,
            Self::Refuse(_) => FaultKind::Refuse,
            Self::Isolate(_) => FaultKind::Isolate,
            Self::Partition { .. } | Self::PartitionOneWay { .. } => FaultKind::Partition,
            Self::SlowReader(_) => FaultKind::SlowReader,
        }
    }
}

macro_rules! fault_kinds {
    ($($kind:ident $name:literal $about:literal,)*) => {
        /// A kind of fault, as `--faults` names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $(#[doc = $about] $kind,)*
        }

        impl FaultKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What it does.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$kind => $about,)* }
            }
        }
    };
}

fault_kinds! {
    Pause "pause" "a process stands still for a while",
    Crash "crash" "a process dies and starts again; its peers are told",
    Power "power" "a machine loses power and starts again; nobody is told",
    Jump "jump" "a wall clock jumps",
    Freeze "freeze" "a monotonic clock stands still (breaks the drift bound)",
    Step "step" "a monotonic clock leaps ahead (breaks the drift bound)",
    Drift "drift" "a clock runs at another rate, within the declared bound",
    Delay "delay" "what is sent one way takes longer",
    Stall "stall" "what is sent one way arrives late, all at once",
    Drop "drop" "messages are lost",
    Reset "reset" "a connection breaks",
    HalfOpen "half-open" "a connection breaks and one end is not told",
    Storm "storm" "all connections of a node break at one time",
    Refuse "refuse" "a node takes no new connections",
    Isolate "isolate" "a node is cut off",
    Partition "partition" "the network falls in two, in one direction or both",
    SlowReader "slow-reader" "a process reads little and rarely",
    Stop "stop" "a server stops in good order and starts again",
}

impl std::str::FromStr for FaultKind {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, UnknownFault> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownFault(name.to_owned()))
    }
}

/// There is no such kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no fault `{0}`; there are: swarm, none, {names}", names = names())]
pub struct UnknownFault(String);

fn names() -> String {
    let names: Vec<&str> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
    names.join(", ")
}

/// A set of kinds of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(u32);

impl FaultSet {
    /// No fault.
    pub const NONE: Self = Self(0);
    /// Every kind.
    pub const ALL: Self = Self((1 << FaultKind::ALL.len()) - 1);

    /// This set with `kind`.
    #[must_use]
    pub const fn with(self, kind: FaultKind) -> Self {
        Self(self.0 | 1 << kind as u32)
    }

    /// This set without `kind`.
    #[must_use]
    pub const fn without(self, kind: FaultKind) -> Self {
        Self(self.0 & !(1 << kind as u32))
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether `kind` is in it.
    #[must_use]
    pub const fn has(self, kind: FaultKind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }

    /// What is in it.
    pub fn iter(self) -> impl Iterator<Item = FaultKind> {
        FaultKind::ALL
            .iter()
            .copied()
            .filter(move |kind| self.has(*kind))
    }

    /// These kinds.
    #[must_use]
    pub fn of(kinds: &[FaultKind]) -> Self {
        kinds.iter().fold(Self::NONE, |set, kind| set.with(*kind))
    }
}

impl std::str::FromStr for FaultSet {
    type Err = UnknownFault;

    /// `swarm`, `none`, or kinds separated by commas.
    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        match text {
            "swarm" => Ok(Self::ALL),
            "none" => Ok(Self::NONE),
            kinds => kinds
                .split(',')
                .try_fold(Self::NONE, |set, kind| Ok(set.with(kind.trim().parse()?))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_faults_is_read_from_its_names() {
        let set: FaultSet = "pause, jump".parse().unwrap();
        assert_eq!(set, FaultSet::of(&[FaultKind::Pause, FaultKind::Jump]));
        assert_eq!("swarm".parse(), Ok(FaultSet::ALL));
        assert_eq!("none".parse(), Ok(FaultSet::NONE));
        let error = "pause,jmup".parse::<FaultSet>().unwrap_err().to_string();
        assert!(
            error.contains("`jmup`") && error.contains("slow-reader"),
            "{error}"
        );
    }
}

//! What happened in a run, for eyes: recorded only when asked for.

mod chrome;
mod columns;
mod html;
mod spans;

pub use chrome::chrome;
pub use columns::columns;
pub use html::html;

use crate::plan::fault::NodeId;

/// What happened, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The nodes' names.
    pub lanes: Vec<String>,
    /// What happened.
    pub entries: Vec<Entry>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, in true time.
    pub at_ns: u64,
    /// To whom.
    pub node: NodeId,
    /// What kind of thing.
    pub kind: Kind,
    /// Which operation it belongs to.
    pub op: Option<u32>,
    /// Which key it is about.
    pub key: Option<u32>,
    /// What.
    pub text: String,
}

/// Kinds of things that happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client asks for something.
    Ask,
    /// A holder begins to believe that it holds.
    Hold,
    /// A holder stops believing that it holds.
    Unhold,
    /// The broker begins to consider a request held.
    Grant,
    /// The broker stops considering a request held.
    Ungrant,
    /// The length of a key's queue at the broker.
    Queue,
    /// Something else that a client was told.
    Told,
    /// A message was sent.
    Send,
    /// A message arrived.
    Receive,
    /// A timer was due.
    Timer,
    /// A fault began.
    Fault,
    /// A process started, or started again.
    Start,
    /// A property was broken.
    Violation,
}

impl Kind {
    /// Its name in a column.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Hold => "HOLD",
            Self::Unhold => "END",
            Self::Grant => "grant",
            Self::Ungrant => "ungrant",
            Self::Queue => "queue",
            Self::Told => "told",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Timer => "timer",
            Self::Fault => "FAULT",
            Self::Start => "start",
            Self::Violation => "BROKEN",
        }
    }
}

/// A recorder that costs a branch when it is off.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Option<Box<Trace>>);

impl Recorder {
    pub(crate) fn new(lanes: Option<Vec<String>>) -> Self {
        Self(lanes.map(|lanes| {
            Box::new(Trace {
                lanes,
                entries: Vec::new(),
            })
        }))
    }

    /// Whether anything is recorded.
    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records what `entry` makes, if anything is recorded at all.
    #[inline]
    pub(crate) fn record(&mut self, entry: impl FnOnce() -> Entry) {
        if let Some(trace) = &mut self.0 {
            trace.entries.push(entry());
        }
    }

    pub(crate) fn finish(self) -> Option<Trace> {
        self.0.map(|trace| *trace)
    }
}

/// Shows nanoseconds as seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}.{:06} s",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000 / 1_000
        )
    }
}

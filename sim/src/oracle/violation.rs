//! What was broken, and when.

use std::any::Any;

macro_rules! properties {
    ($($property:ident $name:literal $about:literal,)*) => {
        /// A property that a lock service must have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Property {
            $(#[doc = $about] $property,)*
        }

        impl Property {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$property,)*];

            /// Its short name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$property => $name,)* }
            }

            /// The property in a sentence.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$property => $about,)* }
            }
        }
    };
}

properties! {
    Exclusion "exclusion" "At the broker, the holders of a key are compatible, per mode and capacity.",
    HoldersView "holders-view" "The times in which holders believe to hold never overlap.",
    TokenOrder "token-order" "Fencing tokens strictly increase in the order of grants, across restarts.",
    FencedStore "fenced-store" "A store that checks fencing tokens takes no stale write.",
    Fifo "fifo" "First in, first out: nobody is overtaken beyond the declared bound.",
    LostGrant "lost-grant" "Whoever is first and compatible is granted at that instant.",
    Deadlock "deadlock" "No owner is let wait for itself, in a circle of owners.",
    UnaskedGrant "unasked-grant" "Nothing is granted to one who did not ask, or no longer waits.",
    Orphan "orphan" "No hold, waiter, timer or index entry outlives its reason.",
    EarlyExpiry "early-expiry" "No hold or wait ends before its time.",
    LateExpiry "late-expiry" "No hold or wait outlasts its time.",
    Disconnect "disconnect" "A lost connection frees what it should, when it should, and nothing else.",
    Answer "answer" "One final answer per request, the right one, and the same to a repeat.",
    Notice "notice" "Whoever holds or waits is told what becomes of it: at once, once, and only what is so.",
    Memory "memory" "Memory and buffers stay within their formula.",
    Invariant "invariant" "The state is internally consistent.",
    Node "node" "A node answers for what it was asked, and sends to nodes that there are.",
    Panic "panic" "Nothing panics.",
    Livelock "livelock" "The world goes on: what happens at one instant, and in a run, comes to an end.",
    Liveness "liveness" "After everything has healed, every request is answered in time.",
    Drain "drain" "After everything has healed and ended, nothing is left.",
    Determinism "determinism" "The same seed gives the same run.",
}

/// A property was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub property: Property,
    /// When, in true time.
    pub at_ns: u64,
    /// How.
    pub detail: String,
}

impl Violation {
    /// A violation of `property` at `at_ns`.
    #[must_use]
    pub fn new(property: Property, at_ns: u64, detail: impl Into<String>) -> Self {
        Self {
            property,
            at_ns,
            detail: detail.into(),
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("no text")
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} at {}: {}",
            self.property.name(),
            crate::trace::Seconds(self.at_ns),
            self.detail
        )
    }
}

//! Marks: proof that the rare situations were really reached.
//!
//! A simulator that never gets into the corners passes everything. Each mark names a
//! corner; a run in CI that has not reached all of them fails (after Antithesis'
//! "sometimes assertions").

macro_rules! marks {
    (any { $($any:ident $any_name:literal,)* } lmx { $($lmx:ident $lmx_name:literal,)* }) => {
        /// A rare situation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $(#[doc = $any_name] $any,)*
            $(#[doc = $lmx_name] $lmx,)*
        }

        impl Mark {
            /// All of them: LMX's own world can reach each.
            pub const ALL: &[Self] = &[$(Self::$any,)* $(Self::$lmx,)*];

            /// Those that a run of any protocol can reach.
            pub const ANY: &[Self] = &[$(Self::$any,)*];

            /// The situation in words.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$any => $any_name,)*
                    $(Self::$lmx => $lmx_name,)*
                }
            }
        }
    };
}

marks! {
    any {
        PausedWaiting "a process was paused while it waited for a lock",
        PausedHolding "a process was paused while it held a lock",
        CrashedWaiting "a process crashed while it waited for a lock",
        CrashedHolding "a process crashed while it held a lock",
        ServerCrashed "a server crashed while somebody held or waited",
        ArrivedDead "something arrived at a dead process",
        ResetUnderWay "a connection broke with something under way",
        Stalled "something was stalled and arrived late",
        LateGrant "a grant arrived after its deadline",
    }
    lmx {
        LongQueue "five or more waited for one key",
        InputRefused "the broker did not want to read from a connection",
        ReadSlowly "somebody read a few bytes at a time",
        Cut "bytes that were written together arrived apart",
        WindowFull "a writer had to wait for its reader",
        HalfOpened "a connection broke and one end was not told",
        GivenUp "the broker gave a connection up by itself",
        TakenOver "a session was taken over while its old connection looked alive",
        RestartedFromDisk "a broker started with what its predecessor had made durable",
        BrokerDiedHolding "a broker died while somebody held",
        BrokerStopped "a broker stopped in good order while somebody held",
        RecordSurvived "a write to disk got through although the broker died meanwhile",
        ConnectionRefused "the broker had no room for a connection",
        BrokerBehind "more was due at the broker than one call does",
        SeveralKeys "several keys were granted together",
        CancelledHolding "a request was cancelled that had just been granted",
        CancelledWaiting "a request was cancelled while it waited",
        GrantCrossedCancel "a grant crossed its own cancel on the wire",
        TimedOut "a request waited as long as it may",
        Busy "a request that may not wait was refused",
        DeadlockRefused "a request was refused because it would have closed a circle",
        Expired "a lease ended under its holder",
        Unconfirmed "a holder stopped believing because it heard nothing",
        Revoked "a hold was ended by force",
        SessionLost "a session ended with its holds",
        Reopened "a client ended its session and began another",
        Contended "a holder was told that somebody waits",
        Downgraded "a hold was downgraded",
        Upgraded "a hold was upgraded",
        DialectGranted "a live-mutex client was granted a key",
        DialectRetried "a live-mutex client asked for a lock again",
        DialectRejected "a live-mutex client said that nobody is there for a grant",
        DialectQuestion "a live-mutex client was answered a question",
        FirstReader "the first of several readers locked the writers out",
        ReaderQueued "a reader was told that a writer is in its way",
        CompositeGranted "several keys were granted in live-mutex's own way",
        CompositeQueued "several keys were waited for in live-mutex's own way",
        HostileAnswered "somebody hostile was answered",
    }
}

/// The marks that a run has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u128);

impl Marks {
    /// `mark` was reached.
    pub const fn reach(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u32;
    }

    /// Whether `mark` was reached.
    #[must_use]
    pub const fn has(self, mark: Mark) -> bool {
        self.0 & (1 << mark as u32) != 0
    }

    /// What either has reached.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of `wanted` that were not reached.
    pub fn missing(self, wanted: &[Mark]) -> impl Iterator<Item = Mark> {
        wanted.iter().copied().filter(move |mark| !self.has(*mark))
    }
}

/// Notes that a rare situation was reached, if it was.
macro_rules! sometimes {
    ($marks:expr, $mark:ident) => {
        $marks.reach($crate::marks::Mark::$mark)
    };
    ($marks:expr, $mark:ident, $reached:expr) => {
        if $reached {
            $marks.reach($crate::marks::Mark::$mark);
        }
    };
}

pub(crate) use sometimes;

//! Bugs that can be planted on purpose, to see whether the simulator finds them.
//!
//! Compiled in only under `RUSTFLAGS="--cfg lmx_planted"`, for `lmx-sim mutants`; in every
//! other build [`planted!`] is the literal `false`, and nothing of this is there.

#[cfg(lmx_planted)]
mod switch {
    use core::sync::atomic::{AtomicUsize, Ordering};

    static ACTIVE: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Plants the bug of this name alone; `None` digs out whatever was planted.
    pub fn plant(name: Option<&str>) {
        let place = name.and_then(|name| super::NAMES.iter().position(|other| *other == name));
        ACTIVE.store(place.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Whether this bug is planted.
    pub(crate) fn is_planted(name: &str) -> bool {
        super::NAMES
            .get(ACTIVE.load(Ordering::Relaxed))
            .is_some_and(|active| *active == name)
    }
}

/// An order that is another one in every run: what a map with hash keys of its own shows.
#[cfg(lmx_planted)]
pub(crate) fn in_the_order_of_a_map<T: Eq + core::hash::Hash>(
    values: alloc::vec::Vec<T>,
) -> alloc::vec::Vec<T> {
    extern crate std;
    let set: std::collections::HashSet<T> = values.into_iter().collect();
    set.into_iter().collect()
}

#[cfg(lmx_planted)]
pub(crate) use switch::is_planted;
#[cfg(lmx_planted)]
pub use switch::plant;

/// Whether the bug of this name is planted: never, outside the check that plants it.
macro_rules! planted {
    ($name:literal) => {{
        #[cfg(lmx_planted)]
        let planted = $crate::planted::is_planted($name);
        #[cfg(not(lmx_planted))]
        let planted = false;
        planted
    }};
}

pub(crate) use planted;

/// The names of all bugs that can be planted.
#[cfg(lmx_planted)]
pub const NAMES: &[&str] = &[
    "barge-past-waiters",
    "pass-an-upgrader",
    "grant-in-lock-delay",
    "share-with-exclusive",
    "one-permit-too-many",
    "forget-to-serve",
    "wake-only-one",
    "token-twice",
    "lease-too-long",
    "wait-timer-ends-hold",
    "grant-untold",
    "upgrade-beside-readers",
    "no-lock-delay",
    "several-keys-one-checked",
    "permits-not-returned",
    "upgrade-keeps-token",
    "downgrade-wakes-nobody",
    "two-upgraders-wait",
    "holds-outlive-session",
    "resume-window-ignored",
    "resumed-session-still-ends",
    "lost-session-lives-on",
    "session-slot-leaks",
    "repeat-queues-twice",
    "wait-for-ever",
    "try-waits",
    "reclaim-unchecked",
    "deadlock-unseen",
    "queue-at-the-front",
    "capacity-never-changes",
    "release-anybodys",
    "renew-anybodys",
    "cancel-anybodys",
    "renew-does-nothing",
    "force-ends-one",
    "end-untold",
    "missed-events-stay-missed",
    "no-grace",
    "grace-wakes-nobody",
    "idle-keys-stay",
    "tokens-begin-anew",
    "kept-holds-not-restored",
    "idle-never-noticed",
    "handshake-never-late",
    "room-without-bound",
    "old-connection-ends-new-session",
    "no-window-resumes",
    "goodbye-keeps-holds",
    "release-answered-twice",
    "clock-ahead",
    "count-from-receipt",
    "confirms-too-much",
    "cancel-leaks-grant",
    "no-drift-margin",
    "believes-for-ever",
    "session-bound-ignored",
    "forgets-to-ask-again",
    "forgets-a-release",
    "asks-in-the-order-of-a-map",
    "keeps-the-old-clock",
    "holds-on-without-window",
];

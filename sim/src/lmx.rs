//! LMX itself in the world: `Broker` and `Client` of the core, unchanged, byte by byte.

mod broker;
mod client;
mod conns;
mod dialect;
mod driver;
mod end;
mod hostile;
mod lines;
mod links;
mod net;
mod scripted;
mod swarm;
mod tight;
mod users;

pub use hostile::{Edge, Hostile};
pub use scripted::Script;
pub use tight::Tight;

use serde::{Deserialize, Serialize};

use crate::marks::Mark;
use crate::oracle::ledger::Limits;
use crate::outcome::{Outcome, RunOptions};
use crate::plan::{FaultSet, Plan, SECOND};
use crate::protocol::{AnyProtocol, Contract};

/// LMX: one broker, native clients, live-mutex clients, and others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lmx;

impl Lmx {
    /// The plan that is drawn from these bytes instead of from a seed: for a fuzzer, which
    /// looks for bytes that lead somewhere new.
    #[must_use]
    pub fn plan_of_bytes(bytes: &[u8]) -> Plan {
        swarm::plan_of_bytes(bytes)
    }
}

impl AnyProtocol for Lmx {
    fn name(&self) -> &'static str {
        "lmx"
    }

    fn about(&self) -> &'static str {
        "LMX's own broker and clients, at the level of bytes"
    }

    fn contract(&self) -> Option<Contract> {
        None
    }

    fn marks(&self) -> &'static [Mark] {
        Mark::ALL
    }

    fn plan(&self, seed: u64, faults: FaultSet) -> Plan {
        swarm::plan(seed, faults)
    }

    fn run(&self, plan: &Plan, options: &RunOptions) -> Outcome {
        driver::run(plan, options)
    }
}

/// What LMX's broker and clients are set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Keys that the workload uses, numbered from zero.
    pub keys: u32,
    /// Keys behind those that only readers and writers of live-mutex use.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shared_keys: u32,
    /// What each client is.
    pub clients: Vec<ClientSetup>,
    /// After so much silence the broker takes a connection for lost.
    pub idle_ns_max: u64,
    /// So much time a handshake has.
    pub handshake_ns_max: u64,
    /// Bytes in one frame.
    pub frame_bytes_max: u32,
    /// Bytes queued towards one peer.
    pub output_bytes_max: u32,
    /// How many requests the broker has room for.
    pub requests_max: u32,
    /// Whether the broker remembers across restarts what it must.
    pub durable: bool,
    /// How long the disk takes at most.
    pub disk_ns_max: u64,
    /// How far two clocks may drift apart, in parts per million.
    pub drift_ppm_max: u32,
    /// Whether clocks break that bound: then only fencing is promised.
    pub clocks_break: bool,
    /// Limits that most worlds are far from.
    #[serde(default, skip_serializing_if = "Tight::is_default")]
    pub tight: Tight,
}

impl Setup {
    /// What a request may ask for at most: low limits, which are soon passed, but above what
    /// decent clients ask for.
    fn limits(&self) -> Limits {
        Limits {
            keys_per_request_max: 6,
            // Long enough for keys of several pieces, where frames have room for them.
            key_bytes_max: if self.tight.is_default() { 100 } else { 40 },
            label_bytes_max: 30,
            lease_ns_max: 3_600 * SECOND,
            lock_delay_ns_max: 60 * SECOND,
            requests_max: self.requests_max,
            requests_per_session_max: self.tight.requests_per_session_max,
            connections_max: self.tight.connections_max,
            sessions_max: self.tight.sessions_max,
            keys_max: self.tight.keys_max,
            claims_max: self.tight.claims_max,
            pieces_max: self.tight.pieces_max,
            deadlock_search_max: self.tight.deadlock_search_max,
            name_bytes_max: self.tight.name_bytes_max,
            frame_bytes_max: self.frame_bytes_max,
            token: self.tight.asks_for_token.then_some(tight::TOKEN),
            may_run_out_of_tokens: self.tight.tokens_at_a_time > 0,
        }
    }

    /// Nobody is refused for want of room.
    fn has_room(&self) -> bool {
        let usual = Tight::default();
        self.requests_max >= 100_000
            && self.tight.keys_max == usual.keys_max
            && self.tight.claims_max == usual.claims_max
            && self.tight.pieces_max == usual.pieces_max
            && self.tight.requests_per_session_max == usual.requests_per_session_max
    }

    /// Kept holds with longer leases than this outlive the broker, if any do.
    fn kept_from_ns(&self) -> Option<u64> {
        self.durable.then_some(self.idle_ns_max)
    }
}

/// What a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientSetup {
    /// A native client with this resume window.
    Native {
        /// Zero ends the session with its connection.
        window_ns: u64,
    },
    /// A client of live-mutex, with plain locks and as many of them at a time as its users want.
    Dialect,
    /// A client of live-mutex that follows a longer script, one lock after the other.
    Scripted(Script),
    /// One that does what no decent client does.
    Hostile,
}

/// What a client can ask about the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// The keys in use.
    List,
    /// One key.
    Inspect(u32),
    /// What readers and writers of live-mutex hold beside the key that they name.
    Readers(u32),
    /// The counters.
    Status,
    /// Whether it is there.
    Ping,
}

impl ClientSetup {
    /// Whether it speaks live-mutex's protocol.
    const fn is_dialect(self) -> bool {
        matches!(self, Self::Dialect | Self::Scripted(_))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

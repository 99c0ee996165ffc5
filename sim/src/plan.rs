//! What happens in a run, as data: the workload and the faults.
//!
//! A plan is all of a run's freedom apart from the keyed draws (delays, cuts), so a
//! failure can be written down, cut smaller and pasted into a test.

mod check;
pub mod fault;
pub(crate) mod swarm;

pub use check::{CLIENTS_MAX, DRIFT_PPM_MAX, PlanError, SERVERS_MAX, TIME_NS_MAX};
pub use fault::{Fault, FaultEvent, FaultKind, FaultSet, When};
pub use swarm::Shape;

use serde::{Deserialize, Serialize};

/// One millisecond in the unit of all simulated time.
pub const MS: u64 = 1_000_000;
/// One second in the unit of all simulated time.
pub const SECOND: u64 = 1_000 * MS;

/// A run, written down. All times are nanoseconds of true time since its begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Which protocol; `lmx` for LMX itself.
    pub protocol: String,
    /// The seed of every keyed draw.
    pub seed: u64,
    /// When faults end and the workload stops: from here on everything must drain.
    pub heal_ns: u64,
    /// How the network behaves when nothing is wrong with it.
    pub network: Network,
    /// How far each node's clock is off, in parts per million; servers first.
    pub drifts_ppm: Vec<i32>,
    /// How many clients there are. Servers have the first node numbers.
    pub clients: u16,
    /// What LMX's broker and clients are set to; other protocols have no use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lmx: Option<crate::lmx::Setup>,
    /// What the clients do, in the order of time.
    pub ops: Vec<Op>,
    /// What goes wrong.
    pub faults: Vec<FaultEvent>,
}

impl Plan {
    /// Events in it: operations and faults.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len() + self.faults.len()
    }

    /// Whether nothing happens in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What happens in `other` happens after all of this, with numbers of its own.
    pub fn append(&mut self, other: &Self) {
        let (ids, from_ns) = (self.ops_bound() as u32, self.heal_ns);
        self.ops.extend(other.ops.iter().map(|op| Op {
            id: ids + op.id,
            at_ns: from_ns + op.at_ns,
            ..op.clone()
        }));
        self.faults.extend(other.faults.iter().map(|event| {
            let when = match event.when {
                When::At(at_ns) => When::At(from_ns + at_ns),
                When::Asked { op, after_ns } => When::Asked {
                    op: ids + op,
                    after_ns,
                },
                When::Granted { op, after_ns } => When::Granted {
                    op: ids + op,
                    after_ns,
                },
                When::Released { op, after_ns } => When::Released {
                    op: ids + op,
                    after_ns,
                },
            };
            FaultEvent { when, ..*event }
        }));
        self.heal_ns += other.heal_ns;
        self.clients = self.clients.max(other.clients);
    }

    /// What it asks for, in the order of time.
    pub fn locks(&self) -> impl Iterator<Item = &Lock> {
        self.ops.iter().filter_map(|op| match &op.action {
            Action::Lock(lock) => Some(lock),
            _ => None,
        })
    }

    /// One more than the largest operation's number.
    #[must_use]
    pub fn ops_bound(&self) -> usize {
        self.ops
            .iter()
            .map(|op| op.id as usize + 1)
            .max()
            .unwrap_or(0)
    }

    /// Reads a plan from JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where: it is no plan, or not one that can be run.
    pub fn from_json(text: &str) -> Result<Self, PlanError> {
        let mut plan: Self = serde_json::from_str(text)?;
        plan.check()?;
        plan.ops.sort_by_key(|op| (op.at_ns, op.id));
        Ok(plan)
    }

    /// Writes it as JSON: one line for each operation and fault.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut head = self.clone();
        let (ops, faults) = (
            std::mem::take(&mut head.ops),
            std::mem::take(&mut head.faults),
        );
        let head = serde_json::to_string(&head).expect("a plan is always JSON");
        let head = head
            .strip_suffix("\"ops\":[],\"faults\":[]}")
            .expect("these fields stand last");
        format!(
            "{head}\n\"ops\":[{}],\n\"faults\":[{}]}}\n",
            lines(&ops),
            lines(&faults)
        )
    }
}

fn lines<T: Serialize>(items: &[T]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|item| "\n  ".to_owned() + &serde_json::to_string(item).expect("always JSON"))
        .collect();
    items.join(",")
}

/// How messages and bytes travel in good times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The shortest delay of one way.
    pub delay_ns_min: u64,
    /// The longest delay of one way.
    pub delay_ns_max: u64,
    /// How many of a million are delayed ten times as long.
    pub slow_ppm: u32,
    /// How many of a million chunks of bytes are cut in pieces.
    pub cut_ppm: u32,
    /// Bytes under way in one direction of a connection before its writer must wait.
    pub window_bytes: u32,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            delay_ns_min: MS / 10,
            delay_ns_max: 2 * MS,
            slow_ppm: 0,
            cut_ppm: 0,
            window_bytes: 65_536,
        }
    }
}

/// One thing a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Op {
    /// Its number, which stays its own when other operations are left out.
    pub id: u32,
    /// When.
    pub at_ns: u64,
    /// Which client, counted from zero.
    pub client: u16,
    /// What.
    pub action: Action,
}

/// What a client can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Takes keys, holds them, and gives them back.
    Lock(Lock),
    /// Does what no decent client does.
    Hostile(crate::lmx::Hostile),
    /// Says one line of live-mutex's, over one of its connections: one that is hostile, who
    /// connects if need be.
    Say {
        /// Which connection, by a number of its own.
        on: u8,
        /// What. In it `%7%` stands for the id of operation 7's request.
        line: String,
    },
    /// Ends that connection.
    HangUp {
        /// Which.
        on: u8,
    },
    /// Asks about the broker.
    Query(crate::lmx::Question),
    /// Ends a key's holds, whoever has them.
    ForceKey(u32),
    /// Ends its session and begins a new one.
    Reopen,
}

/// One request for keys, from asking to giving back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The keys, and how each is to be held.
    pub wants: Vec<Want>,
    /// Time to live of the hold; zero for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lease_ns: u64,
    /// Whether the lease is renewed while it is held.
    #[serde(default, skip_serializing_if = "is_false")]
    pub renew: bool,
    /// How long it may wait.
    #[serde(default)]
    pub wait: Wait,
    /// How long it is held, once granted.
    pub hold_ns: u64,
    /// Withdrawn so long after it was asked for, whatever its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_after_ns: Option<u64>,
    /// Converted in the middle of the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convert: Option<Conversion>,
    /// Outlives its session.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep: bool,
    /// Wants to be told when somebody waits.
    #[serde(default, skip_serializing_if = "is_false")]
    pub contended: bool,
    /// On whose behalf; zero for nobody's.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub owner: u32,
    /// Delay after the hold ended by expiry or disconnect.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lock_delay_ns: u64,
    /// Never given back: left to its lease.
    #[serde(default, skip_serializing_if = "is_false")]
    pub abandon: bool,
}

impl Lock {
    /// Takes one key alone.
    #[must_use]
    pub fn exclusive(key: u32, lease_ns: u64, hold_ns: u64) -> Self {
        Self {
            wants: vec![Want {
                key,
                mode: Mode::Exclusive,
            }],
            lease_ns,
            renew: false,
            wait: Wait::Forever,
            hold_ns,
            cancel_after_ns: None,
            convert: None,
            keep: false,
            contended: false,
            owner: 0,
            lock_delay_ns: 0,
            abandon: false,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(b: &bool) -> bool {
    !*b
}

/// One key and how it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Want {
    /// The key's number.
    pub key: u32,
    /// How.
    pub mode: Mode,
}

/// How a key is held. The simulator's own type: its oracle shares none with the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// With other readers.
    Shared,
    /// With others while the permits fit.
    Semaphore {
        /// Permits in all.
        capacity: u32,
        /// Permits taken.
        permits: u32,
    },
}

/// How long a request waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// For ever.
    #[default]
    Forever,
    /// So many nanoseconds.
    For(u64),
    /// Not at all.
    No,
}

/// To what a hold is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conversion {
    /// Exclusive to shared.
    Downgrade,
    /// Shared to exclusive.
    Upgrade,
}

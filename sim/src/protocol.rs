//! Lock protocols as the simulator runs them: yours can be one.
//!
//! A protocol is written *sans-IO*: its servers and clients are state machines that
//! are told what arrived and what time it is, and that say through their [`Context`]
//! what to send, when to be woken, and what the client's user is to be told. It
//! declares in its [`Contract`] what it promises, and the simulator tries to catch it
//! breaking a promise: under the faults that the contract covers, and no others.
//!
//! # How to write one
//!
//! 1. Say what your nodes send each other: the enum [`Protocol::Message`].
//! 2. Write the [`Server`]: what it keeps in memory (itself) and on disk
//!    ([`Server::Disk`]), and what it does about each message and timer.
//! 3. Write the [`Client`]: [`acquire`](Client::acquire) begins to get a lock, and some
//!    later call ends in [`Context::granted`] or [`Context::refused`];
//!    [`release`](Client::release) gives it back.
//! 4. Choose a contract. When in doubt promise much and see what is said to that.
//! 5. Call [`cli::main_with`](crate::cli::main_with) in a `main` of your own. That program
//!    is the command `lmx-sim` with your protocol in it: `run`, `minimise`, `trace`.
//!
//! `sim/examples/restart_lock.rs` in the repository is a whole one to copy, broken and
//! repaired, with its tests; [`corpus`](crate::corpus) has more.
//!
//! # What happens to nodes
//!
//! | what | how a node learns of it |
//! |---|---|
//! | its process starts, or starts again after a crash | [`Protocol::server`] or [`Protocol::client`] makes a new one; then `start`. Of the old one only the disk is left; its users are gone |
//! | a message arrives | `handle_message`: once, in the order in which its peer sent; late, or never |
//! | a timer is due | `handle_timer`, with the name under which it was set. A crash forgets all timers |
//! | the connection with a peer broke, or the peer died | `handle_reset`, if anybody tells it: messages under way are lost either way |
//! | its process stands still | not at all: when it goes on, what had arrived and what was due comes at once |
//! | its clock drifts, and leaps if the contract covers that | not at all |
//!
//! The nodes are numbered, servers first from 0, then clients. Anybody may send to
//! anybody. Each call of a node must return: one that loops for ever holds up the whole
//! simulator, which can then only be ended. A client has one user per ticket, and tickets differ over the whole run. A user
//! uses the lock for as long as it likes and does not look at the clock again, unless it is
//! told by [`Context::lost`]; what its grant promised (`good_until_ns`) is what the
//! contract is judged by.
//!
//! # What is judged
//!
//! | property | when it is broken |
//! |---|---|
//! | `holders-view` | two users believe to hold a key at one (true) instant, and not both shared: from [`granted`](Context::granted) until the release, [`lost`](Context::lost), or the deadline of the grant |
//! | `token-order` | a token that another grant has on that key, unless both are shared; one that is not larger than one that had been told before this one was asked for; and, where holds exclude each other (not under [`Exclusion::FencedOnly`]), one that is told before the deadline of its grant and is smaller than one that was told earlier (shared ones are compared with those that are not) |
//! | `fenced-store` | a store that refuses smaller tokens takes a write of an earlier holder after a later one's |
//! | `fifo` | a request that was [`queued`](Context::queued) is overtaken more often than the contract allows |
//! | `liveness` | all is well again, and a request has no answer in the contract's time |
//! | `node` | a node answers for what it was not asked, or sends to a node that there is not |
//! | `livelock` | one instant, or the run, has events beyond any measure (some 20,000 and 2,000,000, and more for large plans). Nodes that keep each other busy are let be: the run ends when the faults are over and every request is answered |
//! | `panic` | a node panics: assert what you like. The run ends there, with the node's name and a trace |
//!
//! # The smallest one
//!
//! ```
//! use lmx_sim::protocol::{Client, Context, Contract, Exclusion, Grant, NodeId, Protocol, Request, Server};
//! use lmx_sim::plan::Plan;
//!
//! /// The first who asks gets the lock, for ever.
//! struct Greedy;
//! #[derive(Clone, Copy, Debug, Hash)]
//! enum Message { Ask(u32), Give(u32) }
//! #[derive(Default)]
//! struct GreedyServer { taken: bool }
//! struct GreedyClient;
//!
//! impl Server<Message> for GreedyServer {
//!     type Disk = ();
//!     fn start(&mut self, _: &mut Context<'_, Message>, _: &mut ()) {}
//!     fn handle_message(&mut self, cx: &mut Context<'_, Message>, _: &mut (), from: NodeId, message: Message) {
//!         if let Message::Ask(ticket) = message && !self.taken {
//!             self.taken = true;
//!             cx.send(from, Message::Give(ticket));
//!         }
//!     }
//! }
//!
//! impl Client<Message> for GreedyClient {
//!     fn acquire(&mut self, cx: &mut Context<'_, Message>, request: Request) {
//!         cx.send(0, Message::Ask(request.ticket));
//!     }
//!     fn release(&mut self, _: &mut Context<'_, Message>, _: u32) {}
//!     fn handle_message(&mut self, cx: &mut Context<'_, Message>, _: NodeId, message: Message) {
//!         if let Message::Give(ticket) = message {
//!             cx.granted(ticket, Grant::default());
//!         }
//!     }
//! }
//!
//! impl Protocol for Greedy {
//!     type Message = Message;
//!     type Server = GreedyServer;
//!     type Client = GreedyClient;
//!     fn name(&self) -> &str { "greedy" }
//!     fn about(&self) -> &str { "never gives a lock back" }
//!     fn contract(&self) -> Contract { Contract::new(Exclusion::Strict) }
//!     fn server(&self, _: NodeId) -> GreedyServer { GreedyServer::default() }
//!     fn client(&self, _: NodeId) -> GreedyClient { GreedyClient }
//! }
//!
//! let seed = 1;
//! let plan = Plan::swarm("greedy", seed, &lmx_sim::protocol::shape(&Greedy));
//! let outcome = lmx_sim::protocol::run(&Greedy, &plan, &lmx_sim::RunOptions::default());
//! assert_eq!(outcome.violation.unwrap().property.name(), "liveness");
//! ```

mod any;
mod driver;
pub mod external;
mod name;
mod timers;
mod told;
mod ways;

pub use any::AnyProtocol;
pub use driver::run;
pub(crate) use name::check_name;

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

pub use crate::plan::fault::NodeId;
use crate::plan::{DRIFT_PPM_MAX, FaultKind, FaultSet, SERVERS_MAX, Shape};
use crate::rng::Draws;

/// A lock protocol.
pub trait Protocol {
    /// What its nodes say to each other; mostly an enum. It is shown in traces, and hashed
    /// into the run's hash, which shows that a run was the same.
    type Message: Clone + fmt::Debug + Hash;
    /// A server.
    type Server: Server<Self::Message>;
    /// A client.
    type Client: Client<Self::Message>;

    /// Its name on the command line and in plans: letters, digits, `-`, `_` and `.`, not
    /// ending in `.json`; and not one that another protocol has.
    fn name(&self) -> &str;

    /// What it is, in a line.
    fn about(&self) -> &str;

    /// What it promises.
    fn contract(&self) -> Contract;

    /// How many servers it has: 1 to 32, so that a set of nodes in a plan, which has 64 bits,
    /// can have all of them and the clients.
    fn servers(&self) -> u16 {
        1
    }

    /// Whether it knows shared (read) holds.
    fn shared(&self) -> bool {
        false
    }

    /// The lease its clients are asked to take ([`Request::lease_ns`]). Locks are held for a
    /// quarter of it at the most, unless the protocol renews; faults last about so long. From
    /// a millisecond to a day.
    fn lease(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Whether its clients renew leases: then locks are held for longer than those last.
    fn renews(&self) -> bool {
        false
    }

    /// A server's process as it is before it starts: at first, and after each crash. What
    /// survives a crash is in [`Server::Disk`], which [`Server::start`] is given.
    fn server(&self, id: NodeId) -> Self::Server;

    /// A client's process as it is before it starts: at first, and after each crash.
    /// Clients have no disk, and nobody waits any more for what the old one was asked.
    fn client(&self, id: NodeId) -> Self::Client;
}

/// A server of a protocol.
pub trait Server<M> {
    /// What survives a crash. What is written to it is durable at once.
    type Disk: Default;

    /// The process starts, with what the disk kept.
    fn start(&mut self, cx: &mut Context<'_, M>, disk: &mut Self::Disk);

    /// A message has arrived.
    fn handle_message(
        &mut self,
        cx: &mut Context<'_, M>,
        disk: &mut Self::Disk,
        from: NodeId,
        message: M,
    );

    /// The timer set as `timer` is due.
    fn handle_timer(&mut self, cx: &mut Context<'_, M>, disk: &mut Self::Disk, timer: u64) {
        let _ = (cx, disk, timer);
    }

    /// The connection with a peer broke: what was under way is lost.
    fn handle_reset(&mut self, cx: &mut Context<'_, M>, disk: &mut Self::Disk, peer: NodeId) {
        let _ = (cx, disk, peer);
    }
}

/// A client of a protocol.
pub trait Client<M> {
    /// The process starts.
    fn start(&mut self, cx: &mut Context<'_, M>) {
        let _ = cx;
    }

    /// The user wants a lock. [`Context::granted`] or [`Context::refused`] answers, in this
    /// call or any later one. Requests may overlap, for one key, too.
    fn acquire(&mut self, cx: &mut Context<'_, M>, request: Request);

    /// The user has finished with a lock it was granted, and was not told that it lost it
    /// ([`Context::lost`]). It does not touch what the lock protects from here on. Nothing
    /// is to be answered.
    fn release(&mut self, cx: &mut Context<'_, M>, ticket: u32);

    /// A message has arrived.
    fn handle_message(&mut self, cx: &mut Context<'_, M>, from: NodeId, message: M);

    /// The timer set as `timer` is due.
    fn handle_timer(&mut self, cx: &mut Context<'_, M>, timer: u64) {
        let _ = (cx, timer);
    }

    /// The connection with a peer broke: what was under way is lost.
    fn handle_reset(&mut self, cx: &mut Context<'_, M>, peer: NodeId) {
        let _ = (cx, peer);
    }
}

/// What a client is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The name under which the client tells of it; no two requests of a run share one.
    pub ticket: u32,
    /// Which lock.
    pub key: u32,
    /// Whether others may share it.
    pub shared: bool,
    /// Its time to live.
    pub lease_ns: u64,
}

/// What a client got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Until when it may be relied on, on the client's monotonic clock
    /// ([`Context::now_ns`]); `None`, or a time that no run reaches, such as [`u64::MAX`]:
    /// until it is given back.
    pub good_until_ns: Option<u64>,
    /// Its fencing token, if the protocol has such: a number from 0 on that no other grant
    /// on this key has (shared ones may share it), and that is larger for whoever was
    /// granted later. When a grant was given is not seen, only when it was told, so tokens
    /// are compared where no delay can explain their order. Such are those of a grant that
    /// had been told and one that was asked for after that. Unless the contract is
    /// [`Exclusion::FencedOnly`], such are also those of a grant told before its own deadline
    /// ([`Exclusion::Strict`]: with time left for all of the hold) and any that was told
    /// earlier, but for two shared ones.
    pub token: Option<u64>,
}

/// What a protocol promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Who can believe to hold at one time.
    pub exclusion: Exclusion,
    /// How often a request that was acknowledged as queued can be overtaken by later
    /// ones, while nothing is wrong; `None` promises nothing.
    pub bypass_max: Option<u32>,
    /// Once everything has healed, every request is answered within this time, and
    /// that of the holds before it; `None` promises nothing.
    pub liveness: Option<Duration>,
}

impl Contract {
    /// `exclusion`, no order, and liveness within a minute.
    #[must_use]
    pub const fn new(exclusion: Exclusion) -> Self {
        Self {
            exclusion,
            bypass_max: None,
            liveness: Some(Duration::from_mins(1)),
        }
    }

    /// The faults under which this must be kept. A promise that depends on clocks
    /// says nothing about clocks that break their bound.
    #[must_use]
    pub const fn faults(&self) -> FaultSet {
        match self.exclusion {
            Exclusion::Strict | Exclusion::FencedOnly => FaultSet::ALL,
            Exclusion::UnderDrift { .. } => FaultSet::ALL
                .without(FaultKind::Freeze)
                .without(FaultKind::Step),
        }
    }
}

/// Who can believe to hold at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// From its grant until its release nobody else holds, whatever happens. The user
    /// looks at the deadline once, before it begins.
    Strict,
    /// The same, until the deadline of the grant at most, while no monotonic clock is
    /// off by more than this.
    UnderDrift {
        /// Parts per million; half a million at most.
        ppm: u32,
    },
    /// Several may believe to hold, but their tokens increase in the order of their
    /// grants, so that a store which refuses smaller tokens takes no stale write.
    FencedOnly,
}

impl Exclusion {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict exclusion",
            Self::UnderDrift { .. } => "exclusion under a drift bound",
            Self::FencedOnly => "fenced only",
        }
    }
}

/// Why a protocol cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot be run: {what} is {is}, and would have to be {right}")]
pub struct Unfit {
    name: String,
    what: &'static str,
    is: String,
    right: String,
}

/// Whether a protocol is one that can be run.
///
/// # Errors
///
/// What of it cannot be, and what would be right.
pub fn check(protocol: &impl Protocol) -> Result<(), Unfit> {
    let unfit = |what, is: String, right: String| {
        let name = protocol.name().to_owned();
        Err(Unfit {
            name,
            what,
            is,
            right,
        })
    };
    let servers = protocol.servers();
    if !(1..=SERVERS_MAX).contains(&servers) {
        let right = format!("1 to {SERVERS_MAX}");
        return unfit("`servers`", servers.to_string(), right);
    }
    let lease = protocol.lease();
    if !(LEASE_MIN..=LEASE_MAX).contains(&lease) {
        let right = format!("{LEASE_MIN:?} to {LEASE_MAX:?}");
        return unfit("`lease`", format!("{lease:?}"), right);
    }
    if let Exclusion::UnderDrift { ppm } = protocol.contract().exclusion
        && ppm > DRIFT_PPM_MAX
    {
        let right = format!("{DRIFT_PPM_MAX} at most");
        return unfit("the drift bound of its `contract`", ppm.to_string(), right);
    }
    Ok(())
}

fn assert_fit(protocol: &impl Protocol) {
    if let Err(unfit) = check(protocol) {
        panic!("{unfit}");
    }
}

/// What faults last and holds take is drawn from the lease.
const LEASE_MIN: Duration = Duration::from_millis(1);
/// Some hundred holds of three leases each are a year, and a run has no more time.
const LEASE_MAX: Duration = Duration::from_hours(24);

/// The plans that suit a protocol: its size, and the faults its contract covers.
///
/// # Panics
///
/// When [`check`] says that the protocol cannot be run.
#[must_use]
pub fn shape(protocol: &impl Protocol) -> Shape {
    assert_fit(protocol);
    let contract = protocol.contract();
    let lease_ns = u64::try_from(protocol.lease().as_nanos()).unwrap_or(u64::MAX);
    Shape {
        servers: protocol.servers(),
        shared: protocol.shared(),
        lease_ns,
        hold_ns_max: if protocol.renews() {
            3 * lease_ns
        } else {
            lease_ns / 4
        },
        drift_ppm_max: match contract.exclusion {
            Exclusion::UnderDrift { ppm } => ppm,
            _ => 300,
        },
        // These are about connections as byte streams, and are the same as others here.
        faults: contract
            .faults()
            .without(FaultKind::SlowReader)
            .without(FaultKind::Refuse),
        ops_max: 120,
    }
}

/// What a node sees of the world, and how it acts on it.
#[derive(Debug)]
pub struct Context<'a, M> {
    me: NodeId,
    servers: u16,
    now_ns: u64,
    wall_ns: u64,
    draws: Draws,
    effects: &'a mut Vec<Effect<M>>,
}

/// What a node asked for.
#[derive(Clone, Debug)]
pub(crate) enum Effect<M> {
    Send {
        to: NodeId,
        message: M,
    },
    SetTimer {
        timer: u64,
        at_ns: u64,
    },
    CancelTimer {
        timer: u64,
    },
    Queued {
        ticket: u32,
    },
    Granted {
        ticket: u32,
        grant: Grant,
    },
    Extended {
        ticket: u32,
        good_until_ns: u64,
    },
    Lost {
        ticket: u32,
    },
    Refused {
        ticket: u32,
    },
    /// The node does not do as nodes do.
    Broken {
        how: String,
    },
}

impl<M> Context<'_, M> {
    /// This node.
    #[must_use]
    pub const fn me(&self) -> NodeId {
        self.me
    }

    /// The servers.
    pub fn servers(&self) -> impl Iterator<Item = NodeId> + use<M> {
        0..self.servers
    }

    /// The monotonic clock: it drifts, and nothing else while its bound holds. Timers
    /// run on it.
    #[must_use]
    pub const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The wall clock, which may jump either way at any time.
    #[must_use]
    pub const fn wall_ns(&self) -> u64 {
        self.wall_ns
    }

    /// Randomness: the same at every replay. `n` should mean something (a ticket, a
    /// counter), so that it is the same again in a smaller plan.
    #[must_use]
    pub const fn draw(&self, n: u64, bound: u64) -> u64 {
        self.draws.below(n, bound)
    }

    /// Sends a message. It arrives once, in order, late, or never.
    pub fn send(&mut self, to: NodeId, message: M) {
        self.effects.push(Effect::Send { to, message });
    }

    /// Wakes this node when its monotonic clock shows `at_ns`; replaces the timer of
    /// the same name. A time that no run reaches, such as [`u64::MAX`], is never.
    pub fn set_timer(&mut self, timer: u64, at_ns: u64) {
        self.effects.push(Effect::SetTimer { timer, at_ns });
    }

    /// Forgets the timer.
    pub fn cancel_timer(&mut self, timer: u64) {
        self.effects.push(Effect::CancelTimer { timer });
    }

    /// Tells the user that the request waits in a queue. A protocol that promises an
    /// order is held to it from here on.
    pub fn queued(&mut self, ticket: u32) {
        self.effects.push(Effect::Queued { ticket });
    }

    /// Tells the user that it holds the lock.
    pub fn granted(&mut self, ticket: u32, grant: Grant) {
        self.effects.push(Effect::Granted { ticket, grant });
    }

    /// Tells the user that its hold is good for longer.
    pub fn extended(&mut self, ticket: u32, good_until_ns: u64) {
        self.effects.push(Effect::Extended {
            ticket,
            good_until_ns,
        });
    }

    /// Tells the user that it holds no longer. It stops at once, and releases nothing.
    pub fn lost(&mut self, ticket: u32) {
        self.effects.push(Effect::Lost { ticket });
    }

    /// This node is not what it should be, whatever its protocol is.
    pub(crate) fn broken(&mut self, how: String) {
        self.effects.push(Effect::Broken { how });
    }

    /// Tells the user that it does not get the lock.
    pub fn refused(&mut self, ticket: u32) {
        self.effects.push(Effect::Refused { ticket });
    }
}

//! A lock protocol of one's own in the simulator: copy this file and change it.
//!
//! One server lends locks for a lease and keeps its table in memory. When it crashes it
//! forgets who holds what: if it grants again at once, two clients hold one lock. The
//! repaired twin stays quiet for a lease after each start; by then whoever held has stopped.
//!
//! ```text
//! cargo run -p lmx-sim --example restart_lock -- run
//! cargo run -p lmx-sim --example restart_lock -- minimise 3 -o min.json
//! cargo run -p lmx-sim --example restart_lock -- run -p patient-lock --seeds 0..1000
//! ```
//!
//! `cargo test -p lmx-sim --example restart_lock` convicts the one and acquits the other.

use std::process::ExitCode;

use lmx_sim::protocol::{
    Client, Context, Contract, Exclusion, Grant, NodeId, Protocol, Request, Server,
};

const MS: u64 = 1_000_000;
/// How far any clock may be off.
const PPM: u32 = 1_000;
/// A client asks again when nothing has come for so long.
const PATIENCE_NS: u64 = 200 * MS;

/// The broken one: `lmx-sim` convicts it.
static HASTY: RestartLock = RestartLock { is_patient: false };
/// Its repaired twin.
static PATIENT: RestartLock = RestartLock { is_patient: true };

/// This program is the command `lmx-sim` with these two in it.
fn main() -> ExitCode {
    lmx_sim::cli::main_with(&[&HASTY, &PATIENT])
}

struct RestartLock {
    is_patient: bool,
}

impl Protocol for RestartLock {
    type Message = Message;
    type Server = LockServer;
    type Client = LockClient;

    fn name(&self) -> &str {
        if self.is_patient {
            "patient-lock"
        } else {
            "hasty-lock"
        }
    }

    fn about(&self) -> &'static str {
        "a lock server that remembers nothing"
    }

    /// Nobody else believes to hold until the holder's deadline has passed, on clocks that
    /// keep their bound; every request is answered within a minute once all is well. No
    /// order is promised.
    fn contract(&self) -> Contract {
        Contract::new(Exclusion::UnderDrift { ppm: PPM })
    }

    fn server(&self, _: NodeId) -> LockServer {
        LockServer {
            is_patient: self.is_patient,
            quiet_until_ns: 0,
            locks: Vec::new(),
        }
    }

    fn client(&self, _: NodeId) -> LockClient {
        LockClient::default()
    }
}

/// Who locks: one attempt of one client. Never the same again, not even after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Owner {
    client: NodeId,
    /// What its clock showed when its process started.
    born_ns: u64,
    attempt: u64,
}

#[derive(Clone, Copy, Debug, Hash)]
enum Message {
    Lock {
        key: u32,
        owner: Owner,
        lease_ns: u64,
    },
    Unlock {
        key: u32,
        owner: Owner,
    },
    Locked(Owner),
    Busy(Owner),
}

struct LockServer {
    is_patient: bool,
    /// Until when it grants nothing.
    quiet_until_ns: u64,
    /// Key, owner, and until when, on the server's clock.
    locks: Vec<(u32, Owner, u64)>,
}

impl Server<Message> for LockServer {
    // It keeps nothing.
    type Disk = ();

    /// Called at the first start and after every crash, on a new `LockServer`.
    fn start(&mut self, cx: &mut Context<'_, Message>, (): &mut ()) {
        if self.is_patient {
            // The longest lease that its predecessor can have granted.
            self.quiet_until_ns = cx.now_ns() + 1_000 * MS;
        }
    }

    fn handle_message(
        &mut self,
        cx: &mut Context<'_, Message>,
        (): &mut (),
        from: NodeId,
        message: Message,
    ) {
        let now_ns = cx.now_ns();
        self.locks.retain(|(_, _, until_ns)| *until_ns > now_ns);
        match message {
            Message::Lock {
                key,
                owner,
                lease_ns,
            } => {
                let taken = self.locks.iter().any(|(locked, ..)| *locked == key);
                if taken || now_ns < self.quiet_until_ns {
                    cx.send(from, Message::Busy(owner));
                } else {
                    self.locks.push((key, owner, now_ns + lease_ns));
                    cx.send(from, Message::Locked(owner));
                }
            }
            Message::Unlock { key, owner } => {
                self.locks
                    .retain(|(locked, by, _)| (*locked, *by) != (key, owner));
            }
            Message::Locked(_) | Message::Busy(_) => {}
        }
    }
}

#[derive(Default)]
struct LockClient {
    born_ns: u64,
    attempts: u64,
    asks: Vec<Ask>,
}

/// What its user has asked for and not given back.
struct Ask {
    request: Request,
    owner: Owner,
    sent_ns: u64,
    is_held: bool,
}

impl LockClient {
    /// Asks the server, and again later if nothing comes of it.
    fn attempt(&mut self, cx: &mut Context<'_, Message>, request: Request) {
        self.attempts += 1;
        let owner = Owner {
            client: cx.me(),
            born_ns: self.born_ns,
            attempt: self.attempts,
        };
        self.asks.retain(|ask| ask.request.ticket != request.ticket);
        self.asks.push(Ask {
            request,
            owner,
            sent_ns: cx.now_ns(),
            is_held: false,
        });
        let message = Message::Lock {
            key: request.key,
            owner,
            lease_ns: request.lease_ns,
        };
        cx.send(0, message);
        cx.set_timer(u64::from(request.ticket), cx.now_ns() + PATIENCE_NS);
    }
}

impl Client<Message> for LockClient {
    fn start(&mut self, cx: &mut Context<'_, Message>) {
        self.born_ns = cx.now_ns();
    }

    fn acquire(&mut self, cx: &mut Context<'_, Message>, request: Request) {
        self.attempt(cx, request);
    }

    fn release(&mut self, cx: &mut Context<'_, Message>, ticket: u32) {
        if let Some(place) = self
            .asks
            .iter()
            .position(|ask| ask.request.ticket == ticket)
        {
            let Ask { request, owner, .. } = self.asks.swap_remove(place);
            let key = request.key;
            cx.send(0, Message::Unlock { key, owner });
        }
    }

    fn handle_message(&mut self, cx: &mut Context<'_, Message>, _: NodeId, message: Message) {
        let (Message::Locked(owner) | Message::Busy(owner)) = message else {
            return;
        };
        // What answers an earlier attempt is of no use: that lock ends with its lease.
        let Some(ask) = self
            .asks
            .iter_mut()
            .find(|ask| ask.owner == owner && !ask.is_held)
        else {
            return;
        };
        let Request {
            ticket, lease_ns, ..
        } = ask.request;
        if let Message::Busy(_) = message {
            let pause_ns = 10 * MS + cx.draw(owner.attempt, 40 * MS);
            cx.set_timer(u64::from(ticket), cx.now_ns() + pause_ns);
            return;
        }
        ask.is_held = true;
        cx.cancel_timer(u64::from(ticket));
        // Counted from when it was sent: the server's lease began later than that. Both
        // clocks may be off.
        let margin_ns = lease_ns / 1_000_000 * 2 * u64::from(PPM);
        let grant = Grant {
            good_until_ns: Some(ask.sent_ns + lease_ns - margin_ns),
            token: None,
        };
        cx.granted(ticket, grant);
    }

    fn handle_timer(&mut self, cx: &mut Context<'_, Message>, timer: u64) {
        let ask = self
            .asks
            .iter()
            .find(|ask| u64::from(ask.request.ticket) == timer && !ask.is_held);
        if let Some(request) = ask.map(|ask| ask.request) {
            self.attempt(cx, request);
        }
    }
}

#[cfg(test)]
mod tests {
    use lmx_sim::minimise::{minimise, same_failure};
    use lmx_sim::plan::FaultSet;
    use lmx_sim::protocol::AnyProtocol as _;
    use lmx_sim::{Property, RunOptions};

    use super::{HASTY, PATIENT};

    #[test]
    fn who_grants_at_once_after_a_crash_is_convicted() {
        let options = RunOptions::default();
        let fails = |plan: &_| same_failure(&HASTY.run(plan, &options), Property::HoldersView);
        let plan = (0..1_000)
            .map(|seed| HASTY.plan(seed, FaultSet::ALL))
            .find(&fails)
            .expect("some seed convicts it");
        let (small, _) = minimise(&plan, fails);
        assert!(small.len() <= 6, "{}", small.to_json());
    }

    #[test]
    fn who_waits_for_a_lease_is_acquitted() {
        for seed in 0..500 {
            let plan = PATIENT.plan(seed, FaultSet::ALL);
            let outcome = PATIENT.run(&plan, &RunOptions::default());
            assert_eq!(outcome.violation, None, "seed {seed}");
        }
    }
}

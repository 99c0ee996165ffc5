//! The users of a lock: what became of what they asked for, and what they believe and do
//! meanwhile.

use super::Engine;
use crate::marks::sometimes;
use crate::oracle::{Hold, Misordered, Property, Told};
use crate::plan::fault::NodeId;
use crate::plan::{Action, Lock, Mode};
use crate::trace::{Kind, Seconds};
use crate::world::Stage;

/// How far an operation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Not asked for yet.
    #[default]
    Idle,
    Waiting,
    Holding,
    /// Told that it lost its hold; it may still write what it had begun to write.
    Lost,
    /// Given back or withdrawn, and not yet confirmed.
    Ending,
    Done,
}

/// One operation on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ticket {
    pub(crate) state: State,
    /// Its place in the plan.
    pub(crate) place: u32,
    pub(crate) asked_ns: u64,
    pub(crate) granted_ns: u64,
    pub(crate) token: Option<u64>,
    /// Its token must be larger than this one, which was known when it was asked for.
    floor: Option<u64>,
}

impl Ticket {
    pub(crate) const fn is_open(&self) -> bool {
        !matches!(self.state, State::Idle | State::Done)
    }
}

impl<'p, E: Copy> Engine<'p, E> {
    /// What the ticket's operation asks for.
    pub(crate) fn lock(&self, ticket: Ticket) -> &'p Lock {
        match &self.plan.ops[ticket.place as usize].action {
            Action::Lock(lock) => lock,
            _ => unreachable!("only locks have tickets"),
        }
    }

    /// The first of the operation's keys.
    pub(crate) fn key(&self, op: u32) -> u32 {
        self.lock(self.tickets[op as usize]).wants[0].key
    }

    /// Whose the ticket is.
    pub(crate) fn node_of(&self, ticket: Ticket) -> NodeId {
        self.servers + self.plan.ops[ticket.place as usize].client
    }

    /// A user asks for what the operation at `place` says.
    pub(crate) fn ask(&mut self, place: u32, text: impl FnOnce() -> String) {
        let op = self.plan.ops[place as usize].id;
        let ticket = Ticket {
            state: State::Waiting,
            place,
            asked_ns: self.world.now_ns,
            ..Ticket::default()
        };
        let floor = self.fences.asked(self.lock(ticket).wants[0].key);
        self.tickets[op as usize] = Ticket { floor, ..ticket };
        self.open += 1;
        self.asked += 1;
        self.note_op(self.node_of(ticket), Kind::Ask, op, text);
        self.world.trigger(Stage::Asked, op);
    }

    /// A user learns that it holds, under `token` and until its clock shows
    /// `good_until_ns`. Returns until when that is, in true time.
    pub(crate) fn grant(&mut self, op: u32, token: Option<u64>, good_until_ns: Option<u64>) -> u64 {
        let now_ns = self.world.now_ns;
        let ticket = self.tickets[op as usize];
        let node = self.node_of(ticket);
        let until_ns = self.true_deadline_ns(node, good_until_ns);
        sometimes!(self.marks, LateGrant, until_ns <= now_ns);
        self.granted += 1;
        self.waits_ns.push((self.key(op), now_ns - ticket.asked_ns));
        self.tickets[op as usize] = Ticket {
            state: State::Holding,
            granted_ns: now_ns,
            token,
            ..ticket
        };
        until_ns
    }

    /// Records that a user believes to hold a key until `until_ns`.
    pub(crate) fn note_hold(&mut self, op: u32, key: u32, mode: Mode, until_ns: u64) {
        let now_ns = self.world.now_ns;
        let ticket = self.tickets[op as usize];
        let node = self.node_of(ticket);
        self.note_about(node, Kind::Hold, (Some(op), Some(key)), || {
            let good = if until_ns == u64::MAX {
                "without end".to_owned()
            } else {
                format!("for {}", Seconds(until_ns.saturating_sub(now_ns)))
            };
            let token = ticket
                .token
                .map(|token| format!(", token {token}"))
                .unwrap_or_default();
            format!("{mode:?} {good}{token}")
        });
    }

    /// A user believes to hold from now on: nobody else may.
    pub(crate) fn believe(&mut self, key: u32, hold: Hold) {
        let clash = self.holds.enter(self.world.now_ns, key, hold);
        self.judge_overlap(hold.op, key, clash);
    }

    /// What a user believes about its hold changes: nobody else may hold.
    pub(crate) fn believe_anew(&mut self, key: u32, op: u32, change: impl FnOnce(&mut Hold)) {
        let clash = self.holds.change(self.world.now_ns, key, op, change);
        self.judge_overlap(op, key, clash);
    }

    /// A user's hold is good until another time of its clock, if it is another.
    pub(crate) fn extend(&mut self, key: u32, op: u32, good_until_ns: Option<u64>, until_ns: u64) {
        let now_ns = self.world.now_ns;
        let clash = self.holds.extend(now_ns, key, op, good_until_ns, until_ns);
        self.judge_overlap(op, key, clash);
    }

    fn judge_overlap(&mut self, op: u32, key: u32, clash: Option<Hold>) {
        if let Some(other) = clash {
            let client = |op: u32| self.node_of(self.tickets[op as usize]) - self.servers;
            let detail = format!(
                "client {} (#{op}) and client {} (#{}) both believe to hold k{key}",
                client(op),
                client(other.op),
                other.op
            );
            self.violate(Property::HoldersView, detail);
        }
    }

    /// The user looks at the token it got.
    pub(crate) fn check_token(&mut self, op: u32) {
        self.judge_token(op, false);
    }

    /// The same of a hold that excludes others, and that the user may rely on from now on.
    pub(crate) fn check_token_in_time(&mut self, op: u32) {
        self.judge_token(op, true);
    }

    fn judge_token(&mut self, op: u32, in_time: bool) {
        let ticket = self.tickets[op as usize];
        let want = self.lock(ticket).wants[0];
        let (key, floor) = (want.key, ticket.floor);
        let Some(token) = ticket.token else {
            return;
        };
        let told = Told {
            op,
            token,
            shared: want.mode != Mode::Exclusive,
            floor,
            in_time,
        };
        let Some(wrong) = self.fences.granted(key, told) else {
            return;
        };
        let got = format!("#{op} got token {token} on k{key}");
        let detail = match wrong {
            Misordered::BelowFloor(floor) => {
                format!("{got}, but {floor} had been told before it asked")
            }
            Misordered::Twice(other) => format!("{got}, which #{other} was told already"),
            Misordered::WentDown(earlier) => {
                format!("{got} while that was still good, but {earlier} had been told before")
            }
        };
        self.violate(Property::TokenOrder, detail);
    }

    /// The user writes to what the lock protects, whether it may or not.
    pub(crate) fn write_fenced(&mut self, op: u32) {
        let ticket = self.tickets[op as usize];
        let lock = self.lock(ticket);
        let writes = lock.wants[0].mode == Mode::Exclusive && lock.convert.is_none();
        let Some(token) = ticket.token.filter(|_| writes) else {
            return;
        };
        let key = lock.wants[0].key;
        if self
            .fences
            .write(key, token, ticket.asked_ns, ticket.granted_ns)
        {
            let detail =
                format!("the store of k{key} took a write of #{op} after that of a later holder");
            self.violate(Property::FencedStore, detail);
        }
    }

    /// The user no longer believes that it holds.
    pub(crate) fn unbelieve(&mut self, op: u32, why: &'static str) {
        let ticket = self.tickets[op as usize];
        let node = self.node_of(ticket);
        for want in &self.lock(ticket).wants {
            self.holds.leave(want.key, op);
            self.note_about(node, Kind::Unhold, (Some(op), Some(want.key)), || {
                why.to_owned()
            });
        }
    }

    /// The operation is over, if it was on its way.
    pub(crate) fn close(&mut self, op: u32) {
        let ticket = &mut self.tickets[op as usize];
        if ticket.is_open() {
            ticket.state = State::Done;
            self.open -= 1;
        }
    }

    /// The operations of a node that are on their way.
    pub(crate) fn open_of(&self, node: NodeId) -> Vec<u32> {
        let tickets = self.tickets.iter().enumerate();
        tickets
            .filter(|(_, ticket)| ticket.is_open() && self.node_of(**ticket) == node)
            .map(|(op, _)| op as u32)
            .collect()
    }

    /// A client's process died, and its users with it. Returns the operations that ended so.
    pub(crate) fn crash_users(&mut self, node: NodeId) -> Vec<u32> {
        self.holds.forget(node);
        let ended = self.open_of(node);
        for op in &ended {
            let state = self.tickets[*op as usize].state;
            sometimes!(self.marks, CrashedHolding, state == State::Holding);
            sometimes!(self.marks, CrashedWaiting, state == State::Waiting);
            if state == State::Holding {
                self.note_op(node, Kind::Unhold, *op, || "crashed".to_owned());
            }
            self.close(*op);
        }
        ended
    }

    /// The first operation that is in such a state, in words.
    pub(crate) fn unanswered(&self, is_stuck: impl Fn(&Ticket) -> bool) -> Option<String> {
        let op = self.tickets.iter().position(is_stuck)?;
        let Ticket {
            state, asked_ns, ..
        } = self.tickets[op];
        Some(format!(
            "#{op}, asked for at {}, is still {state:?} although all is well",
            Seconds(asked_ns)
        ))
    }

    /// The same instant of the node's clock in true time, as far as is known now; the end
    /// of time if that clock stands still, or if it is no instant.
    pub(crate) fn true_deadline_ns(&self, node: NodeId, local_ns: Option<u64>) -> u64 {
        let clock = &self.world.node(node).clock;
        local_ns
            .and_then(|local| clock.true_ns(self.world.now_ns, local))
            .unwrap_or(u64::MAX)
    }

    /// A clock changed: what its users believe ends at other times.
    pub(super) fn reclock_holds(&mut self, node: NodeId) {
        let now_ns = self.world.now_ns;
        let clock = &self.world.node(node).clock;
        self.holds.reclock(node, |local| {
            clock.true_ns(now_ns, local).unwrap_or(u64::MAX)
        });
    }

    pub(super) fn mark_pause(&mut self, node: NodeId) {
        for ticket in &self.tickets {
            if ticket.is_open() && self.node_of(*ticket) == node {
                sometimes!(self.marks, PausedWaiting, ticket.state == State::Waiting);
                sometimes!(self.marks, PausedHolding, ticket.state == State::Holding);
            }
        }
    }
}

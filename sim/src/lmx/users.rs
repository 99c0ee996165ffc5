//! What users do with locks, and what they make of the answers.

use super::driver::{ClientNode, Driver, Event};
use super::hostile::Hostile;
use crate::engine::State;
use crate::marks::sometimes;
use crate::oracle::Hold;
use crate::plan::fault::NodeId;
use crate::plan::{Action, Lock, MS, Mode, Plan, Wait};
use crate::world::Stage;

/// What a user does later about something it has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    HoldEnds,
    Cancel,
    Convert,
    /// It asks once more.
    Retry,
}

impl<'p> Driver<'p> {
    pub(super) fn ask(&mut self, place: u32) {
        if self.closing {
            return;
        }
        let Some((node, op)) = self.engine.due(place, Event::Ask { place }) else {
            return;
        };
        let world = &mut self.engine.world;
        world.digest.add(u64::from(op.id) ^ world.now_ns << 20);
        match &op.action {
            Action::Lock(lock) => self.ask_lock(node, op.id, place, lock),
            Action::Hostile(hostile) => self.be_hostile(node, op.id, *hostile),
            Action::Say { on, line } => self.say(node, op.id, *on, line),
            Action::HangUp { on } => self.hang_up_on(node, *on),
            Action::Query(question) => self.ask_question(node, *question),
            Action::ForceKey(key) => self.force_key(node, *key),
            Action::Reopen => self.reopen(node),
        }
    }

    fn ask_lock(&mut self, node: NodeId, op: u32, place: u32, lock: &'p Lock) {
        if matches!(self.client(node), ClientNode::Hostile(_)) {
            return;
        }
        self.engine.ask(place, || shown(lock));
        if let Some(after_ns) = lock.cancel_after_ns {
            self.act_later(after_ns, op, Act::Cancel);
        }
        match self.client(node) {
            ClientNode::Native(_) => self.native_acquire(node, op, lock),
            ClientNode::Dialect(_) => self.dialect_acquire(node, op, lock),
            ClientNode::Scripted(_) => self.scripted_acquire(node, op),
            ClientNode::Hostile(_) => {}
        }
    }

    pub(super) fn act_later(&mut self, after_ns: u64, op: u32, act: Act) {
        let world = &mut self.engine.world;
        world.schedule(world.now_ns + after_ns, Event::Act { op, act });
    }

    pub(super) fn act(&mut self, op: u32, act: Act) {
        let ticket = self.engine.tickets[op as usize];
        let node = self.engine.node_of(ticket);
        if !matches!(ticket.state, State::Waiting | State::Holding)
            || self.engine.put_off(node, Event::Act { op, act })
        {
            return;
        }
        let world = &mut self.engine.world;
        world.digest.add(u64::from(op) << 8 ^ world.now_ns);
        match self.client(node) {
            ClientNode::Native(_) => self.native_act(node, op, act),
            ClientNode::Dialect(_) => self.dialect_act(node, op, act),
            ClientNode::Scripted(_) => self.scripted_act(node, op, act),
            ClientNode::Hostile(_) => {}
        }
    }

    /// The user of `op` learns that it holds; `good_until_ns` is on its own clock.
    pub(super) fn user_holds(&mut self, op: u32, token: Option<u64>, good_until_ns: Option<u64>) {
        let until_ns = self.engine.grant(op, token, good_until_ns);
        let ticket = self.engine.tickets[op as usize];
        let lock = self.engine.lock(ticket);
        sometimes!(self.engine.marks, SeveralKeys, lock.wants.len() > 1);
        for want in &lock.wants {
            self.engine.note_hold(op, want.key, want.mode, until_ns);
            if self.is_judged(want.key) {
                let hold = Hold {
                    op,
                    node: self.engine.node_of(ticket),
                    mode: want.mode,
                    good_until_local_ns: good_until_ns,
                    until_ns,
                };
                self.engine.believe(want.key, hold);
            }
        }
        // Floors are kept for the first key; tokens rise over all keys.
        self.engine.check_token(op);
        self.engine.write_fenced(op);
        self.engine.world.trigger(Stage::Granted, op);
        if lock.convert.is_some() {
            self.act_later(lock.hold_ns / 2, op, Act::Convert);
        }
        self.act_later(lock.hold_ns, op, Act::HoldEnds);
    }

    /// Whether holders' beliefs in the key may not overlap: not where force is used, nor
    /// where clocks break their bound.
    pub(super) fn is_judged(&self, key: u32) -> bool {
        !self.setup.clocks_break && !self.unjudged.contains(&key)
    }

    /// The operation is over.
    pub(super) fn close(&mut self, op: u32) {
        self.engine.close(op);
        self.close_down_if_idle();
    }
}

/// Keys of which holders' beliefs are not judged: those that are taken by force, and
/// those whose requests differ about their capacity.
pub(super) fn unjudged(plan: &Plan) -> Vec<u32> {
    let mut unjudged = Vec::new();
    let mut capacities: Vec<(u32, u32)> = Vec::new();
    for op in &plan.ops {
        match &op.action {
            Action::ForceKey(key) => unjudged.push(*key),
            // A kept hold that has lost its session is given back by whoever names it.
            Action::Hostile(Hostile::Meddle { op }) => {
                let meant = plan.ops.iter().find(|other| other.id == *op);
                if let Some(Action::Lock(lock)) = meant.map(|it| &it.action)
                    && lock.keep
                {
                    unjudged.extend(lock.wants.iter().map(|want| want.key));
                }
            }
            Action::Lock(lock) => {
                for want in &lock.wants {
                    let Mode::Semaphore { capacity, .. } = want.mode else {
                        continue;
                    };
                    match capacities.iter().find(|(key, _)| *key == want.key) {
                        Some((key, other)) if *other != capacity => unjudged.push(*key),
                        Some(_) => {}
                        None => capacities.push((want.key, capacity)),
                    }
                }
            }
            _ => {}
        }
    }
    // A request for several keys is ended on all of them by force on one.
    let forces = plan
        .ops
        .iter()
        .any(|op| matches!(op.action, Action::ForceKey(_)));
    if forces {
        for op in &plan.ops {
            if let Action::Lock(lock) = &op.action
                && lock.wants.len() > 1
            {
                unjudged.extend(lock.wants.iter().map(|want| want.key));
            }
        }
    }
    unjudged
}

/// A request in a few words.
fn shown(lock: &Lock) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for want in &lock.wants {
        let _ = write!(text, "k{} {:?} ", want.key, want.mode);
    }
    let ms = |ns: u64| ns / MS;
    if lock.lease_ns > 0 {
        let _ = write!(
            text,
            "lease {} ms{} ",
            ms(lock.lease_ns),
            if lock.renew { " renewed" } else { "" }
        );
    }
    if let Wait::For(ns) = lock.wait {
        let _ = write!(text, "wait {} ms ", ms(ns));
    }
    let _ = write!(text, "hold {} ms", ms(lock.hold_ns));
    for (on, word) in [
        (lock.keep, " keep"),
        (lock.abandon, " abandon"),
        (lock.contended, " tell"),
    ] {
        if on {
            text += word;
        }
    }
    text
}

//! Clients of live-mutex's generations, one lock after the other over one connection: readers
//! and writers, several keys as one, and those of old versions.
//!
//! Each goes through its [steps](steps) as the real ones do: a message, its answer, the next
//! message. What they ask the broker beside that, they ask at any time.

mod answers;
mod steps;

use std::collections::VecDeque;

use serde_json::{Value, json};

pub use steps::Script;

use super::Question;
use super::broker::request_id;
use super::conns::write_end;
use super::driver::{ClientNode, Driver};
use super::lines::LineLink;
use super::net::{End, Way};
use super::users::Act;
use crate::engine::State;
use crate::marks::sometimes;
use crate::plan::fault::NodeId;
use crate::plan::{Lock, MS, SECOND};
use crate::world::Stage;
use steps::Step;

/// Node clients ask again after so long, and so often.
pub(super) const RETRY_NS: u64 = 3 * SECOND;
pub(super) const RETRIES_MAX: u32 = 3;

/// One such client.
#[derive(Debug)]
pub(super) struct Scripted {
    script: Script,
    pub(super) link: LineLink,
    /// Operations that wait for their turn.
    queue: VecDeque<u32>,
    current: Option<Round>,
    /// What it asked beside its locks.
    questions: Vec<(String, Question)>,
    /// Locks that it was told of over this connection.
    told: Vec<String>,
    /// Ids made so far for what is no operation's first message.
    ids: u32,
}

/// One lock on its way.
#[derive(Debug)]
struct Round {
    op: u32,
    /// The next step last.
    todo: Vec<Step>,
    /// What waits for its answer.
    asked: Option<Asked>,
    /// What it locked last, by its name.
    base: Option<String>,
    /// How many readers the last lock was told there are.
    readers: u64,
    /// On its own clock: a careful user counts from here.
    sent_ns: Option<u64>,
    token: Option<u64>,
    /// Its user is in the critical section.
    inside: bool,
}

#[derive(Clone, Debug)]
struct Asked {
    uuid: String,
    frame: Value,
    retries: u32,
}

impl Asked {
    fn kind(&self) -> &str {
        self.frame["type"].as_str().unwrap_or_default()
    }
}

impl Scripted {
    pub(super) fn new(script: Script) -> Self {
        Self {
            script,
            link: LineLink::default(),
            queue: VecDeque::new(),
            current: None,
            questions: Vec::new(),
            told: Vec::new(),
            ids: 0,
        }
    }

    fn say(&mut self, frame: &Value) {
        self.link.say(&frame.to_string());
    }

    /// All of its connection is forgotten. Returns the operations that end with it.
    fn part(&mut self) -> Vec<u32> {
        let ended = self.current.take().map(|round| round.op);
        self.link = LineLink::default();
        self.questions.clear();
        self.told.clear();
        ended.into_iter().collect()
    }
}

impl Driver<'_> {
    fn scripted(&mut self, node: NodeId) -> Option<&mut Scripted> {
        match self.client(node) {
            ClientNode::Scripted(scripted) => Some(scripted),
            _ => None,
        }
    }

    // What its users do.

    pub(super) fn scripted_acquire(&mut self, node: NodeId, op: u32) {
        if let Some(scripted) = self.scripted(node) {
            scripted.queue.push_back(op);
            self.go_on(node);
        }
    }

    pub(super) fn scripted_question(&mut self, node: NodeId, question: Question) {
        self.greet(node);
        let uuid = self.fresh_id(node, 0);
        let Some(scripted) = self.scripted(node) else {
            return;
        };
        let mut frame = match question {
            Question::List => json!({"type": "ls"}),
            Question::Inspect(key) | Question::Readers(key) => {
                json!({"type": "lock-info-request", "key": key_text(key)})
            }
            Question::Status => json!({"type": "system-stats-request"}),
            Question::Ping => json!({"type": "ping", "timestamp": 17}),
        };
        frame["uuid"] = json!(uuid);
        scripted.say(&frame);
        scripted.questions.push((uuid, question));
        self.write_lines(node);
    }

    pub(super) fn scripted_act(&mut self, node: NodeId, op: u32, act: Act) {
        let Some(scripted) = self.scripted(node) else {
            return;
        };
        let is_current = scripted.current.as_ref().is_some_and(|it| it.op == op);
        let inside = scripted.current.as_ref().is_some_and(|it| it.inside);
        match act {
            Act::Retry if is_current => self.retry(node),
            Act::HoldEnds | Act::Cancel if is_current && inside => self.leave(node),
            Act::HoldEnds | Act::Retry | Act::Convert => {}
            Act::Cancel if is_current => self.lose_patience(node),
            Act::Cancel => {
                scripted.queue.retain(|other| *other != op);
                self.close(op);
            }
        }
    }

    /// It waits no longer. Where it has nothing yet, it says so; otherwise it leaves as a
    /// whole, and comes back for the next lock.
    fn lose_patience(&mut self, node: NodeId) {
        let Some(scripted) = self.scripted(node) else {
            return;
        };
        let Some(round) = &scripted.current else {
            return;
        };
        let op = round.op;
        let asked = round.asked.as_ref().filter(|_| round.base.is_none());
        let given_up = asked.filter(|asked| matches!(asked.kind(), "lock" | "acquire-many"));
        if let Some(asked) = given_up {
            let key = match asked.kind() {
                "lock" => asked.frame["key"].clone(),
                _ => asked.frame["keys"][0].clone(),
            };
            let frame = json!({"type": "lock-client-timeout", "uuid": asked.uuid, "key": key});
            scripted.say(&frame);
            scripted.current = None;
            self.close(op);
        } else {
            self.leave_as_a_whole(node);
        }
        self.go_on(node);
    }

    /// It closes its connection, whatever it had over it.
    fn leave_as_a_whole(&mut self, node: NodeId) {
        self.hang_up(node);
        let Some(scripted) = self.scripted(node) else {
            return;
        };
        for op in scripted.part() {
            if self.engine.tickets[op as usize].state == State::Holding {
                self.engine.unbelieve(op, "it leaves");
            }
            self.close(op);
        }
    }

    /// The user leaves the critical section.
    fn leave(&mut self, node: NodeId) {
        let Some(round) = self.scripted(node).and_then(|it| it.current.as_mut()) else {
            return;
        };
        round.inside = false;
        let op = round.op;
        self.engine.write_fenced(op);
        self.engine.unbelieve(op, "released");
        self.engine.tickets[op as usize].state = State::Ending;
        self.engine.world.trigger(Stage::Released, op);
        self.go_on(node);
    }

    /// It has had no answer for so long that it asks again.
    fn retry(&mut self, node: NodeId) {
        let Some(scripted) = self.scripted(node) else {
            return;
        };
        let script = scripted.script;
        let Some(round) = &mut scripted.current else {
            return;
        };
        let op = round.op;
        let Some(asked) = &mut round.asked else {
            return;
        };
        if asked.kind() != "lock" || asked.retries == RETRIES_MAX || script == Script::Composite {
            return;
        }
        asked.retries += 1;
        let mut frame = asked.frame.clone();
        frame["retryCount"] = json!(asked.retries);
        scripted.say(&frame);
        sometimes!(self.engine.marks, DialectRetried);
        self.act_later(RETRY_NS, op, Act::Retry);
        self.write_lines(node);
    }

    // Its way through the steps.

    /// Takes steps until something is to be waited for.
    fn go_on(&mut self, node: NodeId) {
        loop {
            let Some(scripted) = self.scripted(node) else {
                return;
            };
            let script = scripted.script;
            let Some(round) = &mut scripted.current else {
                let Some(op) = scripted.queue.pop_front() else {
                    break;
                };
                self.begin(node, op);
                continue;
            };
            if round.asked.is_some() || round.inside {
                break;
            }
            let op = round.op;
            let Some(step) = round.todo.pop() else {
                scripted.current = None;
                self.close(op);
                continue;
            };
            let lock = self.engine.lock(self.engine.tickets[op as usize]);
            let round = self.round(node);
            let known = steps::Known {
                base: round.base.as_deref(),
                is_alone: round.readers == 1,
                // Some say who they are, and are told that they wait.
                says_who: op.is_multiple_of(2),
            };
            if step == Step::Enter {
                self.enter(node, op, lock);
            } else if let Some(frame) = script.frame(step, lock, &known) {
                let is_lock = frame["type"] == "lock";
                sometimes!(self.engine.marks, FirstReader, step == Step::LockWriteKey);
                self.say_and_wait(node, frame);
                if is_lock {
                    self.act_later(RETRY_NS, op, Act::Retry);
                }
            }
        }
        self.write_lines(node);
    }

    fn begin(&mut self, node: NodeId, op: u32) {
        let script = self.script(node);
        let lock = self.engine.lock(self.engine.tickets[op as usize]);
        let mut todo = script.steps(lock.wants[0].mode);
        todo.reverse();
        if let Some(scripted) = self.scripted(node) {
            scripted.current = Some(Round {
                op,
                todo,
                asked: None,
                base: None,
                readers: 0,
                sent_ns: None,
                token: None,
                inside: false,
            });
        }
    }

    /// The user is in the critical section, or believes so.
    fn enter(&mut self, node: NodeId, op: u32, lock: &Lock) {
        sometimes!(self.engine.marks, DialectGranted);
        let has_readers = self.script(node).has_readers();
        let drift_ppm_max = u64::from(self.setup.drift_ppm_max);
        let conn = self.scripted(node).and_then(|it| it.link.conn);
        let round = self.round(node);
        round.inside = true;
        // Tokens of base locks say nothing about who may read or write.
        let token = round.token.filter(|_| !has_readers);
        // It asked in milliseconds, and counts from when it asked.
        let lease_ns = lock.lease_ns / MS * MS;
        let sent_ns = round.sent_ns.unwrap_or(0);
        // The hold ends with the connection at the latest. If this was written before the
        // broker gave the connection up, that is over, which the client has no way to know.
        let is_over = conn.is_some_and(|conn| self.is_over(conn, op));
        let good_until_ns = match lease_ns {
            _ if is_over => Some(0),
            0 => None,
            _ if has_readers => None,
            _ => Some(sent_ns + lease_ns - lease_ns / 1_000_000 * drift_ppm_max),
        };
        self.user_holds(op, token, good_until_ns);
    }

    /// Sends a message under an id of its own, and waits for what is answered to that.
    fn say_and_wait(&mut self, node: NodeId, mut frame: Value) {
        self.greet(node);
        let op = self.round(node).op;
        let is_lock = matches!(frame["type"].as_str(), Some("lock" | "acquire-many"));
        let is_first = self.round(node).sent_ns.is_none();
        let uuid = if is_lock && is_first {
            request_id(self.plan, op).to_string()
        } else {
            self.fresh_id(node, op)
        };
        frame["uuid"] = json!(uuid);
        let now_ns = self.now(node).as_nanos();
        let Some(scripted) = self.scripted(node) else {
            return;
        };
        scripted.say(&frame);
        let round = scripted.current.as_mut().expect("a round is under way");
        if is_lock {
            round.sent_ns.get_or_insert(now_ns);
        }
        round.asked = Some(Asked {
            uuid,
            frame,
            retries: 0,
        });
    }

    /// Connects, if it is not, and says of which version it is.
    fn greet(&mut self, node: NodeId) {
        let Some(scripted) = self.scripted(node) else {
            return;
        };
        if scripted.link.conn.is_some() {
            return;
        }
        if let Some(version) = scripted.script.version() {
            scripted.say(&json!({
                "type": "version", "value": version, "max": null, "pid": 7,
                "keepLocksAfterDeath": false,
            }));
        }
        let conn = self.connect(node);
        if let Some(scripted) = self.scripted(node) {
            scripted.link.conn = Some(conn);
        }
    }

    fn script(&mut self, node: NodeId) -> Script {
        self.scripted(node).map_or(Script::Old, |it| it.script)
    }

    fn round(&mut self, node: NodeId) -> &mut Round {
        let scripted = self.scripted(node).expect("it is one");
        scripted.current.as_mut().expect("a round is under way")
    }

    /// An id that no operation's request has.
    fn fresh_id(&mut self, node: NodeId, op: u32) -> String {
        let ids = match self.scripted(node) {
            Some(scripted) => {
                scripted.ids = (scripted.ids + 1) % (1 << 15);
                scripted.ids
            }
            None => 0,
        };
        let number = 1 << 31 | ids << 16 | (op ^ u32::from(node) << 10) & 0xffff;
        request_id(self.plan, number).to_string()
    }

    // What its transport does.

    pub(super) fn scripted_disconnected(&mut self, conn: u32) {
        let node = self.conns[conn as usize].node;
        let Some(scripted) = self.scripted(node) else {
            return;
        };
        if scripted.link.conn != Some(conn) {
            return;
        }
        let mut lost = scripted.part();
        lost.extend(scripted.queue.drain(..));
        for op in lost {
            if self.engine.tickets[op as usize].state == State::Holding {
                self.engine.unbelieve(op, "connection lost");
            }
            self.close(op);
        }
        self.close_down_if_idle();
    }

    /// The client's kernel ends a connection in good order.
    pub(super) fn end_connection(&mut self, conn: u32) {
        let end = std::mem::replace(&mut self.conns[conn as usize].client_end, End::Closed);
        if end == End::Open {
            write_end(&mut self.engine, &mut self.conns, conn, Way::ToBroker);
        }
    }

    /// The first question to which a connected client has no answer.
    pub(super) fn unanswered_question(&self) -> Option<String> {
        self.clients.iter().enumerate().find_map(|(id, client)| {
            let ClientNode::Scripted(scripted) = client else {
                return None;
            };
            let node = id as NodeId + 1;
            let (_, question) = scripted.questions.first()?;
            if self.engine.world.node(node).process.is_dead() {
                return None;
            }
            Some(format!(
                "client {id} has asked {question:?} and is not answered although all is well"
            ))
        })
    }
}

/// The key as lines name it.
pub(super) fn key_text(key: u32) -> String {
    format!("k{key}")
}

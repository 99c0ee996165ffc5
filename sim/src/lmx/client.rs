//! A native client's node: the core's `Client`, and a user who does what the plan says.

use std::hash::Hash as _;
use std::num::NonZeroU32;
use std::time::Duration;

use lmx_core::client::{Client, ClientConfig, ClientEvent, LockRequest, Loss, Query, Refusal};
use lmx_core::table::{AcquireError, Conversion as CoreConversion};
use lmx_core::{Instant, RequestId};

use super::broker::{TURNS_MAX, key_bytes, request_id};
use super::conns::{write, write_end};
use super::driver::{ClientNode, Driver};
use super::net::{End, Way};
use super::users::Act;
use super::{ClientSetup, Question};
use crate::engine::State;
use crate::marks::sometimes;
use crate::oracle::ledger::readers_name;
use crate::oracle::{Ear, Property};
use crate::plan::fault::NodeId;
use crate::plan::{Conversion, Lock, Mode, SECOND, Wait};
use crate::rng::Digest;
use crate::trace::Kind;
use crate::world::Stage;

/// The resume window of clients that the plan's setup does not name.
pub(super) const WINDOW_NS: u64 = 4 * SECOND;

/// A native client.
#[derive(Debug)]
pub(super) struct Native {
    client: Client,
    conn: Option<u32>,
    ear: Ear,
    /// Operations that its user believes to hold.
    holding: Vec<u32>,
    /// Sessions that this process has ended to begin another.
    reopened: u32,
    /// It is ending one of them.
    reopens: bool,
}

impl Driver<'_> {
    pub(super) fn new_native(&self, id: u16, window_ns: u64, reopened: u32) -> Native {
        let node = id + 1;
        let life = self.engine.world.node(node).process.life();
        let draws = self.engine.world.draws.of(0x636c_6965).of(u64::from(node));
        let config = ClientConfig {
            resume_window: Duration::from_nanos(window_ns),
            auth_token: self.setup.tight.token().into(),
            name: self.client_name(id),
            drift_ppm_max: self.setup.drift_ppm_max,
            seed: draws.bits(u64::from(life) | u64::from(reopened) << 32),
            frame_bytes_max: 1 << 20,
            ..ClientConfig::default()
        };
        Native {
            client: Client::new(self.now(node), config),
            conn: None,
            ear: Ear::default(),
            holding: Vec::new(),
            reopened,
            reopens: false,
        }
    }

    /// As long as is allowed, where that is little.
    fn client_name(&self, id: u16) -> String {
        let bytes_max = self.setup.tight.name_bytes_max as usize;
        let mut name = format!("client {id}");
        if bytes_max < 256 {
            name.truncate(bytes_max);
            name.extend(std::iter::repeat_n('x', bytes_max - name.len()));
        }
        name
    }

    fn native(&mut self, node: NodeId) -> Option<&mut Native> {
        match self.client(node) {
            ClientNode::Native(native) => Some(native),
            _ => None,
        }
    }

    /// The resume window of a client; of native ones without a setup of their own, too.
    pub(super) fn window_ns(&self, id: u16) -> u64 {
        match self.setup.clients.get(usize::from(id)) {
            Some(ClientSetup::Native { window_ns }) => *window_ns,
            Some(_) => 0,
            None => WINDOW_NS,
        }
    }

    // What its user does.

    pub(super) fn native_acquire(&mut self, node: NodeId, op: u32, lock: &Lock) {
        let id = request_id(self.plan, op);
        let now = self.now(node);
        let request = LockRequest {
            wants: lock
                .wants
                .iter()
                .map(|want| (key_bytes(want.key), core_mode(want.mode)))
                .collect(),
            lease: (lock.lease_ns > 0).then(|| Duration::from_nanos(lock.lease_ns)),
            renew: lock.renew,
            wait: match lock.wait {
                Wait::Forever => lmx_core::Wait::Forever,
                Wait::For(ns) => lmx_core::Wait::For(Duration::from_nanos(ns)),
                Wait::No => lmx_core::Wait::No,
            },
            keep: lock.keep,
            notify_contended: lock.contended,
            label: format!("#{op}").into_bytes().into(),
            owner: NonZeroU32::new(lock.owner),
            lock_delay: Duration::from_nanos(lock.lock_delay_ns),
            ..LockRequest::new(id, b"")
        };
        if let Some(native) = self.native(node) {
            let acquired = native.client.acquire(now, request);
            debug_assert!(acquired.is_ok(), "operations have ids of their own");
        }
        self.after_native(node);
    }

    pub(super) fn native_act(&mut self, node: NodeId, op: u32, act: Act) {
        let now = self.now(node);
        let id = request_id(self.plan, op);
        let ticket = self.engine.tickets[op as usize];
        let lock = self.engine.lock(ticket);
        match act {
            Act::HoldEnds if ticket.state == State::Holding => {
                self.engine.write_fenced(op);
                self.engine.unbelieve(
                    op,
                    if lock.abandon {
                        "abandoned"
                    } else {
                        "released"
                    },
                );
                self.engine.tickets[op as usize].state = State::Ending;
                let native = self.native(node).expect("it is this node's");
                native.holding.retain(|other| *other != op);
                if !lock.abandon {
                    native.client.release(now, id);
                    self.engine.world.trigger(Stage::Released, op);
                }
            }
            Act::Cancel if matches!(ticket.state, State::Waiting | State::Holding) => {
                sometimes!(
                    self.engine.marks,
                    CancelledHolding,
                    ticket.state == State::Holding
                );
                sometimes!(
                    self.engine.marks,
                    CancelledWaiting,
                    ticket.state == State::Waiting
                );
                if ticket.state == State::Holding {
                    self.engine.unbelieve(op, "cancelled");
                }
                self.engine.tickets[op as usize].state = State::Ending;
                let native = self.native(node).expect("it is this node's");
                native.holding.retain(|other| *other != op);
                native.client.cancel(now, id);
            }
            Act::Convert if ticket.state == State::Holding => {
                let Some(to) = lock.convert else { return };
                if to == Conversion::Downgrade {
                    // From here on the user only reads.
                    self.engine
                        .believe_anew(lock.wants[0].key, op, |hold| hold.mode = Mode::Shared);
                }
                let native = self.native(node).expect("it is this node's");
                native.client.convert(
                    now,
                    id,
                    match to {
                        Conversion::Downgrade => CoreConversion::Downgrade,
                        Conversion::Upgrade => CoreConversion::Upgrade,
                    },
                );
            }
            _ => return,
        }
        self.after_native(node);
    }

    pub(super) fn ask_question(&mut self, node: NodeId, question: Question) {
        if matches!(self.client(node), ClientNode::Scripted(_)) {
            return self.scripted_question(node, question);
        }
        let now = self.now(node);
        if let Some(native) = self.native(node) {
            native.client.query(
                now,
                match question {
                    Question::List => Query::List { start: 0 },
                    Question::Inspect(key) => Query::Inspect {
                        key: key_bytes(key),
                        skip: 0,
                    },
                    Question::Readers(key) => Query::Inspect {
                        key: readers_name(key).into(),
                        skip: 0,
                    },
                    // The client pings by itself.
                    Question::Status | Question::Ping => Query::Status,
                },
            );
            self.after_native(node);
        }
    }

    pub(super) fn force_key(&mut self, node: NodeId, key: u32) {
        let now = self.now(node);
        if let Some(native) = self.native(node) {
            let key = key_bytes(key);
            native.client.query(now, Query::ForceReleaseKey { key });
            // From here on nobody's belief in this key counts: that is what force means.
            self.after_native(node);
        }
    }

    /// Ends the session, and begins another when that is over.
    pub(super) fn reopen(&mut self, node: NodeId) {
        let now = self.now(node);
        if let Some(native) = self.native(node) {
            native.client.close(now);
            native.reopens = true;
            self.after_native(node);
        }
    }

    /// Begins another session, if the client was to and the old one is over.
    fn begin_anew(&mut self, node: NodeId) -> bool {
        let window_ns = self.window_ns(node - 1);
        let reopened = match self.native(node) {
            Some(native) if native.reopens && native.client.is_closed() => native.reopened + 1,
            _ => return false,
        };
        if self.closing {
            return false;
        }
        sometimes!(self.engine.marks, Reopened);
        let anew = self.new_native(node - 1, window_ns, reopened);
        *self.client(node) = ClientNode::Native(Box::new(anew));
        // What is kept beyond the old session is nobody's here.
        for op in self.engine.open_of(node) {
            if self.engine.tickets[op as usize].state == State::Holding {
                self.engine.unbelieve(op, "its session ended");
            }
            self.close(op);
        }
        true
    }

    pub(super) fn close_client(&mut self, node: NodeId) {
        let now = self.now(node);
        match self.client(node) {
            ClientNode::Native(native) => {
                native.client.close(now);
                self.after_native(node);
            }
            ClientNode::Dialect(_) | ClientNode::Scripted(_) | ClientNode::Hostile(_) => {
                self.hang_up(node);
            }
        }
    }

    // What the transport does.

    pub(super) fn client_connected(&mut self, conn: u32) {
        let node = self.conns[conn as usize].node;
        let now = self.now(node);
        match self.client(node) {
            ClientNode::Native(native) if native.conn == Some(conn) => {
                native.client.handle_connected(now);
            }
            ClientNode::Native(_) => {}
            ClientNode::Dialect(_) | ClientNode::Scripted(_) => self.line_connected(conn),
            ClientNode::Hostile(_) => self.hostile_connected(conn),
        }
        self.after_client(node);
    }

    pub(super) fn client_disconnected(&mut self, conn: u32) {
        let node = self.conns[conn as usize].node;
        let now = self.now(node);
        match self.client(node) {
            ClientNode::Native(native) if native.conn == Some(conn) => {
                native.conn = None;
                native.client.handle_disconnected(now);
                self.without_session(node);
            }
            ClientNode::Native(_) => {}
            ClientNode::Dialect(_) => self.dialect_disconnected(conn),
            ClientNode::Scripted(_) => self.scripted_disconnected(conn),
            ClientNode::Hostile(_) => self.hostile_disconnected(conn),
        }
        self.after_client(node);
    }

    /// A client without a resume window knows that its session ends with its connection.
    fn without_session(&mut self, node: NodeId) {
        if self.window_ns(node - 1) > 0 {
            return;
        }
        let (plan, now) = (self.plan, self.now(node));
        let held = self.native(node).and_then(|native| {
            let mut ops = native.holding.iter().copied();
            ops.find(|op| native.client.held(now, request_id(plan, *op)).is_some())
        });
        if let Some(op) =
            held.filter(|op| !self.engine.lock(self.engine.tickets[*op as usize]).keep)
        {
            let detail =
                format!("#{op} is believed to be held, and its session ended with its connection");
            self.engine.violate(Property::HoldersView, detail);
        }
    }

    pub(super) fn client_input(&mut self, conn: u32, count: usize) {
        let node = self.conns[conn as usize].node;
        let now = self.now(node);
        match self.client(node) {
            ClientNode::Native(_) => {}
            ClientNode::Dialect(_) | ClientNode::Scripted(_) => {
                return self.line_input(conn, count);
            }
            ClientNode::Hostile(_) => return self.hostile_input(conn, count),
        }
        let Self { clients, conns, .. } = self;
        let pipe = &mut conns[conn as usize].to_client;
        if let ClientNode::Native(native) = &mut clients[usize::from(node) - 1]
            && native.conn == Some(conn)
        {
            native.ear.hear(pipe.peek(count));
            native.client.handle_input(now, pipe.peek(count));
        }
        pipe.pop(count);
        self.after_client(node);
    }

    pub(super) fn client_timeout(&mut self, node: NodeId) {
        let now = self.now(node);
        if let Some(native) = self.native(node) {
            native.client.handle_timeout(now);
            self.after_native(node);
        }
    }

    /// A client was called: see what it wants.
    pub(super) fn after_client(&mut self, node: NodeId) {
        if !self.engine.world.is_running(node) {
            return;
        }
        match self.client(node) {
            ClientNode::Native(_) => self.after_native(node),
            ClientNode::Dialect(_) | ClientNode::Scripted(_) => self.write_lines(node),
            ClientNode::Hostile(_) => self.after_hostile(node),
        }
    }

    /// There is room in a client's pipe: what is left of its output is written.
    pub(super) fn client_writes_on(&mut self, node: NodeId) {
        match self.client(node) {
            ClientNode::Native(native) if native.client.output().is_empty() => {}
            _ => self.after_client(node),
        }
    }

    pub(super) fn after_native(&mut self, node: NodeId) {
        let now = self.now(node);
        for turn in 0.. {
            if turn > TURNS_MAX {
                let detail = format!("a client has more than {TURNS_MAX} things to say at once");
                self.engine.violate(Property::Livelock, detail);
                return;
            }
            let Some(native) = self.native(node) else {
                return;
            };
            if let Some(conn) = native.conn {
                let closing = native.client.is_closing();
                if !native.client.output().is_empty() {
                    self.native_write(node, conn);
                }
                if closing {
                    self.native_close(node, conn);
                    continue;
                }
            } else if native.client.wants_connection(now) {
                let conn = self.connect(node);
                let native = self.native(node).expect("it is native");
                native.conn = Some(conn);
                native.ear = Ear::default();
            }
            let native = self.native(node).expect("it is native");
            let Some(event) = native.client.poll_event() else {
                if self.begin_anew(node) {
                    continue;
                }
                break;
            };
            let wrong = native.ear.judge(&event);
            digest(&mut self.engine.world.digest, &event);
            if let Some(detail) = wrong {
                self.engine.violate(Property::Answer, detail);
                return;
            }
            self.told(node, event);
            if self.engine.violation.is_some() {
                return;
            }
        }
        self.refresh(node);
        let at = self
            .native(node)
            .and_then(|native| native.client.poll_timeout());
        self.arm(node, at);
    }

    fn native_write(&mut self, node: NodeId, conn: u32) {
        let ClientNode::Native(native) = &mut self.clients[usize::from(node) - 1] else {
            return;
        };
        if self.conns[conn as usize].client_end == End::Open {
            let output = native.client.output();
            let way = Way::ToBroker;
            let taken = write(&mut self.engine, &mut self.conns, conn, way, output);
            native.client.consume_output(taken);
        }
    }

    fn native_close(&mut self, node: NodeId, conn: u32) {
        let now = self.now(node);
        let end = std::mem::replace(&mut self.conns[conn as usize].client_end, End::Closed);
        if end == End::Open {
            write_end(&mut self.engine, &mut self.conns, conn, Way::ToBroker);
        }
        let native = self.native(node).expect("it is native");
        native.conn = None;
        native.client.handle_disconnected(now);
    }

    /// What the user may believe changes with every pong and renewal.
    fn refresh(&mut self, node: NodeId) {
        let now = self.now(node);
        let count = self.native(node).map_or(0, |native| native.holding.len());
        for place in 0..count {
            let plan = self.plan;
            let native = self.native(node).expect("it is native");
            let op = native.holding[place];
            let good_until = match native.client.held(now, request_id(plan, op)) {
                Some(held) => held.good_until.map(lmx_core::Instant::as_nanos),
                None => Some(0),
            };
            let until_ns = self.engine.true_deadline_ns(node, good_until);
            let lock = self.engine.lock(self.engine.tickets[op as usize]);
            for want in &lock.wants {
                if self.is_judged(want.key) {
                    self.engine.extend(want.key, op, good_until, until_ns);
                }
            }
        }
    }

    // What its user is told.

    fn told(&mut self, node: NodeId, event: ClientEvent) {
        match event {
            ClientEvent::Granted { id, held } => {
                let op = id.as_u128() as u32;
                let token = held.token.as_u64();
                let good_until_ns = held.good_until.map(lmx_core::Instant::as_nanos);
                match self.engine.tickets[op as usize].state {
                    State::Waiting => {
                        let native = self.native(node).expect("it is native");
                        native.holding.push(op);
                        let conn = native.conn;
                        // Without a window it may be over before it is told.
                        let is_over = self.window_ns(node - 1) == 0
                            && conn.is_none_or(|conn| !self.has_session(conn));
                        let good_until_ns = if is_over { Some(0) } else { good_until_ns };
                        self.user_holds(op, Some(token), good_until_ns);
                        if is_over {
                            self.engine.holds.forget(node);
                        }
                    }
                    State::Holding => self.upgraded(op),
                    State::Idle | State::Done => self.told_after_the_end(op, "granted"),
                    // Withdrawn meanwhile; the client gives it back by itself.
                    State::Ending | State::Lost => {
                        sometimes!(self.engine.marks, GrantCrossedCancel);
                    }
                }
            }
            ClientEvent::Queued { id, ahead } => {
                let op = id.as_u128() as u32;
                sometimes!(self.engine.marks, LongQueue, ahead >= 4);
                self.engine
                    .note_op(node, Kind::Told, op, || format!("queued behind {ahead}"));
            }
            ClientEvent::Refused { id, why } => {
                let op = id.as_u128() as u32;
                sometimes!(self.engine.marks, TimedOut, why == Refusal::TimedOut);
                sometimes!(self.engine.marks, Busy, matches!(why, Refusal::Busy { .. }));
                let deadlock = matches!(why, Refusal::Refused(AcquireError::Deadlock { .. }));
                sometimes!(self.engine.marks, DeadlockRefused, deadlock);
                self.engine
                    .note_op(node, Kind::Told, op, || format!("refused: {}", brief(&why)));
                self.told_last(op, "refused");
            }
            ClientEvent::Lost { id, why } => {
                let op = id.as_u128() as u32;
                sometimes!(self.engine.marks, Expired, why == Loss::Expired);
                sometimes!(self.engine.marks, Unconfirmed, why == Loss::Unconfirmed);
                sometimes!(self.engine.marks, Revoked, why == Loss::Revoked);
                sometimes!(self.engine.marks, SessionLost, why == Loss::SessionLost);
                if self.engine.tickets[op as usize].state == State::Holding {
                    self.engine.write_fenced(op);
                    self.engine.unbelieve(op, "lost");
                }
                if let Some(native) = self.native(node) {
                    native.holding.retain(|other| *other != op);
                }
                self.engine
                    .note_op(node, Kind::Told, op, || format!("lost: {why}"));
                self.told_last(op, "lost");
            }
            ClientEvent::Released { id, result } => {
                let op = id.as_u128() as u32;
                self.engine
                    .note_op(node, Kind::Told, op, || format!("released: {result:?}"));
                self.told_last(op, "released");
            }
            ClientEvent::Cancelled { id } => {
                let op = id.as_u128() as u32;
                self.engine
                    .note_op(node, Kind::Told, op, || "cancelled".to_owned());
                self.told_last(op, "cancelled");
            }
            ClientEvent::Converted { id, result } => {
                let op = id.as_u128() as u32;
                self.engine
                    .note_op(node, Kind::Told, op, || format!("converted: {result:?}"));
                sometimes!(self.engine.marks, Downgraded, result.is_ok());
            }
            ClientEvent::Failed { retries, .. } => {
                self.engine.note(node, Kind::Told, || format!("{event:?}"));
                let now = self.now(node);
                // Where the client tries again by itself, in its own time, it is left to that.
                if let Some(native) = self.native(node)
                    && !retries
                {
                    native.client.reconnect(now);
                }
            }
            other => {
                let contended = matches!(other, ClientEvent::Contended { .. });
                sometimes!(self.engine.marks, Contended, contended);
                self.engine.note(node, Kind::Told, || format!("{other:?}"));
            }
        }
    }

    /// The user is told how its request ended, once.
    fn told_last(&mut self, op: u32, what: &str) {
        if !self.engine.tickets[op as usize].is_open() {
            self.told_after_the_end(op, what);
        }
        self.close(op);
    }

    fn told_after_the_end(&mut self, op: u32, what: &str) {
        let detail = format!("the user of #{op} is told that it was {what}, after its end");
        self.engine.violate(Property::Answer, detail);
    }

    fn upgraded(&mut self, op: u32) {
        sometimes!(self.engine.marks, Upgraded);
        let key = self.engine.key(op);
        self.engine
            .believe_anew(key, op, |hold| hold.mode = Mode::Exclusive);
    }
}

/// Takes in what the user is told.
fn digest(digest: &mut Digest, event: &ClientEvent) {
    let mut add = |what: u64, id: RequestId, more: u64| {
        digest.add(what);
        digest.add(id.as_u128() as u64);
        digest.add(more);
    };
    match event {
        ClientEvent::Granted { id, held } => {
            add(1, *id, held.token.as_u64());
            let ns = |at: Option<Instant>| at.map_or(u64::MAX, Instant::as_nanos);
            digest.add(ns(held.good_until));
            digest.add(ns(held.deadline));
        }
        ClientEvent::Queued { id, ahead } => add(2, *id, u64::from(*ahead)),
        ClientEvent::Released { id, result: Ok(()) } => add(3, *id, 0),
        ClientEvent::Cancelled { id } => add(4, *id, 0),
        ClientEvent::Contended { id } => add(5, *id, 0),
        ClientEvent::Lost { id, why } => add(6, *id, *why as u64),
        // What it is, is in the bytes that were heard, or in when it is told.
        other => std::mem::discriminant(other).hash(digest),
    }
}

fn brief(why: &Refusal) -> String {
    match why {
        Refusal::Busy { holders, .. } => format!("busy, {} hold it", holders.len()),
        other => format!("{other:?}"),
    }
}

fn core_mode(mode: Mode) -> lmx_core::Mode {
    match mode {
        Mode::Exclusive => lmx_core::Mode::Exclusive,
        Mode::Shared => lmx_core::Mode::Shared,
        Mode::Semaphore { capacity, permits } => lmx_core::Mode::Semaphore { capacity, permits },
    }
}

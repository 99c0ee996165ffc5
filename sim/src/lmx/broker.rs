//! The broker's node: the core's `Broker`, its disk, and the oracle beside it.

mod watch;

use std::time::Duration;

use lmx_core::broker::{Broker, BrokerConfig, ConnectError, ConnectionId, Durability, Record};
use lmx_core::{FencingToken, Instant, LockTable, TableConfig};

use super::conns::{write, write_end};
use super::driver::{BROKER, Driver, Event};
use super::links::{Link, Links};
use super::net::{Conn, End, Way};
use crate::marks::sometimes;
use crate::oracle::Property;
use crate::oracle::ledger::{Ledger, key_name};
use crate::plan::Plan;
use crate::trace::Kind;

/// A machine that has more to say than so many times, in one instant, never ends.
pub(super) const TURNS_MAX: u32 = 100_000;

/// The broker over all its runs.
#[derive(Debug, Default)]
pub(super) struct BrokerNode {
    broker: Option<Broker>,
    life: u32,
    /// What the disk has.
    disk: Option<Record>,
    /// What it is being given.
    writing: Option<Record>,
    links: Links,
    first_record_pending: bool,
    /// The last token that it may give.
    tokens_given: u64,
    /// When it asked to be woken, when it was last called.
    alarm: Option<Instant>,
}

impl BrokerNode {
    /// Whether what has arrived is read now.
    pub(super) fn wants_input(&self, conn: &Conn, reads_on: bool) -> bool {
        match (&self.broker, conn.id) {
            (Some(broker), Some(id)) => reads_on || broker.wants_input(id),
            _ => false,
        }
    }

    /// More is due than one call does. It is called again before anybody looks at it, after
    /// what else happens at this instant: what arrives then finds it behind.
    fn is_behind(&self, now: Instant) -> bool {
        let table = self.broker.as_ref().map(Broker::table);
        let due = table.and_then(LockTable::poll_timeout);
        due.is_some_and(|due| due <= now)
    }

    /// What it asked to be woken for is due.
    fn is_due(&self, now: Instant) -> bool {
        self.alarm.is_some_and(|due| due <= now)
    }

    /// It waits for nobody who may have held something of an earlier broker.
    pub(super) fn has_taken_over(&self) -> bool {
        let broker = self.broker.as_ref();
        self.life > 0 && broker.is_some_and(|broker| broker.grace_until().is_none())
    }

    pub(super) fn is_connected(&self, conn: u32) -> bool {
        self.links.iter().any(|link| link.conn == conn)
    }
}

impl Driver<'_> {
    pub(super) fn start_broker(&mut self) {
        self.engine.note(BROKER, Kind::Start, String::new);
        let now = self.now(BROKER);
        let setup = self.setup;
        let limits = setup.limits();
        let tight = &setup.tight;
        let draws = self.engine.world.draws.of(0x6272_6f6b);
        let durability = if setup.durable {
            Durability::Durable(self.broker.disk.clone())
        } else {
            Durability::Ephemeral
        };
        sometimes!(
            self.engine.marks,
            RestartedFromDisk,
            self.broker.disk.is_some()
        );
        let config = BrokerConfig {
            table: TableConfig {
                requests_max: limits.requests_max,
                requests_per_session_max: limits.requests_per_session_max,
                keys_per_request_max: limits.keys_per_request_max,
                key_bytes_max: limits.key_bytes_max,
                label_bytes_max: limits.label_bytes_max,
                sessions_max: limits.sessions_max,
                keys_max: limits.keys_max,
                claims_max: limits.claims_max,
                pieces_max: limits.pieces_max,
                deadlock_search_max: limits.deadlock_search_max,
                timers_per_call_max: tight.timers_per_call_max,
                resume_window_max: Duration::from_nanos(tight.resume_window_ns_max),
                lease_max: Duration::from_nanos(limits.lease_ns_max),
                lock_delay_max: Duration::from_nanos(limits.lock_delay_ns_max),
                hash_seed: [draws.bits(1), draws.bits(2)],
                first_token: FencingToken::FIRST,
            },
            connections_max: limits.connections_max,
            buffered_bytes_max: tight.buffered_bytes_max as usize,
            name_bytes_max: limits.name_bytes_max,
            auth_token: limits.token.map(|token| token.as_bytes().to_vec()),
            token_ceiling: FencingToken::new(tight.tokens_at_a_time),
            frame_bytes_max: setup.frame_bytes_max,
            output_bytes_max: setup.output_bytes_max,
            idle_max: Duration::from_nanos(setup.idle_ns_max),
            handshake_max: Duration::from_nanos(setup.handshake_ns_max),
            secret_seed: u128::from(draws.bits(3)).to_le_bytes(),
            incarnation: u64::from(self.broker.life) + 1,
            durability,
            ..BrokerConfig::default()
        };
        match Broker::new(now, config) {
            Ok(broker) => self.broker.broker = Some(broker),
            Err(error) => {
                let detail = format!("the broker does not start: {error}");
                self.engine.violate(Property::Invariant, detail);
                return;
            }
        }
        self.ledger.broker_started(now.as_nanos());
        self.broker.tokens_given = setup.tight.tokens_at_a_time;
        self.broker.first_record_pending = setup.durable;
        if !setup.durable {
            self.ledger.broker_booted();
        }
        self.after_broker();
    }

    /// The broker is asked to stop: it tells everybody, and its process ends once what must
    /// outlive it is on the disk.
    pub(super) fn stop_broker(&mut self) {
        let now = self.now(BROKER);
        let Some(broker) = &mut self.broker.broker else {
            return;
        };
        let held = broker.table().counts().held > 0;
        sometimes!(self.engine.marks, BrokerStopped, held);
        broker.stop(now);
        self.catch_up();
        self.after_broker();
        while let Some(record) = self.broker.writing.take() {
            self.record_written(record);
        }
    }

    pub(super) fn kill_broker(&mut self) {
        let held = self
            .broker
            .broker
            .as_ref()
            .is_some_and(|broker| broker.table().counts().held > 0);
        sometimes!(self.engine.marks, BrokerDiedHolding, held);
        self.broker.broker = None;
        self.broker.life += 1;
        self.broker.links.clear();
        // A write that was under way may have got through or not.
        if let Some(record) = self.broker.writing.take()
            && self
                .engine
                .world
                .draws
                .of(0x6469_736b)
                .chance(self.engine.world.now_ns, 500_000)
        {
            sometimes!(self.engine.marks, RecordSurvived);
            self.broker.disk = Some(record);
        }
        for conn in &mut self.conns {
            Ledger::bereft(&mut conn.tap);
        }
        self.ledger.broker_died();
    }

    pub(super) fn broker_connect(&mut self, conn: u32) -> bool {
        let now = self.now(BROKER);
        let Some(broker) = &mut self.broker.broker else {
            return false;
        };
        let id = match broker.connect(now) {
            Ok(id) => id,
            Err(error) => {
                self.refuse(conn, error);
                return true;
            }
        };
        self.engine.world.digest.add(id.as_u64());
        self.conns[conn as usize].broker_end = End::Open;
        self.conns[conn as usize].id = Some(id);
        let client = usize::from(self.conns[conn as usize].node) - 1;
        let setup = self.setup.clients.get(client);
        let is_dialect = setup.is_some_and(|it| it.is_dialect());
        self.broker.links.insert(Link::new(id, conn, is_dialect));
        self.ledger.connected();
        true
    }

    /// There is no room for the connection, and it is told so.
    fn refuse(&mut self, conn: u32, error: ConnectError) {
        sometimes!(self.engine.marks, ConnectionRefused);
        self.ledger
            .connection_refused(matches!(error, ConnectError::Full { .. }));
        self.conns[conn as usize].broker_end = End::Closed;
        let reply = error.reply(self.now(BROKER));
        let (engine, conns) = (&mut self.engine, &mut self.conns);
        write(engine, conns, conn, Way::ToClient, &reply);
        write_end(engine, conns, conn, Way::ToClient);
    }

    pub(super) fn broker_input(&mut self, conn: u32, count: usize) {
        let now = self.now(BROKER);
        let is_due = self.broker.is_due(now);
        let Some(broker) = &mut self.broker.broker else {
            return;
        };
        let state = &mut self.conns[conn as usize];
        let Some(id) = state.id else {
            return;
        };
        let bytes = state.to_broker.peek(count);
        let at_once = broker.wants_input(id) && !is_due;
        self.ledger
            .heard(now.as_nanos(), &mut state.tap, bytes, at_once);
        if let Some(link) = self.broker.links.get_mut(id) {
            link.follow(&state.tap);
        }
        broker.handle_input(now, id, bytes);
        state.to_broker.pop(count);
        self.after_broker();
    }

    /// Whether the broker counts a session as this connection's.
    pub(super) fn has_session(&self, conn: u32) -> bool {
        let id = self.conns[conn as usize].id;
        let machine = self.broker.broker.as_ref();
        machine
            .zip(id)
            .is_some_and(|(it, id)| it.session(id).is_some())
    }

    pub(super) fn broker_disconnected(&mut self, conn: u32) {
        let now = self.now(BROKER);
        let is_due = self.broker.is_due(now);
        let Some(broker) = &mut self.broker.broker else {
            return;
        };
        let state = &mut self.conns[conn as usize];
        state.broker_end = End::Closed;
        let Some(id) = state.id else {
            return;
        };
        // Of what is due only now, nothing is said any more.
        let is_said = !is_due
            && broker.output(id).is_empty()
            && Ledger::is_answered(&state.tap)
            && (!broker.is_closing(id) || Ledger::is_over(&state.tap));
        if !is_said {
            self.ledger.unsaid();
        }
        self.ledger.connection_lost(now.as_nanos(), &mut state.tap);
        broker.handle_disconnect(now, id);
        self.broker.links.remove(id);
        self.without_window(conn);
        self.after_broker();
    }

    /// What a client without a resume window holds ends when the broker learns that its
    /// connection is gone, which may be before the client does: that is the bargain.
    fn without_window(&mut self, conn: u32) {
        let node = self.conns[conn as usize].node;
        if self.window_ns(node - 1) == 0 {
            self.engine.holds.forget(node);
        }
    }

    pub(super) fn broker_timeout(&mut self) {
        let now = self.now(BROKER);
        if let Some(broker) = &mut self.broker.broker {
            broker.handle_timeout(now);
            if self.broker.is_behind(now) {
                sometimes!(self.engine.marks, BrokerBehind);
                self.broker.alarm = Some(now);
                return self.arm(BROKER, Some(now));
            }
            self.after_broker();
        }
    }

    pub(super) fn disk_done(&mut self, life: u32) {
        if life != self.broker.life || self.engine.put_off(BROKER, Event::Disk { life }) {
            return;
        }
        if let Some(record) = self.broker.writing.take() {
            self.record_written(record);
        }
    }

    fn record_written(&mut self, record: Record) {
        let now = self.now(BROKER);
        let Some(broker) = &mut self.broker.broker else {
            return;
        };
        self.broker.disk = Some(record);
        broker.handle_durable(now);
        if std::mem::take(&mut self.broker.first_record_pending) {
            self.ledger.broker_booted();
        }
        self.after_broker();
    }

    /// There is room in a connection's pipe: what is left of its output is written.
    pub(super) fn write_on(&mut self, conn: u32) {
        let running = self.engine.world.is_running(BROKER);
        let (Some(broker), Some(id)) = (&self.broker.broker, self.conns[conn as usize].id) else {
            return;
        };
        let is_open = self.conns[conn as usize].broker_end == End::Open;
        if running && is_open && !broker.output(id).is_empty() {
            // It knows what time it is before it is looked at.
            self.catch_up();
            self.look();
            let is_seen = self.serve(conn, id);
            self.after_broker_seen(is_seen);
        }
    }

    pub(super) fn after_broker_if_running(&mut self) {
        if self.engine.world.is_running(BROKER) {
            // As a transport may do at any time; and then it knows what time it is.
            self.broker_timeout();
        }
    }

    /// The broker does all that is due.
    fn catch_up(&mut self) {
        let now = self.now(BROKER);
        while let Some(broker) = &mut self.broker.broker {
            broker.handle_timeout(now);
            if !self.broker.is_behind(now) {
                return;
            }
        }
    }

    /// The broker was called: judge it, write what it has to say, arm its timer.
    pub(super) fn after_broker(&mut self) {
        self.after_broker_seen(false);
    }

    /// The same; the oracle may have looked since.
    fn after_broker_seen(&mut self, mut is_seen: bool) {
        let now = self.now(BROKER);
        if self.broker.is_behind(now) {
            // One call, one look: with others between them it could not be told what did what.
            self.catch_up();
            is_seen = false;
        }
        for turn in 0.. {
            if !is_seen {
                self.look();
            }
            if turn > TURNS_MAX {
                let detail = format!("the broker asks to be served more than {TURNS_MAX} times");
                self.engine.violate(Property::Livelock, detail);
            }
            if self.engine.violation.is_some() {
                return;
            }
            let Some(broker) = &mut self.broker.broker else {
                return;
            };
            let Some(id) = broker.poll_connection() else {
                break;
            };
            let conn = self.broker.links.get(id).map(|link| link.conn);
            is_seen = conn.is_some_and(|conn| self.serve(conn, id));
        }
        let Some(broker) = &mut self.broker.broker else {
            return;
        };
        if self.broker.writing.is_none()
            && let Some(record) = broker.poll_record()
        {
            self.engine.world.digest.add_bytes(&record.encode());
            self.broker.writing = Some(record);
            let draws = self.engine.world.draws.of(0x7772_6974);
            let took_ns = draws.between(self.engine.world.now_ns, 1, self.setup.disk_ns_max.max(1));
            let life = self.broker.life;
            self.engine
                .world
                .schedule(self.engine.world.now_ns + took_ns, Event::Disk { life });
        }
        self.judge_said();
        let at = self.broker.broker.as_ref().and_then(Broker::poll_timeout);
        self.broker.alarm = at;
        let (now_ns, at_ns) = (
            self.engine.world.local_ns(BROKER),
            at.map(lmx_core::Instant::as_nanos),
        );
        let verdict = self.ledger.judge_alarm(now_ns, at_ns);
        self.judge(verdict);
        self.arm(BROKER, at);
        self.note_dialects_cut_off();
        self.record_pages();
    }

    /// Whoever runs a broker that may give only so many tokens allows it more once those are
    /// given.
    fn give_tokens(&mut self) {
        let count = self.setup.tight.tokens_at_a_time;
        if count == 0 {
            return;
        }
        let now = self.now(BROKER);
        while let Some(broker) = &mut self.broker.broker
            && let last = broker.table().counts().last_token
            && let last = last.map_or(0, FencingToken::as_u64)
            && last >= self.broker.tokens_given
        {
            self.broker.tokens_given = last + count;
            let ceiling = FencingToken::new(last + count).expect("it is above zero");
            broker.set_token_ceiling(now, ceiling);
        }
    }

    /// One connection has changed: write, read again, or close. Says whether the oracle has
    /// looked since the broker was last called.
    fn serve(&mut self, conn: u32, id: ConnectionId) -> bool {
        let can_wait = self.broker.broker.as_ref().map(|it| it.output_can_wait(id));
        self.engine
            .world
            .digest
            .add(u64::from(can_wait == Some(true)));
        while self.write_output(conn, id) {}
        let now = self.now(BROKER);
        let Some(broker) = &mut self.broker.broker else {
            return true;
        };
        if broker.is_closing(id) {
            let flushed = broker.output(id).is_empty();
            if flushed {
                self.conns[conn as usize].broker_end = End::Closed;
                if !Ledger::is_over(&self.conns[conn as usize].tap) {
                    self.ledger.unsaid();
                }
                broker.handle_disconnect(now, id);
                self.broker.links.remove(id);
                write_end(&mut self.engine, &mut self.conns, conn, Way::ToClient);
                return false;
            }
        } else if broker.wants_input(id) {
            let pipe = &mut self.conns[conn as usize].to_broker;
            for _ in 0..std::mem::take(&mut pipe.refused) {
                let way = Way::ToBroker;
                let world = &mut self.engine.world;
                world.schedule(world.now_ns, Event::Deliver { conn, way });
            }
        }
        true
    }

    /// Writes what the connection's window takes. Returns whether it took anything.
    fn write_output(&mut self, conn: u32, id: ConnectionId) -> bool {
        let now = self.now(BROKER);
        let Some(broker) = &mut self.broker.broker else {
            return false;
        };
        let output = broker.output(id);
        let bound = 2 * self.setup.output_bytes_max as usize + self.setup.frame_bytes_max as usize;
        if output.len() > bound + 1024 {
            let detail = format!(
                "{} bytes are queued towards client {}; {bound} are allowed",
                output.len(),
                self.conns[conn as usize].node - 1
            );
            self.engine.violate(Property::Memory, detail);
            return false;
        }
        if output.is_empty() {
            return false;
        }
        let can_wait = broker.output_can_wait(id);
        self.engine.world.digest.add(u64::from(can_wait));
        let way = Way::ToClient;
        let taken = write(&mut self.engine, &mut self.conns, conn, way, output);
        let tap = &mut self.conns[conn as usize].tap;
        let verdict = self.ledger.said(now.as_nanos(), tap, &output[..taken]);
        // What was kept back goes on once no more than half a frame is queued. More may be than
        // is shown while the disk is waited for.
        let half = self.setup.frame_bytes_max as usize / 2;
        let was_more = output.len() > half || !broker.is_durable();
        let is_room = was_more && output.len() - taken <= half;
        let may_go_on = is_room || broker.is_closing(id) || Ledger::is_over(tap);
        if may_go_on {
            self.ledger.goes_on();
        }
        let before = broker.table().counts();
        broker.consume_output(now, id, taken);
        let has_gone_on = broker.table().counts() != before;
        debug_assert!(
            may_go_on || !has_gone_on,
            "it goes on where it need not be looked at"
        );
        let is_bound = broker.session(id).is_some();
        if Ledger::session(tap).is_some() && is_bound {
            Ledger::is_bound(tap);
        }
        if let Some(link) = self.broker.links.get_mut(id) {
            link.is_bound = is_bound;
            link.follow(tap);
        }
        self.judge(verdict);
        // Otherwise it has done nothing but to forget what was written.
        if may_go_on {
            self.look();
        }
        taken > 0
    }

    pub(super) fn broker_status(&self) -> Option<lmx_core::wire::Status> {
        let now = self.now(BROKER);
        self.broker.broker.as_ref().map(|it| it.status(now))
    }
}

/// The key's bytes as requests name it.
pub(super) fn key_bytes(key: u32) -> Box<[u8]> {
    key_name(key).into()
}

/// The id of an operation's request.
pub(super) fn request_id(plan: &Plan, op: u32) -> lmx_core::RequestId {
    let bits = crate::rng::Draws::new(plan.seed)
        .of(0x7575_6964)
        .bits(u64::from(op));
    lmx_core::RequestId::from_u128(crate::oracle::ledger::request_id(bits, op))
}

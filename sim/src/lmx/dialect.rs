//! A live-mutex client, scripted: lines of JSON, no retries, one connection.

use super::broker::request_id;
use super::driver::{ClientNode, Driver};
use super::lines::LineLink;
use super::users::Act;
use crate::engine::State;
use crate::marks::sometimes;
use crate::plan::fault::NodeId;
use crate::plan::{Lock, MS, Mode};
use crate::trace::Kind;
use crate::world::Stage;

/// A live-mutex client.
#[derive(Debug, Default)]
pub(super) struct Dialect {
    pub(super) link: LineLink,
    asks: Vec<Ask>,
}

#[derive(Clone, Copy, Debug)]
struct Ask {
    op: u32,
    uuid: u128,
    sent_ns: u64,
}

impl Driver<'_> {
    fn dialect(&mut self, node: NodeId) -> Option<&mut Dialect> {
        match self.client(node) {
            ClientNode::Dialect(dialect) => Some(dialect),
            _ => None,
        }
    }

    pub(super) fn dialect_acquire(&mut self, node: NodeId, op: u32, lock: &Lock) {
        let uuid = request_id(self.plan, op);
        let key = lock.wants[0].key;
        let ttl = if lock.lease_ns == 0 {
            "null".to_owned()
        } else {
            (lock.lease_ns / MS).to_string()
        };
        let max = match lock.wants[0].mode {
            Mode::Semaphore { capacity, .. } => format!(",\"max\":{capacity}"),
            _ => String::new(),
        };
        let line = format!(
            "{{\"type\":\"lock\",\"uuid\":\"{uuid}\",\"key\":\"k{key}\",\"ttl\":{ttl},\"pid\":7,\
             \"keepLocksAfterDeath\":false,\"retryCount\":0{max}}}"
        );
        let sent_ns = self.now(node).as_nanos();
        let Some(dialect) = self.dialect(node) else {
            return;
        };
        dialect.link.say(&line);
        dialect.asks.push(Ask {
            op,
            uuid: uuid.as_u128(),
            sent_ns,
        });
        if dialect.link.conn.is_none() {
            let conn = self.connect(node);
            self.dialect(node).expect("it is one").link.conn = Some(conn);
        }
        self.write_lines(node);
    }

    pub(super) fn dialect_act(&mut self, node: NodeId, op: u32, act: Act) {
        if matches!(act, Act::Convert | Act::Retry) {
            return;
        }
        let ticket = self.engine.tickets[op as usize];
        let holding = ticket.state == State::Holding;
        if !holding {
            // Withdrawing is the end of its patience; the broker is told.
            if act == Act::HoldEnds {
                return;
            }
        }
        let key = self.engine.lock(ticket).wants[0].key;
        let uuid = request_id(self.plan, op);
        let fresh = request_id(self.plan, op | 1 << 31);
        let line = if holding {
            self.engine.write_fenced(op);
            self.engine.unbelieve(op, "released");
            format!(
                "{{\"type\":\"unlock\",\"uuid\":\"{fresh}\",\"_uuid\":\"{uuid}\",\"key\":\"k{key}\",\"force\":false}}"
            )
        } else {
            format!("{{\"type\":\"lock-client-timeout\",\"uuid\":\"{uuid}\",\"key\":\"k{key}\"}}")
        };
        self.engine.world.trigger(Stage::Released, op);
        if let Some(dialect) = self.dialect(node) {
            dialect.link.say(&line);
            dialect.asks.retain(|ask| ask.op != op);
        }
        // It does not wait for the answer: neither do the others.
        self.close(op);
        self.write_lines(node);
    }

    pub(super) fn dialect_disconnected(&mut self, conn: u32) {
        let node = self.conns[conn as usize].node;
        let Some(dialect) = self.dialect(node) else {
            return;
        };
        if dialect.link.conn != Some(conn) {
            return;
        }
        let lost = std::mem::take(dialect).asks;
        for ask in lost {
            if self.engine.tickets[ask.op as usize].state == State::Holding {
                self.engine.unbelieve(ask.op, "connection lost");
            }
            self.close(ask.op);
        }
    }

    pub(super) fn dialect_line(&mut self, node: NodeId, line: &[u8]) {
        let Ok(reply) = serde_json::from_slice::<serde_json::Value>(line) else {
            let detail = format!("a line is no JSON: {}", String::from_utf8_lossy(line));
            self.engine.violate(crate::Property::Answer, detail);
            return;
        };
        self.engine.note(node, Kind::Told, || reply.to_string());
        let granted = reply["type"] == "lock" && reply["acquired"] == true;
        let Some(dialect) = self.dialect(node).filter(|_| granted) else {
            return;
        };
        let uuid = reply["uuid"].as_str().unwrap_or_default().replace('-', "");
        let uuid = u128::from_str_radix(&uuid, 16).unwrap_or_default();
        let Some(ask) = dialect.asks.iter().copied().find(|ask| ask.uuid == uuid) else {
            return;
        };
        if self.engine.tickets[ask.op as usize].state != State::Waiting {
            return;
        }
        sometimes!(self.engine.marks, DialectGranted);
        let key = self.engine.lock(self.engine.tickets[ask.op as usize]).wants[0].key;
        let received = format!(
            "{{\"type\":\"lock-received\",\"uuid\":\"{}\",\"key\":\"k{key}\"}}",
            request_id(self.plan, ask.op)
        );
        let dialect = self.dialect(node).expect("it is one");
        dialect.link.say(&received);
        let conn = dialect.link.conn;
        let token = reply["fencingToken"].as_u64().unwrap_or(0);
        // It asked in milliseconds.
        let lease_ns = self
            .engine
            .lock(self.engine.tickets[ask.op as usize])
            .lease_ns
            / MS
            * MS;
        // A careful user counts from when it asked.
        let margin_ns = lease_ns / 1_000_000 * u64::from(self.setup.drift_ppm_max);
        // The hold ends with the connection at the latest. If this was written before the
        // broker gave the connection up, that is over, which the client has no way to know.
        let is_over = conn.is_some_and(|conn| self.is_over(conn, ask.op));
        let good_until_ns = match lease_ns {
            _ if is_over => Some(0),
            0 => None,
            _ => Some(ask.sent_ns + lease_ns - margin_ns),
        };
        self.user_holds(ask.op, Some(token), good_until_ns);
    }

    /// Those that an earlier broker cut off, and that are stopped for so long that they have
    /// not learned of it while this one waited for them. Only the end of a connection tells
    /// them that what they held is gone.
    pub(super) fn note_dialects_cut_off(&mut self) {
        if !self.broker.has_taken_over() {
            return;
        }
        for (node, client) in (1..).zip(&self.clients) {
            let conn = match client {
                ClientNode::Dialect(dialect) => dialect.link.connection(),
                ClientNode::Scripted(scripted) => scripted.link.connection(),
                ClientNode::Native(_) | ClientNode::Hostile(_) => None,
            };
            if conn.is_some_and(|conn| !self.broker.is_connected(conn))
                && self.engine.world.paused_until(node).is_some()
            {
                self.engine.holds.forget(node);
            }
        }
    }

    /// The process leaves: its kernel closes the connection.
    pub(super) fn hang_up(&mut self, node: NodeId) {
        let conns = match self.client(node) {
            ClientNode::Dialect(dialect) => dialect.link.conn.take().into_iter().collect(),
            ClientNode::Scripted(scripted) => scripted.link.conn.take().into_iter().collect(),
            ClientNode::Hostile(hostile) => hostile.take_conns(),
            ClientNode::Native(_) => Vec::new(),
        };
        for conn in conns {
            self.end_connection(conn);
        }
    }
}

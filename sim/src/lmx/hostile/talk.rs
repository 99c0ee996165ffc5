//! One that says line after line of live-mutex's, as the plan has it, over connections that it
//! keeps, and believes nothing of what it is told.

use std::borrow::Cow;

use super::super::broker::request_id;
use super::super::driver::{ClientNode, Driver};
use super::Line;
use crate::plan::Plan;
use crate::plan::fault::NodeId;
use crate::trace::Kind;

impl Driver<'_> {
    /// Says a line over the connection of this number, which begins with it if need be.
    pub(in crate::lmx) fn say(&mut self, node: NodeId, op: u32, on: u8, line: &str) {
        self.engine
            .note_about(node, Kind::Ask, (Some(op), None), || {
                format!("{on}> {line}")
            });
        let ClientNode::Hostile(hostile) = self.client(node) else {
            return;
        };
        if hostile.conns.iter().all(|it| it.on != Some(on)) {
            let conn = self.connect(node);
            let output = self.first_line().into_bytes();
            if let ClientNode::Hostile(hostile) = self.client(node) {
                hostile.conns.push(Line {
                    conn,
                    on: Some(on),
                    connected: false,
                    output,
                    written: 0,
                    input: None,
                    is_deaf: false,
                });
            }
        }
        let line = with_ids(self.plan, line);
        if let ClientNode::Hostile(hostile) = self.client(node)
            && let Some(it) = hostile.conns.iter_mut().find(|it| it.on == Some(on))
        {
            it.output.drain(..std::mem::take(&mut it.written));
            it.output.extend_from_slice(line.as_bytes());
            it.output.push(b'\n');
        }
        self.after_hostile(node);
    }

    /// Ends the connection of this number, if there is one.
    pub(in crate::lmx) fn hang_up_on(&mut self, node: NodeId, on: u8) {
        let ClientNode::Hostile(hostile) = self.client(node) else {
            return;
        };
        if let Some(place) = hostile.conns.iter().position(|it| it.on == Some(on)) {
            let conn = hostile.conns.remove(place).conn;
            self.end_connection(conn);
        }
    }

    /// What it is told over such a connection, for those who read along.
    pub(super) fn note_told(&mut self, conn: u32, count: usize) {
        let state = &self.conns[conn as usize];
        let node = state.node;
        let ClientNode::Hostile(hostile) = &self.clients[usize::from(node) - 1] else {
            return;
        };
        let on = hostile
            .conns
            .iter()
            .find(|it| it.conn == conn)
            .and_then(|it| it.on);
        if let Some(on) = on {
            self.engine.note(node, Kind::Told, || {
                let text = String::from_utf8_lossy(state.to_client.peek(count));
                format!("{on}< {}", text.trim_end())
            });
        }
    }
}

/// The line with the ids of the requests that it names by their operations' numbers.
fn with_ids<'a>(plan: &Plan, line: &'a str) -> Cow<'a, str> {
    if !line.contains('%') {
        return Cow::Borrowed(line);
    }
    let parts = line.split('%').enumerate();
    let parts = parts.map(|(place, part)| match part.parse() {
        Ok(op) if place % 2 == 1 => Cow::Owned(request_id(plan, op).to_string()),
        _ => Cow::Borrowed(part),
    });
    Cow::Owned(parts.collect())
}

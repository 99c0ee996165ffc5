//! What live-mutex clients of every kind stand on: one connection that carries lines.

use super::conns::write;
use super::driver::{ClientNode, Driver};
use super::net::Way;
use crate::oracle::is_fault;
use crate::plan::fault::NodeId;

/// A client's end of such a connection.
#[derive(Debug, Default)]
pub(super) struct LineLink {
    /// Its connection, from when it begins to connect.
    pub(super) conn: Option<u32>,
    connected: bool,
    /// What is yet to be written.
    output: Vec<u8>,
    /// A line that has begun to arrive.
    input: Vec<u8>,
    /// It was answered in its own protocol.
    is_known: bool,
}

impl LineLink {
    /// The connection that it believes to have.
    pub(super) fn connection(&self) -> Option<u32> {
        self.conn.filter(|_| self.connected)
    }

    /// Writes a line as soon as that is possible.
    pub(super) fn say(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.push(b'\n');
    }

    /// Bytes have arrived. Returns whether there may be lines among them.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        self.input.extend_from_slice(bytes);
        // A broker that waited too long for the first line says so in its own protocol.
        self.is_known |= self.input[0] == b'{' || !is_fault(&self.input);
        self.is_known
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.input.iter().position(|byte| *byte == b'\n')?;
        Some(self.input.drain(..=end).collect())
    }
}

/// The line by which a client shows its token.
pub(super) fn auth_line(token: &str) -> String {
    format!("{{\"type\":\"auth\",\"token\":\"{token}\"}}\n")
}

/// What that is answered.
const ADMITTED: &[u8] = b"{\"type\":\"auth\",\"authenticated\":true}\n";

impl Driver<'_> {
    fn line_link(&mut self, node: NodeId) -> Option<&mut LineLink> {
        match self.client(node) {
            ClientNode::Dialect(dialect) => Some(&mut dialect.link),
            ClientNode::Scripted(scripted) => Some(&mut scripted.link),
            ClientNode::Native(_) | ClientNode::Hostile(_) => None,
        }
    }

    pub(super) fn line_connected(&mut self, conn: u32) {
        let node = self.conns[conn as usize].node;
        let token = self.setup.tight.token();
        if let Some(link) = self.line_link(node)
            && link.conn == Some(conn)
        {
            link.connected = true;
            if !token.is_empty() {
                let first = auth_line(token);
                link.output.splice(0..0, first.bytes());
            }
        }
    }

    pub(super) fn line_input(&mut self, conn: u32, count: usize) {
        let state = &mut self.conns[conn as usize];
        let node = state.node;
        let bytes = state.to_client.peek(count).to_vec();
        state.to_client.pop(count);
        let link = self.line_link(node).filter(|link| link.conn == Some(conn));
        if !link.is_some_and(|link| link.hear(&bytes)) {
            return;
        }
        // What a line says may make it leave.
        while let Some(link) = self.line_link(node)
            && link.conn == Some(conn)
            && let Some(line) = link.next_line()
        {
            if line == ADMITTED {
                continue;
            }
            if matches!(self.client(node), ClientNode::Dialect(_)) {
                self.dialect_line(node, &line);
            } else {
                self.scripted_line(node, &line);
            }
        }
        self.write_lines(node);
    }

    /// Writes what there is room for.
    pub(super) fn write_lines(&mut self, node: NodeId) {
        let link = match &mut self.clients[usize::from(node) - 1] {
            ClientNode::Dialect(dialect) => &mut dialect.link,
            ClientNode::Scripted(scripted) => &mut scripted.link,
            ClientNode::Native(_) | ClientNode::Hostile(_) => return,
        };
        if let Some(conn) = link.connection()
            && !link.output.is_empty()
        {
            let (way, output) = (Way::ToBroker, &link.output);
            let taken = write(&mut self.engine, &mut self.conns, conn, way, output);
            link.output.drain(..taken);
        }
    }
}

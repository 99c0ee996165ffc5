//! What is always true of a broker. Tests ask after every call.

use super::Broker;
use super::connection::{Connection, Input, Phase};
use super::connections::Queue;

impl Broker {
    /// Asserts every invariant of the broker and of its table. For tests: its cost grows
    /// with both.
    pub fn check(&self) {
        self.table.check();
        let mut buffered = 0;
        let mut bound = 0;
        for index in self.connections.indices() {
            let Some(connection) = self.connections.try_get(index) else {
                continue;
            };
            self.check_connection(index, connection);
            buffered += connection.output.len() + connection.backlog.len();
            bound += usize::from(connection.session.is_some());
        }
        assert_eq!(buffered, self.connections.buffered(), "bytes are counted");
        assert_eq!(
            bound,
            self.sessions.check(),
            "each session knows its connection"
        );
        let counts = self.table.counts();
        assert!(self.sessions.len() <= counts.sessions as usize);
    }

    fn check_connection(&self, index: u32, connection: &Connection) {
        let is_queued = |queue| self.connections.is_queued(queue, index);
        let is_open = connection.phase == Phase::Open;
        let is_closing = connection.phase == Phase::Closing;
        if let Some(session) = connection.session {
            let session = self
                .sessions
                .get(session)
                .expect("a bound session is known");
            assert_eq!(session.connection, Some(self.connections.id(index)));
        }
        let is_member = connection.session.is_some() || connection.in_dialect;
        assert_eq!(is_open, is_member, "whoever is in has said who it is");
        assert!(!(connection.session.is_some() && connection.in_dialect));
        assert!(connection.speaks_lines || !connection.in_dialect);

        // Each wait for the peer has its deadline, and no other has one.
        let is_dropped = is_closing && connection.output.is_empty();
        assert!(is_dropped || is_queued(Queue::Handshake) != is_open);
        let has_begun_line = matches!(&connection.input, Input::Lines(lines) if lines.is_partial());
        let must_be_heard = is_open && (connection.session.is_some() || has_begun_line);
        assert_eq!(is_queued(Queue::Heard), must_be_heard);
        let must_read = !is_closing && !connection.output.is_empty();
        assert_eq!(is_queued(Queue::Stalled), must_read);

        // What is kept waiting waits for room that will come.
        assert!(!is_closing || connection.backlog.is_empty());
        let waits = !connection.backlog.is_empty() || connection.owing.is_some();
        assert!(is_closing || !waits || !connection.output.is_empty());
        let most = 2 * self.config.output_bytes_max as usize;
        // A reply more, the fault that ends it, and a frame's length.
        let most = most + self.config.frame_bytes_max as usize + 1024;
        assert!(connection.output.len() <= most, "output is bounded");
        assert!(connection.told.wrapping_sub(connection.seen) < u32::MAX / 2);
    }
}

//! The connections of a broker: slots, the queues that link them, and their buffers.

use crate::planted::planted;
use alloc::{boxed::Box, vec::Vec};

use super::connection::Connection;
use crate::Instant;
use crate::wire::{Answer, ReplyRef, frame};

/// Buffers kept for the next connection that needs one, and how large each may be: enough
/// that a busy broker allocates nothing, and an idle connection has none.
const SPARES_MAX: usize = 32;
const SPARE_BYTES_MAX: usize = 64 * 1024;

const NONE: u32 = u32::MAX;

/// A connection of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(crate) const fn new(index: u32, generation: u32) -> Self {
        Self(((generation as u64) << 32) | index as u64)
    }

    /// The number that names this connection in logs.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of the connection's slot: small, and no other open connection's, so
    /// that a transport can keep what it knows of connections in a vector.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }
}

/// What a connection can be queued for. Each queue is in order of time, for each of the
/// first three has one delay, the same for all in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Has not finished its handshake, or is closing.
    Handshake,
    /// Must be heard from: a native session, or a line that was begun.
    Heard,
    /// Has output, and must read some of it.
    Stalled,
    /// Has changed since the transport last looked at it.
    Ready,
}

const QUEUES: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Link {
    queued: bool,
    since: Instant,
    before: u32,
    after: u32,
}

impl Link {
    const LOOSE: Self = Self {
        queued: false,
        since: Instant::EPOCH,
        before: NONE,
        after: NONE,
    };
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    links: [Link; QUEUES],
    connection: Option<Box<Connection>>,
}

/// Every connection, by index.
#[derive(Debug)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
    ends: [Ends; QUEUES],
    spares: Vec<Vec<u8>>,
    /// Bytes of all outputs and backlogs together.
    buffered: usize,
    /// Whether `touched` is kept.
    notes_touched: bool,
    /// Counts the calls from outside.
    call: u64,
    /// Whose output this call has added to.
    touched: Vec<u32>,
}

impl Connections {
    pub(super) const fn new(notes_touched: bool) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            ends: [Ends {
                first: NONE,
                last: NONE,
            }; QUEUES],
            spares: Vec::new(),
            buffered: 0,
            notes_touched,
            call: 0,
            touched: Vec::new(),
        }
    }

    /// A call from outside begins.
    pub(super) fn begin_call(&mut self) {
        self.call += 1;
        self.touched.clear();
    }

    /// Whose output this call has added to, and how long each was before. Needs to have
    /// been asked for.
    pub(super) fn touched(&self) -> Vec<(u32, usize)> {
        self.touched
            .iter()
            .filter_map(|&index| {
                let (call, before) = self.try_get(index)?.touched;
                (call == self.call).then_some((index, before))
            })
            .collect()
    }

    pub(super) fn len(&self) -> u32 {
        (self.slots.len() - self.free.len()) as u32
    }

    pub(super) fn insert(&mut self, connection: Connection) -> u32 {
        let connection = Some(Box::new(connection));
        if let Some(index) = self.free.pop() {
            self.slots[index as usize].connection = connection;
            return index;
        }
        let index = u32::try_from(self.slots.len()).expect("fewer connections than u32 counts");
        self.slots.push(Slot {
            generation: 0,
            links: [Link::LOOSE; QUEUES],
            connection,
        });
        index
    }

    /// Forgets the connection and takes it out of every queue.
    pub(super) fn remove(&mut self, index: u32) {
        for queue in [Queue::Handshake, Queue::Heard, Queue::Stalled, Queue::Ready] {
            self.unlink(queue, index);
        }
        self.drop_output(index);
        let backlog = self.take_backlog(index);
        self.give_back(backlog);
        let slot = &mut self.slots[index as usize];
        slot.connection = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
    }

    pub(super) fn id(&self, index: u32) -> ConnectionId {
        ConnectionId::new(index, self.slots[index as usize].generation)
    }

    /// Where the connection is, if it is still there.
    pub(super) fn index(&self, id: ConnectionId) -> Option<u32> {
        let slot = self.slots.get(id.index() as usize)?;
        let index = id.index();
        (slot.connection.is_some() && ConnectionId::new(index, slot.generation) == id)
            .then_some(index)
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.slots.len() as u32
    }

    pub(super) fn try_get_mut(&mut self, index: u32) -> Option<&mut Connection> {
        self.slots[index as usize].connection.as_deref_mut()
    }

    pub(super) fn try_get(&self, index: u32) -> Option<&Connection> {
        self.slots[index as usize].connection.as_deref()
    }

    /// Puts the connection at the end of the queue, wherever in it it was.
    pub(super) fn requeue(&mut self, queue: Queue, index: u32, now: Instant) {
        self.unlink(queue, index);
        let at = queue as usize;
        let before = core::mem::replace(&mut self.ends[at].last, index);
        match before {
            NONE => self.ends[at].first = index,
            before => self.slots[before as usize].links[at].after = index,
        }
        self.slots[index as usize].links[at] = Link {
            queued: true,
            since: now,
            before,
            after: NONE,
        };
    }

    /// Puts the connection at the end of the queue unless it is in it.
    pub(super) fn enqueue(&mut self, queue: Queue, index: u32, now: Instant) {
        if !self.is_queued(queue, index) {
            self.requeue(queue, index, now);
        }
    }

    pub(super) fn unlink(&mut self, queue: Queue, index: u32) {
        let at = queue as usize;
        let link = core::mem::replace(&mut self.slots[index as usize].links[at], Link::LOOSE);
        if !link.queued {
            return;
        }
        match link.before {
            NONE => self.ends[at].first = link.after,
            before => self.slots[before as usize].links[at].after = link.after,
        }
        match link.after {
            NONE => self.ends[at].last = link.before,
            after => self.slots[after as usize].links[at].before = link.before,
        }
    }

    pub(super) fn is_queued(&self, queue: Queue, index: u32) -> bool {
        self.slots[index as usize].links[queue as usize].queued
    }

    /// The first in the queue, and since when it is in it.
    pub(super) fn first(&self, queue: Queue) -> Option<(u32, Instant)> {
        match self.ends[queue as usize].first {
            NONE => None,
            index => Some((
                index,
                self.slots[index as usize].links[queue as usize].since,
            )),
        }
    }

    /// Appends a message to the connection's output.
    pub(super) fn send(&mut self, now: Instant, index: u32, tag: u32, body: &Answer<'_>) {
        let ahead = core::time::Duration::from_millis(u64::from(planted!("clock-ahead")));
        let now = now + ahead;
        let reply = ReplyRef { now, tag, body };
        if matches!(body, Answer::Queued { .. }) {
            // It was asked for, but what is waited for is the grant.
            self.write_courtesy(now, index, |output| frame::append(&reply, output));
        } else {
            self.write(now, index, |output| frame::append(&reply, output));
        }
    }

    /// Lets `write` append to the connection's output.
    pub(super) fn write(&mut self, now: Instant, index: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.write_courtesy(now, index, write);
        self[index].output.note_awaited();
    }

    /// The same, for what nobody waits for.
    pub(super) fn write_courtesy(
        &mut self,
        now: Instant,
        index: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let spares = &mut self.spares;
        let connection = self.slots[index as usize]
            .connection
            .as_mut()
            .expect("only connections that are there are written to");
        let output = &mut connection.output;
        if self.notes_touched && connection.touched.0 != self.call {
            connection.touched = (self.call, output.len());
            self.touched.push(index);
        }
        let before = output.len();
        write(output.buffer(|| spares.pop().unwrap_or_default()));
        self.buffered += output.len() - before;
        self.enqueue(Queue::Stalled, index, now);
        self.enqueue(Queue::Ready, index, now);
    }

    /// Takes `bytes` off the connection's output.
    pub(super) fn consume(&mut self, now: Instant, index: u32, bytes: usize) {
        self[index].output.consume(bytes);
        self.buffered -= bytes;
        if self[index].output.is_empty() {
            self.drop_output(index);
            self.unlink(Queue::Stalled, index);
        } else if bytes > 0 && !self[index].is_closing() {
            self.requeue(Queue::Stalled, index, now);
        }
    }

    /// Drops the lines queued towards the peer of which it was sent nothing.
    pub(super) fn drop_lines(&mut self, index: u32) {
        let before = self[index].output.len();
        self[index].output.drop_lines();
        self.buffered -= before - self[index].output.len();
    }

    /// Drops what is queued towards the peer.
    pub(super) fn drop_output(&mut self, index: u32) {
        self.buffered -= self[index].output.len();
        let buffer = self[index].output.take_buffer();
        self.give_back(buffer);
    }

    /// Bytes of all outputs and backlogs together.
    pub(super) fn buffered(&self) -> usize {
        self.buffered
    }

    /// Keeps `bytes` for when the connection's output has room again.
    pub(super) fn keep(&mut self, index: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self[index].backlog.capacity() == 0 {
            self[index].backlog = self.spares.pop().unwrap_or_default();
        }
        self[index].backlog.extend_from_slice(bytes);
        self.buffered += bytes.len();
    }

    /// What was kept.
    pub(super) fn take_backlog(&mut self, index: u32) -> Vec<u8> {
        let backlog = core::mem::take(&mut self[index].backlog);
        self.buffered -= backlog.len();
        backlog
    }

    /// Puts the end of what was taken back.
    pub(super) fn return_backlog(&mut self, index: u32, mut backlog: Vec<u8>, left: usize) {
        if left == 0 {
            self.give_back(backlog);
        } else {
            backlog.drain(..backlog.len() - left);
            self.buffered += left;
            self[index].backlog = backlog;
        }
    }

    /// Takes a buffer that is no longer needed, for the next who needs one.
    fn give_back(&mut self, mut buffer: Vec<u8>) {
        let useful = buffer.capacity() > 0 && buffer.capacity() <= SPARE_BYTES_MAX;
        if useful && self.spares.len() < SPARES_MAX {
            buffer.clear();
            self.spares.push(buffer);
        }
    }
}

impl core::ops::Index<u32> for Connections {
    type Output = Connection;

    fn index(&self, index: u32) -> &Connection {
        self.try_get(index).expect("the slot is in use")
    }
}

impl core::ops::IndexMut<u32> for Connections {
    fn index_mut(&mut self, index: u32) -> &mut Connection {
        self.slots[index as usize]
            .connection
            .as_deref_mut()
            .expect("the slot is in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_while_they_are_few_and_small() {
        let mut connections = Connections::new(false);
        connections.give_back(Vec::new());
        assert_eq!(connections.spares.len(), 0);
        connections.give_back(Vec::with_capacity(SPARE_BYTES_MAX + 1));
        assert_eq!(connections.spares.len(), 0);
        for _ in 0..=SPARES_MAX {
            connections.give_back(alloc::vec![1; SPARE_BYTES_MAX]);
        }
        assert_eq!(connections.spares.len(), SPARES_MAX);
        assert!(connections.spares.iter().all(Vec::is_empty));
    }
}

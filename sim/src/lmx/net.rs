//! Connections: two pipes of bytes, cut anywhere, with a window, a state at each end,
//! and the oracle's tap on both.

use std::collections::VecDeque;

use lmx_core::broker::ConnectionId;

use super::driver::BROKER;
use crate::oracle::ledger::Tap;
use crate::plan::fault::NodeId;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToBroker,
    ToClient,
}

impl Way {
    /// The other way.
    pub(super) const fn back(self) -> Self {
        match self {
            Self::ToBroker => Self::ToClient,
            Self::ToClient => Self::ToBroker,
        }
    }
}

/// The state of one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Not yet there.
    Opening,
    Open,
    Closed,
}

/// A connection between a client and the broker.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) node: NodeId,
    pub(super) id: Option<ConnectionId>,
    pub(super) client_end: End,
    pub(super) broker_end: End,
    /// It broke, and at least one end does not know yet: nothing gets through.
    pub(super) broken: bool,
    pub(super) to_broker: Pipe,
    pub(super) to_client: Pipe,
    pub(super) tap: Tap,
}

impl Conn {
    pub(super) fn new(number: u32, node: NodeId, frame_bytes_max: u32) -> Self {
        Self {
            node,
            id: None,
            client_end: End::Opening,
            broker_end: End::Opening,
            broken: false,
            to_broker: Pipe::default(),
            to_client: Pipe::default(),
            tap: Tap::new(number, frame_bytes_max),
        }
    }

    /// From which node to which `way` leads.
    pub(super) const fn ends(&self, way: Way) -> (NodeId, NodeId) {
        match way {
            Way::ToBroker => (self.node, BROKER),
            Way::ToClient => (BROKER, self.node),
        }
    }

    /// The end that `way` leads to.
    pub(super) const fn reader(&mut self, way: Way) -> &mut End {
        match way {
            Way::ToBroker => &mut self.broker_end,
            Way::ToClient => &mut self.client_end,
        }
    }

    pub(super) const fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::ToBroker => &mut self.to_broker,
            Way::ToClient => &mut self.to_client,
        }
    }
}

/// The mark of a chunk that is the end of the stream.
const END: u32 = u32::MAX;

/// One direction: bytes under way, in chunks that arrive one after the other.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    bytes: Vec<u8>,
    head: usize,
    chunks: VecDeque<u32>,
    pub(super) last_arrival_ns: u64,
    /// Chunks that arrived when the reader did not want them; it is asked again later.
    pub(super) refused: u32,
}

/// What arrives next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Bytes(usize),
    End,
}

impl Pipe {
    pub(super) const fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Takes in as much of `bytes` as the window has room for, as one chunk.
    pub(super) fn push(&mut self, bytes: &[u8], window_bytes: u32) -> usize {
        let room = (window_bytes as usize).saturating_sub(self.len());
        let taken = bytes.len().min(room);
        if taken > 0 {
            self.bytes.extend_from_slice(&bytes[..taken]);
            self.chunks.push_back(taken as u32);
        }
        taken
    }

    pub(super) fn push_end(&mut self) {
        self.chunks.push_back(END);
    }

    pub(super) fn front(&self) -> Option<Chunk> {
        self.chunks.front().map(|chunk| match *chunk {
            END => Chunk::End,
            count => Chunk::Bytes(count as usize),
        })
    }

    /// The next `count` bytes, which are no more than the first chunk has.
    pub(super) fn peek(&self, count: usize) -> &[u8] {
        &self.bytes[self.head..self.head + count]
    }

    /// Takes the next `count` bytes out. Says whether the chunk had more.
    pub(super) fn pop(&mut self, count: usize) -> bool {
        self.head += count;
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
        } else if self.head > 4096 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        let Some(chunk) = self.chunks.front_mut() else {
            return false;
        };
        *chunk -= count as u32;
        if *chunk == 0 {
            self.chunks.pop_front();
            return false;
        }
        true
    }

    /// What is under way is lost.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gives_out_what_was_put_in_however_it_is_cut() {
        let mut pipe = Pipe::default();
        assert_eq!(pipe.push(b"abcdef", 4), 4);
        assert_eq!(pipe.push(b"ef", 4), 0);
        assert_eq!(pipe.front(), Some(Chunk::Bytes(4)));
        assert_eq!(pipe.peek(1), b"a");
        assert!(pipe.pop(1));
        assert_eq!(pipe.push(b"ef", 4), 1);
        pipe.push_end();
        assert_eq!(pipe.peek(3), b"bcd");
        assert!(!pipe.pop(3));
        assert_eq!(pipe.peek(1), b"e");
        assert!(!pipe.pop(1));
        assert_eq!(pipe.front(), Some(Chunk::End));
    }
}

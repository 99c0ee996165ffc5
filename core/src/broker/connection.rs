//! One connection: where its protocol stands, and what is queued towards its peer.

use alloc::vec::Vec;

use super::lines::LineDecoder;
use crate::SessionId;
use crate::wire::frame::Decoder;

/// What has been taken from the front of an output is moved out of the way once it is this
/// long and half of the whole.
const COMPACT_BYTES_MIN: usize = 4096;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    pub(super) input: Input,
    /// Arrived while the output was full: not looked at yet.
    pub(super) backlog: Vec<u8>,
    pub(super) output: Output,
    /// The last call that added to the output, and how long that was before it did.
    pub(super) touched: (u64, usize),
    /// Faults are told in lines of JSON instead of frames.
    pub(super) speaks_lines: bool,
    /// The dialect knows this connection.
    pub(super) in_dialect: bool,
    /// The native session that is bound to this connection.
    pub(super) session: Option<SessionId>,
    /// Replies with tag zero sent here.
    pub(super) told: u32,
    /// Of these, how many the client has confirmed.
    pub(super) seen: u32,
    /// The session that has events for which the output had no room.
    pub(super) owing: Option<SessionId>,
}

impl Connection {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Handshake,
            input: Input::Magic { matched: 0 },
            backlog: Vec::new(),
            output: Output::new(),
            touched: (0, 0),
            speaks_lines: false,
            in_dialect: false,
            session: None,
            told: 0,
            seen: 0,
            owing: None,
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }
}

/// ```text
/// Handshake ──▶ Open ──▶ Closing
///     └──────────────────▲
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is allowed yet but to say who it is.
    Handshake,
    /// Requests are carried out.
    Open,
    /// Only its output matters.
    Closing,
}

/// How what arrives is cut into messages.
#[derive(Debug)]
pub(super) enum Input {
    /// The protocol is not known yet; so many bytes of the magic have come.
    Magic {
        /// How many.
        matched: u8,
    },
    /// The native protocol.
    Frames(Decoder),
    /// live-mutex's protocol.
    Lines(LineDecoder),
}

/// Bytes queued towards the peer.
#[derive(Debug)]
pub(super) struct Output {
    bytes: Vec<u8>,
    taken: usize,
    /// The last byte that was taken.
    last_taken: Option<u8>,
    /// Some of it is more than a courtesy: somebody waits for it.
    is_awaited: bool,
    /// From where on it is not to be shown before which version of the broker's record is
    /// durable. Both rise.
    barriers: Vec<Barrier>,
}

#[derive(Debug)]
struct Barrier {
    /// Bytes before it that are yet to be taken.
    before: usize,
    version: u64,
}

impl Output {
    const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
            last_taken: None,
            is_awaited: false,
            barriers: Vec::new(),
        }
    }

    /// What may be shown.
    pub(super) fn as_slice(&self) -> &[u8] {
        let rest = &self.bytes[self.taken..];
        match self.barriers.first() {
            Some(barrier) => &rest[..barrier.before],
            None => rest,
        }
    }

    /// Whether there is some, and nobody waits for any of it.
    pub(super) fn can_wait(&self) -> bool {
        !self.is_awaited && !self.is_empty()
    }

    /// Somebody waits for what was appended.
    pub(super) fn note_awaited(&mut self) {
        self.is_awaited = true;
    }

    /// Whether some of it may not be shown yet.
    pub(super) fn is_held_back(&self) -> bool {
        !self.barriers.is_empty()
    }

    /// Holds back what comes after the first `before` bytes, or is still to come, until
    /// `version` is durable. Returns whether anything was not held back already.
    pub(super) fn hold_back(&mut self, before: usize, version: u64) -> bool {
        // What is held back for an earlier version may wait for this one, too.
        let last = self.barriers.last();
        if last.is_some_and(|last| last.version >= version && last.before <= before) {
            return false;
        }
        self.barriers.retain(|barrier| barrier.before < before);
        self.barriers.push(Barrier { before, version });
        true
    }

    /// `version` is durable. Returns whether something is still held back.
    pub(super) fn release(&mut self, version: u64) -> bool {
        self.barriers.retain(|barrier| barrier.version > version);
        self.is_held_back()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer to append to; `spare` gives one if there is none.
    pub(super) fn buffer(&mut self, spare: impl FnOnce() -> Vec<u8>) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = spare();
        }
        &mut self.bytes
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        assert!(
            bytes <= self.as_slice().len(),
            "the transport wrote more than there was"
        );
        if bytes > 0 {
            self.last_taken = Some(self.bytes[self.taken + bytes - 1]);
        }
        self.taken += bytes;
        for barrier in &mut self.barriers {
            barrier.before -= bytes;
        }
        if self.taken >= COMPACT_BYTES_MIN && self.taken * 2 >= self.bytes.len() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// Drops the lines of which nothing was taken.
    pub(super) fn drop_lines(&mut self) {
        let rest = &self.bytes[self.taken..];
        let kept = match self.last_taken {
            None | Some(b'\n') => 0,
            Some(_) => rest
                .iter()
                .position(|&byte| byte == b'\n')
                .map_or(rest.len(), |at| at + 1),
        };
        self.bytes.truncate(self.taken + kept);
        self.barriers.retain(|barrier| barrier.before < kept);
    }

    /// Drops what is queued and lets go of the buffer.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        self.barriers.clear();
        self.taken = 0;
        self.is_awaited = false;
        core::mem::take(&mut self.bytes)
    }
}

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
    /// The session has events that the output had no room for.
    pub(super) owes_events: bool,
}

impl Connection {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Handshake,
            input: Input::Magic { matched: 0 },
            backlog: Vec::new(),
            output: Output::new(),
            speaks_lines: false,
            in_dialect: false,
            session: None,
            told: 0,
            seen: 0,
            owes_events: false,
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
}

impl Output {
    const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.taken..]
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
            bytes <= self.len(),
            "the transport wrote more than there was"
        );
        self.taken += bytes;
        if self.taken >= COMPACT_BYTES_MIN && self.taken * 2 >= self.bytes.len() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// Drops what is queued and lets go of the buffer.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        self.taken = 0;
        core::mem::take(&mut self.bytes)
    }
}

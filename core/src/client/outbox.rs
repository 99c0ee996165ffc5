//! What is to be written to the broker, and what it has not answered.

use alloc::vec::Vec;

use super::flight::{About, Flight};
use super::types::LockRequest;
use crate::Instant;
use crate::table::Wait;
use crate::wire::{AcquireFields, Command, MAGIC, Request, SeqBuf, WantFields, frame};

/// Written bytes are dropped from the front once there are so many of them.
const COMPACT_BYTES: usize = 64 * 1024;

/// More than the encoding of a want adds to its key: the key's length and the mode.
const WANT_BYTES: usize = 24;

#[derive(Debug)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    pub(super) flight: Flight,
    /// Replies with tag zero that arrived over this connection.
    pub(super) seen: u32,
    /// Longest body that the broker takes.
    pub(super) body_bytes_max: u32,
    /// When something was last put here.
    pub(super) sent_at: Instant,
    scratch: Vec<u8>,
}

/// The command is longer than the broker takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooLarge {
    pub(super) bytes: usize,
    pub(super) bytes_max: u32,
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            written: 0,
            flight: Flight::new(),
            seen: 0,
            body_bytes_max: u32::MAX,
            sent_at: Instant::EPOCH,
            scratch: Vec::new(),
        }
    }

    /// A connection begins: nothing is left of the one before.
    pub(super) fn begin(&mut self) {
        self.clear();
        self.bytes.extend_from_slice(&MAGIC);
        self.seen = 0;
        self.body_bytes_max = u32::MAX;
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    pub(super) fn output(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes);
        if self.written >= self.bytes.len() {
            self.clear();
        } else if self.written >= COMPACT_BYTES {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    pub(super) fn send(
        &mut self,
        now: Instant,
        about: About,
        body: Command<'_>,
    ) -> Result<(), TooLarge> {
        let before = self.bytes.len();
        let request = Request {
            tag: self.flight.push(now, about),
            seen: self.seen,
            body,
        };
        frame::append(&request, &mut self.bytes);
        let bytes = self.bytes.len() - before - frame::LENGTH_BYTES;
        if bytes > self.body_bytes_max as usize {
            self.bytes.truncate(before);
            self.flight.pop();
            return Err(TooLarge {
                bytes,
                bytes_max: self.body_bytes_max,
            });
        }
        self.sent_at = now;
        Ok(())
    }

    /// Sends a command that names the whole request.
    pub(super) fn send_request(
        &mut self,
        now: Instant,
        about: About,
        request: &LockRequest,
        wait: Wait,
        command: impl FnOnce(AcquireFields<'_>) -> Command<'_>,
    ) -> Result<(), TooLarge> {
        let keys: usize = request.wants.iter().map(|(key, _)| key.len()).sum();
        let mut scratch = core::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.resize(keys + request.wants.len() * WANT_BYTES, 0);
        let mut wants = SeqBuf::new(&mut scratch);
        for (key, mode) in &request.wants {
            let fits = wants.push(&WantFields { key, mode: *mode });
            assert!(fits, "there is room for every want");
        }
        let fields = AcquireFields {
            id: request.id,
            wants: wants.finish(),
            lease: request.lease,
            wait,
            keep: request.keep,
            notify_contended: request.notify_contended,
            label: &request.label,
            owner: request.owner,
            lock_delay: request.lock_delay,
        };
        let result = self.send(now, about, command(fields));
        self.scratch = scratch;
        result
    }
}

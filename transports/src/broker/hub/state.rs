//! What is behind the lock: the machine, and the sockets that hang on it.
//!
//! Whoever has the lock carries the consequences of what it did to the sockets of
//! all others (`settle`): a grant is written to its holder's socket by the thread
//! that processed the release, without waking anybody.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use lmx_core::Instant;
use lmx_core::broker::{Broker as Machine, ConnectionId, Record};
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::super::links::{Link, Links};
use super::super::socket::Socket;
use super::LINGER_MAX;
use crate::clock;

/// Bytes that a peer may still send after the last ones to it, before it is cut.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// Connections in that state at one time; more are cut.
const LINGERING_MAX: usize = 1024;
/// How long it may take, on a busy broker, to be told that one waits.
pub(super) const PUT_OFF_MAX: Duration = Duration::from_millis(5);
/// Sockets read before they are answered: in turn with one at a time 4 % more cycles/s, for
/// which the processor's nearest cache, too small for the kernel's code of both, may be the
/// reason. More gained nothing, and would keep the first of them waiting.
pub(super) const READS_MAX: usize = 16;
/// More than so many bytes are worth a write of their own.
const PUT_OFF_BYTES_MAX: usize = 1024;

/// What is behind the lock.
#[derive(Debug)]
pub(in crate::broker) struct State {
    pub(in crate::broker) machine: Machine,
    /// To the thread that makes records durable, if the broker keeps any.
    records: Option<async_channel::Sender<Record>>,
    pub(super) links: Links,
    pub(super) sockets: Slab<SocketLink>,
    registry: Registry,
    /// Sockets that may have more to read than was read.
    hungry: Vec<usize>,
    /// Sockets that were read since the last [`State::settle`], in that order.
    askers: Vec<usize>,
    /// Sockets whose output can wait, in the order of their deadlines: what often is soon
    /// followed by more, and then is one write with it, and one wake-up of the peer.
    put_off: VecDeque<Deadline>,
    /// Events have lately come close upon each other, so more are likely to.
    is_busy: bool,
    /// Sockets that the machine has forgotten, in the order of their deadlines.
    closing: VecDeque<Deadline>,
    serial: u64,
    /// When the readiness loop wakes by itself.
    wake_at: Option<Instant>,
    /// Set when a descriptor was closed: a listener that ran out may try again.
    has_freed_descriptors: bool,
}

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is independent of the others"
)]
pub(super) struct SocketLink {
    socket: Socket,
    phase: Phase,
    /// Tells it from others that had or will have the same slot.
    serial: u64,
    /// There may be something to read.
    is_readable: bool,
    /// The last write took all it was given.
    is_writable: bool,
    /// It is in [`State::hungry`].
    is_hungry: bool,
    /// It is in [`State::askers`].
    is_asker: bool,
    /// The peer has ended its side: read to the end whatever short reads suggest.
    is_ending: bool,
    /// It is in [`State::put_off`].
    is_put_off: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open(ConnectionId),
    /// All was said; what still comes, up to so many bytes, is thrown away, so that no
    /// reset overtakes our last words.
    Draining(usize),
}

#[derive(Debug)]
struct Deadline {
    at: Instant,
    slot: usize,
    serial: u64,
}

impl State {
    pub(super) fn new(
        machine: Machine,
        registry: Registry,
        records: Option<async_channel::Sender<Record>>,
    ) -> Self {
        Self {
            machine,
            records,
            links: Links::default(),
            sockets: Slab::new(),
            registry,
            hungry: Vec::new(),
            askers: Vec::with_capacity(READS_MAX),
            put_off: VecDeque::new(),
            is_busy: false,
            closing: VecDeque::new(),
            serial: 0,
            wake_at: None,
            has_freed_descriptors: false,
        }
    }

    /// A connection was accepted.
    pub(in crate::broker) fn add_socket(&mut self, now: Instant, mut socket: Socket) {
        let phase = match self.machine.connect(now) {
            Ok(id) => Phase::Open(id),
            Err(error) => {
                tracing::debug!(%error, "a connection is refused");
                // Its first bytes fit in any socket's buffer.
                let _ = socket.write(&error.reply(now));
                Phase::Draining(DRAIN_BYTES_MAX)
            }
        };
        let entry = self.sockets.vacant_entry();
        let slot = entry.key();
        if let Err(error) = socket.register(&self.registry, Token(slot)) {
            tracing::warn!(%error, "cannot watch a new connection; it is closed");
            if let Phase::Open(id) = phase {
                self.machine.handle_disconnect(now, id);
            }
            return;
        }
        self.serial += 1;
        entry.insert(SocketLink {
            socket,
            phase,
            serial: self.serial,
            is_readable: false,
            is_writable: true,
            is_hungry: false,
            is_asker: false,
            is_ending: false,
            is_put_off: false,
        });
        match phase {
            Phase::Open(id) => self.links.insert(id, Link::Socket(slot)),
            Phase::Draining(_) => self.linger(now, slot),
        }
    }

    /// The poller says that something can be read, or that the peer is ending. What comes
    /// of it is written by [`settle`](Self::settle), which is to be called before the lock
    /// is given back.
    pub(in crate::broker) fn handle_readable(
        &mut self,
        slot: usize,
        is_ending: bool,
        buffer: &mut [u8],
    ) {
        if let Some(link) = self.sockets.get_mut(slot) {
            link.is_readable = true;
            link.is_ending |= is_ending;
            self.read(slot, buffer);
        }
    }

    /// The poller says that writing goes on.
    pub(in crate::broker) fn handle_writable(&mut self, now: Instant, slot: usize) {
        let Some(link) = self.sockets.get_mut(slot) else {
            return;
        };
        if !link.is_writable {
            link.is_writable = true;
            let _ = link
                .socket
                .reregister(&self.registry, Token(slot), Interest::READABLE);
            self.flush(now, slot);
            self.settle(now);
        }
    }

    /// Reads once, and again for those that had more than was read. What comes of it is
    /// written by [`settle`](Self::settle).
    pub(in crate::broker) fn read_hungry(&mut self, buffer: &mut [u8]) {
        for slot in std::mem::take(&mut self.hungry) {
            if let Some(link) = self.sockets.get_mut(slot) {
                link.is_hungry = false;
                self.read(slot, buffer);
            }
        }
    }

    fn read_again(&mut self, slot: usize) {
        if let Some(link) = self.sockets.get_mut(slot)
            && !link.is_hungry
        {
            link.is_hungry = true;
            self.hungry.push(slot);
        }
    }

    fn read(&mut self, slot: usize, buffer: &mut [u8]) {
        let Some(link) = self.sockets.get_mut(slot) else {
            return;
        };
        let Phase::Open(id) = link.phase else {
            return self.drain(slot, buffer);
        };
        if !link.is_readable || !self.machine.wants_input(id) {
            return;
        }
        match link.socket.read(buffer) {
            Ok(0) => self.lose(slot),
            Ok(bytes) => {
                // A short read says that there was no more; an edge will tell of new
                // bytes. One read per round keeps a busy peer from starving the others.
                if bytes < buffer.len() && !link.is_ending {
                    link.is_readable = false;
                }
                // Not before the read: what a peer sent after `now` must not be taken
                // for older than it is, or its lease would end before it thinks.
                let now = clock::now();
                self.machine.handle_input(now, id, &buffer[..bytes]);
                if !link.is_asker {
                    link.is_asker = true;
                    self.askers.push(slot);
                }
                if link.is_readable {
                    self.read_again(slot);
                }
                if self.askers.len() >= READS_MAX {
                    self.settle(now);
                } else {
                    self.settle_others(now);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                link.is_readable = false;
                link.is_ending = false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.read_again(slot),
            Err(_) => self.lose(slot),
        }
    }

    /// The peer is gone, as a read has shown. Whoever gains from that is told.
    fn lose(&mut self, slot: usize) {
        let now = clock::now();
        self.disconnect(now, slot);
        self.settle_others(now);
    }

    /// Writes, closes and reads on wherever the machine has changed its mind.
    pub(in crate::broker) fn settle(&mut self, now: Instant) {
        loop {
            self.settle_others(now);
            if self.askers.is_empty() {
                return;
            }
            let mut askers = std::mem::take(&mut self.askers);
            for slot in askers.drain(..) {
                // It may have been closed meanwhile.
                if let Some(link) = self.sockets.get_mut(slot) {
                    link.is_asker = false;
                    self.flush(now, slot);
                }
            }
            self.askers = askers;
        }
    }

    /// As [`settle`](Self::settle), but without those that asked. They come last: who was
    /// granted a lock by what they asked has waited for it, and others wait for him.
    fn settle_others(&mut self, now: Instant) {
        while let Some(id) = self.machine.poll_connection() {
            match self.links.get(id) {
                Some(&Link::Socket(slot)) if self.sockets[slot].is_asker => {}
                Some(&Link::Socket(slot)) => self.flush(now, slot),
                Some(Link::Stream(waker)) => waker.wake(),
                None => {}
            }
        }
        if let Some(records) = &self.records
            && let Some(record) = self.machine.poll_record()
        {
            // There is room: the machine gives the next one when this one is durable.
            let _ = records.try_send(record);
        }
    }

    /// Writes what there is. If that shows that the peer is gone, others may gain from it:
    /// they are left to [`settle`](Self::settle), which is to be called afterwards. (Were they
    /// written to from here, a crowd that waits for one key and dies together would be as many
    /// calls deep.)
    fn flush(&mut self, now: Instant, slot: usize) {
        let link = &mut self.sockets[slot];
        let Phase::Open(id) = link.phase else {
            return;
        };
        let can_wait = self.is_busy
            && self.machine.output_can_wait(id)
            && self.machine.output(id).len() <= PUT_OFF_BYTES_MAX
            && !self.machine.is_closing(id);
        if can_wait && !link.is_put_off {
            link.is_put_off = true;
            self.put_off.push_back(Deadline {
                at: now + PUT_OFF_MAX,
                slot,
                serial: link.serial,
            });
        }
        while !can_wait && link.is_writable {
            let output = self.machine.output(id);
            if output.is_empty() {
                break;
            }
            let length = output.len();
            match link.socket.write(output) {
                Ok(bytes) => {
                    self.machine.consume_output(now, id, bytes);
                    if bytes < length {
                        // The next write would only say that it blocks.
                        link.is_writable = false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.is_writable = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.disconnect(now, slot),
            }
            if !link.is_writable {
                let watched = link.socket.reregister(
                    &self.registry,
                    Token(slot),
                    Interest::READABLE | Interest::WRITABLE,
                );
                if watched.is_err() {
                    return self.disconnect(now, slot);
                }
            }
        }
        if self.machine.is_closing(id) {
            if self.machine.output(id).is_empty() {
                self.end(now, slot, id);
            }
        } else if link.is_readable && self.machine.wants_input(id) {
            self.read_again(slot);
        }
    }

    /// The peer is gone. To be followed by [`settle`](Self::settle), as [`flush`](Self::flush).
    pub(super) fn disconnect(&mut self, now: Instant, slot: usize) {
        if let Phase::Open(id) = self.sockets[slot].phase {
            self.forget(now, id);
        }
        self.close(slot);
    }

    fn forget(&mut self, now: Instant, id: ConnectionId) {
        self.links.remove(id);
        self.machine.handle_disconnect(now, id);
    }

    /// The broker is done with the peer, and has said so.
    fn end(&mut self, now: Instant, slot: usize, id: ConnectionId) {
        self.sockets[slot].phase = Phase::Draining(DRAIN_BYTES_MAX);
        self.forget(now, id);
        self.linger(now, slot);
    }

    /// Ends our side of a connection, and waits a little for the peer to end its own.
    fn linger(&mut self, now: Instant, slot: usize) {
        let link = &self.sockets[slot];
        let has_ended = link.socket.end_writing().is_err();
        if has_ended || self.closing.len() >= LINGERING_MAX {
            return self.close(slot);
        }
        self.closing.push_back(Deadline {
            at: now + LINGER_MAX,
            slot,
            serial: link.serial,
        });
        self.read_again(slot);
    }

    fn drain(&mut self, slot: usize, buffer: &mut [u8]) {
        let link = &mut self.sockets[slot];
        let Phase::Draining(left) = &mut link.phase else {
            return;
        };
        match link.socket.read(buffer) {
            Ok(bytes) if bytes > 0 && bytes < *left => {
                *left -= bytes;
                self.read_again(slot);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.read_again(slot),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.close(slot),
        }
    }

    fn close(&mut self, slot: usize) {
        self.sockets.remove(slot).socket.deregister(&self.registry);
        self.has_freed_descriptors = true;
    }

    /// Does everything that is due.
    pub(in crate::broker) fn handle_timeout(&mut self, now: Instant) {
        if self.machine.poll_timeout().is_some_and(|due| due <= now) {
            self.machine.handle_timeout(now);
            self.settle(now);
        }
        while let Some(first) = self.closing.front() {
            let link = self.sockets.get(first.slot);
            let is_there = link.is_some_and(|link| link.serial == first.serial);
            if is_there && first.at > now {
                break;
            }
            let slot = first.slot;
            self.closing.pop_front();
            if is_there {
                self.close(slot);
            }
        }
    }

    /// Whether more is about to come. Writes what was put off: what is due `now`, or on a
    /// broker that is not busy, all.
    pub(in crate::broker) fn set_busy(&mut self, now: Instant, is_busy: bool) {
        self.is_busy = false;
        let mut was_flushed = false;
        while let Some(first) = self.put_off.front()
            && (!is_busy || first.at <= now)
        {
            let (slot, serial) = (first.slot, first.serial);
            self.put_off.pop_front();
            if let Some(link) = self.sockets.get_mut(slot)
                && link.serial == serial
            {
                link.is_put_off = false;
                self.flush(now, slot);
                was_flushed = true;
            }
        }
        self.is_busy = is_busy;
        if was_flushed {
            self.settle(now);
        }
    }

    /// How long the loop may sleep, after all was done that could be done `now`.
    pub(in crate::broker) fn sleep(
        &mut self,
        now: Instant,
        and_at: Option<Instant>,
    ) -> Option<Duration> {
        if !self.hungry.is_empty() {
            return Some(Duration::ZERO);
        }
        self.wake_at = [self.due(), and_at].into_iter().flatten().min();
        self.wake_at.map(|at| at.saturating_duration_since(now))
    }

    /// Whether something is left to do before the loop wakes by itself. It is then expected to
    /// be woken.
    pub(super) fn oversleeps(&mut self) -> bool {
        let due = self.due();
        let oversleeps = !self.hungry.is_empty()
            || due.is_some_and(|due| self.wake_at.is_none_or(|wake_at| due < wake_at));
        if oversleeps {
            self.wake_at = due;
        }
        oversleeps
    }

    /// When there is something to do even if nothing happens.
    fn due(&self) -> Option<Instant> {
        let closing = self.closing.front().map(|first| first.at);
        let put_off = self.put_off.front().map(|first| first.at);
        let due = [self.machine.poll_timeout(), closing, put_off];
        due.into_iter().flatten().min()
    }

    pub(in crate::broker) fn take_freed_descriptors(&mut self) -> bool {
        std::mem::take(&mut self.has_freed_descriptors)
    }

    /// Whether every connection is closed.
    pub(in crate::broker) fn is_quiet(&self) -> bool {
        self.links.is_empty() && self.sockets.is_empty()
    }

    /// Cuts what is left, and lets the state file go.
    pub(in crate::broker) fn cut(&mut self, now: Instant) {
        self.records = None;
        let slots: Vec<usize> = self.sockets.iter().map(|(slot, _)| slot).collect();
        // Nobody is left to whom what the others left behind could be of use.
        for slot in slots {
            self.disconnect(now, slot);
        }
        for link in self.links.drain() {
            if let Link::Stream(waker) = link {
                waker.wake();
            }
        }
    }
}

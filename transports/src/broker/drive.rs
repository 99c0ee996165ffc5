//! The readiness loop: one thread that sleeps until a socket or the machine has something.
//!
//! It is a plain loop over the system's poller rather than tasks on an executor. What
//! decides a lock broker's speed is system calls and wake-ups: here a request costs one
//! read and one write, the poller is asked once for many requests, its registration of
//! a socket is made once (edge-triggered), and no task is scheduled. async-io, whose
//! interest in a socket is re-armed after every event, pays one more system call for
//! each request. Streams that the loop cannot watch (TLS, in-memory) are driven by
//! tasks, in `stream.rs`, on any executor.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lmx_core::Instant;
use lmx_core::broker::Broker as Machine;
use mio::{Events, Poll, Token, Waker};
use rustix::io::Errno;

use super::BrokerError;
use super::hub::{Hub, State};
use super::shortage::Shortage;
use super::socket::{Listener, Socket};
use super::writer::{self, Writer};
use crate::busy_poll::BusyPoll;
use crate::clock;
use crate::net::{self, UnixClaim, UnixListening};
use crate::state::StateFile;

/// Sockets looked at in one round.
const EVENTS_MAX: usize = 256;
/// Bytes read from one socket in one round.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Connections accepted in one round.
const ACCEPT_MAX: usize = 64;
/// Out of descriptors, try again after this even if none was given back here.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Descriptors that connections leave to the state file: could it not be written, no session
/// would begin.
const STATE_DESCRIPTORS: u64 = 4;
/// How long peers have to read the broker's last words.
const STOP_MAX: Duration = Duration::from_secs(1);
/// How long the disk then has to take the last record.
const STOP_WRITE_MAX: Duration = Duration::from_secs(5);
/// How long its thread then has to give the state file back.
const STOP_JOIN_MAX: Duration = Duration::from_secs(1);

const WAKE: Token = Token(usize::MAX);
/// Listeners count down from here, sockets up from zero.
const LISTENERS: usize = usize::MAX - 1;

/// What the loop accepts connections from.
pub(super) struct Sockets {
    pub(super) tcp: Vec<TcpListener>,
    pub(super) unix: Vec<UnixListening>,
    /// What TCP connections speak TLS with.
    #[cfg(feature = "tls")]
    pub(super) tls: Option<super::tls::TlsSide>,
}

/// Starts the loop's thread.
pub(super) fn start(
    machine: Machine,
    sockets: Sockets,
    state: Option<StateFile>,
    busy_poll: Duration,
) -> io::Result<Arc<Hub>> {
    let Sockets { tcp, unix, .. } = sockets;
    let poll = Poll::new()?;
    let mut listeners = Vec::new();
    let mut claims = Vec::new();
    for listener in tcp {
        listeners.push(Listener::Tcp(mio::net::TcpListener::from_std(listener)));
    }
    for UnixListening {
        listener, claim, ..
    } in unix
    {
        listeners.push(Listener::Unix(mio::net::UnixListener::from_std(listener)));
        claims.extend(claim);
    }
    for (position, listener) in listeners.iter_mut().enumerate() {
        listener.register(poll.registry(), Token(LISTENERS - position))?;
    }
    let listeners = listeners
        .into_iter()
        .map(|listener| Accepting {
            listener,
            is_ready: false,
        })
        .collect();
    let (ending, ended) = async_channel::bounded(1);
    let (records, to_write) = async_channel::bounded(1);
    let hub = Arc::new(Hub::new(
        machine,
        poll.registry().try_clone()?,
        Waker::new(poll.registry(), WAKE)?,
        state.is_some().then_some(records),
        ended,
    ));
    let reserved = state.as_ref().map_or(0, |_| STATE_DESCRIPTORS);
    let writer = state
        .map(|file| writer::start(Arc::clone(&hub), file, to_write))
        .transpose()?;
    #[cfg(feature = "tls")]
    let to_tls = sockets
        .tls
        .map(|side| super::tls::start(Arc::clone(&hub), side))
        .transpose()?;
    #[cfg(not(feature = "tls"))]
    let to_tls = None;
    let drive = Drive {
        hub: Arc::clone(&hub),
        to_tls,
        poll,
        listeners,
        claims,
        writer,
        reserved,
        parked: None,
        paused_until: None,
        shortage: Shortage::default(),
        buffer: vec![0; READ_BYTES_MAX].into_boxed_slice(),
        busy_poll: BusyPoll::new(busy_poll),
        _ending: ending,
    };
    thread::Builder::new()
        .name("lmx-broker".to_owned())
        .spawn(move || drive.run())?;
    Ok(hub)
}

struct Drive {
    hub: Arc<Hub>,
    poll: Poll,
    /// Who takes TCP connections instead of this loop.
    to_tls: Option<async_channel::Sender<TcpStream>>,
    listeners: Vec<Accepting>,
    claims: Vec<UnixClaim>,
    writer: Option<Writer>,
    /// Descriptors that connections may not have.
    reserved: u64,
    /// A connection that has one of them, and waits for another.
    parked: Option<Socket>,
    /// Set while the process is out of descriptors.
    paused_until: Option<Instant>,
    shortage: Shortage,
    buffer: Box<[u8]>,
    busy_poll: BusyPoll,
    /// Closes its channel when the thread ends, however it does.
    _ending: async_channel::Sender<()>,
}

struct Accepting {
    listener: Listener,
    /// There may be connections to accept.
    is_ready: bool,
}

impl Drive {
    fn run(mut self) {
        let result = self.serve();
        if let Err(error) = &result {
            tracing::error!(%error, "the broker ends");
        }
        let hub = Arc::clone(&self.hub);
        hub.lock().cut(clock::now());
        hub.set_result(result);
        if let Some(writer) = self.writer.take() {
            // Whoever waits for the end may count on the state file being free, unless the disk
            // does not answer.
            writer.join(STOP_JOIN_MAX);
        }
    }

    fn serve(&mut self) -> Result<(), BrokerError> {
        let hub = Arc::clone(&self.hub);
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut is_in_grace = hub.lock().machine.grace_until().is_some();
        let (mut stop_at, mut stop_at_latest) = (None, None);
        loop {
            if hub.is_poisoned() {
                return Err(BrokerError::Panicked);
            }
            let timeout = {
                let mut state = hub.lock();
                state.handle_timeout(clock::now());
                if is_in_grace && state.machine.grace_until().is_none() {
                    is_in_grace = false;
                    tracing::info!("nobody of before the restart can still hold: serving all");
                }
                state.read_hungry(&mut self.buffer);
                state.settle(clock::now());
                self.accept(&mut state);
                let now = clock::now();
                if stop_at.is_none() && hub.is_stop_requested() {
                    stop_at = Some(now + STOP_MAX);
                    self.listeners.clear();
                    self.parked = None;
                    self.claims.clear();
                    state.machine.stop(now);
                    state.settle(now);
                }
                if let Some(at) = stop_at {
                    let is_durable = state.machine.is_durable();
                    if is_durable && (at <= now || state.is_quiet()) {
                        return Ok(());
                    }
                    if at + STOP_WRITE_MAX <= now {
                        return Err(BrokerError::StateNotWritten);
                    }
                    if at <= now {
                        stop_at_latest = Some(at + STOP_WRITE_MAX);
                    }
                }
                state.set_busy(now, self.busy_poll.expects_soon());
                let accept_at = self.paused_until.or(self.has_to_accept().then_some(now));
                if self.shortage.handle_timeout(now) {
                    tracing::info!("connections can be accepted again");
                }
                let tell_at = self.shortage.poll_timeout();
                let wake_at = stop_at_latest.or(stop_at).or(accept_at).or(tell_at);
                state.sleep(now, wake_at)
            };
            let waited =
                self.busy_poll
                    .wait(&mut self.poll, &mut events, timeout, || false, Poll::poll);
            match waited {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(BrokerError::Poll(Arc::new(error))),
            }
            let mut state = hub.lock();
            for event in &events {
                let Token(token) = event.token();
                if event.token() == WAKE {
                } else if let Some(accepting) = self.listeners.get_mut(LISTENERS - token) {
                    accepting.is_ready = true;
                } else {
                    if event.is_writable() {
                        state.handle_writable(clock::now(), token);
                    }
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        let is_ending = event.is_read_closed() || event.is_error();
                        state.handle_readable(token, is_ending, &mut self.buffer);
                    }
                }
            }
            state.settle(clock::now());
        }
    }

    /// Whether connections may wait of which no event will tell: each comes with one, but only
    /// so many are accepted in one round.
    fn has_to_accept(&self) -> bool {
        self.listeners.iter().any(|accepting| accepting.is_ready)
    }

    fn accept(&mut self, state: &mut State) {
        if let Some(until) = self.paused_until {
            if !state.take_freed_descriptors() && clock::now() < until {
                return;
            }
            self.paused_until = None;
        }
        if let Err(error) = self.accept_all(state) {
            let now = clock::now();
            if self.shortage.handle_exhaustion(now) {
                tracing::warn!(%error, "cannot accept connections until others end");
            } else {
                tracing::debug!(%error, "still cannot accept connections");
            }
            self.paused_until = Some(now + ACCEPT_PAUSE);
        }
    }

    /// Fails if descriptors do not suffice.
    fn accept_all(&mut self, state: &mut State) -> io::Result<()> {
        if let Some(socket) = &self.parked {
            let moved = socket.moved_down()?;
            if self.is_reserved(&moved) {
                return Err(Errno::MFILE.into());
            }
            self.parked = None;
            self.admit(state, moved);
        }
        for position in 0..self.listeners.len() {
            let mut accepted = 0;
            while self.listeners[position].is_ready && accepted < ACCEPT_MAX {
                match self.listeners[position].listener.accept() {
                    Ok(socket) if self.is_reserved(&socket) => {
                        self.parked = Some(socket);
                        return Err(Errno::MFILE.into());
                    }
                    Ok(socket) => {
                        accepted += 1;
                        self.admit(state, socket);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.listeners[position].is_ready = false;
                    }
                    Err(error) if is_exhaustion(&error) => return Err(error),
                    // This one connection failed before it was accepted.
                    Err(_) => accepted += 1,
                }
            }
        }
        Ok(())
    }

    fn is_reserved(&self, socket: &Socket) -> bool {
        self.reserved > 0 && socket.descriptor() + self.reserved >= net::descriptor_limit()
    }

    fn admit(&self, state: &mut State, socket: Socket) {
        match (socket, &self.to_tls) {
            (Socket::Tcp(stream), Some(to_tls)) => {
                let stream = TcpStream::from(OwnedFd::from(stream));
                let _ = to_tls.try_send(stream);
            }
            (socket, _) => state.add_socket(clock::now(), socket),
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

//! What a client reads and writes: a socket of its own, or any stream of the user's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mio::{Interest, Token};
use smol::io::{AsyncRead, AsyncWrite};

use super::reactor::Reactor;
use super::stream::{BoxStream, Connected};
use crate::broker::socket::Socket;

pub(super) enum Connection {
    Socket(Registered),
    Stream {
        stream: BoxStream,
        /// It may keep to itself some of what it took.
        unflushed: bool,
    },
}

/// A socket that the reactor waits for, unless somebody else leads.
pub(super) struct Registered {
    socket: Socket,
    reactor: Arc<Reactor>,
    token: Token,
    /// The reactor does not wait for it.
    led: bool,
    /// There may be something to read.
    readable: bool,
    /// The other side has ended it: after what there is to read comes the end.
    ended: bool,
    /// What the reactor waits for: that it takes more, too, if it is full.
    interest: Interest,
}

impl Connection {
    pub(super) fn new(
        connected: Connected,
        reactor: &Arc<Reactor>,
        token: Token,
    ) -> io::Result<Self> {
        Ok(match connected {
            Connected::Socket(mut socket) => {
                socket.register(&reactor.registry, token)?;
                Self::Socket(Registered {
                    socket,
                    reactor: Arc::clone(reactor),
                    token,
                    led: false,
                    readable: true,
                    ended: false,
                    interest: Interest::READABLE,
                })
            }
            Connected::Stream(stream) => Self::Stream {
                stream,
                unflushed: false,
            },
        })
    }

    /// The reactor has something to tell of the socket.
    pub(super) fn handle_ready(&mut self, ended: bool) {
        if let Self::Socket(socket) = self {
            socket.readable = true;
            socket.ended |= ended;
        }
    }

    /// Whether somebody else than the reactor sees to what comes.
    pub(super) fn is_led(&self) -> bool {
        matches!(self, Self::Socket(socket) if socket.led)
    }

    /// From now on somebody else than the reactor sees to what comes; false if that cannot be.
    pub(super) fn begin_to_lead(&mut self) -> bool {
        match self {
            Self::Socket(socket) => socket.begin_to_lead(),
            // A stream wakes whoever polled it last, and that is the driver.
            Self::Stream { .. } => false,
        }
    }

    /// The reactor waits again.
    pub(super) fn end_to_lead(&mut self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.end_to_lead(),
            Self::Stream { .. } => Ok(()),
        }
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(socket) => socket.poll_read(into),
            Self::Stream { stream, .. } => Pin::new(stream).poll_read(cx, into),
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(socket) => socket.poll_write(bytes),
            Self::Stream { stream, unflushed } => {
                *unflushed = true;
                Pin::new(stream).poll_write(cx, bytes)
            }
        }
    }

    /// Passes on what the stream may have kept to itself.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Stream {
                stream,
                unflushed: unflushed @ true,
            } => {
                ready!(Pin::new(stream).poll_flush(cx))?;
                *unflushed = false;
                Poll::Ready(Ok(()))
            }
            Self::Socket(_) | Self::Stream { .. } => Poll::Ready(Ok(())),
        }
    }
}

impl Registered {
    fn begin_to_lead(&mut self) -> bool {
        if !self.led && self.reactor.admit_leader() {
            self.socket.deregister(&self.reactor.registry);
            self.led = true;
        }
        self.led
    }

    fn end_to_lead(&mut self) -> io::Result<()> {
        if self.led {
            // What came in the meantime is told of at once.
            let registry = &self.reactor.registry;
            self.socket
                .register_for(registry, self.token, self.interest)?;
            self.led = false;
            self.reactor.dismiss_leader();
        }
        Ok(())
    }

    fn poll_read(&mut self, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.readable && !self.led {
            return Poll::Pending;
        }
        loop {
            match self.socket.read(into) {
                Ok(bytes) => {
                    // A short read has emptied it, and what comes next is told anew: no need
                    // to ask again only to hear that there is nothing.
                    self.readable = bytes == into.len() || self.ended;
                    return Poll::Ready(Ok(bytes));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.write(bytes) {
                Ok(written) => {
                    self.wait_to_write(false)?;
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_to_write(true)?;
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn wait_to_write(&mut self, waits: bool) -> io::Result<()> {
        let interest = if waits {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        if self.interest != interest {
            self.interest = interest;
            if !self.led {
                let registry = &self.reactor.registry;
                self.socket.reregister(registry, self.token, interest)?;
            }
        }
        Ok(())
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.led {
            self.reactor.dismiss_leader();
        } else {
            self.socket.deregister(&self.reactor.registry);
        }
    }
}

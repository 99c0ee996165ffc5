//! The sockets that the readiness loop drives: TCP and Unix behind one face.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

/// A peer that was not heard of for so long, not even by the kernel, is asked for a sign of life,
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// again after each of these,
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// and is gone if it has answered none of so many.
const PROBES: u32 = 3;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Socket {
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).read(into),
            Self::Unix(stream) => (&*stream).read(into),
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write(bytes),
            Self::Unix(stream) => (&*stream).write(bytes),
        }
    }

    pub(crate) fn end_writing(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// The number of its descriptor. The system gives the lowest that is free, so that it tells
    /// how many are open.
    pub(super) fn descriptor(&self) -> u64 {
        let number = match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        };
        u64::from(number.cast_unsigned())
    }

    /// The same connection under the lowest descriptor that is free. It must not have been
    /// registered.
    pub(super) fn moved_down(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => {
                let descriptor = stream.as_fd().try_clone_to_owned()?;
                Self::Tcp(mio::net::TcpStream::from_std(descriptor.into()))
            }
            Self::Unix(stream) => {
                let descriptor = stream.as_fd().try_clone_to_owned()?;
                Self::Unix(mio::net::UnixStream::from_std(descriptor.into()))
            }
        })
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.register_for(registry, token, Interest::READABLE)
    }

    pub(crate) fn register_for(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.register(self.source(), token, interest)
    }

    pub(crate) fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.reregister(self.source(), token, interest)
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(self.source());
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

impl Listener {
    pub(super) fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                // A lock's grant is one small frame: it must not wait for a second.
                let _ = stream.set_nodelay(true);
                let _ = notice_vanishing(&stream);
                Ok(Socket::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept()?.0)),
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let source: &mut dyn Source = match self {
            Self::Tcp(listener) => listener,
            Self::Unix(listener) => listener,
        };
        registry.register(source, token, Interest::READABLE)
    }
}

/// Has the kernel find out that the peer has vanished: that its machine has lost power, or its
/// link. Nothing else tells of it where a dialect has no heartbeat.
fn notice_vanishing(stream: &mio::net::TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(PROBE_AFTER);
    // OpenBSD has one setting for all connections of the machine.
    #[cfg(not(target_os = "openbsd"))]
    let keepalive = keepalive.with_interval(PROBE_INTERVAL).with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    // Nobody is probed who has been sent something and has not acknowledged it: that is sent
    // again and again, for a quarter of an hour, unless it is given as long as the probes.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(PROBE_AFTER + PROBES * PROBE_INTERVAL))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn a_peer_that_vanishes_is_found_out_within_75_s_whether_or_not_something_is_under_way() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _peer = std::net::TcpStream::connect(address).unwrap();
        let listener = Listener::Tcp(mio::net::TcpListener::from_std(listener));
        let Socket::Tcp(stream) = listener.accept().unwrap() else {
            unreachable!("a TCP listener accepts TCP connections")
        };
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let silence = socket.tcp_keepalive_time().unwrap();
        let interval = socket.tcp_keepalive_interval().unwrap();
        let probes = socket.tcp_keepalive_retries().unwrap();
        let in_all = Duration::from_secs(75);
        assert_eq!(silence + interval * probes, in_all);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(in_all));
    }
}

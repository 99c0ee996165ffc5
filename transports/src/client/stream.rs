//! What a client can talk over, and how it gets it.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_io::Async;
use lmx_core::Instant;
use smol::io::{AsyncRead, AsyncWrite};

use super::error::Unresolved;
use crate::broker::socket::Socket;
use crate::clock::{self, Alarm};
use crate::net::{Endpoint, is_to_itself};

/// Anything that bytes go out of and into, in order.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream of any type.
pub type BoxStream = Box<dyn Stream>;

/// What an attempt to connect makes.
pub(super) enum Connected {
    Socket(Socket),
    Stream(BoxStream),
}

pub(super) type Connecting = Pin<Box<dyn Future<Output = io::Result<Connected>> + Send>>;

/// Makes a connection each time that it is called.
pub(super) type Connector = Arc<dyn Fn() -> Connecting + Send + Sync>;

/// Connects to `endpoint` over the system's sockets, within `timeout`.
pub(super) fn connector(endpoint: Endpoint, timeout: Duration) -> Connector {
    let known = Arc::new(Known::default());
    Arc::new(move || {
        let (endpoint, known) = (endpoint.clone(), Arc::clone(&known));
        Box::pin(async move {
            match endpoint {
                Endpoint::Tcp { host, port } => {
                    let until = clock::now() + timeout;
                    let found = smol::net::resolve((host.as_str(), port)).await;
                    let addresses = found.map_err(|source| Unresolved { host, source })?;
                    known.connect(addresses, until).await
                }
                Endpoint::Unix(path) => unix(&path).await,
            }
        })
    })
}

/// Shakes hands over TLS with the broker at `endpoint` on what `connect` makes.
#[cfg(feature = "tls")]
pub(super) fn tls_connector(
    tls: crate::tls::TlsClient,
    endpoint: Endpoint,
    connect: Connector,
) -> Connector {
    Arc::new(move || {
        let (tls, endpoint, connecting) = (tls.clone(), endpoint.clone(), connect());
        Box::pin(async move {
            let name = tls.name_for(&endpoint).map_err(io::Error::other)?;
            let stream: BoxStream = match connecting.await? {
                Connected::Stream(stream) => stream,
                Connected::Socket(socket) => into_stream(socket)?,
            };
            let stream = tls.connect(name, stream).await?;
            Ok(Connected::Stream(Box::new(stream)))
        })
    })
}

/// A socket that was made for the clients' loop, as a stream.
#[cfg(feature = "tls")]
fn into_stream(socket: Socket) -> io::Result<BoxStream> {
    use std::os::fd::OwnedFd;

    Ok(match socket {
        Socket::Tcp(stream) => {
            let stream = TcpStream::from(OwnedFd::from(stream));
            Box::new(Async::new_nonblocking(stream)?)
        }
        Socket::Unix(stream) => {
            let stream = UnixStream::from(OwnedFd::from(stream));
            Box::new(Async::new_nonblocking(stream)?)
        }
    })
}

/// What is known of a host's addresses: the one that has answered last.
#[derive(Debug, Default)]
struct Known(Mutex<Option<SocketAddr>>);

impl Known {
    /// Connects to one of `addresses`, first to the one that has answered last. Each has a
    /// share of the time until `until`, for a host that is gone does not even refuse.
    async fn connect(
        &self,
        mut addresses: Vec<SocketAddr>,
        until: Instant,
    ) -> io::Result<Connected> {
        let best = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.sort_by_key(|address| Some(*address) != best);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host's name has no address");
        for (address, left) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
            let late = async {
                if left > 1 {
                    let time = until.saturating_duration_since(clock::now());
                    Alarm::after(time / left).await;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                // Who asked for it gives it up.
                std::future::pending().await
            };
            match smol::future::or(tcp(*address), late).await {
                Ok(socket) => {
                    *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(*address);
                    return Ok(Connected::Socket(socket));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

async fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let stream = Async::<TcpStream>::connect(address).await?.into_inner()?;
    if is_to_itself(&stream, address) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(Socket::Tcp(mio::net::TcpStream::from_std(stream)))
}

async fn unix(path: &Path) -> io::Result<Connected> {
    let stream = Async::<UnixStream>::connect(path).await?.into_inner()?;
    let stream = mio::net::UnixStream::from_std(stream);
    Ok(Connected::Socket(Socket::Unix(stream)))
}

#[cfg(test)]
mod tests;

//! What a client can talk over, and how it gets it.

use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use async_io::Async;
use smol::io::{AsyncRead, AsyncWrite};

use crate::broker::socket::Socket;
use crate::net::Endpoint;

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

/// Connects to `endpoint` over the system's sockets.
pub(super) fn connector(endpoint: Endpoint) -> Connector {
    Arc::new(move || {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            match endpoint {
                Endpoint::Tcp { host, port } => tcp(&host, port).await,
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
            let stream = std::net::TcpStream::from(OwnedFd::from(stream));
            Box::new(Async::new_nonblocking(stream)?)
        }
        Socket::Unix(stream) => {
            let stream = UnixStream::from(OwnedFd::from(stream));
            Box::new(Async::new_nonblocking(stream)?)
        }
    })
}

async fn tcp(host: &str, port: u16) -> io::Result<Connected> {
    let mut failure = None;
    for address in smol::net::resolve((host, port)).await? {
        match Async::<std::net::TcpStream>::connect(address).await {
            // A port that nobody listens on can happen to be chosen for this end, too: then
            // the kernel connects the socket to itself.
            Ok(stream) if stream.get_ref().local_addr()? == address => {
                failure = Some(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(stream) => {
                let stream = stream.into_inner()?;
                stream.set_nodelay(true)?;
                let stream = mio::net::TcpStream::from_std(stream);
                return Ok(Connected::Socket(Socket::Tcp(stream)));
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the host's name has no address")
    }))
}

async fn unix(path: &Path) -> io::Result<Connected> {
    let stream = Async::<UnixStream>::connect(path).await?.into_inner()?;
    let stream = mio::net::UnixStream::from_std(stream);
    Ok(Connected::Socket(Socket::Unix(stream)))
}

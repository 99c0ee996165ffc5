//! What a client can talk over, and how it gets it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use async_io::Async;
use smol::io::{AsyncRead, AsyncWrite};

use crate::net::Endpoint;

/// Anything that bytes go out of and into, in order.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream of any type.
pub type BoxStream = Box<dyn Stream>;

pub(super) type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send>>;

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

async fn tcp(host: &str, port: u16) -> io::Result<BoxStream> {
    let mut failure = None;
    for address in smol::net::resolve((host, port)).await? {
        match Async::<std::net::TcpStream>::connect(address).await {
            Ok(stream) => {
                stream.get_ref().set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the host's name has no address")
    }))
}

#[cfg(unix)]
async fn unix(path: &std::path::Path) -> io::Result<BoxStream> {
    let stream = Async::<std::os::unix::net::UnixStream>::connect(path).await?;
    Ok(Box::new(stream))
}

#[cfg(not(unix))]
async fn unix(_: &std::path::Path) -> io::Result<BoxStream> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this system has no Unix sockets",
    ))
}

//! The thread that shakes hands over TLS, and carries what comes of it.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_io::Async;

use super::hub::Hub;
use super::stream;
use crate::clock::Alarm;
use crate::tls::TlsServer;

/// What the thread must know.
#[derive(Debug)]
pub(super) struct TlsSide {
    pub(super) server: TlsServer,
    pub(super) handshake_max: Duration,
    /// Connections that may be shaking hands at one time.
    pub(super) handshakes_max: u32,
}

/// Starts the thread. It ends when no more connections can come, and all have ended.
pub(super) fn start(hub: Arc<Hub>, side: TlsSide) -> io::Result<Sender<TcpStream>> {
    let (accepted, to_serve) = async_channel::unbounded();
    thread::Builder::new()
        .name("lmx-tls".to_owned())
        .spawn(move || {
            let executor = smol::LocalExecutor::new();
            smol::block_on(executor.run(serve_all(&executor, hub, Arc::new(side), to_serve)));
        })?;
    Ok(accepted)
}

async fn serve_all(
    executor: &smol::LocalExecutor<'_>,
    hub: Arc<Hub>,
    side: Arc<TlsSide>,
    to_serve: Receiver<TcpStream>,
) {
    let handshakes = Arc::new(AtomicU32::new(0));
    // Nothing is sent: it closes when the last task is gone.
    let (alive, all_gone) = async_channel::bounded::<()>(1);
    while let Ok(stream) = to_serve.recv().await {
        if handshakes.fetch_add(1, Ordering::Relaxed) >= side.handshakes_max {
            // In the clear there is nothing to say that a TLS client would understand.
            handshakes.fetch_sub(1, Ordering::Relaxed);
            tracing::debug!("a connection is refused: too many shake hands");
            continue;
        }
        let (hub, side, alive) = (Arc::clone(&hub), Arc::clone(&side), alive.clone());
        let handshakes = Arc::clone(&handshakes);
        executor
            .spawn(async move {
                let shaken = shake(&side, stream).await;
                handshakes.fetch_sub(1, Ordering::Relaxed);
                match shaken {
                    Ok(stream) => {
                        // Whoever is refused was told so.
                        let _ = stream::serve(hub, stream).await;
                    }
                    Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                }
                drop(alive);
            })
            .detach();
    }
    drop(alive);
    let _ = all_gone.recv().await;
}

async fn shake(
    side: &TlsSide,
    stream: TcpStream,
) -> io::Result<futures_rustls::server::TlsStream<Async<TcpStream>>> {
    let stream = Async::new_nonblocking(stream)?;
    let shake = side.server.acceptor().accept(stream);
    let too_late = async {
        Alarm::after(side.handshake_max).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    smol::future::or(shake, too_late).await
}

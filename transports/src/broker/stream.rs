//! Connections over any stream, each driven by its own task.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use atomic_waker::AtomicWaker;
use lmx_core::broker::{ConnectError, ConnectionId};
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::hub::{Appetite, Hub, LINGER_MAX};
use crate::clock::{self, Alarm};

/// Bytes read, and written, at one time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks read, and written, before the executor's other tasks have their turn: as many bytes
/// as the readiness loop reads of one socket before it looks at the next.
const TURNS_MAX: usize = 4;

/// Serves `stream` until either side ends it.
pub(super) async fn serve<S>(hub: Arc<Hub>, mut stream: S) -> Result<(), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (id, waker) = match hub.connect_stream() {
        Ok(connected) => connected,
        Err(error) => {
            let reply = error.reply(clock::now());
            linger(async {
                stream.write_all(&reply).await?;
                stream.close().await
            })
            .await;
            return Err(error);
        }
    };
    let mut link = StreamLink {
        hub,
        id,
        waker,
        reading: vec![0; CHUNK_BYTES].into_boxed_slice(),
        writing: Vec::new(),
        is_flushed: true,
    };
    let end = poll_fn(|context| link.poll(context, &mut stream)).await;
    linger(async {
        if let End::Said = end {
            // A broker that is told to stop waits for this.
            stream.flush().await?;
        }
        drop(link);
        // For the broker the connection is over; this is only the stream's own good-bye.
        stream.close().await
    })
    .await;
    Ok(())
}

/// Says the `last_words`, but to nobody who does not listen.
async fn linger(last_words: impl Future<Output = io::Result<()>>) {
    let too_late = async {
        Alarm::after(LINGER_MAX).await;
        Ok(())
    };
    // Whether they arrived makes no difference.
    let _ = smol::future::or(last_words, too_late).await;
}

/// A stream's connection to the hub. Dropping it, with the task or at its end, ends it.
struct StreamLink {
    hub: Arc<Hub>,
    id: ConnectionId,
    waker: Arc<AtomicWaker>,
    reading: Box<[u8]>,
    /// Space for a copy of the beginning of the machine's output. That stays there until it is
    /// written: the machine's limits count it, and it may drop it.
    writing: Vec<u8>,
    /// The stream has passed on what it was given.
    is_flushed: bool,
}

impl Drop for StreamLink {
    fn drop(&mut self) {
        self.hub.disconnect_stream(self.id);
    }
}

impl StreamLink {
    /// Ready when the connection is over.
    fn poll<S>(&mut self, context: &mut Context<'_>, stream: &mut S) -> Poll<End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.waker.register(context.waker());
        for _ in 0..TURNS_MAX {
            if let ControlFlow::Break(end) = ready!(self.poll_turn(context, stream)) {
                return Poll::Ready(end);
            }
        }
        // There may be more to do, for as long as a loud peer goes on: its executor serves others.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes a chunk or, where there is none or it must wait, reads one.
    fn poll_turn<S>(&mut self, context: &mut Context<'_>, stream: &mut S) -> Poll<ControlFlow<End>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let appetite = self.hub.appetite(self.id, &mut self.writing, CHUNK_BYTES);
        let has_output = !self.writing.is_empty();
        if has_output {
            match Pin::new(&mut *stream).poll_write(context, &self.writing) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    self.is_flushed = false;
                    let id = self.id;
                    self.hub
                        .with(|machine, now| machine.consume_output(now, id, bytes));
                    return Poll::Ready(ControlFlow::Continue(()));
                }
                Poll::Ready(_) => return Poll::Ready(ControlFlow::Break(End::Gone)),
                Poll::Pending => {}
            }
        }
        match appetite {
            Appetite::Over => return Poll::Ready(ControlFlow::Break(End::Said)),
            Appetite::Closing if !has_output => {
                return Poll::Ready(ControlFlow::Break(End::Said));
            }
            Appetite::Closing => return Poll::Pending,
            Appetite::Some | Appetite::None => {}
        }
        if !has_output && !self.is_flushed {
            // TLS may keep what it was given until it is told.
            match Pin::new(&mut *stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.is_flushed = true,
                Poll::Ready(Err(_)) => return Poll::Ready(ControlFlow::Break(End::Gone)),
                Poll::Pending => {}
            }
        }
        if let Appetite::None = appetite {
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut *stream).poll_read(context, &mut self.reading)) {
            Ok(bytes) if bytes > 0 => {
                let (id, input) = (self.id, &self.reading[..bytes]);
                self.hub
                    .with(|machine, now| machine.handle_input(now, id, input));
                Poll::Ready(ControlFlow::Continue(()))
            }
            Ok(_) | Err(_) => Poll::Ready(ControlFlow::Break(End::Gone)),
        }
    }
}

/// How a connection ends.
enum End {
    /// The broker is done with it, and has written what it had to say.
    Said,
    /// The stream failed, or was ended by its peer.
    Gone,
}

//! Connections over any stream, each driven by its own task.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use lmx_core::broker::{ConnectError, ConnectionId};
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::hub::{Appetite, Hub};
use crate::clock;

/// Bytes read, and written, at one time.
const CHUNK_BYTES: usize = 16 * 1024;

/// Serves `stream` until either side ends it.
pub(super) async fn serve<S>(hub: Arc<Hub>, mut stream: S) -> Result<(), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (id, waker) = match hub.connect_stream() {
        Ok(connected) => connected,
        Err(error) => {
            // Nobody waits for whether it arrives.
            let _ = stream.write_all(&error.reply(clock::now())).await;
            let _ = stream.close().await;
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
    poll_fn(|context| link.poll(context, &mut stream)).await;
    drop(link);
    // For the broker the connection is over; this is only the stream's own good-bye.
    let _ = stream.close().await;
    Ok(())
}

/// A stream's connection to the hub. Dropping it, with the task or at its end, ends it.
struct StreamLink {
    hub: Arc<Hub>,
    id: ConnectionId,
    waker: Arc<AtomicWaker>,
    reading: Box<[u8]>,
    /// A copy of the beginning of the machine's output, which stays there until it is
    /// written: the machine's limits count it.
    writing: Vec<u8>,
    is_flushed: bool,
}

impl Drop for StreamLink {
    fn drop(&mut self) {
        self.hub.disconnect_stream(self.id);
    }
}

impl StreamLink {
    /// Ready when the connection is over.
    fn poll<S>(&mut self, context: &mut Context<'_>, stream: &mut S) -> Poll<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.waker.register(context.waker());
        loop {
            let is_written = match self.poll_write(context, stream) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(Gone)) => return Poll::Ready(()),
                Poll::Pending => false,
            };
            match self.hub.appetite(self.id) {
                Appetite::Over => return Poll::Ready(()),
                Appetite::Closing if is_written => return Poll::Ready(()),
                Appetite::Closing | Appetite::None => return Poll::Pending,
                Appetite::Some => {}
            }
            match Pin::new(&mut *stream).poll_read(context, &mut self.reading) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    let (id, input) = (self.id, &self.reading[..bytes]);
                    self.hub
                        .with(|machine, now| machine.handle_input(now, id, input));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ready when all output there is has been written and flushed.
    fn poll_write<S>(&mut self, context: &mut Context<'_>, stream: &mut S) -> Poll<Result<(), Gone>>
    where
        S: AsyncWrite + Unpin,
    {
        while self.refill() {
            match Pin::new(&mut *stream).poll_write(context, &self.writing) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    self.writing.drain(..bytes);
                    self.is_flushed = false;
                    let id = self.id;
                    self.hub
                        .with(|machine, now| machine.consume_output(now, id, bytes));
                }
                Poll::Ready(_) => return Poll::Ready(Err(Gone)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if !self.is_flushed {
            // TLS may keep what it was given until it is told.
            match Pin::new(&mut *stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.is_flushed = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there is anything to write.
    fn refill(&mut self) -> bool {
        if self.writing.is_empty() {
            let state = self.hub.lock();
            let output = state.machine.output(self.id);
            let chunk = &output[..output.len().min(CHUNK_BYTES)];
            self.writing.extend_from_slice(chunk);
        }
        !self.writing.is_empty()
    }
}

/// The stream failed or was ended by its peer.
struct Gone;

//! Connections over any stream, each driven by its own task.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use atomic_waker::AtomicWaker;
use lmx_core::broker::{ConnectError, ConnectionId};
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::hub::{Appetite, Hub};
use crate::clock;

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
        for _ in 0..TURNS_MAX {
            if ready!(self.poll_turn(context, stream)).is_break() {
                return Poll::Ready(());
            }
        }
        // There may be more to do, for as long as a loud peer goes on: its executor serves others.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes a chunk or, where there is none or it must wait, reads one. `Break` when the
    /// connection is over.
    fn poll_turn<S>(&mut self, context: &mut Context<'_>, stream: &mut S) -> Poll<ControlFlow<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let is_written = match self.poll_write(context, stream) {
            Poll::Ready(Ok(Written::Some)) => return Poll::Ready(ControlFlow::Continue(())),
            Poll::Ready(Ok(Written::All)) => true,
            Poll::Ready(Err(Gone)) => return Poll::Ready(ControlFlow::Break(())),
            Poll::Pending => false,
        };
        match self.hub.appetite(self.id) {
            Appetite::Over => return Poll::Ready(ControlFlow::Break(())),
            Appetite::Closing if is_written => return Poll::Ready(ControlFlow::Break(())),
            Appetite::Closing | Appetite::None => return Poll::Pending,
            Appetite::Some => {}
        }
        match ready!(Pin::new(&mut *stream).poll_read(context, &mut self.reading)) {
            Ok(bytes) if bytes > 0 => {
                let (id, input) = (self.id, &self.reading[..bytes]);
                self.hub
                    .with(|machine, now| machine.handle_input(now, id, input));
                Poll::Ready(ControlFlow::Continue(()))
            }
            Ok(_) | Err(_) => Poll::Ready(ControlFlow::Break(())),
        }
    }

    /// Writes a chunk of the output, or flushes if there is none.
    fn poll_write<S>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<Written, Gone>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.refill() {
            return match ready!(Pin::new(&mut *stream).poll_write(context, &self.writing)) {
                Ok(bytes) if bytes > 0 => {
                    self.writing.drain(..bytes);
                    self.is_flushed = false;
                    let id = self.id;
                    self.hub
                        .with(|machine, now| machine.consume_output(now, id, bytes));
                    Poll::Ready(Ok(Written::Some))
                }
                Ok(_) | Err(_) => Poll::Ready(Err(Gone)),
            };
        }
        if !self.is_flushed {
            // TLS may keep what it was given until it is told.
            match ready!(Pin::new(&mut *stream).poll_flush(context)) {
                Ok(()) => self.is_flushed = true,
                Err(_) => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(Written::All))
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

/// How much of the output has been written.
enum Written {
    /// A part, and there may be more.
    Some,
    /// All there is, and it was flushed.
    All,
}

/// The stream failed or was ended by its peer.
struct Gone;

//! Streams that behave badly, served by the broker as any other.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use lmx_core::wire::{Command, Hello, MAGIC, Request, frame};
use lmx_transports::Broker;
use lmx_transports::clock::Alarm;
use lmx_transports::state::StatePlace;
use smol::future::FutureExt as _;
use smol::io::{AsyncRead, AsyncWrite};

/// Runs `test` on this thread, and ends it if it hangs.
fn run<T>(test: impl Future<Output = T>) -> T {
    let hang = async {
        Alarm::after(Duration::from_mins(1)).await;
        panic!("the test hangs")
    };
    smol::block_on(test.or(hang))
}

async fn broker() -> Broker {
    let builder = Broker::builder().state(StatePlace::Ephemeral);
    builder.tcp("127.0.0.1", 0).bind().await.unwrap()
}

/// A peer at the other end of a stream.
#[derive(Default)]
struct Peer {
    /// What it says, at a time; then it ends.
    says: VecDeque<Vec<u8>>,
}

impl Peer {
    fn says(mut self, tag: u32, body: Command<'_>) -> Self {
        let mut bytes = Vec::new();
        frame::append(&Request { tag, seen: 0, body }, &mut bytes);
        self.says.push_back(bytes);
        self
    }

    fn says_hello(mut self) -> Self {
        self.says.push_back(MAGIC.to_vec());
        let hello = Hello {
            auth: &[],
            resume_window: Duration::ZERO,
            resume: None,
            name: "",
        };
        self.says(1, Command::Hello(hello))
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let said = self.says.pop_front().unwrap_or_default();
        into[..said.len()].copy_from_slice(&said);
        Poll::Ready(Ok(said.len()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_peer_that_never_pauses_leaves_turns_to_the_executors_other_tasks() {
    const REQUESTS: u32 = 1000;
    run(async {
        let broker = broker().await;
        let mut loud = Peer::default().says_hello();
        for tag in 0..REQUESTS {
            loud = loud.says(tag + 2, Command::Ping);
        }
        let mut serving = pin!(broker.serve(loud));
        let mut turns = 0;
        poll_fn(|context| {
            turns += 1;
            serving.as_mut().poll(context)
        })
        .await
        .unwrap();
        assert!(turns > REQUESTS / 10, "only {turns} turns");
    });
}

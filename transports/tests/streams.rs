//! Streams that behave badly, served by the broker as any other.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use lmx_core::wire::{Command, Hello, MAGIC, Request, frame};
use lmx_transports::Broker;
use lmx_transports::broker::default_config;
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

/// Short times, so that whoever is late for one is soon late.
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_hours(1);

async fn broker(idle_max: Duration, handshake_max: Duration) -> Broker {
    let mut config = default_config();
    config.idle_max = idle_max;
    config.handshake_max = handshake_max;
    let builder = Broker::builder().config(config);
    let builder = builder.state(StatePlace::Ephemeral);
    builder.tcp("127.0.0.1", 0).bind().await.unwrap()
}

/// A peer at the other end of a stream.
struct Peer {
    /// What it says, at a time.
    says: VecDeque<Vec<u8>>,
    /// It has nothing more to say, and says so.
    ends: bool,
    listens: Arc<Listens>,
    /// The stream passes on what it was given.
    flushes: bool,
}

/// Whether a peer reads, and what it has read.
#[derive(Default)]
struct Listens {
    is_on: AtomicBool,
    waker: AtomicWaker,
    heard: Mutex<Vec<u8>>,
}

impl Listens {
    fn begin(&self) {
        self.is_on.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

impl Peer {
    /// One that listens to all, and ends when it has said all.
    fn polite() -> Self {
        let listens = Listens::default();
        listens.is_on.store(true, Ordering::SeqCst);
        Self {
            says: VecDeque::new(),
            ends: true,
            listens: Arc::new(listens),
            flushes: true,
        }
    }

    /// One that does not listen.
    fn deaf() -> Self {
        Self {
            ends: false,
            listens: Arc::default(),
            flushes: false,
            ..Self::polite()
        }
    }

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

    fn says_line(mut self, line: &str) -> Self {
        self.says.push_back(format!("{line}\n").into_bytes());
        self
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.says.pop_front() {
            Some(said) => {
                into[..said.len()].copy_from_slice(&said);
                Poll::Ready(Ok(said.len()))
            }
            None if self.ends => Poll::Ready(Ok(0)),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.listens.waker.register(context.waker());
        if !self.listens.is_on.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        self.listens.heard.lock().unwrap().extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushes {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[test]
fn a_peer_that_never_pauses_leaves_turns_to_the_executors_other_tasks() {
    const REQUESTS: u32 = 1000;
    run(async {
        let broker = broker(LONG, LONG).await;
        let mut loud = Peer::polite().says_hello();
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

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    run(async {
        let broker = broker(SHORT, SHORT).await;
        broker.serve(Peer::deaf().says_hello()).await.unwrap();
    });
}

#[test]
fn a_stream_that_does_not_pass_on_the_last_words_is_given_up() {
    run(async {
        let broker = broker(LONG, LONG).await;
        let peer = Peer::deaf().says_hello().says(2, Command::Goodbye);
        peer.listens.begin();
        broker.serve(peer).await.unwrap();
    });
}

#[test]
fn who_has_not_listened_for_too_long_is_not_told_of_a_grant_that_others_have_by_then() {
    const ASK: &str = r#"{"type":"lock","uuid":"a","key":"k","ttl":null}"#;
    const GRANT: &str = r#""acquired":true"#;
    run(async {
        let broker = broker(SHORT, LONG).await;
        let first = Peer {
            flushes: true,
            ..Peer::deaf().says_line(ASK)
        };
        let next = Peer::deaf().says_line(&ASK.replace(r#""a""#, r#""b""#));
        let (to_first, to_next) = (Arc::clone(&first.listens), Arc::clone(&next.listens));
        to_next.begin();
        let mut first = pin!(broker.serve(first));
        let mut next = pin!(broker.serve(next));
        poll_fn(|context| {
            assert!(first.as_mut().poll(context).is_pending());
            assert!(next.as_mut().poll(context).is_pending());
            if to_next.heard().contains(GRANT) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        to_first.begin();
        first.await.unwrap();
        let heard = to_first.heard();
        assert!(
            heard.contains("nothing of what was sent was read"),
            "{heard}"
        );
        assert!(!heard.contains(GRANT), "{heard}");
    });
}

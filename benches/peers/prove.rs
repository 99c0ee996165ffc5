//! Two connections show that a peer excludes, before anything is measured of it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use std::collections::VecDeque;

use crate::clock::{Duration, now};
use crate::peer::{Address, Connection, News, Peer};
use crate::scenario::PROOF;

/// How long an answer may take that must come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long is waited for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(100);

/// Fails unless of two connections that want one key, one gets it, the other gets it only
/// after the first has given it back, and nothing is held when both have.
pub(crate) fn excludes(peer: &mut dyn Peer) -> Result<(), String> {
    if peer.is_floor() || peer.brings_client() {
        return Ok(());
    }
    peer.prepare(&PROOF)?;
    let mut one = Talk::open(peer.address(), peer.connection(&PROOF, 0))?;
    let mut two = Talk::open(peer.address(), peer.connection(&PROOF, 1))?;
    one.acquire()?;
    one.expect(News::Acquired(0))?;
    if peer.audit(&PROOF).is_ok() {
        return Err("the audit does not see that a lock is held".into());
    }
    two.acquire()?;
    let is_queued = match two.next(SILENCE)? {
        None => true,
        Some(News::Busy(0, _)) => false,
        Some(news) => return Err(format!("{news:?} while another holds the key")),
    };
    one.release()?;
    one.expect(News::Released(0))?;
    if !is_queued {
        two.acquire()?;
    }
    two.expect(News::Acquired(0))?;
    two.release()?;
    two.expect(News::Released(0))?;
    peer.audit(&PROOF)?;
    drop((one, two));
    peer.settle()
}

/// A conversation that blocks.
pub(crate) struct Talk {
    stream: Stream,
    protocol: Box<dyn Connection>,
    input: Vec<u8>,
    fresh: Vec<News>,
    news: VecDeque<News>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Talk {
    /// Connects, and waits until the conversation is open.
    pub(crate) fn open(address: &Address, protocol: Box<dyn Connection>) -> Result<Self, String> {
        let stream = match address {
            Address::Tcp(address) => TcpStream::connect(address).map(Stream::Tcp),
            Address::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
        };
        let mut talk = Self {
            stream: stream.map_err(|error| format!("cannot connect: {error}"))?,
            protocol,
            input: Vec::new(),
            fresh: Vec::new(),
            news: VecDeque::new(),
        };
        if let Stream::Tcp(stream) = &talk.stream {
            stream
                .set_nodelay(true)
                .map_err(|error| error.to_string())?;
        }
        let mut out = Vec::new();
        talk.protocol.hello(&mut out);
        talk.write(&out)?;
        talk.expect(News::Ready)?;
        Ok(talk)
    }

    /// Asks for the lock.
    pub(crate) fn acquire(&mut self) -> Result<(), String> {
        let mut out = Vec::new();
        self.protocol.acquire(0, &mut out);
        self.write(&out)
    }

    /// Gives the lock back.
    pub(crate) fn release(&mut self) -> Result<(), String> {
        let mut out = Vec::new();
        self.protocol.release(0, &mut out);
        self.write(&out)
    }

    /// Says something else.
    pub(crate) fn say(&mut self, what: impl FnOnce(&mut Vec<u8>)) -> Result<(), String> {
        let mut out = Vec::new();
        what(&mut out);
        self.write(&out)
    }

    /// Asks for so many things at one time, and waits until all are granted or given back.
    pub(crate) fn exchange(
        &mut self,
        count: usize,
        ask: impl FnOnce(&mut dyn Connection, &mut Vec<u8>),
    ) -> Result<(), String> {
        let mut out = Vec::new();
        ask(self.protocol.as_mut(), &mut out);
        self.write(&out)?;
        for _ in 0..count {
            match self.any()? {
                News::Acquired(_) | News::Released(_) => {}
                news => return Err(format!("unexpected: {news:?}")),
            }
        }
        Ok(())
    }

    /// Waits until the same news came so many times, for as long as news come.
    pub(crate) fn count(&mut self, count: usize, news: News) -> Result<(), String> {
        (0..count).try_for_each(|_| self.expect(news))
    }

    /// Waits for something that must come.
    pub(crate) fn any(&mut self) -> Result<News, String> {
        self.next(PATIENCE)?.ok_or_else(|| "no answer".into())
    }

    /// Waits for what must come.
    pub(crate) fn expect(&mut self, news: News) -> Result<(), String> {
        match self.next(PATIENCE)? {
            Some(got) if got == news => Ok(()),
            got => Err(format!("{got:?} where {news:?} had to come")),
        }
    }

    fn next(&mut self, patience: Duration) -> Result<Option<News>, String> {
        if let Some(news) = self.news.pop_front() {
            return Ok(Some(news));
        }
        let give_up = now() + patience;
        let mut bytes = [0; 16 * 1024];
        while self.news.is_empty() {
            let left = give_up.saturating_duration_since(now());
            if left.is_zero() {
                return Ok(None);
            }
            let length = match self.stream.read(&mut bytes, left) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(length) => length,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    continue;
                }
                Err(error) => return Err(format!("cannot read: {error}")),
            };
            self.input.extend_from_slice(&bytes[..length]);
            let used = self.protocol.receive(&self.input, &mut self.fresh)?;
            self.input.drain(..used);
            self.news.extend(self.fresh.drain(..));
        }
        Ok(self.news.pop_front())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
        .map_err(|error| format!("cannot write: {error}"))
    }
}

impl Stream {
    fn read(&mut self, into: &mut [u8], patience: Duration) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.read(into)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.read(into)
            }
        }
    }
}

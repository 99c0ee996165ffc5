//! The closed-loop generator: one thread, one epoll, any number of connections.
//!
//! It is the same for every peer, and lean, because it shares the machine with the server:
//! a wake-up costs a connection one read and one write.
//!
//! It does not sleep: while there is nothing to read it asks again, and gives way to others
//! in between. What is measured is how soon the server answers; a generator that sleeps adds
//! to every peer's time what it takes itself to wake up, which on a virtual machine is more
//! than all else. (`--sleep` lets it, to see what that comes to.)

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read, Write};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, event::Source};

use crate::clock::{Duration, Instant, now};
use crate::peer::{Address, Connection, News, Window};
use crate::scenario::{Keys, Load};
use crate::stats::{self, Sample};

/// How long connecting, and at the end finishing the last cycles, may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// One round of a load, and the connections that carry it.
pub(crate) struct Run<'l> {
    load: &'l Load,
    is_floor: bool,
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    scratch: Box<[u8]>,
    news: Vec<News>,
    /// Who must ask again, and when.
    retries: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    /// How many hold the key that all share, as they see it.
    holders: usize,
    /// Whose grant was the last one.
    last: (usize, usize),
    /// Grants to another loop than the one before.
    handoffs: u64,
    ready: usize,
    /// Lanes that have a cycle under way.
    active: usize,
    is_stopping: bool,
    sleeps: bool,
    latency: Histogram<u64>,
}

struct Link {
    stream: Stream,
    protocol: Box<dyn Connection>,
    /// The front of a message whose end has not come.
    partial: Vec<u8>,
    out: Vec<u8>,
    /// Whether the last write would have blocked.
    is_blocked: bool,
    lanes: Vec<Lane>,
}

struct Lane {
    begun: Instant,
    is_holder: bool,
}

enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl<'l> Run<'l> {
    /// Opens the connections.
    pub(crate) fn open(
        address: &Address,
        load: &'l Load,
        is_floor: bool,
        connection: &dyn Fn(usize) -> Box<dyn Connection>,
    ) -> Result<Self, String> {
        let mut run = Self::connect(address, load, is_floor, connection)
            .map_err(|error| format!("cannot connect: {error}"))?;
        run.until_ready()?;
        Ok(run)
    }

    /// Runs the loops for the window, and then lets every cycle end. The connections stay
    /// open: closing them might release what was left behind.
    pub(crate) fn measure(&mut self, window: Window) -> Result<Sample, String> {
        self.sleeps = window.sleeps;
        for link in 0..self.links.len() {
            for lane in 0..self.load.lanes {
                self.begin(link, lane, now());
            }
            self.flush(link)?;
        }
        self.turn(now() + window.warm_up)?;
        self.latency.clear();
        self.handoffs = 0;
        let begun = now();
        self.turn(begun + window.measure)?;
        // A window without a single cycle says nothing: it is as long as the first one.
        while self.latency.is_empty() && begun.elapsed() < PATIENCE {
            self.wait(now() + window.measure)?;
        }
        let sample = Sample {
            handoffs: self.handoffs,
            ..Sample::of(&self.latency, begun.elapsed())
        };
        self.drain()?;
        if sample.cycles == 0 {
            return Err(format!("no cycle ended within {PATIENCE:?}"));
        }
        Ok(sample)
    }

    fn connect(
        address: &Address,
        load: &'l Load,
        is_floor: bool,
        connection: &dyn Fn(usize) -> Box<dyn Connection>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut links = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let mut stream = Stream::connect(address)?;
            poll.registry().register(
                stream.source(),
                Token(index),
                // Writability is asked for when a write would block, not before: a Unix
                // socket reports it anew each time that its peer reads.
                Interest::READABLE,
            )?;
            let mut protocol = connection(index);
            let mut out = Vec::new();
            protocol.hello(&mut out);
            links.push(Link {
                stream,
                protocol,
                partial: Vec::new(),
                out,
                is_blocked: false,
                lanes: (0..load.lanes)
                    .map(|_| Lane {
                        begun: now(),
                        is_holder: false,
                    })
                    .collect(),
            });
        }
        Ok(Self {
            load,
            is_floor,
            poll,
            events: Events::with_capacity(1024),
            links,
            scratch: vec![0; 64 * 1024].into(),
            news: Vec::new(),
            retries: BinaryHeap::new(),
            holders: 0,
            last: (0, 0),
            handoffs: 0,
            ready: 0,
            active: 0,
            is_stopping: false,
            sleeps: false,
            latency: stats::histogram(),
        })
    }

    fn until_ready(&mut self) -> Result<(), String> {
        for link in 0..self.links.len() {
            self.flush(link)?;
        }
        let give_up = now() + PATIENCE;
        while self.ready < self.links.len() {
            self.wait(give_up)?;
            if now() >= give_up {
                return Err(format!(
                    "{} of {} connections did not open",
                    self.links.len() - self.ready,
                    self.links.len()
                ));
            }
        }
        Ok(())
    }

    /// Goes on until `end`.
    fn turn(&mut self, end: Instant) -> Result<(), String> {
        while now() < end {
            self.wait(end)?;
        }
        Ok(())
    }

    /// Lets every cycle that is under way end, and begins no other.
    fn drain(&mut self) -> Result<(), String> {
        self.is_stopping = true;
        // Who has been refused holds nothing and is queued nowhere.
        self.active -= self.retries.len();
        self.retries.clear();
        let give_up = now() + PATIENCE;
        while self.active > 0 {
            if now() >= give_up {
                return Err(format!("{} cycles did not end", self.active));
            }
            self.wait(give_up)?;
        }
        Ok(())
    }

    fn wait(&mut self, until: Instant) -> Result<(), String> {
        let wake = match self.retries.peek() {
            Some(Reverse((due, ..))) => until.min(*due),
            None => until,
        };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        loop {
            let left = wake.saturating_duration_since(now());
            let timeout = if self.sleeps { left } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("cannot poll: {error}")),
            }
            if self.sleeps || left.is_zero() || !events.is_empty() {
                break;
            }
            std::thread::yield_now();
        }
        for event in &events {
            let Token(link) = event.token();
            if event.is_readable() || event.is_read_closed() {
                self.read(link)?;
            }
            self.flush(link)?;
        }
        self.events = events;
        while let Some(Reverse((due, link, lane))) = self.retries.peek().copied() {
            if due > now() {
                break;
            }
            self.retries.pop();
            let Link { protocol, out, .. } = &mut self.links[link];
            protocol.acquire(lane, out);
            self.flush(link)?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<(), String> {
        loop {
            let link = &mut self.links[index];
            let length = match link.stream.read(&mut self.scratch) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("cannot read: {error}")),
            };
            let input = &self.scratch[..length];
            if link.partial.is_empty() {
                let used = link.protocol.receive(input, &mut self.news)?;
                link.partial.extend_from_slice(&input[used..]);
            } else {
                link.partial.extend_from_slice(input);
                let used = link.protocol.receive(&link.partial, &mut self.news)?;
                link.partial.drain(..used);
            }
            self.take_news(index)?;
            // A short read has emptied the socket; the next bytes are the next event.
            if length < self.scratch.len() {
                return Ok(());
            }
        }
    }

    fn take_news(&mut self, index: usize) -> Result<(), String> {
        let mut news = std::mem::take(&mut self.news);
        // Answers that one read brought have come together.
        let at = now();
        for item in news.drain(..) {
            match item {
                News::Ready => self.ready += 1,
                News::Acquired(lane) => {
                    self.enter(index, lane)?;
                    self.leave(index, lane);
                    let Link { protocol, out, .. } = &mut self.links[index];
                    protocol.release(lane, out);
                }
                News::Expired => return Err("a lock expired under its holder".into()),
                News::Busy(lane, _) if self.is_stopping => {
                    debug_assert!(!self.links[index].lanes[lane].is_holder);
                    self.active -= 1;
                }
                News::Busy(lane, pause) => {
                    self.retries.push(Reverse((at + pause, index, lane)));
                }
                News::Released(lane) => {
                    let took = at - self.links[index].lanes[lane].begun;
                    self.latency
                        .saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                    self.active -= 1;
                    if !self.is_stopping {
                        self.begin(index, lane, at);
                    }
                }
            }
        }
        self.news = news;
        Ok(())
    }

    fn begin(&mut self, index: usize, lane: usize, at: Instant) {
        let link = &mut self.links[index];
        link.lanes[lane].begun = at;
        link.protocol.acquire(lane, &mut link.out);
        self.active += 1;
    }

    /// The lane holds its key from here on.
    fn enter(&mut self, index: usize, lane: usize) -> Result<(), String> {
        if std::mem::replace(&mut self.links[index].lanes[lane].is_holder, true) {
            return Err("a loop was granted its lock twice".into());
        }
        self.holders += 1;
        if std::mem::replace(&mut self.last, (index, lane)) != (index, lane) {
            self.handoffs += 1;
        }
        if self.load.keys == Keys::One && !self.is_floor && self.holders > self.load.capacity() {
            return Err(format!(
                "{} hold one key at one time, where {} may",
                self.holders,
                self.load.capacity()
            ));
        }
        Ok(())
    }

    /// The lane is about to give its key back, and no longer relies on it.
    fn leave(&mut self, index: usize, lane: usize) {
        self.links[index].lanes[lane].is_holder = false;
        self.holders -= 1;
    }

    fn flush(&mut self, index: usize) -> Result<(), String> {
        let link = &mut self.links[index];
        let mut would_block = false;
        while !link.out.is_empty() && !would_block {
            match link.stream.write(&link.out) {
                Ok(length) if length == link.out.len() => link.out.clear(),
                Ok(length) => drop(link.out.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => would_block = true,
                Err(error) => return Err(format!("cannot write: {error}")),
            }
        }
        if would_block == link.is_blocked {
            return Ok(());
        }
        link.is_blocked = would_block;
        let interest = if would_block {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        self.poll
            .registry()
            .reregister(link.stream.source(), Token(index), interest)
            .map_err(|error| format!("cannot poll: {error}"))
    }
}

impl Stream {
    /// Connects and waits for it: a full backlog of a Unix socket refuses who does not.
    fn connect(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(address) => {
                let stream = std::net::TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Self::Tcp(mio::net::TcpStream::from_std(stream))
            }
            Address::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Self::Unix(mio::net::UnixStream::from_std(stream))
            }
        })
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }
}

//! What the generator needs to know of a server, and of its protocol.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::clock::Duration;
use crate::generator;
use crate::scenario::Load;
use crate::stats::Sample;

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// How long to run before measuring, and how long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Run and not counted.
    pub(crate) warm_up: Duration,
    /// Counted.
    pub(crate) measure: Duration,
    /// Whether the generator sleeps while it has nothing to do.
    pub(crate) sleeps: bool,
}

/// A server under test. Dropping it ends its process.
pub(crate) trait Peer {
    /// Its name and version.
    fn version(&self) -> &str;

    /// Where it listens.
    fn address(&self) -> &Address;

    /// Whether it can run this load; if not, why.
    fn supports(&self, load: &Load) -> Result<(), &'static str>;

    /// Makes ready what the protocol needs to exist before the first connection.
    fn prepare(&mut self, _load: &Load) -> Result<(), String> {
        Ok(())
    }

    /// One connection's half of the protocol.
    fn connection(&self, load: &Load, index: usize) -> Box<dyn Connection>;

    /// Makes sure that the end of the last round's connections is over and done with,
    /// where that takes time.
    fn settle(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Fails unless none of the load's keys is held or waited for.
    fn audit(&mut self, load: &Load) -> Result<(), String>;

    /// Whether it is a floor: it answers as a lock would, and locks nothing.
    fn is_floor(&self) -> bool {
        false
    }

    /// Runs one round, and audits it. Only who brings its own client has its own way.
    fn run(&mut self, load: &Load, window: Window) -> Result<Sample, String> {
        self.prepare(load)?;
        let mut run = generator::Run::open(self.address(), load, self.is_floor(), &|index| {
            self.connection(load, index)
        })?;
        let sample = run.measure(window)?;
        // Before the connections close, which would release what is left.
        self.audit(load)?;
        Ok(sample)
    }

    /// Whether it is measured through its own client, not by the generator.
    fn brings_client(&self) -> bool {
        false
    }
}

/// One connection's half of a lock protocol, without a socket.
pub(crate) trait Connection: Send {
    /// What to send first.
    fn hello(&mut self, out: &mut Vec<u8>);

    /// Asks for the lock of a lane.
    fn acquire(&mut self, lane: usize, out: &mut Vec<u8>);

    /// Gives the lock of a lane back.
    fn release(&mut self, lane: usize, out: &mut Vec<u8>);

    /// Gives what is acquired from here on another lease, where the protocol has one and
    /// something depends on it.
    fn set_lease(&mut self, _lease: Duration) {}

    /// Reads the complete messages at the front of `input`, says what they mean, and
    /// returns how many bytes they were.
    fn receive(&mut self, input: &[u8], news: &mut Vec<News>) -> Result<usize, String>;
}

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The conversation is open.
    Ready,
    /// The lane holds its lock.
    Acquired(usize),
    /// The lane does not hold it, and is not queued: it must ask again, so much later.
    Busy(usize, Duration),
    /// The lane's lock is given back.
    Released(usize),
    /// Some lane's lease has ended.
    Expired,
}

/// How to start a peer.
pub(crate) struct Candidate {
    /// Its name on the command line and in the report.
    pub(crate) name: &'static str,
    /// What is measured of it.
    pub(crate) what: &'static str,
    /// Starts it with its files under this folder, or says what is missing.
    pub(crate) start: fn(&Path) -> Result<Box<dyn Peer>, String>,
}

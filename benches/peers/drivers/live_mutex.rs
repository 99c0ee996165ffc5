//! live-mutex's own broker, on Node.js, and its protocol: a line of JSON for each message.
//!
//! The frames of a cycle are those of the Node client: `lock`, its answer,
//! `lock-received`, `unlock`, its answer. [`lmx`](super::lmx) speaks it too.

use std::borrow::Cow;
use std::io::Write;

use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::node;
use crate::peer::{Address, Candidate, Connection, News, Peer};
use crate::process::{self, Server};
use crate::prove::Talk;
use crate::scenario::{Hold, LEASE_MS, Load};

/// Over TCP.
pub(crate) const BROKER: Candidate = Candidate {
    name: "live-mutex",
    what: "live-mutex's broker over TCP, driven as its Node client drives it",
    start: |_| Ok(Box::new(LiveMutex::start()?)),
};

/// Starts live-mutex's broker.
pub(crate) fn start() -> Result<(Server, Address), String> {
    let port = process::free_port()?;
    let (mut server, _) = Server::start_and_read(
        node::script("live-mutex-broker.js", "live-mutex")?.arg(port.to_string()),
        Signal::SIGTERM,
    )?;
    let address = process::loopback(port);
    server.wait_for(address)?;
    Ok((server, Address::Tcp(address)))
}

struct LiveMutex {
    server: Server,
    version: String,
    address: Address,
    /// Stays connected, for its broker releases all locks when anybody disconnects.
    auditor: Talk,
    audits: u64,
}

impl LiveMutex {
    fn start() -> Result<Self, String> {
        let version = format!(
            "live-mutex {} on Node.js {}",
            node::version_of("live-mutex")?,
            node::node_version()?
        );
        let (server, address) = start()?;
        Ok(Self {
            auditor: Talk::open(&address, Box::new(Auditor))?,
            server,
            version,
            address,
            audits: 0,
        })
    }
}

impl Peer for LiveMutex {
    fn version(&self) -> &str {
        &self.version
    }

    fn address(&self) -> &Address {
        &self.address
    }

    fn supports(&self, load: &Load) -> Result<(), &'static str> {
        supports(load)
    }

    fn connection(&self, load: &Load, index: usize) -> Box<dyn Connection> {
        connection(load, index)
    }

    /// Whenever one client disconnects, its broker goes through all keys that it ever saw
    /// and releases everybody's locks. With a thousand of them it is faster to begin anew.
    fn settle(&mut self) -> Result<(), String> {
        let (server, address) = start()?;
        self.auditor = Talk::open(&address, Box::new(Auditor))?;
        self.server = server;
        self.address = address;
        Ok(())
    }

    /// Its broker cannot say what is held: a lock that is granted at once was free.
    fn audit(&mut self, load: &Load) -> Result<(), String> {
        let mut held = 0;
        for key in load.all_keys() {
            self.audits += 1;
            let id = format!("audit-{}", self.audits);
            self.auditor.say(|out| ask(out, &id, &key, 1))?;
            if self.auditor.any()? == News::Acquired(0) {
                self.auditor.say(|out| give_back(out, &id, &key))?;
                self.auditor.expect(News::Released(0))?;
            } else {
                self.auditor.say(|out| withdraw(out, &id, &key))?;
                held += 1;
            }
        }
        match held {
            0 => Ok(()),
            _ => Err(format!("{held} locks are left")),
        }
    }
}

/// What live-mutex's protocol can express.
pub(crate) fn supports(load: &Load) -> Result<(), &'static str> {
    match load.hold {
        Hold::Shared => Err("has no such lock"),
        Hold::Exclusive | Hold::Permits(_) => Ok(()),
    }
}

/// The protocol's client half.
pub(crate) fn connection(load: &Load, index: usize) -> Box<dyn Connection> {
    Box::new(LineConnection {
        index,
        keys: (0..load.lanes).map(|lane| load.key(index, lane)).collect(),
        max: match load.hold {
            Hold::Permits(capacity) => capacity,
            Hold::Exclusive | Hold::Shared => 1,
        },
        cycles: 0,
        ids: vec![String::new(); load.lanes],
    })
}

fn line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a vector takes all");
}

fn ask(out: &mut Vec<u8>, id: &str, key: &str, max: u32) {
    line(
        out,
        format_args!(
            r#"{{"keepLocksAfterDeath":false,"retryCount":0,"uuid":"{id}","key":"{key}","type":"lock","ttl":{LEASE_MS},"rwStatus":null,"max":{max},"pid":1}}"#
        ),
    );
}

/// Acknowledges the grant, and unlocks.
fn give_back(out: &mut Vec<u8>, id: &str, key: &str) {
    line(
        out,
        format_args!(
            r#"{{"type":"lock-received","uuid":"{id}","key":"{key}","max":null,"pid":1,"keepLocksAfterDeath":false}}"#
        ),
    );
    line(
        out,
        format_args!(
            r#"{{"_uuid":"{id}","uuid":"u{id}","key":"{key}","rwStatus":null,"force":false,"type":"unlock","max":null,"pid":1,"keepLocksAfterDeath":false}}"#
        ),
    );
}

fn withdraw(out: &mut Vec<u8>, id: &str, key: &str) {
    line(
        out,
        format_args!(r#"{{"type":"lock-client-timeout","uuid":"{id}","key":"{key}"}}"#),
    );
}

/// The fields of an answer that matter here.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    uuid: Option<Cow<'a, str>>,
    acquired: Option<bool>,
    unlocked: Option<bool>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    warning: Option<Cow<'a, str>>,
    ls_result: Option<serde::de::IgnoredAny>,
}

impl<'a> Answer<'a> {
    /// The answer in the first line of `input`, and the line's length.
    fn first(input: &'a [u8]) -> Result<Option<(Self, usize)>, String> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            return Ok(None);
        };
        let line = &input[..end];
        let answer: Self = serde_json::from_slice(line)
            .map_err(|error| format!("{error} in {}", String::from_utf8_lossy(line)))?;
        match (&answer.error, &answer.warning) {
            (Some(text), _) | (None, Some(text)) => Err(text.to_string()),
            (None, None) => Ok(Some((answer, end + 1))),
        }
    }
}

fn hello(out: &mut Vec<u8>) {
    line(
        out,
        format_args!(
            r#"{{"type":"version","value":"0.2.25","max":null,"pid":1,"keepLocksAfterDeath":false}}"#
        ),
    );
    // The version is not answered; this is.
    line(out, format_args!(r#"{{"type":"ls","uuid":"hello"}}"#));
}

struct LineConnection {
    index: usize,
    keys: Vec<String>,
    max: u32,
    cycles: u64,
    /// The id of each lane's present lock: its last part is the lane.
    ids: Vec<String>,
}

impl Connection for LineConnection {
    fn hello(&mut self, out: &mut Vec<u8>) {
        hello(out);
    }

    fn acquire(&mut self, lane: usize, out: &mut Vec<u8>) {
        use std::fmt::Write;
        self.cycles += 1;
        let id = &mut self.ids[lane];
        id.clear();
        write!(id, "{:08x}-{:018x}-{lane}", self.index, self.cycles).expect("a string takes all");
        ask(out, id, &self.keys[lane], self.max);
    }

    fn release(&mut self, lane: usize, out: &mut Vec<u8>) {
        give_back(out, &self.ids[lane], &self.keys[lane]);
    }

    fn receive(&mut self, input: &[u8], news: &mut Vec<News>) -> Result<usize, String> {
        let mut used = 0;
        while let Some((answer, length)) = Answer::first(&input[used..])? {
            used += length;
            if answer.ls_result.is_some() {
                news.push(News::Ready);
                continue;
            }
            let id = answer.uuid.as_deref().unwrap_or_default();
            let lane = id
                .rsplit('-')
                .next()
                .and_then(|lane| lane.parse().ok())
                .ok_or_else(|| format!("an answer to nobody: {id}"))?;
            match (answer.acquired, answer.unlocked) {
                (Some(true), _) => news.push(News::Acquired(lane)),
                // It is queued; the grant will come.
                (Some(false), _) => {}
                (None, Some(true)) => news.push(News::Released(lane)),
                (None, _) => return Err(format!("{id} was refused")),
            }
        }
        Ok(used)
    }
}

/// Tells a lock that is free from one that is not.
struct Auditor;

impl Connection for Auditor {
    fn hello(&mut self, out: &mut Vec<u8>) {
        hello(out);
    }

    fn acquire(&mut self, _lane: usize, _out: &mut Vec<u8>) {}

    fn release(&mut self, _lane: usize, _out: &mut Vec<u8>) {}

    fn receive(&mut self, input: &[u8], news: &mut Vec<News>) -> Result<usize, String> {
        let mut used = 0;
        while let Some((answer, length)) = Answer::first(&input[used..])? {
            used += length;
            news.push(match (answer.acquired, answer.unlocked) {
                _ if answer.ls_result.is_some() => News::Ready,
                (Some(true), _) => News::Acquired(0),
                (Some(false), _) => News::Busy(0, crate::clock::Duration::ZERO),
                (None, _) => News::Released(0),
            });
        }
        Ok(used)
    }
}

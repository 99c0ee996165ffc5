//! Redis: `SET key owner NX PX ms`, and a script that deletes the key if the owner has it.
//!
//! Who is refused asks again after a pause, for Redis has no queue. The value that proves
//! ownership is made once per loop and both commands are encoded once: as cheap for the
//! client as it can be.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::clock::Duration;
use crate::peer::{Address, Candidate, Connection, News, Peer};
use crate::process::{self, Server};
use crate::scenario::{Hold, Keys, LEASE_MS, Load};

/// Over TCP.
pub(crate) const TCP: Candidate = Candidate {
    name: "redis-tcp",
    what: "Redis over TCP: SET NX PX, compare-and-delete script, asks again after 5 to 15 ms",
    start: |scratch| Ok(Box::new(Poller::start(scratch, Way::Tcp)?)),
};
/// Over a Unix socket.
pub(crate) const UNIX: Candidate = Candidate {
    name: "redis-unix",
    what: "the same over a Unix socket",
    start: |scratch| Ok(Box::new(Poller::start(scratch, Way::Unix)?)),
};
/// Over TCP, asking again at once.
pub(crate) const SPIN: Candidate = Candidate {
    name: "redis-spin",
    what: "the same over TCP, asks again at once",
    start: |scratch| Ok(Box::new(Poller::start(scratch, Way::Spin)?)),
};

const RELEASE: &str =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";

/// A Redis of our own, and a connection to ask it things.
pub(crate) struct Redis {
    /// The process.
    pub(crate) server: Server,
    /// Its name and version.
    pub(crate) version: String,
    /// TCP.
    pub(crate) tcp: Address,
    /// The Unix socket.
    pub(crate) unix: Address,
    stream: BufReader<TcpStream>,
}

/// Starts a Redis with its files in a new folder under `scratch`, keeping nothing on disk.
pub(crate) fn start_server(scratch: &Path) -> Result<Redis, String> {
    let program = process::find("redis-server", &[])
        .ok_or("no redis-server (Debian: apt-get install redis-server)")?;
    let folder = tempfile::tempdir_in(scratch)
        .map_err(|error| error.to_string())?
        .keep();
    let port = process::free_port()?;
    let socket = folder.join("redis.sock");
    let version = process::first_line(Command::new(&program).arg("--version"))?;
    let version = version
        .split(" sha=")
        .next()
        .unwrap_or(&version)
        .replace("server v=", "");
    let mut server = Server::start_quietly(
        Command::new(&program)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--unixsocket".as_ref(), socket.as_os_str()])
            .args(["--dir".as_ref(), folder.as_os_str()])
            .args(["--save", "", "--appendonly", "no", "--maxclients", "12000"]),
        Signal::SIGTERM,
    )?;
    let address = process::loopback(port);
    server.wait_for(address)?;
    let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    Ok(Redis {
        server,
        version,
        tcp: Address::Tcp(address),
        unix: Address::Unix(socket),
        stream: BufReader::new(stream),
    })
}

impl Redis {
    /// Runs a command that answers with one line, and returns that line.
    pub(crate) fn command(&mut self, words: &[&str]) -> Result<String, String> {
        let answer = self
            .line_of(words)
            .map_err(|error| format!("redis: {error}"))?;
        match answer.strip_prefix('-') {
            Some(error) => Err(format!("redis: {error}")),
            None => Ok(answer),
        }
    }

    fn line_of(&mut self, words: &[&str]) -> std::io::Result<String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut out = Vec::new();
        encode(&words, &mut out);
        self.stream.get_mut().write_all(&out)?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if let Some(Ok(length)) = line
            .strip_prefix('$')
            .map(|rest| rest.trim().parse::<usize>())
        {
            let mut body = vec![0; length + 2];
            self.stream.read_exact(&mut body)?;
            body.truncate(length);
            return Ok(String::from_utf8_lossy(&body).into_owned());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Fails unless there is no key at all.
    pub(crate) fn expect_empty(&mut self) -> Result<(), String> {
        match self.command(&["DBSIZE"])?.as_str() {
            ":0" => Ok(()),
            answer => Err(format!("keys are left: {answer}")),
        }
    }
}

/// Appends a command in Redis' protocol.
pub(crate) fn encode(words: &[&[u8]], out: &mut Vec<u8>) {
    write!(out, "*{}\r\n", words.len()).expect("a vector takes all");
    for word in words {
        write!(out, "${}\r\n", word.len()).expect("a vector takes all");
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    Unix,
    Spin,
}

struct Poller {
    redis: Redis,
    way: Way,
    script: String,
}

impl Poller {
    fn start(scratch: &Path, way: Way) -> Result<Self, String> {
        let mut redis = start_server(scratch)?;
        let script = load_script(&mut redis)?;
        Ok(Self { redis, way, script })
    }
}

impl Peer for Poller {
    fn version(&self) -> &str {
        &self.redis.version
    }

    fn address(&self) -> &Address {
        match self.way {
            Way::Tcp | Way::Spin => &self.redis.tcp,
            Way::Unix => &self.redis.unix,
        }
    }

    fn supports(&self, load: &Load) -> Result<(), &'static str> {
        match (load.hold, load.keys, self.way) {
            (Hold::Shared | Hold::Permits(_), ..) => Err("has no such lock"),
            (_, Keys::Own, Way::Spin) => Err("as redis-tcp: nobody is refused"),
            _ => Ok(()),
        }
    }

    fn connection(&self, load: &Load, index: usize) -> Box<dyn Connection> {
        polling(load, index, &self.script, self.way)
    }

    fn audit(&mut self, _load: &Load) -> Result<(), String> {
        self.redis.expect_empty()
    }
}

/// Loads the script that releases, and returns its name.
pub(crate) fn load_script(redis: &mut Redis) -> Result<String, String> {
    redis.command(&["SCRIPT", "LOAD", RELEASE])
}

/// The protocol's client half.
pub(crate) fn connection(load: &Load, index: usize, script: &str) -> Box<dyn Connection> {
    polling(load, index, script, Way::Tcp)
}

fn polling(load: &Load, index: usize, script: &str, way: Way) -> Box<dyn Connection> {
    let lane = |lane| {
        let key = load.key(index, lane);
        let owner = format!("{index:016x}{lane:016x}");
        let (mut acquire, mut release) = (Vec::new(), Vec::new());
        let lease = LEASE_MS.to_string();
        encode(
            &[
                b"SET",
                key.as_bytes(),
                owner.as_bytes(),
                b"NX",
                b"PX",
                lease.as_bytes(),
            ],
            &mut acquire,
        );
        encode(
            &[
                b"EVALSHA",
                script.as_bytes(),
                b"1",
                key.as_bytes(),
                owner.as_bytes(),
            ],
            &mut release,
        );
        (acquire, release)
    };
    Box::new(PollingConnection {
        lanes: (0..load.lanes).map(lane).collect(),
        asked: VecDeque::new(),
        way,
        draw: index as u64,
    })
}

struct PollingConnection {
    /// For each lane what acquires and what releases.
    lanes: Vec<(Vec<u8>, Vec<u8>)>,
    /// What has been asked and not answered: answers come in order.
    asked: VecDeque<Asked>,
    way: Way,
    draw: u64,
}

#[derive(Clone, Copy)]
enum Asked {
    Ping,
    Acquire(usize),
    Release(usize),
}

impl PollingConnection {
    /// 5 to 15 ms, so that those who were refused together do not return together.
    fn pause(&mut self) -> Duration {
        if self.way == Way::Spin {
            return Duration::ZERO;
        }
        self.draw = self
            .draw
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros(5_000 + (self.draw >> 33) % 10_000)
    }
}

impl Connection for PollingConnection {
    fn hello(&mut self, out: &mut Vec<u8>) {
        encode(&[b"PING"], out);
        self.asked.push_back(Asked::Ping);
    }

    fn acquire(&mut self, lane: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lanes[lane].0);
        self.asked.push_back(Asked::Acquire(lane));
    }

    fn release(&mut self, lane: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lanes[lane].1);
        self.asked.push_back(Asked::Release(lane));
    }

    fn receive(&mut self, input: &[u8], news: &mut Vec<News>) -> Result<usize, String> {
        let mut used = 0;
        while let Some(end) = memchr::memchr(b'\n', &input[used..]) {
            let line = &input[used..used + end];
            used += end + 1;
            let answered = self.asked.pop_front().ok_or("an answer to no question")?;
            news.push(match (answered, line) {
                (Asked::Ping, b"+PONG\r") => News::Ready,
                (Asked::Acquire(of), b"+OK\r") => News::Acquired(of),
                (Asked::Acquire(of), b"$-1\r") => News::Busy(of, self.pause()),
                (Asked::Release(of), b":1\r") => News::Released(of),
                _ => return Err(format!("unexpected: {}", String::from_utf8_lossy(line))),
            });
        }
        Ok(used)
    }
}

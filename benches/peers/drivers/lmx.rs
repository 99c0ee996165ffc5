//! LMX itself: its native protocol over TCP and Unix, and live-mutex's over TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use lmx::core::wire::{
    self, AcquireFields, Answer, Command as Ask, Hello, Reply, Request, SeqBuf, WantFields, frame,
};
use lmx::core::{Mode, RequestId};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::clock::Duration;
use crate::drivers::live_mutex;
use crate::peer::{Address, Candidate, Connection, News, Peer};
use crate::process::Server;
use crate::scenario::{Hold, LEASE_MS, Load};

/// How long a frame of each kind is, for the floors. The proof checks it.
pub(crate) const ACQUIRE_BYTES: usize = 66;
/// The same of a release.
pub(crate) const RELEASE_BYTES: usize = 24;

/// Natively, over TCP.
pub(crate) const TCP: Candidate = Candidate {
    name: "lmx-tcp",
    what: "LMX over TCP, its native protocol",
    start: |scratch| Ok(Box::new(Native::start(scratch, Way::Tcp)?)),
};
/// Natively, over a Unix socket.
pub(crate) const UNIX: Candidate = Candidate {
    name: "lmx-unix",
    what: "LMX over a Unix socket, its native protocol",
    start: |scratch| Ok(Box::new(Native::start(scratch, Way::Unix)?)),
};
/// In live-mutex's protocol, over TCP.
pub(crate) const DIALECT: Candidate = Candidate {
    name: "lmx-dialect",
    what: "LMX over TCP, driven as live-mutex's Node client drives its broker",
    start: |scratch| Ok(Box::new(Native::start(scratch, Way::Dialect)?)),
};

/// A broker of our own, and a connection to ask it things.
pub(crate) struct Lmx {
    /// The process.
    pub(crate) server: Server,
    /// Its name and version.
    pub(crate) version: String,
    /// TCP.
    pub(crate) tcp: Address,
    /// The Unix socket.
    pub(crate) unix: Address,
}

/// The line that `lmx start --json` prints when it is ready.
#[derive(Deserialize)]
struct Ready {
    addresses: Vec<Listening>,
}

#[derive(Deserialize)]
struct Listening {
    tcp: Option<SocketAddr>,
}

/// The program under test, built by Cargo as this one was.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_lmx");

/// Starts a broker with its socket under `scratch`.
pub(crate) fn start_server(scratch: &Path) -> Result<Lmx, String> {
    let folder = tempfile::tempdir_in(scratch)
        .map_err(|error| error.to_string())?
        .keep();
    let socket = folder.join("lmx.sock");
    let (server, line) = Server::start_and_read(
        Command::new(PROGRAM)
            .args(["start", "0", "--json", "--unix"])
            .arg(&socket)
            // Kept as it is by default, where nobody else keeps anything.
            .arg("--state-dir")
            .arg(&folder)
            .args(["--connections-max", "12000"])
            // The connections here send no pings, and some hold locks and are silent.
            .args(["--idle-max", "10m"]),
        Signal::SIGTERM,
    )?;
    let ready: Ready = serde_json::from_str(&line).map_err(|error| format!("{error} in {line}"))?;
    let tcp = ready
        .addresses
        .iter()
        .find_map(|listening| listening.tcp)
        .ok_or_else(|| format!("no TCP address in {line}"))?;
    Ok(Lmx {
        server,
        version: format!("lmx {}", env!("CARGO_PKG_VERSION")),
        tcp: Address::Tcp(tcp),
        unix: Address::Unix(socket),
    })
}

impl Lmx {
    /// The broker's counters.
    pub(crate) fn status(&self) -> Result<wire::Status, String> {
        let Address::Tcp(address) = self.tcp else {
            unreachable!("the address is TCP")
        };
        status(address).map_err(|error| format!("cannot ask for the status: {error}"))
    }

    /// Fails unless nothing is held or waited for.
    pub(crate) fn expect_idle(&self) -> Result<(), String> {
        let status = self.status()?;
        match (status.held, status.waiting) {
            (0, 0) => Ok(()),
            (held, waiting) => Err(format!("{held} requests hold and {waiting} wait")),
        }
    }
}

fn status(address: SocketAddr) -> std::io::Result<wire::Status> {
    let mut stream = TcpStream::connect(address)?;
    let mut out = wire::MAGIC.to_vec();
    ask(1, 0, hello(), &mut out);
    ask(2, 0, Ask::Status, &mut out);
    stream.write_all(&out)?;
    let mut input = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let length = stream.read(&mut bytes)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        input.extend_from_slice(&bytes[..length]);
        let mut rest = &input[..];
        while let Some(frame::Frame { body, rest: after }) =
            frame::split(rest, FRAME_BYTES_MAX).map_err(std::io::Error::other)?
        {
            rest = after;
            match Reply::decode(body).map_err(std::io::Error::other)?.body {
                Answer::Status(status) => return Ok(status),
                Answer::Welcome(_) => {}
                other => return Err(std::io::Error::other(format!("{other:?}"))),
            }
        }
    }
}

const FRAME_BYTES_MAX: u32 = 1 << 20;

fn hello() -> Ask<'static> {
    Ask::Hello(Hello {
        auth: &[],
        resume_window: Duration::ZERO,
        resume: None,
        name: "",
    })
}

fn ask(tag: u32, seen: u32, body: Ask<'_>, out: &mut Vec<u8>) {
    frame::append(&Request { tag, seen, body }, out);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    Unix,
    Dialect,
}

struct Native {
    lmx: Lmx,
    way: Way,
}

impl Native {
    fn start(scratch: &Path, way: Way) -> Result<Self, String> {
        Ok(Self {
            lmx: start_server(scratch)?,
            way,
        })
    }
}

impl Peer for Native {
    fn version(&self) -> &str {
        &self.lmx.version
    }

    fn address(&self) -> &Address {
        match self.way {
            Way::Tcp | Way::Dialect => &self.lmx.tcp,
            Way::Unix => &self.lmx.unix,
        }
    }

    fn supports(&self, load: &Load) -> Result<(), &'static str> {
        match self.way {
            Way::Tcp | Way::Unix => Ok(()),
            Way::Dialect => live_mutex::supports(load),
        }
    }

    fn connection(&self, load: &Load, index: usize) -> Box<dyn Connection> {
        match self.way {
            Way::Tcp | Way::Unix => Box::new(NativeConnection::new(load, index)),
            Way::Dialect => live_mutex::connection(load, index),
        }
    }

    fn audit(&mut self, _load: &Load) -> Result<(), String> {
        self.lmx.expect_idle()
    }
}

/// The native protocol, with a lane's cycle in the upper half of its request's id and the
/// lane in the lower.
pub(crate) struct NativeConnection {
    index: usize,
    mode: Mode,
    lease: Duration,
    lanes: Vec<Lane>,
    /// Replies that came unasked.
    seen: u32,
}

struct Lane {
    key: String,
    cycle: u32,
    /// What acquires and what releases, but for the request's id: both are encoded once, as
    /// the other peers' are.
    encoded: Option<Encoded>,
}

/// Fewer lanes than these keep what they send.
const ENCODED_LANES_MAX: usize = 64;

struct Encoded {
    acquire: Template,
    release: Template,
    /// What both confirm.
    seen: u32,
}

/// A frame in which only the id changes from one cycle to the next.
struct Template {
    frame: Vec<u8>,
    id_at: usize,
}

impl Template {
    /// The frame that `encode` makes for an id.
    fn of(encode: impl FnOnce(RequestId, &mut Vec<u8>)) -> Self {
        let any = RequestId::from_u128(0xa5c3_a5c3_a5c3_a5c3_a5c3_a5c3_a5c3_a5c3);
        let mut frame = Vec::new();
        encode(any, &mut frame);
        let bytes = any.as_u128().to_be_bytes();
        let id_at = frame.windows(bytes.len()).position(|part| part == bytes);
        Self {
            frame,
            id_at: id_at.expect("the id is in its frame"),
        }
    }

    fn append(&self, id: RequestId, out: &mut Vec<u8>) {
        let at = out.len() + self.id_at;
        out.extend_from_slice(&self.frame);
        out[at..at + 16].copy_from_slice(&id.as_u128().to_be_bytes());
    }
}

impl NativeConnection {
    /// The connection of this index.
    pub(crate) fn new(load: &Load, index: usize) -> Self {
        let lane = |lane| Lane {
            key: load.key(index, lane),
            cycle: 0,
            encoded: None,
        };
        Self {
            index,
            mode: match load.hold {
                Hold::Exclusive => Mode::Exclusive,
                Hold::Shared => Mode::Shared,
                Hold::Permits(capacity) => Mode::Semaphore {
                    capacity,
                    permits: 1,
                },
            },
            lease: Duration::from_millis(LEASE_MS),
            lanes: (0..load.lanes).map(lane).collect(),
            seen: 0,
        }
    }

    /// Sends what acquires or releases.
    fn send(&mut self, lane: usize, is_release: bool, out: &mut Vec<u8>) {
        let id = self.id(lane);
        if self.lanes[lane].encoded.is_none() && self.lanes.len() <= ENCODED_LANES_MAX {
            let template =
                |is_release| Template::of(|id, out| self.encode(lane, is_release, id, out));
            self.lanes[lane].encoded = Some(Encoded {
                acquire: template(false),
                release: template(true),
                seen: self.seen,
            });
        }
        match &self.lanes[lane].encoded {
            Some(encoded) if encoded.seen == self.seen && is_release => {
                encoded.release.append(id, out);
            }
            Some(encoded) if encoded.seen == self.seen => encoded.acquire.append(id, out),
            // Of a contended key each grant comes unasked and is confirmed by what follows.
            _ => self.encode(lane, is_release, id, out),
        }
    }

    fn encode(&self, lane: usize, is_release: bool, id: RequestId, out: &mut Vec<u8>) {
        if is_release {
            return ask(tag(lane, true), self.seen, Ask::Release { id }, out);
        }
        let mut space = [0; 64];
        let mut wants = SeqBuf::new(&mut space);
        let fits = wants.push(&WantFields {
            key: self.lanes[lane].key.as_bytes(),
            mode: self.mode,
        });
        debug_assert!(fits, "keys are short");
        let fields = AcquireFields {
            lease: Some(self.lease),
            ..AcquireFields::new(id, wants.finish())
        };
        ask(tag(lane, false), self.seen, Ask::Acquire(fields), out);
    }

    fn id(&self, lane: usize) -> RequestId {
        let cycle = u128::from(self.lanes[lane].cycle);
        RequestId::from_u128((self.index as u128) << 96 | cycle << 32 | lane as u128)
    }
}

/// Whose tag it is: lanes have two each, and zero is nobody's.
fn tag(lane: usize, is_release: bool) -> u32 {
    u32::try_from(lane * 2 + 2 + usize::from(is_release)).expect("lanes are few")
}

impl Connection for NativeConnection {
    fn hello(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&wire::MAGIC);
        ask(1, 0, hello(), out);
    }

    fn acquire(&mut self, lane: usize, out: &mut Vec<u8>) {
        self.lanes[lane].cycle += 1;
        self.send(lane, false, out);
    }

    fn set_lease(&mut self, lease: Duration) {
        self.lease = lease;
        self.lanes.iter_mut().for_each(|lane| lane.encoded = None);
    }

    fn release(&mut self, lane: usize, out: &mut Vec<u8>) {
        self.send(lane, true, out);
    }

    fn receive(&mut self, input: &[u8], news: &mut Vec<News>) -> Result<usize, String> {
        let mut rest = input;
        while let Some(frame::Frame { body, rest: after }) =
            frame::split(rest, FRAME_BYTES_MAX).map_err(|error| error.to_string())?
        {
            rest = after;
            let reply = Reply::decode(body).map_err(|error| error.to_string())?;
            if reply.tag == 0 {
                self.seen += 1;
            }
            match reply.body {
                Answer::Welcome(_) => news.push(News::Ready),
                Answer::Granted { id, .. } => news.push(News::Acquired(lane_of(id))),
                Answer::Queued { .. } => {}
                Answer::Released { id } => news.push(News::Released(lane_of(id))),
                Answer::Expired { .. } => news.push(News::Expired),
                other => return Err(format!("unexpected: {other:?}")),
            }
        }
        Ok(input.len() - rest.len())
    }
}

fn lane_of(id: RequestId) -> usize {
    (id.as_u128() & u128::from(u32::MAX)) as usize
}

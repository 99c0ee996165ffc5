//! etcd: its lock service, through the HTTP gateway, as a single member.
//!
//! The gateway answers one request of a connection at a time. etcd writes every lock to its
//! log and replicates it: it does more than any other peer here, and pays for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::peer::{Address, Candidate, Connection, News, Peer};
use crate::process::{self, Server};
use crate::scenario::{Hold, Load};

/// Over HTTP.
pub(crate) const ETCD: Candidate = Candidate {
    name: "etcd",
    what: "etcd over HTTP: /v3/lock, one member (every lock is written to its log)",
    start: |scratch| Ok(Box::new(Etcd::start(scratch)?)),
};

struct Etcd {
    _server: Server,
    version: String,
    address: Address,
    stream: TcpStream,
    /// One lease for each connection, kept from round to round: two connections with one
    /// lease would be the same owner to etcd.
    leases: Vec<String>,
}

impl Etcd {
    fn start(scratch: &Path) -> Result<Self, String> {
        let program =
            process::find("etcd", &[]).ok_or("no etcd (Debian: apt-get install etcd-server)")?;
        let version = process::first_line(Command::new(&program).arg("--version"))?;
        let folder = tempfile::tempdir_in(scratch)
            .map_err(|error| error.to_string())?
            .keep();
        let address = process::loopback(process::free_port()?);
        let client = format!("http://{address}");
        let member = format!("http://{}", process::loopback(process::free_port()?));
        let mut server = Server::start_quietly(
            Command::new(&program)
                .args(["--data-dir".as_ref(), folder.as_os_str()])
                .args(["--listen-client-urls", &client])
                .args(["--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &member])
                .args(["--initial-advertise-peer-urls", &member])
                .args(["--initial-cluster", &format!("default={member}")])
                .args(["--logger", "zap", "--log-level", "error"]),
            Signal::SIGTERM,
        )?;
        let mut stream = None;
        server.wait_until(|| {
            stream = open(address).ok();
            stream.is_some()
        })?;
        Ok(Self {
            _server: server,
            version: version.replace(" Version:", ""),
            address: Address::Tcp(address),
            stream: stream.expect("it is ready"),
            leases: Vec::new(),
        })
    }

    fn ask(&mut self, path: &str, body: &str) -> Result<Value, String> {
        ask(&mut self.stream, path, body).map_err(|error| format!("etcd: {error}"))
    }
}

/// Connects; fails unless the gateway answers, too.
fn open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    ask(&mut stream, "/v3/kv/range", r#"{"key":"AA=="}"#)?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, path: &str, body: &str) -> std::io::Result<Value> {
    let mut out = Vec::new();
    post(path, body, &mut out);
    stream.write_all(&out)?;
    let mut input = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let length = stream.read(&mut bytes)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        input.extend_from_slice(&bytes[..length]);
        if let Some((answer, _)) = response(&input).map_err(std::io::Error::other)? {
            return serde_json::from_slice(answer).map_err(std::io::Error::other);
        }
    }
}

fn post(path: &str, body: &str, out: &mut Vec<u8>) {
    write!(
        out,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a vector takes all");
}

/// The body of the response at the front of `input`, and the length of the response.
fn response(input: &[u8]) -> Result<Option<(&[u8], usize)>, String> {
    let Some(head) = memchr::memmem::find(input, b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&input[..head]).map_err(|error| error.to_string())?;
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| format!("no Content-Length in {text}"))?;
    let Some(body) = input[head + 4..].get(..length) else {
        return Ok(None);
    };
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(String::from_utf8_lossy(body).into_owned());
    }
    Ok(Some((body, head + 4 + length)))
}

impl Peer for Etcd {
    fn version(&self) -> &str {
        &self.version
    }

    fn address(&self) -> &Address {
        &self.address
    }

    fn supports(&self, load: &Load) -> Result<(), &'static str> {
        match load.hold {
            Hold::Shared | Hold::Permits(_) => Err("has no such lock"),
            Hold::Exclusive if load.lanes > 1 => Err("one request at a time on a connection"),
            Hold::Exclusive => Ok(()),
        }
    }

    fn prepare(&mut self, load: &Load) -> Result<(), String> {
        while self.leases.len() < load.connections {
            let granted = self.ask("/v3/lease/grant", r#"{"TTL":7200}"#)?;
            let lease = granted["ID"].as_str().ok_or("no lease was granted")?;
            self.leases.push(lease.to_owned());
        }
        Ok(())
    }

    fn connection(&self, load: &Load, index: usize) -> Box<dyn Connection> {
        let name = STANDARD.encode(load.key(index, 0));
        let lease = &self.leases[index];
        let mut acquire = Vec::new();
        post(
            "/v3/lock/lock",
            &format!(r#"{{"name":"{name}","lease":"{lease}"}}"#),
            &mut acquire,
        );
        Box::new(LockConnection {
            acquire,
            key: String::new(),
            asked: Asked::Hello,
        })
    }

    fn audit(&mut self, _load: &Load) -> Result<(), String> {
        // From the first key to the last: a lock is a key under its name.
        let answer = self.ask(
            "/v3/kv/range",
            r#"{"key":"AA==","range_end":"AA==","count_only":true}"#,
        )?;
        match answer.get("count") {
            None => Ok(()),
            Some(count) => Err(format!("{count} locks are left")),
        }
    }
}

struct LockConnection {
    acquire: Vec<u8>,
    /// What the lock that is held is called.
    key: String,
    asked: Asked,
}

#[derive(Clone, Copy)]
enum Asked {
    Hello,
    Acquire,
    Release,
}

impl Connection for LockConnection {
    fn hello(&mut self, out: &mut Vec<u8>) {
        post("/v3/kv/range", r#"{"key":"AA=="}"#, out);
        self.asked = Asked::Hello;
    }

    fn acquire(&mut self, _lane: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.acquire);
        self.asked = Asked::Acquire;
    }

    fn release(&mut self, _lane: usize, out: &mut Vec<u8>) {
        post(
            "/v3/lock/unlock",
            &format!(r#"{{"key":"{}"}}"#, self.key),
            out,
        );
        self.asked = Asked::Release;
    }

    fn receive(&mut self, input: &[u8], news: &mut Vec<News>) -> Result<usize, String> {
        let Some((body, used)) = response(input)? else {
            return Ok(0);
        };
        news.push(match self.asked {
            Asked::Hello => News::Ready,
            Asked::Acquire => {
                let answer: Value =
                    serde_json::from_slice(body).map_err(|error| error.to_string())?;
                let key = answer["key"].as_str().ok_or("a lock without a key")?;
                key.clone_into(&mut self.key);
                News::Acquired(0)
            }
            Asked::Release => News::Released(0),
        });
        Ok(used)
    }
}

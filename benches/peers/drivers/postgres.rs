//! `PostgreSQL`: session-level advisory locks, with statements prepared once per connection.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::peer::{Address, Candidate, Connection, News, Peer};
use crate::process::{self, Server};
use crate::scenario::{Hold, Keys, Load};

/// Over TCP.
pub(crate) const POSTGRES: Candidate = Candidate {
    name: "postgres",
    what: "PostgreSQL over TCP: pg_advisory_lock, prepared",
    start: |scratch| Ok(Box::new(Postgres::start(scratch)?)),
};

struct Postgres {
    _server: Server,
    version: String,
    address: Address,
    stream: TcpStream,
}

impl Postgres {
    fn start(scratch: &Path) -> Result<Self, String> {
        let missing = "no PostgreSQL server (Debian: apt-get install postgresql)";
        let folders = folders();
        let initdb = process::find("initdb", &folders).ok_or(missing)?;
        let postgres = process::find("postgres", &folders).ok_or(missing)?;
        let version = process::first_line(Command::new(&postgres).arg("--version"))?;
        let folder = tempfile::tempdir_in(scratch)
            .map_err(|error| error.to_string())?
            .keep();
        let data = folder.join("data");
        if process::is_root() {
            hand_over(scratch, &folder)?;
        }
        let made = unprivileged(&initdb)
            .args(["--no-sync", "--auth=trust", "--username=bench", "--pgdata"])
            .arg(&data)
            .current_dir(&folder)
            .output()
            .map_err(|error| format!("cannot run initdb: {error}"))?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let port = process::free_port()?;
        let mut server = Server::start_quietly(
            unprivileged(&postgres)
                .arg("-D")
                .arg(&data)
                .args(["-h", "127.0.0.1", "-p", &port.to_string()])
                .args([
                    "-c",
                    "unix_socket_directories=",
                    "-c",
                    "max_connections=1100",
                ])
                .args(["-c", "fsync=off", "-c", "autovacuum=off"])
                .current_dir(&folder),
            Signal::SIGINT,
        )?;
        let address = process::loopback(port);
        let mut stream = None;
        server.wait_until(|| {
            stream = open(address).ok();
            stream.is_some()
        })?;
        Ok(Self {
            _server: server,
            version,
            address: Address::Tcp(address),
            stream: stream.expect("it is ready"),
        })
    }

    /// Runs a query that answers with one number.
    fn number_of(&mut self, query: &str) -> std::io::Result<u64> {
        let mut out = Vec::new();
        message(b'Q', &mut out, |out| string(query, out));
        self.stream.write_all(&out)?;
        let mut number = 0;
        loop {
            let (kind, body) = read_message(&mut self.stream)?;
            match kind {
                b'D' => {
                    let text = body.get(6..).unwrap_or_default();
                    number = std::str::from_utf8(text)
                        .ok()
                        .and_then(|text| text.parse().ok())
                        .ok_or_else(|| std::io::Error::other("no number in the answer"))?;
                }
                b'E' => return Err(std::io::Error::other(error_text(&body))),
                b'Z' => return Ok(number),
                _ => {}
            }
        }
    }
}

/// Where Debian puts the programs, newest version first.
fn folders() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, path)| path).collect()
}

/// `PostgreSQL` does not run as root: then it runs as the user that its package made.
fn unprivileged(program: &Path) -> Command {
    if !process::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}

fn hand_over(scratch: &Path, folder: &Path) -> Result<(), String> {
    let readable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(scratch, readable).map_err(|error| error.to_string())?;
    let status = Command::new("chown")
        .arg("postgres")
        .arg(folder)
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err("there is no user postgres to run it as".into())
    }
}

fn open(address: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    let mut out = Vec::new();
    startup(&mut out);
    stream.write_all(&out)?;
    loop {
        match read_message(&mut stream)? {
            (b'Z', _) => return Ok(stream),
            (b'E', body) => return Err(std::io::Error::other(error_text(&body))),
            _ => {}
        }
    }
}

fn read_message(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut body = vec![0; length.saturating_sub(4) as usize];
    stream.read_exact(&mut body)?;
    Ok((head[0], body))
}

fn error_text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).replace('\0', " ")
}

fn startup(out: &mut Vec<u8>) {
    body(out, |out| {
        out.extend_from_slice(&196_608_u32.to_be_bytes());
        for text in ["user", "bench", "database", "postgres", ""] {
            string(text, out);
        }
    });
}

fn message(kind: u8, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    body(out, fill);
}

fn body(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = u32::try_from(out.len() - start).expect("messages are short");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

impl Peer for Postgres {
    fn version(&self) -> &str {
        &self.version
    }

    fn address(&self) -> &Address {
        &self.address
    }

    fn supports(&self, load: &Load) -> Result<(), &'static str> {
        match load.hold {
            Hold::Permits(_) => Err("has no such lock"),
            _ if load.lanes > 1 && load.keys == Keys::One => {
                Err("a connection excludes others, not itself")
            }
            Hold::Exclusive | Hold::Shared => Ok(()),
        }
    }

    fn connection(&self, load: &Load, index: usize) -> Box<dyn Connection> {
        let (acquire, release) = match load.hold {
            Hold::Shared => ("pg_advisory_lock_shared", "pg_advisory_unlock_shared"),
            Hold::Exclusive | Hold::Permits(_) => ("pg_advisory_lock", "pg_advisory_unlock"),
        };
        let key = |lane| match load.keys {
            Keys::One => 1,
            Keys::Own => (index * load.lanes + lane) as u64 + 1,
        };
        Box::new(AdvisoryConnection {
            acquire: format!("select {acquire}($1)"),
            release: format!("select {release}($1)"),
            keys: (0..load.lanes).map(key).collect(),
            asked: VecDeque::new(),
        })
    }

    fn audit(&mut self, _load: &Load) -> Result<(), String> {
        match self.number_of("select count(*) from pg_locks where locktype = 'advisory'") {
            Ok(0) => Ok(()),
            Ok(count) => Err(format!("{count} advisory locks are left")),
            Err(error) => Err(format!("cannot count the locks: {error}")),
        }
    }
}

struct AdvisoryConnection {
    acquire: String,
    release: String,
    /// Its keys are numbers: one for each lane.
    keys: Vec<u64>,
    /// What has been asked and not answered: answers come in order.
    asked: VecDeque<Asked>,
}

#[derive(Clone, Copy)]
enum Asked {
    /// To log in.
    Login,
    /// To prepare the statements.
    Prepare,
    Acquire(usize),
    Release(usize),
}

impl AdvisoryConnection {
    fn execute(&self, statement: &str, lane: usize, out: &mut Vec<u8>) {
        message(b'B', out, |out| {
            string("", out);
            string(statement, out);
            // One parameter, in binary; results as text.
            out.extend_from_slice(&[0, 1, 0, 1, 0, 1, 0, 0, 0, 8]);
            out.extend_from_slice(&self.keys[lane].to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        });
        message(b'E', out, |out| {
            string("", out);
            out.extend_from_slice(&[0; 4]);
        });
        message(b'S', out, |_| {});
    }
}

impl Connection for AdvisoryConnection {
    fn hello(&mut self, out: &mut Vec<u8>) {
        startup(out);
        for (name, query) in [("a", &self.acquire), ("r", &self.release)] {
            message(b'P', out, |out| {
                string(name, out);
                string(query, out);
                // One parameter, of type int8.
                out.extend_from_slice(&[0, 1, 0, 0, 0, 20]);
            });
        }
        message(b'S', out, |_| {});
        self.asked.extend([Asked::Login, Asked::Prepare]);
    }

    fn acquire(&mut self, lane: usize, out: &mut Vec<u8>) {
        self.execute("a", lane, out);
        self.asked.push_back(Asked::Acquire(lane));
    }

    fn release(&mut self, lane: usize, out: &mut Vec<u8>) {
        self.execute("r", lane, out);
        self.asked.push_back(Asked::Release(lane));
    }

    fn receive(&mut self, input: &[u8], news: &mut Vec<News>) -> Result<usize, String> {
        let mut used = 0;
        while let Some((head, rest)) = input[used..].split_first_chunk::<5>() {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some(body) = rest.get(..length.saturating_sub(4)) else {
                break;
            };
            used += 1 + length.max(4);
            match head[0] {
                b'E' => return Err(error_text(body)),
                b'D' => {
                    let is_release = matches!(self.asked.front(), Some(Asked::Release(_)));
                    // One column; its length, then its text.
                    if is_release && body.get(6..) != Some(b"t") {
                        return Err("a lock that was to be released was not held".into());
                    }
                }
                b'Z' => match self.asked.pop_front().ok_or("an answer to no question")? {
                    Asked::Login => {}
                    Asked::Prepare => news.push(News::Ready),
                    Asked::Acquire(lane) => news.push(News::Acquired(lane)),
                    Asked::Release(lane) => news.push(News::Released(lane)),
                },
                _ => {}
            }
        }
        Ok(used)
    }
}

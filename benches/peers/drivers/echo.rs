//! The floor of the runtime: an echo server on smol, with frames as long as LMX's.
//!
//! It is what the broker would be if locking cost nothing.

use std::process::Command;

use nix::sys::signal::Signal;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpListener;

use crate::drivers::lmx::{ACQUIRE_BYTES, RELEASE_BYTES};
use crate::peer::{Address, Candidate, Connection, News, Peer};
use crate::process::Server;
use crate::scenario::{Keys, Load};

/// Over TCP.
pub(crate) const ECHO: Candidate = Candidate {
    name: "echo-smol",
    what: "floor: an echo server on smol over TCP, frames as long as LMX's; locks nothing",
    start: |_| Ok(Box::new(Echo::start()?)),
};

/// Echoes on a port that it prints, until it is ended.
pub(crate) fn serve() -> std::io::Result<()> {
    let executor = smol::LocalExecutor::new();
    smol::block_on(executor.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            executor
                .spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                        if stream.write_all(&bytes[..length]).await.is_err() {
                            return;
                        }
                    }
                })
                .detach();
        }
    }))
}

/// Starts this program as a floor's server, and returns where it listens.
pub(crate) fn start_floor(floor: &str) -> Result<(Server, std::net::SocketAddr), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let (server, line) = Server::start_and_read(
        Command::new(program).args(["--serve", floor]),
        Signal::SIGTERM,
    )?;
    let address = line
        .trim()
        .parse()
        .map_err(|_| format!("no address in {line}"))?;
    Ok((server, address))
}

struct Echo {
    _server: Server,
    address: Address,
}

impl Echo {
    fn start() -> Result<Self, String> {
        let (server, address) = start_floor("echo")?;
        Ok(Self {
            _server: server,
            address: Address::Tcp(address),
        })
    }
}

impl Peer for Echo {
    fn version(&self) -> &'static str {
        "smol, one thread"
    }

    fn address(&self) -> &Address {
        &self.address
    }

    fn supports(&self, load: &Load) -> Result<(), &'static str> {
        match load.keys {
            Keys::Own => Ok(()),
            Keys::One => Err("nobody waits for an echo"),
        }
    }

    fn connection(&self, _load: &Load, _index: usize) -> Box<dyn Connection> {
        Box::new(EchoConnection {
            asked: std::collections::VecDeque::new(),
        })
    }

    fn audit(&mut self, _load: &Load) -> Result<(), String> {
        Ok(())
    }

    fn is_floor(&self) -> bool {
        true
    }
}

struct EchoConnection {
    /// How long each message under way is, and what its echo means.
    asked: std::collections::VecDeque<(usize, News)>,
}

impl EchoConnection {
    fn send(&mut self, length: usize, means: News, out: &mut Vec<u8>) {
        out.resize(out.len() + length, b'.');
        self.asked.push_back((length, means));
    }
}

impl Connection for EchoConnection {
    fn hello(&mut self, out: &mut Vec<u8>) {
        self.send(1, News::Ready, out);
    }

    fn acquire(&mut self, lane: usize, out: &mut Vec<u8>) {
        self.send(ACQUIRE_BYTES, News::Acquired(lane), out);
    }

    fn release(&mut self, lane: usize, out: &mut Vec<u8>) {
        self.send(RELEASE_BYTES, News::Released(lane), out);
    }

    fn receive(&mut self, input: &[u8], news: &mut Vec<News>) -> Result<usize, String> {
        let mut used = 0;
        while let Some(&(length, means)) = self.asked.front()
            && input.len() - used >= length
        {
            used += length;
            news.push(means);
            self.asked.pop_front();
        }
        Ok(used)
    }
}

//! The floor of the machine: a blocking ping-pong, with no runtime on either side.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::clock::now;
use crate::drivers::echo::start_floor;
use crate::drivers::lmx::{ACQUIRE_BYTES, RELEASE_BYTES};
use crate::peer::{Address, Candidate, Connection, Peer, Window};
use crate::process::Server;
use crate::scenario::Load;
use crate::stats::{self, Sample};

/// Over TCP.
pub(crate) const PING_PONG: Candidate = Candidate {
    name: "ping-pong",
    what: "floor: the same frames between two blocking threads over TCP; locks nothing",
    start: |_| Ok(Box::new(PingPong::start()?)),
};

/// Echoes on a port that it prints, with a thread for each connection.
pub(crate) fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&bytes[..length]).is_err() {
                    return;
                }
            }
        });
    }
}

struct PingPong {
    _server: Server,
    tcp: SocketAddr,
    address: Address,
}

impl PingPong {
    fn start() -> Result<Self, String> {
        let (server, tcp) = start_floor("blocking")?;
        Ok(Self {
            _server: server,
            tcp,
            address: Address::Tcp(tcp),
        })
    }

    fn cycles(&self, window: Window) -> std::io::Result<Sample> {
        let mut stream = TcpStream::connect(self.tcp)?;
        stream.set_nodelay(true)?;
        let mut bytes = [0; ACQUIRE_BYTES];
        let mut cycle = || -> std::io::Result<()> {
            for length in [ACQUIRE_BYTES, RELEASE_BYTES] {
                stream.write_all(&bytes[..length])?;
                stream.read_exact(&mut bytes[..length])?;
            }
            Ok(())
        };
        let warm = now() + window.warm_up;
        while now() < warm {
            cycle()?;
        }
        let mut latency = stats::histogram();
        let begun = now();
        while begun.elapsed() < window.measure {
            let before = now();
            cycle()?;
            latency
                .saturating_record(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(Sample::of(&latency, begun.elapsed()))
    }
}

impl Peer for PingPong {
    fn version(&self) -> &'static str {
        "std, a thread each"
    }

    fn address(&self) -> &Address {
        &self.address
    }

    fn supports(&self, load: &Load) -> Result<(), &'static str> {
        match (load.connections, load.lanes) {
            (1, 1) => Ok(()),
            _ => Err("one connection only"),
        }
    }

    fn connection(&self, _load: &Load, _index: usize) -> Box<dyn Connection> {
        unreachable!("it runs its own loop")
    }

    fn audit(&mut self, _load: &Load) -> Result<(), String> {
        Ok(())
    }

    fn is_floor(&self) -> bool {
        true
    }

    fn run(&mut self, _load: &Load, window: Window) -> Result<Sample, String> {
        self.cycles(window).map_err(|error| error.to_string())
    }
}

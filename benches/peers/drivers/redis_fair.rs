//! Redis with a queue: a list holds the lock's only element; `BLPOP` takes it and `RPUSH`
//! puts it back. Redis serves those who block on a list first come, first served.
//!
//! It is the fastest fair lock that Redis can express, and not a safe one: a holder that
//! dies takes the element with it for ever, and there is no lease. It stands here for the
//! cost of waiting alone.

use std::path::Path;

use crate::drivers::redis::{self, Redis, encode};
use crate::peer::{Address, Candidate, Connection, News, Peer};
use crate::scenario::{Hold, Load};

/// Over TCP.
pub(crate) const FAIR: Candidate = Candidate {
    name: "redis-fair",
    what: "Redis over TCP: BLPOP and RPUSH of a list's only element (no lease, not safe)",
    start: |scratch| Ok(Box::new(Fair::start(scratch)?)),
};

struct Fair {
    redis: Redis,
}

impl Fair {
    fn start(scratch: &Path) -> Result<Self, String> {
        Ok(Self {
            redis: redis::start_server(scratch)?,
        })
    }
}

impl Peer for Fair {
    fn version(&self) -> &str {
        &self.redis.version
    }

    fn address(&self) -> &Address {
        &self.redis.tcp
    }

    fn supports(&self, load: &Load) -> Result<(), &'static str> {
        match load.hold {
            Hold::Shared => Err("has no such lock"),
            _ if load.lanes > 1 => Err("a blocked command blocks its connection"),
            Hold::Exclusive | Hold::Permits(_) => Ok(()),
        }
    }

    fn prepare(&mut self, load: &Load) -> Result<(), String> {
        self.redis.command(&["FLUSHALL"])?;
        for key in load.all_keys() {
            for _ in 0..load.capacity() {
                self.redis.command(&["RPUSH", &key, "free"])?;
            }
        }
        Ok(())
    }

    fn connection(&self, load: &Load, index: usize) -> Box<dyn Connection> {
        let key = load.key(index, 0);
        let (mut acquire, mut release) = (Vec::new(), Vec::new());
        encode(&[b"BLPOP", key.as_bytes(), b"0"], &mut acquire);
        encode(&[b"RPUSH", key.as_bytes(), b"free"], &mut release);
        let mut granted = Vec::new();
        encode(&[key.as_bytes(), b"free"], &mut granted);
        Box::new(FairConnection {
            acquire,
            release,
            granted,
        })
    }

    fn audit(&mut self, load: &Load) -> Result<(), String> {
        let blocked = self.redis.command(&["INFO", "clients"])?;
        if !blocked.contains("blocked_clients:0") {
            return Err("clients still wait".into());
        }
        for key in load.all_keys() {
            let free = self.redis.command(&["LLEN", &key])?;
            if free != format!(":{}", load.capacity()) {
                return Err(format!("{key} is held: {free} elements are left"));
            }
        }
        Ok(())
    }
}

struct FairConnection {
    acquire: Vec<u8>,
    release: Vec<u8>,
    /// What the answer to `acquire` is.
    granted: Vec<u8>,
}

impl Connection for FairConnection {
    fn hello(&mut self, out: &mut Vec<u8>) {
        encode(&[b"PING"], out);
    }

    fn acquire(&mut self, _lane: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.acquire);
    }

    fn release(&mut self, _lane: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.release);
    }

    fn receive(&mut self, input: &[u8], news: &mut Vec<News>) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            if rest.starts_with(&self.granted) {
                used += self.granted.len();
                news.push(News::Acquired(0));
            } else if self.granted.starts_with(rest) {
                return Ok(used);
            } else if let Some(end) = memchr::memchr(b'\n', rest) {
                match &rest[..end] {
                    b"+PONG\r" => news.push(News::Ready),
                    [b':', ..] => news.push(News::Released(0)),
                    line => {
                        return Err(format!("unexpected: {}", String::from_utf8_lossy(line)));
                    }
                }
                used += end + 1;
            } else {
                return Ok(used);
            }
        }
    }
}

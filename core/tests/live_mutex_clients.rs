//! live-mutex's clients as state machines, many at a time, in random order.
//!
//! Each follows its protocol step by step, as the real ones do; which one goes on is drawn
//! from a seed, and so is who dies, who repeats its request, and who gives up. Whatever the
//! order: two that exclude each other are never inside together, nobody waits for ever (no
//! time passes, so nothing is mended by a ttl), and in the end nothing is left behind.
#![cfg(feature = "alloc")]

use std::collections::BTreeMap;

use lmx_core::Instant;
use lmx_core::broker::{Broker, BrokerConfig, ConnectionId};
use serde_json::{Value, json};

const SEEDS: u64 = 100;

#[test]
fn plain_locks_exclude_and_drain() {
    for seed in 0..SEEDS {
        World::new(seed, &[Kind::Plain; 5]).run();
    }
}

#[test]
fn older_readers_and_writers_exclude_and_drain() {
    for seed in 0..SEEDS {
        World::new(seed, &[Kind::Older; 5]).run();
    }
}

#[test]
fn newer_readers_and_writers_exclude_and_drain() {
    for seed in 0..SEEDS {
        World::new(seed, &[Kind::Newer; 5]).run();
    }
}

#[test]
fn older_and_newer_readers_and_writers_exclude_and_drain() {
    use Kind::{Newer, Older};
    for seed in 0..SEEDS {
        World::new(seed, &[Older, Newer, Older, Newer, Newer, Older]).run();
    }
}

#[test]
fn read_preferring_clients_exclude_and_drain() {
    for seed in 0..SEEDS {
        World::new(seed, &[Kind::ReadPreferring; 5]).run();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Write-preferring, of 0.2.25.
    Older,
    /// Write-preferring, of 0.2.27.
    Newer,
    ReadPreferring,
}

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Locks a key under the next id, with a role and a `max`.
    Lock(&'static str, Value2),
    /// Unlocks what it locked last.
    Unlock(&'static str),
    /// A message that names only the key.
    Say(&'static str),
    Enter(Role),
    Leave,
    /// Locks the write key if the last lock's grant counted one reader.
    LockWriteKeyIfFirst,
    UnlockWriteKeyIfLast,
    EndWrite,
}

/// A lock's `rwStatus` and `max`.
type Value2 = (Option<&'static str>, Option<u32>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Reader,
    Writer,
}

fn steps(kind: Kind, role: Role) -> Vec<Step> {
    use Step::{
        EndWrite, Enter, Leave, Lock, LockWriteKeyIfFirst, Say, Unlock, UnlockWriteKeyIfLast,
    };
    let base = |max| Lock("k", (None, max));
    match (kind, role) {
        (Kind::Plain, _) => vec![base(None), Enter(Role::Writer), Leave, Unlock("k")],
        (Kind::Older, Role::Reader) => vec![
            base(Some(1)),
            Say("register-write-flag-check"),
            Unlock("k"),
            Enter(role),
            Leave,
            base(Some(1)),
            Say("decrement-readers"),
            Unlock("k"),
        ],
        (Kind::Older, Role::Writer) => vec![
            base(Some(1)),
            Say("register-write-flag-and-readers-check"),
            Unlock("k"),
            Enter(role),
            Leave,
            base(Some(1)),
            Say("set-write-flag-false-and-broadcast"),
            Unlock("k"),
        ],
        (Kind::Newer, Role::Reader) => vec![
            Say("register-write-flag-check"),
            base(Some(10)),
            Say("increment-readers"),
            Enter(role),
            Leave,
            Say("decrement-readers"),
            Unlock("k"),
        ],
        (Kind::Newer, Role::Writer) => vec![
            base(Some(1)),
            Say("register-write-flag-and-readers-check"),
            Enter(role),
            Leave,
            Unlock("k"),
            Say("set-write-flag-false-and-broadcast"),
        ],
        (Kind::ReadPreferring, Role::Reader) => vec![
            Lock("k", (Some("begin_read"), Some(10))),
            LockWriteKeyIfFirst,
            Unlock("k"),
            Enter(role),
            Leave,
            Lock("k", (Some("end_read"), Some(1))),
            Unlock("k"),
            UnlockWriteKeyIfLast,
        ],
        (Kind::ReadPreferring, Role::Writer) => vec![
            Lock("w", (Some("begin_write"), Some(1))),
            Enter(role),
            Leave,
            EndWrite,
        ],
    }
}

struct Client {
    kind: Kind,
    connection: ConnectionId,
    todo: Vec<Step>,
    rounds: u32,
    /// The id and the frame of what it waits for an answer to.
    asked: Option<(String, Value)>,
    lock_id: String,
    base_id: String,
    readers: u64,
    inside: Option<Role>,
    ids: u64,
}

struct World {
    broker: Broker,
    now: Instant,
    random: u64,
    clients: Vec<Client>,
    inboxes: BTreeMap<usize, Vec<u8>>,
    log: Vec<String>,
    deaths: u32,
    seed: u64,
    granted: BTreeMap<String, u64>,
    last_token: u64,
}

impl World {
    fn new(seed: u64, kinds: &[Kind]) -> Self {
        let now = Instant::from_millis(1);
        let mut world = Self {
            broker: Broker::new(now, BrokerConfig::default()).unwrap(),
            now,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            clients: Vec::new(),
            inboxes: BTreeMap::new(),
            log: Vec::new(),
            deaths: 3,
            seed,
            granted: BTreeMap::new(),
            last_token: 0,
        };
        for (index, &kind) in kinds.iter().enumerate() {
            let connection = world.broker.connect(now).unwrap();
            world.clients.push(Client {
                kind,
                connection,
                todo: Vec::new(),
                rounds: 8,
                asked: None,
                lock_id: String::new(),
                base_id: String::new(),
                readers: 0,
                inside: None,
                ids: 1000 * index as u64,
            });
            world.greet(index);
        }
        world
    }

    fn run(mut self) {
        loop {
            let ready: Vec<usize> = (0..self.clients.len())
                .filter(|&index| self.is_ready(index))
                .collect();
            if self
                .clients
                .iter()
                .all(|c| c.rounds == 0 && c.todo.is_empty())
            {
                break;
            }
            assert!(!ready.is_empty(), "{}", self.story("nobody can go on"));
            let index = ready[self.draw(ready.len() as u64) as usize];
            match self.draw(60) {
                0 if self.deaths > 0 => {
                    let anybody = self.draw(self.clients.len() as u64) as usize;
                    self.die(anybody);
                }
                1 | 2 => {
                    let anybody = self.draw(self.clients.len() as u64) as usize;
                    self.repeat(anybody);
                }
                _ => self.go_on(index),
            }
            self.receive();
            self.check();
        }
        for index in 0..self.clients.len() {
            let connection = self.clients[index].connection;
            self.broker.handle_disconnect(self.now, connection);
        }
        self.deaths = 0;
        let connection = self.broker.connect(self.now).unwrap();
        self.broker.handle_input(
            self.now,
            connection,
            b"{\"type\":\"ls\",\"uuid\":\"end\"}\n",
        );
        let left = String::from_utf8(self.broker.output(connection).to_vec()).unwrap();
        assert_eq!(
            left,
            "{\"ls_result\":[],\"uuid\":\"end\"}\n",
            "{}",
            self.story("left")
        );
    }

    fn is_ready(&self, index: usize) -> bool {
        let client = &self.clients[index];
        client.asked.is_none() && (client.rounds > 0 || !client.todo.is_empty())
    }

    fn go_on(&mut self, index: usize) {
        if self.clients[index].todo.is_empty() {
            let role = if self.draw(3) == 0 {
                Role::Writer
            } else {
                Role::Reader
            };
            let client = &mut self.clients[index];
            client.rounds -= 1;
            client.todo = steps(client.kind, role);
            client.todo.reverse();
        }
        let client = &mut self.clients[index];
        let step = client.todo.pop().unwrap();
        match step {
            Step::Lock(key, (rw_status, max)) => self.lock(index, key, rw_status, max),
            Step::Unlock(key) => {
                let id = client.base_id.clone();
                self.ask(
                    index,
                    json!({"type":"unlock","_uuid":id,"key":key,"force":false}),
                );
            }
            Step::Say(kind) => self.ask(index, json!({"type":kind,"key":"k"})),
            Step::Enter(role) => client.inside = Some(role),
            Step::Leave => client.inside = None,
            Step::LockWriteKeyIfFirst if client.readers == 1 => {
                self.lock(index, "w", Some("locking_write_key"), None);
            }
            Step::UnlockWriteKeyIfLast if client.readers == 1 => self.ask(
                index,
                json!({"type":"unlock","key":"w","rwStatus":"unlocking_write_key","force":true}),
            ),
            Step::LockWriteKeyIfFirst | Step::UnlockWriteKeyIfLast => {}
            Step::EndWrite => self.ask(
                index,
                json!({"type":"unlock","key":"w","rwStatus":"end_write","force":true}),
            ),
        }
    }

    fn lock(&mut self, index: usize, key: &str, rw_status: Option<&str>, max: Option<u32>) {
        let frame = json!({
            "keepLocksAfterDeath": false, "retryCount": 0, "key": key, "type": "lock",
            "ttl": null, "rwStatus": rw_status, "max": max, "pid": index,
        });
        self.ask(index, frame);
        let client = &mut self.clients[index];
        client.lock_id = client.asked.as_ref().unwrap().0.clone();
        if rw_status != Some("locking_write_key") {
            client.base_id.clone_from(&client.lock_id);
        }
    }

    fn ask(&mut self, index: usize, mut frame: Value) {
        let client = &mut self.clients[index];
        client.ids += 1;
        let id = format!("{:08x}-0000-4000-8000-{:012x}", index, client.ids);
        frame["uuid"] = json!(id);
        client.asked = Some((id, frame.clone()));
        self.send(index, &frame);
    }

    /// Sends the lock request that waits for its answer again.
    fn repeat(&mut self, index: usize) {
        if let Some((_, frame)) = &self.clients[index].asked
            && frame["type"] == "lock"
        {
            let mut frame = frame.clone();
            frame["retryCount"] = json!(1);
            self.send(index, &frame);
        }
    }

    /// Loses the connection at any point, and comes back as another.
    fn die(&mut self, index: usize) {
        self.deaths -= 1;
        self.log.push(format!("{index} dies"));
        self.broker
            .handle_disconnect(self.now, self.clients[index].connection);
        self.inboxes.remove(&index);
        let connection = self.broker.connect(self.now).unwrap();
        let client = &mut self.clients[index];
        client.connection = connection;
        client.todo.clear();
        client.asked = None;
        client.inside = None;
        self.greet(index);
    }

    fn greet(&mut self, index: usize) {
        let version = match self.clients[index].kind {
            Kind::Plain | Kind::Older => "0.2.25",
            Kind::Newer | Kind::ReadPreferring => "0.2.27",
        };
        self.send(index, &json!({"type":"version","value":version}));
    }

    fn send(&mut self, index: usize, frame: &Value) {
        let line = format!("{frame}\n");
        self.log.push(format!("{index}> {}", line.trim_end()));
        let connection = self.clients[index].connection;
        self.broker
            .handle_input(self.now, connection, line.as_bytes());
    }

    fn receive(&mut self) {
        while self.broker.poll_connection().is_some() {}
        for index in 0..self.clients.len() {
            let connection = self.clients[index].connection;
            let output = self.broker.output(connection).to_vec();
            self.broker
                .consume_output(self.now, connection, output.len());
            let inbox = self.inboxes.entry(index).or_default();
            inbox.extend_from_slice(&output);
            let text = String::from_utf8(std::mem::take(inbox)).unwrap();
            for line in text.lines() {
                self.log.push(format!("{index}< {line}"));
                let frame: Value = serde_json::from_str(line).unwrap();
                self.hear(index, &frame);
            }
        }
    }

    fn hear(&mut self, index: usize, frame: &Value) {
        assert!(frame.get("error").is_none(), "{}", self.story("an error"));
        if frame["acquired"] == true {
            let id = frame["uuid"].as_str().unwrap().to_owned();
            let token = frame["fencingToken"].as_u64().unwrap();
            let earlier = self.granted.insert(id, token);
            assert_eq!(earlier, None, "{}", self.story("granted twice"));
            assert!(token > 0 && token < 1 << 53);
            self.last_token = self.last_token.max(token);
        }
        let client = &mut self.clients[index];
        let Some((id, asked)) = &client.asked else {
            return;
        };
        let is_answer = frame["uuid"] == json!(id)
            && frame["acquired"] != false
            && frame["type"] != "register-write-flag-check-queued";
        if !is_answer {
            return;
        }
        if asked["type"] == "lock" {
            let confirmed = json!({"uuid": id, "key": asked["key"], "type": "lock-received"});
            if asked["rwStatus"] != "locking_write_key" {
                client.readers = frame["readersCount"].as_u64().unwrap();
            }
            client.asked = None;
            self.send(index, &confirmed);
        } else {
            client.asked = None;
        }
    }

    fn check(&self) {
        let count = |role| {
            self.clients
                .iter()
                .filter(|client| client.inside == Some(role))
                .count()
        };
        let (readers, writers) = (count(Role::Reader), count(Role::Writer));
        assert!(
            writers == 0 || (writers == 1 && readers == 0),
            "{}",
            self.story(&format!("{writers} writers and {readers} readers"))
        );
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    fn story(&self, what: &str) -> String {
        let from = self.log.len().saturating_sub(60);
        format!(
            "seed {}: {what}\n{}",
            self.seed,
            self.log[from..].join("\n")
        )
    }
}

//! Crashes of the broker at any step, under clients that believe what they were told.
//!
//! Real machines on both sides, bytes that arrive in pieces, a disk that is slow and loses
//! what was under way, and a broker that dies between any two steps. After every step,
//! what all holders together believe is judged.
#![cfg(feature = "alloc")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lmx_core::broker::{Broker, BrokerConfig, ConnectionId, Durability, Record};
use lmx_core::client::{Client, ClientConfig, ClientEvent, LockRequest};
use lmx_core::{Instant, RequestId};

const KEYS: u64 = 2;
const CLIENTS: usize = 4;
const STEPS: u32 = 8000;

/// The same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

struct Node {
    client: Client,
    connection: Option<ConnectionId>,
    /// Bytes on their way, to the broker and from it.
    up: Vec<u8>,
    down: Vec<u8>,
    /// Requests that have not ended, and their keys; whether they were seen to be granted.
    requests: BTreeMap<RequestId, (u64, bool)>,
}

/// A hold that somebody believes in who has no client any more.
struct Abandoned {
    key: u64,
    id: RequestId,
    until: Option<Instant>,
}

struct World {
    random: Random,
    now: Instant,
    broker: Broker,
    safe: Option<Record>,
    in_flight: Option<Record>,
    nodes: Vec<Node>,
    abandoned: Vec<Abandoned>,
    /// Kept requests that nobody believes in, but that may hold.
    garbage: Vec<RequestId>,
    /// The largest token that was given for a key, and to which request.
    newest: BTreeMap<u64, (u64, RequestId)>,
    tokens: BTreeMap<u64, RequestId>,
    grants: u32,
    last_id: u128,
    crashes: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::from_millis(5_000);
        let mut world = Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now,
            broker: Broker::new(now, BrokerConfig::default()).unwrap(),
            safe: None,
            in_flight: None,
            nodes: Vec::new(),
            abandoned: Vec::new(),
            garbage: Vec::new(),
            newest: BTreeMap::new(),
            tokens: BTreeMap::new(),
            grants: 0,
            last_id: 0,
            crashes: 0,
        };
        world.start();
        for _ in 0..CLIENTS {
            let node = world.node();
            world.nodes.push(node);
        }
        world
    }

    fn node(&mut self) -> Node {
        let config = ClientConfig {
            resume_window: Duration::from_secs([0, 1, 2, 4][self.random.below(4) as usize]),
            seed: self.random.next(),
            ..ClientConfig::default()
        };
        Node {
            client: Client::new(self.now, config),
            connection: None,
            up: Vec::new(),
            down: Vec::new(),
            requests: BTreeMap::new(),
        }
    }

    /// As a process starts: its first record is durable before it serves.
    fn start(&mut self) {
        let config = BrokerConfig {
            idle_max: Duration::from_secs(1),
            durability: Durability::Durable(self.safe.clone()),
            ..BrokerConfig::default()
        };
        self.broker = Broker::new(self.now, config).unwrap();
        self.safe = Some(self.broker.poll_record().expect("a first record"));
        self.broker.handle_durable(self.now);
    }

    fn crash(&mut self) {
        self.crashes += 1;
        if self.random.one_in(4) {
            self.broker.stop(self.now);
            // A stop that is not followed by a crash writes its last record.
            while !self.broker.is_durable() {
                self.write();
            }
        }
        // What was under way may have arrived all the same.
        if let Some(record) = self.in_flight.take()
            && self.random.one_in(2)
        {
            self.safe = Some(record);
        }
        for node in &mut self.nodes {
            // So may have what was sent.
            if self.random.one_in(2) {
                let down = std::mem::take(&mut node.down);
                node.client.handle_input(self.now, &down);
            }
            if node.connection.take().is_some() {
                node.client.handle_disconnected(self.now);
            }
            node.up.clear();
            node.down.clear();
        }
        self.now = self.now + Duration::from_millis(self.random.below(2000));
        self.start();
    }

    fn write(&mut self) {
        if let Some(record) = self.in_flight.take() {
            self.safe = Some(record);
            self.broker.handle_durable(self.now);
        }
        self.in_flight = self.broker.poll_record();
    }

    fn step(&mut self, may_crash: bool) {
        match self.random.below(20) {
            0..=5 => {
                let number = self.random.below(self.nodes.len() as u64) as usize;
                self.carry(number);
            }
            6..=9 => self.act(),
            10 => self.write(),
            11..=15 => {
                self.now = self.now + Duration::from_millis(self.random.below(100));
                self.broker.handle_timeout(self.now);
            }
            16 => {
                let number = self.random.below(self.nodes.len() as u64) as usize;
                if self.random.one_in(5) {
                    self.cut(number);
                } else if self.random.one_in(15) {
                    self.kill(number);
                }
            }
            17 if may_crash && self.random.one_in(100) => self.crash(),
            _ => {
                for number in 0..self.nodes.len() {
                    self.carry(number);
                }
            }
        }
        let granted = self.collect();
        self.judge();
        // The worst moment is when somebody has just been told.
        if may_crash
            && let Some(number) = granted
            && self.random.one_in(15)
        {
            if self.random.one_in(2) {
                self.kill(number);
            }
            self.crash();
            self.judge();
        }
    }

    /// Moves some bytes of one client, in both directions.
    fn carry(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.client.handle_timeout(self.now);
        if node.client.wants_connection(self.now)
            && let Ok(connection) = self.broker.connect(self.now)
        {
            node.connection = Some(connection);
            node.client.handle_connected(self.now);
        }
        let Some(connection) = node.connection else {
            return;
        };
        let output = node.client.output().to_vec();
        node.client.consume_output(output.len());
        node.up.extend(output);
        let some = self.random.below(node.up.len() as u64 + 1) as usize;
        let up: Vec<u8> = node.up.drain(..some).collect();
        self.broker.handle_input(self.now, connection, &up);

        let output = self.broker.output(connection).to_vec();
        self.broker
            .consume_output(self.now, connection, output.len());
        node.down.extend(output);
        let some = self.random.below(node.down.len() as u64 + 1) as usize;
        let down: Vec<u8> = node.down.drain(..some).collect();
        node.client.handle_input(self.now, &down);
        if self.broker.is_closing(connection) || node.client.is_closing() {
            let down = std::mem::take(&mut node.down);
            node.client.handle_input(self.now, &down);
            self.cut(number);
        }
        while self.broker.poll_connection().is_some() {}
    }

    fn cut(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if let Some(connection) = node.connection.take() {
            self.broker.handle_disconnect(self.now, connection);
            node.client.handle_disconnected(self.now);
        }
        node.up.clear();
        node.down.clear();
    }

    /// The client's process dies, but whoever it told of a kept hold goes on believing.
    fn kill(&mut self, number: usize) {
        self.collect();
        self.cut(number);
        let node = self.node();
        let dead = std::mem::replace(&mut self.nodes[number], node);
        for (id, (key, is_granted)) in dead.requests {
            // Kept holds have even ids.
            if id.as_u128() % 2 != 0 {
                continue;
            }
            match dead.client.held(self.now, id) {
                Some(held) if is_granted => self.abandoned.push(Abandoned {
                    key,
                    id,
                    until: held.good_until,
                }),
                _ => self.garbage.push(id),
            }
        }
    }

    /// Somebody asks for something, or gives it back.
    fn act(&mut self) {
        let number = self.random.below(self.nodes.len() as u64) as usize;
        if self.random.one_in(30) && !self.abandoned.is_empty() {
            // Whoever cleans up does not believe any more from here on.
            let which = self.random.below(self.abandoned.len() as u64) as usize;
            let gone = self.abandoned.swap_remove(which);
            self.garbage.push(gone.id);
            self.nodes[number].client.release(self.now, gone.id);
            return;
        }
        if self.random.one_in(6) && !self.garbage.is_empty() {
            // The release may be lost; then it is tried again some time.
            let which = self.random.below(self.garbage.len() as u64) as usize;
            let id = self.garbage[which];
            self.nodes[number].client.release(self.now, id);
            return;
        }
        let node = &mut self.nodes[number];
        let granted = node.requests.iter().find(|(_, (_, granted))| *granted);
        if let Some((&id, _)) = granted
            && self.random.one_in(2)
        {
            node.requests.remove(&id);
            node.client.release(self.now, id);
            self.garbage.push(id);
            return;
        }
        if node.requests.len() >= 2 {
            if self.random.one_in(8)
                && let Some((&id, &(_, false))) = node.requests.iter().next()
            {
                node.requests.remove(&id);
                node.client.cancel(self.now, id);
                self.garbage.push(id);
            }
            return;
        }
        let keep = self.random.one_in(3);
        self.last_id += 2;
        let id = RequestId::from_u128(self.last_id + u128::from(!keep));
        let key = self.random.below(KEYS);
        let lease = [None, Some(1), Some(4), Some(3600)][self.random.below(4) as usize];
        let request = LockRequest {
            lease: lease.map(Duration::from_secs),
            renew: self.random.one_in(2),
            keep,
            ..LockRequest::new(id, &key.to_le_bytes())
        };
        node.client.acquire(self.now, request).expect("a new id");
        node.requests.insert(id, (key, false));
    }

    /// What the clients were told. Returns one that was granted something.
    fn collect(&mut self) -> Option<usize> {
        let mut granted = None;
        for (number, node) in self.nodes.iter_mut().enumerate() {
            while let Some(event) = node.client.poll_event() {
                match event {
                    ClientEvent::Granted { id, held } => {
                        let Some((key, is_granted)) = node.requests.get_mut(&id) else {
                            continue;
                        };
                        *is_granted = true;
                        granted = Some(number);
                        self.grants += 1;
                        let token = held.token.as_u64();
                        let given_to = *self.tokens.entry(token).or_insert(id);
                        assert_eq!(given_to, id, "token {token} was given twice");
                        // What comes too late to be believed has no order.
                        if node.client.held(self.now, id).is_none() {
                            continue;
                        }
                        let newest = self.newest.entry(*key).or_insert((token, id));
                        assert!(
                            newest.1 == id || token > newest.0,
                            "token {token} of key {key} after {newest:?}"
                        );
                        *newest = (token, id);
                    }
                    ClientEvent::Refused { id, .. } | ClientEvent::Lost { id, .. } => {
                        node.requests.remove(&id);
                    }
                    _ => {}
                }
            }
        }
        granted
    }

    /// No key is believed to be held by two.
    fn judge(&mut self) {
        let now = self.now;
        self.abandoned
            .retain(|hold| hold.until.is_none_or(|until| until > now));
        let mut believed: BTreeMap<u64, BTreeSet<RequestId>> = BTreeMap::new();
        for node in &self.nodes {
            for (&id, &(key, is_granted)) in &node.requests {
                if is_granted && node.client.held(now, id).is_some() {
                    believed.entry(key).or_default().insert(id);
                }
            }
        }
        for hold in &self.abandoned {
            believed.entry(hold.key).or_default().insert(hold.id);
        }
        for (key, holders) in believed {
            assert!(holders.len() <= 1, "key {key} is held by {holders:?}");
        }
    }

    /// Somebody releases what the dead have kept, whether they knew of it or not. It is
    /// his to release only once their sessions are over, so he tries again.
    fn clean_up(&mut self) {
        for number in (2..=self.last_id).step_by(2) {
            let id = RequestId::from_u128(number);
            if !self
                .nodes
                .iter()
                .any(|node| node.requests.contains_key(&id))
            {
                self.nodes[0].client.release(self.now, id);
            }
        }
    }

    /// Without any more faults, everybody gets everything.
    fn heal(&mut self) {
        self.abandoned.clear();
        for turn in 0..60_000 {
            if turn % 1000 == 0 {
                self.clean_up();
            }
            for number in 0..self.nodes.len() {
                self.carry(number);
                let node = &mut self.nodes[number];
                let granted = node.requests.iter().find(|(_, (_, granted))| *granted);
                if let Some((&id, _)) = granted {
                    node.requests.remove(&id);
                    node.client.release(self.now, id);
                }
            }
            self.write();
            self.now = self.now + Duration::from_millis(10);
            self.broker.handle_timeout(self.now);
            self.collect();
            self.judge();
            if self.nodes.iter().all(|node| node.requests.is_empty()) {
                return;
            }
        }
        let left: Vec<_> = self.nodes.iter().map(|node| &node.requests).collect();
        panic!("these wait for ever: {left:?}");
    }
}

#[test]
fn no_crash_breaks_a_promise() {
    let (mut grants, mut crashes) = (0, 0);
    for seed in 1..=60 {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step(true);
            }
            world.heal();
            (world.grants, world.crashes)
        });
        let Ok((more_grants, more_crashes)) = result else {
            panic!("seed {seed}");
        };
        grants += more_grants;
        crashes += more_crashes;
    }
    // It was not all for nothing.
    assert!(
        grants > 3_000 && crashes > 300,
        "{grants} grants, {crashes} crashes"
    );
}

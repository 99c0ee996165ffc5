//! Every interleaving of a small scope, not a sample: clients, keys, operations,
//! disconnects and expiries over LMX's lock table, against a model that a child could
//! check. States that differ only in the names of clients or keys count once.
//!
//! Each path is walked by three tables: one with a heap, one without, and one that was saved
//! and loaded under another hash seed before the last step.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use lmx_core::storage::{Fixed, Growable, Storage};
use lmx_core::{
    Acquire, Instant, Key, LockTable, Mode, RequestId, SessionId, TableConfig, Wait, Want,
};

use crate::oracle::{Property, Violation};

/// How large the scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Clients.
    pub clients: u8,
    /// Keys; a request asks for one of them, or for the first two together.
    pub keys: u8,
    /// Requests that each client makes.
    pub ops: u8,
    /// Connections that are lost.
    pub disconnects: u8,
    /// Leases that may run out.
    pub expiries: u8,
}

/// What was explored.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// States that differ in more than names.
    pub states: u64,
    /// Steps from one to another.
    pub steps: u64,
    /// The longest path.
    pub depth: usize,
    /// What was broken, and on which path.
    pub failure: Option<(Violation, Vec<String>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A client asks for the keys in `keys` (a bit each), shared or not.
    Ask {
        client: u8,
        keys: u8,
        shared: bool,
    },
    /// A client gives back or withdraws its request number `op`.
    End {
        client: u8,
        op: u8,
    },
    Disconnect {
        client: u8,
    },
    /// Time goes to the next deadline.
    Expire,
}

/// A lease, in the model's units.
const LEASE: u64 = 10;

/// A request in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ask {
    client: u8,
    op: u8,
    keys: u8,
    shared: bool,
    /// When its lease ends, once it holds.
    until: Option<u64>,
}

/// The model: requests in the order of their asking.
#[derive(Clone, Debug, Default)]
struct Model {
    now: u64,
    asks: Vec<Ask>,
    made: Vec<u8>,
    disconnects: u8,
    expiries: u8,
}

impl Model {
    fn new(scope: Scope) -> Self {
        Self {
            made: vec![0; usize::from(scope.clients)],
            disconnects: scope.disconnects,
            expiries: scope.expiries,
            ..Self::default()
        }
    }

    fn actions(&self, scope: Scope) -> Vec<Action> {
        let mut actions = Vec::new();
        for client in 0..scope.clients {
            if self.made[usize::from(client)] < scope.ops {
                for key in 0..scope.keys {
                    for shared in [false, true] {
                        actions.push(Action::Ask {
                            client,
                            keys: 1 << key,
                            shared,
                        });
                    }
                }
                if scope.keys > 1 {
                    actions.push(Action::Ask {
                        client,
                        keys: 3,
                        shared: false,
                    });
                }
            }
            if self.disconnects > 0 && self.asks.iter().any(|ask| ask.client == client) {
                actions.push(Action::Disconnect { client });
            }
        }
        for ask in &self.asks {
            actions.push(Action::End {
                client: ask.client,
                op: ask.op,
            });
        }
        if self.expiries > 0 && self.asks.iter().any(|ask| ask.until.is_some()) {
            actions.push(Action::Expire);
        }
        actions
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Ask {
                client,
                keys,
                shared,
            } => {
                let op = self.made[usize::from(client)];
                self.made[usize::from(client)] += 1;
                self.asks.push(Ask {
                    client,
                    op,
                    keys,
                    shared,
                    until: None,
                });
            }
            Action::End { client, op } => {
                self.asks.retain(|ask| ask.client != client || ask.op != op);
            }
            Action::Disconnect { client } => {
                self.disconnects -= 1;
                self.asks.retain(|ask| ask.client != client);
            }
            Action::Expire => {
                self.expiries -= 1;
                let next = self.asks.iter().filter_map(|ask| ask.until).min();
                self.now = next.unwrap_or(self.now).max(self.now);
                let now = self.now;
                self.asks
                    .retain(|ask| ask.until.is_none_or(|until| until > now));
            }
        }
        self.serve();
    }

    /// First come, first served: whoever conflicts with nobody before it holds.
    fn serve(&mut self) {
        for place in 0..self.asks.len() {
            let ask = self.asks[place];
            let free = self.asks[..place].iter().all(|before| {
                let apart = before.keys & ask.keys == 0;
                apart || (before.until.is_some() && before.shared && ask.shared)
            });
            if ask.until.is_none() && free && self.no_later_holder(place) {
                self.asks[place].until = Some(self.now + LEASE);
            }
        }
    }

    /// A downgrade could put a later request before an earlier one; nothing here does, but
    /// holders further back still count.
    fn no_later_holder(&self, place: usize) -> bool {
        let ask = self.asks[place];
        self.asks[place + 1..].iter().all(|later| {
            later.until.is_none() || later.keys & ask.keys == 0 || (later.shared && ask.shared)
        })
    }

    /// The state as bytes, the same for states that differ only in names.
    fn canonical(&self, scope: Scope) -> Vec<u8> {
        let mut least: Option<Vec<u8>> = None;
        for clients in &permutations(scope.clients) {
            for keys in &permutations(scope.keys) {
                // A request for two keys names the first two: those may only change places.
                if scope.keys > 2 && keys[0].max(keys[1]) > 1 {
                    continue;
                }
                let encoded = self.encode(clients, keys);
                if least.as_ref().is_none_or(|least| encoded < *least) {
                    least = Some(encoded);
                }
            }
        }
        least.unwrap_or_default()
    }

    fn encode(&self, clients: &[u8], keys: &[u8]) -> Vec<u8> {
        let mut bytes = vec![self.disconnects, self.expiries];
        let mut made = vec![0; self.made.len()];
        for (client, count) in self.made.iter().enumerate() {
            made[usize::from(clients[client])] = *count;
        }
        bytes.extend(made);
        for ask in &self.asks {
            let renamed = (0..keys.len()).fold(0, |set, key| {
                let has = ask.keys >> key & 1;
                set | has << keys[key]
            });
            bytes.push(clients[usize::from(ask.client)]);
            bytes.push(renamed);
            bytes.push(u8::from(ask.shared));
            bytes.push(ask.until.map_or(0, |until| (until - self.now) as u8 + 1));
        }
        bytes
    }
}

/// A storage without a heap, large enough for a scope of up to this many requests.
type Small = Fixed<8, SMALL_REQUESTS, 16, 4>;
const SMALL_REQUESTS: usize = 32;

impl Scope {
    /// Whether the small storage has room for all of it, each request with two keys.
    const fn is_small(self) -> bool {
        let requests = self.clients as usize * self.ops as usize;
        2 * requests <= SMALL_REQUESTS && self.keys <= 8 && self.clients <= 8
    }
}

/// LMX's table, driven by the same actions.
struct Real<S: Storage> {
    config: TableConfig,
    table: LockTable<S>,
    sessions: Vec<SessionId>,
    made: Vec<u8>,
    names: Vec<Vec<u8>>,
}

impl<S: Storage> Real<S> {
    fn new(scope: Scope, config: TableConfig) -> Self {
        let mut table = LockTable::<S>::new(config.clone()).expect("the configuration is sound");
        let sessions = (0..scope.clients)
            .map(|_| {
                table
                    .open_session(Instant::EPOCH, Duration::ZERO)
                    .expect("there is room")
            })
            .collect();
        Self {
            config,
            table,
            sessions,
            made: vec![0; usize::from(scope.clients)],
            names: (0..scope.keys).map(|key| vec![b'a' + key]).collect(),
        }
    }

    fn apply(&mut self, action: Action, now: u64) {
        let at = Instant::from_nanos(now);
        match action {
            Action::Ask {
                client,
                keys,
                shared,
            } => {
                let op = self.made[usize::from(client)];
                self.made[usize::from(client)] += 1;
                let mode = if shared {
                    Mode::Shared
                } else {
                    Mode::Exclusive
                };
                let wants: Vec<Want<'_>> = (0..self.names.len())
                    .filter(|key| keys >> key & 1 == 1)
                    .map(|key| Want {
                        key: Key::new(&self.names[key], 64).expect("it is short"),
                        mode,
                    })
                    .collect();
                let ask = Acquire {
                    lease: Some(Duration::from_nanos(LEASE)),
                    wait: Wait::Forever,
                    ..Acquire::new(id(client, op), &wants)
                };
                let _ = self
                    .table
                    .acquire(at, self.sessions[usize::from(client)], &ask);
            }
            Action::End { client, op } => {
                let session = self.sessions[usize::from(client)];
                if self.table.release(at, session, id(client, op)).is_err() {
                    let _ = self.table.cancel(at, session, id(client, op));
                }
            }
            Action::Disconnect { client } => {
                let session = &mut self.sessions[usize::from(client)];
                let _ = self.table.disconnect(at, *session);
                *session = self
                    .table
                    .open_session(at, Duration::ZERO)
                    .expect("there is room");
            }
            Action::Expire => self.table.handle_timeout(at),
        }
        while let Some(session) = self.table.poll_session() {
            while self.table.poll_event(session).is_some() {}
        }
    }

    /// Saves the table and loads it as another. Says so if that is not the same.
    fn reload(&mut self) -> Option<String> {
        let saved = self.table.save();
        let config = TableConfig {
            hash_seed: self.config.hash_seed.map(|seed| seed ^ 7),
            ..self.config.clone()
        };
        self.table = match LockTable::load(config, &saved) {
            Ok(table) => table,
            Err(error) => return Some(format!("what was saved cannot be loaded: {error}")),
        };
        (self.table.save() != saved).then(|| "what was loaded is not what was saved".to_owned())
    }

    /// Where the table and the model differ.
    fn differs(&self, model: &Model) -> Option<String> {
        self.table.check();
        let counts = self.table.counts();
        let held = model.asks.iter().filter(|ask| ask.until.is_some()).count();
        let waiting = model.asks.len() - held;
        if (counts.held as usize, counts.waiting as usize) != (held, waiting) {
            return Some(format!(
                "the table has {} held and {} waiting, the model {held} and {waiting}",
                counts.held, counts.waiting
            ));
        }
        for ask in &model.asks {
            let grant = self
                .table
                .request(id(ask.client, ask.op))
                .map(|request| request.grant());
            let until = grant.map(|grant| {
                grant
                    .and_then(|grant| grant.deadline)
                    .map(Instant::as_nanos)
            });
            if until != Some(ask.until) {
                return Some(format!(
                    "client {} request {}: the table says {until:?}, the model {:?}",
                    ask.client, ask.op, ask.until
                ));
            }
        }
        None
    }
}

fn id(client: u8, op: u8) -> RequestId {
    RequestId::from_u128(u128::from(client) << 8 | u128::from(op) | 1 << 64)
}

/// Explores the scope, breadth first, until something differs. `progress` is called now
/// and then with the states so far.
pub fn explore(scope: Scope, mut progress: impl FnMut(u64)) -> Explored {
    let mut explored = Explored::default();
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut queue: VecDeque<Vec<Action>> = VecDeque::new();
    seen.insert(Model::new(scope).canonical(scope));
    queue.push_back(Vec::new());
    while let Some(path) = queue.pop_front() {
        explored.states += 1;
        explored.depth = explored.depth.max(path.len());
        if explored.states.is_multiple_of(10_000) {
            progress(explored.states);
        }
        let mut model = Model::new(scope);
        for action in &path {
            model.apply(*action);
        }
        for action in model.actions(scope) {
            explored.steps += 1;
            let mut next = model.clone();
            next.apply(action);
            if !seen.insert(next.canonical(scope)) {
                continue;
            }
            let mut longer = path.clone();
            longer.push(action);
            if let Some(detail) = walk(scope, &longer) {
                let violation = Violation::new(Property::Exclusion, next.now, detail);
                let steps = longer.iter().map(|action| format!("{action:?}")).collect();
                explored.failure = Some((violation, steps));
                return explored;
            }
            queue.push_back(longer);
        }
    }
    explored
}

/// Walks a path with both, and says where they differ at its end.
fn walk(scope: Scope, path: &[Action]) -> Option<String> {
    let mut model = Model::new(scope);
    let mut tables = (
        Real::<Growable>::new(scope, TableConfig::default()),
        Real::<Growable>::new(scope, TableConfig::default()),
        scope
            .is_small()
            .then(|| Real::<Small>::new(scope, Small::config())),
    );
    let (whole, reloaded, small) = (&mut tables.0, &mut tables.1, &mut tables.2);
    for (place, action) in path.iter().enumerate() {
        model.apply(*action);
        if place + 1 == path.len()
            && let Some(detail) = reloaded.reload()
        {
            return Some(detail);
        }
        whole.apply(*action, model.now);
        reloaded.apply(*action, model.now);
        if let Some(small) = small {
            small.apply(*action, model.now);
        }
    }
    let saved = whole.table.save();
    let same = |other: bool, how: &str| {
        (!other).then(|| format!("the table {how} is in another state than the one with a heap"))
    };
    whole
        .differs(&model)
        .or_else(|| reloaded.differs(&model))
        .or_else(|| same(reloaded.table.save() == saved, "that was saved and loaded"))
        .or_else(|| small.as_ref().and_then(|small| small.differs(&model)))
        .or_else(|| {
            let small = small.as_ref()?;
            same(small.table.save() == saved, "without a heap")
        })
}

fn permutations(count: u8) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![Vec::new()];
    for _ in 0..count {
        let mut longer = Vec::new();
        for one in &all {
            for next in (0..count).filter(|next| !one.contains(next)) {
                longer.push([one.as_slice(), &[next]].concat());
            }
        }
        all = longer;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clients_and_two_keys_in_every_order() {
        let scope = Scope {
            clients: 2,
            keys: 2,
            ops: 2,
            disconnects: 1,
            expiries: 1,
        };
        let explored = explore(scope, |_| {});
        assert!(explored.failure.is_none(), "{:?}", explored.failure);
        assert!(explored.states > 1_000, "{} states", explored.states);
        println!("{} states, {} steps", explored.states, explored.steps);
    }

    #[test]
    fn names_do_not_make_a_state_another() {
        let scope = Scope {
            clients: 2,
            keys: 2,
            ops: 1,
            disconnects: 0,
            expiries: 0,
        };
        let ask = |client, keys| Action::Ask {
            client,
            keys,
            shared: false,
        };
        let (mut one, mut other) = (Model::new(scope), Model::new(scope));
        one.apply(ask(0, 1));
        other.apply(ask(1, 2));
        assert_eq!(one.canonical(scope), other.canonical(scope));
    }
}

//! Locks on one Redis: a small Redis, and the recipes that people write for it.

use std::time::Duration;

use crate::plan::MS;
use crate::protocol::{
    Client, Context, Contract, Exclusion, Grant, NodeId, Protocol, Request, Server,
};

/// How far off the clocks of the repaired recipes may be.
const PPM: u32 = 1_000;
/// How long a client waits for a reply before it takes the message for lost.
const REPLY_NS_MAX: u64 = 100 * MS;

/// A value that marks who locked.
type Owner = u64;

/// What clients ask of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `SET key owner NX`.
    SetNx { key: u32, owner: Owner },
    /// `SET key owner NX PX ttl`.
    SetNxPx { key: u32, owner: Owner, ttl_ns: u64 },
    /// `PEXPIRE key ttl`.
    Expire { key: u32, ttl_ns: u64 },
    /// `PEXPIRE key ttl` in a script that looks at the owner first.
    ExpireIf { key: u32, owner: Owner, ttl_ns: u64 },
    /// `DEL key`.
    Del { key: u32 },
    /// `DEL key` in a script that looks at the owner first.
    DelIf { key: u32, owner: Owner },
}

/// What goes over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A command, and a tag for its reply.
    Do(u64, Command),
    /// The tag, and whether the command did something.
    Done(u64, bool),
}

/// A key that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    key: u32,
    owner: Owner,
    expires_ns: Option<u64>,
}

/// A Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    /// Time to live is measured by the wall clock, as Redis does.
    pub(super) wall_clock: bool,
    /// Every write is on disk before it is answered (`appendfsync always`).
    pub(super) durable: bool,
    /// After a start nothing is answered for so long.
    pub(super) silent_ns: u64,
    silent_until_ns: u64,
    volatile: Vec<Entry>,
}

impl Redis {
    pub(super) const fn new(wall_clock: bool, durable: bool, silent_ns: u64) -> Self {
        Self {
            wall_clock,
            durable,
            silent_ns,
            silent_until_ns: 0,
            volatile: Vec::new(),
        }
    }

    fn carry_out(entries: &mut Vec<Entry>, now_ns: u64, command: Command) -> bool {
        entries.retain(|entry| entry.expires_ns.is_none_or(|at| at > now_ns));
        let (Command::SetNx { key, .. }
        | Command::SetNxPx { key, .. }
        | Command::Expire { key, .. }
        | Command::ExpireIf { key, .. }
        | Command::Del { key }
        | Command::DelIf { key, .. }) = command;
        let place = entries.iter().position(|entry| entry.key == key);
        let mut set = |owner, expires_ns| {
            if place.is_none() {
                entries.push(Entry {
                    key,
                    owner,
                    expires_ns,
                });
            }
            place.is_none()
        };
        match command {
            Command::SetNx { owner, .. } => set(owner, None),
            Command::SetNxPx { owner, ttl_ns, .. } => set(owner, Some(now_ns + ttl_ns)),
            Command::Expire { ttl_ns, .. } => place.is_some_and(|place| {
                entries[place].expires_ns = Some(now_ns + ttl_ns);
                true
            }),
            Command::ExpireIf { owner, ttl_ns, .. } => place.is_some_and(|place| {
                let own = entries[place].owner == owner;
                if own {
                    entries[place].expires_ns = Some(now_ns + ttl_ns);
                }
                own
            }),
            Command::Del { .. } => place.is_some_and(|place| {
                entries.swap_remove(place);
                true
            }),
            Command::DelIf { owner, .. } => place.is_some_and(|place| {
                let own = entries[place].owner == owner;
                if own {
                    entries.swap_remove(place);
                }
                own
            }),
        }
    }
}

/// What of a Redis survives.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    entries: Vec<Entry>,
    started: bool,
}

impl Server<Message> for Redis {
    type Disk = Disk;

    fn start(&mut self, cx: &mut Context<'_, Message>, disk: &mut Disk) {
        if disk.started {
            self.silent_until_ns = cx.now_ns() + self.silent_ns;
        }
        disk.started = true;
    }

    fn handle_message(
        &mut self,
        cx: &mut Context<'_, Message>,
        disk: &mut Disk,
        from: NodeId,
        message: Message,
    ) {
        let Message::Do(tag, command) = message else {
            return;
        };
        if cx.now_ns() < self.silent_until_ns {
            return;
        }
        let now_ns = if self.wall_clock {
            cx.wall_ns()
        } else {
            cx.now_ns()
        };
        let entries = if self.durable {
            &mut disk.entries
        } else {
            &mut self.volatile
        };
        let did = Self::carry_out(entries, now_ns, command);
        cx.send(from, Message::Done(tag, did));
    }
}

/// A recipe for a lock on one Redis. The broken ones differ from the repaired ones in
/// one field.
#[derive(Clone, Copy, Debug)]
pub struct RedisLock {
    name: &'static str,
    about: &'static str,
    /// The key and its time to live are set in one command.
    atomic: bool,
    /// Unlocking looks whose lock it is.
    checks_owner: bool,
    /// The owner is the request, not the client.
    owner_is_request: bool,
    /// The lease is counted from when it was asked for, not from the reply.
    counts_from_sending: bool,
    /// Unlocking is tried again until it is answered.
    retries_unlock: bool,
    renewal: Renewal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    None,
    /// Ends at the first renewal that is not answered; the user is not told.
    UntilFailure,
    /// Goes on until the deadline, which is the user's too.
    Again,
}

const SOUND: RedisLock = RedisLock {
    name: "",
    about: "",
    atomic: true,
    checks_owner: true,
    owner_is_request: true,
    counts_from_sending: true,
    retries_unlock: false,
    renewal: Renewal::None,
};

pub(super) const SETNX_THEN_EXPIRE: RedisLock = RedisLock {
    name: "setnx-then-expire",
    about: "SETNX, then EXPIRE: who dies in between locks for ever",
    atomic: false,
    ..SOUND
};
pub(super) const SET_NX_PX: RedisLock = RedisLock {
    name: "set-nx-px",
    about: "SET NX PX: one command",
    ..SOUND
};
pub(super) const DEL_ANY: RedisLock = RedisLock {
    name: "del-any",
    about: "unlocks with DEL: deletes the lock of whoever came after",
    checks_owner: false,
    ..SOUND
};
pub(super) const DEL_OWN: RedisLock = RedisLock {
    name: "del-own",
    about: "unlocks with a script that looks whose lock it is",
    ..SOUND
};
pub(super) const LEASE_FROM_RECEIPT: RedisLock = RedisLock {
    name: "lease-from-receipt",
    about: "counts its lease from when the reply came",
    counts_from_sending: false,
    ..SOUND
};
pub(super) const LEASE_FROM_SENDING: RedisLock = RedisLock {
    name: "lease-from-sending",
    about: "counts its lease from when it asked",
    ..SOUND
};
pub(super) const UNLOCK_RETRIED_BY_OWNER: RedisLock = RedisLock {
    name: "unlock-retried-by-owner",
    about: "tries an unlock again that names the client: it may delete the client's newer lock",
    owner_is_request: false,
    retries_unlock: true,
    ..SOUND
};
pub(super) const UNLOCK_RETRIED_BY_REQUEST: RedisLock = RedisLock {
    name: "unlock-retried-by-request",
    about: "tries an unlock again that names the request",
    retries_unlock: true,
    ..SOUND
};
pub(super) const RENEW_UNTIL_FAILURE: RedisLock = RedisLock {
    name: "renew-until-failure",
    about: "a watchdog that stops at the first failure and tells nobody",
    renewal: Renewal::UntilFailure,
    ..SOUND
};
pub(super) const RENEW_AGAIN: RedisLock = RedisLock {
    name: "renew-again",
    about: "a watchdog that tries again, and a holder that minds the deadline",
    renewal: Renewal::Again,
    ..SOUND
};

impl Protocol for RedisLock {
    type Message = Message;
    type Server = Redis;
    type Client = RedisClient;

    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> &str {
        self.about
    }

    fn contract(&self) -> Contract {
        Contract::new(Exclusion::UnderDrift { ppm: PPM })
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn renews(&self) -> bool {
        self.renewal != Renewal::None
    }

    fn server(&self, _: NodeId) -> Redis {
        Redis::new(false, true, 0)
    }

    fn client(&self, _: NodeId) -> RedisClient {
        RedisClient {
            recipe: *self,
            born_ns: 0,
            tag: 0,
            locks: Vec::new(),
        }
    }
}

/// A client of a [`RedisLock`].
#[derive(Debug)]
pub struct RedisClient {
    recipe: RedisLock,
    born_ns: u64,
    tag: u64,
    locks: Vec<Lock>,
}

/// One request on its way.
#[derive(Debug)]
struct Lock {
    request: Request,
    stage: Stage,
    /// The tag of the reply it waits for, and when it asked.
    tag: u64,
    sent_ns: u64,
    renewing: bool,
    attempts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Setting,
    Expiring,
    Held,
    Pausing,
    Unlocking,
}

impl RedisClient {
    fn owner(&self, cx: &Context<'_, Message>, request: Request) -> Owner {
        let client = self.born_ns ^ u64::from(cx.me()) << 52;
        if self.recipe.owner_is_request {
            client
                .wrapping_mul(31)
                .wrapping_add(u64::from(request.ticket) + 1)
        } else {
            client
        }
    }

    fn ask(&mut self, cx: &mut Context<'_, Message>, place: usize, command: Command) {
        self.tag += 1;
        let lock = &mut self.locks[place];
        lock.tag = self.tag;
        lock.sent_ns = cx.now_ns();
        cx.send(0, Message::Do(lock.tag, command));
        cx.set_timer(u64::from(lock.request.ticket), cx.now_ns() + REPLY_NS_MAX);
    }

    fn set(&mut self, cx: &mut Context<'_, Message>, place: usize) {
        let request = self.locks[place].request;
        let owner = self.owner(cx, request);
        self.locks[place].stage = Stage::Setting;
        let key = request.key;
        let command = if self.recipe.atomic {
            let ttl_ns = request.lease_ns;
            Command::SetNxPx { key, owner, ttl_ns }
        } else {
            Command::SetNx { key, owner }
        };
        self.ask(cx, place, command);
    }

    fn unlock(&mut self, cx: &mut Context<'_, Message>, place: usize) {
        let request = self.locks[place].request;
        let owner = self.owner(cx, request);
        self.locks[place].stage = Stage::Unlocking;
        let key = request.key;
        let command = if self.recipe.checks_owner {
            Command::DelIf { key, owner }
        } else {
            Command::Del { key }
        };
        self.ask(cx, place, command);
    }

    fn renew(&mut self, cx: &mut Context<'_, Message>, place: usize) {
        let request = self.locks[place].request;
        let owner = self.owner(cx, request);
        self.locks[place].renewing = true;
        let (key, ttl_ns) = (request.key, request.lease_ns);
        self.ask(cx, place, Command::ExpireIf { key, owner, ttl_ns });
    }

    fn pause(&mut self, cx: &mut Context<'_, Message>, place: usize) {
        let lock = &mut self.locks[place];
        lock.stage = Stage::Pausing;
        lock.attempts += 1;
        let n = u64::from(lock.request.ticket) << 16 | lock.attempts;
        let pause_ns = 10 * MS + cx.draw(n, 40 * MS);
        cx.set_timer(u64::from(lock.request.ticket), cx.now_ns() + pause_ns);
    }

    /// Until when a lease is good that was asked for in the message last sent.
    fn good_until_ns(&self, cx: &Context<'_, Message>, place: usize) -> u64 {
        let lock = &self.locks[place];
        let from_ns = if self.recipe.counts_from_sending {
            lock.sent_ns
        } else {
            cx.now_ns()
        };
        let lease_ns = lock.request.lease_ns;
        // Both clocks may be off, in opposite directions.
        from_ns + lease_ns - lease_ns / 1_000_000 * 2 * u64::from(PPM)
    }

    fn hold(&mut self, cx: &mut Context<'_, Message>, place: usize) {
        let good_until_ns = self.good_until_ns(cx, place);
        let lock = &mut self.locks[place];
        lock.stage = Stage::Held;
        let (ticket, lease_ns) = (lock.request.ticket, lock.request.lease_ns);
        if self.recipe.renewal == Renewal::None {
            cx.cancel_timer(u64::from(ticket));
        } else {
            cx.set_timer(u64::from(ticket), cx.now_ns() + lease_ns / 3);
        }
        let good_until_ns = match self.recipe.renewal {
            Renewal::UntilFailure => None,
            _ => Some(good_until_ns),
        };
        let grant = Grant {
            good_until_ns,
            token: None,
        };
        cx.granted(ticket, grant);
    }

    fn handle_renewed(&mut self, cx: &mut Context<'_, Message>, place: usize, did: bool) {
        let good_until_ns = self.good_until_ns(cx, place);
        let lock = &mut self.locks[place];
        lock.renewing = false;
        let ticket = lock.request.ticket;
        if did {
            if self.recipe.renewal == Renewal::Again {
                cx.extended(ticket, good_until_ns);
            }
            cx.set_timer(u64::from(ticket), cx.now_ns() + lock.request.lease_ns / 3);
        } else {
            cx.cancel_timer(u64::from(ticket));
            if self.recipe.renewal == Renewal::Again {
                cx.lost(ticket);
                self.locks.swap_remove(place);
            }
        }
    }
}

impl Client<Message> for RedisClient {
    fn start(&mut self, cx: &mut Context<'_, Message>) {
        self.born_ns = cx.now_ns();
    }

    fn acquire(&mut self, cx: &mut Context<'_, Message>, request: Request) {
        self.locks.push(Lock {
            request,
            stage: Stage::Setting,
            tag: 0,
            sent_ns: 0,
            renewing: false,
            attempts: 0,
        });
        self.set(cx, self.locks.len() - 1);
    }

    fn release(&mut self, cx: &mut Context<'_, Message>, ticket: u32) {
        if let Some(place) = self
            .locks
            .iter()
            .position(|lock| lock.request.ticket == ticket)
        {
            self.unlock(cx, place);
        }
    }

    fn handle_message(&mut self, cx: &mut Context<'_, Message>, _: NodeId, message: Message) {
        let Message::Done(tag, did) = message else {
            return;
        };
        let Some(place) = self.locks.iter().position(|lock| lock.tag == tag) else {
            return;
        };
        let request = self.locks[place].request;
        match self.locks[place].stage {
            Stage::Setting if !did => self.pause(cx, place),
            Stage::Setting if self.recipe.atomic => self.hold(cx, place),
            Stage::Setting => {
                self.locks[place].stage = Stage::Expiring;
                let (key, ttl_ns) = (request.key, request.lease_ns);
                self.ask(cx, place, Command::Expire { key, ttl_ns });
            }
            Stage::Expiring => self.hold(cx, place),
            Stage::Held => self.handle_renewed(cx, place, did),
            Stage::Pausing => {}
            Stage::Unlocking => {
                cx.cancel_timer(u64::from(request.ticket));
                self.locks.swap_remove(place);
            }
        }
    }

    fn handle_timer(&mut self, cx: &mut Context<'_, Message>, timer: u64) {
        let Some(place) = self
            .locks
            .iter()
            .position(|lock| u64::from(lock.request.ticket) == timer)
        else {
            return;
        };
        let request = self.locks[place].request;
        match self.locks[place].stage {
            // It may have been set and its reply lost: then it is our own for a lease.
            Stage::Setting => self.pause(cx, place),
            Stage::Expiring => {
                let (key, ttl_ns) = (request.key, request.lease_ns);
                self.ask(cx, place, Command::Expire { key, ttl_ns });
            }
            Stage::Pausing => self.set(cx, place),
            Stage::Held if self.locks[place].renewing => {
                if self.recipe.renewal == Renewal::Again {
                    self.renew(cx, place);
                } else {
                    // Not even a late reply wakes this watchdog up.
                    self.locks[place].tag = 0;
                }
            }
            Stage::Held => self.renew(cx, place),
            Stage::Unlocking if self.recipe.retries_unlock => self.unlock(cx, place),
            Stage::Unlocking => {
                self.locks.swap_remove(place);
            }
        }
    }
}

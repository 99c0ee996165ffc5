//! One thread for all clients of the process: it waits for their sockets and alarms, and
//! for whoever wakes one of them.
//!
//! It is not `async-io`'s reactor, because that costs several system calls per message (it
//! arms each wait anew, and sets a timer with each), and because a user's executor may be
//! the one that runs it. Registered once, a socket costs one wait and one read.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use std::{process, thread};

use lmx_core::Instant;
use mio::unix::SourceFd;
use mio::{Events, Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec};
use slab::Slab;

use super::driver::Driver;
use crate::busy_poll::BusyPoll;
use crate::clock::{self, Bell};

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// More than the poller rounds a timeout up by.
const ROUNDING: Duration = Duration::from_millis(2);

const EVENTS_PER_WAIT: usize = 256;
const WAKE: Token = Token(usize::MAX);
const BELL: Token = Token(usize::MAX - 1);

/// Who sleeps for longer is to wake up by the bell, should the machine be suspended meanwhile.
const SLEEP_LONG: Duration = Duration::from_millis(100);

/// What others reach the thread by.
pub(super) struct Reactor {
    pub(super) registry: Registry,
    waker: mio::Waker,
    mail: Mutex<Mail>,
    has_mail: AtomicBool,
    /// The thread waits, or is about to: it must be woken to look at its mail.
    sleeps: AtomicBool,
    /// Its next wait begins without sleeping.
    is_awake: AtomicBool,
    /// Clients whose futures lead.
    led: AtomicUsize,
    /// How many that may be.
    led_max: usize,
}

#[derive(Default)]
struct Mail {
    new: Vec<Driver>,
    woken: Vec<usize>,
}

impl Reactor {
    /// The process's reactor, started with the first client.
    pub(super) fn global() -> io::Result<Arc<Self>> {
        static GLOBAL: Mutex<Option<Arc<Reactor>>> = Mutex::new(None);
        /// Whose it is; zero as long as it is nobody's.
        static PROCESS: AtomicU32 = AtomicU32::new(0);
        // Before the lock, which a thread may have held that the child has not.
        if ![0, process::id()].contains(&PROCESS.load(Ordering::SeqCst)) {
            return Err(io::Error::other(
                "this process was forked from one that had clients; \
                 fork before the first of them, or let the child start a program",
            ));
        }
        let mut global = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reactor) = &*global {
            return Ok(Arc::clone(reactor));
        }
        PROCESS.store(process::id(), Ordering::SeqCst);
        let poll = mio::Poll::new()?;
        let reactor = Arc::new(Self {
            registry: poll.registry().try_clone()?,
            waker: mio::Waker::new(poll.registry(), WAKE)?,
            mail: Mutex::default(),
            has_mail: AtomicBool::new(false),
            sleeps: AtomicBool::new(false),
            is_awake: AtomicBool::new(false),
            led: AtomicUsize::new(0),
            led_max: thread::available_parallelism().map_or(1, |cpus| cpus.get().max(2) - 1),
        });
        let of_thread = Arc::clone(&reactor);
        thread::Builder::new()
            .name("lmx-client".to_owned())
            .spawn(move || Tasks::new(of_thread, poll).run())?;
        *global = Some(Arc::clone(&reactor));
        Ok(reactor)
    }

    /// Drives one more client until it has closed.
    pub(super) fn drive(&self, driver: Driver) {
        self.post(|mail| mail.new.push(driver));
    }

    fn post(&self, post: impl FnOnce(&mut Mail)) {
        post(&mut self.mail.lock().unwrap_or_else(PoisonError::into_inner));
        self.has_mail.store(true, Ordering::SeqCst);
        if self.sleeps.swap(false, Ordering::SeqCst) {
            // It fails if the thread has been woken more often than can be counted.
            let _ = self.waker.wake();
        }
    }

    /// Whether the thread is likely to look at its mail soon without being woken.
    pub(super) fn is_awake(&self) -> bool {
        self.is_awake.load(Ordering::Relaxed) && !self.sleeps.load(Ordering::Relaxed)
    }

    /// One more client is led, if there may be one: each leader asks for its own socket, which
    /// with many of them takes longer than to ask the poller once for all. And the broker
    /// needs a processor, too.
    pub(super) fn admit_leader(&self) -> bool {
        let admit = |led| (led < self.led_max).then_some(led + 1);
        let led = &self.led;
        led.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit)
            .is_ok()
    }

    pub(super) fn dismiss_leader(&self) {
        self.led.fetch_sub(1, Ordering::Relaxed);
    }

    fn take_mail(&self) -> Mail {
        if !self.has_mail.swap(false, Ordering::SeqCst) {
            return Mail::default();
        }
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *mail)
    }

    fn sleep(
        &self,
        poll: &mut mio::Poll,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.sleeps.store(true, Ordering::SeqCst);
        // Whoever posts from here on sees that the thread sleeps.
        let slept = if self.has_mail.load(Ordering::SeqCst) {
            poll.poll(events, Some(Duration::ZERO))
        } else {
            self.sleep_for(poll, events, timeout)
        };
        self.sleeps.store(false, Ordering::SeqCst);
        slept
    }

    /// Sleeps no longer than `timeout`: a holder is to learn of its deadline in time. The
    /// poller counts in milliseconds and rounds up, so it waits for the whole ones before
    /// the last, and the rest is left to a call that counts in nanoseconds.
    fn sleep_for(
        &self,
        poll: &mut mio::Poll,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let timeout = match timeout {
            Some(left) if left > ROUNDING => Some(left.saturating_sub(ROUNDING)),
            Some(left) if !left.is_zero() => {
                let mut poller = [PollFd::new(&self.registry, PollFlags::IN)];
                let left = Timespec {
                    tv_sec: 0,
                    tv_nsec: left.subsec_nanos().into(),
                };
                rustix::event::poll(&mut poller, Some(&left))?;
                Some(Duration::ZERO)
            }
            timeout => timeout,
        };
        poll.poll(events, timeout)
    }
}

struct Task {
    driver: Driver,
    kick: Arc<Kick>,
    waker: Waker,
    due: Option<Instant>,
}

/// Wakes one client's driver.
struct Kick {
    reactor: Arc<Reactor>,
    token: usize,
    is_posted: AtomicBool,
}

impl Wake for Kick {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_posted.swap(true, Ordering::SeqCst) {
            self.reactor.post(|mail| mail.woken.push(self.token));
        }
    }
}

/// What only the thread itself touches.
struct Tasks {
    reactor: Arc<Reactor>,
    poll: mio::Poll,
    clients: Slab<Task>,
    alarms: BTreeSet<(Instant, usize)>,
    buffer: Vec<u8>,
    busy_poll: BusyPoll,
    /// For the first alarm: the poller's timeouts do not count the time of a suspension.
    bell: Option<Bell>,
}

impl Tasks {
    fn new(reactor: Arc<Reactor>, poll: mio::Poll) -> Self {
        let bell = Bell::new().filter(|bell| {
            let bell = bell.as_fd().as_raw_fd();
            let registry = &reactor.registry;
            let registered = registry.register(&mut SourceFd(&bell), BELL, Interest::READABLE);
            registered.is_ok()
        });
        Self {
            reactor,
            poll,
            clients: Slab::new(),
            alarms: BTreeSet::new(),
            buffer: vec![0; READ_BYTES],
            busy_poll: BusyPoll::new(Duration::ZERO),
            bell,
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        let mut ready = Vec::new();
        loop {
            self.wait(&mut events);
            self.collect(&events, &mut ready);
            for token in ready.drain(..) {
                self.turn(token);
            }
        }
    }

    /// Waits for a socket, an alarm, or mail.
    fn wait(&mut self, events: &mut Events) {
        let now = clock::now();
        let first = self.alarms.first().map(|(at, _)| *at);
        let timeout = first.map(|at| at.saturating_duration_since(now));
        if let (Some(bell), Some(at)) = (&mut self.bell, first)
            && at > now + SLEEP_LONG
        {
            bell.ring_by(at, now);
        }
        let reactor = &self.reactor;
        let waited = self.busy_poll.wait(
            &mut self.poll,
            events,
            timeout,
            || reactor.has_mail.load(Ordering::SeqCst),
            |poll, events, timeout| reactor.sleep(poll, events, timeout),
        );
        if let Err(error) = waited {
            // Interrupted, or out of memory for a moment: look at everything else.
            tracing::debug!(%error, "waiting for sockets failed");
            events.clear();
        }
        let is_awake = self.busy_poll.stays_awake();
        reactor.is_awake.store(is_awake, Ordering::Relaxed);
    }

    /// Whose turn it is.
    fn collect(&mut self, events: &Events, ready: &mut Vec<usize>) {
        for event in events {
            let token = event.token().0;
            if let Some(task) = self.clients.get_mut(token) {
                let ended = event.is_read_closed() || event.is_error();
                task.driver.handle_ready(ended);
                ready.push(token);
            }
        }
        let mail = self.reactor.take_mail();
        for driver in mail.new {
            ready.push(self.insert(driver));
        }
        ready.extend(mail.woken);
        let now = clock::now();
        for &(at, token) in &self.alarms {
            if at > now {
                break;
            }
            ready.push(token);
        }
    }

    fn insert(&mut self, mut driver: Driver) -> usize {
        let entry = self.clients.vacant_entry();
        let token = entry.key();
        driver.begin_at(Arc::clone(&self.reactor), Token(token));
        let kick = Arc::new(Kick {
            reactor: Arc::clone(&self.reactor),
            token,
            is_posted: AtomicBool::new(false),
        });
        entry.insert(Task {
            driver,
            waker: Waker::from(Arc::clone(&kick)),
            kick,
            due: None,
        });
        self.agree_on_busy_poll();
        token
    }

    fn agree_on_busy_poll(&mut self) {
        let times = self.clients.iter().map(|(_, task)| task.driver.busy_poll());
        self.busy_poll
            .set_awake_max(times.max().unwrap_or_default());
    }

    fn turn(&mut self, token: usize) {
        // One that has ended may still have been woken.
        let Some(task) = self.clients.get_mut(token) else {
            return;
        };
        task.kick.is_posted.store(false, Ordering::SeqCst);
        let cx = &mut Context::from_waker(&task.waker);
        let (driver, buffer) = (&mut task.driver, &mut self.buffer);
        // A user's connector or stream may panic, and the other clients are not to blame.
        let poll = catch_unwind(AssertUnwindSafe(|| driver.poll(cx, buffer)));
        let poll = poll.unwrap_or_else(|_| {
            driver.give_up();
            Poll::Ready(())
        });
        let due = task.driver.due();
        if let Some(before) = task.due
            && Some(before) != due
        {
            self.alarms.remove(&(before, token));
        }
        if poll.is_ready() {
            self.alarms.remove(&(due.unwrap_or_default(), token));
            self.clients.remove(token);
            self.agree_on_busy_poll();
        } else {
            if let Some(due) = due
                && task.due != Some(due)
            {
                self.alarms.insert((due, token));
            }
            task.due = due;
        }
    }
}

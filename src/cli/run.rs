//! `lmx run`: a lock around a command.
//!
//! ```text
//!   lmx run ── the lock's client; passes signals on, tells the watchdog how long it may
//!     │        wait, and ends the command when the lock is lost
//!     ├─ the command ── in a process group of its own; dies with `lmx run`
//!     └─ the watchdog ── kills the command's group when `lmx run` is dead, or too late
//! ```

mod child;
mod fate;
mod group;
mod terminal;
mod watchdog;

pub(super) use child::this_program;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use async_signal::{Signal as Caught, Signals};
use lmx_core::client::{Loss, ReleaseFailure};
use lmx_core::{Instant, Wait};
use lmx_transports::clock::{self, Alarm};
use nix::sys::signal::Signal;

use super::Outcome;
use super::args::{OnLost, RunArgs};
use super::compat::OptionObject;
use super::connect::{connect_for, not_granted};
use super::exit::{self, Failure};
use super::lock;
use super::mean::{self, Asked, Codes, Place, environment};
use super::print::shown;
use super::signals;
use crate::{Guard, ReleaseError};
use child::{Change, Child};
use fate::{Fate, Order, Terms};
use terminal::Terminal;
use watchdog::Watchdog;

/// The longest that a lost connection may take to come back.
const WINDOW_MAX: Duration = Duration::from_mins(10);
/// Time for what is left of the command's group, once the command has ended.
const LEFTOVERS_MAX: Duration = Duration::from_secs(1);
/// Time for the broker to confirm that the lock is given back.
const RELEASE_MAX: Duration = Duration::from_secs(3);

/// Characters of the command's name that others see.
const NAME_CHARS_MAX: usize = 32;

/// Signals that are passed on to the command.
const PASSED_ON: [(Caught, Signal); 7] = [
    (Caught::Hup, Signal::SIGHUP),
    (Caught::Int, Signal::SIGINT),
    (Caught::Quit, Signal::SIGQUIT),
    (Caught::Term, Signal::SIGTERM),
    (Caught::Usr1, Signal::SIGUSR1),
    (Caught::Usr2, Signal::SIGUSR2),
    (Caught::Winch, Signal::SIGWINCH),
];

/// The processes that `lmx run` starts out of its own program. `None` if this is none.
pub(super) fn internal(typed: &[OsString]) -> Option<u8> {
    let [_, first, args @ ..] = typed else {
        return None;
    };
    if first == child::EXEC {
        Some(child::become_command(args))
    } else if first == watchdog::WATCHDOG {
        Some(watchdog::main(args))
    } else {
        None
    }
}

/// `lmx run`.
pub(super) fn run(typed: RunArgs) -> Outcome {
    if let Some(time) = typed.kill_after
        && time > typed.lease.min(WINDOW_MAX) / 2
    {
        return Err(Failure::usage(
            "--kill-after is more than half of --lease, or more than 5 minutes",
        )
        .hint("the command is killed before the lease ends: it would have no time to run"));
    }
    let object = OptionObject::default();
    let key = mean::not_empty(typed.key.into_vec())?;
    let job = Job {
        place: Place::new(typed.at, None, &object, &environment)?,
        asked: Asked::new(key, typed.lock, &object, Wait::Forever)?,
        command: typed.command,
        lease: typed.lease,
        kill_after: typed.kill_after,
        on_lost: typed.on_lost,
        codes: typed.exit.into(),
        lost: typed.exit_lost.unwrap_or(exit::LOST),
    };
    smol::block_on(job.run())
}

/// What is to be done.
struct Job {
    place: Place,
    asked: Asked,
    command: Vec<OsString>,
    lease: Duration,
    kill_after: Option<Duration>,
    on_lost: OnLost,
    codes: Codes,
    /// The exit code if the lock is lost.
    lost: u8,
}

impl Job {
    async fn run(&self) -> Outcome {
        let ignores_children = signals::ignores_children();
        let wanted = PASSED_ON.map(|(caught, _)| caught);
        let mut signals = signals::catch_with_children(&wanted)?;
        let window = self.lease.min(WINDOW_MAX);
        let name = format!("lmx run {}", self.command_name());
        let connecting = connect_for(&self.place, &name, window);
        let client = match signals::unless_ended(&mut signals, connecting).await {
            Ok(client) => client.map_err(|failure| self.codes.apply(failure))?,
            Err(code) => return Ok(code),
        };
        // Before the lock is asked for: should this process be killed while it waits, its
        // place in the queue goes with it.
        let id = lock::fresh_id();
        let watchdog = Watchdog::start(&self.place, id)?;
        let request = lock::request(&client, &self.asked, id);
        let request = request.lease(self.lease).renewed().into_future();
        let outcome = match signals::unless_ended(&mut signals, request).await {
            Ok(Ok(hold)) => {
                self.hold(hold, watchdog, ignores_children, &mut signals)
                    .await
            }
            Ok(Err(error)) => {
                watchdog.dismiss();
                Err(not_granted(&error, self.codes))
            }
            Err(code) => {
                watchdog.dismiss();
                Ok(code)
            }
        };
        within(RELEASE_MAX, client.close()).await;
        outcome
    }

    /// The command's name, for others to see. Not its arguments: they may be secrets.
    fn command_name(&self) -> String {
        let name = Path::new(&self.command[0]).file_name();
        let name = name.unwrap_or_default().to_string_lossy();
        name.chars().take(NAME_CHARS_MAX).collect()
    }

    async fn hold(
        &self,
        hold: Guard,
        mut watchdog: Watchdog,
        ignores_children: bool,
        signals: &mut Signals,
    ) -> Outcome {
        let token = hold.token().to_string();
        let id = hold.id().to_string();
        let exports = [
            ("LMX_KEY", OsStr::from_bytes(hold.key())),
            ("LMX_TOKEN", OsStr::new(&token)),
            ("LMX_ID", OsStr::new(&id)),
        ];
        let child = Child::halted(&self.command, &exports, ignores_children)?;
        watchdog.watch(child.group());
        let left = hold
            .good_until()
            .map(|at| at.saturating_duration_since(clock::now()));
        let mut supervisor = Supervisor {
            job: self,
            terms: Terms::new(left.unwrap_or(self.lease), self.kill_after, self.on_lost),
            hold,
            child,
            watchdog,
            fate: Fate::Held,
            loss: None,
            terminal: Terminal::ours(),
            good_until: None,
            killed_by: None,
        };
        // The watchdog knows the deadline before the command's first instruction.
        supervisor.handle_time(clock::now());
        supervisor.keep_watchdog();
        if supervisor.good_until.is_some() {
            supervisor.go_on();
            supervisor.follow(signals).await;
        } else {
            // This process was stopped in between, and has not got the lock any more.
            supervisor.loss = smol::future::poll_once(supervisor.hold.lost()).await;
            supervisor.fate = Fate::Killed;
            supervisor.carry_out(Order::Kill);
        }
        supervisor.wind_up().await
    }
}

/// A command while it runs, and the lock it runs under.
struct Supervisor<'a> {
    job: &'a Job,
    terms: Terms,
    hold: Guard,
    child: Child,
    watchdog: Watchdog,
    fate: Fate,
    /// Why the lock was lost, once it was.
    loss: Option<Loss>,
    terminal: Option<Terminal>,
    /// Until when the lock was surely held, when it last was. None if it was lost before the
    /// command could begin.
    good_until: Option<Instant>,
    /// What the watchdog was last told.
    killed_by: Option<Instant>,
}

/// What a supervisor waits for.
enum Occurrence {
    Signal(Caught),
    Time,
    Lost(Loss),
}

impl Supervisor<'_> {
    /// Watches over the command until it has ended.
    async fn follow(&mut self, signals: &mut Signals) {
        let mut alarm = Alarm::never();
        loop {
            alarm.set(self.handle_time(clock::now()));
            let signal = async { Occurrence::Signal(signals::next(signals).await) };
            let time = async {
                (&mut alarm).await;
                Occurrence::Time
            };
            let loss = async {
                match self.loss {
                    None => Occurrence::Lost(self.hold.lost().await),
                    Some(_) => std::future::pending().await,
                }
            };
            match smol::future::or(signal, smol::future::or(loss, time)).await {
                Occurrence::Signal(Caught::Child) => match self.child.change() {
                    Change::None => self.keep_watchdog(),
                    Change::Stopped => self.stop_as_well(),
                    Change::Ended => return,
                },
                Occurrence::Signal(signal) => self.pass_on(signal),
                Occurrence::Lost(why) => self.lose(why),
                Occurrence::Time => {}
            }
        }
    }

    /// Does what is due, and says when to look again.
    fn handle_time(&mut self, now: Instant) -> Option<Instant> {
        let was_held = self.fate == Fate::Held;
        if self.hold.is_valid() {
            self.good_until = self.hold.good_until();
        }
        let good_until = self.good_until;
        let (order, next) = self.fate.handle_time(now, good_until, &self.terms);
        self.carry_out(order);
        if was_held && self.fate == Fate::Ignored {
            self.warn();
        }
        let kills_at = self.fate.kills_at(good_until, &self.terms);
        if kills_at != self.killed_by {
            self.killed_by = kills_at;
            self.watchdog.kill_at(kills_at);
        }
        next
    }

    /// Sees to it that there is a watchdog.
    fn keep_watchdog(&mut self) {
        self.watchdog
            .replace_if_dead(&self.job.place, self.hold.id());
    }

    fn lose(&mut self, loss: Loss) {
        self.loss = Some(loss);
        let was_held = self.fate == Fate::Held;
        // A lock that was ended by force leaves the command as much time as it would have
        // had without; one that was not renewed leaves none.
        let order = self.fate.lose(clock::now(), self.good_until, &self.terms);
        self.carry_out(order);
        if was_held && self.fate == Fate::Ignored {
            self.warn();
        }
    }

    fn warn(&self) {
        let key = shown(self.hold.key());
        let why = self.loss.unwrap_or(Loss::Unconfirmed);
        exit::warn(&format!(
            "the lock on {key} is lost: {why}; the command goes on without it"
        ));
    }

    fn carry_out(&self, order: Order) {
        match order {
            Order::None => {}
            Order::Terminate => {
                self.child.group().signal(Signal::SIGTERM);
                // Who is stopped does not hear it otherwise.
                self.child.group().signal(Signal::SIGCONT);
            }
            Order::Kill => self.child.group().signal(Signal::SIGKILL),
        }
    }

    fn pass_on(&self, caught: Caught) {
        if let Some((_, signal)) = PASSED_ON.iter().find(|(known, _)| *known == caught) {
            self.child.group().signal(*signal);
        }
    }

    /// The terminal stopped the command; so be it, for the shell's sake. When the shell
    /// wakes this up again, the command goes on, if its lock has not been lost by then.
    fn stop_as_well(&mut self) {
        if let Some(terminal) = &self.terminal {
            terminal.take_back();
            let _ = nix::sys::signal::raise(Signal::SIGSTOP);
            self.handle_time(clock::now());
            self.go_on();
        }
    }

    fn go_on(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.lend(self.child.group().id());
        }
        self.child.group().signal(Signal::SIGCONT);
    }

    /// The command has ended: ends what it left behind, and gives the lock back.
    async fn wind_up(mut self) -> Outcome {
        let status = self.child.reap().map_err(|error| {
            Failure::new(
                exit::SYSTEM,
                format!("cannot wait for the command: {error}"),
            )
        })?;
        self.end_leftovers().await;
        self.watchdog.dismiss();
        drop(self.terminal);
        let key = shown(self.hold.key());
        // Stopped for too long, this process may see the watchdog's work before its own.
        let is_lost = match self.fate {
            Fate::Held => !self.hold.is_valid(),
            fate => fate.ends_command(),
        };
        let loss = self.loss;
        let is_held = self.fate == Fate::Held && !is_lost;
        let given_back = give_back(is_held, self.hold.release()).await;
        if is_lost {
            let why = loss.unwrap_or(Loss::Unconfirmed);
            let when = match self.good_until {
                Some(_) => "while the command ran",
                None => "before the command could begin",
            };
            return Err(Failure::new(
                self.job.lost,
                format!("the lock on {key} was lost {when}: {why}"),
            ));
        }
        match given_back {
            GivenBack::Yes => {}
            GivenBack::Unconfirmed => exit::warn(&format!(
                "the broker has not confirmed that the lock on {key} was given back; \
                 it ends with its lease at the latest"
            )),
            GivenBack::No(error) => {
                exit::warn(&format!("the lock on {key} was not given back: {error}"));
            }
        }
        Ok(exit_code(status))
    }

    /// Nobody of the command's group may work on once the lock is somebody else's.
    async fn end_leftovers(&mut self) {
        if !self.child.group().is_alive() {
            return;
        }
        self.child.group().signal(Signal::SIGTERM);
        self.child.group().signal(Signal::SIGCONT);
        let patience = self.killed_by.unwrap_or(clock::now() + LEFTOVERS_MAX);
        let kill_at = patience.min(clock::now() + LEFTOVERS_MAX);
        let give_up = kill_at + LEFTOVERS_MAX;
        let mut killed = false;
        while self.child.group().is_alive() {
            let now = clock::now();
            if now >= give_up {
                exit::warn("some process of the command does not die");
                return;
            }
            if now >= kill_at && !killed {
                self.child.group().signal(Signal::SIGKILL);
                killed = true;
            }
            // They are not our children, so nobody tells when they are gone.
            Alarm::after(Duration::from_millis(5)).await;
        }
    }
}

/// What came of giving a lock back.
#[derive(Debug)]
enum GivenBack {
    /// It is, or there was none any more.
    Yes,
    /// No broker has said so in time.
    Unconfirmed,
    No(ReleaseError),
}

/// Gives the lock back with `release`. One that is not held needs no confirmation, and a
/// broker that is gone could give none.
async fn give_back(
    is_held: bool,
    release: impl Future<Output = Result<(), ReleaseError>>,
) -> GivenBack {
    if !is_held {
        return GivenBack::Yes;
    }
    match within(RELEASE_MAX, release).await {
        Some(Ok(())) => GivenBack::Yes,
        None | Some(Err(ReleaseError::Failed(ReleaseFailure::Unconfirmed))) => {
            GivenBack::Unconfirmed
        }
        Some(Err(error)) => GivenBack::No(error),
    }
}

/// What `wanted` yields, unless that takes longer.
async fn within<T>(time: Duration, wanted: impl Future<Output = T>) -> Option<T> {
    let wanted = async { Some(wanted.await) };
    let late = async {
        Alarm::after(time).await;
        None
    };
    smol::future::or(wanted, late).await
}

/// As a shell would tell it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => i32::from(exit::SIGNAL_BASE) + signal,
        (None, None) => i32::from(exit::SYSTEM),
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use smol::future::poll_once;

    use super::*;

    #[test]
    fn a_lock_that_is_lost_is_not_waited_for() {
        let never = std::future::pending;
        let lost = smol::block_on(poll_once(give_back(false, never())));
        assert!(matches!(lost, Some(GivenBack::Yes)), "{lost:?}");
        let held = smol::block_on(poll_once(give_back(true, never())));
        assert!(held.is_none(), "{held:?}");
    }

    #[test]
    fn silence_is_told_in_one_way() {
        let silence = Err(ReleaseError::Failed(ReleaseFailure::Unconfirmed));
        let told = smol::block_on(give_back(true, std::future::ready(silence)));
        assert!(matches!(told, GivenBack::Unconfirmed), "{told:?}");
    }
}

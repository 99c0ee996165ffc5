//! A second process that kills the command if `lmx run` cannot.
//!
//! `lmx run` may be killed or stopped at any moment, and its command must not outlive
//! the lock for that. So it tells the watchdog, through a pipe, by when the command has
//! to be dead. If that time comes, or the pipe breaks, the watchdog kills the command's
//! process group; and if the pipe broke, it gives the lock back afterwards, so that those
//! who wait need not wait for the session to be given up.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use async_signal::{Signal as Caught, Signals};
use clap::Parser as _;
use lmx_core::{Instant, RequestId};
use lmx_transports::clock::{self, Alarm};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, read};

use super::child::this_program;
use super::group::Group;
use crate::Endpoint;
use crate::cli::args::WhereArgs;
use crate::cli::compat::OptionObject;
use crate::cli::connect;
use crate::cli::exit::{self, Failure};
use crate::cli::mean::{Place, environment};

/// First argument of the watchdog's process.
pub(super) const WATCHDOG: &str = "__watchdog";

/// How long a killed group may take to be gone before its lock is given back.
const GONE_MAX: Duration = Duration::from_secs(10);

/// How often a watchdog that has died is replaced: one that cannot live at all would be
/// started for ever.
const REPLACEMENTS_MAX: u32 = 100;

/// The watchdog, as `lmx run` sees it.
#[derive(Debug)]
pub(super) struct Watchdog {
    process: Child,
    /// `None` once it was found broken.
    pipe: Option<ChildStdin>,
    group: Option<Group>,
    kill_at: Option<Instant>,
    replacements: u32,
}

impl Watchdog {
    /// Starts a watchdog for the command that will hold request `id`.
    pub(super) fn start(place: &Place, id: RequestId) -> Result<Self, Failure> {
        let (process, pipe) = Self::spawn(place, id)?;
        Ok(Self {
            process,
            pipe,
            group: None,
            kill_at: None,
            replacements: 0,
        })
    }

    fn spawn(place: &Place, id: RequestId) -> Result<(Child, Option<ChildStdin>), Failure> {
        let mut command = Command::new(this_program());
        command.arg0("lmx").arg(WATCHDOG);
        match &place.endpoint {
            Endpoint::Tcp { host, port } => {
                command.arg("--host").arg(host);
                command.arg("--port").arg(port.to_string());
            }
            Endpoint::Unix(path) => {
                command.arg("--unix").arg(path);
            }
        }
        if let Some(tls) = &place.tls {
            command.args(tls.args());
        }
        if let Some(token) = &place.auth_token {
            command.env("LMX_AUTH_TOKEN", OsString::from_vec(token.clone()));
        }
        let mut process = command
            .arg("--id")
            .arg(id.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| {
                Failure::new(exit::SYSTEM, format!("cannot start a process: {error}"))
            })?;
        let pipe = process.stdin.take();
        Ok((process, pipe))
    }

    /// Starts another one if it has died, so that only who kills both at one time gets past it.
    pub(super) fn replace_if_dead(&mut self, place: &Place, id: RequestId) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        self.pipe = None;
        if self.replacements == REPLACEMENTS_MAX {
            return;
        }
        self.replacements += 1;
        match Self::spawn(place, id) {
            Ok((process, pipe)) => (self.process, self.pipe) = (process, pipe),
            Err(_) => self.replacements = REPLACEMENTS_MAX,
        }
        if self.replacements == REPLACEMENTS_MAX {
            exit::warn("the watchdog process has died; it is not replaced any more");
        }
        if let Some(group) = self.group {
            self.watch(group);
        }
        self.kill_at(self.kill_at);
    }

    /// Names the process group to kill.
    pub(super) fn watch(&mut self, group: Group) {
        self.group = Some(group);
        self.tell(&format!("group {}\n", group.id()));
    }

    /// Sets by when the group has to be dead, if no sooner end is asked for.
    pub(super) fn kill_at(&mut self, at: Option<Instant>) {
        self.kill_at = at;
        let nanos = at.map_or(u64::MAX, Instant::as_nanos);
        self.tell(&format!("kill-at {nanos}\n"));
    }

    /// Dismisses it: there is nothing to kill any more. Not by a word, which it would not hear
    /// if it is stopped; and before the pipe breaks, which it would take for an end of `lmx run`.
    pub(super) fn dismiss(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn tell(&mut self, line: &str) {
        // If it is dead, its successor is told everything.
        if let Some(pipe) = &mut self.pipe
            && pipe.write_all(line.as_bytes()).is_err()
        {
            self.pipe = None;
        }
    }
}

/// What the watchdog was told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Orders {
    group: Option<Group>,
    kill_at: Option<Instant>,
    /// The beginning of a line.
    partial: Vec<u8>,
}

impl Orders {
    fn handle_input(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.handle_line(String::from_utf8_lossy(&line).trim());
        }
    }

    fn handle_line(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("group", group)) => {
                self.group = group.parse().ok().map(Pid::from_raw).map(Group::led_by);
            }
            Some(("kill-at", nanos)) => {
                self.kill_at = nanos
                    .parse()
                    .ok()
                    .filter(|nanos| *nanos != u64::MAX)
                    .map(Instant::from_nanos);
            }
            _ => {}
        }
    }

    /// Kills the group, if there is one.
    fn kill(&self) {
        if let Some(group) = self.group {
            group.signal(Signal::SIGKILL);
        }
    }

    fn group_is_gone(&self) -> bool {
        self.group.is_none_or(|group| !group.is_alive())
    }
}

/// Its arguments.
#[derive(Debug, clap::Parser)]
struct WatchdogArgs {
    #[command(flatten)]
    at: WhereArgs,
    #[arg(long)]
    id: RequestId,
}

/// The watchdog's process.
pub(super) fn main(args: &[OsString]) -> u8 {
    let program = OsString::from(WATCHDOG);
    let typed = std::iter::once(&program).chain(args);
    let Ok(typed) = WatchdogArgs::try_parse_from(typed) else {
        return exit::USAGE;
    };
    // Caught, and so survived: it goes when `lmx run` does, and not before.
    let _signals = Signals::new([Caught::Term, Caught::Int, Caught::Hup, Caught::Quit]);
    let mut orders = Orders::default();
    while follow(&mut orders) {}
    orders.kill();
    smol::block_on(give_back(&orders, typed));
    exit::DONE
}

/// Waits for orders, and carries them out when their time has come. False once there
/// will be no more.
fn follow(orders: &mut Orders) -> bool {
    if orders.kill_at.is_some_and(|at| at <= clock::now()) {
        orders.kill();
        orders.kill_at = None;
        return true;
    }
    let stdin = io::stdin();
    match clock::wait_readable(stdin.as_fd(), orders.kill_at) {
        Ok(true) => {}
        Ok(false) => return true,
        Err(_) => return false,
    }
    let mut bytes = [0; 512];
    // Not through the standard library's buffer, in which the poll above cannot look.
    match read(stdin.as_fd(), &mut bytes) {
        Ok(0) => false,
        Ok(count) => {
            orders.handle_input(&bytes[..count]);
            true
        }
        Err(error) => error == Errno::EINTR,
    }
}

/// Ends the request of the `lmx run` that is dead, once its command is dead as well.
async fn give_back(orders: &Orders, typed: WatchdogArgs) {
    let give_up = clock::now() + GONE_MAX;
    while !orders.group_is_gone() {
        if clock::now() >= give_up {
            return;
        }
        Alarm::after(Duration::from_millis(5)).await;
    }
    let Ok(place) = Place::new(typed.at, None, &OptionObject::default(), &environment) else {
        return;
    };
    // If that fails, the broker gives the session up by itself before long.
    if let Ok(client) = connect::connect(&place, "lmx run, its watchdog").await {
        let _ = client.force_release_request(typed.id).await;
        client.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_followed_wherever_the_pipe_cuts_them() {
        let all = b"group 7\nkill-at 5\nkill-at 9\n";
        for cut in 0..all.len() {
            let mut orders = Orders::default();
            orders.handle_input(&all[..cut]);
            orders.handle_input(&all[cut..]);
            assert_eq!(orders.group, Some(Group::led_by(Pid::from_raw(7))));
            assert_eq!(orders.kill_at, Some(Instant::from_nanos(9)));
            orders.handle_input(format!("kill-at {}\n", u64::MAX).as_bytes());
            assert_eq!(orders.kill_at, None);
        }
    }
}

//! Signals, as exit codes and as futures.

use std::future::Future;

use async_signal::{Signal, Signals};
use nix::sys::signal::{self, SigSet};
use smol::stream::StreamExt as _;

use super::descriptors;
use super::exit::{self, Failure};

/// What ends a command that has nothing to wind up: the signals that end a process.
pub(super) const ENDS: [Signal; 6] = [
    Signal::Hup,
    Signal::Int,
    Signal::Quit,
    Signal::Term,
    Signal::Usr1,
    Signal::Usr2,
];

/// Catches those of `wanted` that this process was not started to ignore (`nohup`, and the
/// background jobs of a shell without job control).
pub(super) fn catch(wanted: &[Signal]) -> Result<Signals, Failure> {
    descriptors::check(descriptors::OF_RUNTIME)?;
    let ignored = ignored();
    let caught = wanted
        .iter()
        .filter(|signal| ignored & mask(**signal) == 0)
        .copied();
    Signals::new(caught).map_err(unheard)
}

/// As [`catch`], and what happens to children as well, even where this process was started
/// with that signal ignored or blocked: the kernel would keep no exit status of them, or
/// nobody would hear of their ends.
pub(super) fn catch_with_children(wanted: &[Signal]) -> Result<Signals, Failure> {
    let mut signals = catch(wanted)?;
    signals.add_signals([Signal::Child]).map_err(unheard)?;
    let mut child = SigSet::empty();
    child.add(signal::Signal::SIGCHLD);
    child.thread_unblock().map_err(unheard)?;
    Ok(signals)
}

/// Makes a write past the limit of file sizes (`ulimit -f`) fail, which can be told, where it
/// would end this process without a word. To be called before there are other threads.
pub(super) fn let_long_files_fail() -> Result<(), Failure> {
    let mut too_long = SigSet::empty();
    too_long.add(signal::Signal::SIGXFSZ);
    too_long
        .thread_block()
        .map_err(|error| Failure::new(exit::SYSTEM, format!("cannot block a signal: {error}")))
}

/// Whether this process ignores what happens to its children; so it is started by programs
/// that do not want to reap theirs.
pub(super) fn ignores_children() -> bool {
    ignored() & mask(Signal::Child) != 0
}

/// The next signal; never, if there can be none.
pub(super) async fn next(signals: &mut Signals) -> Signal {
    loop {
        match signals.next().await {
            Some(Ok(signal)) => return signal,
            Some(Err(_)) => {}
            None => std::future::pending::<()>().await,
        }
    }
}

/// What `wanted` yields, or the exit code of the signal that came first.
pub(super) async fn unless_ended<T>(
    signals: &mut Signals,
    wanted: impl Future<Output = T>,
) -> Result<T, u8> {
    let wanted = async { Ok(wanted.await) };
    let ended = async { Err(ended(signals).await) };
    smol::future::or(ended, wanted).await
}

/// The exit code of the first signal that ends a command.
pub(super) async fn ended(signals: &mut Signals) -> u8 {
    loop {
        let signal = next(signals).await;
        if ENDS.contains(&signal) {
            return exit_code(signal);
        }
    }
}

/// How a process exits that a signal ended.
pub(super) fn exit_code(signal: Signal) -> u8 {
    exit::SIGNAL_BASE.saturating_add(signal as u8)
}

fn unheard(error: impl std::fmt::Display) -> Failure {
    Failure::new(exit::SYSTEM, format!("cannot listen for signals: {error}"))
}

fn mask(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// The signals this process ignores, where the system tells.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

//! `lmx acquire` and `lmx run`: what is asked for, and how.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};

use super::{JsonArgs, MaybeForever, Permits, WhereArgs, parse};

/// How a lock is asked for.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "The lock")]
pub(crate) struct LockArgs {
    /// Another key to hold as well, all or nothing and in the same mode; may be repeated.
    #[arg(long, value_name = "KEY")]
    pub(crate) also: Vec<OsString>,
    /// Hold it together with other shared holders; no exclusive one at the same time.
    #[arg(long, conflicts_with = "semaphore")]
    pub(crate) shared: bool,
    /// Hold PERMITS of the CAPACITY that the key has in all.
    #[arg(long, value_name = "CAPACITY[:PERMITS]")]
    pub(crate) semaphore: Option<Permits>,
    /// Do not wait: fail at once if the lock is held.
    #[arg(long = "try", conflicts_with = "wait")]
    pub(crate) try_now: bool,
    /// Wait at most so long, or `forever`; 0 is the same as --try.
    #[arg(long, value_name = "TIME")]
    pub(crate) wait: Option<MaybeForever>,
    /// Who and why, for those who inspect.
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<OsString>,
    /// On whose behalf: owners that would wait for each other in a circle are refused.
    #[arg(long, value_name = "NUMBER", value_parser = parse::owner)]
    pub(crate) owner: Option<NonZeroU32>,
    /// If the lock ends by expiry or disconnect, nobody gets it for so long.
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) lock_delay: Option<Duration>,
}

/// Other exit codes than the usual ones.
#[derive(Clone, Copy, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Exit codes")]
pub(crate) struct ExitArgs {
    /// Exit with N if the lock was busy or timed out; as flock(1).
    #[arg(short = 'E', long, value_name = "N")]
    pub(crate) conflict_exit_code: Option<u8>,
    /// Exit with N if --try, or --wait 0, found the lock held [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) exit_busy: Option<u8>,
    /// Exit with N if the lock did not come within --wait; not for --wait 0 [default: 75].
    #[arg(long, value_name = "N")]
    pub(crate) exit_timeout: Option<u8>,
    /// Exit with N if no broker could be reached [default: 69].
    #[arg(long, value_name = "N")]
    pub(crate) exit_unreachable: Option<u8>,
}

/// `lmx acquire`.
#[derive(Debug, ClapArgs)]
pub(crate) struct AcquireArgs {
    /// The key: any bytes that are not empty [default: live_mutex_key].
    #[arg(value_name = "KEY")]
    pub(crate) key: Option<OsString>,
    /// The broker's TCP port.
    #[arg(value_name = "PORT", value_parser = parse::port, conflicts_with_all = ["port_option", "unix", "use_uds"])]
    pub(crate) port: Option<u16>,
    /// Let the lock end by itself after so long.
    #[arg(long, value_name = "TIME", visible_alias = "ttl", value_parser = parse::lease)]
    pub(crate) lease: Option<Duration>,
    /// Print shell assignments, for eval.
    #[arg(long, conflicts_with = "json")]
    pub(crate) shell: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) exit: ExitArgs,
    #[command(flatten)]
    pub(crate) at: WhereArgs,
}

impl AcquireArgs {
    pub(super) const AFTER_HELP: &str = "\
The lock outlives this command and, unless --lease is given, lasts until it is released:
  eval \"$(lmx acquire backup --shell)\"
  ...
  lmx release backup --id \"$LMX_ID\"
Without --try or --wait it waits 9 s. `lmx run` is safer where it fits: its lock cannot be
forgotten. Times are written 500ms, 4s, 1m30s, or as a bare number of milliseconds.";
}

/// What becomes of the command when its lock is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLost {
    /// SIGTERM, then SIGKILL before anybody else can be granted the lock.
    #[default]
    Term,
    /// SIGKILL at once.
    Kill,
    /// Only a warning: the command goes on without the lock.
    Ignore,
}

/// `lmx run`.
#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// The key: any bytes that are not empty.
    #[arg(value_name = "KEY")]
    pub(crate) key: OsString,
    /// The command and its arguments, after `--`.
    #[arg(
        value_name = "COMMAND",
        required = true,
        last = true,
        allow_hyphen_values = true,
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    pub(crate) command: Vec<OsString>,
    /// How long the lock survives without being renewed, which happens all the while.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = parse::lease)]
    pub(crate) lease: Duration,
    /// What happens to the command when its lock is lost.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnLost::Term)]
    pub(crate) on_lost: OnLost,
    /// How long the command has from SIGTERM to SIGKILL [default: a quarter of the lease, at most 10s].
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) kill_after: Option<Duration>,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) exit: ExitArgs,
    /// Exit with N if the lock was lost while the command ran [default: 79].
    #[arg(long, value_name = "N", help_heading = "Exit codes")]
    pub(crate) exit_lost: Option<u8>,
    #[command(flatten)]
    pub(crate) at: WhereArgs,
}

impl RunArgs {
    pub(super) const AFTER_HELP: &str = "\
The command gets the standard streams, and LMX_KEY, LMX_TOKEN and LMX_ID in its
environment; it is run as it is, without a shell:
  lmx run deploy --wait 30s -- ./deploy.sh production
  lmx run counter -- sh -c 'n=$(cat n); echo $((n + 1)) > n'
Without --try or --wait it waits for ever. Its exit status is the command's, or 128 + n if
signal n ended it. Signals are passed on to the command's whole process group. If the lock
can no longer be renewed, the group gets SIGTERM, and SIGKILL before the lock can be
anybody else's. What is left of the group when the command ends is ended too.";
}

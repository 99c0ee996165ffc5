//! The command, in a process group of its own.
//!
//! Between fork and exec stands this same program: it asks the kernel to be killed when
//! `lmx run` dies, halts, and becomes the command once `lmx run` lets it go on. So
//! there is no moment at which the command runs and nobody watches it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getppid};

use super::group::Group;
use crate::cli::exit::{self, Failure};
use crate::cli::print::shown;

/// First argument of the program that becomes the command.
pub(super) const EXEC: &str = "__exec";

/// A command that was started.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    group: Group,
}

/// What has become of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing: it runs.
    None,
    /// Its terminal, or somebody, has stopped it.
    Stopped,
    /// It has ended, and waits to be reaped.
    Ended,
}

impl Child {
    /// Starts `command` with `exports` in its environment, halted at its very beginning. It
    /// ignores the ends of its own children if it would without `lmx run`.
    pub(super) fn halted(
        command: &[OsString],
        exports: &[(&str, &OsStr)],
        ignores_children: bool,
    ) -> Result<Self, Failure> {
        let process = Command::new(this_program())
            .arg0("lmx")
            .arg(EXEC)
            .arg(std::process::id().to_string())
            .arg(ignores_children.to_string())
            .args(command)
            .envs(exports.iter().copied())
            .process_group(0)
            .spawn()
            .map_err(|error| {
                Failure::new(exit::SYSTEM, format!("cannot start a process: {error}"))
            })?;
        let group = Group::led_by(Pid::from_raw(process.id().cast_signed()));
        let child = Self { process, group };
        // Either way it goes on from here: an end is seen like any other end.
        child.wait_flags(WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED);
        Ok(child)
    }

    /// Its process group.
    pub(super) const fn group(&self) -> Group {
        self.group
    }

    /// What has become of it since it was last asked.
    pub(super) fn change(&self) -> Change {
        match self.wait_flags(WaitPidFlag::WNOHANG | WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED) {
            Some(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => Change::Ended,
            Some(WaitStatus::Stopped(..)) => {
                // Look away, or the same stop is reported for ever.
                let _ = waitid(
                    Id::Pid(self.group.id()),
                    WaitPidFlag::WNOHANG | WaitPidFlag::WSTOPPED,
                );
                Change::Stopped
            }
            _ => Change::None,
        }
    }

    /// How it ended; waits until it has. From then on its group may be nobody's.
    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        self.process.wait()
    }

    /// Waits without reaping: the group's number stays ours until then.
    fn wait_flags(&self, flags: WaitPidFlag) -> Option<WaitStatus> {
        loop {
            match waitid(Id::Pid(self.group.id()), flags | WaitPidFlag::WNOWAIT) {
                Err(Errno::EINTR) => {}
                status => return status.ok(),
            }
        }
    }
}

/// Becomes the command in `args`, which begin with the process id of `lmx run` and whether
/// to ignore children. Returns an exit code if it cannot.
pub(super) fn become_command(args: &[OsString]) -> u8 {
    let [parent, ignores_children, program, args @ ..] = args else {
        return exit::USAGE;
    };
    let parent = parent.to_str().and_then(|text| text.parse().ok());
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_err() {
        return exit::SYSTEM;
    }
    // It may have died before the kernel was asked.
    if Some(getppid().as_raw()) != parent || raise(Signal::SIGSTOP).is_err() {
        return exit::SYSTEM;
    }
    if ignores_children == "true" && ignore_children().is_err() {
        return exit::SYSTEM;
    }
    let error = Command::new(program).args(args).exec();
    let code = match error.kind() {
        io::ErrorKind::NotFound => exit::NOT_FOUND,
        _ => exit::NOT_EXECUTABLE,
    };
    let shown = shown(program.as_encoded_bytes());
    Failure::new(code, format!("cannot run {shown}: {error}")).report();
    code
}

/// For `lmx run` itself must not ignore its children, and so its child was not started to.
#[expect(unsafe_code, reason = "nix has it so for handlers; this is none")]
fn ignore_children() -> nix::Result<()> {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no code is named that could run.
    unsafe { sigaction(Signal::SIGCHLD, &ignore) }.map(drop)
}

/// The program that is running, even if its file was replaced in the meantime.
pub(in crate::cli) fn this_program() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() {
        return link;
    }
    std::env::current_exe().unwrap_or_else(|_| "lmx".into())
}

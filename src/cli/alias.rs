//! The names of live-mutex's own commands: small programs that run the `lmx` beside them
//! under their own name, which tells it what is meant. Links to `lmx` do as well.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::exit::{Failure, SYSTEM};

/// What is meant by a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alias {
    /// A subcommand of `lmx`.
    Subcommand(&'static str),
    /// live-mutex's `lmx_inspect_broker`, which has arguments of its own.
    InspectBroker,
}

/// What the name under which this program was started means; `None` for `lmx` itself.
pub(super) fn of(typed: &[OsString]) -> Option<Alias> {
    let name = Path::new(typed.first()?).file_name()?;
    Some(match name.to_str()? {
        "lmx_start_server" | "lmx_launch_broker" => Alias::Subcommand("start"),
        "lmx_acquire_lock" => Alias::Subcommand("acquire"),
        "lmx_release_lock" => Alias::Subcommand("release"),
        "lmx_ls" => Alias::Subcommand("ls"),
        "lmx_inspect_broker" => Alias::InspectBroker,
        _ => return None,
    })
}

/// Becomes the `lmx` that lies beside this program, under this program's name.
#[must_use]
pub fn exec_lmx() -> ExitCode {
    let mut typed = env::args_os();
    let own = match env::current_exe() {
        Ok(own) => own,
        Err(error) => {
            let message = format!("cannot tell where this program lies: {error}");
            return Failure::new(SYSTEM, message).report();
        }
    };
    let lmx = own.with_file_name("lmx");
    let name = typed.next().unwrap_or_else(|| own.into_os_string());
    let error = Command::new(&lmx).arg0(name).args(typed).exec();
    let lmx = lmx.display();
    Failure::new(SYSTEM, format!("cannot run {lmx}: {error}"))
        .hint("it belongs beside this program")
        .report()
}

//! Exit codes, and failures that end in one.

use std::io::Write as _;
use std::process::ExitCode;

/// Done.
pub(super) const DONE: u8 = 0;
/// `--try` found the lock held; as `flock(1)`.
pub(super) const BUSY: u8 = 1;
/// Something typed was wrong; sysexits `EX_USAGE`.
pub(super) const USAGE: u8 = 64;
/// There is no broker there; sysexits `EX_UNAVAILABLE`.
pub(super) const UNREACHABLE: u8 = 69;
/// The broker refused, or did what it should not; sysexits `EX_SOFTWARE`.
pub(super) const REFUSED: u8 = 70;
/// The operating system refused; sysexits `EX_OSERR`.
pub(super) const SYSTEM: u8 = 71;
/// The lock did not come in time; sysexits `EX_TEMPFAIL`.
pub(super) const TIMED_OUT: u8 = 75;
/// The broker wants another authentication token; sysexits `EX_NOPERM`.
pub(super) const UNAUTHORIZED: u8 = 77;
/// The lock was lost while the command ran.
pub(super) const LOST: u8 = 79;
/// There was nothing to release.
pub(super) const NOT_HELD: u8 = 80;
/// The command was found but cannot be run; as the shell.
pub(super) const NOT_EXECUTABLE: u8 = 126;
/// The command was not found; as the shell.
pub(super) const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended a command; as the shell.
pub(super) const SIGNAL_BASE: u8 = 128;

/// What `--help` and the man page say about them.
pub(super) const HELP: &str = "\
Exit codes:
  0      done
  1      busy: --try, or --wait 0, found the lock held
  64     something typed was wrong
  69     no broker could be reached
  70     the broker refused the request
  71     the operating system refused
  75     timed out: the lock did not come within --wait
  77     the broker wants another authentication token
  79     the lock was lost while `lmx run` ran its command
  80     nothing was released: nobody holds it
  126    the command of `lmx run` cannot be executed
  127    the command of `lmx run` was not found
  128+n  ended by signal n
  Otherwise `lmx run` exits as its command does.

Environment:
  LMX_HOST, LMX_PORT, LMX_UNIX   where the broker is, unless an option says so
  LMX_AUTH_TOKEN                 the authentication token, if the broker wants one
  LMX_TLS_CA, LMX_TLS_CERT, LMX_TLS_KEY
                                 whom to trust, and what to show, if the broker speaks TLS
  LMX_LOG                        how much `lmx start` logs: off, error, warn, info, debug, trace
  live_mutex_host, live_mutex_port, live_mutex_key, use_uds=yes
                                 as live-mutex's commands read them, after the above";

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// Ends with `code`, saying `message`.
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// Something typed was wrong.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// Adds what would be right.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Ends with another code.
    #[must_use]
    pub(super) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// With what code it ends.
    pub(super) const fn code(&self) -> u8 {
        self.code
    }

    /// Says it on standard error.
    pub(super) fn report(&self) -> ExitCode {
        let mut text = format!("lmx: {}\n", self.message);
        if let Some(hint) = &self.hint {
            text.push_str("     ");
            text.push_str(hint);
            text.push('\n');
        }
        // With standard error gone there is nobody left to tell.
        let _ = std::io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.code)
    }
}

/// Says something on standard error and goes on.
pub(super) fn warn(message: &str) {
    // With standard error gone there is nobody left to tell; `eprintln!` would panic.
    let _ = writeln!(std::io::stderr(), "lmx: {message}");
}

/// Prints what clap has to say; its errors end with [`USAGE`], help and version with [`DONE`].
pub(super) fn for_clap(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { DONE })
}

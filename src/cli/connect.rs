//! A client for the broker that was named, started first if that was asked for; and what
//! its errors mean for a command.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use lmx_core::table::AcquireError;
use lmx_core::wire::{self, FaultKind};
use lmx_transports::launch::{LaunchError, launch_detached};

use super::args::Time;
use super::exit::{self, Failure};
use super::mean::{Codes, Place};
use super::run::this_program;
use crate::{Client, ConnectError, Endpoint, LockError, QueryError};

/// Connects for a command that asks something and ends: nothing outlives its connection
/// but what is kept.
pub(super) async fn connect(place: &Place, name: &str) -> Result<Client, Failure> {
    connect_for(place, name, Duration::ZERO).await
}

/// Connects for a command whose locks shall survive a lost connection for `window`.
pub(super) async fn connect_for(
    place: &Place,
    name: &str,
    window: Duration,
) -> Result<Client, Failure> {
    if place.launch {
        if place.tls.is_some() {
            return Err(Failure::usage("--launch starts no broker that speaks TLS")
                .hint("start one with `lmx start --tls-cert PATH --tls-key PATH`"));
        }
        launch(place).await?;
    }
    let mut builder = Client::builder()
        .name(format!("{name}, pid {}", std::process::id()))
        .resume_window(window)
        .endpoint(place.endpoint.clone());
    if let Some(token) = &place.auth_token {
        builder = builder.auth_token(token.clone());
    }
    if let Some(tls) = &place.tls {
        builder = builder.tls(tls.load()?);
    }
    builder
        .connect()
        .await
        .map_err(|error| not_connected(&error))
}

async fn launch(place: &Place) -> Result<(), Failure> {
    let mut program = Command::new(this_program());
    program.arg0("lmx");
    for name in ["LMX_HOST", "LMX_PORT", "LMX_UNIX", "use_uds"] {
        program.env_remove(name);
    }
    if let Some(token) = &place.auth_token {
        program.env("LMX_AUTH_TOKEN", OsStr::from_bytes(token));
    }
    program.args(["start", "--detached"]);
    match &place.endpoint {
        Endpoint::Tcp { host, port } => {
            program.args(["--host", host, "--port", &port.to_string()]);
        }
        Endpoint::Unix(path) => {
            program.args(["--no-tcp", "--unix"]).arg(path);
        }
    }
    match launch_detached(place.endpoint.clone(), program).await {
        Ok(_) => Ok(()),
        Err(error @ LaunchError::Elsewhere { .. }) => Err(Failure::usage(error.to_string())
            .hint("leave --launch out, and start the broker on its own machine")),
        Err(error) => Err(Failure::new(exit::UNREACHABLE, error.to_string())),
    }
}

/// What a failed connection means.
pub(super) fn not_connected(error: &ConnectError) -> Failure {
    let code = match error {
        ConnectError::Refused {
            kind: FaultKind::Unauthorized,
            ..
        } => exit::UNAUTHORIZED,
        // It speaks something else.
        ConnectError::Refused {
            kind: FaultKind::Magic | FaultKind::Malformed | FaultKind::FrameTooLong,
            ..
        } => {
            return Failure::new(exit::UNREACHABLE, error.to_string())
                .hint("what answers there may be no LMX broker, or one of another version");
        }
        ConnectError::Refused { .. } => exit::REFUSED,
        ConnectError::Thread(_) => exit::SYSTEM,
        _ => exit::UNREACHABLE,
    };
    let failure = Failure::new(code, error.to_string());
    match error {
        ConnectError::Unreachable { endpoint, cause }
            if endpoint.is_local() && cause.raw_os_error().is_some() =>
        {
            failure.hint("or let this command start it: --launch")
        }
        _ if code == exit::UNAUTHORIZED => {
            failure.hint("show it with --auth-token-file or LMX_AUTH_TOKEN")
        }
        _ => failure,
    }
}

/// What a failed question means.
pub(super) fn not_answered(error: &QueryError) -> Failure {
    match error {
        QueryError::Connect(error) => not_connected(error),
        QueryError::Refused(
            wire::QueryError::KeyTooLong { .. } | wire::QueryError::KeyEmpty { .. },
        ) => Failure::usage(error.to_string()),
        _ => Failure::new(exit::REFUSED, error.to_string()),
    }
}

/// What a lock that was not granted means.
pub(super) fn not_granted(error: &LockError, codes: Codes) -> Failure {
    let code = match error {
        LockError::Busy { .. } => codes.busy,
        LockError::TimedOut { .. } => codes.timed_out,
        LockError::Connect(error) => return codes.apply(not_connected(error)),
        LockError::Refused(
            AcquireError::Full { .. }
            | AcquireError::Deadlock { .. }
            | AcquireError::UnknownSession,
        ) => exit::REFUSED,
        LockError::Refused(_) | LockError::TooLarge { .. } => exit::USAGE,
        _ => exit::REFUSED,
    };
    let words = match error {
        LockError::Refused(AcquireError::LeaseTooLong { max }) => {
            format!("a lease lasts at most {}", Time(*max))
        }
        LockError::Refused(AcquireError::LockDelayTooLong { max }) => {
            format!("a lock-delay lasts at most {}", Time(*max))
        }
        _ => error.to_string(),
    };
    Failure::new(code, words)
}

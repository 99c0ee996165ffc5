//! `lmx start`: the broker's addresses and limits.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum, ValueHint};
use lmx_transports::broker::{DEFAULT_BUSY_POLL, default_config};

use super::{JsonArgs, parse};

/// `lmx start`.
#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub(crate) struct StartArgs {
    /// TCP port; 0 lets the system choose one [default: 6970, or LMX_PORT].
    #[arg(value_name = "PORT", value_parser = parse::port, conflicts_with_all = ["port_option", "no_tcp"])]
    pub(crate) port: Option<u16>,
    /// TCP port, as an option.
    #[arg(short, long = "port", id = "port_option", value_name = "PORT", value_parser = parse::port, conflicts_with = "no_tcp")]
    pub(crate) port_option: Option<u16>,
    /// Host name or address to listen on [default: 127.0.0.1, or LMX_HOST].
    #[arg(long, value_name = "HOST", conflicts_with = "no_tcp", value_hint = ValueHint::Hostname)]
    pub(crate) host: Option<String>,
    /// Unix socket to listen on as well [default: LMX_UNIX].
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) unix: Option<PathBuf>,
    /// Listen on live-mutex's Unix socket, $HOME/.lmx/uds.sock; on TCP only if a port is given.
    #[arg(long, conflicts_with = "unix")]
    pub(crate) use_uds: bool,
    /// Do not listen on TCP; needs --unix.
    #[arg(long)]
    pub(crate) no_tcp: bool,
    /// Permissions of the Unix socket, in octal; who may write may connect.
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = parse::mode)]
    pub(crate) unix_mode: u32,
    /// Listen on addresses that other machines can reach even though no authentication is set.
    #[arg(long)]
    pub(crate) allow_public: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// How much to log on standard error [default: info, or LMX_LOG].
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) log: Option<Level>,
    /// Where to keep the small file that a restart needs, one for each port, or for the socket
    /// of a broker without a port [default: lmx in the system's directory for state, mostly
    /// ~/.local/state/lmx].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "ephemeral")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Keep no state: a restart forgets tokens and holds, so that locks which clients still
    /// believe in can be granted to others.
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// File whose first line is the token that clients must show [default: LMX_AUTH_TOKEN].
    #[arg(long, visible_alias = "token-file", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) auth_token_file: Option<PathBuf>,
    /// Certificate to speak TLS with on TCP, a PEM file; SIGHUP reads it again.
    #[arg(long, value_name = "PATH", requires = "tls_key", conflicts_with = "no_tcp", value_hint = ValueHint::FilePath)]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, a PEM file.
    #[arg(long, value_name = "PATH", requires = "tls_cert", value_hint = ValueHint::FilePath)]
    pub(crate) tls_key: Option<PathBuf>,
    /// Let in over TCP only clients whose certificate one of those in this PEM file has signed.
    #[arg(long, value_name = "PATH", requires = "tls_cert", value_hint = ValueHint::FilePath)]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// How long to stay awake for the next message where the last ones came that soon; under
    /// such a load it keeps one processor busy. 0 sleeps at once.
    #[arg(long, value_name = "TIME", default_value_t = Time(DEFAULT_BUSY_POLL))]
    pub(crate) busy_poll: Time,
    /// In a session of its own, as a broker that `--launch` starts.
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

impl StartArgs {
    pub(super) const AFTER_HELP: &str = "\
When the broker is ready it prints one line that names every address it listens on; with
--json that line is {\"ready\":true,\"pid\":...,\"addresses\":[{\"tcp\":\"127.0.0.1:6970\"},...]}.
SIGTERM or SIGINT stops it cleanly, a second one at once. Under systemd it tells when it is
ready, and listens on the sockets it is handed if there are any. Times are written 500ms, 4s,
1m30s, or as a bare number of milliseconds.";
}

/// How much `lmx start` logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Nothing.
    Off,
    /// What broke.
    Error,
    /// And what looks wrong.
    Warn,
    /// And when it starts and stops.
    Info,
    /// And every connection.
    Debug,
    /// And everything.
    Trace,
}

/// What the broker allows.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Limits")]
#[expect(clippy::struct_field_names, reason = "the options' names")]
pub(crate) struct LimitArgs {
    /// Connections open at one time.
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, default_value_t = at_least_one(default_config().connections_max))]
    pub(crate) connections_max: NonZeroU32,
    /// Sessions open at one time.
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, default_value_t = at_least_one(default_config().table.sessions_max))]
    pub(crate) sessions_max: NonZeroU32,
    /// Keys that somebody holds or waits for, at one time.
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, default_value_t = at_least_one(default_config().table.keys_max))]
    pub(crate) keys_max: NonZeroU32,
    /// Requests waiting or held, at one time.
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, default_value_t = at_least_one(default_config().table.requests_max))]
    pub(crate) requests_max: NonZeroU32,
    /// Requests waiting or held, at one time, of one session.
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, default_value_t = at_least_one(default_config().table.requests_per_session_max))]
    pub(crate) requests_per_session_max: NonZeroU32,
    /// Keys in one request.
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, default_value_t = at_least_one(default_config().table.keys_per_request_max))]
    pub(crate) keys_per_request_max: NonZeroU32,
    /// Bytes in one key.
    #[arg(long, value_name = "BYTES", value_parser = parse::at_least_one, default_value_t = at_least_one(default_config().table.key_bytes_max))]
    pub(crate) key_bytes_max: NonZeroU32,
    /// Bytes in one label.
    #[arg(long, value_name = "BYTES", default_value_t = default_config().table.label_bytes_max)]
    pub(crate) label_bytes_max: u32,
    /// Bytes in one frame, or in one line of live-mutex's protocol.
    #[arg(long, value_name = "BYTES", value_parser = parse::at_least_one, default_value_t = at_least_one(default_config().frame_bytes_max))]
    pub(crate) frame_bytes_max: NonZeroU32,
    /// Bytes queued towards one peer before no more is read from it; twice as many end it.
    #[arg(long, value_name = "BYTES", value_parser = parse::at_least_one, default_value_t = at_least_one(default_config().output_bytes_max))]
    pub(crate) output_bytes_max: NonZeroU32,
    /// Longest lease that may be asked for.
    #[arg(long, value_name = "TIME", default_value_t = Time(default_config().table.lease_max))]
    pub(crate) lease_max: Time,
    /// Longest time that a session may outlive its connection.
    #[arg(long, value_name = "TIME", default_value_t = Time(default_config().table.resume_window_max))]
    pub(crate) resume_window_max: Time,
    /// Longest lock-delay that may be asked for.
    #[arg(long, value_name = "TIME", default_value_t = Time(default_config().table.lock_delay_max))]
    pub(crate) lock_delay_max: Time,
    /// A native connection that says nothing for so long is taken for lost.
    #[arg(long, value_name = "TIME", default_value_t = Time(default_config().idle_max))]
    pub(crate) idle_max: Time,
    /// A connection that has not said what it is after so long is closed.
    #[arg(long, value_name = "TIME", default_value_t = Time(default_config().handshake_max))]
    pub(crate) handshake_max: Time,
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// A length of time that prints as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = humantime::format_duration(self.0).to_string();
        f.write_str(&text.replace(' ', ""))
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse::duration(text).map(Self)
    }
}

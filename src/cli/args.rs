//! What was typed, before it means anything.
//!
//! The comments on fields and variants are the help texts, as they are printed.
#![expect(clippy::doc_markdown, reason = "help texts are not Markdown")]

mod bench;
mod lock;
mod parse;
mod start;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueHint};

pub(super) use bench::BenchArgs;
pub(super) use lock::{AcquireArgs, ExitArgs, LockArgs, OnLost, RunArgs};
pub(super) use parse::{MaybeForever, Permits};
pub(super) use start::{Level, LimitArgs, StartArgs, Time};

use super::exit;

/// A networked lock service: fair queues, leases, fencing tokens, clean disconnects.
///
/// Start a broker with `lmx start`, then hold a lock around a command with
/// `lmx run KEY -- COMMAND`, or take and give it by hand with `lmx acquire` and `lmx release`.
#[derive(Debug, Parser)]
#[command(
    name = "lmx",
    bin_name = "lmx",
    version,
    after_help = exit::HELP,
    max_term_width = 100,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = false
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a broker.
    #[command(visible_alias = "launch", after_help = StartArgs::AFTER_HELP)]
    Start(StartArgs),
    /// Take a lock that outlives this command, and print its id and token.
    #[command(after_help = AcquireArgs::AFTER_HELP)]
    Acquire(AcquireArgs),
    /// Give a lock back.
    Release(ReleaseArgs),
    /// Hold a lock while a command runs.
    #[command(after_help = RunArgs::AFTER_HELP)]
    Run(RunArgs),
    /// List the keys that somebody holds or waits for.
    #[command(visible_alias = "list")]
    Ls(QueryArgs),
    /// Show who holds a key and who waits for it; without a key, the broker's status.
    Inspect(InspectArgs),
    /// Show the broker's counters.
    Status(QueryArgs),
    /// Measure lock/unlock cycles against a broker.
    #[command(after_help = BenchArgs::AFTER_HELP)]
    Bench(BenchArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, of the command or of one subcommand.
    Man(ManArgs),
}

/// Where the broker is.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Where the broker is")]
pub(super) struct WhereArgs {
    /// Host name or address [default: localhost, or LMX_HOST].
    #[arg(long, value_name = "HOST", value_hint = ValueHint::Hostname)]
    pub(super) host: Option<String>,
    /// TCP port [default: 6970, or LMX_PORT].
    #[arg(short, long = "port", id = "port_option", value_name = "PORT", value_parser = parse::port)]
    pub(super) port: Option<u16>,
    /// Unix socket to connect to instead of TCP [default: LMX_UNIX].
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port_option"], value_hint = ValueHint::FilePath)]
    pub(super) unix: Option<PathBuf>,
    /// Use live-mutex's Unix socket, $HOME/.lmx/uds.sock.
    #[arg(long, conflicts_with_all = ["unix", "host", "port_option"])]
    pub(super) use_uds: bool,
    /// Use the broker that is there, or start one in the background, on this machine.
    #[arg(long)]
    pub(super) launch: bool,
    /// File whose first line is the authentication token [default: LMX_AUTH_TOKEN].
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(super) auth_token_file: Option<PathBuf>,
    /// Speak TLS, and trust brokers that a certificate in this PEM file has signed
    /// [default: LMX_TLS_CA].
    #[arg(long, value_name = "PATH", conflicts_with = "launch", value_hint = ValueHint::FilePath)]
    pub(super) tls_ca: Option<PathBuf>,
    /// Certificate to show to the broker, a PEM file [default: LMX_TLS_CERT].
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(super) tls_cert: Option<PathBuf>,
    /// The certificate's private key, a PEM file [default: LMX_TLS_KEY].
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(super) tls_key: Option<PathBuf>,
    /// Name to expect in the broker's certificate, if it is not the host's.
    #[arg(long, value_name = "NAME")]
    pub(super) tls_name: Option<String>,
}

/// How the answer is printed; live-mutex's option objects come the same way.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(super) struct JsonArgs {
    /// Print JSON. With an object, as live-mutex's commands take it, read options from
    /// it instead: --json '{"key":"foo","port":6970}'.
    #[arg(
        long,
        value_name = "OBJECT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        hide_default_value = true
    )]
    pub(super) json: Option<String>,
}

/// `lmx release`.
#[derive(Debug, ClapArgs)]
pub(super) struct ReleaseArgs {
    /// The key [default: live_mutex_key].
    #[arg(value_name = "KEY")]
    pub(super) key: Option<OsString>,
    /// The broker's TCP port.
    #[arg(value_name = "PORT", value_parser = parse::port, conflicts_with_all = ["port_option", "unix", "use_uds"])]
    pub(super) port: Option<u16>,
    /// Release only this request, as `lmx acquire` printed it, `lmx inspect` shows it, or its
    /// live-mutex client calls it; without it, whoever holds the key.
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    #[command(flatten)]
    pub(super) json: JsonArgs,
    #[command(flatten)]
    pub(super) at: WhereArgs,
}

/// `lmx ls` and `lmx status`.
#[derive(Debug, ClapArgs)]
pub(super) struct QueryArgs {
    /// The broker's TCP port.
    #[arg(value_name = "PORT", value_parser = parse::port, conflicts_with_all = ["port_option", "unix", "use_uds"])]
    pub(super) port: Option<u16>,
    #[command(flatten)]
    pub(super) json: JsonArgs,
    #[command(flatten)]
    pub(super) at: WhereArgs,
}

/// `lmx inspect`.
#[derive(Debug, ClapArgs)]
pub(super) struct InspectArgs {
    /// The key.
    #[arg(value_name = "KEY")]
    pub(super) key: Option<OsString>,
    /// The broker's TCP port.
    #[arg(value_name = "PORT", value_parser = parse::port, conflicts_with_all = ["port_option", "unix", "use_uds"])]
    pub(super) port: Option<u16>,
    #[command(flatten)]
    pub(super) json: JsonArgs,
    #[command(flatten)]
    pub(super) at: WhereArgs,
}

/// Ask a broker questions, one on each line of standard input; `help` lists them.
#[derive(Debug, Parser)]
#[command(name = "lmx_inspect_broker", version, max_term_width = 100)]
pub(super) struct InspectBrokerArgs {
    /// The broker's TCP port.
    #[arg(value_name = "PORT", value_parser = parse::port, conflicts_with_all = ["port_option", "unix", "use_uds"])]
    pub(super) port: Option<u16>,
    /// The broker's host.
    #[arg(value_name = "HOST", id = "host_positional", conflicts_with_all = ["host", "unix", "use_uds"])]
    pub(super) host: Option<String>,
    #[command(flatten)]
    pub(super) json: JsonArgs,
    #[command(flatten)]
    pub(super) at: WhereArgs,
}

/// `lmx completions`.
#[derive(Debug, ClapArgs)]
pub(super) struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

/// `lmx man`.
#[derive(Debug, ClapArgs)]
pub(super) struct ManArgs {
    /// The page of this subcommand; without it, of `lmx` itself.
    #[arg(value_name = "SUBCOMMAND")]
    pub(super) subcommand: Option<String>,
    /// Write every page into this directory instead.
    #[arg(long, value_name = "DIR", conflicts_with = "subcommand", value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Args;

    #[test]
    fn the_definitions_agree_with_each_other() {
        Args::command().debug_assert();
    }
}

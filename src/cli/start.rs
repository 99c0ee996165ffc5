//! `lmx start`: a broker in the foreground.

use std::path::PathBuf;

use async_signal::{Signal, Signals};
use listenfd::ListenFd;
use lmx_core::TableConfig;
use lmx_core::broker::BrokerConfig;
use lmx_transports::broker::{BindError, default_config};
use lmx_transports::net::{self, Address, ListenError};
use lmx_transports::state::StatePlace;
use lmx_transports::tls::{Identity, TlsServer};
use lmx_transports::{Broker, BrokerBuilder};
use sd_notify::NotifyState;
use serde_json::{Value, json};
use smol::stream::StreamExt as _;

use super::Outcome;
use super::args::{Level, LimitArgs, StartArgs};
use super::compat::OptionObject;
use super::descriptors;
use super::exit::{self, Failure};
use super::mean::{self, Environment, environment};
use super::print::{print, shown};
use super::signals;

const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 6970;

/// `lmx start`.
pub(super) fn start(typed: StartArgs) -> Outcome {
    if typed.detached {
        // Fails only for the leader of a group, who is detached enough.
        let _ = nix::unistd::setsid();
    }
    log_to_stderr(level(typed.log, &environment)?);
    match net::raise_descriptor_limit() {
        Ok(limit) => {
            let connections_max = typed.limits.connections_max.get();
            if let Some(words) = descriptors::shortage(limit, connections_max) {
                tracing::warn!("{words}");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open descriptors"),
    }
    descriptors::check(descriptors::OF_START)?;
    signals::let_long_files_fail()?;
    let json = typed.json.json.as_deref() == Some("");
    let tls = tls_of(&typed)?;
    let mut builder = configured(typed, &environment)?;
    if let Some(tls) = &tls {
        builder = builder.tls(tls.clone());
    }
    smol::block_on(serve(builder, json, tls))
}

fn tls_of(typed: &StartArgs) -> Result<Option<TlsServer>, Failure> {
    let (Some(certificate), Some(key)) = (&typed.tls_cert, &typed.tls_key) else {
        return Ok(None);
    };
    let identity = Identity {
        certificate: certificate.clone(),
        key: key.clone(),
    };
    TlsServer::new(identity, typed.tls_client_ca.clone())
        .map(Some)
        .map_err(|error| Failure::new(exit::USAGE, error.to_string()))
}

/// Reads the certificates again whenever that is asked for.
async fn reload(mut asked: Signals, tls: Option<TlsServer>) -> ! {
    while asked.next().await.is_some() {
        match tls.as_ref().map(TlsServer::reload) {
            Some(Ok(())) => tracing::info!("the certificates were read again"),
            Some(Err(error)) => tracing::error!(%error, "the old certificates stay in use"),
            None => tracing::info!("SIGHUP: there are no certificates to read again; going on"),
        }
    }
    smol::future::pending().await
}

async fn serve(builder: BrokerBuilder, json: bool, tls: Option<TlsServer>) -> Outcome {
    let mut signals = Signals::new([Signal::Term, Signal::Int]).map_err(|error| {
        Failure::new(exit::SYSTEM, format!("cannot listen for signals: {error}"))
    })?;
    let asked = Signals::new([Signal::Hup]).map_err(|error| {
        Failure::new(exit::SYSTEM, format!("cannot listen for signals: {error}"))
    })?;
    let broker = builder.bind().await.map_err(|error| not_bound(&error))?;
    print(ready_line(broker.addresses(), json))?;
    // Nothing happens unless a supervisor asked to be told.
    tell_supervisor(NotifyState::Ready);

    let stopped = async {
        signals.next().await;
        Ok(true)
    };
    let ended = async { broker.ended().await.map(|()| false) };
    let reloading = async { match reload(asked, tls).await {} };
    match smol::future::or(smol::future::or(stopped, ended), reloading).await {
        Ok(true) => {}
        Ok(false) => return Ok(exit::DONE),
        Err(error) => return Err(Failure::new(exit::REFUSED, error.to_string())),
    }
    tell_supervisor(NotifyState::Stopping);
    tracing::info!("stopping; a second signal stops at once");
    let at_once = async {
        let signal = signals.next().await.and_then(Result::ok);
        Ok(signal.map(|signal| exit::SIGNAL_BASE + signal as u8))
    };
    let cleanly = async { broker.stop().await.map(|()| None) };
    match smol::future::or(at_once, cleanly).await {
        Ok(code) => Ok(code.unwrap_or(exit::DONE)),
        Err(error) => Err(Failure::new(exit::REFUSED, error.to_string())),
    }
}

fn tell_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the supervisor");
    }
}

/// Takes the sockets that a supervisor hands over; whether there were any.
fn inherit(mut builder: BrokerBuilder) -> Result<(BrokerBuilder, bool), Failure> {
    let mut handed = ListenFd::from_env();
    for position in 0..handed.len() {
        let unusable = |error| {
            Failure::new(
                exit::SYSTEM,
                format!(
                    "socket {position} that was handed over (LISTEN_FDS) is neither a listening \
                     TCP nor a Unix socket: {error}"
                ),
            )
        };
        if let Ok(Some(tcp)) = handed.take_tcp_listener(position) {
            builder = builder.listener(tcp);
        } else if let Some(unix) = handed.take_unix_listener(position).map_err(unusable)? {
            builder = builder.unix_listener(unix);
        }
    }
    Ok((builder, handed.len() > 0))
}

fn configured(typed: StartArgs, environment: Environment<'_>) -> Result<BrokerBuilder, Failure> {
    let object = OptionObject::parse(typed.json.json.as_deref().unwrap_or_default())?;
    if let Some(words) = object.unmet() {
        tracing::warn!("{words}");
    }
    let mut builder = Broker::builder()
        .config(limits(&typed.limits))
        .unix_mode(typed.unix_mode)
        .busy_poll(typed.busy_poll.0)
        .allow_public(typed.allow_public);
    if typed.ephemeral {
        builder = builder.state(StatePlace::Ephemeral);
    } else if let Some(directory) = &typed.state_dir {
        builder = builder.state(StatePlace::Directory(directory.clone()));
    }
    if let Some(token) = mean::auth_token(typed.auth_token_file.as_deref(), environment)? {
        builder = builder.auth_token(token);
    }

    let (mut builder, is_handed) = inherit(builder)?;

    let by_env = environment("use_uds").is_some_and(|value| value == "yes");
    let uds_of_live_mutex = typed.use_uds || (by_env && typed.unix.is_none());
    let unix: Option<PathBuf> = match (typed.unix, &object.uds_path) {
        (Some(path), _) => Some(path),
        (None, Some(path)) => Some(path.clone()),
        (None, None) if uds_of_live_mutex => {
            Some(own_folder(mean::uds_of_live_mutex(environment)?)?)
        }
        (None, None) => environment("LMX_UNIX").map(PathBuf::from),
    };
    let port = typed.port.or(typed.port_option).or(object.port);
    let host = typed.host.or_else(|| object.host.clone());
    // live-mutex listens on one or the other.
    let by_live_mutex = uds_of_live_mutex || object.uds_path.is_some();
    let is_default = !by_live_mutex && !is_handed;
    let tcp = !typed.no_tcp && (is_default || port.is_some() || host.is_some());

    if let Some(path) = &unix {
        builder = builder.unix(path);
    } else if !tcp && !is_handed {
        return Err(Failure::usage("--no-tcp leaves nothing to listen on")
            .hint("name a Unix socket with --unix PATH"));
    }
    if tcp {
        let host = match host {
            Some(host) => host,
            None => mean::host_of(environment)?.unwrap_or_else(|| DEFAULT_HOST.to_owned()),
        };
        let port = match port {
            Some(port) => port,
            None => mean::port_of(environment)?.unwrap_or(DEFAULT_PORT),
        };
        builder = builder.tcp(host, port);
    }
    Ok(builder)
}

/// Makes the folder that live-mutex's socket lies in.
fn own_folder(socket: PathBuf) -> Result<PathBuf, Failure> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::new(
                exit::SYSTEM,
                format!("cannot make the directory {}: {error}", folder.display()),
            )
        })?;
    }
    Ok(socket)
}

fn limits(typed: &LimitArgs) -> BrokerConfig {
    let mut config = default_config();
    config.connections_max = typed.connections_max.get();
    config.frame_bytes_max = typed.frame_bytes_max.get();
    config.output_bytes_max = typed.output_bytes_max.get();
    config.idle_max = typed.idle_max.0;
    config.handshake_max = typed.handshake_max.0;
    config.table.sessions_max = typed.sessions_max.get();
    config.table.keys_max = typed.keys_max.get();
    config.table.requests_max = typed.requests_max.get();
    config.table.requests_per_session_max = typed.requests_per_session_max.get();
    config.table.keys_per_request_max = typed.keys_per_request_max.get();
    config.table.key_bytes_max = typed.key_bytes_max.get();
    config.table.label_bytes_max = typed.label_bytes_max;
    config.table.lease_max = typed.lease_max.0;
    config.table.resume_window_max = typed.resume_window_max.0;
    config.table.lock_delay_max = typed.lock_delay_max.0;
    // What has no option of its own must not stand in the way of those that have.
    let table = &mut config.table;
    let many = |limit: u32, each: u32| limit.saturating_mul(each).min(TableConfig::SLOTS_MAX);
    table.claims_max = table.claims_max.max(many(table.requests_max, 2));
    table.pieces_max = table.pieces_max.max(many(table.keys_max, 4));
    config
}

fn not_bound(error: &BindError) -> Failure {
    let failure = Failure::new(exit::SYSTEM, error.to_string());
    match error {
        BindError::Listen(ListenError::InUse {
            address: Address::Tcp(address),
        }) => failure.with_code(exit::UNREACHABLE).hint(format!(
            "use the broker that is there (lmx status {}), or choose a port: lmx start PORT",
            address.port()
        )),
        BindError::Listen(ListenError::InUse {
            address: Address::Unix(path),
        }) => failure.with_code(exit::UNREACHABLE).hint(format!(
            "use the broker that is there (lmx status --unix {}), or choose another path",
            path.display()
        )),
        BindError::Listen(ListenError::Public { .. })
        | BindError::NoAddress
        | BindError::Config(_) => failure.with_code(exit::USAGE),
        _ => failure,
    }
}

/// What is printed once the broker is ready.
fn ready_line(addresses: &[Address], json: bool) -> String {
    if json {
        let addresses: Vec<Value> = addresses
            .iter()
            .map(|address| match address {
                Address::Tcp(address) => json!({ "tcp": address.to_string() }),
                Address::Unix(path) => json!({ "unix": path.to_string_lossy() }),
            })
            .collect();
        let ready = json!({ "ready": true, "pid": std::process::id(), "addresses": addresses });
        return format!("{ready}\n");
    }
    let shown: Vec<String> = addresses.iter().map(Address::to_string).collect();
    format!("lmx is ready on {}\n", shown.join(" and "))
}

/// The level that was typed, or the environment's.
fn level(typed: Option<Level>, environment: Environment<'_>) -> Result<Level, Failure> {
    use clap::ValueEnum as _;

    if let Some(level) = typed {
        return Ok(level);
    }
    let Some(value) = environment("LMX_LOG") else {
        return Ok(Level::Info);
    };
    value
        .to_str()
        .and_then(|text| Level::from_str(text, true).ok())
        .ok_or_else(|| {
            Failure::usage(format!(
                "the environment variable LMX_LOG has the unusable value {}",
                shown(value.as_encoded_bytes())
            ))
            .hint("it is one of off, error, warn, info, debug, trace")
        })
}

fn log_to_stderr(level: Level) {
    let level = match level {
        Level::Off => return,
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_max_level(level)
        // It would say so with `eprintln!`, which panics where the log cannot be written.
        .log_internal_errors(false)
        .init();
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Args, Command};

    fn table(options: &[&str]) -> TableConfig {
        let typed = ["lmx", "start"].iter().chain(options);
        let Command::Start(typed) = Args::parse_from(typed).command else {
            unreachable!("it was typed")
        };
        limits(&typed.limits).table
    }

    #[test]
    fn limits_without_options_stand_in_nobodys_way() {
        assert_eq!(table(&[]), default_config().table);
        let fewer = table(&["--requests-max", "10", "--keys-max", "10"]);
        assert_eq!(fewer.claims_max, default_config().table.claims_max);
        let more = table(&["--requests-max", "9000000", "--keys-max", "8000000"]);
        assert_eq!((more.claims_max, more.pieces_max), (18_000_000, 32_000_000));
        let most = TableConfig::SLOTS_MAX.to_string();
        let most = table(&["--requests-max", &most, "--keys-max", &most]);
        assert_eq!(most.check(), Ok(()));
    }
}

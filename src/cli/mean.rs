//! What the arguments mean, together with the environment and option objects.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lmx_core::{Mode, Wait};
use lmx_transports::tls::{Identity, TlsClient, TlsError};
use lmx_transports::{DEFAULT_HOST, DEFAULT_PORT, Endpoint};

use super::args::{ExitArgs, LockArgs, MaybeForever, Permits, WhereArgs};
use super::compat::{KeyText, OptionObject};
use super::exit::{self, Failure};
use super::print::shown;

/// Reads the environment; a function, so that tests can bring their own.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process. A variable that is empty is one that is not set.
pub(super) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A broker to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where it is.
    pub(super) endpoint: Endpoint,
    /// What it wants to be shown.
    pub(super) auth_token: Option<Vec<u8>>,
    /// Whether to start one if there is none.
    pub(super) launch: bool,
    /// How TLS is spoken with it, if it is.
    pub(super) tls: Option<TlsFiles>,
}

/// The files that TLS needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// Who signs brokers.
    authority: PathBuf,
    /// What the broker is shown: a certificate and its key.
    identity: Option<(PathBuf, PathBuf)>,
    /// Who the broker must be.
    name: Option<String>,
}

impl TlsFiles {
    fn new(typed: &WhereArgs, environment: Environment<'_>) -> Result<Option<Self>, Failure> {
        let path = |typed: &Option<PathBuf>, name| {
            typed
                .clone()
                .or_else(|| environment(name).map(PathBuf::from))
        };
        let certificate = path(&typed.tls_cert, "LMX_TLS_CERT");
        let key = path(&typed.tls_key, "LMX_TLS_KEY");
        let Some(authority) = path(&typed.tls_ca, "LMX_TLS_CA") else {
            if typed.tls_cert.is_some() || typed.tls_key.is_some() || typed.tls_name.is_some() {
                return Err(Failure::usage("TLS needs to know whom to trust")
                    .hint("name the authority's certificate with --tls-ca PATH"));
            }
            return Ok(None);
        };
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(Failure::usage("a certificate and its key go together")
                    .hint("name both, with --tls-cert PATH and --tls-key PATH"));
            }
        };
        Ok(Some(Self {
            authority,
            identity,
            name: typed.tls_name.clone(),
        }))
    }

    /// As they are typed.
    pub(super) fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--tls-ca".into(), self.authority.clone().into()];
        if let Some((certificate, key)) = &self.identity {
            args.extend(["--tls-cert".into(), certificate.clone().into()]);
            args.extend(["--tls-key".into(), key.clone().into()]);
        }
        if let Some(name) = &self.name {
            args.extend(["--tls-name".into(), name.into()]);
        }
        args
    }

    /// Reads the files.
    pub(super) fn load(&self) -> Result<TlsClient, Failure> {
        let unusable = |error: TlsError| Failure::new(exit::USAGE, error.to_string());
        let identity = self
            .identity
            .clone()
            .map(|(certificate, key)| Identity { certificate, key });
        let client = TlsClient::new(&self.authority, identity.as_ref()).map_err(unusable)?;
        match &self.name {
            Some(name) => client.server_name(name).map_err(unusable),
            None => Ok(client),
        }
    }
}

impl Place {
    /// The place that was typed; else that of the option object; else that of the
    /// environment; else the default.
    pub(super) fn new(
        typed: WhereArgs,
        port: Option<u16>,
        object: &OptionObject,
        environment: Environment<'_>,
    ) -> Result<Self, Failure> {
        let auth_token = auth_token(typed.auth_token_file.as_deref(), environment)?;
        let launch = typed.launch;
        let tls = TlsFiles::new(&typed, environment)?;
        let endpoint = Self::endpoint(typed, port, object, environment)?;
        Ok(Self {
            // The permissions of a Unix socket's file are its guard.
            tls: tls.filter(|_| matches!(endpoint, Endpoint::Tcp { .. })),
            endpoint,
            auth_token,
            launch,
        })
    }

    fn endpoint(
        typed: WhereArgs,
        port: Option<u16>,
        object: &OptionObject,
        environment: Environment<'_>,
    ) -> Result<Endpoint, Failure> {
        let typed_port = port.or(typed.port);
        let typed_tcp = typed.host.is_some() || typed_port.is_some();
        let object_tcp = object.host.is_some() || object.port.is_some();
        if typed.use_uds {
            return uds_of_live_mutex(environment).map(Endpoint::Unix);
        }
        if let Some(path) = typed.unix {
            return Ok(Endpoint::Unix(path));
        }
        if !typed_tcp {
            if let Some(path) = &object.uds_path {
                return Ok(Endpoint::Unix(path.clone()));
            }
            if !object_tcp {
                if let Some(path) = environment("LMX_UNIX") {
                    return Ok(Endpoint::Unix(path.into()));
                }
                if environment("use_uds").is_some_and(|value| value == "yes") {
                    return uds_of_live_mutex(environment).map(Endpoint::Unix);
                }
            }
        }
        let host = match typed.host.or_else(|| object.host.clone()) {
            Some(host) => host,
            None => host_of(environment)?.unwrap_or_else(|| DEFAULT_HOST.to_owned()),
        };
        let port = match typed_port.or(object.port) {
            Some(port) => port,
            None => port_of(environment)?.unwrap_or(DEFAULT_PORT),
        };
        if port == 0 {
            return Err(Failure::usage("port 0 is only for `lmx start`")
                .hint("name the port that the broker printed when it was ready"));
        }
        Ok(Endpoint::Tcp { host, port })
    }
}

/// Where live-mutex keeps its Unix socket.
pub(super) fn uds_of_live_mutex(environment: Environment<'_>) -> Result<PathBuf, Failure> {
    match environment("HOME") {
        Some(home) => Ok(Path::new(&home).join(".lmx").join("uds.sock")),
        None => Err(
            Failure::usage("--use-uds needs the environment variable HOME")
                .hint("name the socket with --unix PATH instead"),
        ),
    }
}

/// The host that the environment names.
pub(super) fn host_of(environment: Environment<'_>) -> Result<Option<String>, Failure> {
    first_of(environment, ["LMX_HOST", "live_mutex_host"], |text| {
        text.to_str().map(str::to_owned)
    })
}

/// The port that the environment names.
pub(super) fn port_of(environment: Environment<'_>) -> Result<Option<u16>, Failure> {
    first_of(environment, ["LMX_PORT", "live_mutex_port"], |text| {
        text.to_str().and_then(|text| text.parse().ok())
    })
}

fn first_of<T>(
    environment: Environment<'_>,
    names: [&str; 2],
    parse: impl Fn(&OsStr) -> Option<T>,
) -> Result<Option<T>, Failure> {
    for name in names {
        if let Some(value) = environment(name) {
            return match parse(&value) {
                Some(parsed) => Ok(Some(parsed)),
                None => Err(Failure::usage(format!(
                    "the environment variable {name} has the unusable value {}",
                    shown(value.as_encoded_bytes())
                ))
                .hint("a host is text, and a port is a number from 0 to 65535")),
            };
        }
    }
    Ok(None)
}

/// The authentication token: the first line of a file, or the environment's.
pub(super) fn auth_token(
    file: Option<&Path>,
    environment: Environment<'_>,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(path) = file else {
        return Ok(environment("LMX_AUTH_TOKEN").map(OsString::into_vec));
    };
    let text = std::fs::read(path).map_err(|error| {
        Failure::usage(format!(
            "cannot read the authentication token in {}: {error}",
            path.display()
        ))
    })?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let token = line.strip_suffix(b"\r").unwrap_or(line);
    if token.is_empty() {
        return Err(Failure::usage(format!(
            "the first line of {} is empty; it shall be the authentication token",
            path.display()
        )));
    }
    Ok(Some(token.to_vec()))
}

/// The key that was typed; else that of the option object; else that of the environment.
pub(super) fn key(
    typed: Option<OsString>,
    object: &mut OptionObject,
    environment: Environment<'_>,
) -> Result<Vec<u8>, Failure> {
    let key = typed
        .map(OsString::into_vec)
        .or_else(|| object.key.take().map(KeyText::into_bytes))
        .or_else(|| environment("live_mutex_key").map(OsString::into_vec));
    match key {
        Some(key) => not_empty(key),
        None => Err(Failure::usage("no key was named").hint(
            r#"name it as the first argument, as {"key":...} after --json, or in live_mutex_key"#,
        )),
    }
}

/// A key is any bytes but none.
pub(super) fn not_empty(key: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if key.is_empty() {
        return Err(Failure::usage("the key is empty").hint("a key has at least one byte"));
    }
    Ok(key)
}

/// A lock to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The keys, the first one first.
    pub(super) keys: Vec<Vec<u8>>,
    /// How all of them are to be held.
    pub(super) mode: Mode,
    /// How long it may wait.
    pub(super) wait: Wait,
    /// Who and why.
    pub(super) label: Vec<u8>,
    /// On whose behalf.
    pub(super) owner: Option<std::num::NonZeroU32>,
    /// Delay after expiry or disconnect.
    pub(super) lock_delay: Duration,
}

impl Asked {
    /// What `typed` asks for on `key`, with `wait` where nothing is said about waiting.
    pub(super) fn new(
        key: Vec<u8>,
        typed: LockArgs,
        object: &OptionObject,
        wait: Wait,
    ) -> Result<Self, Failure> {
        let mut keys = vec![key];
        for also in typed.also {
            keys.push(not_empty(also.into_vec())?);
        }
        let mode = match (typed.semaphore, object.max) {
            _ if typed.shared => Mode::Shared,
            (Some(Permits { capacity, permits }), _) => Mode::Semaphore {
                capacity: capacity.get(),
                permits: permits.get(),
            },
            (None, Some(capacity)) => Mode::Semaphore {
                capacity,
                permits: 1,
            },
            (None, None) => Mode::Exclusive,
        };
        let wait = match typed.wait {
            _ if typed.try_now => Wait::No,
            Some(MaybeForever::For(Duration::ZERO)) => Wait::No,
            Some(MaybeForever::Forever) => Wait::Forever,
            Some(MaybeForever::For(time)) => Wait::For(time),
            None => object.wait().map_or(wait, Wait::For),
        };
        Ok(Self {
            keys,
            mode,
            wait,
            label: typed.label.map(OsString::into_vec).unwrap_or_default(),
            owner: typed.owner,
            lock_delay: typed.lock_delay.unwrap_or_default(),
        })
    }
}

/// With what codes to exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Codes {
    /// `--try` found it held.
    pub(super) busy: u8,
    /// It did not come in time.
    pub(super) timed_out: u8,
    /// No broker could be reached.
    pub(super) unreachable: u8,
}

impl Codes {
    /// `failure`, with the code that was asked for if no broker could be reached.
    pub(super) fn apply(self, failure: Failure) -> Failure {
        match failure.code() {
            exit::UNREACHABLE => failure.with_code(self.unreachable),
            _ => failure,
        }
    }
}

impl From<ExitArgs> for Codes {
    fn from(typed: ExitArgs) -> Self {
        let conflict = typed.conflict_exit_code;
        Self {
            busy: typed.exit_busy.or(conflict).unwrap_or(exit::BUSY),
            timed_out: typed.exit_timeout.or(conflict).unwrap_or(exit::TIMED_OUT),
            unreachable: typed.exit_unreachable.unwrap_or(exit::UNREACHABLE),
        }
    }
}

impl Default for Codes {
    fn default() -> Self {
        ExitArgs::default().into()
    }
}

#[cfg(test)]
mod tests;

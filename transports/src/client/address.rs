//! Where a broker is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of a broker that was given no other.
pub const DEFAULT_PORT: u16 = 6970;

/// The host of a broker that was given no other.
pub const DEFAULT_HOST: &str = "localhost";

/// The address of a broker.
///
/// As text: `host:port`, `host`, `:port`, `[ipv6]:port`, or `unix:PATH`; a path that
/// begins with `/` or `.` needs no `unix:`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP port of a host.
    Tcp {
        /// A name or an IP address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Default for Address {
    fn default() -> Self {
        Self::Tcp {
            host: DEFAULT_HOST.to_owned(),
            port: DEFAULT_PORT,
        }
    }
}

impl Address {
    /// The command that starts a broker there.
    pub(crate) fn start_command(&self) -> String {
        match self {
            Self::Tcp { port, .. } if *port == DEFAULT_PORT => "lmx start".to_owned(),
            Self::Tcp { port, .. } => format!("lmx start {port}"),
            Self::Unix(path) => format!("lmx start --unix {}", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Text that is no address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address of a broker; write HOST:PORT, HOST, :PORT or unix:PATH")]
pub struct AddressError {
    text: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError {
            text: text.to_owned(),
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(error()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        if text.starts_with(['/', '.']) {
            return Ok(Self::Unix(text.into()));
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(error)?;
            match rest {
                "" => (host, None),
                rest => (host, Some(rest.strip_prefix(':').ok_or_else(error)?)),
            }
        } else {
            match text.split_once(':') {
                Some((_, rest)) if rest.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| error())?,
            None => DEFAULT_PORT,
        };
        let host = match host {
            "" if text.starts_with(':') => DEFAULT_HOST,
            "" => return Err(error()),
            host => host,
        };
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, address) in [
            ("localhost:7000", tcp("localhost", 7000)),
            ("example.org", tcp("example.org", 6970)),
            (":7000", tcp("localhost", 7000)),
            ("10.0.0.1:1", tcp("10.0.0.1", 1)),
            ("[::1]:7000", tcp("::1", 7000)),
            ("[::1]", tcp("::1", 6970)),
            ("::1", tcp("::1", 6970)),
            ("unix:lmx.sock", Address::Unix("lmx.sock".into())),
            ("/run/lmx.sock", Address::Unix("/run/lmx.sock".into())),
            ("./lmx.sock", Address::Unix("./lmx.sock".into())),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be() {
        for text in [
            "",
            "host:",
            "host:70000",
            "host:port",
            "unix:",
            "[::1",
            "[::1]x",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn the_command_that_starts_a_broker_names_what_is_not_default() {
        assert_eq!(Address::default().start_command(), "lmx start");
        assert_eq!(tcp("localhost", 7).start_command(), "lmx start 7");
        assert_eq!(
            Address::Unix("/a".into()).start_command(),
            "lmx start --unix /a"
        );
    }
}

//! Endpoints as people write them.

use std::net::IpAddr;
use std::str::FromStr;

use super::Endpoint;

/// The port of a broker that was given no other.
pub const DEFAULT_PORT: u16 = 6970;

/// The host of a broker that was given no other.
pub const DEFAULT_HOST: &str = "localhost";

impl Default for Endpoint {
    /// `localhost:6970`.
    fn default() -> Self {
        Self::tcp(DEFAULT_HOST, DEFAULT_PORT)
    }
}

impl Endpoint {
    /// Whether it is written as an address that only this machine has: a Unix socket,
    /// `localhost`, or a loopback address.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
                host.eq_ignore_ascii_case(DEFAULT_HOST) || host.parse().is_ok_and(is_loopback)
            }
            Self::Unix(_) => true,
        }
    }

    /// The command that starts a broker there, if that is here.
    pub(crate) fn start_command(&self) -> Option<String> {
        self.is_local().then(|| match self {
            Self::Tcp { port, .. } if *port == DEFAULT_PORT => "lmx start".to_owned(),
            Self::Tcp { port, .. } => format!("lmx start {port}"),
            Self::Unix(path) => format!("lmx start --unix {}", path.display()),
        })
    }
}

/// Text that is no address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address of a broker; write HOST:PORT, HOST, :PORT or unix:PATH")]
pub struct EndpointError {
    text: String,
}

/// As text: `host:port`, `host`, `:port`, `[ipv6]:port`, or `unix:PATH`; a path that begins
/// with `/` or `.` needs no `unix:`.
impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = || EndpointError {
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

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::tcp(host, port)
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
            ("unix:lmx.sock", Endpoint::Unix("lmx.sock".into())),
            ("/run/lmx.sock", Endpoint::Unix("/run/lmx.sock".into())),
            ("./lmx.sock", Endpoint::Unix("./lmx.sock".into())),
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
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn the_command_that_starts_a_broker_names_what_is_not_default() {
        for (endpoint, command) in [
            (Endpoint::default(), Some("lmx start")),
            (tcp("localhost", 7), Some("lmx start 7")),
            (tcp("127.0.0.2", 7), Some("lmx start 7")),
            (tcp("::1", 7), Some("lmx start 7")),
            (Endpoint::Unix("/a".into()), Some("lmx start --unix /a")),
            (tcp("localhost.example.org", 7), None),
            (tcp("192.0.2.1", 7), None),
            (tcp("2001:db8::1", 7), None),
        ] {
            assert_eq!(endpoint.start_command().as_deref(), command, "{endpoint}");
        }
    }
}

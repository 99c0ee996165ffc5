//! Addresses, and the sockets that listen on them.

mod endpoint;
mod lock;
mod unix;

pub use endpoint::{DEFAULT_HOST, DEFAULT_PORT, EndpointError};
pub(crate) use lock::PathLock;
pub(crate) use unix::{UnixClaim, UnixListening, listen_unix};

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;
/// How long a broker may take to answer when it is looked for.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where a broker is looked for, or is to listen: an [`Address`] not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A TCP port of every address of a host.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// A TCP port of a host.
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp {
            host: host.into(),
            port,
        }
    }

    /// A Unix socket.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into())
    }
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        match address {
            Address::Tcp(address) => Self::tcp(address.ip().to_string(), address.port()),
            Address::Unix(path) => Self::Unix(path),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a broker does not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The host has no address.
    #[error("cannot find the address of host {host:?}: {source}")]
    Resolve {
        /// The host.
        host: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody listens there already.
    #[error("address {address} is in use: another process listens there")]
    InUse {
        /// The address.
        address: Address,
    },
    /// Everybody could reach it, and nobody would have to say who they are.
    #[error(
        "refusing to listen on {address}, which other machines can reach, without authentication: \
         set an authentication token or require client certificates, or allow it explicitly \
         (--allow-public)"
    )]
    Public {
        /// The address.
        address: SocketAddr,
    },
    /// Something that is not a socket stands in the way.
    #[error("{} exists and is not a socket; remove it or choose another path", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen on {address}: {source}")]
    Refused {
        /// The address.
        address: Address,
        /// The system's answer.
        source: io::Error,
    },
}

impl ListenError {
    fn new(address: Address, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            Self::InUse { address }
        } else {
            Self::Refused { address, source }
        }
    }
}

/// Fails if a socket that was handed over does not listen, as a connection that `inetd` or systemd
/// (with `Accept=yes`) hands over. Each attempt to accept one from it would fail at once.
pub(crate) fn check_listens(socket: &impl AsFd) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    if !SockRef::from(socket).is_listener()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a socket that was handed over does not listen; of systemd's it needs those with \
             Accept=no",
        ));
    }
    let _ = socket;
    Ok(())
}

/// Lets this process open as many descriptors as it may ask for: each connection is one,
/// and the usual limit is low for the sake of programs that are not servers. Returns how many
/// that are.
///
/// # Errors
///
/// When the system refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit.current.unwrap_or(u64::MAX))
}

/// How many descriptors this process may open.
pub(crate) fn descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit};

    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Every address of `host`; blocks while the resolver does.
pub(crate) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ListenError> {
    let resolved = (host, port).to_socket_addrs().and_then(|found| {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has none"));
        }
        Ok(addresses)
    });
    resolved.map_err(|source| ListenError::Resolve {
        host: host.to_owned(),
        source,
    })
}

/// Listens on every one of `addresses` that this machine has; at least on one.
/// With port 0, all get the port that the kernel chose for the first.
pub(crate) fn listen_tcp_any(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut absent = None;
    for &address in addresses {
        let mut address = address;
        if address.port() == 0
            && let Some(first) = listeners.first().and_then(|first| first.local_addr().ok())
        {
            address.set_port(first.port());
        }
        match listen_tcp(address) {
            Ok(listener) => listeners.push(listener),
            // `localhost` names ::1 on machines that have no IPv6, too.
            Err(error) if is_absent(&error) => absent = Some((address, error)),
            Err(error) => return Err(ListenError::new(Address::Tcp(address), error)),
        }
    }
    match absent {
        Some((address, error)) if listeners.is_empty() => {
            Err(ListenError::new(Address::Tcp(address), error))
        }
        _ => Ok(listeners),
    }
}

/// Whether a broker of this machine can listen at `endpoint`; blocks while the resolver does.
pub(crate) fn is_here(endpoint: &Endpoint) -> Result<bool, ListenError> {
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let addresses = resolve(host, *port)?;
            Ok(addresses.iter().any(|address| is_own(address.ip())))
        }
        Endpoint::Unix(_) => Ok(true),
    }
}

/// Whether this machine has that address, as far as the system tells.
fn is_own(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        Err(error) => !is_absent(&error),
    }
}

/// Whether anybody listens at `endpoint`, and where; blocks until it is known.
pub(crate) fn probe(endpoint: &Endpoint) -> Option<Address> {
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let answers = |address: &SocketAddr| {
                let stream = TcpStream::connect_timeout(address, PROBE_TIMEOUT);
                stream.is_ok_and(|stream| !is_to_itself(&stream, *address))
            };
            let found = resolve(host, *port).ok()?.into_iter().find(answers)?;
            Some(Address::Tcp(found))
        }
        Endpoint::Unix(path) => unix::knock(path)
            .is_ok()
            .then(|| Address::Unix(path.clone())),
    }
}

/// Whether what was connected to `address` is connected to itself: a port that nobody listens
/// on can happen to be chosen for this end, too.
pub(crate) fn is_to_itself(stream: &TcpStream, address: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|own| own == address)
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted broker may listen again while old connections linger.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Or `::` would take the port of `0.0.0.0` too, on some systems only.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_named() {
        let first = listen_tcp_any(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let taken = first[0].local_addr().unwrap();
        let error = listen_tcp_any(&[taken]).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&taken.to_string()));
    }

    #[test]
    fn only_what_this_machine_has_is_here() {
        for (endpoint, expected) in [
            (Endpoint::tcp("127.0.0.1", 1), true),
            (Endpoint::tcp("localhost", 0), true),
            (Endpoint::tcp("0.0.0.0", 1), true),
            (Endpoint::unix("/nonexistent"), true),
            // Of an example, and nobody's.
            (Endpoint::tcp("192.0.2.1", 1), false),
            (Endpoint::tcp("2001:db8::1", 1), false),
        ] {
            assert_eq!(is_here(&endpoint).unwrap(), expected, "{endpoint}");
        }
        is_here(&Endpoint::tcp("no such host", 1)).unwrap_err();
    }

    /// As many tries as there are ports for one end, and more.
    #[test]
    fn a_port_that_nobody_listens_on_does_not_answer_for_itself() {
        let (free, endpoint) = (1..=64)
            .find_map(|_| {
                let taken = listen_tcp("127.0.0.1:0".parse().unwrap()).ok()?;
                // Linux gives listeners odd ports, and the ends of connections even ones.
                let port = taken.local_addr().ok()?.port().checked_add(1)?;
                let free = listen_tcp(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
                Some((free, Endpoint::tcp("127.0.0.1", port)))
            })
            .expect("a free port");
        drop(free);
        for _ in 0..30_000 {
            assert_eq!(probe(&endpoint), None);
        }
    }

    #[test]
    fn an_unknown_host_is_named() {
        let error = resolve("no such host", 1).unwrap_err();
        assert!(error.to_string().contains("no such host"), "{error}");
    }
}

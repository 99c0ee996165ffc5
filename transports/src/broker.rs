//! The broker as a thing that runs: sockets in, the machine of `lmx-core` in the middle.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = lmx_transports::Broker::builder().tcp("127.0.0.1", 0).bind().await?;
//! println!("{}", broker.addresses()[0]);
//! broker.stop().await?;
//! # Ok(()) }
//! ```

mod config;
mod drive;
mod hub;
mod links;
mod shortage;
pub(crate) mod socket;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod writer;

pub use crate::busy_poll::DEFAULT_BUSY_POLL;
pub use config::default_config;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lmx_core::broker::{
    Broker as Machine, BrokerConfig, ConfigError, ConnectError, Durability, Record,
};
use smol::io::{AsyncRead, AsyncWrite};

use crate::clock;
use crate::net::{self, Address, Endpoint, ListenError, UnixListening};
use crate::state::{StateError, StateFile, StateName, StatePlace};
#[cfg(feature = "tls")]
use crate::tls::TlsServer;
use hub::Hub;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// It was given no address.
    #[error("a broker needs an address to listen on: a TCP host and port, or the path of a socket")]
    NoAddress,
    /// Its limits do not go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// It has no state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system has no thread, poller or randomness for it.
    #[error("cannot start the broker: {0}")]
    System(#[from] io::Error),
}

/// Why a broker ended without having been stopped.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The readiness loop failed.
    #[error("the broker's readiness loop failed: {0}")]
    Poll(Arc<io::Error>),
    /// The last state could not be written.
    #[error("the broker's last state could not be written; its log says why")]
    StateNotWritten,
    /// A bug.
    #[error("a thread of the broker panicked; its log says where")]
    Panicked,
}

/// A running broker. Dropping it stops it, too, but without waiting for the end.
pub struct Broker {
    hub: Arc<Hub>,
    addresses: Vec<Address>,
}

/// Without what it knows, which is much, and has secrets.
impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker to be configured.
    #[must_use]
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// Where it really listens, port 0 replaced by the kernel's choice.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The first TCP address it listens on.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.addresses.iter().find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        })
    }

    /// Serves one connection over any stream, until it ends. Needs no particular executor.
    ///
    /// # Errors
    ///
    /// There are as many connections as there may be. (The stream is closed.)
    pub async fn serve<S>(&self, stream: S) -> Result<(), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        stream::serve(Arc::clone(&self.hub), stream).await
    }

    /// Tells every client, writes out what can be written, and ends.
    ///
    /// # Errors
    ///
    /// It had already ended, by itself, or its last state could not be written. (If that is
    /// because the disk does not answer, the state file stays in use until it does, or until
    /// the process ends.)
    pub async fn stop(self) -> Result<(), BrokerError> {
        self.hub.request_stop();
        self.hub.ended().await
    }

    /// Waits until the broker has ended, without stopping it.
    ///
    /// # Errors
    ///
    /// It ended by itself.
    pub async fn ended(&self) -> Result<(), BrokerError> {
        self.hub.ended().await
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.hub.request_stop();
    }
}

/// A broker's configuration; [`bind`](Self::bind) starts it.
pub struct BrokerBuilder {
    endpoints: Vec<Endpoint>,
    inherited: Vec<TcpListener>,
    inherited_unix: Vec<UnixListener>,
    unix_mode: u32,
    allow_public: bool,
    state: StatePlace,
    #[cfg(feature = "tls")]
    tls: Option<TlsServer>,
    busy_poll: Duration,
    config: BrokerConfig,
}

impl Default for BrokerBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            inherited: Vec::new(),
            inherited_unix: Vec::new(),
            unix_mode: 0o600,
            allow_public: false,
            state: StatePlace::Default,
            #[cfg(feature = "tls")]
            tls: None,
            busy_poll: DEFAULT_BUSY_POLL,
            config: default_config(),
        }
    }
}

/// Without the configuration, which has secrets.
impl fmt::Debug for BrokerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerBuilder")
            .field("endpoints", &self.endpoints)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl BrokerBuilder {
    /// Listens there. May be called several times.
    #[must_use]
    pub fn listen(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Listens on a TCP port of every address of `host`; port 0 lets the kernel
    /// choose. May be called several times.
    #[must_use]
    pub fn tcp(self, host: impl Into<String>, port: u16) -> Self {
        self.listen(Endpoint::tcp(host, port))
    }

    /// Listens on a Unix socket. May be called several times.
    #[must_use]
    pub fn unix(self, path: impl Into<PathBuf>) -> Self {
        self.listen(Endpoint::unix(path))
    }

    /// Listens on a socket that is already open, inherited from a supervisor for example.
    #[must_use]
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.inherited.push(listener);
        self
    }

    /// Listens on a Unix socket that is already open and has a path. Its file is left alone in
    /// the end.
    #[must_use]
    pub fn unix_listener(mut self, listener: UnixListener) -> Self {
        self.inherited_unix.push(listener);
        self
    }

    /// Permissions of the Unix sockets; 0600 unless told otherwise.
    #[must_use]
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.unix_mode = mode;
        self
    }

    /// Listens on addresses that other machines can reach even though no
    /// authentication is set.
    #[must_use]
    pub fn allow_public(mut self, allow: bool) -> Self {
        self.allow_public = allow;
        self
    }

    /// Where it keeps what it must remember across restarts; [`StatePlace::Default`]
    /// unless told otherwise.
    #[must_use]
    pub fn state(mut self, place: StatePlace) -> Self {
        self.state = place;
        self
    }

    /// Speaks TLS, and nothing else, on all its TCP addresses.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, server: TlsServer) -> Self {
        self.tls = Some(server);
        self
    }

    /// How long it stays awake for the next message where the last ones came that soon, which
    /// saves them the time that waking up takes; [`DEFAULT_BUSY_POLL`] unless told otherwise.
    /// Under such a load it keeps one processor busy, otherwise it costs next to nothing.
    /// With zero, or on a machine with one processor, it sleeps at once.
    #[must_use]
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.busy_poll = time;
        self
    }

    /// The token that clients must show before anything else.
    #[must_use]
    pub fn auth_token(mut self, token: impl Into<Vec<u8>>) -> Self {
        self.config.auth_token = Some(token.into());
        self
    }

    /// All limits; begin with [`default_config`]. The seeds, the incarnation and the
    /// first token in it are replaced by what the broker draws and remembers.
    #[must_use]
    pub fn config(mut self, config: BrokerConfig) -> Self {
        let auth_token = self.config.auth_token.take();
        self.config = config;
        self.config.auth_token = self.config.auth_token.take().or(auth_token);
        self
    }

    /// Starts the broker, on a thread of its own.
    ///
    /// # Errors
    ///
    /// It cannot listen on one of its addresses, or the system has no thread for it.
    pub async fn bind(self) -> Result<Broker, BindError> {
        // Resolving names and touching files both block.
        smol::unblock(move || self.bind_blocking()).await
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// As [`bind`](Self::bind), but may be tried again.
    pub(crate) fn bind_blocking(&self) -> Result<Broker, BindError> {
        self.config.check()?;
        let (tcp, unix) = self.listen_all()?;
        if tcp.is_empty() && unix.is_empty() {
            return Err(BindError::NoAddress);
        }
        let mut addresses = Vec::new();
        for listener in &tcp {
            addresses.push(Address::Tcp(listener.local_addr()?));
        }
        addresses.extend(unix.iter().map(|unix| Address::Unix(unix.path.clone())));

        let mut config = self.config.clone();
        config::draw_seeds(&mut config)?;
        let mut state = self.open_state(&addresses)?;
        if let Some((_, before)) = &mut state {
            config.durability = Durability::Durable(before.take());
        }
        let now = clock::now();
        let mut machine = Machine::new(now, config)?;
        if let Some((file, _)) = &mut state
            && let Some(record) = machine.poll_record()
        {
            // Before anybody is served: a state that cannot be written is told at once,
            // and this run of the broker can be told from every other.
            file.save(&record)?;
            machine.handle_durable(now);
        }
        if let Some(until) = machine.grace_until() {
            tracing::info!(
                grace = ?until.saturating_duration_since(now),
                sessions = machine.outstanding_sessions(),
                "after a restart: until all that may still hold have reclaimed, but no longer \
                 than this, nothing else is granted"
            );
        }
        let sockets = drive::Sockets {
            tcp,
            unix,
            #[cfg(feature = "tls")]
            tls: self.tls.clone().map(|server| tls::TlsSide {
                server,
                handshake_max: self.config.handshake_max,
                handshakes_max: self.config.connections_max,
            }),
        };
        let hub = drive::start(
            machine,
            sockets,
            state.map(|(file, _)| file),
            self.busy_poll,
        )?;
        Ok(Broker { hub, addresses })
    }

    fn open_state(
        &self,
        addresses: &[Address],
    ) -> Result<Option<(StateFile, Option<Record>)>, StateError> {
        let name = self.state_name(addresses);
        if self.state == StatePlace::Ephemeral
            || (self.state == StatePlace::Default && name.is_none())
        {
            tracing::warn!(
                "no state is kept: after a restart fencing tokens begin anew, and locks that \
                 clients still believe in can be granted to others"
            );
            return Ok(None);
        }
        let Some(directory) = self.state.directory()? else {
            return Ok(None);
        };
        let name = name.unwrap_or(StateName::Port(0));
        StateFile::open(&directory, &name).map(Some)
    }

    /// What its state is found under again; none if the kernel chose all that it has.
    fn state_name(&self, addresses: &[Address]) -> Option<StateName> {
        // The inherited ones come first.
        let inherited = addresses[..self.inherited.len()].iter();
        let inherited = inherited.filter_map(|address| match address {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        });
        let asked_for = self.endpoints.iter().filter_map(|endpoint| match endpoint {
            Endpoint::Tcp { port, .. } => Some(*port),
            Endpoint::Unix(_) => None,
        });
        let port = inherited.chain(asked_for).find(|port| *port != 0);
        let unix = addresses.iter().find_map(|address| match address {
            Address::Tcp(_) => None,
            Address::Unix(path) => Some(path.clone()),
        });
        port.map(StateName::Port).or(unix.map(StateName::Unix))
    }

    fn listen_all(&self) -> Result<(Vec<TcpListener>, Vec<UnixListening>), BindError> {
        let mut tcp = Vec::new();
        let mut unix = Vec::new();
        for listener in &self.inherited {
            self.check_reach(listener.local_addr()?)?;
            net::check_listens(listener)?;
            listener.set_nonblocking(true)?;
            tcp.push(listener.try_clone()?);
        }
        for listener in &self.inherited_unix {
            unix.push(UnixListening::inherited(listener.try_clone()?)?);
        }
        for endpoint in &self.endpoints {
            match endpoint {
                Endpoint::Tcp { host, port } => {
                    let resolved = net::resolve(host, *port)?;
                    for address in &resolved {
                        self.check_reach(*address)?;
                    }
                    tcp.extend(net::listen_tcp_any(&resolved)?);
                }
                Endpoint::Unix(path) => unix.push(net::listen_unix(path, self.unix_mode)?),
            }
        }
        Ok((tcp, unix))
    }

    /// Refuses what others could reach and nobody allowed.
    fn check_reach(&self, address: SocketAddr) -> Result<(), ListenError> {
        let is_private = address.ip().to_canonical().is_loopback();
        #[cfg(feature = "tls")]
        let asks_for_certificates = self
            .tls
            .as_ref()
            .is_some_and(TlsServer::asks_for_certificates);
        #[cfg(not(feature = "tls"))]
        let asks_for_certificates = false;
        let has_authentication = self.config.auth_token.is_some() || asks_for_certificates;
        if is_private || self.allow_public || has_authentication {
            Ok(())
        } else {
            Err(ListenError::Public { address })
        }
    }
}

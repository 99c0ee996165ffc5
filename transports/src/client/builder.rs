//! How a client is set up.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lmx_core::client::ClientConfig;

use super::error::ConnectError;
use super::shared::Shared;
#[cfg(feature = "tls")]
use super::stream::tls_connector;
use super::stream::{Connected, Connector, Stream, connector};
use crate::blocking;
use crate::busy_poll::DEFAULT_BUSY_POLL;
use crate::net::Endpoint;

use super::{Client, Handle, driver};

/// Sets up a [`Client`]. What is not set has the default that its method names.
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until `connect` or `build`"]
pub struct ClientBuilder {
    endpoint: Endpoint,
    config: ClientConfig,
    connector: Option<Connector>,
    busy_poll: Option<Duration>,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::TlsClient>,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoint", &self.endpoint)
            .field("resume_window", &self.config.resume_window)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Where the broker is (`localhost:6970`).
    pub fn endpoint(mut self, endpoint: impl Into<Endpoint>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// The broker's host (`localhost`).
    pub fn host(mut self, host: impl Into<String>) -> Self {
        let host = host.into();
        let port = match self.endpoint {
            Endpoint::Tcp { port, .. } => port,
            Endpoint::Unix(_) => crate::net::DEFAULT_PORT,
        };
        self.endpoint = Endpoint::Tcp { host, port };
        self
    }

    /// The broker's TCP port (6970).
    pub fn port(mut self, port: u16) -> Self {
        let host = match self.endpoint {
            Endpoint::Tcp { host, .. } => host,
            Endpoint::Unix(_) => crate::net::DEFAULT_HOST.to_owned(),
        };
        self.endpoint = Endpoint::Tcp { host, port };
        self
    }

    /// The broker's Unix socket (none).
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.endpoint = Endpoint::Unix(path.into());
        self
    }

    /// Who this is, for the broker's logs and those who inspect locks (nobody).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// How long locks and queue positions outlive a lost connection (4 s). With zero they
    /// end with it at once.
    pub fn resume_window(mut self, window: Duration) -> Self {
        self.config.resume_window = window;
        self
    }

    /// The token to show to a broker that asks for one (none).
    pub fn auth_token(mut self, token: impl Into<Vec<u8>>) -> Self {
        self.config.auth_token = token.into();
        self
    }

    /// How much faster or slower than the broker's clock this one may run, in parts per
    /// million (1000). Local deadlines are that much early.
    pub fn drift_ppm(mut self, ppm: u32) -> Self {
        self.config.drift_ppm_max = ppm;
        self
    }

    /// First and longest pause before connecting again (20 ms to 1 s).
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.config.backoff_min = min;
        self.config.backoff_max = max;
        self
    }

    /// An attempt to connect that takes longer has failed (3 s). A host's addresses share it.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long this client stays awake for the next message where the last ones came that
    /// soon ([`DEFAULT_BUSY_POLL`]). A future that waits for an answer then reads the socket
    /// itself, and wakes itself to do so again, so that its executor runs other tasks in
    /// between; where none does, the thread that drives all clients stays awake, for the longest
    /// of what they say. Under such a load this keeps one processor busy, otherwise it costs
    /// next to nothing. With zero, or on a machine with one processor, that thread does it all,
    /// and sleeps at once.
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.busy_poll = Some(time);
        self
    }

    /// Connects over streams of `connect`'s making instead of the system's sockets: TLS, a
    /// proxy, a pipe in memory. It is called for each attempt, on the thread that drives
    /// all clients, and must not block. It may ask the client whether it is connected; the
    /// streams that it makes may not. Errors go on naming the address.
    pub fn connector<S, F>(mut self, connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        S: Stream + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
    {
        self.connector = Some(Arc::new(move || {
            let connecting = connect();
            Box::pin(async move { Ok(Connected::Stream(Box::new(connecting.await?))) })
        }));
        self
    }

    /// Connects over TLS.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::tls::TlsClient) -> Self {
        self.tls = Some(tls);
        self
    }

    /// A client that has connected.
    ///
    /// # Errors
    ///
    /// When the first attempt fails.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let client = self.build()?;
        client.connected().await?;
        Ok(client)
    }

    /// A client for code that is not async, that has connected.
    ///
    /// # Errors
    ///
    /// When the first attempt fails.
    pub fn connect_blocking(self) -> Result<blocking::Client, ConnectError> {
        smol::future::block_on(self.connect()).map(blocking::Client::from)
    }

    /// A client that connects in the background, for as long as it takes.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn build(self) -> Result<Client, ConnectError> {
        let Self {
            endpoint,
            mut config,
            connector: custom,
            busy_poll,
            #[cfg(feature = "tls")]
            tls,
        } = self;
        let mut seed = [0; 8];
        // Without it clients come back at one time, which is no reason not to serve.
        let _ = getrandom::fill(&mut seed);
        config.seed = u64::from_le_bytes(seed);
        let connect_timeout = config.connect_timeout;
        let connector = custom.unwrap_or_else(|| connector(endpoint.clone(), connect_timeout));
        #[cfg(feature = "tls")]
        let connector = match tls {
            Some(tls) => tls_connector(tls, endpoint.clone(), connector),
            None => connector,
        };
        let busy_poll = busy_poll.unwrap_or(DEFAULT_BUSY_POLL);
        let shared = Arc::new(Shared::new(endpoint, config, busy_poll));
        driver::spawn(Arc::clone(&shared), connector, connect_timeout, busy_poll)?;
        Ok(Client {
            handle: Arc::new(Handle { shared }),
        })
    }
}

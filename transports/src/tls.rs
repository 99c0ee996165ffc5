//! TLS for both sides, with certificates from files: rustls over ring.
//!
//! A broker with a [`TlsServer`] speaks nothing else over TCP; with an authority for
//! clients it lets nobody in whom that has not signed. Unix sockets stay as they are:
//! the file's permissions guard them, and nothing of them leaves the machine.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_rustls::pki_types::pem::{self, PemObject};
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use futures_rustls::rustls::crypto::{CryptoProvider, ring};
use futures_rustls::rustls::server::WebPkiClientVerifier;
use futures_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use futures_rustls::{TlsAcceptor, TlsConnector, client};
use smol::io::{AsyncRead, AsyncWrite};

use crate::net::Endpoint;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file has no certificate or key, or cannot be read.
    #[error("cannot take {what} from {}: {source}", path.display())]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The certificates and the key do not go together, or are not usable.
    #[error("the certificates are not usable: {0}")]
    Unusable(String),
}

/// A certificate and its private key, in PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Identity {
    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let certificates = load_certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::File {
            what: "a private key",
            path: self.key.clone(),
            source,
        })?;
        Ok((certificates, key))
    }
}

/// A broker's side. Clones share their certificates.
#[derive(Clone)]
pub struct TlsServer {
    identity: Identity,
    client_authority: Option<PathBuf>,
    config: Arc<Mutex<Arc<ServerConfig>>>,
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("identity", &self.identity)
            .field("client_authority", &self.client_authority)
            .finish_non_exhaustive()
    }
}

impl TlsServer {
    /// Shows `identity` to clients; with `client_authority` (a PEM file of certificates)
    /// only clients with a certificate that it has signed are let in.
    ///
    /// # Errors
    ///
    /// When the files are not what they should be.
    pub fn new(identity: Identity, client_authority: Option<PathBuf>) -> Result<Self, TlsError> {
        let config = server_config(&identity, client_authority.as_deref())?;
        Ok(Self {
            identity,
            client_authority,
            config: Arc::new(Mutex::new(config)),
        })
    }

    /// Reads the files again. Connections that are open keep the certificates they have.
    ///
    /// # Errors
    ///
    /// When the files are not what they should be; then nothing has changed.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = server_config(&self.identity, self.client_authority.as_deref())?;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Whether clients must have a certificate.
    #[must_use]
    pub fn asks_for_certificates(&self) -> bool {
        self.client_authority.is_some()
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }
}

/// A client's side.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl TlsClient {
    /// Trusts brokers that `authority` (a PEM file of certificates) has signed, and shows
    /// `identity` to those that ask for one.
    ///
    /// # Errors
    ///
    /// When the files are not what they should be.
    pub fn new(authority: &Path, identity: Option<&Identity>) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(load_authority(authority)?);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (certificates, key) = identity.load()?;
                builder
                    .with_client_auth_cert(certificates, key)
                    .map_err(unusable)?
            }
        };
        Ok(Self {
            config: Arc::new(config),
            server_name: None,
        })
    }

    /// Expects this name in the broker's certificate instead of the host connected to.
    ///
    /// # Errors
    ///
    /// When it is no name and no address.
    pub fn server_name(mut self, name: &str) -> Result<Self, TlsError> {
        self.server_name = Some(parse_name(name)?);
        Ok(self)
    }

    /// What the broker at `endpoint` must be able to show itself as.
    pub(crate) fn name_for(&self, endpoint: &Endpoint) -> Result<ServerName<'static>, TlsError> {
        match (&self.server_name, endpoint) {
            (Some(name), _) => Ok(name.clone()),
            (None, Endpoint::Tcp { host, .. }) => parse_name(host),
            (None, Endpoint::Unix(_)) => parse_name("localhost"),
        }
    }

    pub(crate) async fn connect<S>(
        &self,
        name: ServerName<'static>,
        stream: S,
    ) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsConnector::from(Arc::clone(&self.config))
            .connect(name, stream)
            .await
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server_config(
    identity: &Identity,
    client_authority: Option<&Path>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let (certificates, key) = identity.load()?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match client_authority {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(load_authority(authority)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|error| TlsError::Unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder
        .with_single_cert(certificates, key)
        .map_err(unusable)?;
    Ok(Arc::new(config))
}

fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File {
        what: "a certificate",
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(failed(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn load_authority(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(path)? {
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

fn parse_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        TlsError::Unusable(format!("{name:?} is neither a host's name nor an address"))
    })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn unusable(error: rustls::Error) -> TlsError {
    TlsError::Unusable(error.to_string())
}

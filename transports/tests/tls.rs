//! TLS between the broker and its clients, with certificates of the test's own.
#![cfg(feature = "tls")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lmx_transports::state::StatePlace;
use lmx_transports::tls::{Identity, TlsClient, TlsServer};
use lmx_transports::{Broker, Client, ConnectError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority, and the files of what it has signed.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = folder.join(format!("{name}.pem"));
        fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn sign(&self, name: &str) -> Identity {
        let identity = Identity {
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
        };
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(&identity.certificate, certificate.pem()).unwrap();
        fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }
}

async fn broker(tls: TlsServer) -> (Broker, SocketAddr) {
    let broker = Broker::builder()
        .tcp("127.0.0.1", 0)
        .tls(tls)
        .state(StatePlace::Ephemeral)
        .bind()
        .await
        .unwrap();
    let address = broker.tcp_address().unwrap();
    (broker, address)
}

async fn connect(address: SocketAddr, tls: &TlsClient) -> Result<Client, ConnectError> {
    let client = Client::builder().host("127.0.0.1").port(address.port());
    client.tls(tls.clone()).connect().await
}

#[test]
fn locks_work_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = TlsServer::new(authority.sign("broker"), None).unwrap();
    let tls = TlsClient::new(&authority.certificate, None).unwrap();
    smol::block_on(async {
        let (broker, address) = broker(server).await;
        let one = connect(address, &tls).await.unwrap();
        let two = connect(address, &tls).await.unwrap();
        let guard = one.lock("key").await.unwrap();
        let waiting = two.lock("key").wait_forever();
        let waiting = smol::spawn(async move { waiting.await });
        let token = guard.token();
        guard.release().await.unwrap();
        assert!(waiting.await.unwrap().token() > token);
        broker.stop().await.unwrap();
    });
}

#[test]
fn a_broker_that_nobody_trusted_has_signed_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let stranger = Authority::new(folder.path(), "stranger");
    let server = TlsServer::new(stranger.sign("broker"), None).unwrap();
    let tls = TlsClient::new(&authority.certificate, None).unwrap();
    smol::block_on(async {
        let (_broker, address) = broker(server).await;
        let error = connect(address, &tls).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
        assert!(!error.to_string().contains("lmx start"), "{error}");
        let named = tls.server_name("another.example").unwrap();
        connect(address, &named).await.unwrap_err();
    });
}

#[test]
fn without_a_certificate_nobody_is_let_in_where_one_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let stranger = Authority::new(folder.path(), "stranger");
    let server = TlsServer::new(
        authority.sign("broker"),
        Some(authority.certificate.clone()),
    )
    .unwrap();
    assert!(server.asks_for_certificates());
    let client = |identity: Option<Identity>| {
        TlsClient::new(&authority.certificate, identity.as_ref()).unwrap()
    };
    smol::block_on(async {
        let (_broker, address) = broker(server).await;
        let error = connect(address, &client(None)).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
        let unknown = client(Some(stranger.sign("unknown")));
        connect(address, &unknown).await.unwrap_err();
        let known = client(Some(authority.sign("known")));
        let known = connect(address, &known).await.unwrap();
        known.lock("key").await.unwrap().release().await.unwrap();
    });
}

#[test]
fn certificates_are_reloaded_and_bad_ones_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let old = Authority::new(folder.path(), "old");
    let new = Authority::new(folder.path(), "new");
    let identity = old.sign("broker");
    let server = TlsServer::new(identity.clone(), None).unwrap();
    let trusts_old = TlsClient::new(&old.certificate, None).unwrap();
    let trusts_new = TlsClient::new(&new.certificate, None).unwrap();
    smol::block_on(async {
        let (_broker, address) = broker(server.clone()).await;
        let before = connect(address, &trusts_old).await.unwrap();
        connect(address, &trusts_new).await.unwrap_err();

        fs::write(&identity.certificate, "not a certificate").unwrap();
        let error = server.reload().unwrap_err();
        assert!(error.to_string().contains("broker.pem"), "{error}");
        connect(address, &trusts_old).await.unwrap();

        new.sign("broker");
        server.reload().unwrap();
        connect(address, &trusts_new).await.unwrap();
        // Who is in stays in.
        before.lock("key").await.unwrap().release().await.unwrap();
    });
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let identity = authority.sign("broker");
    let swapped = Identity {
        certificate: identity.key.clone(),
        key: identity.certificate.clone(),
    };
    let error = TlsServer::new(swapped, None).unwrap_err();
    assert!(error.to_string().contains("broker.key"), "{error}");
    let mixed = Identity {
        key: authority.sign("other").key,
        ..identity
    };
    TlsServer::new(mixed, None).unwrap_err();
    TlsClient::new(Path::new("/no/such/file"), None).unwrap_err();
}

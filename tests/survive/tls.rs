//! The command over TLS.

use std::path::Path;

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::harness::{Process, fail, lmx, succeed, tcp_port, text, until};

/// Writes an authority's certificate, and one that it has signed with its key.
fn make(folder: &Path, name: &str) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("a certificate");
    let write = |end: &str, text: String| {
        std::fs::write(folder.join(format!("{name}{end}")), text).expect("written");
    };
    write("-ca.pem", authority.pem());
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let params = CertificateParams::new(names).expect("parameters");
    let signed = params.signed_by(&key, &issuer).expect("a certificate");
    write(".pem", signed.pem());
    write(".key", key.serialize_pem());
}

#[test]
fn the_command_speaks_tls_and_reads_certificates_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let path = |name: &str| text(&folder.join(name)).to_owned();
    make(folder, "one");
    make(folder, "two");
    std::fs::copy(folder.join("one.pem"), folder.join("broker.pem")).expect("copied");
    std::fs::copy(folder.join("one.key"), folder.join("broker.key")).expect("copied");
    let mut command = lmx(["start", "0", "--json", "--log", "error", "--ephemeral"]);
    command
        .args(["--tls-cert", &path("broker.pem")])
        .args(["--tls-key", &path("broker.key")])
        .args(["--tls-client-ca", &path("one-ca.pem")]);
    let mut broker = Process::spawn(command);
    let port = tcp_port(&broker.json_line()).expect("a port").to_string();
    let told = |authority: &str, identity: &str| {
        let mut command = lmx(["status", &port, "--host", "localhost"]);
        command
            .args(["--tls-ca", &path(authority)])
            .args(["--tls-cert", &path(&format!("{identity}.pem"))])
            .args(["--tls-key", &path(&format!("{identity}.key"))]);
        command
    };
    succeed(&mut told("one-ca.pem", "one"));
    // Not with a certificate of somebody else's, nor trusting somebody else, nor in the clear.
    assert_ne!(
        told("one-ca.pem", "two")
            .output()
            .expect("it starts")
            .status
            .code(),
        Some(0)
    );
    assert_ne!(
        told("two-ca.pem", "one")
            .output()
            .expect("it starts")
            .status
            .code(),
        Some(0)
    );
    let mut clear = lmx(["status", &port, "--host", "localhost"]);
    assert_ne!(clear.output().expect("it starts").status.code(), Some(0));
    let words = fail(&mut told("no such file", "one"), 64);
    assert!(words.contains("no such file"), "{words}");

    std::fs::copy(folder.join("two.pem"), folder.join("broker.pem")).expect("copied");
    std::fs::copy(folder.join("two.key"), folder.join("broker.key")).expect("copied");
    broker.signal(Signal::SIGHUP);
    until("the new certificate is shown", || {
        let output = told("two-ca.pem", "one").output();
        output.expect("it starts").status.success()
    });
}

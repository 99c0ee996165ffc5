use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::clock::Alarm;
use crate::net::{Endpoint, probe};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn only_the_owner_may_connect_unless_told_otherwise() {
    let directory = directory();
    for mode in [0o600, 0o660, 0o666] {
        let path = directory.path().join(format!("{mode:o}"));
        let _listening = listen_unix(&path, mode).unwrap();
        let found = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode);
        // Anybody who can open the lock could have it before the next broker does.
        let lock = fs::metadata(lock_path(&path)).unwrap();
        assert_eq!(lock.permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_dead_brokers_socket_is_replaced() {
    let directory = directory();
    let path = directory.path().join("socket");
    // Closing a listener leaves its file behind, as a crash does.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listening = listen_unix(&path, 0o600).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(listening);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_live_brokers_socket_is_not() {
    let directory = directory();
    let path = directory.path().join("socket");
    let _first = listen_unix(&path, 0o600).unwrap();
    let error = listen_unix(&path, 0o600).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_foreign_servers_socket_is_not() {
    let directory = directory();
    let path = directory.path().join("socket");
    let _foreign = UnixListener::bind(&path).unwrap();
    let error = listen_unix(&path, 0o600).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_server_that_accepts_nobody_is_not_waited_for() {
    let directory = directory();
    let path = directory.path().join("socket");
    let socket = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let address = SockAddr::unix(&path).unwrap();
    let server = socket();
    server.bind(&address).unwrap();
    server.listen(0).unwrap();
    let mut peers = Vec::new();
    let error = loop {
        let peer = socket();
        match peer.connect(&address) {
            Ok(()) => peers.push(peer),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let asked = smol::unblock(move || {
        let endpoint = Endpoint::unix(&path);
        (probe(&endpoint), listen_unix(&path, 0o600))
    });
    let hang = async {
        Alarm::after(Duration::from_mins(1)).await;
        panic!("it waits for the server")
    };
    let (found, listening) = smol::block_on(smol::future::or(asked, hang));
    assert!(found.is_some());
    let error = listening.unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
}

#[test]
fn a_file_is_not_replaced() {
    let directory = directory();
    let path = directory.path().join("file");
    fs::write(&path, "precious").unwrap();
    let error = listen_unix(&path, 0o600).unwrap_err();
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_successors_socket_is_left_alone() {
    let directory = directory();
    let path = directory.path().join("socket");
    let first = listen_unix(&path, 0o600).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(first);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn of_many_that_start_at_one_time_one_wins() {
    let directory = directory();
    let path = directory.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    let won: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| listen_unix(&path, 0o600).ok()))
            .collect();
        starts
            .into_iter()
            .filter_map(|start| start.join().unwrap())
            .collect()
    });
    assert_eq!(won.len(), 1);
    UnixStream::connect(&path).unwrap();
}

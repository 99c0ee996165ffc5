//! A host with several addresses, some of which are gone.

use std::net::TcpListener;

use smol::future::FutureExt;
use socket2::{Domain, SockAddr, Type};

use super::*;

/// An address that swallows attempts to connect as one of a machine that is gone does: as
/// many connections as its backlog has room for are there, and nobody accepts them.
struct Gone {
    address: SocketAddr,
    _sockets: Vec<socket2::Socket>,
}

impl Gone {
    fn new() -> Self {
        let listener = socket();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..3 {
            let peer = socket();
            let _ = peer.connect(&SockAddr::from(address));
            sockets.push(peer);
        }
        Self {
            address,
            _sockets: sockets,
        }
    }
}

/// A socket with an address of its own.
fn socket() -> socket2::Socket {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&SockAddr::from(any)).unwrap();
    socket
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let hang = async {
        Alarm::after(Duration::from_mins(1)).await;
        panic!("the test hangs")
    };
    smol::block_on(test.or(hang))
}

#[test]
fn an_address_that_swallows_attempts_does_not_keep_the_others_from_being_tried() {
    run(async {
        let gone = Gone::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let known = Known::default();
        let soon = clock::now() + Duration::from_millis(200);
        let all = vec![gone.address, there];
        known.connect(all.clone(), soon).await.unwrap();
        listener.accept().unwrap();
        // From now on it comes first: the other's share would last for longer than this test.
        let late = clock::now() + Duration::from_hours(1);
        known.connect(all, late).await.unwrap();
        listener.accept().unwrap();
    });
}

#[test]
fn the_last_ones_failure_is_told() {
    run(async {
        // Bound, so that nobody else listens there, but not listening.
        let closed = socket();
        let address = closed.local_addr().unwrap().as_socket().unwrap();
        let gone = Gone::new();
        let soon = clock::now() + Duration::from_millis(200);
        let error = Known::default()
            .connect(vec![gone.address, address], soon)
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = Known::default().connect(Vec::new(), soon).await;
        let error = error.map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}

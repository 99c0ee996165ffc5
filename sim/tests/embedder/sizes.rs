//! Requests of a client that are as long as its broker lets them be.

use lmx_core::client::{Client, ClientConfig, ClientEvent, LockRequest, Query, QueryAnswer};
use lmx_core::wire::{Answer, Command, Reply, Request, Resumed, Ticket, Welcome, frame};
use lmx_core::{Instant, Mode, RequestId, SessionId};
use std::time::Duration;

const NOW: Instant = Instant::EPOCH;
const BYTES_MAX: u32 = 1000;

/// A client whose broker takes bodies of so many bytes.
fn client() -> Client {
    let mut client = Client::new(NOW, ClientConfig::default());
    client.handle_connected(NOW);
    let second = Duration::from_secs(1);
    let body = Answer::Welcome(Welcome {
        ticket: Ticket {
            incarnation: 1,
            session: SessionId::from_u64(1),
            secret: [1; 16],
        },
        resumed: Resumed::New,
        resume_window: second,
        idle_max: second,
        frame_bytes_max: BYTES_MAX,
        grace_until: None,
    });
    let (now, tag) = (NOW, 1);
    let mut bytes = Vec::new();
    frame::append(&Reply { now, tag, body }, &mut bytes);
    client.handle_input(NOW, &bytes);
    client.consume_output(client.output().len());
    assert_eq!(client.poll_event(), Some(ClientEvent::Connected));
    client
}

#[test]
fn a_request_is_sent_if_it_is_no_longer_than_a_frame_may_be() {
    let mut longest = 0;
    for bytes in 900..1100 {
        let mut client = client();
        // What is still to be sent does not count.
        client.query(NOW, Query::Ping);
        let before = client.output().len();
        let key: Box<[u8]> = vec![b'k'; bytes].into();
        client.query(NOW, Query::Inspect { key, skip: 0 });
        let sent = client.output()[before..].to_vec();
        match client.poll_event() {
            None => {
                let found = frame::split(&sent, BYTES_MAX).expect("no longer");
                let body = found.expect("a whole frame").body;
                assert!(matches!(
                    Request::decode(body),
                    Ok(Request { body: Command::Inspect { key, .. }, .. }) if key.len() == bytes
                ));
                longest = longest.max(body.len());
            }
            Some(ClientEvent::Answered { answer, .. }) => {
                assert!(matches!(answer, QueryAnswer::Refused(_)), "{answer:?}");
                assert_eq!(sent, [0; 0]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(longest, 1000);
}

#[test]
fn requests_of_many_keys_and_of_empty_ones_are_sent_as_they_are() {
    let most = Mode::Semaphore {
        capacity: u32::MAX,
        permits: u32::MAX,
    };
    for keys in [
        vec![&b""[..]],
        vec![b""; 20],
        vec![b"k"; 20],
        vec![&[b'k'; 300]; 2],
    ] {
        let mut client = client();
        let mut request = LockRequest::new(RequestId::from_u128(1), b"");
        request.wants = keys.iter().map(|&key| (key.into(), most)).collect();
        client.acquire(NOW, request).expect("a fresh id");
        let found = frame::split(client.output(), BYTES_MAX).expect("no longer");
        let request = Request::decode(found.expect("a whole frame").body);
        let Ok(Request {
            body: Command::Acquire(fields),
            ..
        }) = request
        else {
            panic!("{request:?}");
        };
        let sent: Vec<_> = fields
            .wants
            .iter()
            .map(|want| want.expect("a want"))
            .collect();
        assert!(sent.iter().all(|want| want.mode == most));
        assert!(sent.iter().map(|want| want.key).eq(keys));
    }
}

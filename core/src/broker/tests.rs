use alloc::{vec, vec::Vec};

use super::connection::Connection;
use super::connections::{Connections, Queue};
use super::lines::{self, FirstLine, LineDecoder};
use super::session;
use crate::{Instant, SessionId};

fn lines_of(decoder: &mut LineDecoder, mut input: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    while let Some(line) = decoder.next_line(&mut input).unwrap() {
        lines.push(line.to_vec());
    }
    assert!(input.is_empty());
    lines
}

#[test]
fn lines_come_out_wherever_the_stream_is_cut() {
    let stream = "{\"a\":1}\n\n[\u{20ac}]\r\nrest\n".as_bytes();
    let whole = lines_of(&mut LineDecoder::new(16), stream);
    assert_eq!(whole.len(), 4);
    for first in 0..stream.len() {
        for second in first..stream.len() {
            let mut decoder = LineDecoder::new(16);
            let mut lines = lines_of(&mut decoder, &stream[..first]);
            lines.extend(lines_of(&mut decoder, &stream[first..second]));
            lines.extend(lines_of(&mut decoder, &stream[second..]));
            assert_eq!(lines, whole);
            assert!(!decoder.is_partial());
        }
    }
}

#[test]
fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
    let longest = vec![b'x'; 16];
    for cut in 0..=16 {
        let mut decoder = LineDecoder::new(16);
        assert!(lines_of(&mut decoder, &longest[..cut]).is_empty());
        assert!(lines_of(&mut decoder, &longest[cut..]).is_empty());
        assert!(decoder.next_line(&mut &b"x"[..]).is_err(), "cut at {cut}");
        assert_eq!(lines_of(&mut decoder, b"\n"), [&*longest]);
    }
    assert!(
        LineDecoder::new(16)
            .next_line(&mut &[b'x'; 17][..])
            .is_err()
    );
}

#[test]
fn the_first_line_may_show_a_token() {
    let token = Some(&b"sesame"[..]);
    for (line, token, expected) in [
        (
            r#"{"type":"auth","token":"sesame"}"#,
            token,
            FirstLine::RightToken,
        ),
        (
            r#" {"token":"s\u0065same","type":"auth","more":1} "#,
            token,
            FirstLine::RightToken,
        ),
        (
            r#"{"type":"auth","token":"sesame"}"#,
            None,
            FirstLine::RightToken,
        ),
        (
            r#"{"type":"auth","token":"sesam"}"#,
            token,
            FirstLine::WrongToken,
        ),
        (
            r#"{"type":"auth","token":""}"#,
            token,
            FirstLine::WrongToken,
        ),
        (r#"{"type":"auth"}"#, token, FirstLine::Other),
        (r#"{"type":"auth","token":7}"#, token, FirstLine::Other),
        (
            r#"{"type":"lock","token":"sesame"}"#,
            token,
            FirstLine::Other,
        ),
        ("[7]", token, FirstLine::Other),
        ("null", None, FirstLine::Other),
        ("sesame", token, FirstLine::NotJson),
        ("GET / HTTP/1.1\r", None, FirstLine::NotJson),
        (
            "{\"type\":\"auth\",\"token\":\"sesame\"} x",
            token,
            FirstLine::NotJson,
        ),
    ] {
        assert_eq!(
            lines::first_line(line.as_bytes(), token),
            expected,
            "{line}"
        );
    }
}

#[test]
fn queues_keep_the_order_of_time_whoever_leaves() {
    let mut connections = Connections::new(false);
    let all: Vec<_> = (0..5)
        .map(|_| connections.insert(Connection::new()))
        .collect();
    for (millis, &index) in (1..).zip(&all) {
        connections.requeue(Queue::Heard, index, Instant::from_millis(millis));
    }
    // Heard again, left, removed, and entered twice.
    connections.requeue(Queue::Heard, all[0], Instant::from_millis(10));
    connections.unlink(Queue::Heard, all[2]);
    connections.remove(all[4]);
    connections.enqueue(Queue::Heard, all[1], Instant::from_millis(11));
    let mut order = Vec::new();
    while let Some((index, since)) = connections.first(Queue::Heard) {
        connections.unlink(Queue::Heard, index);
        order.push((index, since.as_nanos() / 1_000_000));
    }
    assert_eq!(order, [(all[1], 2), (all[3], 4), (all[0], 10)]);
}

#[test]
fn a_ticket_is_of_one_seed_one_run_and_one_session() {
    let seed = [7; 16];
    let session = SessionId::from_u64(5);
    let ticket = session::ticket(&seed, 3, session);
    assert!(session::is_genuine(&seed, &ticket));
    assert!(!session::is_genuine(&[8; 16], &ticket));
    let others = [
        session::ticket(&[8; 16], 3, session),
        session::ticket(&seed, 4, session),
        session::ticket(&seed, 3, SessionId::from_u64(6)),
    ];
    for other in others {
        assert_ne!(other.secret, ticket.secret);
    }
    for bit in 0..128 {
        let mut forged = ticket;
        forged.secret[bit / 8] ^= 1 << (bit % 8);
        assert!(!session::is_genuine(&seed, &forged));
    }
}

#[test]
fn output_that_is_never_quite_read_does_not_grow() {
    let mut output = Connection::new().output;
    output.buffer(Vec::new).extend_from_slice(&[0; 10]);
    for _ in 0..10_000 {
        output.buffer(Vec::new).extend_from_slice(&[0; 100]);
        output.consume(100);
        assert_eq!(output.len(), 10);
    }
    assert!(output.take_buffer().capacity() < 16 * 1024);
}

use alloc::{vec, vec::Vec};

use core::time::Duration;

use super::connection::Connection;
use super::connections::{Connections, Queue};
use super::counters::Counters;
use super::lines::{self, FirstLine, LineDecoder};
use super::session;
use super::{Broker, BrokerConfig, ConfigError};
use crate::table::{AcquireError, ConvertError, OpenError};
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
fn limits_go_together_or_the_error_says_which_do_not() {
    let mut config = BrokerConfig::default();
    let least = config.table.key_bytes_max + config.table.label_bytes_max + 256 + 256;
    config.frame_bytes_max = least;
    assert_eq!(config.check(), Ok(()));
    config.frame_bytes_max = least - 1;
    let too_small = ConfigError::FrameTooSmall {
        bytes: least - 1,
        bytes_min: least,
    };
    assert_eq!(config.check(), Err(too_small));
    assert_eq!(Broker::new(Instant::EPOCH, config).err(), Some(too_small));

    let mut config = BrokerConfig::default();
    config.output_bytes_max = config.frame_bytes_max + 4;
    assert_eq!(config.check(), Ok(()));
    config.output_bytes_max -= 1;
    let too_small = ConfigError::OutputTooSmall {
        bytes: config.output_bytes_max,
        bytes_min: config.frame_bytes_max + 4,
    };
    assert_eq!(config.check(), Err(too_small));

    let mut config = BrokerConfig {
        auth_token: Some(Vec::new()),
        ..BrokerConfig::default()
    };
    assert_eq!(config.check(), Err(ConfigError::EmptyAuthToken));
    config.auth_token = Some(vec![0]);
    assert_eq!(config.check(), Ok(()));

    let mut config = BrokerConfig {
        idle_max: Duration::ZERO,
        ..BrokerConfig::default()
    };
    let what = "idle_max";
    assert_eq!(config.check(), Err(ConfigError::Zero { what }));
    config.idle_max = Duration::from_nanos(1);
    assert_eq!(config.check(), Ok(()));
    config.handshake_max = Duration::ZERO;
    let what = "handshake_max";
    assert_eq!(config.check(), Err(ConfigError::Zero { what }));
}

#[test]
fn what_was_refused_is_counted_by_what_it_was() {
    let mut counters = Counters::default();
    counters.open(OpenError::WindowTooLong {
        max: Duration::ZERO,
    });
    counters.acquire(AcquireError::UnknownSession);
    counters.acquire(AcquireError::UnknownSession);
    counters.convert(ConvertError::NotConvertible);
    counters.convert(ConvertError::NotConvertible);
    counters.convert(ConvertError::NotHeld);
    let status = counters.0;
    assert_eq!(status.refused_invalid, 3);
    assert_eq!(status.refused_absent, 3);
    assert_eq!(status.refused, 0);
}

#[test]
fn a_decoder_of_lines_keeps_a_small_buffer_and_no_large_one() {
    let mut decoder = LineDecoder::new(1000);
    lines_of(&mut decoder, &[b'x'; 200]);
    lines_of(&mut decoder, b"\n");
    let kept = decoder.kept_bytes();
    assert!((200..=256).contains(&kept), "{kept}");
    lines_of(&mut decoder, &[b'x'; 600]);
    lines_of(&mut decoder, b"\n\n");
    assert_eq!(decoder.kept_bytes(), 0);
}

#[test]
fn what_is_held_back_for_two_reasons_waits_for_both() {
    let mut output = Connection::new().output;
    output.buffer(Vec::new).extend_from_slice(b"abcdef");
    // What comes after waits for whatever what comes before waits for.
    assert!(output.hold_back(4, 1));
    assert_eq!(output.as_slice(), b"abcd");
    assert!(output.hold_back(2, 2));
    assert_eq!(output.as_slice(), b"ab");
    assert!(!output.hold_back(4, 2), "it waits for that already");
    assert!(!output.hold_back(2, 2));
    assert!(output.hold_back(4, 3));
    assert!(output.release(1));
    assert_eq!(output.as_slice(), b"ab");
    assert!(output.release(2));
    assert_eq!(output.as_slice(), b"abcd");
    assert!(output.hold_back(4, 4));
    assert!(output.release(3), "the later one has taken its place");
    output.consume(3);
    assert_eq!(output.as_slice(), b"d");
    assert!(!output.release(4));
    assert_eq!(output.as_slice(), b"def");
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

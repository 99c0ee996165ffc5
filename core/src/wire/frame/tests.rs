use alloc::{vec, vec::Vec};

use super::*;
use crate::RequestId;
use crate::wire::Command;

const PING: Request<'_> = Request {
    tag: 1,
    seen: 0,
    body: Command::Ping,
};

fn release(tag: u32) -> Request<'static> {
    let id = RequestId::from_u128(u128::from(tag));
    Request {
        tag,
        seen: 0,
        body: Command::Release { id },
    }
}

fn tags_of(decoder: &mut Decoder, mut input: &[u8]) -> Vec<u32> {
    let mut tags = Vec::new();
    while let Some(body) = decoder.next_frame(&mut input).unwrap() {
        tags.push(Request::decode(body).unwrap().tag);
    }
    assert!(input.is_empty());
    tags
}

#[test]
fn a_slice_and_a_vector_get_the_same_frame() {
    let mut buffer = [0; 64];
    let mut vector = vec![7];
    append(&PING, &mut vector);
    assert_eq!(encode(&PING, &mut buffer).unwrap(), &vector[1..]);
}

#[test]
fn a_buffer_that_is_too_small_is_an_error_and_not_a_panic() {
    let mut whole = Vec::new();
    append(&PING, &mut whole);
    for bytes in 0..whole.len() {
        let mut buffer = vec![0; bytes];
        assert_eq!(encode(&PING, &mut buffer), Err(EncodeError { bytes }));
    }
    assert!(encode(&PING, &mut vec![0; whole.len()]).is_ok());
}

#[test]
fn frames_come_out_wherever_the_stream_is_cut() {
    let mut stream = Vec::new();
    for tag in 1..=5 {
        append(&release(tag), &mut stream);
    }
    for first in 0..stream.len() {
        for second in first..stream.len() {
            let mut decoder = Decoder::new(64);
            let mut tags = tags_of(&mut decoder, &stream[..first]);
            tags.extend(tags_of(&mut decoder, &stream[first..second]));
            tags.extend(tags_of(&mut decoder, &stream[second..]));
            assert_eq!(tags, [1, 2, 3, 4, 5]);
            assert!(!decoder.is_partial());
        }
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_its_body_is_buffered() {
    let too_long = FrameError::TooLong {
        bytes: 65,
        bytes_max: 64,
    };
    assert_eq!(split(&65_u32.to_le_bytes(), 64), Err(too_long.clone()));
    let mut decoder = Decoder::new(64);
    let mut input = &65_u32.to_le_bytes()[..3];
    assert_eq!(decoder.next_frame(&mut input), Ok(None));
    let mut input = &[0; 50][..];
    assert_eq!(decoder.next_frame(&mut input), Err(too_long));
    assert!(decoder.partial.capacity() <= 16);
}

#[test]
fn an_empty_frame_is_refused() {
    assert_eq!(split(&[0; 4], 64), Err(FrameError::Empty { bytes_max: 64 }));
}

#[test]
fn a_frame_that_was_announced_costs_only_what_has_arrived() {
    let mut decoder = Decoder::new(1 << 20);
    let mut input = &[0, 0, 16, 0, 1][..];
    assert_eq!(decoder.next_frame(&mut input), Ok(None));
    assert!(decoder.partial.capacity() <= 16);
}

#[test]
fn a_decoder_keeps_no_large_buffer() {
    let mut decoder = Decoder::new(1 << 20);
    let mut frame = 100_000_u32.to_le_bytes().to_vec();
    frame.resize(frame.len() + 100_000, 0);
    let (mut head, mut tail) = frame.split_at(1000);
    assert_eq!(decoder.next_frame(&mut head), Ok(None));
    assert_eq!(
        decoder.next_frame(&mut tail).unwrap().unwrap().len(),
        100_000
    );
    assert_eq!(decoder.next_frame(&mut tail), Ok(None));
    assert!(decoder.partial.capacity() <= IDLE_BYTES_MAX);
}

#[test]
fn a_broker_refuses_what_follows_a_request() {
    let mut frame = Vec::new();
    append(&PING, &mut frame);
    frame.push(0);
    let body = &frame[LENGTH_BYTES..];
    assert_eq!(
        Request::decode(body),
        Err(FrameError::Trailing { bytes: 1 })
    );
    assert!(matches!(
        Request::decode(&body[..1]),
        Err(FrameError::Body(_))
    ));
}

#[test]
fn a_client_ignores_fields_that_a_newer_broker_adds() {
    use crate::Instant;
    use crate::wire::{Answer, Reply};
    let reply = Reply {
        now: Instant::from_nanos(5),
        tag: 3,
        body: Answer::Pong,
    };
    let mut frame = Vec::new();
    append(&reply, &mut frame);
    frame.extend_from_slice(&[1, 2, 3]);
    assert_eq!(Reply::decode(&frame[LENGTH_BYTES..]), Ok(reply));
}

#[test]
fn a_decoder_knows_whether_a_frame_has_begun() {
    let mut stream = Vec::new();
    append(&release(1), &mut stream);
    let mut decoder = Decoder::new(64);
    assert!(!decoder.is_partial());
    assert!(tags_of(&mut decoder, &stream[..3]).is_empty());
    assert!(decoder.is_partial());
    let mut rest = &stream[3..];
    assert!(decoder.next_frame(&mut rest).unwrap().is_some());
    assert!(!decoder.is_partial());
}

#[test]
fn a_decoder_keeps_a_small_buffer_and_no_large_one() {
    for (bytes, kept) in [(IDLE_BYTES_MAX, IDLE_BYTES_MAX), (IDLE_BYTES_MAX + 1, 0)] {
        let mut decoder = Decoder::new(64);
        decoder.partial.reserve_exact(bytes);
        let mut stream = Vec::new();
        append(&release(1), &mut stream);
        assert!(tags_of(&mut decoder, &stream[..3]).is_empty());
        assert_eq!(tags_of(&mut decoder, &stream[3..]), [1]);
        assert_eq!(decoder.partial.capacity(), kept);
    }
}

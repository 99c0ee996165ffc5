//! Frames of the native protocol, as somebody writes and reads them who has no broker.

use lmx_core::wire::{Command, Request, frame};

const PING: Request<'_> = Request {
    tag: 7,
    seen: 300,
    body: Command::Ping,
};

#[test]
fn a_frame_is_written_to_what_room_there_is_or_not_at_all() {
    let mut appended = b"before".to_vec();
    frame::append(&PING, &mut appended);
    let whole = &appended[b"before".len()..];
    for room in 0..whole.len() + 3 {
        let mut buffer = vec![0xff; room];
        let encoded = frame::encode(&PING, &mut buffer);
        if room < whole.len() {
            assert_eq!(encoded, Err(frame::EncodeError { bytes: room }));
        } else {
            assert_eq!(encoded, Ok(whole));
        }
    }
    let found = frame::split(whole, 64).expect("a frame").expect("whole");
    assert_eq!(Request::decode(found.body), Ok(PING));
}

#[test]
fn frames_are_found_wherever_the_stream_is_cut() {
    let mut stream = Vec::new();
    frame::append(&PING, &mut stream);
    let bytes = stream.len();
    frame::append(&PING, &mut stream);
    for cut in 0..=stream.len() {
        let mut decoder = frame::Decoder::new(64);
        assert!(!decoder.is_partial());
        let mut found = 0;
        for mut input in [&stream[..cut], &stream[cut..]] {
            while let Some(body) = decoder.next_frame(&mut input).expect("frames") {
                assert_eq!(Request::decode(body), Ok(PING), "{cut}");
                assert!(!decoder.is_partial(), "what it has lent is whole");
                found += 1;
            }
            assert!(input.is_empty());
            if found < 2 {
                assert_eq!(found, cut / bytes, "{cut}");
                assert_eq!(decoder.is_partial(), cut % bytes != 0, "{cut}");
            }
        }
        assert_eq!(found, 2);
        assert!(!decoder.is_partial());
    }
}

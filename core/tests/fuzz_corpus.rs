//! The fuzz targets, on their committed corpora and on random bytes.

#![cfg(feature = "alloc")]

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library of its own, borrowed here")]
mod targets;

use std::path::Path;

use proptest::prelude::*;

fn replay(name: &str, target: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut count = 0;
    for entry in std::fs::read_dir(root.join(name)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        target(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn corpus_of_frame_decoder() {
    replay("frame_decoder", targets::frame_decoder);
}

#[test]
fn corpus_of_live_mutex_dialect() {
    replay("live_mutex_dialect", targets::live_mutex_dialect);
}

#[test]
fn corpus_of_broker_session() {
    replay("broker_session", targets::broker_session);
}

proptest! {
    #[test]
    fn random_bytes_are_no_frames_to_fall_over(data in prop::collection::vec(any::<u8>(), 0..600)) {
        targets::frame_decoder(&data);
    }

    #[test]
    fn random_commands_in_random_order_break_no_invariant(
        data in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        targets::broker_session(&data);
    }
}

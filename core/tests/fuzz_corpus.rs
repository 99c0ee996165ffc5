//! The fuzz targets, on their committed corpora, on these with random edits, and on random
//! bytes.

#![cfg(feature = "alloc")]

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library of its own, borrowed here")]
mod targets;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Names and contents.
type Corpus = Vec<(String, Vec<u8>)>;

static FRAME_DECODER: LazyLock<Corpus> = LazyLock::new(|| corpus("frame_decoder"));
static LIVE_MUTEX_DIALECT: LazyLock<Corpus> = LazyLock::new(|| corpus("live_mutex_dialect"));
static BROKER_SESSION: LazyLock<Corpus> = LazyLock::new(|| corpus("broker_session"));

/// The committed inputs of a target.
fn corpus(name: &str) -> Corpus {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(name);
    let mut inputs: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    assert!(!inputs.is_empty());
    inputs.sort_unstable();
    inputs
}

fn replay(corpus: &Corpus, target: fn(&[u8])) {
    for (path, input) in corpus {
        println!("{path}");
        target(input);
    }
}

/// What a fuzzer does to an input that it knows.
#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// From here on it goes on as another input does from there on.
    GoOnAs(Index, Index, Index),
}

impl Edit {
    fn apply(&self, input: &mut Vec<u8>, others: &Corpus) {
        let at = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match self {
            Self::Set(index, byte) => {
                if !input.is_empty() {
                    let at = index.index(input.len());
                    input[at] = *byte;
                }
            }
            Self::Insert(index, bytes) => {
                let at = at(index, input);
                input.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(index, length) => {
                let from = at(index, input);
                let to = input.len().min(from + length);
                input.drain(from..to);
            }
            Self::GoOnAs(here, other, there) => {
                let other = &others[other.index(others.len())].1;
                input.truncate(at(here, input));
                input.extend_from_slice(&other[at(there, other)..]);
            }
        }
    }
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let index = any::<Index>;
    let edit = prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        2 => (index(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (index(), 1..33_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        1 => (index(), index(), index())
            .prop_map(|(here, other, there)| Edit::GoOnAs(here, other, there)),
    ];
    vec(edit, 1..6)
}

#[test]
fn corpus_of_frame_decoder() {
    replay(&FRAME_DECODER, targets::frame_decoder);
}

#[test]
fn corpus_of_live_mutex_dialect() {
    replay(&LIVE_MUTEX_DIALECT, targets::live_mutex_dialect);
}

#[test]
fn corpus_of_broker_session() {
    replay(&BROKER_SESSION, targets::broker_session);
}

/// Runs the target on an input of its corpus after these edits.
fn edited(corpus: &Corpus, target: fn(&[u8]), at: Index, edits: &[Edit]) {
    let mut input = corpus[at.index(corpus.len())].1.clone();
    for edit in edits {
        edit.apply(&mut input, corpus);
    }
    target(&input);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_bytes_are_no_frames_to_fall_over(data in vec(any::<u8>(), 0..600)) {
        targets::frame_decoder(&data);
    }

    #[test]
    fn what_is_close_to_known_frames_is_decoded_or_refused(at: Index, edits in edits()) {
        edited(&FRAME_DECODER, targets::frame_decoder, at, &edits);
    }

    #[test]
    fn what_is_close_to_known_lines_breaks_no_invariant(at: Index, edits in edits()) {
        edited(&LIVE_MUTEX_DIALECT, targets::live_mutex_dialect, at, &edits);
    }

    #[test]
    fn what_is_close_to_known_operations_breaks_no_invariant(at: Index, edits in edits()) {
        edited(&BROKER_SESSION, targets::broker_session, at, &edits);
    }

    #[test]
    fn random_commands_in_random_order_break_no_invariant(
        data in vec(any::<u8>(), 0..3000),
    ) {
        targets::broker_session(&data);
    }
}

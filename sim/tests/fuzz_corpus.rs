//! The fuzz target `world`, on its committed corpus and on random bytes.

use std::path::Path;

use lmx_sim::rng::Draws;

#[path = "../../fuzz/src/world.rs"]
#[expect(unreachable_pub, reason = "a fuzz target's own file, borrowed here")]
mod target;

#[test]
fn corpus_of_world() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/world");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is part of the repository") {
        let path = entry.expect("readable").path();
        println!("{}", path.display());
        target::world(&std::fs::read(path).expect("readable"));
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn random_bytes_break_nothing() {
    for seed in 0..50 {
        let draws = Draws::new(seed).of(0x6279_7465);
        let bytes: Vec<u8> = (0..600).map(|n| draws.bits(n) as u8).collect();
        target::world(&bytes);
    }
}

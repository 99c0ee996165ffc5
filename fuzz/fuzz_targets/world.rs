#![no_main]

// Not part of the library, which `lmx-core`'s tests borrow: they cannot have the simulator.
#[path = "../src/world.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::world(data));

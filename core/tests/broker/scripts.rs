//! One test for each script in `core/tests/broker/scripts/`.

use crate::script::run;

macro_rules! scripts {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })+

        #[test]
        fn every_script_is_run() {
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/scripts");
            let mut found: Vec<_> = std::fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
                .collect();
            found.sort();
            let mut run = [$(stringify!($name)),+];
            run.sort();
            assert_eq!(found, run);
        }
    };
}

scripts! {
    handshake,
    malformed,
    locking,
    resume,
    takeover,
    limits,
    idle,
    inspecting,
    slow_reader,
    reclaim,
    stopping,
    live_mutex,
    live_mutex_beside,
    live_mutex_full,
    live_mutex_grace,
    authentication,
}

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::*;
use crate::clock;

#[test]
fn a_program_that_ends_is_reported_with_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::unix(directory.path().join("nobody"));
    let mut program = Command::new("sh");
    program.args(["-c", "echo no luck; exit 3"]);
    let error = smol::block_on(launch_detached(endpoint, program)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no luck") && text.contains('3'), "{text}");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::unix(directory.path().join("nobody"));
    let program = Command::new("/no/such/program");
    let error = smol::block_on(launch_detached(endpoint, program)).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

#[test]
fn a_program_that_ends_later_leaves_no_zombie() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let _listener = UnixListener::bind(path("before")).unwrap();
    let mut program = Command::new("sh");
    // It listens, so to say, and then ends.
    let script = "echo $$ > pid; mv before socket; echo ready";
    program.args(["-c", script]).current_dir(directory.path());
    smol::block_on(async {
        let endpoint = Endpoint::unix(path("socket"));
        launch_detached(endpoint, program).await.unwrap();
        let pid = fs::read_to_string(path("pid")).unwrap();
        let process = Path::new("/proc").join(pid.trim());
        let give_up = clock::now() + Duration::from_mins(1);
        while process.exists() {
            assert!(clock::now() < give_up, "{process:?} is still there");
            // Between two looks, not instead of one.
            Alarm::after(Duration::from_millis(2)).await;
        }
    });
}

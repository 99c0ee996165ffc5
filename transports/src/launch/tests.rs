use super::*;

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

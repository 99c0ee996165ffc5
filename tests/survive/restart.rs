//! Restarts, as operators and clients see them.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::{Process, fail, lmx, stdout, succeed, text, until};

/// A broker on a Unix socket, with its state in the same folder.
fn start(folder: &Path) -> Process {
    let mut process = Process::spawn(start_command(folder));
    assert_eq!(process.json_line()["ready"], true);
    process
}

fn start_command(folder: &Path) -> std::process::Command {
    let mut command = lmx(["start", "--no-tcp", "--json", "--log", "error"]);
    command
        .args(["--unix", text(&folder.join("socket"))])
        .args(["--state-dir", text(&folder.join("state"))]);
    command
}

fn told(folder: &Path, args: &[&str]) -> std::process::Command {
    let mut command = lmx(args);
    command
        .env("LMX_UNIX", folder.join("socket"))
        .current_dir(folder);
    command
}

fn kill(mut broker: Process) {
    broker.signal(Signal::SIGKILL);
    broker.wait();
}

fn state_file(folder: &Path) -> std::path::PathBuf {
    std::fs::read_dir(folder.join("state"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|end| end == "state"))
        .expect("a state file")
}

#[test]
fn a_kept_lock_is_still_held_after_a_crash() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let broker = start(folder);
    succeed(&mut told(folder, &["acquire", "kept"]));
    kill(broker);
    let broker = start(folder);
    fail(&mut told(folder, &["acquire", "kept", "--try"]), 1);
    succeed(&mut told(folder, &["release", "kept"]));
    kill(broker);
    let _broker = start(folder);
    succeed(&mut told(folder, &["acquire", "kept", "--wait", "1m"]));
}

#[test]
fn tokens_rise_over_every_kind_of_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let mut last = 0;
    for signal in [
        Signal::SIGKILL,
        Signal::SIGTERM,
        Signal::SIGKILL,
        Signal::SIGINT,
    ] {
        let mut broker = start(folder);
        let output = stdout(&mut told(
            folder,
            &["acquire", "key", "--json", "--wait", "1m"],
        ));
        let grant: serde_json::Value = serde_json::from_str(&output).expect("JSON");
        let token = grant["token"].as_u64().expect("a token");
        assert!(token > last, "{token} after {last}");
        last = token;
        succeed(&mut told(folder, &["release", "key"]));
        broker.signal(signal);
        broker.wait();
    }
}

#[test]
fn a_command_under_a_lock_does_not_notice_a_crash() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let broker = start(folder);
    let script = "echo begun; read line; echo done $line";
    let mut command = told(folder, &["run", "key", "--", "sh", "-c", script]);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    let mut run = command.spawn().expect("it starts");
    let mut input = run.stdin.take().expect("piped");
    until("the command runs", || {
        let seen = stdout(&mut told(folder, &["inspect", "key", "--json"]));
        seen.contains("\"token\"")
    });
    kill(broker);
    let _broker = start(folder);
    // It is back when somebody else can be served, and has its lock.
    succeed(&mut told(folder, &["acquire", "other", "--wait", "1m"]));
    fail(&mut told(folder, &["acquire", "key", "--try"]), 1);
    std::io::Write::write_all(&mut input, b"well\n").expect("written");
    drop(input);
    let output = run.wait_with_output().expect("its end");
    assert!(output.status.success(), "{}", output.status);
    assert_eq!(output.stdout, b"begun\ndone well\n");
    succeed(&mut told(folder, &["acquire", "key", "--wait", "1m"]));
}

#[test]
fn a_state_file_that_cannot_be_used_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    kill(start(folder));
    let path = state_file(folder);
    let whole = std::fs::read(&path).expect("read");
    let mut newer = whole.clone();
    newer[4] = 9;
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("a byte") ^= 1;
    for (damaged, words) in [
        (&whole[..whole.len() / 2], "bytes, and should have"),
        (&flipped, "checksum"),
        (&newer, "format version 9"),
        (&b"hello"[..], "not a state file"),
    ] {
        std::fs::write(&path, damaged).expect("written");
        let output = start_command(folder).output().expect("it starts");
        assert!(!output.status.success());
        assert_eq!(output.stdout, b"");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(words) && said.contains(text(&path)), "{said}");
    }
    std::fs::write(&path, &whole).expect("written");
    start(folder);
}

#[test]
fn a_state_that_cannot_be_written_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    std::fs::write(folder.join("state"), "in the way").expect("written");
    let output = start_command(folder).output().expect("it starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot write the state file"), "{said}");
    // Who does not want one need not have one.
    let mut command = lmx(["start", "--no-tcp", "--json", "--ephemeral"]);
    command.args(["--unix", text(&folder.join("socket"))]);
    assert_eq!(Process::spawn(command).json_line()["ready"], true);
}

#[test]
fn after_a_clean_stop_with_nothing_held_it_serves_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let mut broker = start(folder);
    succeed(&mut told(folder, &["run", "key", "--", "true"]));
    broker.signal(Signal::SIGTERM);
    assert!(broker.wait().success());
    let _broker = start(folder);
    succeed(&mut told(folder, &["run", "key", "--try", "--", "true"]));
}

#[test]
fn a_successor_takes_over_the_sockets_that_a_supervisor_holds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("its address");
    // As a supervisor does: the socket is the program's descriptor 3.
    let start = || {
        let mut command = std::process::Command::new("sh");
        let socket = std::os::fd::OwnedFd::from(listener.try_clone().expect("another handle"));
        command
            .arg("-c")
            .arg(
                "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" start --json \
                 --log error --state-dir state",
            )
            .arg(env!("CARGO_BIN_EXE_lmx"))
            .stdin(socket)
            .current_dir(folder);
        let mut process = Process::spawn(command);
        let ready = process.json_line();
        assert_eq!(ready["addresses"][0]["tcp"], address.to_string());
        process
    };
    let told = |args: &[&str]| {
        let mut command = lmx(args);
        command
            .env("LMX_HOST", "127.0.0.1")
            .env("LMX_PORT", address.port().to_string());
        command
    };
    let mut first = start();
    succeed(&mut told(&["acquire", "kept"]));
    first.signal(Signal::SIGTERM);
    assert!(first.wait().success());
    // Nobody accepts at the moment, and yet no attempt is refused.
    let mut waiting = told(&["release", "kept"]).spawn().expect("it starts");
    let _second = start();
    assert!(waiting.wait().expect("its end").success());
}

#[test]
fn a_supervisor_is_told_when_it_is_ready() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let path = folder.join("notify");
    let supervisor = std::os::unix::net::UnixDatagram::bind(&path).expect("bound");
    let mut command = start_command(folder);
    command.env("NOTIFY_SOCKET", &path);
    let broker = Process::spawn(command);
    let mut buffer = [0; 256];
    let mut heard = || {
        let bytes = supervisor.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    };
    assert!(heard().contains("READY=1"));
    broker.signal(Signal::SIGTERM);
    assert!(heard().contains("STOPPING=1"));
}

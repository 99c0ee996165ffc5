//! `--launch`: the broker that is there, or a new one.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;

use super::harness::{Process, lmx, succeed, text, until_dead};

#[test]
fn of_many_that_start_at_one_time_exactly_one_launches_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lmx.sock");
    let mut all: Vec<Process> = (0..8)
        .map(|number| {
            let key = format!("key {number}");
            Process::spawn(lmx(["acquire", &key, "--launch", "--unix", text(&socket)]))
        })
        .collect();
    for acquire in &mut all {
        assert_eq!(acquire.code(), 0);
    }
    let broker = Launched(who_listens(&socket));
    let listed = succeed(&mut lmx(["ls", "--json", "--unix", text(&socket)]));
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 8);
    // It is there for the next one as well.
    succeed(&mut lmx([
        "run",
        "k",
        "--launch",
        "--unix",
        text(&socket),
        "--",
        "true",
    ]));
    assert_eq!(who_listens(&socket), broker.0);
    kill(broker.0, Signal::SIGTERM).unwrap();
    until_dead(broker.0);
    assert!(!socket.exists());
}

/// A broker that nobody waits for; it does not outlive its test.
struct Launched(Pid);

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// The process that listens on a Unix socket.
fn who_listens(socket: &Path) -> Pid {
    let stream = UnixStream::connect(socket).unwrap();
    let credentials = getsockopt(&stream.as_fd(), PeerCredentials).unwrap();
    Pid::from_raw(credentials.pid())
}

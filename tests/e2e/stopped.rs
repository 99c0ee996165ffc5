//! Holders that are stopped past their lease.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use lmx::{ReleaseError, blocking};
use nix::sys::signal::Signal;

use super::harness::{Broker, Process, lives, succeed};

/// Tells [`holder_process`] the broker's port.
const HOLDER: &str = "LMX_TEST_HOLDER_PORT";

/// Not a test but a process that the next one starts: it holds a lock for half a second,
/// and once that is lost says how its release was taken.
#[test]
fn holder_process() {
    let Ok(port) = std::env::var(HOLDER) else {
        return;
    };
    let client = blocking::Client::connect(&format!("127.0.0.1:{port}")).unwrap();
    let lease = Duration::from_millis(500);
    let guard = client.lock("k").lease(lease).acquire().unwrap();
    let mut out = std::io::stdout();
    // What the test runner prints has no line end here.
    writeln!(out, "\ntoken {}", guard.token()).unwrap();
    let loss = guard.lost();
    writeln!(out, "{loss:?}, valid: {}", guard.is_valid()).unwrap();
    match guard.release() {
        Err(ReleaseError::Lost(why)) => writeln!(out, "refused: {why:?}").unwrap(),
        other => writeln!(out, "{other:?}").unwrap(),
    }
}

#[test]
fn a_stopped_holder_is_passed_by_and_learns_it_when_it_goes_on() {
    let broker = Broker::start();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "stopped::holder_process",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(HOLDER, broker.port.to_string())
        .stderr(Stdio::inherit());
    let mut holder = Process::spawn(command);
    let first = loop {
        if let Some(token) = holder.line().strip_prefix("token ") {
            break token.parse::<u64>().unwrap();
        }
    };
    holder.signal(Signal::SIGSTOP);

    let second = broker.json(&["acquire", "k", "--wait", "forever"]);
    assert!(second["token"].as_u64().unwrap() > first);
    let granted = broker.json(&["inspect", "k"]);
    assert_eq!(granted["holders"][0]["id"], second["id"]);

    holder.signal(Signal::SIGCONT);
    assert_eq!(holder.line(), "Expired, valid: false");
    assert_eq!(holder.line(), "refused: Expired");
    // And the second holder has not been touched.
    assert_eq!(
        broker.json(&["inspect", "k"])["holders"][0]["id"],
        second["id"]
    );
}

#[test]
fn the_command_of_a_stopped_run_is_dead_before_the_next_one_starts() {
    let broker = Broker::start();
    let options = ["--lease", "2s"];
    let mut first = Process::spawn(broker.run_sh("k", &options, "echo $$; sleep 1000"));
    let shell = first.pid_line();
    first.signal(Signal::SIGSTOP);
    // Granted when the lease ends; by then the watchdog has killed the first command.
    let script = format!("test -e /proc/{shell} && cat /proc/{shell}/stat || echo gone");
    let mut second = Process::spawn(broker.run_sh("k", &[], &script));
    let seen = second.line();
    assert!(seen == "gone" || seen.contains(") Z "), "{seen}");
    assert_eq!(second.code(), 0);
    first.signal(Signal::SIGCONT);
    assert_eq!(first.code(), 79);
}

#[test]
fn a_run_that_was_stopped_with_its_watchdog_kills_its_command_when_it_goes_on() {
    let broker = Broker::start();
    let options = ["--lease", "2s"];
    let mut first = Process::spawn(broker.run_sh("k", &options, "echo $$; sleep 1000"));
    let shell = first.pid_line();
    let others = super::run::children(first.pid());
    first.signal(Signal::SIGSTOP);
    for child in others.iter().filter(|child| **child != shell) {
        nix::sys::signal::kill(*child, Signal::SIGSTOP).unwrap();
    }
    succeed(&mut broker.lmx(["run", "k", "--", "true"]));
    assert!(lives(shell), "nobody was there to kill it");
    first.signal(Signal::SIGCONT);
    for child in others.iter().filter(|child| **child != shell) {
        let _ = nix::sys::signal::kill(*child, Signal::SIGCONT);
    }
    assert_eq!(first.code(), 79);
    assert!(!lives(shell));
}

#[test]
fn a_run_whose_watchdog_is_stopped_ends_with_its_command() {
    let broker = Broker::start();
    let script = "echo $$; while ! test -e go; do sleep 0.02; done; exit 5";
    let mut run = Process::spawn(broker.run_sh("k", &[], script));
    let shell = run.pid_line();
    let mut watchdogs = super::run::children(run.pid());
    watchdogs.retain(|child| *child != shell);
    for watchdog in watchdogs {
        nix::sys::signal::kill(watchdog, Signal::SIGSTOP).unwrap();
    }
    broker.write("go", "");
    assert_eq!(run.code(), 5);
    assert_eq!(broker.counts("k"), (0, 0));
}

#[test]
fn a_stopped_run_under_an_ignored_loss_goes_on() {
    let broker = Broker::start();
    let mut run = Process::spawn(broker.run_sh(
        "k",
        &["--lease", "2s", "--on-lost", "ignore"],
        "echo $$; while ! test -e go; do sleep 0.02; done; exit 5",
    ));
    let shell = run.pid_line();
    run.signal(Signal::SIGSTOP);
    succeed(&mut broker.lmx(["run", "k", "--", "true"]));
    run.signal(Signal::SIGCONT);
    assert!(lives(shell));
    broker.write("go", "");
    assert_eq!(run.code(), 5);
}

#[test]
fn a_run_that_has_lost_its_lock_before_its_command_began_does_not_begin_it() {
    let broker = Broker::start();
    for on_lost in ["term", "kill", "ignore"] {
        let options = ["--lease", "500ms", "--on-lost", on_lost];
        let held = broker.json(&["acquire", "k"]);
        let mut run = Process::spawn(broker.run_sh("k", &options, "touch ran"));
        broker.until_counts("k", 1, 1);
        run.signal(Signal::SIGSTOP);
        succeed(&mut broker.lmx(["release", "k", "--id", held["id"].as_str().unwrap()]));
        // Granted to the one that is stopped, and then to this one, when its lease is over.
        succeed(&mut broker.lmx(["run", "k", "--", "true"]));
        run.signal(Signal::SIGCONT);
        assert_eq!(run.code(), 79, "{on_lost}");
        assert!(!broker.path("ran").exists(), "{on_lost}");
        assert_eq!(broker.counts("k"), (0, 0));
    }
}

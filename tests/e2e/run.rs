//! `lmx run`: what it does for a command that runs, and to one that may not.

use std::process::Command;

use nix::sys::signal::{Signal, kill, killpg};

use super::harness::{Broker, Process, fail, lives, stdout, succeed, until, until_dead};

#[test]
fn fifty_at_one_time_lose_no_update() {
    let broker = Broker::start();
    broker.write("n", "0");
    let script = "n=$(cat n); echo $((n + 1)) > n";
    let mut all: Vec<Process> = (0..50)
        .map(|_| Process::spawn(broker.run_sh("counter", &[], script)))
        .collect();
    for run in &mut all {
        assert_eq!(run.code(), 0);
    }
    assert_eq!(broker.read("n").trim(), "50");
    assert_eq!(broker.counts("counter"), (0, 0));
}

#[test]
fn the_commands_exit_status_is_passed_on() {
    let broker = Broker::start();
    for code in [0, 1, 7, 64, 79, 255] {
        let mut command = broker.run_sh("k", &[], &format!("exit {code}"));
        assert_eq!(command.status().unwrap().code(), Some(code));
    }
}

#[test]
fn a_signal_that_ended_the_command_shows_as_128_and_its_number() {
    let broker = Broker::start();
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("INT", 130), ("SEGV", 139)] {
        let mut command = broker.run_sh("k", &[], &format!("kill -{signal} $$"));
        assert_eq!(command.status().unwrap().code(), Some(code), "{signal}");
    }
}

#[test]
fn a_command_that_cannot_be_run_is_told_from_one_that_is_not_there() {
    let broker = Broker::start();
    let words = fail(&mut broker.lmx(["run", "k", "--", "no-such-command"]), 127);
    assert!(words.contains("no-such-command"), "{words}");
    broker.write("text", "no program");
    fail(&mut broker.lmx(["run", "k", "--", "./text"]), 126);
    assert_eq!(broker.counts("k"), (0, 0));
}

#[test]
fn standard_streams_are_passed_through() {
    use std::io::Write as _;
    use std::process::Stdio;

    let broker = Broker::start();
    let mut command = broker.run_sh("k", &[], "cat; echo oops >&2");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"in\0out").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"in\0out");
    assert_eq!(output.stderr, b"oops\n");
}

#[test]
fn there_is_no_shell_in_between() {
    let broker = Broker::start();
    let args = ["a b", "$HOME", "; exit 9", "*", "--flag", "'\"", ""];
    let mut command = broker.lmx(["run", "k", "--", "printf", "%s|"]);
    assert_eq!(
        stdout(command.args(args)),
        "a b|$HOME|; exit 9|*|--flag|'\"||"
    );
}

#[test]
fn the_lock_is_exported_over_what_was_inherited() {
    let broker = Broker::start();
    let script = "echo $LMX_KEY; echo $LMX_TOKEN; echo $LMX_ID; \
                  \"$LMX\" inspect \"$LMX_KEY\" --json";
    let mut command = broker.run_sh("the key", &[], script);
    command
        .env("LMX", env!("CARGO_BIN_EXE_lmx"))
        .env("LMX_KEY", "old")
        .env("LMX_TOKEN", "old")
        .env("LMX_ID", "old");
    let printed = stdout(&mut command);
    let lines: Vec<&str> = printed.lines().collect();
    let [key, token, id, json] = lines[..] else {
        panic!("{printed}");
    };
    let seen: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(key, "the key");
    assert_eq!(seen["holders"][0]["token"].to_string(), token);
    assert_eq!(seen["holders"][0]["id"], id);
    let session = seen["holders"][0]["session"].as_str().unwrap();
    assert!(session.starts_with("lmx run sh, pid "), "{session}");
}

#[test]
fn a_try_that_finds_it_held_has_its_own_code() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k", "--label", "the first"]));
    for (options, code) in [
        (&["--try"][..], 1),
        (&["--try", "-E", "9"], 9),
        (&["--try", "--exit-busy", "10", "-E", "9"], 10),
        // Not to wait is not to have waited in vain.
        (&["--wait", "0", "--exit-timeout", "10"], 1),
    ] {
        let words = fail(&mut broker.run_sh("k", options, "touch ran"), code);
        assert!(words.contains("the first"), "{words}");
    }
    assert_eq!(broker.counts("k"), (1, 0));
    assert!(!broker.path("ran").exists());
}

#[test]
fn a_wait_that_ends_has_its_own_code_and_leaves_no_waiter() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k"]));
    for (options, code) in [
        (&["--wait", "20ms"][..], 75),
        (&["--wait", "20", "-E", "9"], 9),
        (&["--wait", "20ms", "--exit-timeout", "10"], 10),
    ] {
        fail(&mut broker.run_sh("k", options, "touch ran"), code);
        assert_eq!(broker.counts("k"), (1, 0));
    }
    assert!(!broker.path("ran").exists());
}

#[test]
fn no_broker_has_its_own_code() {
    let mut broker = Broker::start();
    broker.signal(Signal::SIGTERM);
    broker.wait();
    let words = fail(&mut broker.run_sh("k", &[], "touch ran"), 69);
    assert!(words.contains("lmx start"), "{words}");
    let options = ["--exit-unreachable", "9"];
    fail(&mut broker.run_sh("k", &options, "touch ran"), 9);
    assert!(!broker.path("ran").exists());
}

#[test]
fn signals_reach_the_whole_group_of_the_command() {
    let broker = Broker::start();
    // The shell and one of its children each say that they heard it.
    let script = "\
        exec 3>&1; \
        trap 'echo shell; exit 3' HUP INT QUIT TERM USR1 USR2; \
        sh -c 'trap \"echo child >&3; exit 0\" HUP INT QUIT TERM USR1 USR2; echo up >&3; \
               while :; do sleep 0.01; done' | cat";
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        let mut run = Process::spawn(broker.run_sh("k", &[], script));
        assert_eq!(run.line(), "up");
        run.signal(signal);
        let mut heard: Vec<String> = run.rest().lines().map(str::to_owned).collect();
        heard.sort();
        assert_eq!(heard, ["child", "shell"], "{signal}");
        assert_eq!(run.code(), 3, "{signal}");
    }
}

#[test]
fn a_signal_while_queued_cancels_the_wait_at_the_broker() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k"]));
    for (signal, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGINT, 130),
        (Signal::SIGHUP, 129),
        (Signal::SIGQUIT, 131),
    ] {
        let mut run = Process::spawn(broker.run_sh("k", &[], "touch ran"));
        broker.until_counts("k", 1, 1);
        run.signal(signal);
        assert_eq!(run.code(), code);
        assert_eq!(broker.counts("k"), (1, 0));
    }
    assert!(!broker.path("ran").exists());
}

#[test]
fn a_killed_wait_leaves_the_queue() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k"]));
    let run = Process::spawn(broker.run_sh("k", &["--lease", "1h"], "touch ran"));
    broker.until_counts("k", 1, 1);
    run.signal(Signal::SIGKILL);
    broker.until_counts("k", 1, 0);
    assert!(!broker.path("ran").exists());
}

#[test]
fn nobody_is_left_behind_by_a_killed_run() {
    let broker = Broker::start();
    let script = "sleep 1000 & echo $$; echo $!; trap '' HUP TERM; wait";
    // The lease is long: it is the watchdog that gives the lock back.
    let mut run = Process::spawn(broker.run_sh("k", &["--lease", "1h"], script));
    let (shell, sleep) = (run.pid_line(), run.pid_line());
    run.signal(Signal::SIGKILL);
    until_dead(shell);
    until_dead(sleep);
    broker.until_counts("k", 0, 0);
}

#[test]
fn the_watchdog_gives_the_lock_back_to_a_broker_that_asks_for_a_token() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "secret").unwrap();
    let broker = Broker::start_in(folder, &["--auth-token-file", "token"]);
    let token = ["--auth-token-file", "token"];
    let options = [&["--lease", "1h"][..], &token].concat();
    let mut run = Process::spawn(broker.run_sh("k", &options, "echo $$; sleep 1000"));
    let shell = run.pid_line();
    run.signal(Signal::SIGKILL);
    let mut next = broker.lmx(["run", "k"]);
    succeed(next.args(token).args(["--", "true"]));
    assert!(!lives(shell));
}

#[test]
fn nobody_is_left_behind_by_a_run_that_is_killed_with_its_watchdog() {
    let broker = Broker::start();
    let mut run =
        Process::spawn(broker.run_sh("k", &["--lease", "2s"], "echo $$; exec sleep 1000"));
    let shell = run.pid_line();
    for child in children(run.pid()) {
        if child != shell {
            kill(child, Signal::SIGKILL).unwrap();
        }
    }
    run.signal(Signal::SIGKILL);
    until_dead(shell);
    broker.until_counts("k", 0, 0);
}

/// The machine cannot be suspended here, so this asks the kernel what the watchdog waits for.
#[test]
fn the_watchdog_counts_the_time_that_the_machine_is_suspended() {
    let broker = Broker::start();
    let mut run = Process::spawn(broker.run_sh("k", &["--lease", "1h"], "echo $$; sleep 1000"));
    let shell = run.pid_line();
    let mut watchdogs = children(run.pid());
    watchdogs.retain(|child| *child != shell);
    let [watchdog] = watchdogs[..] else {
        panic!("{watchdogs:?}");
    };
    let boottime = format!("clockid: {}\n", nix::libc::CLOCK_BOOTTIME);
    until("a timer of the watchdog", || {
        let open = std::fs::read_dir(format!("/proc/{watchdog}/fdinfo")).unwrap();
        open.flatten()
            .any(|fd| std::fs::read_to_string(fd.path()).is_ok_and(|info| info.contains(&boottime)))
    });
}

/// Only one killed with it in the same instant is not there to kill the command's children.
#[test]
fn a_watchdog_that_was_killed_is_replaced() {
    let broker = Broker::start();
    let script = "trap 'echo heard' WINCH; sleep 1000 & echo $$; echo $!; while :; do wait; done";
    let mut run = Process::spawn(broker.run_sh("k", &["--lease", "1h"], script));
    let (shell, sleep) = (run.pid_line(), run.pid_line());
    let watchdogs = || {
        let mut watchdogs = children(run.pid());
        watchdogs.retain(|child| *child != shell);
        watchdogs
    };
    for _ in 0..3 {
        let killed = watchdogs();
        assert_eq!(killed.len(), 1);
        kill(killed[0], Signal::SIGKILL).unwrap();
        until("another watchdog", || {
            let now = watchdogs();
            now.len() == 1 && now != killed
        });
    }
    // Once it passes this on, it has told the last of them what to do.
    run.signal(Signal::SIGWINCH);
    assert_eq!(run.line(), "heard");
    run.signal(Signal::SIGKILL);
    until_dead(shell);
    until_dead(sleep);
    broker.until_counts("k", 0, 0);
}

#[test]
fn what_the_command_leaves_behind_is_ended_before_the_lock_is_given_back() {
    let broker = Broker::start();
    let script = "sh -c 'trap \"\" TERM; while :; do sleep 1000; done' & echo $!";
    let mut run = Process::spawn(broker.run_sh("k", &[], script));
    let left = run.pid_line();
    assert_eq!(run.code(), 0);
    assert!(!lives(left));
    assert_eq!(broker.counts("k"), (0, 0));
}

#[test]
fn a_lock_lost_by_force_ends_the_command() {
    let broker = Broker::start();
    for options in [&[][..], &["--on-lost", "kill"]] {
        let script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 1 & wait $!; done";
        let mut run = Process::spawn(broker.run_sh("k", options, script));
        assert_eq!(run.line(), "up");
        succeed(&mut broker.lmx(["release", "k"]));
        let said = if options.is_empty() { "asked\n" } else { "" };
        assert_eq!(run.rest(), said);
        assert_eq!(run.code(), 79);
    }
}

#[test]
fn a_command_that_does_not_end_for_a_lost_lock_is_killed() {
    let broker = Broker::start();
    let options = ["--exit-lost", "9", "--kill-after", "50ms"];
    let script = "trap '' TERM; echo $$; while :; do sleep 1000; done";
    let mut run = Process::spawn(broker.run_sh("k", &options, script));
    let shell = run.pid_line();
    succeed(&mut broker.lmx(["release", "k"]));
    assert_eq!(run.code(), 9);
    assert!(!lives(shell));
}

#[test]
fn a_command_may_go_on_without_its_lock() {
    let broker = Broker::start();
    nix::unistd::mkfifo(&broker.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = "echo up; read line < fifo; echo $line; exit 5";
    let mut run = Process::spawn(broker.run_sh("k", &["--on-lost", "ignore"], script));
    assert_eq!(run.line(), "up");
    succeed(&mut broker.lmx(["release", "k"]));
    broker.write("fifo", "still here\n");
    assert_eq!(run.line(), "still here");
    assert_eq!(run.code(), 5);
}

#[test]
fn a_command_is_dead_before_its_lease_ends_when_the_broker_is_gone() {
    let broker = Broker::start();
    let options = ["--lease", "2s"];
    let mut run = Process::spawn(broker.run_sh("k", &options, "echo $$; sleep 1000"));
    let shell = run.pid_line();
    broker.signal(Signal::SIGKILL);
    assert_eq!(run.code(), 79);
    assert!(!lives(shell));
}

#[test]
fn a_pause_of_the_broker_that_is_shorter_than_the_lease_costs_nothing() {
    let broker = Broker::start();
    nix::unistd::mkfifo(&broker.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut run = Process::spawn(broker.run_sh(
        "k",
        &["--lease", "30s"],
        "echo up; read line < fifo; exit 4",
    ));
    assert_eq!(run.line(), "up");
    broker.signal(Signal::SIGSTOP);
    broker.signal(Signal::SIGCONT);
    assert_eq!(broker.counts("k"), (1, 0));
    broker.write("fifo", "go\n");
    assert_eq!(run.code(), 4);
}

#[test]
fn a_lock_is_renewed_for_as_long_as_the_command_runs() {
    let broker = Broker::start();
    nix::unistd::mkfifo(&broker.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = "echo up; read line < fifo; exit 4";
    let mut run = Process::spawn(broker.run_sh("k", &[], script));
    assert_eq!(run.line(), "up");
    for _ in 0..3 {
        broker.until_renewed("k");
    }
    broker.write("fifo", "go\n");
    assert_eq!(run.code(), 4);
}

#[test]
fn several_keys_are_held_at_one_time() {
    let broker = Broker::start();
    let mut run =
        Process::spawn(broker.run_sh("a", &["--also", "b", "--also", "c"], "echo up; read x"));
    run.line();
    run.rest();
    assert_eq!(run.code(), 1);
    succeed(&mut broker.lmx(["acquire", "b"]));
    fail(
        &mut broker.lmx(["run", "a", "--also", "b", "--try", "--", "true"]),
        1,
    );
    assert_eq!(broker.counts("a"), (0, 0));
    fail(
        &mut broker.lmx(["run", "a", "--also", "a", "--", "true"]),
        64,
    );
}

#[test]
fn shared_holders_and_permits_go_together() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "s", "--shared"]));
    succeed(&mut broker.lmx(["run", "s", "--shared", "--try", "--", "true"]));
    fail(&mut broker.lmx(["run", "s", "--try", "--", "true"]), 1);
    succeed(&mut broker.lmx(["acquire", "p", "--semaphore", "3:2"]));
    succeed(&mut broker.lmx(["run", "p", "--semaphore", "3", "--try", "--", "true"]));
    fail(
        &mut broker.lmx(["run", "p", "--semaphore", "3:2", "--try", "--", "true"]),
        1,
    );
}

#[test]
fn a_command_that_stops_itself_and_goes_on_keeps_its_lock() {
    let broker = Broker::start();
    let mut run = Process::spawn(broker.run_sh("k", &[], "echo $$; kill -STOP $$; exit 6"));
    let shell = run.pid_line();
    until("the command is stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{shell}/stat")).unwrap_or_default();
        stat.contains(") T ")
    });
    assert_eq!(broker.counts("k"), (1, 0));
    killpg(shell, Signal::SIGCONT).unwrap();
    assert_eq!(run.code(), 6);
}

/// The child processes of `parent`.
pub(crate) fn children(parent: nix::unistd::Pid) -> Vec<nix::unistd::Pid> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    std::fs::read_to_string(path)
        .unwrap()
        .split_whitespace()
        .map(|pid| nix::unistd::Pid::from_raw(pid.parse().unwrap()))
        .collect()
}

/// Runs a command as programs do that ignore their children, or look for signals elsewhere.
fn under_env(how: &str, command: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg(how)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => env.env(name, value),
            None => env.env_remove(name),
        };
    }
    env.current_dir(command.get_current_dir().expect("the broker's folder"));
    env
}

#[test]
fn it_hears_of_the_commands_end_even_if_it_was_started_not_to() {
    let broker = Broker::start();
    for how in ["--ignore-signal=CHLD", "--block-signal=CHLD"] {
        let command = broker.run_sh("k", &[], "exit 7");
        let mut run = Process::spawn(under_env(how, &command));
        until_dead(run.pid());
        assert_eq!(run.code(), 7, "{how}");
    }
}

#[test]
fn the_command_ignores_its_children_if_it_would_without_a_lock() {
    let broker = Broker::start();
    let ask = ["grep", "SigIgn", "/proc/self/status"];
    for how in ["--ignore-signal=CHLD", "--default-signal=CHLD"] {
        let command = under_env(how, broker.lmx(["run", "k", "--"]).args(ask));
        let mut run = Process::spawn(command);
        until_dead(run.pid());
        let without = stdout(Command::new("env").arg(how).args(ask));
        assert_eq!(run.rest().trim_end(), without, "{how}");
    }
}

//! `lmx start`: addresses, sockets, signals.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::harness::{Broker, Process, fail, lmx, stdout, succeed, tcp_port, text, until, within};

#[test]
fn one_line_names_every_address() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lmx.sock");
    let mut broker = Process::spawn(lmx(["start", "0", "--unix", text(&socket), "--json"]));
    let ready = broker.json_line();
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["pid"], broker.pid().as_raw());
    assert_ne!(tcp_port(&ready), Some(0));
    assert_eq!(ready["addresses"][1]["unix"], text(&socket));

    let mut plain = Process::spawn(lmx(["start", "0"]));
    let line = plain.line();
    assert!(line.starts_with("lmx is ready on 127.0.0.1:"), "{line}");
    plain.signal(Signal::SIGTERM);
    assert_eq!(plain.rest(), "");
}

#[test]
fn both_sockets_serve_the_same_locks_at_one_time() {
    let broker = Broker::start_with(&["--unix", "lmx.sock"]);
    let unix = ["--unix", "lmx.sock"];
    succeed(broker.lmx(["acquire", "k"]).args(unix));
    assert_eq!(broker.counts("k"), (1, 0));
    fail(&mut broker.lmx(["acquire", "k", "--try"]), 1);
    succeed(&mut broker.lmx(["release", "k"]));
    succeed(broker.lmx(["acquire", "k", "--try"]).args(unix));
    let mode = std::fs::metadata(broker.path("lmx.sock"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

/// Its disk is full, or who read the log through a pipe has gone.
#[test]
fn a_log_that_nobody_takes_does_not_end_it() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let gone = || Stdio::from(std::io::pipe().unwrap().1);
    for log in [full(), gone()] {
        let mut command = lmx(["start", "0", "--json", "--ephemeral", "--log", "trace"]);
        command.stderr(log);
        let mut broker = Process::spawn(command);
        let port = tcp_port(&broker.json_line()).expect("a TCP address");
        broker.signal(Signal::SIGHUP);
        let port = port.to_string();
        succeed(&mut lmx(["acquire", "k", "--port", &port]));
        broker.signal(Signal::SIGTERM);
        assert_eq!(broker.code(), 0);
    }
}

#[test]
fn how_long_it_stays_awake_is_an_option() {
    for time in ["0", "50us", "1h"] {
        let mut broker = Broker::start_with(&["--busy-poll", time]);
        for _ in 0..3 {
            succeed(&mut broker.lmx(["acquire", "k"]));
            succeed(&mut broker.lmx(["release", "k"]));
        }
        broker.signal(Signal::SIGTERM);
        assert!(broker.wait().success(), "--busy-poll {time}");
    }
}

#[test]
fn a_broker_need_not_listen_on_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = lmx(["start", "--no-tcp", "--unix", "s", "--json"]);
    command.current_dir(folder.path());
    let mut broker = Process::spawn(command);
    let ready = broker.json_line();
    assert_eq!(ready["addresses"].as_array().unwrap().len(), 1);
    assert_eq!(ready["addresses"][0]["unix"], "s");
    let words = fail(&mut lmx(["start", "--no-tcp"]), 64);
    assert!(words.contains("--unix"), "{words}");
}

#[test]
fn sigterm_and_sigint_stop_it_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut broker = Broker::start_with(&["--unix", "lmx.sock"]);
        let waiting = {
            succeed(&mut broker.lmx(["acquire", "k"]));
            let waiting = Process::spawn(broker.lmx(["acquire", "k", "--wait", "forever"]));
            broker.until_counts("k", 1, 1);
            waiting
        };
        broker.signal(signal);
        assert!(broker.wait().success());
        assert!(!broker.path("lmx.sock").exists());
        waiting.signal(Signal::SIGKILL);
    }
}

/// Both come while it is stopped, so that it finds them together: it must not do what takes
/// its time first.
#[test]
fn a_second_signal_stops_it_at_once() {
    let mut broker = Broker::start();
    broker.signal(Signal::SIGSTOP);
    broker.signal(Signal::SIGTERM);
    broker.signal(Signal::SIGINT);
    broker.signal(Signal::SIGCONT);
    let code = broker.wait().code();
    let by_signal = [Signal::SIGTERM, Signal::SIGINT].map(|signal| Some(128 + signal as i32));
    assert!(by_signal.contains(&code), "{code:?}");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lmx.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let start = ["start", "--no-tcp", "--json", "--unix", text(&socket)];
    let mut first = Process::spawn(lmx(start));
    assert_eq!(first.json_line()["ready"], true);

    let words = fail(&mut lmx(start), 69);
    assert!(words.contains(text(&socket)), "{words}");
    succeed(&mut lmx(["status", "--unix", text(&socket)]));

    // Killed, it leaves its socket behind.
    first.signal(Signal::SIGKILL);
    first.wait();
    assert!(socket.exists());
    let mut second = Process::spawn(lmx(start));
    assert_eq!(second.json_line()["ready"], true);
    succeed(&mut lmx(["status", "--unix", text(&socket)]));
}

#[test]
fn what_is_no_socket_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    let words = fail(&mut lmx(["start", "--no-tcp", "--unix", text(&file)]), 71);
    assert!(words.contains("precious"), "{words}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
}

#[test]
fn an_address_in_use_is_named() {
    let broker = Broker::start();
    let port = broker.port.to_string();
    let words = fail(&mut lmx(["start", &port]), 69);
    assert!(words.contains(&format!("127.0.0.1:{port}")), "{words}");
    assert!(words.contains("in use"), "{words}");
}

#[test]
fn limits_that_do_not_go_together_are_refused() {
    let words = fail(&mut lmx(["start", "0", "--frame-bytes-max", "10"]), 64);
    assert!(words.contains("frame_bytes_max is 10"), "{words}");
    fail(&mut lmx(["start", "0", "--connections-max", "0"]), 64);
}

#[test]
fn limits_are_options_and_are_kept() {
    let broker = Broker::start_with(&["--key-bytes-max", "8", "--lease-max", "10s"]);
    succeed(&mut broker.lmx(["acquire", "12345678"]));
    let words = fail(&mut broker.lmx(["acquire", "123456789"]), 64);
    assert!(words.contains('8'), "{words}");
    let words = fail(&mut broker.lmx(["acquire", "k", "--lease", "11s"]), 64);
    assert!(words.contains("10s"), "{words}");
    let help = stdout(&mut lmx(["start", "--help"]));
    for limit in [
        "connections",
        "sessions",
        "keys",
        "requests-per-session",
        "key-bytes",
        "frame-bytes",
    ] {
        assert!(help.contains(&format!("--{limit}-max")), "{limit}");
    }
}

#[test]
fn an_authentication_token_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "secret\n").unwrap();
    let broker = Broker::start_in(folder, &["--auth-token-file", "token"]);
    let words = fail(&mut broker.lmx(["status"]), 77);
    assert!(words.contains("--auth-token-file"), "{words}");
    fail(broker.lmx(["status"]).env("LMX_AUTH_TOKEN", "guess"), 77);
    succeed(&mut broker.lmx(["status", "--auth-token-file", "token"]));
    succeed(
        broker
            .lmx(["run", "k", "--", "true"])
            .env("LMX_AUTH_TOKEN", "secret"),
    );
}

#[test]
fn logs_go_to_standard_error() {
    let mut command = lmx(["start", "0", "--log", "info"]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut broker = Process::spawn(command);
    assert!(broker.line().contains("ready"));
    broker.signal(Signal::SIGTERM);
    assert_eq!(broker.rest(), "");
    broker.wait();
    assert!(std::fs::read_to_string(&log).unwrap().contains("INFO"));
}

#[test]
fn sighup_without_certificates_is_logged_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = lmx(["start", "0", "--ephemeral"]);
    command.stderr(File::create(&log).unwrap());
    let mut broker = Process::spawn(command);
    assert!(broker.line().contains("ready"));
    broker.signal(Signal::SIGHUP);
    until("a word about it", || {
        std::fs::read_to_string(&log).unwrap().contains("SIGHUP")
    });
    broker.signal(Signal::SIGTERM);
    assert!(broker.wait().success());
}

#[test]
fn a_limit_that_is_too_low_for_anything_is_told_of() {
    for limit in 4..=8 {
        for command in [
            lmx(["start", "0", "--ephemeral"]),
            lmx(["acquire", "k"]),
            lmx(["run", "k", "--", "true"]),
        ] {
            let limit = format!("-n {limit}");
            let words = fail(&mut within(&limit, &command), 71);
            assert!(words.contains("ulimit -n"), "{limit}: {words}");
        }
    }
}

/// Whatever the limit: a broker that says that it is ready serves somebody.
#[test]
fn a_broker_that_is_ready_has_room_for_a_connection() {
    let mut seen = [false; 2];
    for limit in 16..40 {
        let folder = tempfile::tempdir().unwrap();
        let mut command = lmx(["start", "0", "--json", "--log", "error"]);
        command.args(["--unix", "s", "--state-dir", "."]);
        command.current_dir(folder.path());
        let mut broker = Process::spawn(within(&format!("-n {limit}"), &command));
        let line = broker.line();
        seen[usize::from(line.is_empty())] = true;
        if line.is_empty() {
            assert_eq!(broker.code(), 71);
        } else {
            let mut run = lmx(["run", "k", "--unix", "s", "--", "true"]);
            succeed(run.current_dir(folder.path()));
        }
    }
    assert_eq!(seen, [true, true]);
}

#[test]
fn a_limit_that_is_too_low_for_the_connections_is_warned_of_once() {
    for (connections_max, warnings) in [("40", 0), ("16384", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let state = ["--state-dir", text(folder.path())];
        let mut command = lmx(["start", "0", "--connections-max", connections_max]);
        let mut command = within("-n 100", command.args(state));
        command.stderr(File::create(&log).unwrap());
        let mut broker = Process::spawn(command);
        assert!(broker.line().contains("ready"));
        let log = std::fs::read_to_string(&log).unwrap();
        assert_eq!(log.matches("WARN").count(), warnings, "{log}");
        assert_eq!(log.matches("may open 100").count(), warnings, "{log}");
    }
}

#[test]
fn a_state_that_may_not_be_written_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let start = lmx(["start", "0", "--state-dir", text(folder.path())]);
    let words = fail(&mut within("-f 0", &start), 71);
    assert!(words.contains("cannot write the state file"), "{words}");
}

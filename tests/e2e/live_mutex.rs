//! The command line of live-mutex, as scripts use it.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::harness::{Broker, Process, fail, program, stdout, succeed, text};

#[test]
fn its_positional_arguments_name_key_and_port() {
    let broker = Broker::start();
    let port = broker.port.to_string();
    succeed(program("lmx_acquire_lock").args(["foo", &port]));
    assert_eq!(broker.counts("foo"), (1, 0));
    assert!(stdout(program("lmx_ls").arg(&port)).contains("foo"));
    succeed(program("lmx_release_lock").args(["foo", &port]));
    assert_eq!(broker.counts("foo"), (0, 0));
    fail(program("lmx_release_lock").args(["foo", &port]), 80);
    fail(&mut program("lmx_acquire_lock"), 64);
}

#[test]
fn its_option_objects_name_everything() {
    let broker = Broker::start();
    let object = format!(r#"{{"port":{},"key":"foo","ttl":null}}"#, broker.port);
    succeed(program("lmx").args(["acquire", "--json", &object]));
    assert_eq!(broker.counts("foo"), (1, 0));
    let waits = format!(
        r#"{{"port":{},"key":"foo","lockRequestTimeout":5,"maxRetries":2}}"#,
        broker.port
    );
    fail(program("lmx").args(["acquire", "--json", &waits]), 75);
    succeed(program("lmx_release_lock").args(["--json", &object]));
    let ttl = format!(r#"{{"port":{},"key":7,"ttl":50,"max":2}}"#, broker.port);
    succeed(program("lmx_acquire_lock").args(["--json", &ttl]));
    broker.until_counts("7", 0, 0);
    let place = format!(r#"{{"port":{}}}"#, broker.port);
    assert!(stdout(program("lmx_ls").args(["--json", &place])).contains("no key"));
}

#[test]
fn its_environment_names_what_is_not_typed() {
    let broker = Broker::start();
    let told = |name: &str| {
        let mut command = program(name);
        command
            .env("live_mutex_host", "127.0.0.1")
            .env("live_mutex_port", broker.port.to_string())
            .env("live_mutex_key", "from the environment");
        command
    };
    succeed(&mut told("lmx_acquire_lock"));
    assert_eq!(broker.counts("from the environment"), (1, 0));
    succeed(&mut told("lmx_release_lock"));
    succeed(&mut told("lmx_ls"));
}

#[test]
fn its_unix_socket_lies_at_home() {
    let home = tempfile::tempdir().unwrap();
    let mut command = program("lmx_start_server");
    command
        .args(["--use-uds", "--json"])
        .env("HOME", home.path());
    let mut broker = Process::spawn(command);
    let ready = broker.json_line();
    let socket = home.path().join(".lmx/uds.sock");
    assert_eq!(ready["addresses"][0]["unix"], text(&socket));
    assert_eq!(ready["addresses"].as_array().unwrap().len(), 1);
    succeed(
        program("lmx_acquire_lock")
            .args(["foo", "--use-uds"])
            .env("HOME", home.path()),
    );
    succeed(
        program("lmx_release_lock")
            .arg("foo")
            .env("use_uds", "yes")
            .env("HOME", home.path()),
    );
    let object = format!(r#"{{"udsPath":"{}"}}"#, text(&socket));
    succeed(program("lmx_ls").args(["--json", &object]));
    broker.signal(Signal::SIGTERM);
    assert_eq!(broker.code(), 0);
}

#[test]
fn its_brokers_options_come_in_an_object() {
    let mut command = program("lmx_launch_broker");
    command.args(["--json", r#"{"port":0,"host":"127.0.0.1"}"#]);
    let mut broker = Process::spawn(command);
    let line = broker.line();
    let (_, port) = line.rsplit_once(':').expect("an address");
    succeed(program("lmx_ls").arg(port));
}

#[test]
fn what_its_brokers_options_cannot_have_is_told() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("log");
    let mut command = program("lmx_start_server");
    command
        .args(["--json", r#"{"port":0,"lockExpiresAfter":60000}"#])
        .stderr(File::create(&log).unwrap());
    let mut broker = Process::spawn(command);
    broker.line();
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("lockExpiresAfter is ignored"), "{log}");
}

#[test]
fn its_inspection_is_a_dialogue() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "foo"]));
    let mut command = program("lmx_inspect_broker");
    command.args([&broker.port.to_string(), "127.0.0.1"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let commands = b"lockcount\nclientcount\nhelp\nls\nfly\n";
    child.stdin.take().unwrap().write_all(commands).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.contains("server response: 1\n"), "{said}");
    assert!(
        said.contains("foo") && said.contains("no command fly"),
        "{said}"
    );
}

//! What a newcomer gets wrong first: each says what was wrong and what would be right.

use snapbox::{assert_data_eq, str};

use super::harness::{Broker, fail, lmx, program, stdout};

fn says(args: &[&str], code: i32) -> String {
    fail(&mut lmx(args), code)
}

#[test]
fn nothing_at_all_shows_the_help() {
    let words = says(&[], 64);
    assert!(words.contains("Usage: lmx <COMMAND>"), "{words}");
    assert!(words.contains("Exit codes:"), "{words}");
}

#[test]
fn no_broker() {
    // Port 1 is nobody's.
    assert_data_eq!(
        says(&["status", "1"], 69),
        str![[r"
lmx: no broker answers at localhost:1 ([..]); start one with `lmx start 1`
     or let this command start it: --launch

"]]
    );
    let missing = says(&["acquire", "k", "--unix", "/nonexistent/lmx.sock"], 69);
    assert!(missing.contains("/nonexistent/lmx.sock"), "{missing}");
}

#[test]
fn no_such_host() {
    let host = "no such host";
    let words = says(&["status", "--host", host], 69);
    assert!(words.contains("cannot find the address"), "{words}");
    assert!(words.contains(host) && !words.contains("start"), "{words}");
    let words = says(&["status", "--host", host, "--launch"], 69);
    assert!(words.contains("cannot find the address"), "{words}");
}

#[test]
fn a_broker_is_not_launched_on_another_machine() {
    assert_data_eq!(
        says(
            &["acquire", "k", "7000", "--host", "192.0.2.1", "--launch"],
            64
        ),
        str![[r"
lmx: 192.0.2.1:7000 is no address of this machine: a broker cannot be started there from here
     leave --launch out, and start the broker on its own machine

"]]
    );
}

#[test]
fn numbers_that_are_none() {
    assert_data_eq!(
        says(&["start", "0", "--connections-max", "0"], 64),
        str![[r"
error: invalid value '0' for '--connections-max <N>': write a number from 1 to 4294967295

For more information, try '--help'.

"]]
    );
    let words = says(&["bench", "--keys", "0"], 64);
    assert!(words.contains("from 1"), "{words}");
    let words = says(&["start", "--unix", "s", "--unix-mode", "0"], 64);
    assert!(words.contains("nobody could connect"), "{words}");
}

#[test]
fn something_else_at_the_port() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let answer = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
    });
    let words = says(&["status", &port], 69);
    assert!(words.contains("LMX broker"), "{words}");
    answer.join().unwrap();
}

#[test]
fn a_port_that_is_none() {
    assert_data_eq!(
        says(&["acquire", "k", "http"], 64),
        str![[r"
error: invalid value 'http' for '[PORT]': a port is a number from 0 to 65535; the default is 6970

For more information, try '--help'.

"]]
    );
    let words = says(&["status", "0"], 64);
    assert!(words.contains("port 0"), "{words}");
    let words = fail(lmx(["status"]).env("LMX_PORT", "many"), 64);
    assert!(
        words.contains("LMX_PORT") && words.contains("many"),
        "{words}"
    );
}

#[test]
fn keys_that_are_none() {
    let broker = Broker::start();
    let words = fail(&mut broker.lmx(["acquire", ""]), 64);
    assert!(words.contains("the key is empty"), "{words}");
    let words = fail(&mut broker.lmx(["run", "", "--", "true"]), 64);
    assert!(words.contains("the key is empty"), "{words}");
    let words = fail(&mut broker.lmx(["acquire"]), 64);
    assert!(words.contains("no key"), "{words}");
    let long = "k".repeat(1025);
    for args in [
        &["acquire", &long][..],
        &["run", &long, "--", "true"],
        &["inspect", &long],
        &["release", &long],
    ] {
        let words = fail(&mut broker.lmx(args), 64);
        assert!(words.contains("1024"), "{words}");
    }
    let longest = "k".repeat(1024);
    super::harness::succeed(&mut broker.lmx(["run", &longest, "--", "true"]));
}

#[test]
fn leases_that_are_none() {
    let broker = Broker::start();
    for lease in [
        "0",
        "0s",
        "-1",
        "Infinity",
        "NaN",
        "4 fortnights",
        "1e3",
        "",
    ] {
        let lease = format!("--lease={lease}");
        fail(&mut broker.lmx(["acquire", "k", &lease]), 64);
        fail(&mut broker.lmx(["run", "k", &lease, "--", "true"]), 64);
    }
    let words = fail(&mut broker.lmx(["acquire", "k", "--lease", "10years"]), 64);
    assert!(words.contains("at most 30days"), "{words}");
    let delay = ["acquire", "k", "--lock-delay", "1day"];
    let words = fail(&mut broker.lmx(delay), 64);
    assert!(words.contains("at most 1m"), "{words}");
    assert!(!words.contains("60s"), "{words}");
    let long = [
        "run",
        "k",
        "--lease",
        "4s",
        "--kill-after",
        "3s",
        "--",
        "true",
    ];
    let words = fail(&mut broker.lmx(long), 64);
    assert!(words.contains("--lease"), "{words}");
    assert_eq!(broker.counts("k"), (0, 0));
}

#[test]
fn flags_that_are_none() {
    assert_data_eq!(
        says(&["acquire", "k", "--leese", "4s"], 64),
        str![[r"
error: unexpected argument '--leese' found

  tip: a similar argument exists: '--lease'

Usage: lmx acquire --lease <TIME> <KEY> [PORT]

For more information, try '--help'.

"]]
    );
    let words = says(&["aquire", "k"], 64);
    assert!(words.contains("acquire"), "{words}");
    let words = says(&["acquire", "k", "--try", "--wait", "4s"], 64);
    assert!(words.contains("cannot be used with"), "{words}");
    let words = says(&["status", "6970", "--unix", "s"], 64);
    assert!(words.contains("cannot be used with"), "{words}");
    let words = says(&["acquire", "k", "--semaphore", "2:3"], 64);
    assert!(words.contains("capacity of 2"), "{words}");
}

#[test]
fn a_command_that_is_forgotten() {
    assert_data_eq!(
        says(&["run", "k"], 64),
        str![[r"
error: the following required arguments were not provided:
  <COMMAND>...

Usage: lmx run <KEY> -- <COMMAND>...

For more information, try '--help'.

"]]
    );
    // Before the `--` belongs only the key.
    says(&["run", "k", "make", "all"], 64);
}

#[test]
fn option_objects_that_are_none() {
    let words = says(&["acquire", "--json", "{oops"], 64);
    assert!(words.contains(r#"try --json '{"key""#), "{words}");
    let words = says(&["acquire", "--json", r#"{"prot": 3091}"#], 64);
    assert!(words.contains("prot") && words.contains("port"), "{words}");
}

#[test]
fn help_names_what_matters() {
    let help = stdout(&mut lmx(["run", "--help"]));
    for what in [
        "--on-lost",
        "--exit-lost",
        "LMX_TOKEN",
        "--semaphore",
        "--launch",
    ] {
        assert!(help.contains(what), "{what}");
    }
    let help = stdout(&mut lmx(["--help"]));
    for what in [
        "69",
        "75",
        "79",
        "80",
        "128+n",
        "LMX_HOST",
        "live_mutex_key",
    ] {
        assert!(help.contains(what), "{what}");
    }
    assert_eq!(
        stdout(&mut lmx(["--version"])),
        format!("lmx {}", env!("CARGO_PKG_VERSION"))
    );
    assert!(stdout(program("lmx_acquire_lock").arg("--help")).contains("lmx acquire"));
}

#[test]
fn completions_and_man_pages_come_from_the_same_definitions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&mut lmx(["completions", shell]));
        assert!(script.contains("on-lost"), "{shell}");
        assert!(!script.contains("inspect-broker"), "{shell}");
    }
    says(&["completions", "cmd.exe"], 64);
    assert!(stdout(&mut lmx(["man"])).contains(".TH lmx 1"));
    assert!(stdout(&mut lmx(["man", "launch"])).contains("frame"));
    let words = says(&["man", "fly"], 64);
    assert!(words.contains("acquire, release"), "{words}");
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    stdout(lmx(["man", "--dir"]).arg(&pages));
    assert!(pages.join("lmx.1").exists() && pages.join("lmx-run.1").exists());
    assert!(!pages.join("lmx-inspect-broker.1").exists());
}

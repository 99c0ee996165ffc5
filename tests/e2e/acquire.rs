//! `lmx acquire`, `release`, `ls`, `inspect`, `status`.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::harness::{Broker, Process, fail, stdout, succeed};

#[test]
fn a_lock_outlives_the_process_that_acquired_it() {
    let broker = Broker::start();
    let lock = broker.json(&["acquire", "k"]);
    assert_eq!(lock["key"], "k");
    assert_eq!(lock["deadline"], Value::Null);
    let seen = broker.json(&["inspect", "k"]);
    assert_eq!(seen["holders"][0]["id"], lock["id"]);
    assert_eq!(seen["holders"][0]["token"], lock["token"]);
    assert_eq!(seen["holders"][0]["keep"], true);
    let id = lock["id"].as_str().unwrap();
    succeed(&mut broker.lmx(["release", "k", "--id", id]));
    assert_eq!(broker.counts("k"), (0, 0));
}

#[test]
fn a_lease_ends_by_itself() {
    let broker = Broker::start();
    let lock = broker.json(&["acquire", "k", "--ttl", "100ms"]);
    assert_eq!(lock["remaining_ms"], 100);
    assert!(lock["deadline"].as_str().unwrap().ends_with('Z'));
    broker.until_counts("k", 0, 0);
}

#[test]
fn a_shell_can_evaluate_the_lock() {
    let broker = Broker::start();
    let script = "eval \"$(\"$LMX\" acquire \"it's \\$HOME\" --shell)\" && \
                  \"$LMX\" release \"$LMX_KEY\" --id \"$LMX_ID\" && echo \"$LMX_KEY $LMX_TOKEN\"";
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", script])
        .env("LMX", env!("CARGO_BIN_EXE_lmx"));
    let printed = stdout(broker.told(&mut shell));
    assert!(printed.ends_with("it's $HOME 1"), "{printed}");
}

#[test]
fn plain_output_names_id_token_and_deadline() {
    let broker = Broker::start();
    let plain = stdout(&mut broker.lmx(["acquire", "k"]));
    let words: Vec<&str> = plain
        .lines()
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(words, ["key", "id", "token", "deadline"]);
}

#[test]
fn a_lock_that_cannot_be_told_about_is_not_kept() {
    let broker = Broker::start();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = broker.lmx(["acquire", "k"]);
    command.stdout(Stdio::from(full));
    assert_eq!(command.status().unwrap().code(), Some(71));
    assert_eq!(broker.counts("k"), (0, 0));
}

#[test]
fn release_says_whom_it_ended() {
    let broker = Broker::start();
    let lock = broker.json(&["acquire", "k", "--label", "nightly"]);
    let said = stdout(&mut broker.lmx(["release", "k"]));
    assert!(said.contains(lock["id"].as_str().unwrap()), "{said}");
    assert!(said.contains("nightly"), "{said}");
    let lock = broker.json(&["acquire", "k"]);
    let released = broker.json(&["release", "k"]);
    assert_eq!(released["released"][0]["id"], lock["id"]);
}

#[test]
fn releasing_what_nobody_holds_has_its_own_code() {
    let broker = Broker::start();
    let words = fail(&mut broker.lmx(["release", "k"]), 80);
    assert!(words.contains("nobody holds k"), "{words}");
    let lock = broker.json(&["acquire", "k"]);
    let id = lock["id"].as_str().unwrap();
    fail(&mut broker.lmx(["release", "other", "--id", id]), 80);
    succeed(&mut broker.lmx(["release", "k", "--id", id]));
    fail(&mut broker.lmx(["release", "k", "--id", id]), 80);
    let words = fail(&mut broker.lmx(["release", "k", "--id", "nonsense"]), 80);
    assert!(words.contains("no request nonsense holds k"), "{words}");
}

#[test]
fn every_key_of_a_lock_is_named() {
    let broker = Broker::start();
    let plain = stdout(&mut broker.lmx(["acquire", "a", "--also", "b", "--also", "c d"]));
    let named = "key       a\nalso      b\nalso      \"c d\"\nid ";
    assert!(plain.starts_with(named), "{plain}");
    let lock = broker.json(&["acquire", "e", "--also", "f"]);
    assert_eq!(lock["key"], "e");
    assert_eq!(lock["also"], json!([{ "key": "f" }]));
    // Released as a whole, by any of them.
    let id = lock["id"].as_str().unwrap();
    succeed(&mut broker.lmx(["release", "f", "--id", id]));
    assert_eq!(broker.counts("e"), (0, 0));
}

/// What somebody else holds at this moment, too, and by the id that live-mutex's clients know.
#[test]
fn one_holder_can_be_released_by_the_id_that_is_shown_or_its_own() {
    let broker = Broker::start();
    let mut client = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
    let mut replies = BufReader::new(client.try_clone().unwrap()).lines();
    for id in ["first", "second", "9A3C6D1E-0B52-4F6E-8D6A-2F1F4F4C7A01"] {
        let lock = json!({ "type": "lock", "uuid": id, "key": "k", "max": 3, "ttl": null });
        writeln!(client, "{lock}").unwrap();
        let reply = replies.next().unwrap().unwrap();
        assert!(reply.contains("\"acquired\":true"), "{reply}");
    }
    let seen = broker.json(&["inspect", "k"]);
    let first = seen["holders"][0]["id"].as_str().unwrap();
    succeed(&mut broker.lmx(["release", "k", "--id", first]));
    succeed(&mut broker.lmx(["release", "k", "--id", "second"]));
    assert_eq!(broker.counts("k"), (1, 0));
    let third = "9A3C6D1E-0B52-4F6E-8D6A-2F1F4F4C7A01";
    fail(&mut broker.lmx(["release", "k", "--id", "first"]), 80);
    succeed(&mut broker.lmx(["release", "k", "--id", third]));
    assert_eq!(broker.counts("k"), (0, 0));
}

#[test]
fn a_queue_is_shown_in_its_order() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k", "--label", "first"]));
    let mut waiting = Vec::new();
    for (number, label) in ["second", "third"].into_iter().enumerate() {
        let args = ["acquire", "k", "--wait", "forever", "--label", label];
        waiting.push(Process::spawn(broker.lmx(args)));
        broker.until_counts("k", 1, number + 1);
    }
    let seen = broker.json(&["inspect", "k"]);
    let labels: Vec<&str> = ["holders", "waiters"]
        .iter()
        .flat_map(|side| seen[side].as_array().unwrap())
        .map(|request| request["label"].as_str().unwrap())
        .collect();
    assert_eq!(labels, ["first", "second", "third"]);
    assert_eq!(seen["waiters"][0]["token"], Value::Null);
    assert!(seen["holders"][0]["since"].is_string());

    let plain = stdout(&mut broker.lmx(["inspect", "k"]));
    assert!(
        plain.contains("1 holding") && plain.contains("2 waiting"),
        "{plain}"
    );
    let listed = broker.json(&["ls"]);
    assert_eq!(listed[0]["key"], "k");
    assert_eq!(listed[0]["holders"], 1);
    assert_eq!(listed[0]["waiters"], 2);
    let status = broker.json(&["status"]);
    assert_eq!(
        (&status["held"], &status["waiting"]),
        (&1.into(), &2.into())
    );
    assert!(stdout(&mut broker.lmx(["status"])).contains("uptime"));
}

#[test]
fn keys_are_any_bytes_and_print_safely() {
    let broker = Broker::start();
    let keys: [&[u8]; 4] = [
        b"\xff\xfe",
        b"a\nb\x1b[2J",
        "\u{202e}txt".as_bytes(),
        b"two words",
    ];
    for key in keys {
        let mut acquire = broker.lmx(["acquire"]);
        succeed(acquire.arg(OsStr::from_bytes(key)));
    }
    for args in [&["ls"][..], &["ls", "--json"]] {
        let printed = succeed(&mut broker.lmx(args)).stdout;
        assert!(!printed.contains(&0x1b));
        let text = std::str::from_utf8(&printed).expect("UTF-8");
        assert!(!text.contains('\u{202e}') || args.len() == 2);
    }
    let listed = broker.json(&["ls"]);
    let hex: Vec<&Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["key_hex"])
        .collect();
    assert!(hex.contains(&&"fffe".into()), "{listed}");
    for key in keys {
        let mut release = broker.lmx(["release"]);
        succeed(release.arg(OsStr::from_bytes(key)));
    }
    assert_eq!(broker.json(&["ls"]), Value::Array(Vec::new()));
}

#[test]
fn waiting_is_bounded_unless_asked_otherwise() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k"]));
    let words = fail(&mut broker.lmx(["acquire", "k", "--try"]), 1);
    assert!(words.contains("held by"), "{words}");
    fail(&mut broker.lmx(["acquire", "k", "--wait", "10ms"]), 75);
    fail(&mut broker.lmx(["acquire", "k", "--wait", "0"]), 1);
    assert_eq!(broker.counts("k"), (1, 0));
}

#[test]
fn a_grant_that_nobody_has_seen_ends_by_itself() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k"]));
    let mut waiting = Process::spawn(broker.lmx(["acquire", "k", "--wait", "forever"]));
    broker.until_counts("k", 1, 1);
    // It may be dead for good: then its lock must not last for ever.
    waiting.signal(Signal::SIGSTOP);
    succeed(&mut broker.lmx(["release", "k"]));
    let unseen = broker.json(&["inspect", "k"]);
    assert!(unseen["holders"][0]["deadline"].is_string(), "{unseen}");
    waiting.signal(Signal::SIGCONT);
    assert_eq!(waiting.code(), 0);
    let seen = broker.json(&["inspect", "k"]);
    assert_eq!(seen["holders"][0]["id"], unseen["holders"][0]["id"]);
    assert!(seen["holders"][0]["deadline"].is_null(), "{seen}");
}

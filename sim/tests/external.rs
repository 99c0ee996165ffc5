//! A node in another language: the Python example, right and wrong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lmx_sim::plan::{FaultSet, Plan};
use lmx_sim::protocol::external::External;
use lmx_sim::protocol::{AnyProtocol as _, Contract, Exclusion};
use lmx_sim::{RunOptions, Violation};

fn example(name: &str) -> External {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    External::from_file(&path.join(name)).expect("an example")
}

/// In CI there is a Python; elsewhere these tests are let off without one.
fn has_python() -> bool {
    let there = Command::new("python3").arg("--version").output().is_ok();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "there is no python3, and CI is set"
    );
    if !there {
        println!("not run: there is no python3");
    }
    there
}

#[test]
fn a_node_in_python_takes_part_and_is_acquitted() {
    if !has_python() {
        return;
    }
    let protocol = example("lease_lock.json");
    for seed in 0..6 {
        let plan = protocol.plan(seed, FaultSet::ALL);
        let outcome = protocol.run(&plan, &RunOptions::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
        let again = protocol.run(&plan, &RunOptions::default());
        assert_eq!(outcome.hash, again.hash, "seed {seed} is not deterministic");
    }
}

#[test]
fn a_wrong_node_in_python_is_convicted_and_its_twin_is_not() {
    if !has_python() {
        return;
    }
    // Found among 400 seeds, at two runs a second, and minimised.
    let plan = Plan::from_json(include_str!("external/a_lease_counted_from_receipt.json"))
        .expect("a plan");
    let wrong = example("lease_lock_from_receipt.json");
    let outcome = wrong.run(&plan, &RunOptions::default());
    let violation = outcome.violation.expect("it is wrong");
    assert_eq!(violation.property.name(), "holders-view");
    let right = example("lease_lock.json");
    let outcome = right.run(&plan, &RunOptions::default());
    assert_eq!(outcome.violation, None);
}

/// What becomes of a protocol whose servers are this script, and whose clients are `client`.
fn run_shell(server: &str, client: &str) -> Violation {
    let is_patient = server != HANGS && server != READS_NO_MORE;
    let shell = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let protocol = External {
        name: "shell".to_owned(),
        about: String::new(),
        server: shell(server),
        client: shell(client),
        folder: None,
        servers: 1,
        contract: Contract::new(Exclusion::Strict),
        shared: false,
        lease: Duration::from_secs(1),
        renews: false,
        patience: Duration::from_secs(if is_patient { 60 } else { 1 }),
    };
    let plan = protocol.plan(1, FaultSet::NONE);
    let outcome = protocol.run(&plan, &RunOptions::default());
    outcome.violation.expect("such a node is broken")
}

const HANGS: &str = "while read line; do :; done";
/// It sends itself more than a pipe has room for, and does not take it.
const READS_NO_MORE: &str = r#"read line
m=$(head -c 300000 /dev/zero | tr '\0' y)
echo "[{\"send\":{\"to\":0,\"message\":\"$m\"}}]"
exec sleep 20"#;
const IDLE: &str = "while read line; do echo '[]'; done";

#[test]
fn what_is_wrong_with_a_node_is_said() {
    let acts = |acts: &str| format!("while read line; do echo '{acts}'; done");
    let broken: &[(&str, &str, &str)] = &[
        (
            "echo hello; cat >/dev/null",
            IDLE,
            "node 0 (server 0) wrote `hello`",
        ),
        ("exit 3", IDLE, "node 0 (server 0) ended (exit status: 3)"),
        (HANGS, IDLE, "node 0 (server 0) hangs"),
        (
            IDLE,
            &acts(r#"[{"granted":{"ticket":77}}]"#),
            "answers for #77",
        ),
        (IDLE, &acts(r#"[{"disk":1}]"#), "has no disk"),
        (IDLE, &acts(r#"[{"sned":1}]"#), "unknown variant `sned`"),
        (
            &acts(r#"[{"send":{"to":99,"message":1}}]"#),
            IDLE,
            "sends to node 99",
        ),
        (
            &acts(r#"[{"granted":{"ticket":0}}]"#),
            IDLE,
            "answers for #0",
        ),
    ];
    for (server, client, says) in broken {
        let violation = run_shell(server, client);
        assert_eq!(violation.property.name(), "node", "{violation}");
        assert!(violation.detail.contains(says), "{violation}");
    }
}

#[test]
fn a_node_that_does_not_take_what_it_is_told_hangs() {
    let violation = run_shell(READS_NO_MORE, IDLE);
    assert_eq!(violation.property.name(), "node", "{violation}");
    assert!(
        violation.detail.contains("node 0 (server 0) hangs"),
        "{violation}"
    );
}

#[test]
fn lines_that_were_not_asked_for_are_too_many() {
    for server in [
        // Both in one piece, and without end.
        r"while read line; do printf '[]\n[]\n'; done",
        "yes '[]'",
    ] {
        let violation = run_shell(server, IDLE);
        assert_eq!(violation.property.name(), "node", "{violation}");
        assert!(violation.detail.contains("too many"), "{violation}");
    }
}

#[test]
fn a_line_that_is_too_long_is_called_that() {
    let long = r"read line; printf '['; head -c 3000000 /dev/zero | tr '\0' ' '; echo ']'; cat";
    let violation = run_shell(long, IDLE);
    assert_eq!(violation.property.name(), "node", "{violation}");
    assert!(
        violation.detail.contains("longer than 1 MiB"),
        "{violation}"
    );
}

#[test]
fn what_a_node_wrote_is_shown_without_its_control_characters() {
    for server in [
        r"read line; printf '\033]0;title\007 \302\233\n'; cat >/dev/null",
        r"read line; printf '[{\042\\u001b[31m\042:1}]\n'; cat >/dev/null",
    ] {
        let violation = run_shell(server, IDLE);
        assert!(
            !violation.detail.contains(char::is_control),
            "{:?}",
            violation.detail
        );
        assert!(violation.detail.contains(r"\u{1b}"), "{violation}");
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let protocol = External {
        client: vec!["no-such-program".to_owned()],
        ..example("lease_lock.json")
    };
    let plan = protocol.plan(1, FaultSet::NONE);
    let outcome = protocol.run(&plan, &RunOptions::default());
    let violation = outcome.violation.expect("it cannot run");
    assert!(
        violation.detail.contains("`no-such-program` cannot be run"),
        "{violation}"
    );
}

#[test]
fn a_file_that_describes_no_protocol_is_refused() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (text, says) in [
        ("{}", "missing field `name`"),
        (
            r#"{"name":"a","server":[],"client":["x"],"exclusion":"strict"}"#,
            "a program and its arguments",
        ),
        (
            r#"{"name":"a","server":["x"],"client":["x"],"exclusion":"strictly"}"#,
            "unknown variant `strictly`",
        ),
        (
            r#"{"name":"a","server":["x"],"client":["x"],"exclusion":"strict","servers":0}"#,
            "1 to 32 `servers`",
        ),
        (
            r#"{"name":"a","server":["x"],"client":["x"],"exclusion":"strict","leese_ms":1}"#,
            "unknown field `leese_ms`",
        ),
        (
            r#"{"name":"","server":["x"],"client":["x"],"exclusion":"strict"}"#,
            "its name is empty",
        ),
        (
            r#"{"name":"a b\u001b","server":["x"],"client":["x"],"exclusion":"strict"}"#,
            "a name has letters, digits",
        ),
        (
            r#"{"name":"a.json","server":["x"],"client":["x"],"exclusion":"strict"}"#,
            "ends in .json",
        ),
        (
            r#"{"name":"redlock","server":["x"],"client":["x"],"exclusion":"strict"}"#,
            "there is a protocol `redlock` already",
        ),
    ] {
        let path = folder.join("described.json");
        std::fs::write(&path, text).expect("a folder of our own");
        let error = External::from_file(&path).expect_err(text).to_string();
        assert!(error.contains(says), "{error}");
    }
    let error = External::from_file(&folder.join("none.json")).expect_err("it is not there");
    assert!(error.to_string().contains("cannot read"), "{error}");
}

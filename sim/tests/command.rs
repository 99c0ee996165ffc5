//! The command `lmx-sim`, as a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};

fn lmx_sim() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lmx-sim"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

fn output(arguments: &[&str]) -> Output {
    lmx_sim().args(arguments).output().expect("it can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn last_line(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().last().unwrap_or("").to_owned()
}

#[test]
fn the_same_seeds_are_the_same_runs_in_every_process() {
    for protocol in ["lmx", "redlock-fixed", "readers-queue"] {
        let hashes = || last_line(&["run", "-p", protocol, "--seeds", "0..40", "--hashes"]);
        assert_eq!(hashes(), hashes(), "{protocol}");
    }
}

#[test]
fn a_failure_says_how_to_go_on() {
    let output = output(&["run", "-p", "redlock", "--seeds", "0..3000"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    for part in [
        "FAILED: seed ",
        "holders-view at ",
        "BROKEN",
        "replay:   lmx-sim replay --protocol redlock ",
        "minimise: lmx-sim minimise --protocol redlock ",
    ] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    // Progress is for terminals.
    assert_eq!(text(&output.stderr), "");
}

/// The lines of the block in the simulator's document that begins with `first`, without the
/// lines that stand for others.
fn quoted(first: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SIMULATOR.md");
    let document = std::fs::read_to_string(path).expect("it is part of the repository");
    let (_, block) = document.split_once(first).expect("it is quoted");
    let lines = block.lines().skip(1).take_while(|line| *line != "```");
    lines
        .filter(|line| *line != "...")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_failure_that_the_document_quotes_is_what_is_printed() {
    let said = text(&output(&["run", "--protocol", "redlock", "--seed", "0"]).stdout);
    let quoted = quoted("$ lmx-sim run --protocol redlock --seed 0");
    assert_eq!(quoted.len(), 4);
    for line in quoted {
        assert!(
            said.lines().any(|said| said == line),
            "{line} is not in:\n{said}"
        );
    }
}

#[test]
fn only_situations_that_a_protocol_can_reach_are_counted_for_it() {
    let arguments = ["run", "-p", "redlock-fixed", "--seeds", "0..10"];
    let said = text(&output(&arguments).stdout);
    let of = format!(" of {}\n", lmx_sim::Mark::ANY.len());
    assert!(said.contains(&of), "{said}");
}

#[test]
fn a_situation_that_is_required_and_never_reached_is_named() {
    let output = output(&["run", "--seed", "0", "--faults", "none", "--require-marks"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    for part in [
        "FAILED: not every rare situation was reached",
        lmx_sim::Mark::BrokerDiedHolding.name(),
    ] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = lmx_sim()
        .args(["run", "--seeds", "0..200", "--hashes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be run");
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut first = [0; 1];
    stdout.read_exact(&mut first).expect("a line");
    drop(stdout);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success(), "{}", output.status);
}

#[test]
fn what_is_wrong_with_a_command_line_is_said() {
    for (arguments, says) in [
        (
            &["run", "-p", "rodlock"][..],
            "there is no protocol `rodlock`",
        ),
        (&["run", "-p", "none.json"], "cannot read none.json"),
        (&["run", "--hashes"], "needs seeds"),
        (&["run", "--jobs", "0"], "not in 1..=1024"),
        (&["run", "--seeds", "5..5"], "empty range"),
        (&["run", "--faults", "pauses"], "there is no fault `pauses`"),
        (&["run", "--wall", "3"], "`3` is not a time"),
        (&["replay", "none"], "neither a seed nor a file"),
        (&["replay", "Cargo.toml"], "is no plan"),
        (&["minimise", "1"], "does not fail"),
        (&["trace", "1", "-o", "t.txt"], "neither .html"),
        (&["explore", "--clients", "9"], "1 to 5 clients"),
        (&["replay", "1", "--until", "1.5"], "has no unit"),
        (&["run", "--faults", "none,pause"], "`none` stands alone"),
        (&["run", "--faults", "pause,swarm"], "`swarm` stands alone"),
        (
            &["run", "-p", "set-nx-px", "--faults", "freeze,slow-reader"],
            "there is no freeze, slow-reader in the plans of `set-nx-px`",
        ),
        (
            &[
                "replay",
                "tests/seeds/a_client_paused_while_it_connects.json",
                "--faults",
                "none",
            ],
            "says itself what goes wrong",
        ),
        (
            &[
                "replay",
                "-p",
                "redlock",
                "tests/seeds/a_client_paused_while_it_connects.json",
            ],
            "is a plan for `lmx`, and not for `redlock`",
        ),
    ] {
        let output = output(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn nodes_of_a_file_are_convicted_by_the_command() {
    let has_python = Command::new("python3").arg("--version").output().is_ok();
    if !has_python {
        assert!(std::env::var_os("CI").is_none(), "CI has no python3");
        println!("not run: there is no python3");
        return;
    }
    let file = "examples/first_come.json";
    let output = output(&["run", "-p", file, "--seeds", "0..10"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "FAILED: seed 0 of first-come",
        "liveness at ",
        "replay --protocol examples/first_come.json 0",
    ] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
}

#[test]
fn the_last_seed_of_all_is_run() {
    let last = u64::MAX.to_string();
    let output = output(&["run", "-p", "set-nx-px", "--seed", &last]);
    assert!(output.status.success(), "{}", output.status);
    let said = text(&output.stdout);
    assert!(said.starts_with("1 seed in "), "{said}");
    let said = last_line(&["run", "-p", "set-nx-px", "--seed", &last, "--hashes"]);
    assert!(said.starts_with("all 1 seeds: "), "{said}");
    let said = last_line(&["run", "-p", "set-nx-px", "--seeds", "3..=5", "--hashes"]);
    assert!(said.starts_with("all 3 seeds: "), "{said}");
}

#[test]
fn kinds_of_faults_that_a_protocol_does_not_have_are_named() {
    let arguments = ["run", "-p", "set-nx-px", "--seed", "1"];
    let output = output(&[&arguments[..], &["--faults", "pause,stop"]].concat());
    assert!(output.status.success(), "{}", output.status);
    let said = text(&output.stderr);
    assert!(said.contains("there is no stop in the plans"), "{said}");
}

/// A file in this test's own folder.
fn scratch(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    path.into_os_string().into_string().expect("UTF-8")
}

#[test]
fn the_plan_of_a_seed_that_passes_can_be_had_and_run() {
    let path = scratch("plan.json");
    let replay = |arguments: &[&str]| {
        let said = last_two_lines(arguments);
        assert!(said.ends_with("nothing was broken"), "{said}");
        said
    };
    let of_seed = replay(&["replay", "-p", "set-nx-px", "7", "--plan", &path]);
    assert_eq!(of_seed, replay(&["replay", &path]));
    let without_faults = ["replay", "-p", "set-nx-px", "7", "--faults", "none"];
    assert_ne!(of_seed, replay(&without_faults));
}

fn last_two_lines(arguments: &[&str]) -> String {
    let output = output(arguments);
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(2)..].join("\n")
}

/// A file that says how nodes are run that are these scripts.
fn described(name: &str, server: &[&str], client: &[&str]) -> String {
    let path = scratch(&format!("{name}.json"));
    let described = serde_json::json!({
        "name": name,
        "server": server,
        "client": client,
        "exclusion": "strict",
        // Nobody minds that nothing is granted.
        "liveness_s": 1_000_000,
    });
    std::fs::write(&path, described.to_string()).expect("a folder of our own");
    path
}

const IDLE: &str = "while read line; do echo '[]'; done";

#[test]
fn a_program_that_cannot_be_run_is_a_wrong_command_line() {
    let idle = ["sh", "-c", IDLE];
    let path = described("not-there", &idle, &["./no-such-program"]);
    for command in [
        &["run", "-p", &path, "--seed", "1"][..],
        &["replay", "-p", &path, "1"],
    ] {
        let output = output(command);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for part in ["not-there.json", "`client`", "`./no-such-program`"] {
            assert!(said.contains(part), "{part} is not in:\n{said}");
        }
    }
}

#[test]
fn what_a_node_has_started_ends_with_it() {
    let orphan = "(sleep 10; echo orphan >&2) & echo nonsense; cat >/dev/null; true";
    let path = described("orphans", &["sh", "-c", orphan], &["sh", "-c", IDLE]);
    // This waits until nobody has the other end of the standard error.
    let output = output(&["run", "-p", &path, "--seed", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn what_ends_the_command_ends_its_nodes() {
    let node = "echo up >&2; sleep 10; echo orphan >&2";
    let path = described("ended", &["sh", "-c", node], &["sh", "-c", IDLE]);
    let mut child = lmx_sim()
        .args(["run", "-p", &path, "--seed", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be run");
    let mut stderr = child.stderr.take().expect("it is piped");
    let mut up = [0; 3];
    stderr.read_exact(&mut up).expect("a node is up");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
    let mut said = String::new();
    stderr.read_to_string(&mut said).expect("UTF-8");
    assert!(!said.contains("orphan"), "{said}");
    let status = child.wait().expect("it was not waited for");
    assert_eq!(status.code(), None, "{status}");
}

#[test]
fn a_run_without_end_is_given_up_when_the_time_is_over() {
    let restless = r#"while read line; do echo '[{"send":{"to":0,"message":1}}]'; done"#;
    let path = described("restless", &["sh", "-c", restless], &["sh", "-c", IDLE]);
    let output = output(&["run", "-p", &path, "--seed", "1", "--wall", "100ms"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILED: seed 1 is not over after "), "{said}");
}

#[test]
fn a_long_exploration_says_in_a_log_that_it_goes_on() {
    let mut child = lmx_sim()
        .args(["explore", "--clients", "3", "--keys", "3"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be run");
    let mut said = String::new();
    BufReader::new(child.stderr.take().expect("it is piped"))
        .read_line(&mut said)
        .expect("UTF-8");
    child.kill().expect("it goes on");
    child.wait().expect("it was not waited for");
    assert_eq!(said, "10000 states, and more to come\n");
}

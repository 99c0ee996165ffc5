//! The real npm package `live-mutex@0.2.25` against the real `lmx start`, over TCP and Unix,
//! and what its older releases do otherwise; the script-language examples; and both together
//! with native clients on the same keys.
//!
//! The packages are installed once into the build directory. Without Node.js the tests that
//! need it say that they were not run, unless `CI=true`: then they fail.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;

const PACKAGE: &str = "live-mutex@0.2.25";

/// Its last releases of 0.0 and 0.1, by other names.
const OLDER: [(&str, &str); 2] = [
    ("live-mutex-0.0", "live-mutex@0.0.10050"),
    ("live-mutex-0.1", "live-mutex@0.1.1066"),
];

/// One test per scenario of `live_mutex/scenarios.js`, over both transports.
macro_rules! scenarios {
    ($($name:ident)*) => {
        mod tcp {
            $(#[test] fn $name() { super::run_scenario(stringify!($name), super::Over::Tcp); })*
        }
        mod unix {
            $(#[test] fn $name() { super::run_scenario(stringify!($name), super::Over::Unix); })*
        }
    };
}

scenarios! {
    callbacks
    promises
    fifo
    wrong_ids
    force
    expiry
    time_outs
    retries
    shared_options
    tries
    no_wait
    semaphores
    disconnects
    reconnects
    keeps
    versions
    inquiries
    writers_preferred
    readers_preferred
    processes
    ten_thousand_cycles
}

/// Their clients send no version, or another one, and 0.0's unlock without an id.
#[test]
fn older_releases_are_served() {
    let Some(package) = live_mutex() else { return };
    for (name, _) in OLDER {
        let package = package.with_file_name(name);
        for over in [Over::Tcp, Over::Unix] {
            let broker = Broker::start(over);
            succeeds(&mut scenario(&broker, &package, "older"), name);
        }
    }
}

/// live-mutex's client and native ones queue for one lock, and each sees the other's.
#[test]
fn node_and_native_clients_share_keys() {
    let Some(package) = live_mutex() else { return };
    let broker = Broker::start(Over::Tcp);
    let mut node = Driven::start(&broker, package);

    // Node holds; the command line sees it, and waits for it.
    let id = node.lock("shared");
    let inspected = broker.lmx(&["inspect", "shared", "--json"]);
    assert!(text(&inspected).contains(&id), "{}", text(&inspected));
    assert!(text(&broker.lmx(&["ls"])).contains("shared"));
    let tried = broker.lmx(&["acquire", "shared", "--try"]);
    assert!(!tried.status.success(), "held by node, acquired natively");
    let waiting = broker.spawn(&["run", "shared", "--", "echo", "ran"]);
    broker.until_inspect("shared", |json| {
        json.contains("echo") || json.matches("\"id\"").count() > 1
    });
    node.say("unlock shared", "unlocked shared");
    let ran = waiting.wait_with_output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(text(&ran), "ran\n");

    // The command line holds; Node waits for it.
    assert!(broker.lmx(&["acquire", "shared"]).status.success());
    node.say("lock shared", "asked shared");
    assert!(broker.lmx(&["release", "shared"]).status.success());
    node.expect("locked shared");

    // Either can end the other's hold by force.
    let released = broker.lmx(&["release", "shared"]);
    assert!(released.status.success(), "{released:?}");
    assert!(broker.lmx(&["acquire", "shared"]).status.success());
    node.say("force shared", "forced shared");
    assert_eq!(text(&broker.lmx(&["ls", "--json"])), "[]\n");
}

/// Processes of both kinds count in one file that only the lock protects.
#[test]
fn node_python_and_native_processes_count_together() {
    let Some(package) = live_mutex() else { return };
    let broker = Broker::start(Over::Tcp);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counter");
    fs::write(&file, "0").unwrap();
    let name = file.to_str().unwrap();

    let count = format!("read n < {name}; echo $((n + 1)) > {name}");
    let mut children = Vec::new();
    for _ in 0..3 {
        let mut node = scenario(&broker, package, "count");
        children.push(node.arg(&file).spawn().unwrap());
    }
    for _ in 0..10 {
        children.push(broker.spawn(&["run", name, "--wait", "60s", "--", "sh", "-c", &count]));
    }
    if let Some(mut python) = broker.example("live_mutex.py", "python3") {
        children.push(python.args([name, "25"]).spawn().unwrap());
    }
    let expected = 25 * 3 + 10 + if children.len() > 13 { 25 } else { 0 };
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(
        fs::read_to_string(&file).unwrap().trim(),
        expected.to_string()
    );
}

/// `printf ... | nc`: what was asked before the end of the input is answered.
#[test]
fn a_half_closed_connection_gets_its_answers() {
    let broker = Broker::start(Over::Tcp);
    let mut socket = TcpStream::connect(("127.0.0.1", broker.port.unwrap())).unwrap();
    socket
        .write_all(b"{\"type\":\"lock\",\"uuid\":\"a\",\"key\":\"k\"}\n{\"type\":\"ls\",\"uuid\":\"b\"}\n{\"ty")
        .unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    socket.read_to_string(&mut answers).unwrap();
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!(lines.len(), 2, "{answers}");
    assert!(lines[0].contains("\"acquired\":true"), "{answers}");
    assert_eq!(lines[1], "{\"ls_result\":[\"k\"],\"uuid\":\"b\"}");
    // And with the connection, its lock is gone.
    while text(&broker.lmx(&["ls", "--json"])) != "[]\n" {
        std::thread::yield_now();
    }
}

/// A line over the limit ends its own connection, with a reason, and disturbs no other.
#[test]
fn a_line_over_the_limit_harms_nobody_else() {
    let broker = Broker::start(Over::Tcp);
    let connect = || TcpStream::connect(("127.0.0.1", broker.port.unwrap())).unwrap();
    let (mut good, mut bad) = (connect(), connect());
    let ask = |socket: &mut TcpStream, id: &str| {
        let line = format!("{{\"type\":\"lock-info-request\",\"uuid\":\"{id}\",\"key\":\"k\"}}\n");
        socket.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        assert!(answer.contains(id), "{answer}");
    };
    ask(&mut good, "before");
    ask(&mut bad, "small");
    let long = format!("{{\"type\":\"lock\",\"key\":\"{}", "x".repeat(1 << 20));
    // The broker may close before it has read it all.
    let _ = bad.write_all(long.as_bytes());
    let mut end = Vec::new();
    let _ = bad.read_to_end(&mut end);
    ask(&mut good, "after");
}

#[test]
fn python_example_counts() {
    let broker = Broker::start(Over::Unix);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counter");
    fs::write(&file, "0").unwrap();
    let mut children = Vec::new();
    for _ in 0..4 {
        let Some(mut python) = broker.example("live_mutex.py", "python3") else {
            return;
        };
        children.push(python.arg(&file).arg("25").spawn().unwrap());
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "100");
}

#[test]
fn bash_example_runs_commands_one_at_a_time() {
    let broker = Broker::start(Over::Tcp);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counter");
    fs::write(&file, "0\n").unwrap();
    let count = format!("read n < {0}; echo $((n + 1)) > {0}", file.display());
    let mut children = Vec::new();
    for _ in 0..10 {
        let Some(mut bash) = broker.example("live_mutex.sh", "bash") else {
            return;
        };
        children.push(bash.args(["k", "sh", "-c", &count]).spawn().unwrap());
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "10\n");

    let bash = |args: &[&str]| {
        let mut bash = broker.example("live_mutex.sh", "bash").unwrap();
        bash.args(args).output().unwrap()
    };
    let ran = bash(&["a \"key\" \\ so", "sh", "-c", "echo $LMX_TOKEN; exit 7"]);
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    assert!(text(&ran).trim().parse::<u64>().unwrap() > 10, "{ran:?}");
    assert_eq!(bash(&["k"]).status.code(), Some(64));
}

/// How clients reach the broker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Tcp,
    Unix,
}

/// A real broker, killed at the end.
struct Broker {
    child: Child,
    port: Option<u16>,
    socket: PathBuf,
    folder: tempfile::TempDir,
}

impl Broker {
    fn start(over: Over) -> Self {
        // The Node client refuses ports above 49151, which the system may choose.
        for _ in 0..50 {
            let broker = Self::start_once(over);
            if broker.port.is_none_or(|port| port <= 49151) {
                return broker;
            }
        }
        panic!("the system chose no port below 49152 in 50 attempts")
    }

    fn start_once(over: Over) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("lmx.sock");
        let mut command = lmx();
        command.args(["start", "--json", "--log", "error"]);
        match over {
            Over::Tcp => command.args(["--port", "0"]),
            Over::Unix => command.arg("--no-tcp").arg("--unix").arg(&socket),
        };
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        let port = ready["addresses"][0]["tcp"]
            .as_str()
            .map(|address| address.rsplit(':').next().unwrap().parse().unwrap());
        Self {
            child,
            port,
            socket,
            folder,
        }
    }

    /// Points a command at this broker, by the variables of both kinds of clients.
    fn name_in<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        match self.port {
            Some(port) => command
                .env("LMX_PORT", port.to_string())
                .env("LMX_HOST", "127.0.0.1"),
            None => command
                .env("LMX_UNIX", &self.socket)
                .env("LMX_UDS", &self.socket),
        };
        command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
    }

    fn lmx(&self, args: &[&str]) -> Output {
        self.name_in(&mut lmx()).args(args).output().unwrap()
    }

    fn spawn(&self, args: &[&str]) -> Child {
        self.name_in(&mut lmx()).args(args).spawn().unwrap()
    }

    fn until_inspect(&self, key: &str, is_so: impl Fn(&str) -> bool) {
        while !is_so(&text(&self.lmx(&["inspect", key, "--json"]))) {
            std::thread::yield_now();
        }
    }

    /// A script of the examples; `None` if there is no interpreter for it.
    fn example(&self, name: &str, interpreter: &str) -> Option<Command> {
        if !is_there(interpreter) {
            not_run(&format!("examples/{name}"), interpreter);
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(name);
        let mut command = Command::new(interpreter);
        self.name_in(&mut command).arg(script);
        Some(command)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Node process that does what it is told, line by line.
struct Driven {
    child: Child,
    said: ChildStdin,
    heard: BufReader<ChildStdout>,
}

impl Driven {
    fn start(broker: &Broker, package: &Path) -> Self {
        let mut child = scenario(broker, package, "driven")
            .stdin(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut driven = Self {
            said: child.stdin.take().unwrap(),
            heard: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        driven.expect("ready");
        driven
    }

    fn say(&mut self, words: &str, answer: &str) {
        writeln!(self.said, "{words}").unwrap();
        self.expect(answer);
    }

    /// Locks a free key and returns the lock's id.
    fn lock(&mut self, key: &str) -> String {
        writeln!(self.said, "lock {key}").unwrap();
        let locked = self.expect(&format!("locked {key}"));
        self.expect(&format!("asked {key}"));
        locked.split(' ').nth(2).unwrap().to_owned()
    }

    fn expect(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        self.heard.read_line(&mut line).unwrap();
        assert!(line.starts_with(beginning), "{line:?}, not {beginning:?}");
        line.trim_end().to_owned()
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run_scenario(name: &str, over: Over) {
    let Some(package) = live_mutex() else { return };
    let broker = Broker::start(over);
    succeeds(&mut scenario(&broker, package, name), name);
}

fn succeeds(scenario: &mut Command, name: &str) {
    let output = scenario.output().unwrap();
    assert!(
        output.status.success(),
        "{name}: {}\n{}{}",
        output.status,
        text(&output),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn scenario(broker: &Broker, package: &Path, name: &str) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live_mutex/scenarios.js");
    let mut node = Command::new("node");
    broker
        .name_in(&mut node)
        .arg(script)
        .arg(name)
        .env("LIVE_MUTEX", package);
    node
}

/// Where the package is, installed by the first test that asks.
fn live_mutex() -> Option<&'static Path> {
    static PATH: OnceLock<Option<PathBuf>> = OnceLock::new();
    PATH.get_or_init(install).as_deref()
}

fn install() -> Option<PathBuf> {
    for tool in ["node", "npm"] {
        if !is_there(tool) {
            not_run("the tests with live-mutex's Node client", tool);
            return None;
        }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("live-mutex");
    let package = folder.join("node_modules/live-mutex");
    let older = OLDER.map(|(name, release)| format!("{name}@npm:{release}"));
    let wanted = format!("{PACKAGE} {}", older.join(" "));
    let is_whole = folder.join("installed");
    if fs::read_to_string(&is_whole).ok().as_ref() != Some(&wanted) {
        fs::create_dir_all(&folder).unwrap();
        let output = Command::new("npm")
            .args(["install", "--no-save", "--no-package-lock", "--no-audit"])
            .args(["--no-fund", "--ignore-scripts", "--prefix"])
            .arg(&folder)
            .args(wanted.split(' '))
            .output()
            .unwrap();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            not_run(
                "the tests with live-mutex's Node client",
                &format!("{wanted} ({error})"),
            );
            return None;
        }
        fs::write(&is_whole, wanted).unwrap();
    }
    Some(package)
}

/// Says that something was left out for want of `missing`; in CI that is a failure.
fn not_run(what: &str, missing: &str) {
    assert_ne!(
        std::env::var("CI").as_deref(),
        Ok("true"),
        "{what} must run in CI, and there is no {missing}"
    );
    // Not `eprintln!`, which a passing test keeps to itself.
    let _ = writeln!(std::io::stderr(), "not run: {what} (there is no {missing})");
}

fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn lmx() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lmx"));
    for name in [
        "LMX_HOST",
        "LMX_PORT",
        "LMX_UNIX",
        "live_mutex_host",
        "live_mutex_port",
    ] {
        command.env_remove(name);
    }
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

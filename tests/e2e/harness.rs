//! Brokers and commands as processes, and waiting for conditions.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use lmx::clock::{self, Alarm};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Long enough for the slowest machine; only a hang reaches it.
const HANG: Duration = Duration::from_mins(2);

/// The environment that would change what a command does.
const VARIABLES: [&str; 15] = [
    "LMX_HOST",
    "LMX_PORT",
    "LMX_UNIX",
    "LMX_AUTH_TOKEN",
    "LMX_LOG",
    "LMX_KEY",
    "LMX_TOKEN",
    "LMX_ID",
    "live_mutex_host",
    "live_mutex_port",
    "live_mutex_key",
    "use_uds",
    "STATE_DIRECTORY",
    "LISTEN_FDS",
    "NOTIFY_SOCKET",
];

/// A program of this package, with none of the environment that would change it.
pub(crate) fn program(name: &str) -> Command {
    let path = match name {
        "lmx" => env!("CARGO_BIN_EXE_lmx"),
        "lmx_start_server" => env!("CARGO_BIN_EXE_lmx_start_server"),
        "lmx_launch_broker" => env!("CARGO_BIN_EXE_lmx_launch_broker"),
        "lmx_acquire_lock" => env!("CARGO_BIN_EXE_lmx_acquire_lock"),
        "lmx_release_lock" => env!("CARGO_BIN_EXE_lmx_release_lock"),
        "lmx_inspect_broker" => env!("CARGO_BIN_EXE_lmx_inspect_broker"),
        "lmx_ls" => env!("CARGO_BIN_EXE_lmx_ls"),
        other => panic!("there is no program {other}"),
    };
    let mut command = Command::new(path);
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
        .env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null());
    command
}

/// The `lmx` command.
pub(crate) fn lmx<I>(args: I) -> Command
where
    I: IntoIterator<Item: AsRef<OsStr>>,
{
    let mut command = program("lmx");
    command.args(args);
    command
}

/// A broker process of a test's own, on a port of its own.
#[derive(Debug)]
pub(crate) struct Broker {
    process: Process,
    pub(crate) port: u16,
    /// A folder for the test's files, and the folder that its commands run in.
    pub(crate) folder: TempDir,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, options)
    }

    pub(crate) fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let mut command = lmx(["start", "0", "--json", "--log", "error"]);
        command.args(options).current_dir(folder.path());
        let mut process = Process::spawn(command);
        let ready = process.json_line();
        let port = tcp_port(&ready).expect("a TCP address");
        Self {
            process,
            port,
            folder,
        }
    }

    /// A command that talks to this broker, in its folder.
    pub(crate) fn lmx<I>(&self, args: I) -> Command
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let mut command = lmx(args);
        self.told(&mut command);
        command
    }

    /// Another program that talks to this broker, in its folder.
    pub(crate) fn told<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("LMX_HOST", "127.0.0.1")
            .env("LMX_PORT", self.port.to_string())
            .current_dir(self.folder.path())
    }

    /// `lmx run KEY OPTIONS -- sh -c SCRIPT`.
    pub(crate) fn run_sh(&self, key: &str, options: &[&str], script: &str) -> Command {
        let mut command = self.lmx(["run", key]);
        command.args(options).args(["--", "sh", "-c", script]);
        command
    }

    /// Runs a command that must succeed and print JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = succeed(self.lmx(args).arg("--json"));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// How many hold a key, and how many wait for it.
    pub(crate) fn counts(&self, key: &str) -> (usize, usize) {
        let seen = self.json(&["inspect", key]);
        let count = |side: &str| seen[side].as_array().expect("an array").len();
        (count("holders"), count("waiters"))
    }

    /// Waits until so many hold a key and so many wait for it.
    pub(crate) fn until_counts(&self, key: &str, holders: usize, waiters: usize) {
        until(
            &format!("{holders} holders, {waiters} waiters of {key}"),
            || self.counts(key) == (holders, waiters),
        );
    }

    /// Waits until the lease of the one who holds a key has been renewed.
    pub(crate) fn until_renewed(&self, key: &str) {
        // From grant to end: only a renewal moves that, give or take the rounding.
        let lasts_ms = || {
            let holder = &self.json(&["inspect", key])["holders"][0];
            let ms = |name: &str| holder[name].as_u64().expect("it is held, with a lease");
            ms("age_ms") + ms("remaining_ms")
        };
        let before = lasts_ms();
        until(&format!("a renewal of {key}"), || lasts_ms() > before + 50);
    }

    /// A file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    /// A file's text; empty if there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }
}

/// The TCP port in a ready line.
pub(crate) fn tcp_port(ready: &Value) -> Option<u16> {
    ready["addresses"].as_array()?.iter().find_map(|address| {
        let (_, port) = address["tcp"].as_str()?.rsplit_once(':')?;
        port.parse().ok()
    })
}

/// A process that does not outlive its test.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it with its standard output piped.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdout }
    }

    /// The next line that it prints, without its end; empty at the end of its output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line of UTF-8");
        line.trim_end().to_owned()
    }

    pub(crate) fn json_line(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// A number that it prints on a line of its own.
    pub(crate) fn pid_line(&mut self) -> Pid {
        let line = self.line();
        Pid::from_raw(
            line.parse()
                .unwrap_or_else(|_| panic!("{line:?} is no pid")),
        )
    }

    /// All that it still prints until it ends its output.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("UTF-8");
        rest
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(self.pid(), signal);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("its status")
    }

    /// Its exit code.
    pub(crate) fn code(&mut self) -> i32 {
        let status = self.wait();
        status.code().unwrap_or_else(|| panic!("ended by {status}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command within a limit, as `ulimit` takes it.
pub(crate) fn within(limit: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell
}

/// Runs a command that must succeed.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("it starts");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs a command that must exit with `code`; returns what it says on standard error.
pub(crate) fn fail(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("it starts");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{command:?}: {}\n{}{words}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
    );
    words
}

/// The standard output of a command that must succeed, without the last line's end.
pub(crate) fn stdout(command: &mut Command) -> String {
    let output = succeed(command);
    String::from_utf8(output.stdout)
        .expect("UTF-8")
        .trim_end()
        .to_owned()
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = clock::now() + HANG;
    while !condition() {
        assert!(clock::now() < give_up, "it never came to be: {what}");
        // Between two looks, not instead of one.
        smol::block_on(Alarm::after(Duration::from_millis(2)));
    }
}

/// Whether a process is there and alive. (A zombie is dead.)
pub(crate) fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Waits until a process is dead.
pub(crate) fn until_dead(pid: Pid) {
    until(&format!("the end of {pid}"), || !lives(pid));
}

/// Makes a folder that others can be told about as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

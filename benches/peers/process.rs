//! Starting servers and ending them.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::{Duration, now};

/// How long a server may take to be ready, and to end when asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process of ours. Dropping it ends the process and waits for that.
pub(crate) struct Server {
    child: Child,
    signal: Signal,
}

impl Server {
    /// Starts `command`; `signal` is what ends it cleanly.
    pub(crate) fn start(command: &mut Command, signal: Signal) -> Result<Self, String> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", name(command)))?;
        Ok(Self { child, signal })
    }

    /// Starts `command` without its output, on a server that says nothing useful there.
    pub(crate) fn start_quietly(command: &mut Command, signal: Signal) -> Result<Self, String> {
        Self::start(command.stdout(Stdio::null()).stderr(Stdio::null()), signal)
    }

    /// Starts `command` and returns the first line that it prints.
    pub(crate) fn start_and_read(
        command: &mut Command,
        signal: Signal,
    ) -> Result<(Self, String), String> {
        let mut server = Self::start(command.stdout(Stdio::piped()).stderr(Stdio::null()), signal)?;
        let stdout = server.child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|error| format!("cannot read what it prints: {error}"))?;
        if line.is_empty() {
            return Err(format!("{} ended at once", name(command)));
        }
        Ok((server, line))
    }

    /// Waits until `condition` holds, for as long as the process runs.
    pub(crate) fn wait_until(&mut self, mut condition: impl FnMut() -> bool) -> Result<(), String> {
        let give_up = now() + PATIENCE;
        while !condition() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended at once, with {status}"));
            }
            if now() > give_up {
                return Err(format!("it is not ready after {PATIENCE:?}"));
            }
            pause(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until something accepts connections at `address`.
    pub(crate) fn wait_for(&mut self, address: SocketAddr) -> Result<(), String> {
        self.wait_until(|| TcpStream::connect(address).is_ok())
    }

    /// Memory that it occupies, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {path}: {error}"))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.trim().parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or_else(|| format!("{path} has no VmRSS"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), self.signal);
        }
        let give_up = now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && now() < give_up {
            pause(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sleeps: for outsiders that can only be asked again whether they are ready.
#[expect(clippy::disallowed_methods, reason = "no event tells when they are")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A port of loopback that was free a moment ago, for servers that cannot be told to let
/// the kernel choose.
pub(crate) fn free_port() -> Result<u16, String> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("no free port: {error}"))
}

/// Loopback with this port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The program of this name in `PATH`, or in `also` if it is not there.
pub(crate) fn find(name: &str, also: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    also.iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// The first line that `command` prints, for versions.
pub(crate) fn first_line(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", name(command)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// What `command` prints until it ends; it is ended if it takes longer than `patience`.
pub(crate) fn output_within(command: &mut Command, patience: Duration) -> Result<Output, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {}: {error}", name(command)))?;
    let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (ended, is_over) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let is_late = is_over.recv_timeout(patience).is_err();
            if is_late {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            is_late
        });
        let errors = scope.spawn(|| read_all(stderr));
        let output = Output {
            stdout: read_all(stdout),
            stderr: errors.join().unwrap_or_default(),
            status: child.wait().map_err(|error| error.to_string())?,
        };
        let _ = ended.send(());
        match watch.join() {
            Ok(false) => Ok(output),
            _ => Err(format!("it did not end within {patience:?}")),
        }
    })
}

fn read_all(from: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        // What could be read up to an error is what there is.
        let _ = from.read_to_end(&mut bytes);
    }
    bytes
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Whether this process is root's: `PostgreSQL` refuses to be.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

//! A child process and all that it starts: `sh -c "python3 node.py; true"` are two.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

/// Those whose leaders have not been waited for: until then nobody else has their numbers.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// It ends with its owner.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) leader: Child,
}

impl Group {
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let mut running = running();
        let leader = command.process_group(0).spawn()?;
        running.insert(number(&leader));
        Ok(Self { leader })
    }

    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        let number = number(&self.leader);
        let mut running = running();
        if running.remove(&number) {
            kill(number);
        }
        drop(running);
        self.leader.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Ends them all, and lets no other one start: for a program that is about to end, whose
/// nodes are in none of the groups that a terminal ends with it.
pub(crate) fn end_all() {
    let mut running = running();
    for number in std::mem::take(&mut *running) {
        kill(number);
    }
    std::mem::forget(running);
}

fn running() -> MutexGuard<'static, BTreeSet<i32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A group has its leader's number.
fn number(leader: &Child) -> i32 {
    leader.id().cast_signed()
}

fn kill(number: i32) {
    if let Some(group) = Pid::from_raw(number) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

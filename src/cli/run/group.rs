//! Process groups: signals to all of one, and whether anybody is left in it.

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group(Pid);

impl Group {
    /// The group that this process leads.
    pub(super) const fn led_by(leader: Pid) -> Self {
        Self(leader)
    }

    /// Its number.
    pub(super) const fn id(self) -> Pid {
        self.0
    }

    /// Sends a signal to everybody in it. There may be nobody any more.
    pub(super) fn signal(self, signal: Signal) {
        let _ = killpg(self.0, signal);
    }

    /// Whether anybody in it is alive. The dead that nobody has reaped are counted by the
    /// kernel, but they do no harm; and where nothing reaps orphans, as in a container
    /// without an init, they stay for good.
    pub(super) fn is_alive(self) -> bool {
        if killpg(self.0, None) == Err(Errno::ESRCH) {
            return false;
        }
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return true;
        };
        processes.flatten().any(|process| {
            std::fs::read_to_string(process.path().join("stat"))
                .is_ok_and(|stat| is_alive_member(&stat, self.0))
        })
    }
}

/// Reads `/proc/PID/stat`: the name in parentheses, which may be anything, then the state,
/// the parent, and the group.
fn is_alive_member(stat: &str, group: Pid) -> bool {
    let mut fields = match stat.rsplit_once(')') {
        Some((_, rest)) => rest.split_whitespace(),
        None => return false,
    };
    let is_dead = matches!(fields.next(), None | Some("Z" | "X"));
    let its_group = fields.nth(1).and_then(|field| field.parse().ok());
    !is_dead && its_group == Some(group.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_and_strangers_are_not_alive_in_it() {
        let group = Pid::from_raw(7);
        assert!(is_alive_member("12 (sh) S 1 7 7 0", group));
        assert!(is_alive_member("12 (a) Z (b) R 1 7 7 0", group));
        assert!(!is_alive_member("12 (sh) Z 1 7 7 0", group));
        assert!(!is_alive_member("12 (sh) S 1 8 7 0", group));
        assert!(!is_alive_member("", group));
    }

    #[test]
    fn the_own_group_is_alive_and_one_of_nobody_is_not() {
        assert!(Group::led_by(nix::unistd::getpgrp()).is_alive());
        assert!(!Group::led_by(Pid::from_raw(i32::MAX)).is_alive());
    }
}

//! Lending the terminal to the command, so that it can be typed into and interrupted.

use std::io::{self, IsTerminal as _};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// The terminal on standard input, while it is lent. It is taken back in the end.
#[derive(Debug)]
pub(super) struct Terminal {
    input: io::Stdin,
    /// Our own process group.
    own: Pid,
}

impl Terminal {
    /// The terminal, if it is ours to lend: standard input and output are it, and we are
    /// in its foreground. (Not in a pipeline, whose other ends would lose it, too.)
    pub(super) fn ours() -> Option<Self> {
        let own = getpgrp();
        let is_ours = io::stdin().is_terminal()
            && io::stdout().is_terminal()
            && tcgetpgrp(io::stdin()) == Ok(own);
        // Who is not in the foreground and takes the terminal back is stopped for it,
        // unless this signal is blocked.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        (is_ours && blocked.thread_block().is_ok()).then(|| Self {
            input: io::stdin(),
            own,
        })
    }

    /// Lends it to `group`. If that fails, the command goes on without.
    pub(super) fn lend(&self, group: Pid) {
        let _ = tcsetpgrp(&self.input, group);
    }

    /// Takes it back.
    pub(super) fn take_back(&self) {
        let _ = tcsetpgrp(&self.input, self.own);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}

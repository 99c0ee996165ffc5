//! Whether a process runs, stands still, or is dead.

/// A process over its lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Process {
    life: u32,
    dead: bool,
    paused_until_ns: u64,
}

impl Process {
    /// Which life this is; a new one begins with every death.
    pub(crate) const fn life(&self) -> u32 {
        self.life
    }

    pub(crate) const fn is_dead(&self) -> bool {
        self.dead
    }

    /// When it will go on, if it stands still at `now_ns`.
    pub(crate) const fn paused_until(&self, now_ns: u64) -> Option<u64> {
        if self.paused_until_ns > now_ns {
            Some(self.paused_until_ns)
        } else {
            None
        }
    }

    pub(crate) fn pause(&mut self, until_ns: u64) {
        self.paused_until_ns = self.paused_until_ns.max(until_ns);
    }

    /// Dies, unless it is dead. Returns the life that can begin next.
    pub(crate) const fn crash(&mut self) -> Option<u32> {
        if self.dead {
            return None;
        }
        self.dead = true;
        self.life += 1;
        self.paused_until_ns = 0;
        Some(self.life)
    }

    /// Begins life number `life`, if it is dead and this is the next one.
    pub(crate) const fn restart(&mut self, life: u32) -> bool {
        let begins = self.dead && self.life == life;
        if begins {
            self.dead = false;
        }
        begins
    }
}

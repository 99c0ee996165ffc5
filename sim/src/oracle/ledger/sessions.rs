//! Whose sessions the broker has told of, and when they end.

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    /// The run of the broker that opened it.
    pub(super) incarnation: u64,
    pub(super) window_ns: u64,
    /// When it lost its connection.
    pub(super) lost_ns: Option<u64>,
    /// It was ended for good.
    pub(super) ended: bool,
    /// A connection has asked to go on with it, and was not answered yet.
    pub(super) resuming: bool,
    /// How many connections have asked that: only the last of them matters.
    pub(super) resumes: u32,
    /// It lost its connection at some time before `lost_ns`: before the client was shown
    /// that it was there.
    pub(super) vague: bool,
}

impl Session {
    /// When it ends unless it is resumed.
    pub(super) fn ends_ns(&self) -> Option<u64> {
        let lost_ns = self.lost_ns.filter(|_| !self.resuming && !self.vague)?;
        Some(if self.ended {
            lost_ns
        } else {
            lost_ns.saturating_add(self.window_ns)
        })
    }

    /// Whether it may have ended by `now_ns`.
    pub(super) fn may_be_over(&self, now_ns: u64) -> bool {
        self.lost_ns.is_some_and(|lost| {
            self.vague || self.ended || lost.saturating_add(self.window_ns) <= now_ns
        })
    }
}

/// All sessions of one run of the broker, in the order in which they were told of.
#[derive(Debug)]
pub(super) struct Sessions {
    all: Vec<Session>,
    /// One of them is no longer as it was when the ends were noted.
    has_changed: bool,
    /// Those whose end had come by then, in order of their ids.
    over: Vec<u64>,
    /// When the first of the others ends.
    next_end_ns: u64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            has_changed: true,
            over: Vec::new(),
            next_end_ns: u64::MAX,
        }
    }
}

impl Sessions {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.all.iter()
    }

    /// The last ones are asked for most often.
    pub(super) fn get(&self, id: u64) -> Option<&Session> {
        self.all.iter().rev().find(|session| session.id == id)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Session> {
        self.has_changed = true;
        self.all.iter_mut().rev().find(|session| session.id == id)
    }

    pub(super) fn push(&mut self, session: Session) {
        self.has_changed = true;
        self.all.push(session);
    }

    pub(super) fn clear(&mut self) {
        self.has_changed = true;
        self.all.clear();
    }

    /// Notes which sessions are over. Returns whether they are others than were before.
    pub(super) fn note_over(&mut self, now_ns: u64) -> bool {
        if !self.has_changed && now_ns < self.next_end_ns {
            return false;
        }
        self.has_changed = false;
        self.next_end_ns = u64::MAX;
        let mut over = Vec::with_capacity(self.over.len() + 1);
        for session in &self.all {
            match session.ends_ns() {
                Some(ends_ns) if ends_ns <= now_ns => over.push(session.id),
                Some(ends_ns) => self.next_end_ns = self.next_end_ns.min(ends_ns),
                None => {}
            }
        }
        over.sort_unstable();
        let are_others = over != self.over;
        self.over = over;
        are_others
    }

    /// Whether the session's end had come when that was noted.
    pub(super) fn is_over(&self, id: u64) -> bool {
        self.over.binary_search(&id).is_ok()
    }

    /// When the first of those that were not over then ends; never if that is `u64::MAX`.
    pub(super) const fn next_end_ns(&self) -> u64 {
        self.next_end_ns
    }
}

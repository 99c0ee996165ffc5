//! Whether a request would come to wait for itself.

use super::*;

impl Model {
    // Owners that wait for each other.

    pub(super) fn closes_cycle(&self, ask: &Ask, owner: u32) -> bool {
        let front = ask.front.then(|| ask.wants[0].key.as_str());
        let mut seen = vec![];
        ask.wants.iter().any(|want| {
            let ahead = if ask.front {
                vec![]
            } else {
                self.waiters(&want.key)
            };
            self.depends(&want.key, want.mode, &ahead, owner, &mut seen, front)
        })
    }

    /// Whether a grant behind these waiters and the key's holders needs the owner.
    fn depends(
        &self,
        key: &str,
        mode: Mode,
        ahead: &[usize],
        owner: u32,
        seen: &mut Vec<usize>,
        front: Option<&str>,
    ) -> bool {
        let apart = |at: usize| {
            mode != Mode::Shared
                || self.mode(at, key) != Some(Mode::Shared)
                || self.upgrade_waits(key)
        };
        let holders = self.holders(key);
        holders
            .iter()
            .chain(ahead)
            .any(|at| apart(*at) && self.release_depends(*at, owner, seen, front))
            || ahead
                .iter()
                .any(|at| self.grant_depends(*at, owner, seen, front))
    }

    fn release_depends(
        &self,
        at: usize,
        owner: u32,
        seen: &mut Vec<usize>,
        front: Option<&str>,
    ) -> bool {
        match self.requests[at].ask.owner {
            None => false,
            Some(other) if other == owner => true,
            Some(other) => self.waits_depend(other, owner, seen, front),
        }
    }

    /// Whether something that `of` waits for needs the owner.
    fn waits_depend(
        &self,
        of: u32,
        owner: u32,
        seen: &mut Vec<usize>,
        front: Option<&str>,
    ) -> bool {
        (0..self.requests.len())
            .filter(|at| self.requests[*at].ask.owner == Some(of))
            .filter(|at| self.requests[*at].state == State::Waiting || self.requests[*at].upgrading)
            .any(|at| self.grant_depends(at, owner, seen, front))
    }

    pub(super) fn waits_for_itself(&self, owner: u32) -> bool {
        self.waits_depend(owner, owner, &mut vec![], None)
    }

    fn grant_depends(
        &self,
        at: usize,
        owner: u32,
        seen: &mut Vec<usize>,
        front: Option<&str>,
    ) -> bool {
        if seen.contains(&at) {
            return false;
        }
        seen.push(at);
        if self.requests[at].upgrading {
            return self.depends_on_release_of_others(at, owner, seen, front);
        }
        self.requests[at].ask.wants.iter().any(|want| {
            let waiters = self.waiters(&want.key);
            let ahead: Vec<_> = waiters
                .into_iter()
                .take_while(|other| *other != at)
                .collect();
            front == Some(want.key.as_str())
                || self.depends(&want.key, want.mode, &ahead, owner, seen, front)
        })
    }

    fn depends_on_release_of_others(
        &self,
        at: usize,
        owner: u32,
        seen: &mut Vec<usize>,
        front: Option<&str>,
    ) -> bool {
        let holders = self.holders(&self.requests[at].ask.wants[0].key);
        holders
            .iter()
            .any(|other| *other != at && self.release_depends(*other, owner, seen, front))
    }
}

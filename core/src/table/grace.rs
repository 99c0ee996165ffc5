//! After a restart: a time for reclaims alone, and tokens only as far as they are safe.

use crate::planted::planted;
use crate::table::core::Core;
use crate::table::slots::TOKENS_END;

impl Core<'_> {
    pub(crate) fn begin_grace(&mut self, until: u64) {
        if !planted!("no-grace") {
            self.head.note_due(until);
            self.head.grace_until = Some(until);
        }
    }

    pub(crate) fn end_grace(&mut self, now: u64) {
        self.head.grace_until = None;
        if !planted!("grace-wakes-nobody") {
            self.unstall(now);
        }
    }

    pub(crate) fn set_token_ceiling(&mut self, now: u64, ceiling: u64) {
        self.head.token_ceiling = ceiling.min(TOKENS_END - 1);
        self.unstall(now);
    }

    /// Grants what was put off, if it was put off and no longer has to be.
    fn unstall(&mut self, now: u64) {
        if core::mem::replace(&mut self.head.stalled, false) && !self.is_stalled() {
            self.serve_all(now);
        }
    }
}

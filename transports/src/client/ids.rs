//! Fresh request ids.

use lmx_core::RequestId;
use uuid::Builder;

/// Ids per question to the system's random source: a system call each would be felt.
const IDS: usize = 64;

/// Random (version 4) UUIDs, as nobody can guess whose holds they release.
#[derive(Debug)]
pub(super) struct Ids {
    random: [u8; IDS * 16],
    used: usize,
}

impl Ids {
    pub(super) const fn new() -> Self {
        Self {
            random: [0; IDS * 16],
            used: IDS,
        }
    }

    pub(super) fn fresh(&mut self) -> RequestId {
        if self.used == IDS {
            getrandom::fill(&mut self.random).expect("the system has a source of randomness");
            self.used = 0;
        }
        let at = self.used * 16;
        let bytes = &mut self.random[at..at + 16];
        let id = bytes.try_into().expect("16 bytes");
        bytes.fill(0);
        self.used += 1;
        RequestId::new(Builder::from_random_bytes(id).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_uuids_and_no_two_are_equal() {
        let mut ids = Ids::new();
        let many: std::collections::HashSet<_> = (0..1000).map(|_| ids.fresh()).collect();
        assert_eq!(many.len(), 1000);
        assert!(many.iter().all(|id| id.uuid().get_version_num() == 4));
    }
}

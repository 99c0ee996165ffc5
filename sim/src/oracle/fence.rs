//! Fencing: tokens in the order of grants, and a store that checks them.
//!
//! Between requests of which one was asked for after the other had been granted there
//! is no doubt about the order, whatever the protocol. Only those are compared.

/// What a key's tokens and its store have seen.
#[derive(Clone, Copy, Debug, Default)]
struct Fence {
    /// The largest token that a client has been told.
    token_told_max: u64,
    /// The largest token that the store has taken.
    token_stored_max: u64,
    /// When the youngest request that wrote to the store was asked for.
    writer_asked_ns_max: u64,
}

/// The fences of all keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fences {
    by_key: Vec<Fence>,
}

impl Fences {
    fn fence(&mut self, key: u32) -> &mut Fence {
        let key = key as usize;
        if self.by_key.len() <= key {
            self.by_key.resize(key + 1, Fence::default());
        }
        &mut self.by_key[key]
    }

    /// A request is asked for: its token must become larger than this.
    pub(crate) fn asked(&mut self, key: u32) -> u64 {
        self.fence(key).token_told_max
    }

    /// A request was granted. Says the floor it broke, if it did.
    pub(crate) fn granted(&mut self, key: u32, floor: u64, token: u64) -> Option<u64> {
        let fence = self.fence(key);
        fence.token_told_max = fence.token_told_max.max(token);
        (token <= floor).then_some(floor)
    }

    /// A holder writes, believing to hold or not. Says whether the store took a stale
    /// write: one of a holder whose grant is older than a request that has written.
    pub(crate) fn write(&mut self, key: u32, token: u64, asked_ns: u64, granted_ns: u64) -> bool {
        let fence = self.fence(key);
        if token < fence.token_stored_max {
            return false;
        }
        fence.token_stored_max = token;
        let stale = granted_ns < fence.writer_asked_ns_max;
        fence.writer_asked_ns_max = fence.writer_asked_ns_max.max(asked_ns);
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_goes_back_lets_a_stale_write_through() {
        let mut fences = Fences::default();
        assert_eq!(fences.granted(0, 0, 7), None);
        assert_eq!(fences.asked(0), 7);
        assert_eq!(fences.granted(0, 7, 5), Some(7));
        assert!(!fences.write(0, 5, 20, 30));
        assert!(fences.write(0, 7, 0, 10), "the older holder wrote last");
    }
}

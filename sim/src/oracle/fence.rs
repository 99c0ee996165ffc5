//! Fencing: tokens in the order of grants, and a store that checks them.
//!
//! When a grant was given nobody sees, only when its user was told: a message may have been
//! long under way. So tokens are compared where no delay can explain what is seen:
//!
//! - No two grants share a token, unless both are shared holds.
//! - Whoever asked after another had been told has the larger one, whatever the protocol.
//! - Where holds exclude each other, one that its holder may still rely on when it is told
//!   has been good ever since it was given. A grant that it excludes, and that was told
//!   earlier, was given before that: else both would have been good at one time.

/// A token that a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) op: u32,
    pub(crate) token: u64,
    /// Others may hold with it.
    pub(crate) shared: bool,
    /// The largest one that had been told when it was asked for.
    pub(crate) floor: Option<u64>,
    /// It excludes others, and may still be relied on.
    pub(crate) in_time: bool,
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misordered {
    /// This one had been told before it was asked for, and is not smaller.
    BelowFloor(u64),
    /// This operation has the same.
    Twice(u32),
    /// This one was told earlier, of a hold that it excludes, and is larger.
    WentDown(u64),
}

/// What a key's tokens and its store have seen.
#[derive(Clone, Debug, Default)]
struct Fence {
    /// The largest token that a client has been told.
    told_max: Option<u64>,
    /// The same of those that were not of shared holds.
    told_alone_max: Option<u64>,
    /// All of them, sorted; mostly the newest is the last.
    told: Vec<Told>,
    /// The largest token that the store has taken.
    token_stored_max: u64,
    /// When the youngest request that wrote to the store was asked for.
    writer_asked_ns_max: u64,
}

impl Fence {
    /// Who else was told this token, and may not share it.
    fn twin(&self, told: Told) -> Option<u32> {
        let from = self.told.partition_point(|other| other.token < told.token);
        let equals = self.told[from..]
            .iter()
            .take_while(|other| other.token == told.token);
        let mut others = equals.filter(|other| other.op != told.op);
        others
            .find(|other| !(other.shared && told.shared))
            .map(|other| other.op)
    }

    fn remember(&mut self, told: Told) {
        let place = self.told.partition_point(|other| other.token <= told.token);
        self.told.insert(place, told);
        self.told_max = self.told_max.max(Some(told.token));
        if !told.shared {
            self.told_alone_max = self.told_alone_max.max(Some(told.token));
        }
    }
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
    pub(crate) fn asked(&mut self, key: u32) -> Option<u64> {
        self.fence(key).told_max
    }

    /// A request was granted. Says what is wrong with its token, if something is.
    pub(crate) fn granted(&mut self, key: u32, told: Told) -> Option<Misordered> {
        let fence = self.fence(key);
        let earlier_max = if told.shared {
            fence.told_alone_max
        } else {
            fence.told_max
        };
        let floor = told.floor.filter(|floor| told.token <= *floor);
        let earlier = earlier_max.filter(|earlier| told.in_time && told.token < *earlier);
        let wrong = fence
            .twin(told)
            .map(Misordered::Twice)
            .or(floor.map(Misordered::BelowFloor))
            .or(earlier.map(Misordered::WentDown));
        fence.remember(told);
        wrong
    }

    /// A holder writes, believing to hold or not. Says whether the store took a stale
    /// write: one of a holder whose grant is older than a request that has written. (Equal
    /// tokens are of one holder, who writes twice; others' are judged when they are told.)
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

    fn told(op: u32, token: u64) -> Told {
        Told {
            op,
            token,
            shared: false,
            floor: None,
            in_time: false,
        }
    }

    #[test]
    fn a_token_that_goes_back_lets_a_stale_write_through() {
        let mut fences = Fences::default();
        assert_eq!(fences.granted(0, told(1, 7)), None);
        assert_eq!(fences.asked(0), Some(7));
        let late = Told {
            floor: Some(7),
            ..told(2, 5)
        };
        assert_eq!(fences.granted(0, late), Some(Misordered::BelowFloor(7)));
        assert!(!fences.write(0, 5, 20, 30));
        assert!(fences.write(0, 7, 0, 10), "the older holder wrote last");
    }

    #[test]
    fn tokens_may_begin_with_0_and_are_told_once() {
        let mut fences = Fences::default();
        assert_eq!(fences.asked(0), None);
        assert_eq!(fences.granted(0, told(1, 0)), None);
        assert_eq!(
            fences.granted(0, told(1, 0)),
            None,
            "the same is told again"
        );
        assert_eq!(fences.granted(0, told(2, 0)), Some(Misordered::Twice(1)));
        assert_eq!(fences.granted(1, told(3, 0)), None, "another key");
    }

    #[test]
    fn only_readers_share_a_token() {
        let reader = |op| Told {
            shared: true,
            ..told(op, 4)
        };
        let mut fences = Fences::default();
        assert_eq!(fences.granted(0, reader(1)), None);
        assert_eq!(fences.granted(0, reader(2)), None);
        assert_eq!(fences.granted(0, told(3, 4)), Some(Misordered::Twice(1)));
        assert_eq!(fences.granted(0, reader(4)), Some(Misordered::Twice(3)));
    }

    #[test]
    fn a_smaller_token_may_be_told_late_but_not_in_time() {
        let in_time = |op, token| Told {
            in_time: true,
            ..told(op, token)
        };
        let mut fences = Fences::default();
        assert_eq!(fences.granted(0, in_time(1, 7)), None);
        assert_eq!(fences.granted(0, told(2, 5)), None, "long under way");
        assert_eq!(
            fences.granted(0, in_time(3, 6)),
            Some(Misordered::WentDown(7))
        );
    }

    #[test]
    fn readers_are_told_in_any_order_and_compared_with_writers() {
        let reader = |op, token| Told {
            shared: true,
            in_time: true,
            ..told(op, token)
        };
        let writer = |op, token| Told {
            in_time: true,
            ..told(op, token)
        };
        let mut fences = Fences::default();
        assert_eq!(fences.granted(0, reader(1, 9)), None);
        assert_eq!(fences.granted(0, reader(2, 8)), None);
        assert_eq!(
            fences.granted(0, writer(3, 7)),
            Some(Misordered::WentDown(9))
        );
        assert_eq!(fences.granted(0, writer(4, 10)), None);
        assert_eq!(
            fences.granted(0, reader(5, 6)),
            Some(Misordered::WentDown(10))
        );
    }
}

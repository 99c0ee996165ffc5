use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use super::{Timer, Timers};
use crate::arena::{NONE, Vacant};

const SLOTS: u32 = 50;

/// A heap, and the plain set that it should be.
struct Both {
    len: u32,
    heap: Vec<Timer>,
    places: Vec<u32>,
    plain: BTreeSet<(u64, u32, u32)>,
}

impl Both {
    fn timers(&mut self) -> Timers<'_> {
        Timers {
            len: &mut self.len,
            heap: &mut self.heap,
            places: &mut self.places,
        }
    }

    fn arm(&mut self, at: u64, order: u32, slot: u32) {
        self.timers().arm(Timer { at, order, slot });
        self.plain.retain(|timer| timer.2 != slot);
        self.plain.insert((at, order, slot));
    }

    fn disarm(&mut self, slot: u32) {
        self.timers().disarm(slot);
        self.plain.retain(|timer| timer.2 != slot);
    }

    fn assert_same(&self) {
        assert_eq!(self.len as usize, self.plain.len());
        let first = self.heap[..self.len as usize].first();
        let first = first.map(|timer| (timer.at, timer.order, timer.slot));
        assert_eq!(first.as_ref(), self.plain.first());
        for slot in 0..SLOTS {
            let armed = self.plain.iter().find(|timer| timer.2 == slot);
            match self.places[slot as usize] {
                NONE => assert_eq!(armed, None),
                place => assert_eq!(
                    armed.map(|timer| timer.0),
                    Some(self.heap[place as usize].at)
                ),
            }
        }
    }
}

#[test]
fn the_heap_is_as_a_sorted_set() {
    let mut both = Both {
        len: 0,
        heap: vec![Timer::VACANT; SLOTS as usize],
        places: vec![NONE; SLOTS as usize],
        plain: BTreeSet::new(),
    };
    let mut random = 1u64;
    for order in 0..20_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let slot = (random >> 40) as u32 % SLOTS;
        if random >> 62 == 0 {
            both.disarm(slot);
        } else {
            both.arm((random >> 33) % 16, order, slot);
        }
        both.assert_same();
    }
    // Numbered afresh, they keep their order.
    let before: Vec<_> = both.plain.iter().map(|timer| (timer.0, timer.2)).collect();
    both.timers().renumber(0);
    let mut after = vec![];
    while both.len > 0 {
        let first = both.heap[0];
        assert!(first.order < SLOTS, "numbers begin at zero");
        after.push((first.at, first.slot));
        both.timers().disarm(first.slot);
    }
    assert_eq!(after, before);
}

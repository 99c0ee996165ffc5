use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use super::{ABREAST_MAX, Timer, Timers, parent};
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

    fn assert_is_heap(&self) {
        let armed = &self.heap[..self.len as usize];
        for (place, timer) in armed.iter().enumerate().skip(1) {
            assert!(armed[parent(place)].before(*timer));
        }
    }

    fn assert_same(&self) {
        assert_eq!(self.len as usize, self.plain.len());
        let first = self.heap[..self.len as usize].first();
        let first = first.map(|timer| (timer.at, timer.order, timer.slot));
        assert_eq!(first.as_ref(), self.plain.first());
        for slot in 0..self.places.len() as u32 {
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

/// Of heaps of every size, of which some or all are found, and some or all of those removed.
#[test]
fn the_soonest_are_found_in_order_and_removed_together() {
    let mut random = 1u64;
    let mut below = |end: u32| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as u32 % end
    };
    for round in 0..600 {
        // So many that holes lie in several levels, or so few that they reach the end.
        let slots = [4, 40, 400][round % 3];
        let mut both = Both {
            len: 0,
            heap: vec![Timer::VACANT; slots as usize],
            places: vec![NONE; slots as usize],
            plain: BTreeSet::new(),
        };
        let instants = 1 + below(2 * slots);
        for order in 0..below(slots + 1) {
            both.arm(below(instants).into(), order, below(slots));
        }
        let until = u64::from(below(instants));
        let max = 1 + below(ABREAST_MAX);
        let soonest = both.timers().soonest(until, max);
        let due = both.plain.iter().filter(|timer| timer.0 <= until);
        let are_several = due.count() > 1;
        assert_eq!(both.timers().are_several_due(until), are_several);
        let due = both.plain.iter().take_while(|timer| timer.0 <= until);
        let expected: Vec<_> = due.take(max as usize).map(|timer| timer.2).collect();
        let found: Vec<_> = soonest.slots().collect();
        assert_eq!(found, expected);
        let removed = below(found.len() as u32 + 1) as usize;
        both.timers().disarm_soonest(soonest, removed);
        both.plain
            .retain(|timer| !found[..removed].contains(&timer.2));
        both.assert_is_heap();
        both.assert_same();
    }
}

//! The soonest deadlines, several at one time: found without being taken out, and then
//! taken out together.
//!
//! Each that is taken out leaves a hole, into which another falls from the top of the heap
//! to its bottom, where nothing is in the cache. One after the other, each of these falls
//! waits for memory on its own; abreast, they wait at one time.

use core::cmp::Reverse;
use core::hint::select_unpredictable;
use core::ops::Range;

use super::{Timer, Timers, children};
use crate::arena::{NONE, Vacant as _};

/// How many are found and taken out at one time, at most.
pub(crate) const ABREAST_MAX: u32 = 32;

/// A deadline, and where in the heap it stands, or is to stand.
#[derive(Clone, Copy, Debug)]
struct Placed {
    timer: Timer,
    place: u32,
}

/// The soonest deadlines of a heap.
#[derive(Debug)]
pub(crate) struct Soonest {
    /// In order; only the first `len` count.
    placed: [Placed; ABREAST_MAX as usize],
    len: usize,
}

impl Soonest {
    /// Whose they are, the soonest first.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + Clone {
        self.placed[..self.len]
            .iter()
            .map(|placed| placed.timer.slot)
    }

    /// Puts it where it belongs, and forgets whatever comes after the first `max`.
    fn insert(&mut self, new: Placed, max: usize) {
        if self.len < max {
            self.len += 1;
        } else if !new.timer.before(self.placed[max - 1].timer) {
            return;
        }
        let mut at = self.len - 1;
        while at > 0 && new.timer.before(self.placed[at - 1].timer) {
            self.placed[at] = self.placed[at - 1];
            at -= 1;
        }
        self.placed[at] = new;
    }
}

impl Timers<'_> {
    /// Whether more than one deadline is no later than `until`.
    pub(crate) fn are_several_due(&self, until: u64) -> bool {
        let armed = &self.heap[..*self.len as usize];
        let mut below_first = armed.iter().take(children(0).end).skip(1);
        below_first.any(|timer| timer.at <= until)
    }

    /// Finds the soonest deadlines that are no later than `until`: `max` of them, which is
    /// not zero and no more than [`ABREAST_MAX`], or all that there are.
    pub(crate) fn soonest(&self, until: u64, max: u32) -> Soonest {
        let max = max as usize;
        let mut soonest = Soonest {
            placed: [Placed {
                timer: Timer::VACANT,
                place: NONE,
            }; ABREAST_MAX as usize],
            len: 0,
        };
        let find = |soonest: &mut Soonest, places: Range<usize>| {
            for place in places.start..places.end.min(*self.len as usize) {
                let timer = self.heap[place];
                if timer.at <= until {
                    let place = place as u32;
                    soonest.insert(Placed { timer, place }, max);
                }
            }
        };
        find(&mut soonest, 0..1);
        // The next one is always a child of one of those before it.
        let mut parent = 0;
        while parent < soonest.len {
            let place = soonest.placed[parent].place;
            find(&mut soonest, children(place as usize));
            parent += 1;
        }
        soonest
    }

    /// Removes the first `count` of the soonest deadlines.
    pub(crate) fn disarm_soonest(&mut self, mut soonest: Soonest, count: usize) {
        let holes = &mut soonest.placed[..count];
        for hole in &*holes {
            self.places[hole.timer.slot as usize] = NONE;
        }
        holes.sort_unstable_by_key(|hole| Reverse(hole.place));
        let before = *self.len;
        *self.len -= count as u32;
        let beyond = holes.partition_point(|hole| hole.place >= *self.len);
        let (beyond, holes) = holes.split_at_mut(beyond);
        // What stands beyond the new end falls into the holes that remain.
        let fallers =
            (*self.len..before).filter(|place| beyond.iter().all(|hole| hole.place != *place));
        for (hole, from) in holes.iter_mut().zip(fallers) {
            hole.timer = self.heap[from as usize];
        }
        self.sift_down_abreast(holes);
    }

    /// Moves holes down to where their timers belong, and fills them. They come the lowest
    /// first, and whatever stands above a hole is one, too, so that no timer has to rise.
    ///
    /// In each round all move by one level, the lowest first. So one that is above another
    /// stays above it, and finds below itself only what the other has left in order: as if
    /// that had come to its end before.
    fn sift_down_abreast(&mut self, holes: &mut [Placed]) {
        let mut falling = holes.len();
        while falling > 0 {
            let mut still_falling = 0;
            for nth in 0..falling {
                let Placed { timer, place } = holes[nth];
                let (child, first) = self.soonest_child(place as usize);
                if first.before(timer) {
                    self.put(place as usize, first);
                    let place = child as u32;
                    holes[still_falling] = Placed { timer, place };
                    still_falling += 1;
                } else {
                    self.put(place as usize, timer);
                }
            }
            falling = still_falling;
        }
    }

    /// The child that comes first, found without branches: nobody foresees which it is.
    fn soonest_child(&self, place: usize) -> (usize, Timer) {
        let first = children(place).start;
        let armed = &self.heap[..*self.len as usize];
        let sooner =
            |a: (usize, Timer), b: (usize, Timer)| select_unpredictable(b.1.before(a.1), b, a);
        let children = armed.get(first..).unwrap_or_default();
        if let Some(&[a, b, c, d]) = children.first_chunk() {
            return sooner(
                sooner((first, a), (first + 1, b)),
                sooner((first + 2, c), (first + 3, d)),
            );
        }
        let children = (first..).zip(children.iter().copied());
        children.fold((NONE as usize, Timer::VACANT), sooner)
    }
}

//! What is always true of the parts that a table is made of.

use super::{Verdict, ensure};
use crate::arena::{Arena, NONE, Slot};
use crate::index::{Cell, Index};
use crate::list::Linked;
use crate::timers::{Timer, parent};

/// Whether a link is none, or one to a slot that was used.
pub(super) const fn in_range(link: u32, fresh: u32) -> bool {
    link == NONE || link < fresh
}

pub(super) fn check_arena<T: Slot>(
    arena: &Arena,
    slots: &[T],
    is_used: impl Fn(&T) -> bool,
) -> Verdict {
    let (used, unused) = slots.split_at(arena.fresh as usize);
    let count = used.iter().filter(|slot| is_used(slot)).count();
    ensure!(arena.used as usize == count, "slots in use are counted");
    ensure!(
        !unused.iter().any(&is_used),
        "slots that were never used are vacant"
    );
    let mut vacant = 0;
    let mut at = arena.free;
    while at != NONE {
        ensure!(at < arena.fresh, "the free list leads to slots");
        let mut slot = slots[at as usize];
        ensure!(!is_used(&slot), "slots that were given back are vacant");
        vacant += 1;
        ensure!(vacant <= arena.fresh, "the free list ends");
        at = *slot.free_link();
    }
    ensure!(
        arena.used + vacant == arena.fresh,
        "a slot is in use or on the free list"
    );
    Ok(())
}

/// Whether there are `entries` slots in the chains, each where it belongs.
pub(super) fn check_index(
    index: &Index,
    cells: &[Cell],
    entries: usize,
    hash_of: impl Fn(u32) -> u32,
) -> Verdict {
    let mut found = 0;
    for bucket in 0..index.buckets as usize {
        let mut at = Index::first_of_bucket(cells, bucket);
        while let Some(slot) = at {
            ensure!(
                index.bucket_of(hash_of(slot)) == bucket,
                "a slot is in the bucket of its hash"
            );
            found += 1;
            ensure!(found <= entries, "chains end");
            at = Index::after(cells, slot);
        }
    }
    ensure!(found == entries, "what is to be found is indexed");
    Ok(())
}

pub(super) fn check_heap(heap: &[Timer], len: u32, places: &[u32]) -> Verdict {
    let Some(armed) = heap.get(..len as usize) else {
        return Err("armed timers exist");
    };
    for (place, timer) in armed.iter().enumerate() {
        ensure!(
            places.get(timer.slot as usize) == Some(&(place as u32)),
            "a slot knows where its deadline stands"
        );
        if place != 0 {
            let above = &armed[parent(place)];
            ensure!(
                (above.at, above.order) < (timer.at, timer.order),
                "no deadline stands above an earlier one"
            );
        }
    }
    let count = places.iter().filter(|place| **place != NONE).count();
    ensure!(count == armed.len(), "only armed slots have a place");
    Ok(())
}

/// The ring that begins at `first` closes, and its links agree in both directions.
pub(super) fn check_ring<T: Linked>(slots: &[T], first: u32) -> Verdict {
    if first == NONE {
        return Ok(());
    }
    let mut at = first;
    for _ in 0..slots.len() {
        let next = slots[at as usize].links().next;
        ensure!(
            next != NONE && slots[next as usize].links().prev == at,
            "neighbours in a ring agree"
        );
        at = next;
        if at == first {
            return Ok(());
        }
    }
    Err("a ring closes")
}

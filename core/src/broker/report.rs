//! What the broker says about keys and requests to those who ask.

use alloc::{boxed::Box, vec, vec::Vec};

use super::session::Sessions;
use crate::storage::Growable;
use crate::table::{ForceTarget, KeyView, LockTable, Mode, RequestView, Want};
use crate::wire::{Answer, HolderFields, KeyFields, Page, Seq, SeqBuf};
use crate::{Instant, Key, RequestId};

/// What is left of a frame for a sequence beside the rest of its message and a key.
const FIXED_BYTES: usize = 128;
/// A page costs no more where many keys once were than where few are.
const PLACES_PER_PAGE: u32 = 1024;
/// Holders that a refusal names need not fill a frame: refusals are frequent.
const HOLDERS_BYTES_MAX: usize = 4096;

/// Room to put answers together in, so that none needs an allocation.
#[derive(Debug)]
pub(super) struct Scratch {
    items: Box<[u8]>,
    key: Vec<u8>,
    label: Vec<u8>,
}

impl Scratch {
    pub(super) fn new(frame_bytes_max: u32) -> Self {
        Self {
            items: vec![0; frame_bytes_max as usize].into(),
            key: Vec::new(),
            label: Vec::new(),
        }
    }

    fn holders(&mut self) -> (SeqBuf<'_, HolderFields<'_>>, &mut Vec<u8>) {
        let bytes = HOLDERS_BYTES_MAX.min(self.items.len() - FIXED_BYTES);
        (SeqBuf::new(&mut self.items[..bytes]), &mut self.label)
    }
}

/// Says why a request that may not wait would have to.
pub(super) fn busy<'a>(
    table: &LockTable<Growable>,
    sessions: &Sessions,
    scratch: &'a mut Scratch,
    id: RequestId,
    wants: &[Want<'a>],
) -> Answer<'a> {
    let first = wants
        .first()
        .expect("a request without keys is refused as that");
    let obstacle = wants
        .iter()
        .find(|want| {
            table
                .inspect(want.key)
                .is_some_and(|view| is_obstacle(view, want.mode))
        })
        .unwrap_or(first);
    let key = obstacle.key;
    let view = table.inspect(key);
    let bytes = HOLDERS_BYTES_MAX.min(scratch.items.len() - FIXED_BYTES - key.as_bytes().len());
    let mut holders = SeqBuf::new(&mut scratch.items[..bytes]);
    if let Some(view) = view {
        push_all(view.holders(), sessions, &mut holders, &mut scratch.label);
    }
    Answer::Busy {
        id,
        key: key.as_bytes(),
        waiting: view.map_or(0, |view| view.waiters_len()),
        holders: holders.finish(),
    }
}

/// Ends holds by force, and says whose they were.
pub(super) fn force_release<'a>(
    table: &mut LockTable<Growable>,
    sessions: &Sessions,
    scratch: &'a mut Scratch,
    now: Instant,
    target: ForceTarget<'_>,
) -> Answer<'a> {
    let (mut holders, label) = scratch.holders();
    match target {
        ForceTarget::Key(key) => {
            if let Some(view) = table.inspect(key) {
                push_all(view.holders(), sessions, &mut holders, label);
            }
        }
        ForceTarget::Request(id) => {
            push_all(table.request(id), sessions, &mut holders, label);
        }
    }
    let holders = holders.finish();
    let count = table.force_release(now, target);
    Answer::ForceReleased { holders, count }
}

/// A page of the keys in use.
pub(super) fn list<'a>(
    table: &LockTable<Growable>,
    scratch: &'a mut Scratch,
    start: u32,
) -> Answer<'a> {
    let bytes = scratch.items.len() - FIXED_BYTES;
    let mut keys = SeqBuf::new(&mut scratch.items[..bytes]);
    let all = table.positions_end();
    let end = all.min(start.saturating_add(PLACES_PER_PAGE));
    let mut next = (end < all).then_some(end);
    for view in table.keys_in(start..end) {
        let fields = key_fields(view, join(view.key(), &mut scratch.key));
        if !keys.push_short_lived(&fields) {
            next = Some(view.position());
            break;
        }
    }
    let keys = keys.finish();
    Answer::Listed(Page { keys, next })
}

/// One key: its holders and waiters but the first `skip`, as many as fit.
pub(super) fn inspect<'a>(
    table: &LockTable<Growable>,
    sessions: &Sessions,
    scratch: &'a mut Scratch,
    key: Key<'a>,
    skip: u32,
) -> Answer<'a> {
    let bytes = scratch.items.len() - FIXED_BYTES - key.as_bytes().len();
    let mut requests = SeqBuf::new(&mut scratch.items[..bytes]);
    let Some(view) = table.inspect(key) else {
        let key = KeyFields {
            key: key.as_bytes(),
            holders: 0,
            waiters: 0,
            capacity: None,
        };
        let requests = Seq::default();
        return Answer::Inspected { key, requests };
    };
    let rest = view.holders().chain(view.waiters()).skip(skip as usize);
    push_all(rest, sessions, &mut requests, &mut scratch.label);
    Answer::Inspected {
        key: key_fields(view, key.as_bytes()),
        requests: requests.finish(),
    }
}

/// Whether somebody who holds or waits for the key, or a lock-delay, keeps `mode` from being
/// granted now.
fn is_obstacle(view: KeyView<'_>, mode: Mode) -> bool {
    let upgrades = |holder: RequestView<'_>| holder.is_upgrading();
    if view.waiters_len() > 0 || view.delayed_until().is_some() || view.holders().any(upgrades) {
        return true;
    }
    let mut free = match mode {
        // It would not be in use if nobody held it.
        Mode::Exclusive => return true,
        Mode::Shared => return view.holders().any(|holder| holder.mode() != Mode::Shared),
        Mode::Semaphore { capacity, .. } => capacity,
    };
    for holder in view.holders() {
        let Mode::Semaphore { permits, .. } = holder.mode() else {
            return true;
        };
        free = free.saturating_sub(permits);
    }
    matches!(mode, Mode::Semaphore { permits, .. } if permits > free)
}

fn key_fields<'a>(view: KeyView<'_>, key: &'a [u8]) -> KeyFields<'a> {
    KeyFields {
        key,
        holders: view.holders_len(),
        waiters: view.waiters_len(),
        capacity: view.capacity(),
    }
}

/// Appends requests until one does not fit.
fn push_all<'v>(
    requests: impl IntoIterator<Item = RequestView<'v>>,
    sessions: &Sessions,
    into: &mut SeqBuf<'_, HolderFields<'_>>,
    label: &mut Vec<u8>,
) {
    for request in requests {
        let fields = HolderFields {
            id: request.id(),
            mode: request.mode(),
            grant: request.grant(),
            since: request.since(),
            keep: request.keep(),
            label: join(request.label(), label),
            name: sessions.name(request.session()),
        };
        if !into.push_short_lived(&fields) {
            break;
        }
    }
}

fn join<'s, 'p>(pieces: impl Iterator<Item = &'p [u8]>, into: &'s mut Vec<u8>) -> &'s [u8] {
    into.clear();
    for piece in pieces {
        into.extend_from_slice(piece);
    }
    into
}

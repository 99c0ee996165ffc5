//! Bytes of keys and labels: where they stand, and how they are read.

use crate::Key;
use crate::arena::NONE;
use crate::hash::{Hasher, ShortKey};
use crate::index::Index;
use crate::table::core::Core;
use crate::table::core::CoreRef;
use crate::table::slots::Head;
use crate::table::slots::{INLINE_BYTES, LockSlot, PIECE_BYTES, PREFIX_BYTES, Piece};
use crate::table::{Parts, PartsRef};

/// Pieces that a key of so many bytes needs.
pub(crate) const fn pieces_of_key(bytes: usize) -> u32 {
    if bytes <= INLINE_BYTES {
        0
    } else {
        (bytes - PREFIX_BYTES).div_ceil(PIECE_BYTES) as u32
    }
}

/// Pieces that a label of so many bytes needs.
pub(crate) const fn pieces_of_label(bytes: usize) -> u32 {
    bytes.div_ceil(PIECE_BYTES) as u32
}

impl<'a> PartsRef<'a> {
    /// The key's bytes, in order.
    pub(crate) fn key_pieces(&self, lock: u32) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        key_of(&self.locks[lock as usize], self.pieces)
    }

    /// `bytes` bytes that stand in the pieces from `first` on.
    pub(crate) fn text(
        &self,
        first: u32,
        bytes: usize,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        text(self.pieces, first, bytes)
    }

    /// Whether the lock is on `key`, which has pieces.
    fn long_key_is(&self, lock: &LockSlot, key: &[u8]) -> bool {
        if lock.key_bytes() != key.len() {
            return false;
        }
        let (prefix, mut rest) = key.split_at(PREFIX_BYTES);
        lock.inline[..PREFIX_BYTES] == *prefix
            && self.text(lock.first_piece(), rest.len()).all(|piece| {
                let (here, after) = rest.split_at(piece.len());
                rest = after;
                here == piece
            })
    }
}

/// Where a key stands, or would stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) hash: u32,
    /// The bucket of that, while no slot is used that never was before.
    pub(crate) bucket: usize,
    /// Its lock, or `NONE`.
    pub(crate) lock: u32,
    /// What stands in its lock's slot, but for the number of the first piece.
    inline: ShortKey,
}

impl Place {
    /// The slot of a lock on `key`, whose place this is, except for the pieces of a long one.
    #[inline]
    pub(crate) fn lock_slot(&self, key: Key<'_>) -> LockSlot {
        LockSlot::new(self.inline, key.as_bytes().len() as u32, self.hash)
    }
}

impl CoreRef<'_> {
    /// Where `key` stands, or would stand.
    #[expect(
        clippy::inline_always,
        reason = "called, it would have all of the table's slices written to memory first"
    )]
    #[inline(always)]
    pub(crate) fn place_of(&self, key: Key<'_>) -> Place {
        let key = key.as_bytes();
        let Some(inline) = short(key) else {
            return self.place_of_long(key);
        };
        let hash = self.hasher.short_key(&inline, key.len());
        self.place_of_short(inline, key.len(), hash)
    }

    /// Where a short `key` stands, or would stand, whose hash is known.
    pub(crate) fn place_of_hashed(&self, key: Key<'_>, hash: u32) -> Place {
        let key = key.as_bytes();
        let inline = short(key).expect("it needs no pieces");
        self.place_of_short(inline, key.len(), hash)
    }

    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    fn place_of_short(&self, inline: ShortKey, bytes: usize, hash: u32) -> Place {
        let locks = self.parts.locks;
        let bucket = self.head.lock_index.bucket_of(hash);
        let lock = Index::find_in(self.parts.lock_cells, bucket, hash, |lock| {
            let lock = &locks[lock as usize];
            lock.inline == inline && lock.key_bytes() == bytes
        });
        Place {
            hash,
            bucket,
            lock,
            inline,
        }
    }

    /// By value, so that callers need not have this in memory for the sake of long keys.
    #[inline(never)]
    fn place_of_long(self, key: &[u8]) -> Place {
        let hash = self.hasher.long_key([key].into_iter());
        let bucket = self.head.lock_index.bucket_of(hash);
        let lock = Index::find_in(self.parts.lock_cells, bucket, hash, |lock| {
            let lock = &self.parts.locks[lock as usize];
            self.parts.long_key_is(lock, key)
        });
        let mut inline = [0; INLINE_BYTES];
        inline[..PREFIX_BYTES].copy_from_slice(&key[..PREFIX_BYTES]);
        Place {
            hash,
            bucket,
            lock,
            inline,
        }
    }
}

/// The hash under which a lock on this key is indexed.
pub(crate) fn hash_of(lock: &LockSlot, pieces: &[Piece], hasher: &Hasher) -> u32 {
    if lock.has_pieces() {
        hasher.long_key(key_of(lock, pieces))
    } else {
        hasher.short_key(&lock.inline, lock.key_bytes())
    }
}

/// The bytes of the lock's key, in order.
pub(crate) fn key_of<'l>(
    lock: &'l LockSlot,
    pieces: &'l [Piece],
) -> impl Iterator<Item = &'l [u8]> + use<'l> {
    let bytes = lock.key_bytes();
    let (inline, first, rest) = if bytes <= INLINE_BYTES {
        (bytes, NONE, 0)
    } else {
        (PREFIX_BYTES, lock.first_piece(), bytes - PREFIX_BYTES)
    };
    core::iter::once(&lock.inline[..inline]).chain(text(pieces, first, rest))
}

fn text(pieces: &[Piece], first: u32, bytes: usize) -> impl Iterator<Item = &[u8]> {
    let mut at = first;
    let mut left = bytes;
    core::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let piece = &pieces[at as usize];
        let here = left.min(PIECE_BYTES);
        at = piece.next;
        left -= here;
        Some(&piece.bytes[..here])
    })
}

/// The key with zeros behind it, if it is short enough to need no pieces.
#[inline]
pub(crate) fn short(key: &[u8]) -> Option<ShortKey> {
    if let Ok(full) = key.try_into() {
        return Some(full);
    }
    let mut inline = [0; INLINE_BYTES];
    inline.get_mut(..key.len())?.copy_from_slice(key);
    Some(inline)
}

impl Core<'_> {
    /// Fills a fresh lock's slot for `key`, and pieces as needed.
    #[inline]
    pub(crate) fn store_key(&mut self, lock: u32, key: Key<'_>, place: &Place) {
        let mut slot = place.lock_slot(key);
        if slot.has_pieces() {
            let rest = &key.as_bytes()[PREFIX_BYTES..];
            let first = store(self.head, &mut self.parts, rest);
            slot.inline[PREFIX_BYTES..].copy_from_slice(&first.to_le_bytes());
        }
        self.parts.locks[lock as usize] = slot;
    }

    /// Writes a label into pieces, and returns the first one.
    pub(crate) fn store_label(&mut self, label: &[u8]) -> u32 {
        store(self.head, &mut self.parts, label)
    }

    /// Gives the pieces from `first` on back.
    pub(crate) fn free_text(&mut self, first: u32) {
        let mut at = first;
        while at != NONE {
            let next = self.parts.pieces[at as usize].next;
            self.head.pieces.give(self.parts.pieces, at);
            at = next;
        }
    }
}

fn store(head: &mut Head, parts: &mut Parts<'_>, text: &[u8]) -> u32 {
    let mut first = NONE;
    // From the end, so that each piece can name the one after it.
    for chunk in text.chunks(PIECE_BYTES).rev() {
        let at = head.pieces.take(parts.pieces);
        let mut bytes = [0; PIECE_BYTES];
        bytes[..chunk.len()].copy_from_slice(chunk);
        parts.pieces[at as usize] = Piece { bytes, next: first };
        first = at;
    }
    first
}

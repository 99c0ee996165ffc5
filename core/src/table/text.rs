//! Bytes of keys and labels: where they stand, and how they are read.

use crate::Key;
use crate::arena::NONE;
use crate::table::core::Core;
use crate::table::slots::Head;
use crate::table::slots::{
    INLINE_BYTES, LockSlot, PIECE_BYTES, PREFIX_BYTES, Parts, PartsRef, Piece,
};

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
        self.key_pieces_of(&self.locks[lock as usize])
    }

    /// The bytes of the lock's key, in order.
    pub(crate) fn key_pieces_of<'l>(
        &self,
        lock: &'l LockSlot,
    ) -> impl Iterator<Item = &'l [u8]> + use<'a, 'l>
    where
        'a: 'l,
    {
        let bytes = lock.key_bytes();
        let (inline, first, rest) = if bytes <= INLINE_BYTES {
            (bytes, NONE, 0)
        } else {
            (PREFIX_BYTES, lock.first_piece(), bytes - PREFIX_BYTES)
        };
        core::iter::once(&lock.inline[..inline]).chain(self.text(first, rest))
    }

    /// `bytes` bytes that stand in the pieces from `first` on.
    pub(crate) fn text(
        &self,
        first: u32,
        bytes: usize,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let pieces = self.pieces;
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

    /// Whether the lock is on `key`.
    pub(crate) fn key_is(&self, lock: &LockSlot, key: Key<'_>) -> bool {
        let key = key.as_bytes();
        let bytes = lock.key_bytes();
        if bytes != key.len() {
            return false;
        }
        if bytes <= INLINE_BYTES {
            return lock.inline[..bytes] == *key;
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

impl Core<'_> {
    /// Writes `key` into a fresh lock's slot, and into pieces as needed.
    pub(crate) fn store_key(&mut self, lock: u32, key: Key<'_>) {
        let key = key.as_bytes();
        let mut inline = [0; INLINE_BYTES];
        if key.len() <= INLINE_BYTES {
            inline[..key.len()].copy_from_slice(key);
        } else {
            let (prefix, rest) = key.split_at(PREFIX_BYTES);
            let first = store(self.head, &mut self.parts, rest);
            inline[..PREFIX_BYTES].copy_from_slice(prefix);
            inline[PREFIX_BYTES..].copy_from_slice(&first.to_le_bytes());
        }
        let slot = &mut self.parts.locks[lock as usize];
        slot.inline = inline;
        slot.set_key_bytes(key.len() as u32);
    }

    /// Gives the pieces of a lock's key back.
    pub(crate) fn free_key(&mut self, lock: &LockSlot) {
        if lock.has_pieces() {
            self.free_text(lock.first_piece());
        }
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

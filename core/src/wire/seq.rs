//! A sequence of messages that stays encoded until it is iterated.

use core::marker::PhantomData;

use serde::{Deserialize, Serialize};

/// Items encoded one behind the other, read without allocating.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq<'a, T> {
    #[serde(borrow, with = "super::bytes")]
    bytes: &'a [u8],
    #[serde(skip)]
    item: PhantomData<T>,
}

impl<T> Default for Seq<'_, T> {
    /// No items.
    fn default() -> Self {
        Self {
            bytes: &[],
            item: PhantomData,
        }
    }
}

impl<T> core::fmt::Debug for Seq<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Seq({} bytes)", self.bytes.len())
    }
}

impl<'a, T: Deserialize<'a>> Seq<'a, T> {
    /// The items, ending at the first that cannot be read with its error.
    pub fn iter(&self) -> impl Iterator<Item = Result<T, postcard::Error>> + use<'a, T> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            match postcard::take_from_bytes(rest) {
                Ok((item, after)) => {
                    rest = after;
                    Some(Ok(item))
                }
                Err(error) => {
                    rest = &[];
                    Some(Err(error))
                }
            }
        })
    }
}

/// A buffer that encodes a [`Seq`].
#[derive(Debug)]
pub struct SeqBuf<'b, T> {
    buffer: &'b mut [u8],
    used: usize,
    item: PhantomData<T>,
}

impl<'b, T: Serialize> SeqBuf<'b, T> {
    /// An empty sequence that has room for `buffer.len()` bytes.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            buffer,
            used: 0,
            item: PhantomData,
        }
    }

    /// Appends `item` if there is room for it, and says whether there was.
    pub fn push(&mut self, item: &T) -> bool {
        self.push_short_lived(item)
    }

    /// Appends an item that does not live as long as the others: it must be a `T` but for
    /// its lifetimes.
    pub(crate) fn push_short_lived(&mut self, item: &impl Serialize) -> bool {
        match postcard::to_slice(item, &mut self.buffer[self.used..]) {
            Ok(written) => {
                self.used += written.len();
                true
            }
            Err(_) => false,
        }
    }

    /// The sequence so far.
    #[must_use]
    pub fn finish(self) -> Seq<'b, T> {
        Seq {
            bytes: &self.buffer[..self.used],
            item: PhantomData,
        }
    }
}

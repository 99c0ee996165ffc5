//! Who waits for whom in a circle.

use core::fmt;
use core::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// A circle of owners: each waits for the next, and the last for the first, who is the
/// one that was refused.
///
/// Of a large circle the first [`NAMED_MAX`](Self::NAMED_MAX) are named, and the others
/// counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Zero beyond the last.
    named: [u32; Self::NAMED_MAX],
    len: u32,
}

impl Owners {
    /// So many are named.
    pub const NAMED_MAX: usize = 8;

    /// Those who are named, in order.
    pub fn named(&self) -> impl Iterator<Item = NonZeroU32> {
        self.named.into_iter().map_while(NonZeroU32::new)
    }

    /// How many there are besides those who are named.
    #[must_use]
    pub fn unnamed(&self) -> u32 {
        self.len.saturating_sub(self.named().count() as u32)
    }

    /// Puts another one before the first.
    pub(crate) fn put_first(&mut self, owner: NonZeroU32) {
        self.named.copy_within(..Self::NAMED_MAX - 1, 1);
        self.named[0] = owner.get();
        self.len += 1;
    }

    pub(crate) fn first(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.named[0])
    }
}

impl FromIterator<NonZeroU32> for Owners {
    fn from_iter<I: IntoIterator<Item = NonZeroU32>>(owners: I) -> Self {
        let mut all = Self::default();
        for owner in owners {
            if let Some(free) = all.named.get_mut(all.len as usize) {
                *free = owner.get();
            }
            all.len += 1;
        }
        all
    }
}

impl fmt::Display for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for owner in self.named() {
            write!(f, "{owner} waits for ")?;
        }
        match self.unnamed() {
            0 => {}
            1 => f.write_str("one more, who waits for ")?,
            more => write!(f, "{more} more in turn, the last of whom waits for ")?,
        }
        write!(f, "{}", self.named[0])
    }
}

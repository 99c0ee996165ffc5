//! Commands of one connection that have no answer yet.

use super::HoldOf;
use super::answers::Expected;

/// What an answer is held against.
#[derive(Debug)]
pub(super) enum Open {
    /// A renewal of this request, for so long.
    Renew(u128, Option<u64>),
    /// Force on the key with this number.
    Force {
        key: usize,
        /// Who held it when that was heard, and which of its holds that was.
        holders: Vec<(u128, HoldOf)>,
    },
    /// A request that may begin to wait for some keys.
    Ask {
        id: u128,
        keys: u64,
    },
    Other,
    /// Nothing is to be carried out.
    Question,
}

/// These commands, by their tags.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// By itself, for it is searched with every answer.
    tags: Vec<u32>,
    commands: Vec<(Open, Option<Expected>)>,
}

impl Unanswered {
    pub(super) fn push(&mut self, tag: u32, open: Open, expected: Option<Expected>) {
        self.tags.push(tag);
        self.commands.push((open, expected));
    }

    /// Takes the first with this tag out.
    pub(super) fn take(&mut self, tag: u32) -> Option<(Open, Option<Expected>)> {
        let place = self.tags.iter().position(|other| *other == tag)?;
        self.tags.swap_remove(place);
        Some(self.commands.swap_remove(place))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Open> {
        self.commands.iter_mut().map(|(open, _)| open)
    }
}

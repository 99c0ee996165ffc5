//! Which socket or task carries which connection of the machine.

use std::sync::Arc;

use atomic_waker::AtomicWaker;
use lmx_core::broker::ConnectionId;

/// How a connection's output gets out.
#[derive(Debug)]
pub(super) enum Link {
    /// By the socket in this slot of the readiness loop.
    Socket(usize),
    /// By a task, which this wakes.
    Stream(Arc<AtomicWaker>),
}

/// The links of all connections, by the machine's numbering.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_index: Vec<Option<(ConnectionId, Link)>>,
    len: usize,
}

impl Links {
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Link> {
        match self.by_index.get(id.index() as usize) {
            Some(Some((found, link))) if *found == id => Some(link),
            _ => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn insert(&mut self, id: ConnectionId, link: Link) {
        let index = id.index() as usize;
        if index >= self.by_index.len() {
            self.by_index.resize_with(index + 1, || None);
        }
        let before = self.by_index[index].replace((id, link));
        assert!(before.is_none(), "no two open connections have one number");
        self.len += 1;
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Link> {
        self.get(id)?;
        let (_, link) = self.by_index[id.index() as usize].take()?;
        self.len -= 1;
        Some(link)
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Link> + use<> {
        let links = std::mem::take(self);
        links.by_index.into_iter().flatten().map(|(_, link)| link)
    }
}

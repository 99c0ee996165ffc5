//! The broker's connections by the broker's own numbers, with what is looked at of each whenever
//! the broker is.

use lmx_core::broker::ConnectionId;

use crate::oracle::ledger::{Ledger, Tap};

/// One of the broker's connections.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    /// Which of the world's connections it is.
    pub(super) conn: u32,
    /// The other end speaks live-mutex's protocol.
    pub(super) is_dialect: bool,
    /// The session that the other end was told of, until it is gone.
    pub(super) session: Option<u64>,
    /// The other end has asked to go on with a session, and was told nothing yet.
    pub(super) is_resuming: bool,
    /// The broker was seen to count a session as this connection's.
    pub(super) is_bound: bool,
    /// Commands that came over it are yet to be carried out.
    pub(super) is_asked: bool,
    /// Nobody counts what else came over it.
    pub(super) is_uncounted: bool,
}

impl Link {
    pub(super) const fn new(id: ConnectionId, conn: u32, is_dialect: bool) -> Self {
        Self {
            id,
            conn,
            is_dialect,
            session: None,
            is_resuming: false,
            is_bound: false,
            is_asked: false,
            is_uncounted: false,
        }
    }

    /// Something was said over it, by one end or the other.
    pub(super) const fn follow(&mut self, tap: &Tap) {
        self.session = Ledger::session(tap);
        self.is_resuming = Ledger::is_resuming(tap);
        self.is_asked = Ledger::is_asked(tap);
        self.is_uncounted = !Ledger::is_native(tap);
    }
}

/// All of them, in no order.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: Vec<Link>,
    /// For each of the broker's slots, where the last link that was in it stands, if it is there.
    places: Vec<u32>,
}

impl Links {
    pub(super) fn insert(&mut self, link: Link) {
        let slot = link.id.index() as usize;
        if self.places.len() <= slot {
            self.places.resize(slot + 1, 0);
        }
        self.places[slot] = self.links.len() as u32;
        self.links.push(link);
    }

    pub(super) fn remove(&mut self, id: ConnectionId) {
        let Some(place) = self.place(id) else {
            return;
        };
        self.links.swap_remove(place);
        if let Some(moved) = self.links.get(place) {
            self.places[moved.id.index() as usize] = place as u32;
        }
    }

    pub(super) fn clear(&mut self) {
        self.links.clear();
    }

    pub(super) const fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Link> {
        Some(&self.links[self.place(id)?])
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Link> {
        let place = self.place(id)?;
        Some(&mut self.links[place])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut()
    }

    fn place(&self, id: ConnectionId) -> Option<usize> {
        let place = *self.places.get(id.index() as usize)? as usize;
        let link = self.links.get(place)?;
        (link.id == id).then_some(place)
    }
}

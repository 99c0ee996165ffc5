//! Native sessions: what the broker remembers of them beside the lock table.

use alloc::{boxed::Box, collections::BTreeMap, collections::BTreeSet};
use core::hash::Hasher as _;
use core::time::Duration;

use siphasher::sip128::{Hasher128 as _, SipHasher24};
use subtle::ConstantTimeEq as _;

use super::ConnectionId;
use crate::wire::Ticket;
use crate::{Instant, SessionId};

#[derive(Debug)]
pub(super) struct Session {
    /// The connection that is bound to it, if any.
    pub(super) connection: Option<ConnectionId>,
    /// Who it says it is.
    pub(super) name: Box<str>,
    /// How long it outlives its connection.
    pub(super) resume_window: Duration,
    /// It has shown a ticket of before the broker's restart.
    pub(super) may_reclaim: bool,
    /// The session of before the restart that it goes on from, until it has reclaimed.
    pub(super) reclaims_from: Option<(u64, SessionId)>,
    /// When it ends, while it has no connection.
    ends: Option<Instant>,
}

/// Every native session that the lock table has.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: BTreeMap<SessionId, Session>,
    /// Those without a connection, by when they end.
    ending: BTreeSet<(Instant, SessionId)>,
    /// How many have ended.
    ended: u64,
}

impl Sessions {
    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.open.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.open.get_mut(&id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.open.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// How many have ended so far.
    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    pub(super) fn open(
        &mut self,
        id: SessionId,
        connection: ConnectionId,
        name: &str,
        resume_window: Duration,
        may_reclaim: bool,
    ) {
        let session = Session {
            connection: Some(connection),
            name: name.into(),
            resume_window,
            may_reclaim,
            reclaims_from: None,
            ends: None,
        };
        let old = self.open.insert(id, session);
        assert!(old.is_none(), "the table gives each session id once");
    }

    /// Binds the session to a connection, and returns the one it was bound to.
    pub(super) fn attach(
        &mut self,
        id: SessionId,
        connection: ConnectionId,
        name: &str,
    ) -> Option<ConnectionId> {
        let session = self.open.get_mut(&id)?;
        if let Some(ends) = session.ends.take() {
            self.ending.remove(&(ends, id));
        }
        if &*session.name != name {
            session.name = name.into();
        }
        session.connection.replace(connection)
    }

    /// The session has lost its connection; it ends now if it has no resume window.
    pub(super) fn detach(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.open.get_mut(&id) else {
            return;
        };
        session.connection = None;
        if session.resume_window.is_zero() {
            self.open.remove(&id);
            self.ended += 1;
        } else {
            let ends = now + session.resume_window;
            session.ends = Some(ends);
            self.ending.insert((ends, id));
        }
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.open.remove(&id) {
            self.ended += 1;
            if let Some(ends) = session.ends {
                self.ending.remove(&(ends, id));
            }
        }
    }

    /// Forgets those whose resume window has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(ends, id)) = self.ending.first()
            && ends <= now
        {
            self.ending.pop_first();
            self.open.remove(&id);
            self.ended += 1;
        }
    }

    /// Asserts that those without a connection end, and no others; counts the others.
    pub(super) fn check(&self) -> usize {
        let mut bound = 0;
        for (&id, session) in &self.open {
            assert_eq!(session.ends.is_none(), session.connection.is_some());
            match session.ends {
                Some(ends) => assert!(self.ending.contains(&(ends, id))),
                None => bound += 1,
            }
        }
        assert_eq!(self.ending.len(), self.open.len() - bound);
        bound
    }

    /// The name that a session gave itself.
    pub(super) fn name(&self, id: Option<SessionId>) -> &str {
        id.and_then(|id| self.open.get(&id))
            .map_or("", |session| &session.name)
    }
}

/// What proves that a client owns a session of the run `incarnation` of this broker: a
/// keyed hash, so that nothing need be stored and nobody without the key can guess it.
pub(super) fn ticket(seed: &[u8; 16], incarnation: u64, session: SessionId) -> Ticket {
    let mut hasher = SipHasher24::new_with_key(seed);
    hasher.write(&incarnation.to_le_bytes());
    hasher.write(&session.as_u64().to_le_bytes());
    Ticket {
        incarnation,
        session,
        secret: hasher.finish128().as_u128().to_le_bytes(),
    }
}

/// Whether the secret in `shown` is right, in a time that does not depend on it.
pub(super) fn is_genuine(seed: &[u8; 16], shown: &Ticket) -> bool {
    let right = ticket(seed, shown.incarnation, shown.session);
    right.secret.ct_eq(&shown.secret).into()
}

/// Whether `shown` is the authentication token, in a time that does not depend on where
/// the two differ, nor on the token's length.
pub(super) fn is_authorized(token: &[u8], shown: &[u8]) -> bool {
    // Comparing hashes hides the length, too.
    let digest = |bytes: &[u8]| {
        let mut hasher = SipHasher24::new();
        hasher.write(bytes);
        hasher.finish128().as_u128().to_le_bytes()
    };
    let same_digest = digest(token).ct_eq(&digest(shown));
    (same_digest & token.ct_eq(shown)).into()
}

//! What a broker does with what its predecessor left: kept holds, and reclaims.

use crate::planted::planted;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::{Broker, ConfigError};
use super::{KeptHold, REFRESH_DELAY, Watched};
use crate::table::{AcquireError, ForceTarget};
use crate::{Acquire, FencingToken, Instant, Key, Mode, SessionId, Want};

impl Broker {
    /// Puts back the kept holds of before.
    pub(in crate::broker) fn restore(
        &mut self,
        now: Instant,
        holds: &[KeptHold],
    ) -> Result<(), ConfigError> {
        if holds.is_empty() || planted!("kept-holds-not-restored") {
            return Ok(());
        }
        // Reclaims need a grace period, however short.
        self.table.begin_grace(
            now,
            self.grace_until.unwrap_or(now + Duration::from_nanos(1)),
        );
        let permits = permits_by_key(holds);
        for hold in holds {
            self.restore_one(now, hold, &permits)
                .map_err(|error| ConfigError::NotRestored { error })?;
            let watched = Watched {
                longest: hold.lease,
                kept_in: 0,
            };
            self.durable.watched.insert(hold.id, watched);
        }
        if self.grace_until.is_none() {
            self.table.end_grace(now);
        }
        Ok(())
    }

    fn restore_one(
        &mut self,
        now: Instant,
        hold: &KeptHold,
        permits_by_key: &BTreeMap<Vec<u8>, u32>,
    ) -> Result<(), AcquireError> {
        let mut wants = Vec::with_capacity(hold.keys.len());
        for (name, mode) in &hold.keys {
            let max = self.config.table.key_bytes_max;
            let key = Key::new(name, max).map_err(|_| AcquireError::KeyTooLong { max })?;
            let mode = match *mode {
                // It may have been lowered since: what is held fits all the same, until a
                // request says again what the capacity is.
                Mode::Semaphore { capacity, permits } => Mode::Semaphore {
                    capacity: permits_by_key
                        .get(name)
                        .map_or(capacity, |held| capacity.max(*held)),
                    permits,
                },
                mode => mode,
            };
            wants.push(Want { key, mode });
        }
        let ask = Acquire {
            lease: hold.lease,
            keep: true,
            label: &hold.label,
            lock_delay: hold.lock_delay,
            ..Acquire::new(hold.id, &wants)
        };
        // Its session is gone; it goes on without one.
        let session = self
            .table
            .open_session(now, Duration::ZERO)
            .map_err(|_| AcquireError::UnknownSession)?;
        let restored = self.table.reclaim(now, session, &ask, hold.token);
        let closed = self.table.close_session(now, session);
        debug_assert!(closed.is_ok(), "it was opened above");
        restored.map(|_| ())
    }

    /// A session of before has put back all it had, or will never do so.
    pub(in crate::broker) fn note_reclaimed(&mut self, now: Instant, before: (u64, SessionId)) {
        if self.durable.outstanding.remove(&before).is_none() {
            return;
        }
        self.durable.refresh_at.get_or_insert(now + REFRESH_DELAY);
        let Some(until) = self.grace_until else {
            return;
        };
        match self.durable.grace_until().filter(|&until| until > now) {
            Some(earlier) if earlier < until => {
                self.grace_until = Some(earlier);
                self.table.begin_grace(now, earlier);
            }
            Some(_) => {}
            None => {
                self.grace_until = None;
                self.table.end_grace(now);
            }
        }
    }

    /// A hold was not put back, because it conflicts with another or there is no room. Its
    /// holder believes in it until it is told, and nobody can say when that is: it is
    /// waited for as one that has not come back.
    pub(in crate::broker) fn note_not_reclaimed(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.reclaims_from = None;
        }
    }

    /// Ends restored holds that stand in the way of a reclaim of a later grant: that it
    /// was granted shows that they had ended, and only their end was not yet recorded.
    pub(in crate::broker) fn drop_superseded(
        &mut self,
        now: Instant,
        wants: &[Want<'_>],
        token: FencingToken,
    ) -> bool {
        let mut superseded = Vec::new();
        for want in wants {
            let Some(view) = self.table.inspect(want.key) else {
                continue;
            };
            superseded.extend(
                view.holders()
                    .filter(|holder| {
                        holder.session().is_none()
                            && holder.grant().is_some_and(|grant| grant.token < token)
                            && excludes(holder.mode(), want.mode)
                            && self.durable.watched.contains_key(&holder.id())
                    })
                    .map(|holder| holder.id()),
            );
        }
        for &id in &superseded {
            self.table.force_release(now, ForceTarget::Request(id));
        }
        !superseded.is_empty()
    }
}

/// How many permits of each key are held.
fn permits_by_key(holds: &[KeptHold]) -> BTreeMap<Vec<u8>, u32> {
    let mut held = BTreeMap::new();
    for (key, mode) in holds.iter().flat_map(|hold| &hold.keys) {
        if let Mode::Semaphore { permits, .. } = mode {
            let sum: &mut u32 = held.entry(key.clone()).or_default();
            *sum = sum.saturating_add(*permits);
        }
    }
    held
}

/// Whether two holds of one key in these modes can never be at one time.
fn excludes(one: Mode, other: Mode) -> bool {
    !matches!(
        (one, other),
        (Mode::Shared, Mode::Shared) | (Mode::Semaphore { .. }, Mode::Semaphore { .. })
    )
}

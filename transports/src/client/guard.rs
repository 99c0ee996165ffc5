//! A held lock.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use lmx_core::client::{Held, Loss};
use lmx_core::table::Conversion;
use lmx_core::{FencingToken, Mode, RequestId};

use super::error::{ConvertError, ReleaseError, RenewError};
use super::lead::Place;
use super::shared::{End, Slot};
use super::{Client, released};
use crate::clock;

/// A held lock. Dropping it gives the lock back in the background.
///
/// Also in the child of a process that forks (without `exec`), which would give back the
/// parent's lock: see [`Client`].
#[must_use = "a lock is given back when its guard is dropped"]
pub struct Guard {
    slot: SlotRef,
    keys: Vec<Box<[u8]>>,
    first: Held,
    /// Whether others may hold it, too.
    is_shared: bool,
    /// Whether dropping it gives the lock back.
    releases: bool,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|key| key.escape_ascii().to_string());
        f.debug_struct("Guard")
            .field("keys", &keys.collect::<Vec<_>>())
            .field("id", &format_args!("{}", self.id()))
            .field("token", &format_args!("{}", self.token()))
            .finish_non_exhaustive()
    }
}

impl Guard {
    pub(super) fn new(slot: SlotRef, wants: Vec<(Box<[u8]>, Mode)>, first: Held) -> Self {
        Self {
            slot,
            is_shared: wants.iter().any(|(_, mode)| *mode == Mode::Shared),
            keys: wants.into_iter().map(|(key, _)| key).collect(),
            first,
            releases: true,
        }
    }

    /// The fencing token: larger than that of every earlier grant of the broker. Hand it to
    /// the resource, which refuses what comes with a smaller one than it has seen.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.slot.look(|slot| slot.held).unwrap_or(self.first).token
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.slot.id
    }

    /// The key; the first, if there are several.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.keys[0]
    }

    /// All keys, in the order of the asking.
    #[must_use]
    pub fn keys(&self) -> &[Box<[u8]>] {
        &self.keys
    }

    /// Until when the lock is surely held, by this machine's clock: earlier than the
    /// broker's own deadline by what messages took and clocks may differ. It moves on with
    /// each renewal, and with each sign of life from the broker: without one, even a lock
    /// that has no lease ends with its session. `None` if no passing of time ends it.
    ///
    /// Once the lock is lost, this is in the past.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        clock::to_std(self.good_until()?)
    }

    /// The [`deadline`](Self::deadline) by [`clock::now`], which also counts the time that
    /// the machine was suspended.
    #[must_use]
    pub fn good_until(&self) -> Option<lmx_core::Instant> {
        let shared = &self.slot.client.handle.shared;
        let now = clock::now();
        let held = shared.lock().machine.held(now, self.slot.id);
        match held {
            Some(held) => held.good_until,
            None => Some(now),
        }
    }

    /// Whether the lock is surely held at this moment.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let shared = &self.slot.client.handle.shared;
        let state = shared.lock();
        state.machine.held(clock::now(), self.slot.id).is_some()
    }

    /// Completes once the lock is lost, with the reason. Stop what it protects.
    pub fn lost(&self) -> Lost<'_> {
        Lost {
            place: self.slot.idle_place(),
            slot: &self.slot,
        }
    }

    /// Completes once somebody waits for what this holds, if the request asked to be told
    /// ([`notify_contended`](super::Lock::notify_contended)).
    pub async fn contended(&self) {
        let mut place = self.slot.idle_place();
        let look = |slot: &mut Slot| slot.contended.then_some(());
        poll_fn(|cx| place.poll_slot(cx, self.slot.id, look)).await;
    }

    /// Extends the lock to `lease` from now, or with `None` to the session's end. If it is
    /// renewed by itself, it goes on with this lease.
    ///
    /// # Errors
    ///
    /// When it is lost, or the broker refuses.
    pub async fn renew(&self, lease: Option<Duration>) -> Result<(), RenewError> {
        self.slot.act(|state, now, id| {
            if let Some(slot) = state.slot(id) {
                slot.renewed = None;
            }
            state.machine.renew(now, id, lease);
        });
        self.slot
            .wait(|slot| match (&slot.renewed, &slot.end) {
                (Some(answer), _) => Some(answer.map(drop).map_err(RenewError::Refused)),
                (None, Some(End::Lost(why))) => Some(Err(RenewError::Lost(*why))),
                (None, Some(_)) => Some(Err(RenewError::NotHeld)),
                (None, None) => None,
            })
            .await
    }

    /// From exclusive to shared, at once.
    ///
    /// # Errors
    ///
    /// When it is lost, or the broker refuses.
    pub async fn downgrade(&mut self) -> Result<(), ConvertError> {
        // Whether or not anybody hears of it.
        self.is_shared = true;
        self.convert(Conversion::Downgrade).await
    }

    /// From shared to exclusive, as soon as all others have given it back; before all who
    /// wait. Until then it stays shared, and for good if this is dropped before.
    ///
    /// # Errors
    ///
    /// When it is lost, or the broker refuses: at once, if another holder already waits to
    /// upgrade.
    pub async fn upgrade(&mut self) -> Result<(), ConvertError> {
        let mut upgrade = Upgrade {
            is_withdrawn: self.is_shared,
            guard: self,
        };
        let result = upgrade.guard.convert(Conversion::Upgrade).await;
        upgrade.is_withdrawn = false;
        upgrade.guard.is_shared &= result.is_err();
        result
    }

    async fn convert(&mut self, to: Conversion) -> Result<(), ConvertError> {
        self.slot.act(|state, now, id| {
            if let Some(slot) = state.slot(id) {
                slot.converted = None;
            }
            state.machine.convert(now, id, to);
        });
        self.slot
            .wait(|slot| match (&slot.converted, &slot.end) {
                (Some(answer), _) => Some(answer.map(drop).map_err(ConvertError::Refused)),
                (None, Some(End::Lost(why))) => Some(Err(ConvertError::Lost(*why))),
                (None, Some(_)) => Some(Err(ConvertError::NotHeld)),
                (None, None) => None,
            })
            .await
    }

    /// Gives the lock back, and waits until the broker has said so.
    ///
    /// # Errors
    ///
    /// When it was lost before, or the broker does not answer.
    pub async fn release(mut self) -> Result<(), ReleaseError> {
        self.releases = false;
        self.slot.release().await
    }

    /// Lets go of the guard but not of the lock: it lasts until its lease ends, its session
    /// ends (unless it is to be [`keep`](super::Lock::keep)), or somebody
    /// [releases](Client::release) it by the id that this returns.
    #[must_use = "the id is what the lock can be released by"]
    pub fn into_id(mut self) -> RequestId {
        self.releases = false;
        self.slot.id
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.releases {
            self.slot.begin_release();
        }
    }
}

/// An upgrade whose outcome nobody has heard of.
struct Upgrade<'g> {
    guard: &'g mut Guard,
    /// Whether dropping it leaves the lock shared: not what was exclusive before.
    is_withdrawn: bool,
}

impl Drop for Upgrade<'_> {
    fn drop(&mut self) {
        if self.is_withdrawn {
            let withdraw = Conversion::Downgrade;
            let slot = &self.guard.slot;
            slot.act(|state, now, id| state.machine.convert(now, id, withdraw));
        }
    }
}

/// Completes once a lock is lost; see [`Guard::lost`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Lost<'g> {
    place: Place,
    slot: &'g SlotRef,
}

impl Future for Lost<'_> {
    type Output = Loss;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Loss> {
        let id = self.slot.id;
        self.place.poll_slot(cx, id, |slot| match slot.end {
            Some(End::Lost(why)) => Some(why),
            _ => None,
        })
    }
}

/// A share in what is known about one request, for as long as this lives.
#[derive(Debug)]
pub(super) struct SlotRef {
    pub(super) client: Client,
    pub(super) id: RequestId,
}

impl SlotRef {
    pub(super) fn enter(client: &Client, id: RequestId) -> Self {
        client.handle.shared.lock().enter(id);
        Self {
            client: client.clone(),
            id,
        }
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&Slot) -> R) -> R {
        let mut state = self.client.handle.shared.lock();
        look(state.slot(self.id).expect("its user is here"))
    }

    fn act(&self, act: impl FnOnce(&mut super::shared::State, lmx_core::Instant, RequestId)) {
        let shared = &self.client.handle.shared;
        shared.with(|state, now| act(state, now, self.id));
    }

    fn begin_release(&self) {
        self.act(|state, now, id| {
            // What has ended is not asked to end again.
            if state.slot(id).is_some_and(|slot| slot.end.is_none()) {
                state.machine.release(now, id);
            }
        });
    }

    pub(super) async fn release(&self) -> Result<(), ReleaseError> {
        self.begin_release();
        let end = self.wait(|slot| slot.end.clone()).await;
        released(&end)
    }

    pub(super) async fn cancel(&self) -> bool {
        let mut known = false;
        self.act(|state, now, id| {
            known = state.machine.is_known(id);
            state.machine.cancel(now, id);
        });
        known && matches!(self.wait(|slot| slot.end.clone()).await, End::Cancelled)
    }

    /// A place for one who waits for an answer.
    pub(super) fn place(&self) -> Place {
        Place::new(&self.client.handle.shared)
    }

    fn idle_place(&self) -> Place {
        Place::of_idler(&self.client.handle.shared)
    }

    async fn wait<R>(&self, look: impl Fn(&mut Slot) -> Option<R>) -> R {
        let mut place = self.place();
        poll_fn(|cx| place.poll_slot(cx, self.id, &look)).await
    }
}

impl Drop for SlotRef {
    fn drop(&mut self) {
        let left = self.client.handle.shared.lock().leave(self.id);
        // The lock is given back.
        drop(left);
    }
}

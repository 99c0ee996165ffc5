//! A request for locks.

use std::future::{Future, IntoFuture};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lmx_core::client::{LockRequest, Refusal};
use lmx_core::table::Wait;
use lmx_core::{Mode, RequestId};

use super::Client;
use super::error::LockError;
use super::guard::{Guard, SlotRef};
use super::lead::Place;
use super::shared::End;

/// Lease of a hold whose request names none; renewed while its guard lives.
const LEASE_DEFAULT: Duration = Duration::from_secs(4);

/// How long a request waits that does not say: live-mutex's three times three seconds.
const WAIT_DEFAULT: Duration = Duration::from_secs(9);

/// A request to be set up and then awaited. Without more it is for an exclusive lock, waits
/// 9 s, and is renewed for as long as its guard lives.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing unless awaited"]
pub struct Lock<C = Client> {
    client: C,
    id: Option<RequestId>,
    request: LockRequest,
    /// Where the keys begin that were named last.
    named_last: usize,
}

impl<C> Lock<C> {
    pub(crate) fn new<K: AsRef<[u8]>>(client: C, keys: impl IntoIterator<Item = K>) -> Self {
        let mut request = LockRequest::new(RequestId::from_u128(0), &[]);
        request.wants.clear();
        request.lease = Some(LEASE_DEFAULT);
        request.renew = true;
        request.wait = Wait::For(WAIT_DEFAULT);
        let lock = Self {
            client,
            id: None,
            request,
            named_last: 0,
        };
        lock.also_all(keys)
    }

    /// One more key, all or nothing; exclusive unless said otherwise.
    pub fn also(self, key: impl AsRef<[u8]>) -> Self {
        self.also_all([key])
    }

    /// More keys, all or nothing; exclusive unless said otherwise.
    pub fn also_all<K: AsRef<[u8]>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.named_last = self.request.wants.len();
        let wants = keys
            .into_iter()
            .map(|key| (key.as_ref().into(), Mode::Exclusive));
        self.request.wants.extend(wants);
        self
    }

    /// Holds what was named last alone (the default).
    pub fn exclusive(self) -> Self {
        self.mode(Mode::Exclusive)
    }

    /// Holds what was named last together with other shared holders.
    pub fn shared(self) -> Self {
        self.mode(Mode::Shared)
    }

    /// Takes `permits` of the `capacity` that what was named last has in all.
    pub fn semaphore(self, capacity: u32, permits: u32) -> Self {
        self.mode(Mode::Semaphore { capacity, permits })
    }

    /// Holds what was named last so.
    pub fn mode(mut self, mode: Mode) -> Self {
        for (_, want) in &mut self.request.wants[self.named_last..] {
            *want = mode;
        }
        self
    }

    /// The hold ends so long after its grant: a hard limit, unless [`renewed`](Self::renewed).
    pub fn lease(mut self, lease: Duration) -> Self {
        self.request.lease = Some(lease);
        self.request.renew = false;
        self
    }

    /// The hold has no lease and lasts as long as the session; with [`keep`](Self::keep),
    /// until it is released.
    pub fn no_lease(mut self) -> Self {
        self.request.lease = None;
        self.request.renew = false;
        self
    }

    /// Renews the lease that was set, for as long as the guard lives.
    pub fn renewed(mut self) -> Self {
        self.request.renew = self.request.lease.is_some();
        self
    }

    /// Waits so long at most (9 s), for a connection, too.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.request.wait = Wait::For(wait);
        self
    }

    /// Waits for ever.
    pub fn wait_forever(mut self) -> Self {
        self.request.wait = Wait::Forever;
        self
    }

    /// Does not wait: [`LockError::Busy`] says who holds it. Without a
    /// connection it waits for one, for [`connect_timeout`](crate::ClientBuilder::connect_timeout).
    pub fn try_now(mut self) -> Self {
        self.request.wait = Wait::No;
        self
    }

    /// The hold outlives its session, until its lease ends or somebody
    /// [releases](Client::release) it.
    pub fn keep(mut self) -> Self {
        self.request.keep = true;
        self
    }

    /// Who and why, for those who inspect the lock.
    pub fn label(mut self, label: impl AsRef<[u8]>) -> Self {
        self.request.label = label.as_ref().into();
        self
    }

    /// On whose behalf: a request that would close a circle of owners that wait for each
    /// other is refused.
    pub fn owner(mut self, owner: NonZeroU32) -> Self {
        self.request.owner = Some(owner);
        self
    }

    /// After the hold ended by expiry or a lost session, not by release, its keys are
    /// granted again only after this.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.request.lock_delay = delay;
        self
    }

    /// Tells the guard when somebody waits ([`Guard::contended`]).
    pub fn notify_contended(mut self) -> Self {
        self.request.notify_contended = true;
        self
    }

    /// Asks under this id instead of a fresh one.
    pub fn id(mut self, id: RequestId) -> Self {
        self.id = Some(id);
        self
    }

    /// The same request, of another kind of client.
    pub(crate) fn of<D>(self, convert: impl FnOnce(C) -> D) -> Lock<D> {
        Lock {
            client: convert(self.client),
            id: self.id,
            request: self.request,
            named_last: self.named_last,
        }
    }
}

impl IntoFuture for Lock {
    type Output = Result<Guard, LockError>;
    type IntoFuture = LockFuture;

    fn into_future(self) -> LockFuture {
        LockFuture {
            client: self.client,
            id: self.id,
            stage: Stage::New(self.request),
        }
    }
}

/// Awaits a lock. The request is made when this is first polled; dropping it withdraws the
/// request at the broker.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct LockFuture {
    client: Client,
    id: Option<RequestId>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    New(LockRequest),
    Waiting {
        place: Place,
        slot: SlotRef,
        wants: Vec<(Box<[u8]>, Mode)>,
        wait: Wait,
    },
    Done,
}

impl Future for LockFuture {
    type Output = Result<Guard, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.stage, Stage::New(_)) {
            self.begin()?;
        }
        let Stage::Waiting { place, slot, .. } = &mut self.stage else {
            panic!("`LockFuture` polled after completion");
        };
        let poll = place.poll_slot(cx, slot.id, |slot| match (slot.held, &slot.end) {
            (Some(held), _) => Some(Ok(held)),
            (None, Some(end)) => Some(Err(end.clone())),
            (None, None) => None,
        });
        let Poll::Ready(outcome) = poll else {
            return Poll::Pending;
        };
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        let Stage::Waiting {
            slot, wants, wait, ..
        } = stage
        else {
            unreachable!("it was waiting");
        };
        Poll::Ready(match outcome {
            Ok(held) => Ok(Guard::new(slot, wants, held)),
            Err(end) => Err(self.failure(end, wait)),
        })
    }
}

impl LockFuture {
    fn begin(&mut self) -> Result<(), LockError> {
        let Stage::New(mut request) = std::mem::replace(&mut self.stage, Stage::Done) else {
            unreachable!("it was new");
        };
        let wants = request.wants.clone();
        let wait = request.wait;
        let shared = &self.client.handle.shared;
        let id = shared.with(|state, now| {
            let id = self.id.unwrap_or_else(|| state.ids.fresh());
            request.id = id;
            if state.slot(id).is_some() || state.machine.acquire(now, request).is_err() {
                return Err(LockError::DuplicateId(id));
            }
            state.enter(id);
            Ok(id)
        })?;
        let client = self.client.clone();
        let slot = SlotRef { client, id };
        self.stage = Stage::Waiting {
            place: slot.place(),
            slot,
            wants,
            wait,
        };
        Ok(())
    }

    fn failure(&self, end: End, wait: Wait) -> LockError {
        match end {
            End::Refused(Refusal::Busy {
                key,
                holders,
                waiting,
            }) => LockError::Busy {
                key,
                holders,
                waiting,
            },
            End::Refused(Refusal::TimedOut) => LockError::TimedOut {
                waited: match wait {
                    Wait::For(wait) => wait,
                    Wait::Forever | Wait::No => Duration::ZERO,
                },
            },
            End::Refused(Refusal::Revoked) => LockError::Revoked,
            End::Refused(Refusal::Refused(error)) => LockError::Refused(error),
            End::Refused(Refusal::TooLarge { bytes, bytes_max }) => {
                LockError::TooLarge { bytes, bytes_max }
            }
            End::Refused(Refusal::Closed) => LockError::Closed,
            End::Cancelled | End::Released(_) => LockError::Cancelled,
            End::Lost(why) => LockError::Lost(why),
            End::Refused(_) => {
                let shared = &self.client.handle.shared;
                LockError::Connect(shared.lock().why_unreachable(&shared.endpoint))
            }
        }
    }
}

impl Drop for LockFuture {
    fn drop(&mut self) {
        if let Stage::Waiting { slot, .. } = &self.stage {
            let shared = &slot.client.handle.shared;
            shared.with(|state, now| state.machine.cancel(now, slot.id));
        }
    }
}

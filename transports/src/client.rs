//! The client: locks that any executor can await.

mod builder;
mod connection;
mod driver;
mod error;
mod guard;
mod ids;
mod lead;
mod lock;
mod query;
mod reactor;
mod shared;
mod stream;

pub use builder::ClientBuilder;
pub use error::{ConnectError, ConvertError, LockError, QueryError, ReleaseError, RenewError};
pub use guard::{Guard, Lost};
pub use lock::{Lock, LockFuture};
pub use query::Inspection;
pub use stream::{BoxStream, Stream};

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use lmx_core::RequestId;
use lmx_core::client::ReleaseFailure;
use lmx_core::table;

use crate::net::Endpoint;

use guard::SlotRef;
use shared::{End, Shared};

/// One session with a broker: any number of requests at one time, over one connection.
///
/// Clones are handles of the same session. It ends when the last of them and the last
/// [`Guard`] are gone, or with [`close`](Self::close). The connection is driven by a
/// thread of its own, so that any executor can await what is asked here, and leases are
/// renewed however busy that executor is. While messages come close upon each other, futures
/// that wait for them read them themselves
/// ([`busy_poll`](ClientBuilder::busy_poll)).
///
/// A lost connection is made again by itself. Until the session's resume window has passed
/// nothing is lost with it, and what was asked is asked again under the same id.
///
/// A process that forks (without `exec`) must neither use nor drop in the child what it has of
/// the parent: both would talk over one connection, the thread that drives it is the parent's
/// only, and a client that is dropped ends the parent's session. Let the child
/// [forget](std::mem::forget) it. Nor can the child make clients of its own, which is refused
/// with [`ConnectError::Thread`]: who wants them there forks before the first client is made.
/// To start programs, as [`Command`](std::process::Command) does, is safe: the connection is
/// closed by `exec`.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Ends the session when dropped.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|state, now| state.machine.close(now));
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.handle.shared.endpoint)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the broker at `endpoint`: `host:port`, `host`, `:port` or `unix:PATH`.
    ///
    /// # Errors
    ///
    /// When the address cannot be read, or nobody answers there.
    pub async fn connect(endpoint: &str) -> Result<Self, ConnectError> {
        let endpoint: Endpoint = endpoint.parse()?;
        Self::builder().endpoint(endpoint).connect().await
    }

    /// A client to be set up: by default one for `localhost:6970`.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Where its broker is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.handle.shared.endpoint
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.handle.shared.lock().machine.is_connected()
    }

    /// Ready once the first attempt to connect has succeeded or failed.
    pub(crate) async fn connected(&self) -> Result<(), ConnectError> {
        let shared = &self.handle.shared;
        poll_fn(|cx| shared.poll_connected(cx, 0)).await
    }

    /// Makes sure that there is a connection, without waiting for the pause between two
    /// attempts.
    ///
    /// # Errors
    ///
    /// When the attempt fails. The client goes on trying by itself, unless the fault is of
    /// the kind that trying does not mend.
    pub async fn ensure(&self) -> Result<(), ConnectError> {
        let shared = &self.handle.shared;
        let failures = shared.with(|state, now| {
            state.machine.reconnect(now);
            state.failures()
        });
        poll_fn(|cx| shared.poll_connected(cx, failures)).await
    }

    /// A request for `key`: set it up, then await it for its [`Guard`].
    pub fn lock(&self, key: impl AsRef<[u8]>) -> Lock {
        Lock::new(self.clone(), [key])
    }

    /// A request for all of `keys` or none, however many there are: set it up, then await
    /// it for its [`Guard`].
    pub fn lock_all<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Lock {
        Lock::new(self.clone(), keys)
    }

    /// Gives the hold `id` of `key` back: that of a guard of this client, or a kept hold that has
    /// outlived its session. As long as another session has it, only
    /// [force](Self::force_release_request) ends it.
    ///
    /// # Errors
    ///
    /// When `id` does not hold `key`, or the broker refuses or does not answer.
    pub async fn release(&self, key: impl AsRef<[u8]>, id: RequestId) -> Result<(), ReleaseError> {
        let key = key.as_ref();
        let found = self.inspect(key).await?;
        match found.requests.iter().find(|request| request.id == id) {
            Some(request) if request.token.is_some() => self.release_id(id).await,
            _ => Err(ReleaseError::WrongKey {
                id,
                key: key.to_vec(),
            }),
        }
    }

    /// Gives the hold `id` back, whatever its keys; see [`release`](Self::release).
    ///
    /// # Errors
    ///
    /// When it is not held, or the broker refuses or does not answer.
    pub async fn release_id(&self, id: RequestId) -> Result<(), ReleaseError> {
        let slot = SlotRef::enter(self, id);
        slot.release().await
    }

    /// Withdraws the request `id` of this client: one that waits ends with
    /// [`LockError::Cancelled`], and one that holds is released. Says whether there was
    /// one.
    pub async fn cancel(&self, id: RequestId) -> bool {
        let slot = SlotRef::enter(self, id);
        slot.cancel().await
    }

    /// Ends the session and closes the connection: what still waits fails, and what is held
    /// is lost, unless it is to be kept.
    pub async fn close(self) {
        let shared = Arc::clone(&self.handle.shared);
        shared.with(|state, now| state.machine.close(now));
        poll_fn(|cx| shared.poll_done(cx)).await;
    }
}

/// What a release came to.
fn released(end: &End) -> Result<(), ReleaseError> {
    match end {
        End::Released(Ok(())) | End::Cancelled => Ok(()),
        End::Released(Err(failure)) => Err(ReleaseError::Failed(*failure)),
        End::Lost(why) => Err(ReleaseError::Lost(*why)),
        End::Refused(_) => Err(ReleaseError::Failed(ReleaseFailure::Refused(
            table::ReleaseError::NotHeld,
        ))),
    }
}

//! The same client without async: calls block their thread until they are answered.

use std::time::{Duration, Instant};

use lmx_core::client::{Holder, KeyInfo, Loss};
use lmx_core::wire::Status;
use lmx_core::{FencingToken, RequestId};
use smol::future::block_on;

use crate::client::{Client as AsyncClient, Guard as AsyncGuard};
use crate::client::{
    ClientBuilder, ConnectError, ConvertError, Inspection, LockError, QueryError, ReleaseError,
    RenewError,
};
use crate::net::Endpoint;

/// A request to be set up and then [acquired](Lock::acquire).
pub type Lock = crate::client::Lock<Client>;

/// One session with a broker; see the [async client](crate::Client). Clones are handles of
/// the same session, for other threads; what it says about processes that fork holds here, too.
#[derive(Clone, Debug)]
pub struct Client {
    inner: AsyncClient,
}

impl From<AsyncClient> for Client {
    /// The same session.
    fn from(inner: AsyncClient) -> Self {
        Self { inner }
    }
}

impl From<Client> for AsyncClient {
    /// The same session.
    fn from(client: Client) -> Self {
        client.inner
    }
}

impl Client {
    /// Connects to the broker at `endpoint`: `host:port`, `host`, `:port` or `unix:PATH`.
    ///
    /// # Errors
    ///
    /// When the address cannot be read, or nobody answers there.
    pub fn connect(endpoint: &str) -> Result<Self, ConnectError> {
        block_on(AsyncClient::connect(endpoint)).map(Self::from)
    }

    /// A client to be set up; end with [`connect_blocking`](ClientBuilder::connect_blocking).
    pub fn builder() -> ClientBuilder {
        AsyncClient::builder()
    }

    /// Where its broker is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.inner.endpoint()
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }

    /// Makes sure that there is a connection; see [`ensure`](crate::Client::ensure).
    ///
    /// # Errors
    ///
    /// When the attempt fails.
    pub fn ensure(&self) -> Result<(), ConnectError> {
        block_on(self.inner.ensure())
    }

    /// A request for `key`: set it up, then [acquire](Lock::acquire) it.
    pub fn lock(&self, key: impl AsRef<[u8]>) -> Lock {
        Lock::new(self.clone(), [key])
    }

    /// A request for all of `keys` or none: set it up, then [acquire](Lock::acquire) it.
    pub fn lock_all<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Lock {
        Lock::new(self.clone(), keys)
    }

    /// Gives the hold `id` of `key` back; see [`release`](crate::Client::release).
    ///
    /// # Errors
    ///
    /// When `id` does not hold `key`, or the broker refuses or does not answer.
    pub fn release(&self, key: impl AsRef<[u8]>, id: RequestId) -> Result<(), ReleaseError> {
        block_on(self.inner.release(key, id))
    }

    /// Gives the hold `id` back, whatever its keys.
    ///
    /// # Errors
    ///
    /// When it is not held, or the broker refuses or does not answer.
    pub fn release_id(&self, id: RequestId) -> Result<(), ReleaseError> {
        block_on(self.inner.release_id(id))
    }

    /// Withdraws the request `id` of this client; see [`cancel`](crate::Client::cancel).
    #[must_use]
    pub fn cancel(&self, id: RequestId) -> bool {
        block_on(self.inner.cancel(id))
    }

    /// Who holds `key`, and who waits for it.
    ///
    /// # Errors
    ///
    /// When the key breaks the broker's limit, or there is no connection.
    pub fn inspect(&self, key: impl AsRef<[u8]>) -> Result<Inspection, QueryError> {
        block_on(self.inner.inspect(key))
    }

    /// Every key that somebody holds or waits for, in no order that means anything.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub fn list(&self) -> Result<Vec<KeyInfo>, QueryError> {
        block_on(self.inner.list())
    }

    /// The broker's counters.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub fn status(&self) -> Result<Status, QueryError> {
        block_on(self.inner.status())
    }

    /// The time that a question and its answer take.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub fn ping(&self) -> Result<Duration, QueryError> {
        block_on(self.inner.ping())
    }

    /// Ends every hold of `key`; see [`force_release`](crate::Client::force_release).
    ///
    /// # Errors
    ///
    /// When the key breaks the broker's limit, or there is no connection.
    pub fn force_release(&self, key: impl AsRef<[u8]>) -> Result<Vec<Holder>, QueryError> {
        block_on(self.inner.force_release(key))
    }

    /// Ends one request, whoever has it.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub fn force_release_request(&self, id: RequestId) -> Result<Option<Holder>, QueryError> {
        block_on(self.inner.force_release_request(id))
    }

    /// Ends the session and closes the connection.
    pub fn close(self) {
        block_on(self.inner.close());
    }
}

impl Lock {
    /// Asks, and blocks until it is granted or refused.
    ///
    /// # Errors
    ///
    /// When it is not granted.
    pub fn acquire(self) -> Result<Guard, LockError> {
        let lock = self.of(AsyncClient::from);
        block_on(lock.into_future()).map(|inner| Guard { inner })
    }
}

/// A held lock. Dropping it gives the lock back in the background.
#[derive(Debug)]
#[must_use = "a lock is given back when its guard is dropped"]
pub struct Guard {
    inner: AsyncGuard,
}

impl From<AsyncGuard> for Guard {
    fn from(inner: AsyncGuard) -> Self {
        Self { inner }
    }
}

impl From<Guard> for AsyncGuard {
    fn from(guard: Guard) -> Self {
        guard.inner
    }
}

impl Guard {
    /// The fencing token.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.inner.token()
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.inner.id()
    }

    /// The key; the first, if there are several.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.inner.key()
    }

    /// All keys, in the order of the asking.
    #[must_use]
    pub fn keys(&self) -> &[Box<[u8]>] {
        self.inner.keys()
    }

    /// Until when the lock is surely held; see [`deadline`](crate::Guard::deadline).
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.inner.deadline()
    }

    /// Whether the lock is surely held at this moment.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.inner.is_valid()
    }

    /// Blocks until the lock is lost, and says why it was.
    #[must_use]
    pub fn lost(&self) -> Loss {
        block_on(self.inner.lost())
    }

    /// Blocks until somebody waits for what this holds.
    pub fn contended(&self) {
        block_on(self.inner.contended());
    }

    /// Extends the lock; see [`renew`](crate::Guard::renew).
    ///
    /// # Errors
    ///
    /// When it is lost, or the broker refuses.
    pub fn renew(&self, lease: Option<Duration>) -> Result<(), RenewError> {
        block_on(self.inner.renew(lease))
    }

    /// From exclusive to shared, at once.
    ///
    /// # Errors
    ///
    /// When it is lost, or the broker refuses.
    pub fn downgrade(&mut self) -> Result<(), ConvertError> {
        block_on(self.inner.downgrade())
    }

    /// From shared to exclusive; see [`upgrade`](crate::Guard::upgrade).
    ///
    /// # Errors
    ///
    /// When it is lost, or the broker refuses.
    pub fn upgrade(&mut self) -> Result<(), ConvertError> {
        block_on(self.inner.upgrade())
    }

    /// Gives the lock back, and waits until the broker has said so.
    ///
    /// # Errors
    ///
    /// When it was lost before, or the broker does not answer.
    pub fn release(self) -> Result<(), ReleaseError> {
        block_on(self.inner.release())
    }

    /// Lets go of the guard but not of the lock; see [`into_id`](crate::Guard::into_id).
    #[must_use = "the id is what the lock can be released by"]
    pub fn into_id(self) -> RequestId {
        self.inner.into_id()
    }
}

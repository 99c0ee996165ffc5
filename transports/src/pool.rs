//! Several clients as one.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::{Client, ClientBuilder, ConnectError, Lock};

/// Several sessions with one broker, each over a connection of its own.
///
/// One [`Client`] serves any number of requests at one time, so a pool is for those who
/// want their locks not to share a fate, or more than one connection's throughput. A lock
/// belongs to the session that got it.
#[derive(Debug)]
pub struct Pool {
    clients: Vec<Client>,
    next: AtomicUsize,
}

impl Pool {
    /// Connects `size` clients, at least one, each set up by `builder`.
    ///
    /// # Errors
    ///
    /// When one of them cannot connect; then all are closed.
    pub async fn connect(builder: ClientBuilder, size: usize) -> Result<Self, ConnectError> {
        let mut clients = Vec::new();
        for _ in 0..size.max(1) {
            clients.push(builder.clone().build()?);
        }
        for client in &clients {
            client.connected().await?;
        }
        Ok(Self {
            clients,
            next: AtomicUsize::new(0),
        })
    }

    /// How many clients it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.clients.len()
    }

    /// The next client in turn, passing over those that have no connection if another has.
    pub fn client(&self) -> &Client {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.clients.len();
        let (before, after) = self.clients.split_at(next);
        let mut in_turn = after.iter().chain(before);
        in_turn
            .find(|client| client.is_connected())
            .unwrap_or(&self.clients[next])
    }

    /// A request for `key` by the next client in turn: set it up, then await it.
    pub fn lock(&self, key: impl AsRef<[u8]>) -> Lock {
        self.client().lock(key)
    }

    /// A request for all of `keys` or none by the next client in turn.
    pub fn lock_all<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Lock {
        self.client().lock_all(keys)
    }

    /// Closes all of them.
    pub async fn close(self) {
        for client in self.clients {
            client.close().await;
        }
    }
}

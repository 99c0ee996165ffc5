//! Asking for a lock as it was typed.

use lmx_core::{RequestId, Wait};
use uuid::Uuid;

use super::mean::Asked;
use crate::Client;
use crate::Lock;

/// The request that `asked` describes, under `id`.
pub(super) fn request(client: &Client, asked: &Asked, id: RequestId) -> Lock {
    let mut lock = client
        .lock_all(&asked.keys)
        .mode(asked.mode)
        .id(id)
        .label(&asked.label)
        .lock_delay(asked.lock_delay);
    lock = match asked.wait {
        Wait::Forever => lock.wait_forever(),
        Wait::For(time) => lock.wait(time),
        Wait::No => lock.try_now(),
    };
    match asked.owner {
        Some(owner) => lock.owner(owner),
        None => lock,
    }
}

/// An id that nobody can guess.
pub(super) fn fresh_id() -> RequestId {
    RequestId::new(Uuid::new_v4())
}

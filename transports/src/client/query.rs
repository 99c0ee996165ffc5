//! Questions about the broker.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use lmx_core::RequestId;
use lmx_core::client::{Holder, KeyInfo, Query, QueryAnswer};
use lmx_core::wire::Status;

use super::Client;
use super::error::QueryError;
use super::lead::Place;
use super::shared::Shared;
use crate::clock;

/// Who holds a key, and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The key. Its counts are of the moment of the first page.
    pub key: KeyInfo,
    /// The holders in the order of their grants, then the waiters, first to be granted
    /// first.
    pub requests: Vec<Holder>,
}

impl Client {
    /// Who holds `key`, and who waits for it. Of more requests than one answer can hold the
    /// pages are asked for one after the other; what changes in between may show.
    ///
    /// # Errors
    ///
    /// When the key breaks the broker's limit, or there is no connection.
    pub async fn inspect(&self, key: impl AsRef<[u8]>) -> Result<Inspection, QueryError> {
        let key: Box<[u8]> = key.as_ref().into();
        let mut all: Option<Inspection> = None;
        loop {
            let skip = all.as_ref().map_or(0, |all| all.requests.len());
            let query = Query::Inspect {
                key: key.clone(),
                skip: u32::try_from(skip).unwrap_or(u32::MAX),
            };
            let QueryAnswer::Inspected { key, requests } = self.ask(query).await? else {
                return Err(self.no_answer());
            };
            let is_last = requests.is_empty()
                || skip + requests.len() >= key.holders as usize + key.waiters as usize;
            match &mut all {
                Some(all) => all.requests.extend(requests),
                None => all = Some(Inspection { key, requests }),
            }
            if let Some(all) = all.take_if(|_| is_last) {
                return Ok(all);
            }
        }
    }

    /// Every key that somebody holds or waits for, in no order that means anything.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub async fn list(&self) -> Result<Vec<KeyInfo>, QueryError> {
        let mut all = Vec::new();
        let mut start = 0;
        loop {
            let QueryAnswer::Listed { keys, next } = self.ask(Query::List { start }).await? else {
                return Err(self.no_answer());
            };
            all.extend(keys);
            match next {
                Some(next) if next > start => start = next,
                _ => return Ok(all),
            }
        }
    }

    /// The broker's counters.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub async fn status(&self) -> Result<Status, QueryError> {
        match self.ask(Query::Status).await? {
            QueryAnswer::Status(status) => Ok(*status),
            _ => Err(self.no_answer()),
        }
    }

    /// The time that a question and its answer take.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub async fn ping(&self) -> Result<Duration, QueryError> {
        let start = clock::now();
        match self.ask(Query::Ping).await? {
            QueryAnswer::Pong => Ok(clock::now().saturating_duration_since(start)),
            _ => Err(self.no_answer()),
        }
    }

    /// Ends every hold of `key`, whoever has it, and returns those that ended, as many as
    /// one answer can hold. Waiters stay, and the first of them is granted.
    ///
    /// # Errors
    ///
    /// When the key breaks the broker's limit, or there is no connection.
    pub async fn force_release(&self, key: impl AsRef<[u8]>) -> Result<Vec<Holder>, QueryError> {
        let key = key.as_ref().into();
        self.force(Query::ForceReleaseKey { key }).await
    }

    /// Ends one request, held or waiting, whoever has it, and returns it if it was there.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub async fn force_release_request(&self, id: RequestId) -> Result<Option<Holder>, QueryError> {
        let ended = self.force(Query::ForceReleaseRequest { id }).await?;
        Ok(ended.into_iter().next())
    }

    async fn force(&self, query: Query) -> Result<Vec<Holder>, QueryError> {
        match self.ask(query).await? {
            QueryAnswer::ForceReleased { holders, .. } => Ok(holders),
            _ => Err(self.no_answer()),
        }
    }

    async fn ask(&self, query: Query) -> Result<QueryAnswer, QueryError> {
        let asked = Asked::new(&self.handle.shared, query);
        match asked.wait().await {
            QueryAnswer::Refused(error) => Err(QueryError::Refused(error)),
            QueryAnswer::Lost => Err(self.no_answer()),
            answer => Ok(answer),
        }
    }

    fn no_answer(&self) -> QueryError {
        let shared = &self.handle.shared;
        QueryError::Connect(shared.lock().why_unreachable(&shared.endpoint))
    }
}

/// A question under way; its answer is not kept when nobody waits for it any more.
struct Asked<'a> {
    shared: &'a Arc<Shared>,
    query: u32,
}

impl<'a> Asked<'a> {
    fn new(shared: &'a Arc<Shared>, query: Query) -> Self {
        let query = shared.with(|state, now| {
            let query = state.machine.query(now, query);
            state.enter_query(query);
            query
        });
        Self { shared, query }
    }

    async fn wait(&self) -> QueryAnswer {
        let mut place = Place::new(self.shared);
        poll_fn(|cx| {
            place.poll(
                cx,
                |state| state.take_answer(self.query),
                |state, waker| state.register_for_answer(self.query, waker),
            )
        })
        .await
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let left = self.shared.lock().leave_query(self.query);
        // The lock is given back.
        drop(left);
    }
}

//! `lmx release`.

use lmx_core::RequestId;
use lmx_core::client::{Holder, ReleaseFailure};
use lmx_core::table;
use serde_json::json;

use super::Outcome;
use super::args::ReleaseArgs;
use super::compat::OptionObject;
use super::connect::{connect, not_answered};
use super::exit::{self, Failure};
use super::mean::{self, Place, environment};
use super::print::{print, print_json, shown};
use super::query;
use crate::Client;
use crate::ReleaseError;

/// `lmx release`.
pub(super) fn release(typed: ReleaseArgs) -> Outcome {
    let mut object = OptionObject::parse(typed.json.json.as_deref().unwrap_or_default())?;
    let json = typed.json.json.as_deref() == Some("");
    let key = mean::key(typed.key, &mut object, &environment)?;
    let name = typed.id.or(object.id.take());
    let place = Place::new(typed.at, typed.port, &object, &environment)?;
    smol::block_on(async {
        let client = connect(&place, "lmx release").await?;
        let outcome = match name {
            Some(name) => release_one(&client, &key, &name, json).await,
            None => release_all(&client, &key, json).await,
        };
        client.close().await;
        outcome
    })
}

/// Releases the one that goes by `name`: the id that `lmx acquire` prints and `lmx inspect`
/// shows, or the one that its live-mutex client has for it, which may be any string.
async fn release_one(client: &Client, key: &[u8], name: &str, json: bool) -> Outcome {
    let found = client.inspect(key).await;
    let found = found.map_err(|error| not_answered(&error))?;
    let holds = |id: &RequestId| {
        let mut requests = found.requests.iter();
        requests.any(|request| request.id == *id && request.token.is_some())
    };
    let called = [name.parse().ok(), Some(RequestId::of_live_mutex(name))];
    let Some(id) = called.into_iter().flatten().find(holds) else {
        let name = shown(name.as_bytes());
        let key = shown(key);
        return Err(Failure::new(
            exit::NOT_HELD,
            format!("no request {name} holds {key}"),
        ));
    };
    match client.release_id(id).await {
        // Its session is alive, and is told.
        Err(ReleaseError::Failed(ReleaseFailure::Refused(table::ReleaseError::NotOwner))) => {
            let ended = client.force_release_request(id).await;
            if ended.map_err(|error| not_answered(&error))?.is_none() {
                return Err(nobody_holds(key));
            }
        }
        outcome => outcome.map_err(|error| not_released(&error))?,
    }
    if json {
        print_json(&json!({ "released": [{ "id": id.to_string() }] }))?;
    } else {
        print(format!("released {}: request {id}\n", shown(key)))?;
    }
    Ok(exit::DONE)
}

async fn release_all(client: &Client, key: &[u8], json: bool) -> Outcome {
    let ended = client
        .force_release(key)
        .await
        .map_err(|error| not_answered(&error))?;
    if ended.is_empty() {
        return Err(nobody_holds(key));
    }
    if json {
        let released: Vec<_> = ended.iter().map(query::holder_json).collect();
        print_json(&json!({ "released": released }))?;
    } else {
        let lines: Vec<String> = ended.iter().map(|holder| line(key, holder)).collect();
        print(lines.concat())?;
    }
    Ok(exit::DONE)
}

fn line(key: &[u8], holder: &Holder) -> String {
    format!(
        "released {}: request {}\n",
        shown(key),
        query::holder_line(holder)
    )
}

fn nobody_holds(key: &[u8]) -> Failure {
    Failure::new(exit::NOT_HELD, format!("nobody holds {}", shown(key)))
}

fn not_released(error: &ReleaseError) -> Failure {
    match error {
        ReleaseError::Query(error) => not_answered(error),
        ReleaseError::Lost(_)
        | ReleaseError::Failed(ReleaseFailure::Refused(table::ReleaseError::NotHeld)) => {
            Failure::new(exit::NOT_HELD, error.to_string())
        }
        _ => Failure::new(exit::REFUSED, error.to_string()),
    }
}

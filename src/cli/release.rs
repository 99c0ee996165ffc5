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
    let id = match typed.id.or(object.id.take()) {
        Some(text) => Some(text.parse::<RequestId>().map_err(|_| {
            Failure::usage(format!("{text:?} is no id of a request"))
                .hint("an id is a UUID, as `lmx acquire` prints it")
        })?),
        None => None,
    };
    let place = Place::new(typed.at, typed.port, &object, &environment)?;
    smol::block_on(async {
        let client = connect(&place, "lmx release").await?;
        let outcome = match id {
            Some(id) => release_one(&client, &key, id, json).await,
            None => release_all(&client, &key, json).await,
        };
        client.close().await;
        outcome
    })
}

async fn release_one(client: &Client, key: &[u8], id: RequestId, json: bool) -> Outcome {
    client
        .release(key, id)
        .await
        .map_err(|error| not_released(&error))?;
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
        ReleaseError::WrongKey { .. }
        | ReleaseError::Lost(_)
        | ReleaseError::Failed(ReleaseFailure::Refused(table::ReleaseError::NotHeld)) => {
            Failure::new(exit::NOT_HELD, error.to_string())
        }
        _ => Failure::new(exit::REFUSED, error.to_string()),
    }
}

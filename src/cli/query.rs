//! `lmx ls`, `lmx inspect` and `lmx status`, and live-mutex's dialogue.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use lmx_core::client::{Holder, KeyInfo};
use lmx_core::wire::Status;
use serde_json::{Value, json};

use super::Outcome;
use super::args::{InspectArgs, InspectBrokerArgs, JsonArgs, QueryArgs, WhereArgs};
use super::compat::OptionObject;
use super::connect::{connect, not_answered};
use super::exit::{self, Failure};
use super::mean::{self, Place, environment};
use super::print::{self, Ending, millis, print, print_json, shown};
use crate::{Client, Inspection, QueryError};

/// `lmx ls`.
pub(super) fn list(typed: QueryArgs) -> Outcome {
    let (place, json) = place(typed.at, typed.port, &typed.json)?;
    let mut keys = ask(&place, "lmx ls", async |client| client.list().await)?;
    keys.sort_by(|one, other| one.key.cmp(&other.key));
    if json {
        print_json(&keys.iter().map(key_json).collect())?;
    } else {
        print(key_table(&keys))?;
    }
    Ok(exit::DONE)
}

/// `lmx inspect`.
pub(super) fn inspect(typed: InspectArgs) -> Outcome {
    let object = OptionObject::parse(typed.json.json.as_deref().unwrap_or_default())?;
    if typed.key.is_none() && object.key.is_none() {
        return status(QueryArgs {
            port: typed.port,
            json: typed.json,
            at: typed.at,
        });
    }
    let mut with_key = object;
    let key = mean::key(typed.key, &mut with_key, &environment)?;
    let (place, json) = place(typed.at, typed.port, &typed.json)?;
    let found = ask(&place, "lmx inspect", async |client| {
        client.inspect(&key).await
    })?;
    if json {
        print_json(&inspection_json(&found))?;
    } else {
        print(inspection_text(&found))?;
    }
    Ok(exit::DONE)
}

/// `lmx status`.
pub(super) fn status(typed: QueryArgs) -> Outcome {
    let (place, json) = place(typed.at, typed.port, &typed.json)?;
    let status = ask(&place, "lmx status", async |client| client.status().await)?;
    let value = status_json(&status)?;
    if json {
        print_json(&value)?;
    } else {
        print(status_text(&status, &value))?;
    }
    Ok(exit::DONE)
}

/// `lmx_inspect_broker`: live-mutex's dialogue, a command a line.
pub(super) fn ask_on_stdin(typed: InspectBrokerArgs) -> Outcome {
    let mut at = typed.at;
    at.host = at.host.or(typed.host);
    let (place, _) = place(at, typed.port, &typed.json)?;
    smol::block_on(async {
        let client = connect(&place, "lmx_inspect_broker").await?;
        let prompt = io::stdin()
            .is_terminal()
            .then(|| format!("({}) lmx > ", place.endpoint));
        print(format!("connected to the broker at {}\n", place.endpoint))?;
        loop {
            print(prompt.as_deref().unwrap_or_default())?;
            let mut line = String::new();
            let read = io::stdin().read_line(&mut line).map_err(|error| {
                Failure::new(exit::SYSTEM, format!("cannot read standard input: {error}"))
            })?;
            if read == 0 {
                break;
            }
            print(reply(&client, line.trim()).await?)?;
        }
        client.close().await;
        Ok(exit::DONE)
    })
}

async fn reply(client: &Client, command: &str) -> Result<String, Failure> {
    const COMMANDS: &str = "lockcount, clientcount, status, ls, clear, help";
    let status = async || client.status().await.map_err(|error| not_answered(&error));
    Ok(match command {
        "" => String::new(),
        "lockcount" => format!("server response: {}\n", status().await?.held),
        "clientcount" => format!("server response: {}\n", status().await?.connections),
        "status" => {
            let status = status().await?;
            status_text(&status, &status_json(&status)?)
        }
        "ls" => {
            let keys = client.list().await.map_err(|error| not_answered(&error))?;
            key_table(&keys)
        }
        "clear" => "\x1bc".to_owned(),
        "help" => format!("commands: {COMMANDS}\n"),
        other => format!(
            "there is no command {}; there are: {COMMANDS}\n",
            shown(other.as_bytes())
        ),
    })
}

fn place(at: WhereArgs, port: Option<u16>, json: &JsonArgs) -> Result<(Place, bool), Failure> {
    let text = json.json.as_deref();
    let object = OptionObject::parse(text.unwrap_or_default())?;
    let place = Place::new(at, port, &object, &environment)?;
    Ok((place, text == Some("")))
}

fn ask<T, F>(place: &Place, name: &str, question: F) -> Result<T, Failure>
where
    F: AsyncFnOnce(&Client) -> Result<T, QueryError>,
{
    smol::block_on(async {
        let client = connect(place, name).await?;
        let answer = question(&client).await;
        client.close().await;
        answer.map_err(|error| not_answered(&error))
    })
}

fn key_table(keys: &[KeyInfo]) -> String {
    if keys.is_empty() {
        return "no key is held or waited for\n".to_owned();
    }
    let names: Vec<String> = keys.iter().map(|key| shown(&key.key)).collect();
    let width = names.iter().map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0).max("KEY".len());
    let mut text = format!("{:width$}  HOLDERS  WAITERS  CAPACITY\n", "KEY");
    for (name, key) in names.iter().zip(keys) {
        let capacity = key.capacity.map_or("-".to_owned(), |max| max.to_string());
        let _ = writeln!(
            text,
            "{name:width$}  {:>7}  {:>7}  {capacity:>8}",
            key.holders, key.waiters
        );
    }
    text
}

fn key_json(key: &KeyInfo) -> Value {
    let mut object = json!({
        "holders": key.holders,
        "waiters": key.waiters,
        "capacity": key.capacity,
    });
    print::put_bytes(&mut object, "key", &key.key);
    object
}

fn inspection_text(found: &Inspection) -> String {
    let (holders, waiters) = sides(found);
    let key = shown(&found.key.key);
    if holders.is_empty() && waiters.is_empty() {
        return format!("{key} is free\n");
    }
    let mut text = key;
    if let Some(capacity) = found.key.capacity {
        let _ = write!(text, ", capacity {capacity}");
    }
    let _ = writeln!(text, "\n{} holding", holders.len());
    for holder in holders {
        let _ = writeln!(text, "  {}", holder_line(holder));
    }
    let _ = writeln!(text, "{} waiting", waiters.len());
    for (place, waiter) in waiters.iter().enumerate() {
        let _ = writeln!(text, "  {:>3}. {}", place + 1, holder_line(waiter));
    }
    text
}

fn inspection_json(found: &Inspection) -> Value {
    let (holders, waiters) = sides(found);
    let mut object = json!({
        "capacity": found.key.capacity,
        "holders": holders.iter().map(|holder| holder_json(holder)).collect::<Vec<_>>(),
        "waiters": waiters.iter().map(|waiter| holder_json(waiter)).collect::<Vec<_>>(),
    });
    print::put_bytes(&mut object, "key", &found.key.key);
    object
}

/// Those who hold, and those who wait.
fn sides(found: &Inspection) -> (Vec<&Holder>, Vec<&Holder>) {
    found
        .requests
        .iter()
        .partition(|request| request.token.is_some())
}

/// A request, for people.
pub(super) fn holder_line(holder: &Holder) -> String {
    let mut text = format!("{}  {}", holder.id, print::mode(holder.mode));
    let age = print::time(holder.age);
    let _ = match holder.token {
        Some(token) => write!(text, "  token {token}  held for {age}"),
        None => write!(text, "  waiting for {age}"),
    };
    if let Some(remaining) = holder.remaining {
        let _ = write!(text, "  lease ends in {}", print::time(remaining));
    }
    if holder.keep {
        text += "  kept";
    }
    if !holder.label.is_empty() {
        let _ = write!(text, "  label {}", shown(&holder.label));
    }
    if !holder.name.is_empty() {
        let _ = write!(text, "  by {}", shown(holder.name.as_bytes()));
    }
    text
}

/// A request, for programs.
pub(super) fn holder_json(holder: &Holder) -> Value {
    let mut object = json!({
        "id": holder.id.to_string(),
        "mode": print::mode_json(holder.mode),
        "token": holder.token.map(lmx_core::FencingToken::as_u64),
        "since": print::ago(holder.age),
        "age_ms": millis(holder.age),
        "keep": holder.keep,
        "session": holder.name,
    });
    print::put_bytes(&mut object, "label", &holder.label);
    Ending::put(&mut object, holder.remaining.map(Ending::after));
    object
}

/// All counters; times in milliseconds.
fn status_json(status: &Status) -> Result<Value, Failure> {
    let mut object = serde_json::to_value(status)
        .map_err(|error| Failure::new(exit::REFUSED, error.to_string()))?;
    if let Some(fields) = object.as_object_mut() {
        fields.remove("uptime");
        fields.remove("grace");
    }
    object["uptime_ms"] = millis(status.uptime).into();
    object["grace_ms"] = status.grace.map(millis).into();
    Ok(object)
}

fn status_text(status: &Status, object: &Value) -> String {
    let mut text = format!("{:28}  {}\n", "uptime", print::time(status.uptime));
    if let Some(grace) = status.grace {
        let _ = writeln!(
            text,
            "{:28}  {}",
            "grace period ends in",
            print::time(grace)
        );
    }
    let numbers = object.as_object().into_iter().flatten();
    for (name, value) in numbers.filter(|(name, _)| !name.ends_with("_ms")) {
        let _ = writeln!(text, "{:28}  {value}", name.replace('_', " "));
    }
    text
}

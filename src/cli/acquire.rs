//! `lmx acquire`: a lock that outlives the command.

use std::time::Duration;

use lmx_core::Wait;
use serde_json::json;

use super::Outcome;
use super::args::AcquireArgs;
use super::compat::OptionObject;
use super::connect::{connect, not_granted};
use super::exit::{self, Failure};
use super::lock;
use super::mean::{self, Asked, Codes, Place, environment};
use super::print::{self, Ending, print_strictly};
use super::signals;
use crate::Guard;

/// How long it waits that is told nothing else: live-mutex's three times three seconds.
const WAIT: Wait = Wait::For(Duration::from_secs(9));

/// How long a lock without a lease lasts before its grant has been seen here: should this
/// process be killed at that moment, nobody would know the lock's id.
const UNSEEN: Duration = Duration::from_secs(10);

/// How the lock is printed.
#[derive(Clone, Copy, Debug)]
enum Format {
    Plain,
    Json,
    Shell,
}

/// `lmx acquire`.
pub(super) fn acquire(typed: AcquireArgs) -> Outcome {
    let mut object = OptionObject::parse(typed.json.json.as_deref().unwrap_or_default())?;
    let format = match typed.json.json.as_deref() {
        Some("") => Format::Json,
        _ if typed.shell => Format::Shell,
        _ => Format::Plain,
    };
    let key = mean::key(typed.key, &mut object, &environment)?;
    let codes = Codes::from(typed.exit);
    let place = Place::new(typed.at, typed.port, &object, &environment)?;
    let lease = match typed.lease {
        Some(lease) => Some(lease),
        None => object.lease()?,
    };
    let asked = Asked::new(key, typed.lock, &object, WAIT)?;
    smol::block_on(hold(&place, &asked, lease, format, codes))
}

async fn hold(
    place: &Place,
    asked: &Asked,
    lease: Option<Duration>,
    format: Format,
    codes: Codes,
) -> Outcome {
    let mut signals = signals::catch(&signals::ENDS)?;
    let client = match signals::unless_ended(&mut signals, connect(place, "lmx acquire")).await {
        Ok(client) => client.map_err(|failure| codes.apply(failure))?,
        Err(code) => return Ok(code),
    };
    let request = lock::request(&client, asked, lock::fresh_id()).keep();
    let request = request.lease(lease.unwrap_or(UNSEEN));
    let outcome = match signals::unless_ended(&mut signals, request.into_future()).await {
        Ok(Ok(guard)) => hand_over(guard, lease, format).await,
        Ok(Err(error)) => Err(not_granted(&error, codes)),
        Err(code) => Ok(code),
    };
    client.close().await;
    outcome
}

/// Prints how the lock can be released; if nobody can read that, releases it.
async fn hand_over(guard: Guard, lease: Option<Duration>, format: Format) -> Outcome {
    if lease.is_none() {
        let kept = guard.renew(None).await;
        kept.map_err(|error| Failure::new(exit::LOST, error.to_string()))?;
    }
    match print_strictly(&shown(&guard, lease, format)) {
        Ok(()) => {
            let _ = guard.into_id();
            Ok(exit::DONE)
        }
        Err(error) => {
            let _ = guard.release().await;
            Err(Failure::new(
                exit::SYSTEM,
                format!("cannot write to standard output, so the lock was released: {error}"),
            ))
        }
    }
}

fn shown(guard: &Guard, lease: Option<Duration>, format: Format) -> Vec<u8> {
    let ending = lease.map(Ending::after);
    let (id, token) = (guard.id(), guard.token());
    let also = guard.keys().iter().skip(1);
    match format {
        Format::Plain => {
            let key = print::shown(guard.key());
            let deadline = match ending {
                Some(ending) => ending.to_string(),
                None => "none; it lasts until it is released".to_owned(),
            };
            let also: Vec<String> = also
                .map(|key| format!("also      {}\n", print::shown(key)))
                .collect();
            let also = also.concat();
            format!(
                "key       {key}\n{also}id        {id}\ntoken     {token}\ndeadline  {deadline}\n"
            )
            .into_bytes()
        }
        Format::Json => {
            let mut object = json!({ "id": id.to_string(), "token": token.as_u64() });
            print::put_bytes(&mut object, "key", guard.key());
            let also: Vec<_> = also
                .map(|key| {
                    let mut object = json!({});
                    print::put_bytes(&mut object, "key", key);
                    object
                })
                .collect();
            if !also.is_empty() {
                object["also"] = also.into();
            }
            Ending::put(&mut object, ending);
            format!("{object}\n").into_bytes()
        }
        Format::Shell => {
            let mut text = b"export LMX_KEY=".to_vec();
            text.extend(print::quoted_for_shell(guard.key()));
            let deadline = ending.map(Ending::at).unwrap_or_default();
            let rest = format!(
                "\nexport LMX_ID='{id}'\nexport LMX_TOKEN='{token}'\nexport LMX_DEADLINE='{deadline}'\n"
            );
            text.extend(rest.into_bytes());
            text
        }
    }
}

//! What live-mutex's commands take besides plain arguments: an option object after `--json`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::exit::Failure;

/// Turns `--json {...}` into `--json={...}`, so that `--json` alone stays a flag.
/// Nothing is touched after `--`.
pub(super) fn join_option_objects(typed: Vec<OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::with_capacity(typed.len());
    let mut options_end = false;
    for arg in typed {
        options_end |= arg == "--";
        let is_object = arg
            .to_str()
            .is_some_and(|text| text.trim_start().starts_with('{'));
        match joined.last_mut() {
            Some(flag) if !options_end && is_object && flag == "--json" => {
                flag.push("=");
                flag.push(arg);
            }
            _ => joined.push(arg),
        }
    }
    joined
}

/// The options of live-mutex's client and broker constructors and of its lock and unlock
/// calls, as far as they mean something here; the rest is accepted and ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(super) struct OptionObject {
    /// The key; a number is its digits.
    pub(super) key: Option<KeyText>,
    /// The broker's host.
    pub(super) host: Option<String>,
    /// The broker's port.
    pub(super) port: Option<u16>,
    /// The broker's Unix socket.
    pub(super) uds_path: Option<PathBuf>,
    /// Milliseconds until the lock ends by itself; `null`, as its absence, is never.
    pub(super) ttl: Option<u64>,
    /// Milliseconds that one attempt to lock lasts.
    pub(super) lock_request_timeout: Option<u64>,
    /// Attempts to lock.
    #[serde(alias = "maxRetry", alias = "lockRetryMax", alias = "retryMax")]
    pub(super) max_retries: Option<u64>,
    /// Holders that the key may have at one time.
    pub(super) max: Option<u32>,
    /// The request to release.
    #[serde(alias = "_uuid", alias = "uuid", alias = "lockUuid")]
    pub(super) id: Option<String>,
    lock_expires_after: Option<serde_json::Value>,
    force: Option<serde_json::Value>,
    keep_locks_on_exit: Option<serde_json::Value>,
    keep_locks_after_death: Option<serde_json::Value>,
    no_delay: Option<serde_json::Value>,
    unlock_request_timeout: Option<serde_json::Value>,
    connect_timeout: Option<serde_json::Value>,
    timeout_to_find_new_lockholder: Option<serde_json::Value>,
}

impl OptionObject {
    /// Parses what followed `--json`; nothing did if it is empty.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|error| {
            Failure::usage(format!("cannot use the object after --json: {error}")).hint(
                r#"try --json '{"key":"foo","port":6970}'; --json alone asks for JSON output"#,
            )
        })
    }

    /// What it asks of a broker and does not get, if that can hurt.
    pub(super) fn unmet(&self) -> Option<&'static str> {
        let asked = self.lock_expires_after.as_ref()?;
        (*asked != 5000).then_some(
            "lockExpiresAfter is ignored: live-mutex's locks last 5000 ms if their clients give no \
             ttl (Node's give 7050 ms)",
        )
    }

    /// The lease that `ttl` stands for.
    pub(super) fn lease(&self) -> Result<Option<Duration>, Failure> {
        match self.ttl {
            Some(0) => Err(Failure::usage("a ttl is longer than 0 ms")
                .hint("leave it out, or say null, for a lock that lasts until it is released")),
            ttl => Ok(ttl.map(Duration::from_millis)),
        }
    }

    /// How long to wait: so many attempts of so long.
    pub(super) fn wait(&self) -> Option<Duration> {
        if self.lock_request_timeout.is_none() && self.max_retries.is_none() {
            return None;
        }
        let attempt_ms = self.lock_request_timeout.unwrap_or(3000);
        let attempts = self.max_retries.unwrap_or(3).max(1);
        Some(Duration::from_millis(attempt_ms.saturating_mul(attempts)))
    }
}

/// A key in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum KeyText {
    /// As text.
    Text(String),
    /// As a number.
    Number(serde_json::Number),
}

impl KeyText {
    /// Its bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Number(number) => number.to_string().into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(typed: &[&str]) -> Vec<OsString> {
        join_option_objects(typed.iter().map(OsString::from).collect())
    }

    #[test]
    fn only_an_object_after_json_is_joined() {
        assert_eq!(
            joined(&["lmx", "ls", "--json", "{}"]),
            ["lmx", "ls", "--json={}"]
        );
        for untouched in [
            &["lmx", "acquire", "--json", "foo"][..],
            &["lmx", "acquire", "foo", "--json"],
            &["lmx", "run", "k", "--", "jq", "--json", "{}"],
        ] {
            assert_eq!(joined(untouched), untouched);
        }
    }

    #[test]
    fn an_object_is_read_as_live_mutex_reads_it() {
        let object = OptionObject::parse(
            r#"{"port":3091,"key":7,"ttl":null,"lockRequestTimeout":200,"maxRetries":5,"noDelay":true}"#,
        )
        .unwrap();
        assert_eq!(object.port, Some(3091));
        assert_eq!(
            object.key.clone().map(KeyText::into_bytes),
            Some(b"7".to_vec())
        );
        assert_eq!(object.lease().unwrap(), None);
        assert_eq!(object.wait(), Some(Duration::from_secs(1)));
        let object = OptionObject::parse(r#"{"ttl":9}"#).unwrap();
        assert_eq!(object.lease().unwrap(), Some(Duration::from_millis(9)));
        OptionObject::parse(r#"{"ttl":0}"#)
            .unwrap()
            .lease()
            .unwrap_err();
        assert_eq!(OptionObject::parse("{}").unwrap().wait(), None);
    }

    #[test]
    fn another_time_than_the_usual_cannot_be_met() {
        let unmet = |text| OptionObject::parse(text).unwrap().unmet();
        assert!(unmet(r#"{"lockExpiresAfter":60000}"#).is_some());
        for met in [
            "{}",
            r#"{"lockExpiresAfter":5000}"#,
            r#"{"lockExpiresAfter":null}"#,
        ] {
            assert_eq!(unmet(met), None, "{met}");
        }
    }

    #[test]
    fn an_object_that_cannot_be_used_is_an_error() {
        for wrong in ["{", r#"{"prot":1}"#, r#"{"port":"x"}"#, r#"{"port":70000}"#] {
            OptionObject::parse(wrong).unwrap_err();
        }
    }
}

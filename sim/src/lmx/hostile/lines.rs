//! Live-mutex's lines with any fields in any order, about keys that nobody decent wants; and
//! locks of those that they do want, for a moment.

use std::fmt::Write as _;

use super::super::Setup;
use super::super::scripted::key_text;
use crate::rng::Draws;

const KINDS: &[&str] = &[
    "\"lock\"",
    "\"lock\"",
    "\"lock\"",
    "\"unlock\"",
    "\"unlock\"",
    "\"unlock-received\"",
    "\"lock-client-timeout\"",
    "\"lock-client-error\"",
    "\"lock-received\"",
    "\"lock-received-rejected\"",
    "\"acquire-many\"",
    "\"acquire-many\"",
    "\"release-many\"",
    "\"register-write-flag-check\"",
    "\"register-write-flag-check-queued\"",
    "\"register-write-flag-and-readers-check\"",
    "\"set-write-flag-false-and-broadcast\"",
    "\"increment-readers\"",
    "\"decrement-readers\"",
    "\"ls\"",
    "\"lock-info-request\"",
    "\"ping\"",
    "\"system-stats-request\"",
    "\"nonsense\"",
    "17",
    "null",
];

/// What ends a conversation: drawn rarely.
const LAST: &[&str] = &[
    "{\"type\":\"version\",\"value\":\"0.3.0\"}",
    "{\"type\":\"version\"}",
    "{\"type\":\"simulate-version-mismatch\"}",
    "{\"type\":\"version-mismatch-confirmed\"}",
    "{\"type\":\"end-connection-from-broker-for-testing-purposes\"}",
];

/// What is no message.
const NONSENSE: &[&str] = &[
    "",
    "null",
    "17",
    "[\"lock\"]",
    "\"lock\"",
    "{\"type\":\"lock\",\"key\":\"h\"} {}",
    "{\"type\":\"lock\",\"key\":\"h\",\"ttl\":1e999}",
    "{\"type\":\"lock\",\"key\":\"\\ud800\",\"uuid\":\"a\",\"ttl\":20}",
    "{\"type\":\"lo\\u0063k\",\"key\":\"h\",\"uuid\":\"\\u0061\",\"ttl\":20}",
    "{\"inspectCommand\":\"lockcount\"}",
    "{\"inspectCommand\":\"clientcount\"}",
    "{\"inspectCommand\":17}",
    "{\"type\":\"version\",\"value\":\"0.2.25\"}",
    "{\"type\":\"version\",\"value\":\"0.2.27\"}",
    "{\"type\":{\"a\":[1,{\"b\":null}]},\"uuid\":\"a\"}",
    "{\"type\":\"lock\"",
    "\u{fffd}\u{0}",
];

const FIELDS: &[(&str, &[&str])] = &[
    (
        "uuid",
        &[
            "\"a\"", "\"b\"", "\"c\"", "\"d\"", "1", "null", "\"\"", "[1]",
        ],
    ),
    ("_uuid", &["\"a\"", "\"b\"", "\"c\"", "1", "null", "\"\""]),
    ("lockUuid", &["\"a\"", "\"b\"", "\"c\"", "null"]),
    (
        "key",
        &[
            "\"h\"",
            "\"h\"",
            "\"hw\"",
            "1",
            "null",
            "\"\"",
            "[\"h\"]",
            "\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"",
        ],
    ),
    (
        "keys",
        &[
            "[\"h\"]",
            "[\"hw\",\"h\"]",
            "[\"h\",\"h\"]",
            "[]",
            "[1]",
            "7",
            "[\"\"]",
        ],
    ),
    (
        "ttl",
        &[
            "null",
            "0",
            "10",
            "100",
            "-1",
            "\"50\"",
            "{}",
            "1.5",
            "99999999999",
        ],
    ),
    (
        "max",
        &["null", "1", "2", "3", "0", "\"2\"", "-1", "1.5", "true"],
    ),
    ("force", &["true", "false", "0"]),
    ("wait", &["true", "false"]),
    ("retryCount", &["0", "1", "2", "null"]),
    (
        "rwStatus",
        &[
            "null",
            "\"begin_read\"",
            "\"end_read\"",
            "\"begin_write\"",
            "\"end_write\"",
            "\"locking_write_key\"",
            "\"unlocking_write_key\"",
        ],
    ),
    ("pid", &["1", "\"x\"", "99999999999999999999999"]),
    ("timestamp", &["1", "\"x\"", "null"]),
    ("inspectCommand", &["\"lockcount\"", "null", "0"]),
];

/// Appends `count` lines.
pub(super) fn any(bytes: &mut Vec<u8>, draws: Draws, count: u32, setup: &Setup) {
    for n in 0..u64::from(count) {
        let draws = draws.of(n);
        let text = match draws.below(0, 60) {
            0 => pick(draws, 1, LAST).to_owned(),
            1..5 => pick(draws, 1, NONSENSE).to_owned(),
            5 => kept(draws),
            6..10 => wanted(draws, setup),
            10 => "x".repeat(setup.frame_bytes_max as usize + draws.below(1, 3) as usize - 1),
            _ => message(draws),
        };
        bytes.extend_from_slice(text.as_bytes());
        // Some say it as Windows does.
        let end: &[u8] = if draws.below(2, 8) == 0 {
            b"\r\n"
        } else {
            b"\n"
        };
        bytes.extend_from_slice(end);
    }
}

/// Any message, about its own keys.
fn message(draws: Draws) -> String {
    let mut text = format!("{{\"type\":{}", pick(draws, 1, KINDS));
    for (place, (name, values)) in (0..).zip(FIELDS) {
        if draws.of(3).below(place, 2) == 0 {
            let value = pick(draws.of(4), place, values);
            let _ = write!(text, ",\"{name}\":{value}");
        }
    }
    text + "}"
}

/// A lock that outlives its connection, but not for long.
fn kept(draws: Draws) -> String {
    let ttl = draws.between(1, 10, 1_000);
    let id = draws.bits(3);
    format!(
        "{{\"type\":\"lock\",\"key\":\"kept\",\"uuid\":\"{id}\",\"ttl\":{ttl},\
         \"keepLocksAfterDeath\":true}}"
    )
}

/// A lock that others want, too, for a moment, or a question about it.
fn wanted(draws: Draws, setup: &Setup) -> String {
    let key = key_text(draws.below(1, u64::from(setup.keys)) as u32);
    let id = draws.bits(3);
    if draws.below(4, 3) == 0 {
        return format!("{{\"type\":\"lock-info-request\",\"key\":\"{key}\",\"uuid\":\"{id}\"}}");
    }
    format!("{{\"type\":\"lock\",\"key\":\"{key}\",\"uuid\":\"{id}\",\"ttl\":20,\"retryCount\":0}}")
}

fn pick<'a>(draws: Draws, key: u64, from: &[&'a str]) -> &'a str {
    from[draws.below(key, from.len() as u64) as usize]
}

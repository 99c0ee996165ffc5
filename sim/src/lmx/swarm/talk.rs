//! One that says live-mutex's lines over several connections, in some worlds: clients of all
//! generations at once, that use each other's ids, ask again, give up, end each other's holds
//! and leave in the midst of reading and writing.

use std::fmt::Write as _;

use crate::lmx::{ClientSetup, Hostile};
use crate::plan::swarm::FaultScope;
use crate::plan::{Action, MS, Op, Plan, SECOND};
use crate::rng::{Draws, Sequence};

const CONNECTIONS: u64 = 4;

const VERSIONS: &[&str] = &["0.2.25", "0.2.27", "0.2.27", "0.1.1066"];

/// Pairs of a key and the one that its writers lock, which nobody else uses.
const KEYS: &[(&str, &str)] = &[("t", "tw"), ("t", "tw"), ("u", "uw")];

/// The last two share a place in what the broker remembers.
const IDS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "00000000-0000-4000-8000-000000000001",
    "00000000-0000-4000-8000-000000002001",
];

/// Adds such a client to the plan, or nothing.
pub(super) fn widen(plan: &mut Plan, scope: &FaultScope) {
    let draw = &mut Sequence::new(Draws::new(plan.seed).of(0x7461_6c6b));
    let is_tight = plan.lmx.as_ref().is_some_and(|it| !it.tight.is_default());
    if is_tight || !draw.percent(6) {
        return;
    }
    let Some(setup) = &mut plan.lmx else { return };
    let keys = setup.keys;
    setup.clients.push(ClientSetup::Hostile);
    let client = plan.clients;
    plan.clients += 1;
    plan.drifts_ppm.push(0);
    let gaps: &[u64] = draw.pick(&[&[0, 0, 1, 20], &[0, 20, 200, 1_000], &[0, 20, 5_000]]);
    let mut at_ns = draw.below(scope.heal_ns / 2 + 1);
    let mut open = [false; CONNECTIONS as usize];
    let first = plan.ops_bound() as u32;
    let count = draw.skewed(10, 200) as u32;
    for id in first..first + count {
        at_ns += draw.pick(gaps) * MS;
        let on = draw.below(CONNECTIONS) as u8;
        let is_open = &mut open[usize::from(on)];
        let action = match draw.below(100) {
            0..4 => {
                *is_open = false;
                Action::HangUp { on }
            }
            4 => Action::Hostile(Hostile::OtherProtocol),
            5 => Action::Hostile(Hostile::Forge),
            6 => Action::Hostile(Hostile::Rename {
                key: draw.below(u64::from(keys)) as u32,
            }),
            _ => Action::Say {
                on,
                line: if !std::mem::replace(is_open, true) && draw.percent(80) {
                    let version = draw.pick(VERSIONS);
                    format!("{{\"type\":\"version\",\"value\":\"{version}\"}}")
                } else {
                    line(draw)
                },
            },
        };
        plan.ops.push(Op {
            id,
            at_ns,
            client,
            action,
        });
    }
    plan.heal_ns = plan.heal_ns.max(at_ns + 10 * SECOND);
    plan.ops.sort_by_key(|op| (op.at_ns, op.id));
}

/// What such clients say, with another's id or in another's place now and then.
fn line(draw: &mut Sequence) -> String {
    let (key, write_key) = draw.pick(KEYS);
    let id = draw.pick(IDS);
    let fresh = draw.below(1_000);
    let about = |kind: &str| format!("{{\"type\":\"{kind}\",\"uuid\":\"{id}\",\"key\":\"{key}\"}}");
    match draw.below(40) {
        0..6 => lock(draw, id, key, "null"),
        6..10 => lock(draw, id, key, "\"begin_read\""),
        10..13 => lock(draw, id, write_key, "\"locking_write_key\""),
        13..15 => lock(draw, id, write_key, "\"begin_write\""),
        15..18 => lock(draw, id, key, "\"end_read\""),
        18..23 => unlock(draw, fresh, key, "null"),
        23 => unlock(draw, fresh, write_key, "null"),
        24..26 => ending(fresh, write_key, "end_write"),
        26..28 => ending(fresh, write_key, "unlocking_write_key"),
        28 => about(draw.pick(&["register-write-flag-check", "increment-readers"])),
        29 => about("decrement-readers"),
        30 => about("register-write-flag-and-readers-check"),
        31 => about("set-write-flag-false-and-broadcast"),
        32 => about("lock-received"),
        33 => about("lock-received-rejected"),
        34 => about("lock-client-timeout"),
        35 => {
            let made = made_id(draw);
            format!("{{\"type\":\"lock-received-rejected\",\"uuid\":\"{made}\"}}")
        }
        36 => format!(
            "{{\"type\":\"acquire-many\",\"uuid\":\"{id}\",\"keys\":[\"{key}\",\"{write_key}\"],\
             \"ttl\":{},\"pid\":1}}",
            draw.pick(&["null", "400"])
        ),
        37 => format!("{{\"type\":\"release-many\",\"uuid\":{fresh},\"lockUuid\":\"{id}\"}}"),
        _ => {
            let of = draw.pick(&[key, write_key]);
            format!("{{\"type\":\"lock-info-request\",\"uuid\":{fresh},\"key\":\"{of}\"}}")
        }
    }
}

fn lock(draw: &mut Sequence, id: &str, key: &str, role: &str) -> String {
    let mut text = format!("{{\"type\":\"lock\",\"uuid\":\"{id}\",\"key\":\"{key}\"");
    // Whose connection has gone ends by itself.
    let keeps = draw.percent(5);
    let ttl = if keeps {
        "400"
    } else {
        draw.pick(&["null", "null", "50", "400", "3000"])
    };
    let _ = write!(text, ",\"ttl\":{ttl}");
    // The Node client writes all of these.
    let is_node = draw.percent(40);
    if is_node || keeps {
        let _ = write!(text, ",\"keepLocksAfterDeath\":{keeps}");
    }
    if is_node || role != "null" {
        let _ = write!(text, ",\"rwStatus\":{role}");
    }
    if is_node || draw.percent(30) {
        let max = draw.pick(&["null", "1", "2", "10"]);
        let _ = write!(text, ",\"max\":{max}");
    }
    if is_node || draw.percent(50) {
        let count = draw.pick(&["0", "0", "1"]);
        let _ = write!(text, ",\"retryCount\":{count}");
    }
    if is_node || draw.percent(20) {
        text += ",\"pid\":7";
    }
    if draw.percent(10) {
        text += ",\"force\":true";
    }
    if draw.percent(10) {
        text += ",\"wait\":false";
    }
    text + "}"
}

fn unlock(draw: &mut Sequence, fresh: u64, key: &str, role: &str) -> String {
    let id = match draw.below(10) {
        0 => made_id(draw),
        _ => draw.pick(IDS).to_owned(),
    };
    match draw.below(12) {
        0 => format!("{{\"type\":\"unlock\",\"uuid\":{fresh},\"key\":\"{key}\",\"force\":true}}"),
        // What readers and writers hold has a key of its own.
        1 => format!(
            "{{\"type\":\"unlock\",\"uuid\":{fresh},\"_uuid\":\"{}\",\
             \"key\":\"{key} (live-mutex readers and writers)\"}}",
            made_id(draw)
        ),
        _ => format!(
            "{{\"type\":\"unlock\",\"uuid\":{fresh},\"_uuid\":\"{id}\",\"key\":\"{key}\",\
             \"rwStatus\":{role},\"force\":false}}"
        ),
    }
}

fn ending(fresh: u64, key: &str, role: &str) -> String {
    format!(
        "{{\"type\":\"unlock\",\"uuid\":{fresh},\"key\":\"{key}\",\"rwStatus\":\"{role}\",\
         \"force\":true}}"
    )
}

/// An id that the broker makes for what has none: one of the first.
fn made_id(draw: &mut Sequence) -> String {
    format!("6c6d7800-6c6d-8800-8000-{:012x}", draw.skewed(1, 60))
}

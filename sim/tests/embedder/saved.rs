//! State that was saved comes back as it was, or, if it was damaged, not at all.

use std::num::NonZeroU32;
use std::time::Duration;

use lmx_core::broker::{Believer, KeptHold, Record, RecordError};
use lmx_core::storage::Growable;
use lmx_core::table::{LoadError, Snapshot};
use lmx_core::{
    Acquire, Event, FencingToken, Instant, Key, LockTable, Mode, RequestId, SessionId, TableConfig,
    Wait, Want,
};

fn record() -> Record {
    Record {
        incarnation: 7,
        token_ceiling: FencingToken::new(1 << 20).expect("not zero"),
        secret_seed: *b"0123456789abcdef",
        reach: Duration::from_secs(10),
        has_unlisted: false,
        sessions: vec![Believer {
            incarnation: 6,
            session: SessionId::from_u64(9),
            reach: Duration::from_secs(4),
        }],
        holds: vec![KeptHold {
            id: RequestId::from_u128(3),
            token: FencingToken::FIRST,
            lease: None,
            keys: vec![(b"key".to_vec(), Mode::Exclusive)],
            label: b"who".to_vec(),
            lock_delay: Duration::from_millis(3),
        }],
    }
}

#[test]
fn a_record_is_read_whole_or_refused_with_the_reason() {
    let bytes = record().encode();
    assert_eq!(Record::decode(&bytes), Ok(record()));
    for length in 0..bytes.len() {
        let expected = if length < 20 { 20 } else { bytes.len() };
        let found = length;
        let error = RecordError::Length { found, expected };
        assert_eq!(Record::decode(&bytes[..length]), Err(error));
    }
    let longer = [&bytes[..], b"x"].concat();
    let (found, expected) = (longer.len(), bytes.len());
    let error = RecordError::Length { found, expected };
    assert_eq!(Record::decode(&longer), Err(error));
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = Record::decode(&damaged).expect_err("one bit is another");
        let is_it = match bit / 8 {
            0..4 => error == RecordError::Foreign,
            4..8 => matches!(error, RecordError::Version { .. }),
            8..12 => matches!(error, RecordError::Length { .. }),
            _ => error == RecordError::Checksum,
        };
        assert!(is_it, "bit {bit}: {error}");
    }
    let older = [&bytes[..4], &[1, 0, 0, 0], &bytes[8..]].concat();
    let error = RecordError::Version { found: 1 };
    assert_eq!(Record::decode(&older), Err(error));
    for foreign in [&b"something else altogether"[..], b"short"] {
        assert_eq!(Record::decode(foreign), Err(RecordError::Foreign));
    }
}

/// A table in which every kind of slot and timer is in use.
fn table() -> LockTable<Growable> {
    let mut table = LockTable::new(TableConfig::default()).expect("its defaults are right");
    let window = Duration::from_secs(9);
    let sessions = [(); 3].map(|()| table.open_session(Instant::EPOCH, window).expect("room"));
    for (place, session) in sessions.iter().enumerate() {
        for number in 0..2 {
            let name = [
                b"a key so long that it needs pieces, number ",
                &[b'0' + number][..],
            ]
            .concat();
            let wants = [Want {
                key: Key::new(&name, 100).expect("short enough"),
                mode: Mode::Exclusive,
            }];
            let id = 2 * place as u128 + u128::from(number);
            let ask = Acquire {
                label: b"a label",
                lease: Some(Duration::from_secs(1 + u64::from(number))),
                lock_delay: Duration::from_secs(2),
                owner: NonZeroU32::new(1 + place as u32),
                ..Acquire::new(RequestId::from_u128(id), &wants)
            };
            table.acquire(Instant::EPOCH, *session, &ask).expect("room");
        }
    }
    table.disconnect(Instant::EPOCH, sessions[1]).expect("open");
    table.disconnect(Instant::EPOCH, sessions[2]).expect("open");
    // A lock-delay begins.
    table.handle_timeout(Instant::from_millis(1500));
    table.check();
    table
}

fn load(saved: &serde_json::Value) -> Result<LockTable<Growable>, LoadError> {
    let saved: Snapshot = serde_json::from_value(saved.clone()).expect("its shape is right");
    LockTable::load(TableConfig::default(), &saved)
}

#[test]
fn a_table_is_loaded_as_it_was_saved() {
    let table = table();
    let saved = serde_json::to_value(table.save()).expect("plain data");
    for list in [
        "requests",
        "request_timers",
        "claims",
        "locks",
        "lock_timers",
        "sessions",
        "session_timers",
        "extras",
        "pieces",
    ] {
        assert_ne!(saved[list].as_array().map(Vec::len), Some(0), "{list}");
    }
    let mut loaded = load(&saved).expect("it is one");
    loaded.check();
    assert_eq!(loaded.save(), table.save());
    // All that is due comes due as in the other.
    let mut other = table;
    for millis in (2_000..40_000).step_by(500) {
        let now = Instant::from_millis(millis);
        loaded.handle_timeout(now);
        other.handle_timeout(now);
        loaded.check();
        assert_eq!(loaded.poll_timeout(), other.poll_timeout());
        assert_eq!(loaded.save(), other.save());
    }
    assert_eq!(loaded.counts().held, 0);
}

/// Timers of one instant end in the order in which they were set, by numbers that begin anew
/// when there are no more: after two thousand million of them.
#[test]
fn timers_end_in_their_order_when_their_numbers_have_run_out() {
    const NUMBERS_END: u32 = 1 << 31;
    let expected = told_of_timers_from(0);
    for left in 1..12 {
        assert_eq!(told_of_timers_from(NUMBERS_END - left), expected, "{left}");
    }
}

/// What is told of holds and waits that end in few instants, when the first timer gets this
/// number.
fn told_of_timers_from(number: u32) -> Vec<Event> {
    let table = LockTable::<Growable>::new(TableConfig::default()).expect("defaults");
    let mut saved = serde_json::to_value(table.save()).expect("plain data");
    assert_eq!(saved["head"]["timer_order"], 0);
    saved["head"]["timer_order"] = number.into();
    let mut table = load(&saved).expect("it is one");
    let window = Duration::ZERO;
    let session = table.open_session(Instant::EPOCH, window).expect("room");
    let ask = |table: &mut LockTable<Growable>, id: u8, key: u8, lease, lock_delay| {
        let key = [key];
        let wants = [Want {
            key: Key::new(&key, 8).expect("short enough"),
            mode: Mode::Exclusive,
        }];
        let ask = Acquire {
            lease,
            // For as long as the one before it holds.
            wait: Wait::For(Duration::from_secs(1)),
            lock_delay,
            ..Acquire::new(RequestId::from_u128(id.into()), &wants)
        };
        let asked = table.acquire(Instant::EPOCH, session, &ask);
        asked.expect("there is room");
        table.check();
    };
    for key in 0..12 {
        ask(&mut table, key, key, None, Duration::ZERO);
    }
    for key in 0..12 {
        let id = RequestId::from_u128(key);
        let released = table.release(Instant::EPOCH, session, id);
        released.expect("it is held");
    }
    // All slots have been in use by now. Every other one waits.
    let end = Duration::from_secs(1);
    for id in 0..12 {
        ask(&mut table, id, id / 2, Some(end), end * u32::from(id / 8));
    }
    let mut told = Vec::new();
    for secs in 0..5 {
        table.handle_timeout(Instant::from_millis(secs * 1000));
        table.check();
        told.extend(std::iter::from_fn(|| table.poll_event(session)));
    }
    assert_eq!(table.counts().held, 0);
    told
}

#[test]
fn what_belongs_to_two_is_no_state_of_a_table() {
    let saved = serde_json::to_value(table().save()).expect("plain data");
    let (piece, timer) = (
        "every piece belongs to a key or a label",
        "a slot knows where its deadline stands",
    );
    for (list, field, what) in [
        ("extras", "label", piece),
        ("session_timers", "slot", timer),
    ] {
        let mut broken = saved.clone();
        broken[list][1][field] = saved[list][0][field].clone();
        assert_eq!(load(&broken).err(), Some(LoadError::Corrupt { what }));
    }
}

//! What an embedder can see, and what it shows of it to people.

use std::num::NonZeroU32;
use std::time::Duration;

use lmx_core::storage::Growable;
use lmx_core::table::{ForceTarget, Owners};
use lmx_core::wire::{SeqBuf, Ticket, WantFields};
use lmx_core::{
    Acquire, FencingToken, Instant, Key, LockTable, Mode, RequestId, SessionId, TableConfig, Wait,
    Want,
};

#[test]
fn a_request_shows_what_it_was_asked_with() {
    let mut table = LockTable::<Growable>::new(TableConfig::default()).expect("defaults");
    let window = Duration::ZERO;
    let session = table.open_session(Instant::EPOCH, window).expect("room");
    let name = b"a key of more bytes than stand in its slot";
    let wants = [Want {
        key: Key::new(name, 100).expect("short enough"),
        mode: Mode::Exclusive,
    }];
    let holder = RequestId::from_u128(1);
    let waiter = RequestId::from_u128(2);
    let now = Instant::from_millis(10);
    let ask = Acquire {
        owner: NonZeroU32::new(7),
        lease: Some(Duration::from_secs(5)),
        ..Acquire::new(holder, &wants)
    };
    table.acquire(now, session, &ask).expect("free");
    let ask = Acquire {
        wait: Wait::For(Duration::from_secs(3)),
        ..Acquire::new(waiter, &wants)
    };
    table.acquire(now, session, &ask).expect("it may wait");
    let view = table.inspect(wants[0].key).expect("in use");
    assert_eq!(view.key_bytes(), name.len());
    let shown: Vec<u8> = view.key().flatten().copied().collect();
    assert_eq!(shown, name);
    let held = table.request(holder).expect("known");
    assert_eq!(held.owner(), NonZeroU32::new(7));
    assert_eq!(held.wait_deadline(), None);
    let queued = table.request(waiter).expect("known");
    assert_eq!(queued.owner(), None);
    assert_eq!(queued.wait_deadline(), Some(Instant::from_millis(3010)));

    // Force ends what is there, and counts nothing else.
    let force = |table: &mut LockTable<Growable>, id| {
        let ended = table.force_release(now, ForceTarget::Request(id));
        table.check();
        ended
    };
    assert_eq!(force(&mut table, RequestId::from_u128(3)), 0);
    assert_eq!(force(&mut table, holder), 1);
    assert_eq!(
        force(&mut table, holder),
        0,
        "it has ended, and nobody knows yet"
    );
    assert_eq!(force(&mut table, waiter), 1);
    assert_eq!(table.counts().held, 0);
}

#[test]
fn a_circle_is_told_as_a_sentence() {
    let owners = |count: u32| -> Owners { (1..=count).filter_map(NonZeroU32::new).collect() };
    let told = |count| owners(count).to_string();
    assert_eq!(told(1), "1 waits for 1");
    assert_eq!(told(2), "1 waits for 2 waits for 1");
    let eight = "1 waits for 2 waits for 3 waits for 4 waits for 5 waits for 6 waits for 7 \
                 waits for 8 waits for ";
    assert_eq!(told(8), format!("{eight}1"));
    assert_eq!(told(9), format!("{eight}one more, who waits for 1"));
    let more = "3 more in turn, the last of whom waits for 1";
    assert_eq!(told(11), format!("{eight}{more}"));
    let unnamed = [0, 1, 8, 9, 11].map(|count| owners(count).unnamed());
    assert_eq!(unnamed, [0, 0, 0, 1, 3]);
    assert_eq!(owners(11).named().count(), Owners::NAMED_MAX);
}

#[test]
fn what_is_printed_says_what_it_is_and_no_secret() {
    let token = FencingToken::new(41).expect("not zero");
    assert_eq!(token.to_string(), "41");
    let id = RequestId::from_u128(5);
    assert_eq!(id.uuid().as_u128(), 5);
    let shown = "RequestId(00000000-0000-0000-0000-000000000005)";
    assert_eq!(format!("{id:?}"), shown);
    let ticket = Ticket {
        incarnation: 3,
        session: SessionId::from_u64(4),
        secret: [0x5a; 16],
    };
    let shown = format!("{ticket:?}");
    assert!(shown.starts_with("Ticket { incarnation: 3"), "{shown}");
    assert!(!shown.contains("90"), "{shown}");
    let table = LockTable::<Growable>::new(TableConfig::default()).expect("defaults");
    let shown = format!("{table:?}");
    assert!(shown.starts_with("LockTable { counts: Counts {"), "{shown}");
    let mut buffer = [0; 64];
    let mut wants = SeqBuf::new(&mut buffer);
    let (key, mode) = (&b"key"[..], Mode::Exclusive);
    assert!(wants.push(&WantFields { key, mode }));
    assert_eq!(format!("{:?}", wants.finish()), "Seq(5 bytes)");
    let earlier = Instant::from_millis(10) - Duration::from_millis(3);
    assert_eq!(earlier, Instant::from_millis(7));
    assert_eq!(
        Instant::from_millis(1) - Duration::from_secs(1),
        Instant::EPOCH
    );
}

//! The bytes of every message, so that no change of the protocol goes unnoticed.
//!
//! A snapshot that changes is a protocol that changes: variants and `Status` fields are
//! only ever added at the end, and clients of all versions since must go on working.

#![cfg(feature = "alloc")]

use std::fmt::{Debug, Write as _};
use std::num::NonZeroU32;
use std::time::Duration;

use lmx_core::table::{
    AcquireError, CancelError, Conversion, ConvertError, Owners, ReleaseError, RenewError, Resource,
};
use lmx_core::wire::{
    AcquireFields, Answer, Command, FaultKind, Hello, HolderFields, KeyFields, Page, QueryError,
    Reply, Request, Resumed, SeqBuf, Status, Ticket, WantFields, Welcome, frame,
};
use lmx_core::{FencingToken, Grant, Instant, Mode, RequestId, SessionId, Wait};
use serde::Serialize;

const ID: RequestId = RequestId::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

fn token(number: u64) -> FencingToken {
    FencingToken::new(number).unwrap()
}

fn owners(count: u32) -> Owners {
    (1..=count).filter_map(NonZeroU32::new).collect()
}

fn grant() -> Grant {
    Grant {
        token: token(300),
        granted_at: Instant::from_millis(1),
        deadline: Some(Instant::from_millis(4001)),
    }
}

fn ticket() -> Ticket {
    Ticket {
        incarnation: 7,
        session: SessionId::from_u64(9),
        secret: [0xa5; 16],
    }
}

fn fields<'a>(buffer: &'a mut [u8], wants: &[WantFields<'a>]) -> AcquireFields<'a> {
    let mut seq = SeqBuf::new(buffer);
    for want in wants {
        assert!(seq.push(want));
    }
    AcquireFields {
        id: ID,
        wants: seq.finish(),
        lease: Some(Duration::from_secs(4)),
        wait: Wait::For(Duration::from_millis(9500)),
        keep: true,
        notify_contended: false,
        label: b"backup",
        owner: NonZeroU32::new(5),
        lock_delay: Duration::ZERO,
    }
}

fn holders(buffer: &mut [u8]) -> lmx_core::wire::Seq<'_, HolderFields<'_>> {
    let mut seq = SeqBuf::new(buffer);
    assert!(seq.push(&HolderFields {
        id: ID,
        mode: Mode::Shared,
        grant: Some(grant()),
        since: Instant::from_millis(1),
        keep: false,
        label: b"why",
        name: "who",
    }));
    seq.finish()
}

fn render(name: &str, message: &(impl Serialize + Debug), into: &mut String) {
    let mut bytes = Vec::new();
    frame::append(message, &mut bytes);
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(into, "{name}\n  {message:?}").unwrap();
    for row in hex.chunks(24) {
        writeln!(into, "  {}", row.join(" ")).unwrap();
    }
}

/// The variants' numbers, in the order of `samples`, must be every number from zero on.
fn assert_all(numbers: impl Iterator<Item = u8>, count: u8) {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.dedup();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

#[test]
fn commands() {
    let modes = [
        WantFields {
            key: b"a",
            mode: Mode::Exclusive,
        },
        WantFields {
            key: b"bc",
            mode: Mode::Shared,
        },
        WantFields {
            key: b"d",
            mode: Mode::Semaphore {
                capacity: 200,
                permits: 3,
            },
        },
    ];
    let (mut buffer, mut other, mut none) = ([0; 64], [0; 64], [0; 0]);
    let commands = [
        Command::Hello(Hello {
            auth: b"token",
            resume_window: Duration::from_secs(4),
            resume: None,
            name: "who",
        }),
        Command::Hello(Hello {
            auth: b"",
            resume_window: Duration::from_secs(4),
            resume: Some(ticket()),
            name: "",
        }),
        Command::Acquire(fields(&mut buffer, &modes)),
        Command::Acquire(AcquireFields {
            lease: None,
            wait: Wait::Forever,
            ..fields(&mut other, &modes[..1])
        }),
        Command::Release { id: ID },
        Command::Renew {
            id: ID,
            lease: Some(Duration::from_millis(2500)),
        },
        Command::Cancel { id: ID },
        Command::ForceReleaseKey { key: b"a" },
        Command::ForceReleaseRequest { id: ID },
        Command::Convert {
            id: ID,
            to: Conversion::Downgrade,
        },
        Command::Convert {
            id: ID,
            to: Conversion::Upgrade,
        },
        Command::Reclaim {
            request: AcquireFields {
                wait: Wait::No,
                ..fields(&mut none, &[])
            },
            token: token(300),
        },
        Command::Ping,
        Command::List { start: 130 },
        Command::Inspect { key: b"a", skip: 2 },
        Command::Status,
        Command::Goodbye,
    ];
    // A new command must get a number here, and a sample above.
    let number = |command: &Command<'_>| match command {
        Command::Hello(_) => 0,
        Command::Acquire(_) => 1,
        Command::Release { .. } => 2,
        Command::Renew { .. } => 3,
        Command::Cancel { .. } => 4,
        Command::ForceReleaseKey { .. } => 5,
        Command::ForceReleaseRequest { .. } => 6,
        Command::Convert { .. } => 7,
        Command::Reclaim { .. } => 8,
        Command::Ping => 9,
        Command::List { .. } => 10,
        Command::Inspect { .. } => 11,
        Command::Status => 12,
        Command::Goodbye => 13,
    };
    assert_all(commands.iter().map(number), 14);
    let mut text = String::new();
    for (tag, body) in (1..).zip(commands) {
        let request = Request { tag, seen: 0, body };
        let mut bytes = Vec::new();
        frame::append(&request, &mut bytes);
        assert_eq!(bytes[6], number(&body), "the enum's order has changed");
        assert_eq!(Request::decode(&bytes[4..]), Ok(request));
        render(&number(&body).to_string(), &request, &mut text);
    }
    insta::assert_snapshot!(text);
}

fn status() -> Status {
    Status {
        uptime: Duration::from_mins(1),
        incarnation: 7,
        connections: 1,
        sessions: 2,
        keys: 3,
        held: 4,
        waiting: 5,
        last_token: 300,
        grants: 6,
        expiries: 7,
        refused: 8,
        faults: 9,
        grace: Some(Duration::from_secs(1)),
        connections_total: 10,
        sessions_total: 11,
        resumes: 12,
        refused_busy: 13,
        refused_connections: 14,
        refused_sessions: 15,
        refused_keys: 16,
        refused_requests: 17,
        refused_requests_per_session: 18,
        refused_bytes: 19,
        refused_invalid: 20,
        refused_conflicts: 21,
        refused_absent: 22,
        faults_magic: 23,
        faults_malformed: 24,
        faults_frame_too_long: 25,
        faults_out_of_order: 26,
        faults_unauthorized: 27,
        faults_full: 28,
        faults_idle: 29,
        faults_slow_reader: 30,
        faults_taken_over: 31,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one sample of each answer")]
fn answers() {
    let (mut some, mut more, mut keys) = ([0; 64], [0; 64], [0; 64]);
    let ended = holders(&mut some);
    let requests = holders(&mut more);
    let key = KeyFields {
        key: b"a",
        holders: 1,
        waiters: 2,
        capacity: Some(3),
    };
    let mut page = SeqBuf::new(&mut keys);
    assert!(page.push(&key));
    let answers = [
        Answer::Welcome(Welcome {
            ticket: ticket(),
            resumed: Resumed::New,
            resume_window: Duration::from_secs(4),
            idle_max: Duration::from_secs(10),
            frame_bytes_max: 65_536,
            grace_until: None,
        }),
        Answer::Granted {
            id: ID,
            grant: grant(),
        },
        Answer::Queued { id: ID, ahead: 2 },
        Answer::Busy {
            id: ID,
            key: b"a",
            waiting: 2,
            holders: ended,
        },
        Answer::AcquireRefused {
            id: ID,
            error: AcquireError::Full {
                what: Resource::Keys,
                max: 10,
            },
        },
        Answer::Released { id: ID },
        Answer::ReleaseRefused {
            id: ID,
            error: ReleaseError::NotHeld,
        },
        Answer::Renewed {
            id: ID,
            deadline: Some(Instant::from_millis(5000)),
        },
        Answer::RenewRefused {
            id: ID,
            error: RenewError::NotHeld,
        },
        Answer::Cancelled { id: ID },
        Answer::CancelRefused {
            id: ID,
            error: CancelError::Granted,
        },
        Answer::ForceReleased {
            holders: ended,
            count: 1,
        },
        Answer::ConvertRefused {
            id: ID,
            error: ConvertError::UpgradeConflict,
        },
        Answer::Pong,
        Answer::Listed(Page {
            keys: page.finish(),
            next: Some(5),
        }),
        Answer::Inspected { key, requests },
        Answer::Status(status()),
        Answer::Bye,
        Answer::TimedOut { id: ID },
        Answer::Expired {
            id: ID,
            token: token(300),
        },
        Answer::Revoked {
            id: ID,
            token: None,
        },
        Answer::Contended { id: ID },
        Answer::Stopping,
        Answer::Fault {
            kind: FaultKind::Idle,
            text: "why",
        },
        Answer::QueryRefused {
            error: QueryError::KeyTooLong { max: 1024 },
        },
    ];
    let mut text = String::new();
    for (number, body) in (0_u8..).zip(answers) {
        let reply = Reply {
            now: Instant::from_nanos(1),
            tag: 1,
            body,
        };
        let mut bytes = Vec::new();
        frame::append(&reply, &mut bytes);
        assert_eq!(bytes[6], number, "the enum's order has changed");
        assert_eq!(Reply::decode(&bytes[4..]), Ok(reply));
        render(&number.to_string(), &reply, &mut text);
    }
    insta::assert_snapshot!(text);
}

/// The small enums inside of the messages.
#[test]
fn errors() {
    const LONG: Duration = Duration::from_hours(1);
    let mut text = String::new();
    let mut line = |message: &dyn Debug, bytes: &[u8]| {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{:<40} {message:?}", hex.join(" ")).unwrap();
    };
    macro_rules! lines {
        ($($message:expr),+ $(,)?) => {
            $(line(&$message, postcard::to_slice(&$message, &mut [0; 32]).unwrap());)+
        };
    }
    lines![
        AcquireError::UnknownSession,
        AcquireError::Busy,
        AcquireError::NoKeys,
        AcquireError::TooManyKeys { max: 64 },
        AcquireError::DuplicateKey,
        AcquireError::KeyTooLong { max: 1024 },
        AcquireError::LabelTooLong { max: 256 },
        AcquireError::LeaseZero,
        AcquireError::LeaseTooLong { max: LONG },
        AcquireError::LockDelayTooLong { max: LONG },
        AcquireError::Permits {
            permits: 3,
            capacity: 2,
        },
        AcquireError::FrontWithManyKeys,
        AcquireError::IdInUse,
        AcquireError::Deadlock { cycle: owners(2) },
        AcquireError::Full {
            what: Resource::Keys,
            max: 1,
        },
        AcquireError::Full {
            what: Resource::Requests,
            max: 1,
        },
        AcquireError::Full {
            what: Resource::RequestsOfSession,
            max: 1,
        },
        AcquireError::Full {
            what: Resource::Bytes,
            max: 1,
        },
        AcquireError::Full {
            what: Resource::Claims,
            max: 1,
        },
        AcquireError::ReclaimConflict,
        AcquireError::KeyEmpty,
        AcquireError::ReclaimTooLate,
        AcquireError::Ended,
        ReleaseError::NotHeld,
        ReleaseError::StillWaiting,
        ReleaseError::NotOwner,
        RenewError::NotHeld,
        RenewError::StillWaiting,
        RenewError::NotOwner,
        RenewError::LeaseZero,
        RenewError::LeaseTooLong { max: LONG },
        CancelError::NotWaiting,
        CancelError::Granted,
        CancelError::NotOwner,
        ConvertError::NotHeld,
        ConvertError::NotOwner,
        ConvertError::NotConvertible,
        ConvertError::UpgradeConflict,
        ConvertError::Deadlock { cycle: owners(9) },
        QueryError::KeyEmpty { max: 1024 },
        QueryError::KeyTooLong { max: 1024 },
        Resumed::New,
        Resumed::Resumed,
        Resumed::Lost,
        Resumed::Restarted,
        FaultKind::Magic,
        FaultKind::Malformed,
        FaultKind::FrameTooLong,
        FaultKind::OutOfOrder,
        FaultKind::Unauthorized,
        FaultKind::Full,
        FaultKind::Idle,
        FaultKind::SlowReader,
        FaultKind::TakenOver,
    ];
    insta::assert_snapshot!(text);
}

//! Whatever a broker says and a user does, in whatever order.
#![expect(
    clippy::large_types_passed_by_value,
    reason = "scripts read better with the answer in its place"
)]

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{at, ms};
use crate::client::{Client, ClientConfig, ClientEvent, LockRequest, Query};
use crate::table::{
    AcquireError, CancelError, Conversion, ConvertError, Owners, ReleaseError, RenewError, Wait,
};
use crate::wire::{Answer, FaultKind, Reply, Resumed, Ticket, Welcome, frame};
use crate::{FencingToken, Grant, Instant, RequestId, SessionId};

#[derive(Clone, Debug)]
enum Act {
    Acquire {
        id: u8,
        renew: bool,
        keep: bool,
        wait: u8,
    },
    Release(u8),
    Cancel(u8),
    Renew(u8),
    Convert(u8, bool),
    Query,
    Connect,
    Disconnect,
    Reconnect,
    Close,
    Pass(u16),
    Say {
        tag: u8,
        what: u8,
        id: u8,
        token: u8,
    },
    Welcome(u8),
    Garbage(Vec<u8>),
}

fn act() -> impl Strategy<Value = Act> {
    let id = || 0..4_u8;
    prop_oneof![
        4 => (id(), any::<bool>(), any::<bool>(), 0..3_u8)
            .prop_map(|(id, renew, keep, wait)| Act::Acquire { id, renew, keep, wait }),
        2 => id().prop_map(Act::Release),
        2 => id().prop_map(Act::Cancel),
        1 => id().prop_map(Act::Renew),
        1 => (id(), any::<bool>()).prop_map(|(id, up)| Act::Convert(id, up)),
        1 => Just(Act::Query),
        3 => Just(Act::Connect),
        1 => Just(Act::Disconnect),
        1 => Just(Act::Reconnect),
        4 => any::<u16>().prop_map(Act::Pass),
        4 => (0..5_u8).prop_map(Act::Welcome),
        12 => (0..12_u8, any::<u8>(), id(), 1..4_u8)
            .prop_map(|(tag, what, id, token)| Act::Say { tag, what, id, token }),
    ]
}

/// Now and then, the end.
fn acts() -> impl Strategy<Value = Vec<Act>> {
    let rare = prop_oneof![
        Just(Act::Close),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Act::Garbage),
    ];
    prop::collection::vec(prop_oneof![60 => act(), 1 => rare], 0..120)
}

fn answer(what: u8, id: RequestId, token: FencingToken, now: Instant) -> Answer<'static> {
    let grant = Grant {
        token,
        granted_at: now,
        deadline: what.is_multiple_of(2).then(|| now + ms(3000)),
    };
    match what % 18 {
        0 | 1 => Answer::Granted { id, grant },
        2 => Answer::Queued { id, ahead: 1 },
        3 => Answer::AcquireRefused {
            id,
            error: AcquireError::Deadlock {
                cycle: Owners::default(),
            },
        },
        4 => Answer::Released { id },
        5 => Answer::ReleaseRefused {
            id,
            error: ReleaseError::NotHeld,
        },
        6 => Answer::ReleaseRefused {
            id,
            error: ReleaseError::StillWaiting,
        },
        7 => Answer::Renewed {
            id,
            deadline: grant.deadline,
        },
        8 => Answer::RenewRefused {
            id,
            error: RenewError::NotHeld,
        },
        9 => Answer::RenewRefused {
            id,
            error: RenewError::NotOwner,
        },
        10 => Answer::Cancelled { id },
        11 => Answer::CancelRefused {
            id,
            error: CancelError::Granted,
        },
        12 => Answer::CancelRefused {
            id,
            error: CancelError::NotWaiting,
        },
        13 => Answer::ConvertRefused {
            id,
            error: ConvertError::UpgradeConflict,
        },
        14 => Answer::TimedOut { id },
        15 => Answer::Expired { id, token },
        16 => Answer::Revoked {
            id,
            token: (what < 128).then_some(token),
        },
        _ => Answer::Pong,
    }
}

struct User {
    /// Requests without a final answer.
    open: BTreeSet<RequestId>,
}

impl User {
    fn hear(&mut self, client: &mut Client, now: Instant) {
        while let Some(event) = client.poll_event() {
            let last = match event {
                ClientEvent::Refused { id, .. }
                | ClientEvent::Lost { id, .. }
                | ClientEvent::Released { id, .. }
                | ClientEvent::Cancelled { id } => id,
                ClientEvent::Granted { id, .. } | ClientEvent::Queued { id, .. } => {
                    assert!(self.open.contains(&id), "told of what has ended");
                    continue;
                }
                _ => continue,
            };
            assert!(self.open.remove(&last), "a second final answer");
            assert_eq!(client.held(now, last), None, "ended, and held");
        }
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_no_request_ends_twice(window in 0..3_u64, acts in acts()) {
        let config = ClientConfig { resume_window: ms(window * 2000), ..ClientConfig::default() };
        let mut now = at(1_000_000);
        let mut client = Client::new(now, config);
        let mut user = User { open: BTreeSet::new() };
        for act in acts {
            let request = |id: u8| RequestId::from_u128(id.into());
            match act {
                Act::Acquire { id, renew, keep, wait } => {
                    let wait = match wait {
                        0 => Wait::No,
                        1 => Wait::For(ms(1000)),
                        _ => Wait::Forever,
                    };
                    let lease = renew.then_some(ms(3000));
                    let ask = LockRequest {
                        lease, renew, wait, keep,
                        ..LockRequest::new(request(id), b"key")
                    };
                    if client.acquire(now, ask).is_ok() {
                        user.open.insert(request(id));
                    }
                }
                Act::Release(id) => {
                    user.open.insert(request(id));
                    client.release(now, request(id));
                }
                Act::Cancel(id) => client.cancel(now, request(id)),
                Act::Renew(id) => client.renew(now, request(id), Some(ms(500))),
                Act::Convert(id, up) => {
                    let to = if up { Conversion::Upgrade } else { Conversion::Downgrade };
                    client.convert(now, request(id), to);
                }
                Act::Query => drop(client.query(now, Query::Ping)),
                Act::Connect => {
                    if client.wants_connection(now) {
                        client.handle_connected(now);
                    }
                }
                Act::Disconnect => client.handle_disconnected(now),
                Act::Reconnect => client.reconnect(now),
                Act::Close => client.close(now),
                Act::Pass(millis) => {
                    now = now + ms(millis.into()) / 16;
                    client.handle_timeout(now);
                    prop_assert!(client.poll_timeout().is_none_or(|due| due > now));
                }
                Act::Say { tag, what, id, token } => {
                    let token = FencingToken::new(token.into()).expect("not zero");
                    let body = answer(what, request(id), token, now);
                    say(&mut client, now, tag.into(), body);
                }
                Act::Welcome(resumed) => {
                    let welcome = Welcome {
                        ticket: Ticket {
                            incarnation: u64::from(resumed / 2),
                            session: SessionId::from_u64(1),
                            secret: [0; 16],
                        },
                        resumed: match resumed {
                            0 => Resumed::New,
                            1 => Resumed::Resumed,
                            2 => Resumed::Lost,
                            _ => Resumed::Restarted,
                        },
                        resume_window: ms(window * 2000),
                        idle_max: ms(9000),
                        frame_bytes_max: 200,
                        grace_until: None,
                    };
                    say(&mut client, now, 1, Answer::Welcome(welcome));
                }
                Act::Garbage(bytes) => client.handle_input(now, &bytes),
            }
            let output = client.output().len();
            client.consume_output(output);
            if client.is_closing() {
                client.handle_disconnected(now);
            }
            user.hear(&mut client, now);
        }
    }

    #[test]
    fn any_bytes_at_all_end_in_an_answer_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut client = Client::new(at(0), ClientConfig::default());
        client.handle_connected(at(0));
        client.handle_input(at(0), &bytes);
        while let Some(event) = client.poll_event() {
            if let ClientEvent::Failed { kind, .. } = event {
                prop_assert!(kind != FaultKind::Malformed || client.is_closing());
            }
        }
    }
}

fn say(client: &mut Client, now: Instant, tag: u32, body: Answer<'_>) {
    let mut bytes = Vec::new();
    frame::append(&Reply { now, tag, body }, &mut bytes);
    client.handle_input(now, &bytes);
}

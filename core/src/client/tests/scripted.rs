//! A broker whose every word is written down.
#![expect(
    clippy::large_types_passed_by_value,
    reason = "scripts read better with the answer in its place"
)]

use alloc::vec::Vec;
use core::time::Duration;

use super::{at, ms};
use crate::client::{
    Client, ClientConfig, ClientEvent, LockRequest, Loss, Query, QueryAnswer, Refusal,
};
use crate::table::{AcquireError, Wait};
use crate::wire::{
    Answer, Command, FaultKind, MAGIC, Reply, Request, Resumed, Ticket, Welcome, frame,
};
use crate::{FencingToken, Grant, Instant, RequestId, SessionId};

pub(super) const ID: RequestId = RequestId::from_u128(1);
/// How far the broker's clock is ahead.
pub(super) const AHEAD: Duration = Duration::from_secs(1000);

pub(super) struct Script {
    pub(super) client: Client,
    pub(super) now: Instant,
    /// Tags of the commands that were sent and are not answered, oldest first.
    pub(super) asked: Vec<u32>,
}

/// Where on the wire a reply belongs.
#[derive(Clone, Copy)]
pub(super) enum To {
    /// The oldest command that is not answered.
    Oldest,
    /// Nothing that was asked.
    Nobody,
}

impl Script {
    /// A client that is welcome, without drift.
    pub(super) fn new(resume_window: Duration) -> Self {
        let mut script = Self {
            client: Client::new(
                at(0),
                ClientConfig {
                    resume_window,
                    drift_ppm_max: 0,
                    ..ClientConfig::default()
                },
            ),
            now: at(0),
            asked: Vec::new(),
        };
        script.connect(Resumed::New, resume_window);
        assert_eq!(script.events(), [ClientEvent::Connected]);
        script
    }

    pub(super) fn connect(&mut self, resumed: Resumed, resume_window: Duration) {
        assert!(self.client.wants_connection(self.now));
        self.client.handle_connected(self.now);
        assert_eq!(self.client.output()[..4], MAGIC);
        self.client.consume_output(4);
        assert_eq!(self.sent().len(), 1);
        let welcome = Welcome {
            ticket: Ticket {
                incarnation: if resumed == Resumed::Restarted { 2 } else { 1 },
                session: SessionId::from_u64(1),
                secret: [1; 16],
            },
            resumed,
            resume_window,
            idle_max: ms(60_000),
            frame_bytes_max: 1000,
            grace_until: None,
        };
        self.says(To::Oldest, Answer::Welcome(welcome));
    }

    /// What the client has sent, told by the names of the commands.
    pub(super) fn sent(&mut self) -> Vec<&'static str> {
        let output = self.client.output().to_vec();
        self.client.consume_output(output.len());
        let mut rest = &output[..];
        let mut names = Vec::new();
        while let Some(frame) = frame::split(rest, 1 << 20).expect("frames") {
            let request = Request::decode(frame.body).expect("a request");
            self.asked.push(request.tag);
            names.push(match request.body {
                Command::Hello(_) => "hello",
                Command::Acquire(_) => "acquire",
                Command::Release { .. } => "release",
                Command::Renew { .. } => "renew",
                Command::Cancel { .. } => "cancel",
                Command::Reclaim { .. } => "reclaim",
                Command::Ping => "ping",
                Command::Goodbye => "goodbye",
                _ => "other",
            });
            rest = frame.rest;
        }
        assert!(rest.is_empty(), "a cut frame");
        names
    }

    /// The broker says so, by its own clock, now.
    pub(super) fn says(&mut self, to: To, body: Answer<'_>) {
        self.said_at(self.now, to, body);
    }

    /// The broker said so when this clock showed `then`; it arrives now.
    pub(super) fn said_at(&mut self, then: Instant, to: To, body: Answer<'_>) {
        let tag = match to {
            To::Oldest => self.asked.remove(0),
            To::Nobody => 0,
        };
        let mut bytes = Vec::new();
        let now = then + AHEAD;
        frame::append(&Reply { now, tag, body }, &mut bytes);
        self.client.handle_input(self.now, &bytes);
    }

    pub(super) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.client.handle_timeout(self.now);
    }

    pub(super) fn events(&mut self) -> Vec<ClientEvent> {
        core::iter::from_fn(|| self.client.poll_event()).collect()
    }

    pub(super) fn acquire(&mut self) {
        let request = LockRequest::new(ID, b"key");
        self.client.acquire(self.now, request).expect("a fresh id");
        assert_eq!(self.sent(), ["acquire"]);
    }

    /// A grant by the broker's clock, of a lease that ends when this clock shows `until`.
    pub(super) fn grant(&self, token: u64, until: Option<Instant>) -> Answer<'static> {
        Answer::Granted {
            id: ID,
            grant: Grant {
                token: FencingToken::new(token).expect("not zero"),
                granted_at: self.now + AHEAD,
                deadline: until.map(|until| until + AHEAD),
            },
        }
    }

    pub(super) fn good_until(&self) -> Option<Instant> {
        self.client.held(self.now, ID)?.good_until
    }
}

#[test]
fn a_deadline_is_never_counted_from_when_the_grant_arrived() {
    let mut script = Script::new(ms(600_000));
    script.acquire();
    // Granted at once for 4 s, but the answer takes 3 s.
    let grant = script.grant(1, Some(at(4000)));
    script.now = at(3000);
    script.said_at(at(0), To::Oldest, grant);
    assert_eq!(script.good_until(), Some(at(4000)));
    script.pass(ms(999));
    assert!(script.good_until().is_some());
    script.pass(ms(1));
    assert_eq!(script.good_until(), None);
    assert_eq!(
        script.events()[1..],
        [ClientEvent::Lost {
            id: ID,
            why: Loss::Expired
        }]
    );
    // In case the broker still thinks otherwise.
    assert!(script.sent().contains(&"release"));
}

#[test]
fn the_acknowledgement_that_a_request_waits_is_an_exchange_that_counts() {
    let mut script = Script::new(ms(600_000));
    // The welcome took long: what the client knows of the broker's clock is poor.
    script.client.handle_disconnected(script.now);
    script.now = at(100);
    script.client.handle_connected(script.now);
    script.client.consume_output(4);
    script.asked.clear();
    script.sent();
    script.now = at(1000);
    script.says(
        To::Oldest,
        Answer::Welcome(Welcome {
            ticket: Ticket {
                // Another broker, with another clock.
                incarnation: 2,
                session: SessionId::from_u64(1),
                secret: [1; 16],
            },
            resumed: Resumed::Lost,
            resume_window: ms(600_000),
            idle_max: ms(600_000),
            frame_bytes_max: 1000,
            grace_until: None,
        }),
    );
    script.acquire();
    script.says(To::Oldest, Answer::Queued { id: ID, ahead: 1 });
    // Much later, it is granted, without another exchange.
    script.now = at(50_000);
    let grant = script.grant(1, Some(at(54_000)));
    script.said_at(at(50_000), To::Nobody, grant);
    assert_eq!(script.good_until(), Some(at(54_000)));
}

#[test]
fn a_command_that_waits_to_be_written_counts_from_when_it_was_put_there() {
    let mut script = Script::new(ms(600_000));
    let request = LockRequest::new(ID, b"key");
    script
        .client
        .acquire(script.now, request)
        .expect("a fresh id");
    // The socket takes it 2 s later only; the earlier welcome is the better exchange still.
    script.now = at(2000);
    assert_eq!(script.sent(), ["acquire"]);
    let grant = script.grant(1, Some(at(6000)));
    script.says(To::Oldest, grant);
    assert_eq!(script.good_until(), Some(at(6000)));
}

#[test]
fn what_is_told_of_a_request_that_has_ended_is_ignored() {
    let mut script = Script::new(ms(600_000));
    script.acquire();
    let refused = Answer::AcquireRefused {
        id: ID,
        error: AcquireError::FrontWithManyKeys,
    };
    script.says(To::Oldest, refused);
    assert_eq!(
        script.events(),
        [ClientEvent::Refused {
            id: ID,
            why: Refusal::Refused(AcquireError::FrontWithManyKeys)
        }]
    );
    let token = FencingToken::FIRST;
    for stale in [
        script.grant(1, None),
        Answer::TimedOut { id: ID },
        Answer::Expired { id: ID, token },
        Answer::Revoked {
            id: ID,
            token: None,
        },
        Answer::Contended { id: ID },
    ] {
        script.says(To::Nobody, stale);
    }
    // An answer to what was not asked.
    script.asked.push(77);
    script.says(To::Oldest, Answer::Released { id: ID });
    assert_eq!(script.events(), []);
    assert_eq!(script.client.held(script.now, ID), None);
    assert!(script.client.is_connected());
}

#[test]
fn an_expiry_of_an_earlier_grant_does_not_end_a_later_one() {
    let mut script = Script::new(ms(600_000));
    script.acquire();
    let grant = script.grant(7, None);
    script.says(To::Oldest, grant);
    let token = FencingToken::new(6).expect("not zero");
    script.says(To::Nobody, Answer::Expired { id: ID, token });
    assert!(script.client.held(script.now, ID).is_some());
    let token = FencingToken::new(7).expect("not zero");
    script.says(To::Nobody, Answer::Expired { id: ID, token });
    assert_eq!(script.client.held(script.now, ID), None);
}

#[test]
fn a_grant_that_was_overtaken_by_its_end_is_told_as_lost() {
    let mut script = Script::new(ms(600_000));
    script.acquire();
    script.says(To::Oldest, Answer::Queued { id: ID, ahead: 0 });
    let token = FencingToken::FIRST;
    script.says(To::Nobody, Answer::Expired { id: ID, token });
    let lost = ClientEvent::Lost {
        id: ID,
        why: Loss::Expired,
    };
    assert_eq!(
        script.events(),
        [ClientEvent::Queued { id: ID, ahead: 0 }, lost]
    );
}

#[test]
fn a_renewal_that_is_not_answered_is_tried_once_more_before_the_lease_ends() {
    let mut script = Script::new(ms(600_000));
    let request = LockRequest {
        lease: Some(ms(3000)),
        renew: true,
        ..LockRequest::new(ID, b"key")
    };
    script
        .client
        .acquire(script.now, request)
        .expect("a fresh id");
    script.sent();
    let grant = script.grant(1, Some(at(3000)));
    script.says(To::Oldest, grant);
    script.pass(ms(999));
    assert!(script.sent().is_empty());
    script.pass(ms(1));
    assert_eq!(script.sent(), ["renew"]);
    script.pass(ms(1000));
    assert_eq!(script.sent(), ["renew"]);
    assert!(script.good_until().is_some());
    script.pass(ms(1000));
    assert_eq!(script.good_until(), None);
    let lost = ClientEvent::Lost {
        id: ID,
        why: Loss::Unconfirmed,
    };
    assert_eq!(script.events()[1..], [lost]);
}

#[test]
fn an_answer_at_the_deadline_itself_comes_too_late() {
    let mut script = Script::new(ms(600_000));
    script.acquire();
    let grant = script.grant(1, Some(at(3000)));
    script.says(To::Oldest, grant);
    script.pass(ms(2000));
    script.client.renew(script.now, ID, Some(ms(60_000)));
    script.sent();
    // Nobody has looked at the clock when the answer arrives.
    script.now = at(3000);
    let deadline = Some(at(62_000) + AHEAD);
    script.said_at(at(2000), To::Oldest, Answer::Renewed { id: ID, deadline });
    let lost = ClientEvent::Lost {
        id: ID,
        why: Loss::Expired,
    };
    assert_eq!(script.events()[1..], [lost]);
    assert_eq!(script.good_until(), None);
}

#[test]
fn a_renewal_of_what_is_gone_ends_the_renewing() {
    let mut script = Script::new(ms(600_000));
    let request = LockRequest {
        lease: Some(ms(3000)),
        renew: true,
        ..LockRequest::new(ID, b"key")
    };
    script
        .client
        .acquire(script.now, request)
        .expect("a fresh id");
    script.sent();
    let grant = script.grant(1, Some(at(3000)));
    script.says(To::Oldest, grant);
    script.pass(ms(1000));
    assert_eq!(script.sent(), ["renew"]);
    let error = crate::table::RenewError::NotHeld;
    script.says(To::Oldest, Answer::RenewRefused { id: ID, error });
    script.pass(ms(1000));
    assert!(script.sent().is_empty());
    let lost = ClientEvent::Lost {
        id: ID,
        why: Loss::Expired,
    };
    assert_eq!(script.events()[1..], [lost]);
}

#[test]
fn silence_is_broken_by_pings_and_taken_for_a_loss_if_they_are_not_answered() {
    let mut script = Script::new(ms(3000));
    // A third of the window, which is shorter than what the broker allows.
    script.pass(ms(999));
    assert!(script.sent().is_empty());
    script.pass(ms(1));
    assert_eq!(script.sent(), ["ping"]);
    script.says(To::Oldest, Answer::Pong);
    script.pass(ms(1000));
    assert_eq!(script.sent(), ["ping"]);
    script.pass(ms(1000));
    assert!(script.client.is_closing());
    assert!(script.client.output().is_empty());
    assert_eq!(script.events(), [ClientEvent::Disconnected]);
    script.client.handle_disconnected(script.now);
    assert!(!script.client.wants_connection(script.now));
    script.pass(ms(1000));
    script.asked.clear();
    script.connect(Resumed::Resumed, ms(3000));
    assert_eq!(script.events(), [ClientEvent::Connected]);
}

#[test]
fn whatever_arrives_shows_life() {
    let mut script = Script::new(ms(3000));
    script.pass(ms(1000));
    assert_eq!(script.sent(), ["ping"]);
    for _ in 0..10 {
        script.pass(ms(900));
        script.sent();
        script.says(To::Nobody, Answer::Contended { id: ID });
        assert!(!script.client.is_closing());
    }
}

#[test]
fn events_are_confirmed_with_the_next_command() {
    let mut script = Script::new(ms(600_000));
    for _ in 0..3 {
        script.says(To::Nobody, Answer::Contended { id: ID });
    }
    script.client.query(script.now, Query::Ping);
    let frame = frame::split(script.client.output(), 1000)
        .expect("a frame")
        .expect("all of it");
    assert_eq!(Request::decode(frame.body).expect("a request").seen, 3);
}

#[test]
fn a_welcome_that_does_not_come_is_not_waited_for() {
    let mut client = Client::new(at(0), ClientConfig::default());
    client.handle_connected(at(0));
    client.handle_timeout(at(2999));
    assert!(!client.is_closing());
    client.handle_timeout(at(3000));
    assert!(client.is_closing());
}

#[test]
fn a_broker_that_does_not_keep_to_the_protocol_is_left() {
    let garbage: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff],
        &[1, 0, 0, 0, 0xff],
    ];
    for bytes in garbage {
        let mut script = Script::new(ms(3000));
        script.acquire();
        script.client.handle_input(script.now, bytes);
        assert!(script.client.is_closing(), "{bytes:?}");
        script.client.handle_disconnected(script.now);
        assert!(script.client.is_stopped());
        let events = script.events();
        assert!(
            events.iter().any(|event| matches!(
                event,
                ClientEvent::Failed {
                    kind: FaultKind::Malformed,
                    retries: false,
                    ..
                }
            )),
            "{events:?}"
        );
        assert!(events.contains(&ClientEvent::Refused {
            id: ID,
            why: Refusal::Unreachable
        }));
    }
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_one_frame() {
    let mut script = Script::new(ms(600_000));
    let tag = script.client.query(script.now, Query::Ping);
    script.sent();
    let mut bytes = Vec::new();
    let reply = Reply {
        now: script.now,
        tag: script.asked.remove(0),
        body: Answer::Pong,
    };
    frame::append(&reply, &mut bytes);
    for byte in bytes {
        assert_eq!(script.events(), []);
        script.client.handle_input(script.now, &[byte]);
    }
    let answered = ClientEvent::Answered {
        query: tag,
        answer: QueryAnswer::Pong,
    };
    assert_eq!(script.events(), [answered]);
}

#[test]
fn faults_that_pass_are_waited_out() {
    for kind in [
        FaultKind::Full,
        FaultKind::Idle,
        FaultKind::SlowReader,
        FaultKind::TakenOver,
    ] {
        let mut script = Script::new(ms(3000));
        script.says(
            To::Nobody,
            Answer::Fault {
                kind,
                text: "later",
            },
        );
        assert!(script.client.is_closing());
        script.client.handle_disconnected(script.now);
        assert!(!script.client.is_stopped());
        let failed = ClientEvent::Failed {
            kind,
            text: "later".into(),
            retries: true,
        };
        assert!(script.events().contains(&failed));
        script.pass(ms(1000));
        assert!(script.client.wants_connection(script.now));
    }
}

#[test]
fn a_wait_that_the_broker_forgets_ends_by_itself() {
    let mut script = Script::new(ms(600_000));
    let request = LockRequest {
        wait: Wait::For(ms(500)),
        ..LockRequest::new(ID, b"key")
    };
    script
        .client
        .acquire(script.now, request)
        .expect("a fresh id");
    script.sent();
    script.says(To::Oldest, Answer::Queued { id: ID, ahead: 0 });
    script.events();
    // The broker counts from later; it is given the time of an answer.
    script.pass(ms(500));
    assert_eq!(script.events(), []);
    script.pass(ms(3000));
    let timed_out = ClientEvent::Refused {
        id: ID,
        why: Refusal::TimedOut,
    };
    assert_eq!(script.events(), [timed_out]);
    assert_eq!(script.sent(), ["cancel"]);
    // It was granted at that moment: it is given back, without another word.
    let grant = script.grant(1, None);
    script.says(To::Nobody, grant);
    let error = crate::table::CancelError::Granted;
    script.says(To::Oldest, Answer::CancelRefused { id: ID, error });
    assert_eq!(script.sent(), ["release"]);
    script.says(To::Oldest, Answer::Released { id: ID });
    assert_eq!(script.events(), []);
}

#[test]
fn an_id_is_used_again_only_after_its_end() {
    let mut script = Script::new(ms(600_000));
    script.acquire();
    let again = LockRequest::new(ID, b"key");
    assert!(script.client.acquire(script.now, again.clone()).is_err());
    script.client.cancel(script.now, ID);
    assert!(script.client.acquire(script.now, again.clone()).is_err());
    script.sent();
    script.says(To::Oldest, Answer::Queued { id: ID, ahead: 0 });
    script.says(To::Oldest, Answer::Cancelled { id: ID });
    assert_eq!(script.events(), [ClientEvent::Cancelled { id: ID }]);
    script.acquire();
}

#[test]
fn a_client_that_cannot_say_goodbye_closes_all_the_same() {
    let mut script = Script::new(ms(600_000));
    script.client.close(script.now);
    assert_eq!(script.sent(), ["goodbye"]);
    script.pass(ms(3000));
    assert!(script.client.is_closing());
    script.client.handle_disconnected(script.now);
    assert!(script.client.is_closed());
    assert_eq!(script.client.poll_timeout(), None);
}

//! The rest of a client's methods, against a broker whose every word is written down.
#![expect(
    clippy::large_types_passed_by_value,
    reason = "scripts read better with the answer in its place"
)]

use std::time::Duration;

use lmx_core::client::{
    Client, ClientConfig, ClientEvent, LockRequest, Loss, Query, QueryAnswer, Refusal,
    ReleaseFailure,
};
use lmx_core::table::{ReleaseError, RenewError};
use lmx_core::wire::{
    Answer, Command, FaultKind, QueryError, Reply, Request, Resumed, Ticket, Welcome, frame,
};
use lmx_core::{FencingToken, Grant, Instant, RequestId, SessionId, Wait};

const ID: RequestId = RequestId::from_u128(1);
/// How far the broker's clock is ahead.
const AHEAD: Duration = Duration::from_secs(1000);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// A client, and what is said to it.
pub(crate) struct Script {
    pub(crate) client: Client,
    pub(crate) now: Instant,
    /// Tags of the commands that were sent and are not answered, oldest first.
    asked: Vec<u32>,
    /// Of the broker.
    incarnation: u64,
}

impl Script {
    pub(crate) fn new() -> Self {
        let config = ClientConfig {
            resume_window: ms(600_000),
            drift_ppm_max: 100_000,
            ..ClientConfig::default()
        };
        let mut script = Self {
            client: Client::new(at(0), config),
            now: at(0),
            asked: Vec::new(),
            incarnation: 1,
        };
        script.connect(Resumed::New);
        assert_eq!(script.events(), [ClientEvent::Connected]);
        script
    }

    fn connect(&mut self, resumed: Resumed) {
        assert!(self.client.wants_connection(self.now));
        self.client.handle_connected(self.now);
        self.client.consume_output(4);
        assert_eq!(self.sent(), ["hello"]);
        self.incarnation += u64::from(resumed == Resumed::Restarted);
        self.answers(Answer::Welcome(Welcome {
            ticket: Ticket {
                incarnation: self.incarnation,
                session: SessionId::from_u64(1),
                secret: [1; 16],
            },
            resumed,
            resume_window: ms(600_000),
            idle_max: ms(60_000),
            frame_bytes_max: 1000,
            grace_until: None,
        }));
    }

    pub(crate) fn reconnect(&mut self, resumed: Resumed) {
        self.client.handle_disconnected(self.now);
        self.client.reconnect(self.now);
        self.asked.clear();
        self.connect(resumed);
    }

    /// What it has sent, by the names of the commands.
    pub(crate) fn sent(&mut self) -> Vec<String> {
        let output = self.client.output().to_vec();
        self.client.consume_output(output.len());
        let (mut rest, mut names) = (&output[..], Vec::new());
        while let Some(frame) = frame::split(rest, 1 << 20).expect("frames") {
            let request = Request::decode(frame.body).expect("a request");
            self.asked.push(request.tag);
            names.push(match request.body {
                Command::Hello(_) => "hello".to_owned(),
                Command::Renew { lease, .. } => format!("renew {lease:?}"),
                Command::Reclaim { request, .. } => {
                    let want = request.wants.iter().next().expect("a key").expect("a want");
                    let lease = request.lease.map(|lease| format!(" for {lease:?}"));
                    format!("reclaim {:?}{}", want.mode, lease.unwrap_or_default()).to_lowercase()
                }
                other => {
                    let shown = format!("{other:?}");
                    let name = shown.split([' ', '(']).next();
                    name.unwrap_or_default().to_lowercase()
                }
            });
            rest = frame.rest;
        }
        names
    }

    fn says(&mut self, tag: u32, body: Answer<'_>) {
        let now = self.now + AHEAD;
        let mut bytes = Vec::new();
        frame::append(&Reply { now, tag, body }, &mut bytes);
        self.client.handle_input(self.now, &bytes);
    }

    /// To the oldest command that is not answered.
    pub(crate) fn answers(&mut self, body: Answer<'_>) {
        let tag = self.asked.remove(0);
        self.says(tag, body);
    }

    /// To nothing that was asked.
    pub(crate) fn tells(&mut self, body: Answer<'_>) {
        self.says(0, body);
    }

    pub(crate) fn events(&mut self) -> Vec<ClientEvent> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    pub(crate) fn acquire(&mut self, request: LockRequest) {
        self.client.acquire(self.now, request).expect("a fresh id");
        assert_eq!(self.sent(), ["acquire"]);
    }

    pub(crate) fn hold(&mut self, request: LockRequest, until: Option<Instant>) {
        self.acquire(request);
        let grant = self.grant(until);
        self.answers(grant);
        self.events();
    }

    fn grant(&self, until: Option<Instant>) -> Answer<'static> {
        Answer::Granted {
            id: ID,
            grant: Grant {
                token: token(5),
                granted_at: self.now + AHEAD,
                deadline: until.map(|until| until + AHEAD),
            },
        }
    }

    pub(crate) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.client.handle_timeout(self.now);
    }
}

fn token(number: u64) -> FencingToken {
    FencingToken::new(number).expect("not zero")
}

fn key() -> LockRequest {
    LockRequest::new(ID, b"key")
}

fn kept() -> LockRequest {
    LockRequest {
        keep: true,
        ..key()
    }
}

fn leased() -> LockRequest {
    LockRequest {
        lease: Some(ms(3000)),
        renew: true,
        ..key()
    }
}

const fn released(result: Result<(), ReleaseFailure>) -> ClientEvent {
    ClientEvent::Released { id: ID, result }
}

const fn lost(why: Loss) -> ClientEvent {
    ClientEvent::Lost { id: ID, why }
}

#[test]
fn a_client_says_how_much_is_under_way() {
    let mut script = Script::new();
    assert_eq!(script.client.unanswered(), 0);
    script.acquire(key());
    script.client.query(script.now, Query::Ping);
    assert_eq!(script.client.unanswered(), 2);
    assert_eq!(script.sent(), ["ping"]);
    script.answers(Answer::Queued { id: ID, ahead: 0 });
    script.answers(Answer::Pong);
    assert_eq!(script.client.unanswered(), 0);
    let shown = format!("{:?}", script.client);
    assert!(shown.starts_with("Client { link: Up"), "{shown}");
    assert!(shown.contains("requests: 1"), "{shown}");
    // What does not fit is not under way either.
    script.client.query(
        script.now,
        Query::Inspect {
            key: vec![b'x'; 2000].into(),
            skip: 0,
        },
    );
    assert_eq!(script.client.unanswered(), 0);
}

#[test]
fn questions_are_answered_or_refused() {
    let mut script = Script::new();
    let ping = script.client.query(script.now, Query::Ping);
    let key = b"k"[..].into();
    let force = script
        .client
        .query(script.now, Query::ForceReleaseKey { key });
    assert_eq!(script.sent(), ["ping", "forcereleasekey"]);
    script.answers(Answer::Pong);
    let error = QueryError::KeyTooLong { max: 0 };
    script.answers(Answer::QueryRefused { error });
    let answered = |query, answer| ClientEvent::Answered { query, answer };
    assert_eq!(
        script.events(),
        [
            answered(ping, QueryAnswer::Pong),
            answered(force, QueryAnswer::Refused(error)),
        ]
    );
}

#[test]
fn a_request_is_known_until_its_end_was_told() {
    let mut script = Script::new();
    assert!(!script.client.is_known(ID));
    script.hold(key(), Some(at(1000)));
    assert!(script.client.is_known(ID));
    let before = Instant::from_nanos(899_999_999);
    assert!(script.client.held(before, ID).is_some());
    // The clocks may differ by a tenth.
    assert_eq!(script.client.held(at(900), ID), None);
    assert_eq!(script.client.held(at(901), ID), None);
    script.pass(ms(900));
    assert_eq!(script.events(), [lost(Loss::Expired)]);
    assert_eq!(script.sent(), ["release"]);
    assert!(!script.client.is_known(ID));
}

#[test]
fn a_deadline_before_the_last_answer_is_counted_back_with_the_drift() {
    let mut script = Script::new();
    script.pass(ms(10_000));
    script.acquire(key());
    let until = Some(at(9_000));
    let grant = script.grant(until);
    script.answers(grant);
    let held = script.events().into_iter().find_map(|event| match event {
        ClientEvent::Granted { held, .. } => Some(held),
        _ => None,
    });
    // A second before, and a tenth of that.
    let good_until = held.expect("it was granted").good_until;
    assert_eq!(good_until, Some(at(8_900)));
}

#[test]
fn a_release_of_what_still_waits_becomes_a_cancel_once() {
    let mut script = Script::new();
    script.client.release(script.now, ID);
    assert_eq!(script.sent(), ["release"]);
    let error = ReleaseError::StillWaiting;
    let refused = Answer::ReleaseRefused { id: ID, error };
    script.answers(refused);
    assert_eq!(script.sent(), ["cancel"]);
    assert_eq!(script.events(), []);
    script.answers(refused);
    assert!(script.sent().is_empty());
    assert_eq!(script.events(), [released(Err(error.into()))]);
    script.client.release(script.now, ID);
    assert_eq!(script.sent(), ["release"]);
    let error = ReleaseError::NotHeld;
    script.answers(Answer::ReleaseRefused { id: ID, error });
    assert!(script.sent().is_empty());
    assert_eq!(script.events(), [released(Err(error.into()))]);
}

#[test]
fn without_a_connection_a_release_is_tried_for_as_long_as_connecting_may_take() {
    let mut client = Client::new(at(10_000), ClientConfig::default());
    client.release(at(10_000), ID);
    client.handle_timeout(at(12_999));
    assert_eq!(client.poll_event(), None);
    client.handle_timeout(at(13_000));
    let unconfirmed = released(Err(ReleaseFailure::Unconfirmed));
    assert_eq!(client.poll_event(), Some(unconfirmed.clone()));
    client.close(at(13_000));
    client.release(at(13_000), ID);
    assert_eq!(client.poll_event(), Some(unconfirmed));
}

#[test]
fn a_renewal_by_hand_is_answered_and_sets_the_pace() {
    let mut script = Script::new();
    script.client.renew(script.now, ID, None);
    assert!(script.sent().is_empty(), "nothing is held");
    script.hold(leased(), Some(at(3000)));
    script.client.renew(script.now, ID, Some(ms(9000)));
    assert_eq!(script.sent(), ["renew Some(9s)"]);
    let deadline = Some(at(9000) + AHEAD);
    script.answers(Answer::Renewed { id: ID, deadline });
    assert!(matches!(
        script.events()[..],
        [ClientEvent::Renewed { result: Ok(_), .. }]
    ));
    script.pass(ms(2999));
    assert!(script.sent().is_empty());
    script.pass(ms(1));
    assert_eq!(script.sent(), ["renew Some(9s)"]);
    let error = RenewError::NotOwner;
    script.answers(Answer::RenewRefused { id: ID, error });
    assert_eq!(script.events(), []);
    script.pass(ms(4000));
    assert!(script.sent().is_empty(), "it is another session's by now");
    script.client.renew(script.now, ID, None);
    assert_eq!(script.sent(), ["renew None"]);
    let error = RenewError::NotHeld;
    script.answers(Answer::RenewRefused { id: ID, error });
    assert_eq!(script.events(), [lost(Loss::Expired)]);
}

#[test]
fn the_answer_to_an_earlier_renewal_by_hand_is_not_taken_for_the_last_ones() {
    let mut script = Script::new();
    script.hold(leased(), Some(at(3000)));
    for lease in [9000, 6000] {
        script.client.renew(script.now, ID, Some(ms(lease)));
    }
    assert_eq!(script.sent(), ["renew Some(9s)", "renew Some(6s)"]);
    let deadline = Some(at(9000) + AHEAD);
    script.answers(Answer::Renewed { id: ID, deadline });
    assert_eq!(script.events(), []);
    // Nor is the last one forgotten.
    script.reconnect(Resumed::Resumed);
    assert_eq!(script.sent(), ["renew Some(6s)"]);
    let deadline = Some(at(6000) + AHEAD);
    script.answers(Answer::Renewed { id: ID, deadline });
    let held = script.client.held(script.now, ID);
    assert_eq!(held.and_then(|held| held.deadline), deadline);
    let result = Ok(held.expect("it is held"));
    assert_eq!(script.events(), [ClientEvent::Renewed { id: ID, result }]);
}

#[test]
fn what_is_left_of_a_limited_lease_is_believed_in_from_when_it_is_reclaimed() {
    let mut script = Script::new();
    let lease = Some(ms(10_000));
    script.hold(LockRequest { lease, ..key() }, Some(at(10_000)));
    let believed = |script: &Script| script.client.held(script.now, ID)?.good_until;
    assert_eq!(
        believed(&script),
        Some(at(9000)),
        "one clock may be a tenth too fast"
    );
    script.pass(ms(1000));
    script.reconnect(Resumed::Restarted);
    assert_eq!(script.sent(), ["reclaim exclusive for 8s"]);
    // The next broker's may be, too, and it begins to count only now.
    assert_eq!(believed(&script), Some(at(8200)));
    script.pass(ms(1000));
    script.reconnect(Resumed::Resumed);
    assert_eq!(script.sent(), ["reclaim exclusive for 7s"]);
    assert_eq!(
        believed(&script),
        Some(at(8200)),
        "it may have heard the first time"
    );
    script.pass(ms(6199));
    assert_eq!(script.events(), []);
    script.pass(ms(1));
    assert_eq!(script.events(), [lost(Loss::Unconfirmed)]);
}

#[test]
fn a_lease_is_reclaimed_as_it_was_last_agreed() {
    let limited = || LockRequest {
        lease: Some(ms(3000)),
        ..key()
    };
    for (request, renewed, reclaims) in [
        (leased(), Some(ms(9000)), "reclaim exclusive for 9s"),
        (leased(), None, "reclaim exclusive"),
        // A tenth less is left of what was not over, as far as this clock shows.
        (limited(), Some(ms(10_000)), "reclaim exclusive for 9s"),
        (limited(), None, "reclaim exclusive"),
    ] {
        let mut script = Script::new();
        script.hold(request, Some(at(3000)));
        script.client.renew(script.now, ID, renewed);
        assert_eq!(script.sent(), [format!("renew {renewed:?}")]);
        let deadline = renewed.map(|lease| at(0) + lease + AHEAD);
        script.answers(Answer::Renewed { id: ID, deadline });
        script.reconnect(Resumed::Restarted);
        assert_eq!(script.sent(), [reclaims]);
    }
}

#[test]
fn no_more_is_left_of_a_limited_lease_than_there_was() {
    let mut script = Script::new();
    let lease = Some(ms(10_000));
    // The broker's clock has gone forward by ten seconds since the welcome.
    script.hold(LockRequest { lease, ..key() }, Some(at(20_000)));
    script.reconnect(Resumed::Restarted);
    assert_eq!(script.sent(), ["reclaim exclusive for 10s"]);
}

#[test]
fn a_renewal_under_way_may_shorten_what_is_reclaimed() {
    let mut script = Script::new();
    script.hold(leased(), Some(at(3000)));
    script.reconnect(Resumed::Restarted);
    let believed = |script: &Script| script.client.held(script.now, ID)?.good_until;
    assert_eq!(believed(&script), Some(at(2700)));
    script.client.renew(script.now, ID, Some(ms(1000)));
    assert_eq!(
        script.sent(),
        ["reclaim exclusive for 3s", "renew Some(1s)"]
    );
    assert_eq!(believed(&script), Some(at(900)));
}

#[test]
fn an_end_that_is_told_is_of_the_hold_that_it_names() {
    let mut script = Script::new();
    script.acquire(key());
    script.answers(Answer::Queued { id: ID, ahead: 0 });
    script.events();
    script.tells(Answer::Revoked {
        id: ID,
        token: None,
    });
    let why = Refusal::Revoked;
    assert_eq!(script.events(), [ClientEvent::Refused { id: ID, why }]);

    // Its grant was overtaken.
    script.acquire(key());
    let token_told = token(4);
    script.tells(Answer::Expired {
        id: ID,
        token: token_told,
    });
    assert_eq!(script.events(), [lost(Loss::Expired)]);
    script.asked.clear();

    script.hold(key(), None);
    let told = Some(token(4));
    script.tells(Answer::Revoked {
        id: ID,
        token: told,
    });
    assert_eq!(script.events(), [], "an earlier hold's");
    let told = Some(token(5));
    script.tells(Answer::Revoked {
        id: ID,
        token: told,
    });
    assert_eq!(script.events(), [lost(Loss::Revoked)]);
}

#[test]
fn when_its_session_is_lost_only_what_is_kept_goes_on() {
    let mut script = Script::new();
    script.hold(key(), None);
    script.reconnect(Resumed::Lost);
    assert!(script.events().contains(&lost(Loss::SessionLost)));
    script.hold(kept(), None);
    script.reconnect(Resumed::Lost);
    let events = script.events();
    assert!(!events.contains(&lost(Loss::SessionLost)), "{events:?}");
    assert!(script.client.held(script.now, ID).is_some());

    // What only waits is asked again, and withdrawn only if it may be known.
    for (request, sent) in [(key(), &["acquire"][..]), (kept(), &["acquire"])] {
        let mut script = Script::new();
        script.acquire(request);
        script.reconnect(Resumed::Lost);
        assert_eq!(script.sent(), sent);
    }
    for (request, cancels) in [(key(), false), (kept(), true)] {
        let mut script = Script::new();
        script.acquire(request);
        script.client.handle_disconnected(script.now);
        script.client.reconnect(script.now);
        script.asked.clear();
        script.client.handle_connected(script.now);
        script.client.consume_output(4);
        script.sent();
        let text = "";
        script.tells(Answer::Fault {
            kind: FaultKind::Unauthorized,
            text,
        });
        script.events();
        // The ticket was refused: the session is lost, and there is no connection.
        script.client.cancel(script.now, ID);
        let told = script.events() == [ClientEvent::Cancelled { id: ID }];
        assert_eq!(told, !cancels);
    }
}

#[test]
fn a_fault_stops_a_client_until_it_is_to_try_again() {
    let mut script = Script::new();
    script.tells(Answer::Fault {
        kind: FaultKind::Magic,
        text: "",
    });
    script.client.handle_disconnected(script.now);
    script.events();
    assert!(script.client.is_stopped() && !script.client.is_closed());
    script.client.release(script.now, ID);
    let unconfirmed = released(Err(ReleaseFailure::Unconfirmed));
    assert_eq!(script.events(), [unconfirmed]);
    assert!(!script.client.wants_connection(script.now));
    script.client.reconnect(script.now);
    assert!(script.client.wants_connection(script.now));
    // A broker that is about to stop may say so before anything else.
    script.client.handle_connected(script.now);
    script.tells(Answer::Stopping);
    assert!(!script.client.is_closing());
    assert_eq!(script.events(), []);
}

#[test]
fn only_a_refused_ticket_makes_a_fault_one_that_a_new_session_mends() {
    for (is_welcome, kind, mends) in [
        (false, FaultKind::Unauthorized, true),
        (true, FaultKind::Unauthorized, false),
        (false, FaultKind::Malformed, false),
        (true, FaultKind::Malformed, false),
    ] {
        let mut script = Script::new();
        if !is_welcome {
            script.client.handle_disconnected(script.now);
            script.client.reconnect(script.now);
            script.client.handle_connected(script.now);
        }
        script.events();
        script.tells(Answer::Fault { kind, text: "no" });
        let text = "no".into();
        let failed = ClientEvent::Failed {
            kind,
            text,
            retries: mends,
        };
        assert!(script.events().contains(&failed), "{is_welcome} {kind:?}");
        script.client.handle_disconnected(script.now);
        assert_eq!(script.client.is_stopped(), !mends, "{is_welcome} {kind:?}");
    }
}

#[test]
fn what_is_no_reply_ends_the_connection_with_the_reason() {
    let mut script = Script::new();
    script.client.handle_input(script.now, &[1, 0, 0, 0, 0xff]);
    assert!(script.client.is_closing());
    let events = script.events();
    let is_so = events.iter().any(|event| {
        matches!(event, ClientEvent::Failed { kind: FaultKind::Malformed, text, retries: false } if !text.is_empty())
    });
    assert!(is_so, "{events:?}");
    script.client.handle_disconnected(script.now);
    assert!(script.client.is_stopped());
    // A client that is closing does not come to be one that a fault has stopped.
    let mut script = Script::new();
    script.client.close(script.now);
    script.sent();
    script.client.handle_input(script.now, &[1, 0, 0, 0, 0xff]);
    script.client.handle_disconnected(script.now);
    assert!(script.client.is_closed());
}

#[test]
fn a_pause_before_connecting_is_neither_cut_short_nor_begun_anew() {
    let mut script = Script::new();
    script.client.handle_disconnected(script.now);
    let retry_at = script.client.poll_timeout().expect("a pause");
    assert!(!script.client.wants_connection(script.now));
    script.client.handle_disconnected(script.now);
    assert_eq!(script.client.poll_timeout(), Some(retry_at));
    assert!(script.client.wants_connection(retry_at));
    script.client.handle_disconnected(retry_at);
    assert!(!script.client.wants_connection(retry_at));
    assert!(script.client.poll_timeout() > Some(retry_at));
}

#[test]
fn what_is_waited_for_until_the_end_of_time_has_no_end_there() {
    let mut script = Script::new();
    let wait = Wait::For(Duration::MAX);
    script.acquire(LockRequest { wait, ..key() });
    script.pass(Duration::MAX);
    assert!(script.client.is_known(ID));
}

#[test]
fn what_was_written_to_a_connection_that_is_gone_counts_for_nothing() {
    let mut client = Client::new(at(0), ClientConfig::default());
    client.handle_connected(at(0));
    let bytes = client.output().len();
    assert_ne!(bytes, 0);
    client.handle_disconnected(at(0));
    client.consume_output(bytes);
    client.consume_output(usize::MAX);
    assert_eq!(client.output(), [0; 0]);
}

//! The very instant, the very byte, and what comes when nobody expects it.

use alloc::{boxed::Box, format, vec};

use super::scripted::{AHEAD, ID, Script, To};
use super::{at, ms};
use crate::client::{
    Client, ClientConfig, ClientEvent, LockRequest, Loss, Query, QueryAnswer, Refusal,
    ReleaseFailure,
};
use crate::table::{ReleaseError, RenewError, Wait};
use crate::wire::{Answer, FaultKind, QueryError, Resumed, Ticket, Welcome};
use crate::{FencingToken, Mode, RequestId, SessionId};

const WINDOW: core::time::Duration = ms(600_000);

const LOST: ClientEvent = ClientEvent::Lost {
    id: ID,
    why: Loss::SessionLost,
};

impl Script {
    /// Asks, and is granted at once.
    fn hold(&mut self, request: LockRequest, until: Option<crate::Instant>) {
        self.client.acquire(self.now, request).expect("a fresh id");
        assert_eq!(self.sent(), ["acquire"]);
        let grant = self.grant(1, until);
        self.says(To::Oldest, grant);
        assert!(self.client.held(self.now, ID).is_some());
        self.events();
    }

    /// The connection breaks, and another is made and greeted.
    fn greet_again(&mut self) {
        self.client.handle_disconnected(self.now);
        self.client.reconnect(self.now);
        self.asked.clear();
    }

    /// As above, and welcomed.
    fn come_back(&mut self, resumed: Resumed) {
        self.greet_again();
        self.connect(resumed, WINDOW);
    }
}

fn leased() -> LockRequest {
    LockRequest {
        lease: Some(ms(3000)),
        renew: true,
        ..LockRequest::new(ID, b"key")
    }
}

fn kept() -> LockRequest {
    LockRequest {
        keep: true,
        ..LockRequest::new(ID, b"key")
    }
}

const fn released(result: Result<(), ReleaseFailure>) -> ClientEvent {
    ClientEvent::Released { id: ID, result }
}

#[test]
fn without_a_connection_an_answer_is_waited_for_as_long_as_one_may_take() {
    let mut client = Client::new(at(10_000), ClientConfig::default());
    client.release(at(10_000), ID);
    let query = client.query(at(10_000), Query::Ping);
    assert_eq!(client.poll_timeout(), Some(at(13_000)));
    client.handle_timeout(at(12_999));
    assert_eq!(client.poll_event(), None);
    client.handle_timeout(at(13_000));
    assert_eq!(
        client.poll_event(),
        Some(released(Err(ReleaseFailure::Unconfirmed)))
    );
    let answer = QueryAnswer::Lost;
    assert_eq!(
        client.poll_event(),
        Some(ClientEvent::Answered { query, answer })
    );
    assert_eq!(client.poll_event(), None);
}

#[test]
fn what_was_asked_without_a_connection_is_asked_once_there_is_one() {
    let mut script = Script::new(WINDOW);
    script.greet_again();
    script.client.query(script.now, Query::Ping);
    script.connect(Resumed::Resumed, WINDOW);
    assert_eq!(script.sent(), ["ping"]);
}

#[test]
fn a_release_is_waited_for_longer_than_the_lease_it_ends() {
    let mut script = Script::new(WINDOW);
    script.hold(LockRequest::new(ID, b"key"), Some(at(4000)));
    script.client.handle_disconnected(script.now);
    script.pass(ms(3500));
    script.client.release(script.now, ID);
    script.events();
    script.pass(ms(2999));
    assert_eq!(script.events(), []);
    script.pass(ms(1));
    assert_eq!(
        script.events(),
        [released(Err(ReleaseFailure::Unconfirmed))]
    );
}

#[test]
fn a_hold_ends_at_its_deadline_whether_or_not_anybody_has_looked_at_the_clock() {
    let mut script = Script::new(WINDOW);
    script.hold(LockRequest::new(ID, b"key"), Some(at(4000)));
    let before = crate::Instant::from_nanos(4_000_000_000 - 1);
    assert!(script.client.held(before, ID).is_some());
    assert_eq!(script.client.held(at(4000), ID), None);
}

#[test]
fn a_request_is_known_until_its_user_has_been_told_its_end() {
    let mut script = Script::new(WINDOW);
    assert!(!script.client.is_known(ID));
    script.acquire();
    assert!(script.client.is_known(ID));
    script.client.cancel(script.now, ID);
    assert!(script.client.is_known(ID));
    script.sent();
    script.says(To::Oldest, Answer::Queued { id: ID, ahead: 0 });
    script.says(To::Oldest, Answer::Cancelled { id: ID });
    assert!(!script.client.is_known(ID));
    // Lost, and given back behind the user's back.
    script.hold(LockRequest::new(ID, b"key"), Some(at(10)));
    assert!(script.client.is_known(ID));
    script.pass(ms(10));
    assert_eq!(script.sent(), ["release"]);
    assert!(!script.client.is_known(ID));
}

#[test]
fn a_client_has_closed_once_its_connection_has() {
    let mut script = Script::new(WINDOW);
    assert!(!script.client.is_closed());
    script.client.close(script.now);
    assert!(!script.client.is_closed());
    assert_eq!(script.sent(), ["goodbye"]);
    script.says(To::Oldest, Answer::Bye);
    assert!(script.client.is_closing());
    script.client.handle_disconnected(script.now);
    assert!(script.client.is_closed());
    // For good.
    script.client.reconnect(script.now);
    assert!(script.client.is_closed());
    assert!(!script.client.wants_connection(script.now));
}

#[test]
fn a_client_that_a_fault_has_stopped_is_not_closed_and_can_try_again() {
    for (kind, greets) in [
        (FaultKind::Unauthorized, false),
        (FaultKind::Magic, false),
        (FaultKind::Magic, true),
    ] {
        let mut script = Script::new(WINDOW);
        if greets {
            script.greet_again();
            script.client.handle_connected(script.now);
        }
        script.says(To::Nobody, Answer::Fault { kind, text: "" });
        script.client.handle_disconnected(script.now);
        assert!(script.client.is_stopped(), "{kind:?}");
        assert!(!script.client.is_closed());
        assert!(!script.client.wants_connection(script.now));
        script.client.reconnect(script.now);
        assert!(!script.client.is_stopped());
        assert!(script.client.wants_connection(script.now));
    }
}

#[test]
fn a_pause_before_connecting_again_is_neither_cut_short_nor_begun_anew() {
    let mut script = Script::new(WINDOW);
    script.client.handle_disconnected(script.now);
    let retry_at = script.client.poll_timeout().expect("a pause");
    assert!(retry_at > script.now);
    script.client.handle_timeout(script.now);
    assert!(!script.client.wants_connection(script.now));
    // Nobody had asked for that one.
    script.client.handle_disconnected(script.now);
    assert_eq!(script.client.poll_timeout(), Some(retry_at));
    // The attempt fails at once: the next one has a pause of its own.
    assert!(script.client.wants_connection(retry_at));
    script.client.handle_disconnected(retry_at);
    assert!(!script.client.wants_connection(retry_at));
    // Unless the user will not wait for it.
    script.client.reconnect(retry_at);
    assert!(script.client.wants_connection(retry_at));
}

#[test]
fn commands_count_as_unanswered_until_they_are() {
    let mut script = Script::new(WINDOW);
    assert_eq!(script.client.unanswered(), 0);
    script.acquire();
    script.client.query(script.now, Query::Ping);
    assert_eq!(script.client.unanswered(), 2);
    script.sent();
    script.says(To::Oldest, Answer::Queued { id: ID, ahead: 0 });
    assert_eq!(script.client.unanswered(), 1);
    script.says(To::Oldest, Answer::Pong);
    assert_eq!(script.client.unanswered(), 0);
    let text = format!("{:?}", script.client);
    assert!(text.starts_with("Client { link: Up"), "{text}");
    assert!(text.contains("requests: 1"), "{text}");
}

#[test]
fn only_what_a_lock_delay_follows_is_not_given_back_after_its_expiry() {
    for (lock_delay, sent) in [(ms(0), &["release"][..]), (ms(500), &[])] {
        let mut script = Script::new(WINDOW);
        let request = LockRequest {
            lock_delay,
            ..LockRequest::new(ID, b"key")
        };
        script.hold(request, Some(at(10)));
        script.pass(ms(10));
        let why = Loss::Expired;
        assert_eq!(script.events(), [ClientEvent::Lost { id: ID, why }]);
        assert_eq!(script.sent(), sent);
    }
}

#[test]
fn a_kept_hold_is_believed_in_however_long_the_broker_is_silent() {
    let mut script = Script::new(ms(1000));
    script.hold(kept(), None);
    script.client.handle_disconnected(script.now);
    script.pass(ms(3_600_000));
    let held = script.client.held(script.now, ID);
    assert_eq!(held.map(|held| held.good_until), Some(None));
}

#[test]
fn a_broker_that_stops_may_say_so_instead_of_a_welcome() {
    let mut script = Script::new(WINDOW);
    script.greet_again();
    script.client.handle_connected(script.now);
    script.events();
    script.says(To::Nobody, Answer::Stopping);
    assert!(!script.client.is_closing());
    script.client.handle_disconnected(script.now);
    assert!(!script.client.is_stopped());
    assert_eq!(script.events(), []);
}

#[test]
fn a_release_of_what_still_waits_is_made_a_cancel_once() {
    let mut script = Script::new(WINDOW);
    script.client.release(script.now, ID);
    assert_eq!(script.sent(), ["release"]);
    let error = ReleaseError::StillWaiting;
    script.says(To::Oldest, Answer::ReleaseRefused { id: ID, error });
    assert_eq!(script.sent(), ["cancel"]);
    assert_eq!(script.events(), []);
    // No broker answers so; one that does is not asked for ever.
    script.says(To::Oldest, Answer::ReleaseRefused { id: ID, error });
    assert!(script.sent().is_empty());
    assert_eq!(script.events(), [released(Err(error.into()))]);
}

#[test]
fn a_renewal_by_hand_sets_the_pace_of_those_that_follow() {
    let mut script = Script::new(WINDOW);
    script.hold(leased(), Some(at(3000)));
    script.client.renew(script.now, ID, Some(ms(9000)));
    assert_eq!(script.sent(), ["renew"]);
    let deadline = Some(at(9000) + AHEAD);
    script.says(To::Oldest, Answer::Renewed { id: ID, deadline });
    script.pass(ms(2999));
    assert!(script.sent().is_empty());
    script.pass(ms(1));
    assert_eq!(script.sent(), ["renew"]);
}

#[test]
fn what_is_another_sessions_by_now_is_not_renewed_any_more() {
    let mut script = Script::new(WINDOW);
    script.hold(leased(), Some(at(3000)));
    script.pass(ms(1000));
    assert_eq!(script.sent(), ["renew"]);
    let error = RenewError::NotOwner;
    script.says(To::Oldest, Answer::RenewRefused { id: ID, error });
    script.pass(ms(1999));
    assert!(script.sent().is_empty());
    assert!(script.client.held(script.now, ID).is_some());
}

#[test]
fn a_renewal_under_way_may_shorten_a_lease_whatever_an_earlier_one_has_made_of_it() {
    let mut script = Script::new(WINDOW);
    script.hold(leased(), Some(at(3000)));
    script.pass(ms(1000));
    script.client.renew(script.now, ID, Some(ms(500)));
    assert_eq!(script.sent(), ["renew", "renew"]);
    let deadline = Some(at(4000) + AHEAD);
    script.says(To::Oldest, Answer::Renewed { id: ID, deadline });
    assert_eq!(script.good_until(), Some(at(1500)));
    let deadline = Some(at(1500) + AHEAD);
    script.says(To::Oldest, Answer::Renewed { id: ID, deadline });
    assert_eq!(script.good_until(), Some(at(1500)));
}

#[test]
fn after_a_broken_connection_only_what_is_open_is_asked_again() {
    // A place in the queue, and a hold, are still there.
    let mut script = Script::new(WINDOW);
    script.acquire();
    script.says(To::Oldest, Answer::Queued { id: ID, ahead: 0 });
    script.come_back(Resumed::Resumed);
    assert!(script.sent().is_empty());
    let grant = script.grant(1, None);
    script.says(To::Nobody, grant);
    script.come_back(Resumed::Resumed);
    assert!(script.sent().is_empty());

    // A renewal that was due meanwhile is made up for.
    let mut script = Script::new(WINDOW);
    script.hold(leased(), Some(at(3000)));
    script.client.handle_disconnected(script.now);
    script.pass(ms(1500));
    script.asked.clear();
    script.connect(Resumed::Resumed, WINDOW);
    assert_eq!(script.sent(), ["renew"]);
}

#[test]
fn a_lost_session_takes_with_it_what_is_not_kept() {
    let mut script = Script::new(WINDOW);
    script.hold(LockRequest::new(ID, b"key"), None);
    script.come_back(Resumed::Lost);
    assert!(script.events().contains(&LOST));
    assert_eq!(script.client.held(script.now, ID), None);

    let mut script = Script::new(WINDOW);
    script.hold(kept(), None);
    script.come_back(Resumed::Lost);
    assert!(!script.events().contains(&LOST));
    assert!(script.client.held(script.now, ID).is_some());
}

#[test]
fn a_release_outlives_the_session_if_the_hold_does() {
    let mut script = Script::new(WINDOW);
    script.hold(LockRequest::new(ID, b"key"), None);
    script.client.release(script.now, ID);
    assert_eq!(script.sent(), ["release"]);
    script.come_back(Resumed::Lost);
    assert!(script.sent().is_empty());
    let unconfirmed = released(Err(ReleaseFailure::Unconfirmed));
    assert!(script.events().contains(&unconfirmed));

    let mut script = Script::new(WINDOW);
    script.hold(kept(), None);
    script.client.release(script.now, ID);
    assert_eq!(script.sent(), ["release"]);
    script.come_back(Resumed::Lost);
    assert_eq!(script.sent(), ["release"]);
    assert!(!script.events().contains(&unconfirmed));
}

#[test]
fn what_waited_in_a_session_that_another_broker_does_not_know_is_withdrawn_at_once() {
    let mut script = Script::new(WINDOW);
    script.acquire();
    script.says(To::Oldest, Answer::Queued { id: ID, ahead: 0 });
    script.greet_again();
    script.client.handle_connected(script.now);
    let kind = FaultKind::Unauthorized;
    script.says(To::Nobody, Answer::Fault { kind, text: "" });
    script.client.handle_disconnected(script.now);
    assert!(!script.client.is_stopped());
    script.events();
    script.client.cancel(script.now, ID);
    assert_eq!(script.events(), [ClientEvent::Cancelled { id: ID }]);
}

#[test]
fn a_command_may_be_as_long_as_the_broker_allows_and_no_longer() {
    let mut script = Script::new(WINDOW);
    // Not the first in the buffer.
    script.client.query(script.now, Query::Ping);
    let mut longest = 0;
    for bytes in 980..=1000 {
        let unanswered = script.client.unanswered();
        let from = script.client.output().len();
        let key = vec![b'k'; bytes].into();
        let query = script
            .client
            .query(script.now, Query::Inspect { key, skip: 0 });
        let body = (script.client.output().len() - from).saturating_sub(4);
        if body > 0 {
            longest = longest.max(body);
            assert_eq!(script.events(), []);
            assert_eq!(script.client.unanswered(), unanswered + 1);
        } else {
            let answer = QueryAnswer::Refused(QueryError::KeyTooLong { max: 1000 });
            assert_eq!(script.events(), [ClientEvent::Answered { query, answer }]);
            assert_eq!(script.client.unanswered(), unanswered);
        }
    }
    assert_eq!(longest, 1000);

    let request = LockRequest {
        label: vec![0; 1000].into(),
        ..LockRequest::new(ID, b"")
    };
    script.sent();
    script
        .client
        .acquire(script.now, request.clone())
        .expect("a fresh id");
    let events = script.events();
    let [ClientEvent::Refused { why, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    let Refusal::TooLarge { bytes, bytes_max } = *why else {
        panic!("{why:?}");
    };
    assert_eq!(bytes_max, 1000);
    // Shortened by as much as that, it goes.
    let request = LockRequest {
        label: vec![0; 1000 - (bytes - 1000)].into(),
        ..request
    };
    script
        .client
        .acquire(script.now, request)
        .expect("a fresh id");
    assert_eq!(script.client.output().len(), 1004);
    assert_eq!(script.sent(), ["acquire"]);
}

#[test]
fn a_request_for_many_keys_or_an_empty_one_is_asked_like_any_other() {
    let mut script = Script::new(WINDOW);
    let want = |key: &[u8]| -> (Box<[u8]>, Mode) { (key.into(), Mode::Exclusive) };
    for wants in [
        (0..100).map(|key| want(&[key])).collect(),
        vec![want(b"")],
        vec![],
    ] {
        let request = LockRequest {
            wants,
            wait: Wait::No,
            ..LockRequest::new(ID, b"")
        };
        script
            .client
            .acquire(script.now, request)
            .expect("a fresh id");
        assert_eq!(script.sent(), ["acquire"]);
        let token = FencingToken::FIRST;
        script.says(To::Nobody, Answer::Expired { id: ID, token });
        script.asked.clear();
    }
}

#[test]
fn what_still_waits_and_is_ended_by_force_is_refused() {
    let mut script = Script::new(WINDOW);
    script.acquire();
    script.says(To::Oldest, Answer::Queued { id: ID, ahead: 0 });
    script.events();
    let token = None;
    script.says(To::Nobody, Answer::Revoked { id: ID, token });
    let why = Refusal::Revoked;
    assert_eq!(script.events(), [ClientEvent::Refused { id: ID, why }]);
}

#[test]
fn after_a_restart_nothing_is_counted_by_the_old_brokers_clock() {
    let mut script = Script::new(WINDOW);
    script.greet_again();
    script.client.handle_connected(script.now);
    script.client.consume_output(4);
    script.sent();
    let hour = ms(3_600_000);
    let welcome = Welcome {
        ticket: Ticket {
            incarnation: 2,
            session: SessionId::from_u64(1),
            secret: [1; 16],
        },
        resumed: Resumed::Restarted,
        resume_window: WINDOW,
        idle_max: WINDOW,
        frame_bytes_max: 1000,
        grace_until: None,
    };
    // Its clock is far ahead of the old one's.
    let there = script.now + hour;
    script.said_at(there, To::Oldest, Answer::Welcome(welcome));
    script.acquire();
    let until = Some(at(4000) + hour);
    let grant = script.grant(1, until);
    script.said_at(there, To::Oldest, grant);
    assert_eq!(script.good_until(), Some(at(4000)));
}

/// By the first command that is no reclaim the broker knows that there are no more.
#[test]
fn all_reclaims_come_before_a_renewal_that_is_due() {
    let mut script = Script::new(WINDOW);
    script.hold(leased(), Some(at(3000)));
    let second = RequestId::from_u128(2);
    let request = LockRequest::new(second, b"another key");
    script
        .client
        .acquire(script.now, request)
        .expect("a fresh id");
    assert_eq!(script.sent(), ["acquire"]);
    let Answer::Granted { grant, .. } = script.grant(2, None) else {
        unreachable!("it is a grant");
    };
    script.says(To::Oldest, Answer::Granted { id: second, grant });
    script.greet_again();
    script.pass(ms(1500));
    script.connect(Resumed::Restarted, WINDOW);
    assert_eq!(script.sent(), ["reclaim", "reclaim", "renew"]);
}

#[test]
fn a_connection_begins_with_nothing_of_the_one_before() {
    let mut script = Script::new(WINDOW);
    script.client.query(script.now, Query::Ping);
    assert!(!script.client.output().is_empty());
    script.greet_again();
    assert!(script.client.output().is_empty());
    script.connect(Resumed::Resumed, WINDOW);
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

//! Pages that no broker may show, each convicted of the right property.

use super::answers::label_hash;
use super::books::{Ask, Page, Place, Renewal};
use super::{Ledger, Limits, Look, Tap};
use crate::oracle::Property;
use crate::oracle::wire::{Asked, Heard, Kind, RequestShown, Said};
use crate::plan::Mode;

const LIMITS: Limits = Limits {
    keys_per_request_max: 2,
    key_bytes_max: 8,
    label_bytes_max: 8,
    lease_ns_max: 1_000,
    lock_delay_ns_max: 1_000,
    requests_max: 100,
    requests_per_session_max: 100,
    connections_max: 100,
    sessions_max: 100,
    keys_max: 100,
    claims_max: 100,
    pieces_max: 100,
    deadlock_search_max: 10_000,
    name_bytes_max: 8,
    frame_bytes_max: 4096,
    token: None,
    may_run_out_of_tokens: false,
};

const LOOK: Look = Look {
    now_ns: 1_000,
    slept_ns: 0,
    in_grace: false,
};

fn place(op: u32, token: u64) -> Place {
    Place {
        id: super::request_id(7, op),
        session: Some(1),
        keep: false,
        mode: Mode::Exclusive,
        token,
        since_ns: 900,
        deadline_ns: None,
        is_upgrading: false,
    }
}

/// A ledger of one key, in which these operations were asked for.
fn ledger(asked: &[usize]) -> Ledger {
    let mut ledger = Ledger::new(1, 4, Some(0), LIMITS);
    ledger.broker_booted();
    for op in asked {
        ledger.requests[*op].asked = true;
        ledger.requests[*op].session = Some(1);
    }
    ledger
}

/// Shows a page; the property that it breaks, if it does.
fn show(ledger: &mut Ledger, holders: Vec<Place>, waiters: Vec<Place>) -> Option<Property> {
    show_at(LOOK, ledger, holders, waiters)
}

fn show_at(
    look: Look,
    ledger: &mut Ledger,
    holders: Vec<Place>,
    waiters: Vec<Place>,
) -> Option<Property> {
    ledger.counts = (holders.len() as u32, waiters.len() as u32, 0, 1);
    ledger.keys[0].differs = true;
    ledger.keys[0].new = Page {
        holders,
        waiters,
        capacity: None,
        delayed_until_ns: None,
    };
    ledger.compare(look).map(|(property, _)| property)
}

#[test]
fn who_did_not_ask_is_not_granted() {
    let mut ledger = ledger(&[0]);
    assert_eq!(show(&mut ledger, vec![place(0, 1)], vec![]), None);
    ledger.requests[0].may_end = true;
    let judged = show(&mut ledger, vec![place(1, 2)], vec![]);
    // Nothing is known of its session, so it could be a live-mutex client's.
    assert_eq!(judged, None);
    ledger.requests[1].may_end = true;
    ledger.requests[2].session = Some(1);
    let judged = show(&mut ledger, vec![place(2, 3)], vec![]);
    assert_eq!(judged, Some(Property::UnaskedGrant));
}

#[test]
fn nobody_is_overtaken() {
    let mut ledger = ledger(&[0, 1, 2]);
    let waiters = vec![place(1, 0), place(2, 0)];
    assert_eq!(show(&mut ledger, vec![place(0, 1)], waiters), None);
    ledger.requests[0].may_end = true;
    let judged = show(&mut ledger, vec![place(2, 2)], vec![place(1, 0)]);
    assert_eq!(judged, Some(Property::Fifo));
}

#[test]
fn tokens_rise_and_holders_go_together() {
    let mut ledger = ledger(&[0, 1, 2]);
    let both = vec![place(0, 5), place(1, 6)];
    assert_eq!(show(&mut ledger, both, vec![]), Some(Property::Exclusion));
    ledger.requests[0].may_end = true;
    ledger.requests[1].may_end = true;
    let judged = show(&mut ledger, vec![place(2, 5)], vec![]);
    assert_eq!(judged, Some(Property::TokenOrder));
}

#[test]
fn a_hold_does_not_end_by_itself_nor_wait_in_vain() {
    let mut one = ledger(&[0]);
    assert_eq!(show(&mut one, vec![place(0, 1)], vec![]), None);
    assert_eq!(show(&mut one, vec![], vec![]), Some(Property::EarlyExpiry));
    let mut other = ledger(&[0]);
    let judged = show(&mut other, vec![], vec![place(0, 0)]);
    assert_eq!(judged, Some(Property::LostGrant));
}

#[test]
fn what_was_told_to_be_kept_is_back_after_a_restart() {
    let mut ledger = ledger(&[0]);
    ledger.requests[0].keep = true;
    ledger.requests[0].told = Some(1);
    assert_eq!(show(&mut ledger, vec![place(0, 1)], vec![]), None);
    ledger.broker_died();
    assert_eq!(
        show(&mut ledger, vec![], vec![]),
        Some(Property::EarlyExpiry)
    );
}

#[test]
fn what_was_told_before_it_was_reclaimed_for_longer_is_no_promise() {
    for is_told_again in [false, true] {
        let mut ledger = ledger(&[0]);
        ledger.kept_from_ns = Some(4_100);
        let ask = |lease_ns| Ask {
            session: Some(1),
            keep: true,
            lease_ns,
            ..Ask::default()
        };
        ledger.requests[0].begin(ask(Some(4_100)));
        let short = Place {
            deadline_ns: Some(5_000),
            ..place(0, 1)
        };
        assert_eq!(show(&mut ledger, vec![short], vec![]), None);
        ledger.requests[0].told = Some(1);
        ledger.broker_died();
        assert_eq!(show(&mut ledger, vec![], vec![]), None, "it was too short");
        ledger.requests[0].begin(ask(None));
        ledger.requests[0].reclaimed = Some(1);
        assert_eq!(show(&mut ledger, vec![place(0, 1)], vec![]), None);
        if is_told_again {
            ledger.requests[0].told = Some(1);
        }
        ledger.broker_died();
        let judged = show(&mut ledger, vec![], vec![]);
        assert_eq!(judged, is_told_again.then_some(Property::EarlyExpiry));
    }
}

#[test]
fn what_was_told_to_have_ended_is_not_back_after_a_restart() {
    for is_told in [false, true] {
        let mut ledger = ledger(&[0]);
        ledger.requests[0].keep = true;
        assert_eq!(show(&mut ledger, vec![place(0, 1)], vec![]), None);
        ledger.requests[0].may_end = true;
        assert_eq!(show(&mut ledger, vec![], vec![]), None);
        if is_told {
            ledger.note_told_ended(u64::MAX, super::request_id(7, 0));
        }
        ledger.broker_died();
        let judged = show(&mut ledger, vec![place(0, 1)], vec![]);
        assert_eq!(judged, is_told.then_some(Property::Orphan));
    }
}

#[test]
fn the_broker_is_to_wake_for_the_first_deadline() {
    let mut ledger = ledger(&[0]);
    let mut leased = place(0, 1);
    leased.deadline_ns = Some(5_000);
    ledger.requests[0].lease_ns = Some(4_100);
    assert_eq!(show(&mut ledger, vec![leased], vec![]), None);
    assert_eq!(ledger.judge_alarm(1_000, Some(5_000)), None);
    for late in [None, Some(5_001)] {
        let judged = ledger
            .judge_alarm(1_000, late)
            .map(|(property, _)| property);
        assert_eq!(judged, Some(Property::LateExpiry));
    }
}

#[test]
fn an_owner_that_waits_for_itself_is_found() {
    let mut ledger = ledger(&[0, 1]);
    ledger.has_owners = true;
    ledger.requests[0].owner = 3;
    ledger.requests[1].owner = 3;
    let judged = show(&mut ledger, vec![place(0, 1)], vec![place(1, 0)]);
    assert_eq!(judged, Some(Property::Deadlock));
}

#[test]
fn a_wait_counts_from_when_its_request_was_carried_out() {
    for (waits_ns, broken) in [(101, None), (100, Some(Property::LateExpiry))] {
        let mut ledger = ledger(&[0, 1]);
        ledger.requests[1].wait_ns = Some(waits_ns);
        let page = || (vec![place(0, 1)], vec![place(1, 0)]);
        let (holders, waiters) = page();
        assert_eq!(show(&mut ledger, holders, waiters), None);
        let (holders, waiters) = page();
        let look = Look {
            now_ns: LOOK.now_ns + 100,
            ..LOOK
        };
        assert_eq!(show_at(look, &mut ledger, holders, waiters), broken);
    }
}

#[test]
fn a_renewal_counts_from_when_it_was_carried_out_and_once() {
    let mut renewal = Renewal::heard(100, Some(50));
    assert!(!renewal.explains(120, Some(149)));
    assert!(!renewal.explains(120, Some(171)));
    assert!(!renewal.explains(120, None));
    assert!(renewal.explains(120, Some(160)));
    assert!(renewal.explains(130, Some(160)));
    assert!(!renewal.explains(130, Some(165)));
    assert!(Renewal::heard(100, None).explains(120, None));
}

/// A connection of session 1.
fn tap() -> Tap {
    let mut tap = Tap::new(0, 64);
    tap.session = Some(1);
    tap
}

fn asked(op: u32, wait_ns: Option<u64>) -> Asked {
    Asked {
        id: super::request_id(7, op),
        wants: vec![(b"k0".to_vec(), Mode::Exclusive)],
        lease_ns: None,
        wait_ns,
        keep: false,
        notifies: false,
        label: Vec::new(),
        owner: 0,
        lock_delay_ns: 0,
    }
}

/// Whether that may be answered so, at once.
fn may_answer(ledger: &Ledger, heard: &Heard, said: &Said) -> bool {
    let expected = ledger.expect(1_000, &tap(), heard, true);
    expected.is_none_or(|expected| expected.judge(1_000, said).is_none())
}

const fn refused(why: Kind, limit: Option<u64>) -> Said {
    Said::Refused {
        group: 4,
        id: None,
        why,
        full: None,
        limit,
        owners: Vec::new(),
    }
}

#[test]
fn a_refusal_has_a_reason_and_a_reason_a_refusal() {
    let ledger = ledger(&[]);
    let id = super::request_id(7, 0);
    let granted = Said::Granted {
        id,
        token: 1,
        granted_ns: 1_000,
        deadline_ns: None,
    };
    let too_long = refused(Kind::LeaseTooLong, Some(LIMITS.lease_ns_max));
    let mut longest = asked(0, None);
    longest.lease_ns = Some(LIMITS.lease_ns_max);
    let within = Heard::Acquire(longest.clone());
    assert!(may_answer(&ledger, &within, &granted));
    assert!(!may_answer(&ledger, &within, &too_long));
    longest.lease_ns = Some(LIMITS.lease_ns_max + 1);
    let beyond = Heard::Acquire(longest);
    assert!(!may_answer(&ledger, &beyond, &granted));
    assert!(may_answer(&ledger, &beyond, &too_long));
    let other = refused(Kind::LeaseTooLong, Some(1));
    assert!(!may_answer(&ledger, &beyond, &other));
}

#[test]
fn an_answer_says_what_the_books_say() {
    let mut ledger = ledger(&[0, 1]);
    let page = (vec![place(0, 1)], vec![place(1, 0)]);
    assert_eq!(show(&mut ledger, page.0, page.1), None);
    ledger.heard = false;
    ledger.requests[0].label = label_hash(b"");
    let id = super::request_id(7, 0);
    let release = Heard::Release(id);
    assert!(may_answer(&ledger, &release, &Said::Released(id)));
    assert!(!may_answer(
        &ledger,
        &release,
        &refused(Kind::NotHeld, None)
    ));
    let waiting = super::request_id(7, 1);
    let cancel = Heard::Cancel(waiting);
    assert!(may_answer(&ledger, &cancel, &Said::Cancelled(waiting)));
    assert!(!may_answer(
        &ledger,
        &cancel,
        &refused(Kind::AlreadyGranted, None)
    ));
    let queued = |ahead| Said::Queued {
        id: super::request_id(7, 2),
        ahead,
    };
    let ask = Heard::Acquire(asked(2, None));
    assert!(may_answer(&ledger, &ask, &queued(1)));
    assert!(!may_answer(&ledger, &ask, &queued(0)));
    let busy = |waiting| Said::Busy {
        id: super::request_id(7, 2),
        key: b"k0".to_vec(),
        waiting,
        holders: vec![RequestShown {
            id,
            mode: Mode::Exclusive,
            grant: Some((1, 900, None)),
            since_ns: 900,
            keep: false,
            label: Vec::new(),
            name: String::new(),
        }],
    };
    let try_it = Heard::Acquire(asked(2, Some(0)));
    assert!(!may_answer(&ledger, &try_it, &queued(1)));
    assert!(!may_answer(&ledger, &try_it, &busy(0)));
    assert!(may_answer(&ledger, &try_it, &busy(1)));
}

#[test]
fn an_id_is_not_taken_from_one_who_lives() {
    let taken = |token, since_ns| Place {
        session: Some(2),
        token,
        since_ns,
        ..place(0, 0)
    };
    let mut holds = place(0, 1);
    holds.deadline_ns = Some(1_010);
    for (now_ns, broken) in [(1_009, Some(Property::EarlyExpiry)), (1_010, None)] {
        let mut ledger = ledger(&[0]);
        ledger.requests[0].lease_ns = Some(110);
        assert_eq!(show(&mut ledger, vec![holds], vec![]), None);
        take_over(&mut ledger);
        let look = Look { now_ns, ..LOOK };
        let judged = show_at(look, &mut ledger, vec![taken(2, now_ns)], vec![]);
        assert_eq!(judged, broken);
    }
    for (wait_ns, broken) in [(None, Some(Property::LostGrant)), (Some(10), None)] {
        let mut ledger = ledger(&[0, 1]);
        ledger.requests[0].wait_ns = wait_ns;
        let other = place(1, 1);
        assert_eq!(show(&mut ledger, vec![other], vec![place(0, 0)]), None);
        take_over(&mut ledger);
        let look = Look {
            now_ns: LOOK.now_ns + 10,
            ..LOOK
        };
        let judged = show_at(look, &mut ledger, vec![other], vec![taken(0, 0)]);
        assert_eq!(judged, broken);
    }
}

/// Session 2 asks under the id of operation 0.
fn take_over(ledger: &mut Ledger) {
    let mut tap = tap();
    tap.session = Some(2);
    ledger.asked(1_000, &tap, &asked(0, None), None);
}

/// A hold of a request that wants to be told who waits, and one that waits for it.
fn contended() -> Ledger {
    let mut ledger = ledger(&[0, 1]);
    ledger.requests[0].notifies = true;
    let holder = Place {
        session: Some(1),
        ..place(0, 1)
    };
    assert_eq!(show(&mut ledger, vec![holder], vec![place(1, 0)]), None);
    ledger
}

/// Says that over the connection; the property that it breaks, if it does.
fn say(ledger: &mut Ledger, tap: &Tap, at_ns: u64, said: &Said) -> Option<Property> {
    let judged = ledger.noticed(tap, at_ns, 0, said);
    judged.map(|(property, _)| property)
}

#[test]
fn whoever_wanted_to_know_is_told_that_somebody_waits_and_once() {
    let mut ledger = contended();
    let tap = tap();
    let id = super::request_id(7, 0);
    let granted = Said::Granted {
        id,
        token: 1,
        granted_ns: 900,
        deadline_ns: None,
    };
    assert!(ledger.owes() && ledger.judge_untold(&tap).is_some());
    assert_eq!(say(&mut ledger, &tap, 1_000, &granted), None);
    assert!(ledger.judge_untold(&tap).is_some(), "that somebody waits");
    let contended = Said::Contended(id);
    assert_eq!(say(&mut ledger, &tap, 1_000, &contended), None);
    assert!(ledger.judge_untold(&tap).is_none());
    let again = say(&mut ledger, &tap, 1_001, &contended);
    assert_eq!(again, Some(Property::Notice));
    // Over another connection, for it may have been lost.
    let mut other = Tap::new(1, 64);
    other.session = Some(1);
    assert_eq!(say(&mut ledger, &other, 1_001, &contended), None);
}

#[test]
fn nobody_is_told_what_is_not_so() {
    let id = super::request_id(7, 0);
    let untrue = [
        Said::Contended(id),
        Said::TimedOut(id),
        Said::Expired { id, token: 1 },
        Said::Revoked { id, token: Some(1) },
    ];
    for said in untrue {
        let mut alone = ledger(&[0, 1]);
        alone.requests[0].notifies = true;
        alone.requests[0].lease_ns = Some(4_100);
        let leased = Place {
            deadline_ns: Some(5_000),
            ..place(0, 1)
        };
        assert_eq!(show(&mut alone, vec![leased], vec![]), None);
        let judged = say(&mut alone, &tap(), 2_000, &said);
        assert_eq!(judged, Some(Property::Notice), "{said:?}");
    }
    let mut unasked = contended();
    unasked.requests[0].notifies = false;
    let judged = say(&mut unasked, &tap(), 2_000, &Said::Contended(id));
    assert_eq!(judged, Some(Property::Notice));
}

#[test]
fn a_hold_that_ends_by_itself_is_told_of() {
    let mut ledger = ledger(&[0]);
    let leased = Place {
        session: Some(1),
        deadline_ns: Some(1_500),
        ..place(0, 1)
    };
    ledger.requests[0].lease_ns = Some(600);
    assert_eq!(show(&mut ledger, vec![leased], vec![]), None);
    let late = Look {
        now_ns: 1_500,
        ..LOOK
    };
    assert_eq!(show_at(late, &mut ledger, vec![], vec![]), None);
    assert!(ledger.judge_untold(&tap()).is_some());
    let id = super::request_id(7, 0);
    let expired = Said::Expired { id, token: 1 };
    assert_eq!(say(&mut ledger, &tap(), 1_500, &expired), None);
    assert!(ledger.judge_untold(&tap()).is_none());
}

#[test]
fn a_grant_is_told_as_it_was() {
    let mut ledger = ledger(&[0]);
    assert_eq!(show(&mut ledger, vec![place(0, 1)], vec![]), None);
    let id = super::request_id(7, 0);
    assert!(ledger.as_granted(id, 1, (900, None)).is_none());
    assert!(ledger.as_granted(id, 1, (901, None)).is_some());
    assert!(ledger.as_granted(id, 1, (900, Some(2_000))).is_some());
}

#[test]
fn a_circle_that_is_not_there_is_no_reason() {
    let mut ledger = ledger(&[0, 1]);
    ledger.requests[0].owner = 3;
    ledger.requests[1].owner = 4;
    assert_eq!(
        show(&mut ledger, vec![place(0, 1)], vec![place(1, 0)]),
        None
    );
    ledger.heard = false;
    let deadlock = |owners: &[u32]| Said::Refused {
        group: 4,
        id: None,
        why: Kind::Deadlock,
        full: None,
        limit: None,
        owners: owners.to_vec(),
    };
    let mut ask = asked(2, None);
    ask.owner = 3;
    let heard = Heard::Acquire(ask);
    // It would wait behind its own hold, and behind one that waits for that.
    assert!(may_answer(&ledger, &heard, &deadlock(&[3])));
    assert!(may_answer(&ledger, &heard, &deadlock(&[3, 4])));
    assert!(!may_answer(&ledger, &heard, &deadlock(&[3, 5])));
    let mut ask = asked(2, None);
    ask.owner = 5;
    let heard = Heard::Acquire(ask);
    assert!(!may_answer(&ledger, &heard, &deadlock(&[5])));
    assert!(!may_answer(&ledger, &heard, &deadlock(&[5, 3])));
}

#[test]
fn counters_are_counted_anew() {
    let mut ledger = contended();
    ledger.heard = false;
    ledger.broker_started(0);
    ledger.connected();
    ledger.note_quiet(1);
    let status = lmx_core::wire::Status {
        uptime: std::time::Duration::from_micros(1),
        incarnation: 1,
        connections: 1,
        sessions: 1,
        keys: 1,
        held: 1,
        waiting: 1,
        connections_total: 1,
        ..lmx_core::wire::Status::default()
    };
    assert_eq!(ledger.judge_status(1_000, &status), None);
    let idle = Said::Fault { kind: 6 };
    ledger.tally.count(&idle);
    assert!(ledger.judge_status(1_000, &status).is_some());
    let counted = lmx_core::wire::Status {
        faults: 1,
        faults_idle: 1,
        ..status
    };
    assert_eq!(ledger.judge_status(1_000, &counted), None);
}

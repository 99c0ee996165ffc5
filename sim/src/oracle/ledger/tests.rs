//! Pages that no broker may show, each convicted of the right property.

use super::books::{Page, Place, Renewal};
use super::{Ledger, Look};
use crate::oracle::Property;
use crate::plan::Mode;

const LOOK: Look = Look {
    now_ns: 1_000,
    slept_ns: 0,
    in_grace: false,
};

fn place(op: u32, token: u64) -> Place {
    Place {
        id: super::request_id(7, op),
        mode: Mode::Exclusive,
        token,
        granted_ns: 900,
        deadline_ns: None,
        is_upgrading: false,
    }
}

/// A ledger of one key, in which these operations were asked for.
fn ledger(asked: &[usize]) -> Ledger {
    let mut ledger = Ledger::new(1, 4, Some(0));
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

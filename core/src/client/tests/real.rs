//! What a client and the real broker do together while all goes well.

use alloc::vec;

use super::ms;
use super::world::{KEY, World, id, leased};
use crate::Mode;
use crate::client::{ClientEvent, LockRequest, Loss, Query, QueryAnswer, Refusal, ReleaseFailure};
use crate::table::{Conversion, ReleaseError, Wait};

#[test]
fn a_lock_is_granted_held_and_released() {
    let mut world = World::new();
    let one = world.client();
    assert_eq!(world.events(one), [ClientEvent::Connected]);
    world.acquire(one, leased(1));
    world.granted(one, 1);
    assert!(world.holds(one, 1));
    world.release(one, 1);
    assert_eq!(
        world.answers(one),
        [ClientEvent::Released {
            id: id(1),
            result: Ok(())
        }]
    );
    assert!(!world.holds(one, 1));
    assert!(world.holders(one).is_empty());
}

#[test]
fn waiters_are_granted_in_order_with_growing_tokens() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.acquire(one, leased(3));
    let first = world.granted(one, 1);
    assert_eq!(world.answers(two), []);
    world.release(one, 1);
    let second = world.granted(two, 2);
    world.answers(one);
    world.release(two, 2);
    let third = world.granted(one, 3);
    assert!(first < second && second < third);
}

#[test]
fn a_lease_is_renewed_for_as_long_as_it_is_held() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    for _ in 0..100 {
        world.pass(ms(777));
        assert!(world.holds(one, 1));
    }
    assert_eq!(world.answers(one), []);
}

#[test]
fn a_lease_that_is_not_to_be_renewed_ends_before_the_broker_grants_the_next() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(
        one,
        LockRequest {
            renew: false,
            ..leased(1)
        },
    );
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.pass(ms(3995));
    assert!(world.holds(one, 1) && !world.holds(two, 2));
    world.pass(ms(4));
    // The drift is 0.1 % of the time since the last ping. The client gives back what it
    // cannot be sure of.
    assert_eq!(
        world.answers(one),
        [ClientEvent::Lost {
            id: id(1),
            why: Loss::Expired
        }]
    );
    world.granted(two, 2);
}

#[test]
fn a_cancel_of_whatever_state_leaves_nothing() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    let cancelled = [ClientEvent::Cancelled { id: id(1) }];
    // Held.
    world.acquire(one, leased(1));
    world.granted(one, 1);
    world.cancel(one, 1);
    assert_eq!(world.answers(one), cancelled);
    // Waiting.
    world.acquire(two, leased(2));
    world.acquire(one, leased(1));
    world.cancel(one, 1);
    assert_eq!(world.answers(one), cancelled);
    // Granted at the same moment.
    world.acquire(one, leased(1));
    world.nodes[one].client.cancel(world.now, id(1));
    let output = world.nodes[two].client.output().len();
    assert_eq!(output, 0);
    world.release(two, 2);
    assert_eq!(world.answers(one), cancelled);
    // Not sent yet.
    world.nodes[one].unplugged = true;
    world.cut(one);
    world.acquire(one, leased(1));
    world.cancel(one, 1);
    assert_eq!(world.answers(one), cancelled);
    // Never there, or over.
    world.cancel(one, 1);
    world.cancel(one, 9);
    assert_eq!(world.answers(one), []);
    world.nodes[one].unplugged = false;
    world.pass(ms(1500));
    assert!(world.holders(one).is_empty());
}

#[test]
fn a_cancel_that_meets_a_grant_gives_it_back() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    // The broker grants; the cancel is on its way.
    world.nodes[two].client.cancel(world.now, id(2));
    world.nodes[one].client.release(world.now, id(1));
    let release = world.nodes[one].client.output().to_vec();
    world.nodes[one].client.consume_output(release.len());
    let connection = world.nodes[one].connection.expect("it is connected");
    world.broker.handle_input(world.now, connection, &release);
    world.run();
    assert_eq!(world.answers(two), [ClientEvent::Cancelled { id: id(2) }]);
    assert_eq!(world.answers(one).len(), 1);
    assert!(world.holders(one).is_empty());
}

#[test]
fn a_release_of_what_waits_withdraws_it() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.acquire(one, leased(2));
    world.granted(one, 1);
    world.release(one, 2);
    assert_eq!(
        world.answers(one),
        [ClientEvent::Released {
            id: id(2),
            result: Ok(())
        }]
    );
    assert_eq!(world.holders(one), [(id(1), true)]);
}

#[test]
fn a_release_of_what_nobody_holds_is_refused() {
    let mut world = World::new();
    let one = world.client();
    world.release(one, 7);
    assert_eq!(
        world.answers(one),
        [ClientEvent::Released {
            id: id(7),
            result: Err(ReleaseFailure::Refused(ReleaseError::NotHeld))
        }]
    );
}

#[test]
fn closing_a_client_ends_what_it_waits_for_and_holds() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(one, leased(2));
    world.acquire(two, leased(3));
    world.granted(one, 1);
    world.nodes[one].client.close(world.now);
    assert_eq!(
        world.answers(one),
        [
            ClientEvent::Refused {
                id: id(2),
                why: Refusal::Closed
            },
            ClientEvent::Lost {
                id: id(1),
                why: Loss::SessionLost
            },
        ]
    );
    assert!(world.nodes[one].client.is_closed());
    world.granted(two, 3);
    world.acquire(one, leased(4));
    assert_eq!(
        world.answers(one),
        [ClientEvent::Refused {
            id: id(4),
            why: Refusal::Closed
        }]
    );
}

#[test]
fn a_kept_request_that_waits_is_not_left_behind_by_closing() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    let kept = |number| LockRequest {
        keep: true,
        ..LockRequest::new(id(number), KEY)
    };
    world.acquire(two, leased(1));
    world.acquire(one, kept(2));
    world.nodes[one].client.close(world.now);
    // It is granted before the broker hears of the end.
    world.nodes[two].client.release(world.now, id(1));
    let release = world.nodes[two].client.output().to_vec();
    world.nodes[two].client.consume_output(release.len());
    let connection = world.nodes[two].connection.expect("it is connected");
    world.broker.handle_input(world.now, connection, &release);
    world.run();
    assert!(world.nodes[one].client.is_closed());
    world.answers(two);
    assert!(world.holders(two).is_empty());
}

#[test]
fn a_wait_ends_in_time_and_a_try_says_who_is_in_the_way() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(
        one,
        LockRequest {
            label: (*b"nightly").into(),
            ..leased(1)
        },
    );
    world.acquire(
        two,
        LockRequest {
            wait: Wait::For(ms(500)),
            ..leased(2)
        },
    );
    world.pass(ms(499));
    assert_eq!(world.answers(two), []);
    world.pass(ms(1));
    assert_eq!(
        world.answers(two),
        [ClientEvent::Refused {
            id: id(2),
            why: Refusal::TimedOut
        }]
    );
    world.acquire(
        two,
        LockRequest {
            wait: Wait::No,
            ..leased(3)
        },
    );
    match world.answers(two).as_slice() {
        [
            ClientEvent::Refused {
                why:
                    Refusal::Busy {
                        key,
                        holders,
                        waiting: 0,
                    },
                ..
            },
        ] => {
            assert_eq!(key, KEY);
            assert_eq!(holders[0].label, b"nightly");
            assert_eq!(holders[0].age, ms(500));
        }
        other => panic!("not busy: {other:?}"),
    }
}

#[test]
fn a_hold_is_renewed_by_hand_longer_and_shorter() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(
        one,
        LockRequest {
            renew: false,
            ..leased(1)
        },
    );
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.nodes[one]
        .client
        .renew(world.now, id(1), Some(ms(60_000)));
    assert!(matches!(
        world.answers(one).as_slice(),
        [ClientEvent::Renewed { result: Ok(_), .. }]
    ));
    world.pass(ms(50_000));
    assert!(world.holds(one, 1));
    world.nodes[one]
        .client
        .renew(world.now, id(1), Some(ms(1000)));
    // Even before the broker has answered.
    let held = world.nodes[one].client.held(world.now, id(1));
    let until = held
        .expect("it is held")
        .good_until
        .expect("it has a lease");
    assert_eq!(until, world.now + ms(999));
    world.pass(ms(1000));
    assert!(!world.holds(one, 1));
    assert!(world.holds(two, 2));
}

#[test]
fn holds_are_downgraded_and_upgraded() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    let mut shared = leased(2);
    shared.wants[0].1 = Mode::Shared;
    world.acquire(two, shared);
    let first = world.granted(one, 1);
    world.nodes[one]
        .client
        .convert(world.now, id(1), Conversion::Downgrade);
    assert!(matches!(
        world.answers(one).as_slice(),
        [ClientEvent::Converted { result: Ok(_), .. }]
    ));
    world.granted(two, 2);
    world.nodes[one]
        .client
        .convert(world.now, id(1), Conversion::Upgrade);
    assert_eq!(world.answers(one), []);
    assert!(world.holds(one, 1));
    world.nodes[two]
        .client
        .convert(world.now, id(2), Conversion::Upgrade);
    assert!(matches!(
        world.answers(two).as_slice(),
        [ClientEvent::Converted { result: Err(_), .. }]
    ));
    world.release(two, 2);
    let last = world.granted(one, 1);
    assert!(first < last);
}

/// The user has given up waiting for the earlier ones.
#[test]
fn the_answer_to_an_earlier_conversion_is_not_taken_for_the_last_ones() {
    use Conversion::{Downgrade, Upgrade};
    for (mode, conversions) in [
        (Mode::Exclusive, [Downgrade, Upgrade].as_slice()),
        (Mode::Shared, &[Upgrade, Downgrade, Upgrade]),
    ] {
        let mut world = World::new();
        let (one, two) = (world.client(), world.client());
        let mut first = leased(1);
        first.wants[0].1 = mode;
        world.acquire(one, first);
        let first = world.granted(one, 1);
        let mut second = leased(2);
        second.wants[0].1 = Mode::Shared;
        world.acquire(two, second);
        world.run();
        for &to in conversions {
            world.nodes[one].client.convert(world.now, id(1), to);
        }
        // The other one shares it, so it is not upgraded yet.
        assert_eq!(world.answers(one), [], "{conversions:?}");
        world.granted(two, 2);
        world.release(two, 2);
        assert!(first < world.granted(one, 1), "{conversions:?}");
    }
}

#[test]
fn a_holder_is_told_once_that_somebody_waits() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(
        one,
        LockRequest {
            notify_contended: true,
            ..leased(1)
        },
    );
    world.granted(one, 1);
    world.acquire(two, leased(2));
    world.acquire(two, leased(3));
    assert_eq!(world.answers(one), [ClientEvent::Contended { id: id(1) }]);
}

#[test]
fn force_tells_the_holder_and_grants_the_next() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    let query = Query::ForceReleaseKey { key: KEY.into() };
    world.nodes[two].client.query(world.now, query);
    let answers = world.answers(two);
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(
        world.answers(one),
        [ClientEvent::Lost {
            id: id(1),
            why: Loss::Revoked
        }]
    );
    assert!(world.holds(two, 2));
}

#[test]
fn questions_are_answered_or_said_to_be_lost() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    assert_eq!(world.query(one, Query::Ping), QueryAnswer::Pong);
    match world.query(one, Query::List { start: 0 }) {
        QueryAnswer::Listed { keys, next: None } => assert_eq!(keys[0].key, KEY),
        other => panic!("not a list: {other:?}"),
    }
    match world.query(one, Query::Status) {
        QueryAnswer::Status(status) => assert_eq!(status.held, 1),
        other => panic!("not a status: {other:?}"),
    }
    let empty = Query::Inspect {
        key: [].into(),
        skip: 0,
    };
    assert!(matches!(world.query(one, empty), QueryAnswer::Refused(_)));
    // Without a connection it waits for one, but not for ever.
    world.nodes[one].unplugged = true;
    world.cut(one);
    world.nodes[one].client.query(world.now, Query::Ping);
    assert_eq!(world.answers(one), []);
    world.pass(ms(3000));
    assert!(matches!(
        world.answers(one).as_slice(),
        [ClientEvent::Answered {
            answer: QueryAnswer::Lost,
            ..
        }]
    ));
}

#[test]
fn a_request_that_is_too_long_for_a_frame_is_refused_and_disturbs_nothing() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    let key = vec![b'k'; 1 << 20];
    world.acquire(one, LockRequest::new(id(2), &key));
    assert!(matches!(
        world.answers(one).as_slice(),
        [ClientEvent::Refused {
            why: Refusal::TooLarge { .. },
            ..
        }]
    ));
    assert!(world.holds(one, 1));
    assert!(world.nodes[one].client.is_connected());
}

//! What a client does about lost connections, sessions and brokers.

use core::time::Duration;

use super::ms;
use super::world::{KEY, World, brief, id, leased};
use crate::broker::BrokerConfig;
use crate::client::{ClientEvent, LockRequest, Loss, Refusal};
use crate::table::{Conversion, Wait};
use crate::{FencingToken, Mode};

#[test]
fn a_broken_connection_is_invisible_within_the_resume_window() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.cut(one);
    world.cut(two);
    world.pass(ms(2000));
    assert!(world.holds(one, 1));
    assert_eq!(world.answers(one), []);
    world.release(one, 1);
    world.granted(two, 2);
    assert_eq!(world.answers(one).len(), 1);
}

#[test]
fn what_was_asked_without_a_connection_is_asked_later_in_order() {
    let mut world = World::new();
    let one = world.client();
    world.nodes[one].unplugged = true;
    world.cut(one);
    for number in [3, 1, 2] {
        world.acquire(one, LockRequest::new(id(number), KEY));
    }
    assert_eq!(world.answers(one), []);
    world.nodes[one].unplugged = false;
    world.pass(ms(1500));
    world.granted(one, 3);
    assert_eq!(
        world.holders(one),
        [(id(3), true), (id(1), false), (id(2), false)]
    );
}

#[test]
fn a_request_whose_answer_was_lost_is_asked_again_and_queued_once() {
    let mut world = World::new();
    let one = world.client();
    // The broker carries it out; the answer is lost with the connection.
    let request = leased(1);
    world.nodes[one]
        .client
        .acquire(world.now, request)
        .expect("a fresh id");
    let output = world.nodes[one].client.output().to_vec();
    world.nodes[one].client.consume_output(output.len());
    let connection = world.nodes[one].connection.expect("it is connected");
    world.broker.handle_input(world.now, connection, &output);
    world.cut(one);
    world.pass(ms(100));
    let token = world.granted(one, 1);
    assert_eq!(world.holders(one), [(id(1), true)]);
    assert_eq!(token, FencingToken::FIRST);
}

#[test]
fn a_release_whose_answer_was_lost_is_a_release() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    world.nodes[one].client.release(world.now, id(1));
    let output = world.nodes[one].client.output().to_vec();
    world.nodes[one].client.consume_output(output.len());
    let connection = world.nodes[one].connection.expect("it is connected");
    world.broker.handle_input(world.now, connection, &output);
    world.cut(one);
    world.pass(ms(100));
    assert_eq!(
        world.answers(one),
        [ClientEvent::Released {
            id: id(1),
            result: Ok(())
        }]
    );
}

#[test]
fn a_grant_that_was_missed_is_told_after_the_connection_is_back() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.nodes[two].unplugged = true;
    world.cut(two);
    world.release(one, 1);
    world.pass(ms(500));
    assert_eq!(world.answers(two), []);
    world.nodes[two].unplugged = false;
    world.pass(ms(1500));
    world.granted(two, 2);
    assert!(world.holds(two, 2));
}

#[test]
fn without_a_resume_window_a_lost_connection_loses_holds_at_once_and_waiters_queue_again() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client_with(brief()));
    world.acquire(two, leased(1));
    world.granted(two, 1);
    world.acquire(one, leased(2));
    world.acquire(two, leased(3));
    world.cut(two);
    assert_eq!(
        world.answers(two),
        [ClientEvent::Lost {
            id: id(1),
            why: Loss::SessionLost
        }]
    );
    world.granted(one, 2);
    world.pass(ms(1500));
    world.release(one, 2);
    world.granted(two, 3);
}

#[test]
fn a_half_open_connection_is_replaced_before_anything_is_lost() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.nodes[one].half_open = true;
    world.nodes[two].half_open = true;
    world.pass(ms(3900));
    assert_eq!(world.answers(one), []);
    assert!(world.holds(one, 1));
    world.release(one, 1);
    world.granted(two, 2);
}

#[test]
fn a_holder_that_nobody_hears_stops_before_the_broker_grants_the_next() {
    for keep_lease in [None, Some(ms(60_000))] {
        let mut world = World::new();
        let (one, two) = (world.client(), world.client());
        world.acquire(
            one,
            LockRequest {
                lease: keep_lease,
                renew: keep_lease.is_some(),
                ..leased(1)
            },
        );
        world.acquire(two, leased(2));
        world.granted(one, 1);
        world.pass(ms(10_000));
        world.nodes[one].half_open = true;
        world.nodes[one].unplugged = true;
        let mut lost_at = None;
        let mut granted_at = None;
        while granted_at.is_none() {
            world.pass(ms(100));
            if lost_at.is_none() && !world.holds(one, 1) {
                lost_at = Some(world.now);
            }
            if world.holds(two, 2) {
                granted_at = Some(world.now);
            }
            assert!(!(world.holds(one, 1) && world.holds(two, 2)));
        }
        assert!(lost_at < granted_at, "{lost_at:?} {granted_at:?}");
        assert_eq!(
            world.answers(one),
            [ClientEvent::Lost {
                id: id(1),
                why: Loss::Unconfirmed
            }]
        );
    }
}

#[test]
fn a_half_open_connection_without_a_resume_window_loses_its_holds_first() {
    let mut world = World::new();
    let (one, two) = (world.client_with(brief()), world.client());
    world.acquire(one, LockRequest::new(id(1), KEY));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.nodes[one].half_open = true;
    world.nodes[one].unplugged = true;
    let mut lost_at = None;
    while !world.holds(two, 2) {
        world.pass(ms(100));
        if lost_at.is_none() && !world.holds(one, 1) {
            lost_at = Some(world.now);
        }
    }
    assert!(lost_at.expect("it learnt of it") < world.now);
}

#[test]
fn a_kept_hold_outlives_its_session_and_is_released_by_its_id() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(
        one,
        LockRequest {
            keep: true,
            ..LockRequest::new(id(1), KEY)
        },
    );
    world.granted(one, 1);
    world.nodes[one].client.close(world.now);
    world.run();
    assert!(world.nodes[one].client.is_closed());
    assert_eq!(world.holders(two), [(id(1), true)]);
    world.release(two, 1);
    assert_eq!(
        world.answers(two),
        [ClientEvent::Released {
            id: id(1),
            result: Ok(())
        }]
    );
    assert!(world.holders(two).is_empty());
}

#[test]
fn a_kept_grant_that_was_missed_with_its_session_is_found_again() {
    let mut world = World::new();
    let one = world.client_with(brief());
    let request = LockRequest {
        keep: true,
        ..LockRequest::new(id(1), KEY)
    };
    world.nodes[one]
        .client
        .acquire(world.now, request)
        .expect("a fresh id");
    // Granted, but the answer is lost, and with it the session; the hold is kept.
    let output = world.nodes[one].client.output().to_vec();
    world.nodes[one].client.consume_output(output.len());
    let connection = world.nodes[one].connection.expect("it is connected");
    world.broker.handle_input(world.now, connection, &output);
    world.cut(one);
    world.pass(ms(1500));
    assert_eq!(world.granted(one, 1), FencingToken::FIRST);
    assert_eq!(world.holders(one), [(id(1), true)]);
    world.release(one, 1);
    assert_eq!(world.answers(one).len(), 1);
    assert!(world.holders(one).is_empty());
}

#[test]
fn a_wait_ends_in_time_without_a_connection_too() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(
        two,
        LockRequest {
            wait: Wait::For(ms(1000)),
            ..leased(2)
        },
    );
    world.nodes[two].unplugged = true;
    world.cut(two);
    world.acquire(
        two,
        LockRequest {
            wait: Wait::For(ms(500)),
            ..leased(3)
        },
    );
    world.pass(ms(500));
    assert_eq!(
        world.answers(two),
        [ClientEvent::Refused {
            id: id(3),
            why: Refusal::Unreachable
        }]
    );
    world.pass(ms(500));
    assert_eq!(
        world.answers(two),
        [ClientEvent::Refused {
            id: id(2),
            why: Refusal::TimedOut
        }]
    );
    world.nodes[two].unplugged = false;
    world.pass(ms(1500));
    world.granted(one, 1);
    assert_eq!(world.holders(one), [(id(1), true)]);
}

#[test]
fn a_session_that_was_lost_loses_its_holds_and_its_waiters_queue_again() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.acquire(one, leased(3));
    world.granted(one, 1);
    world.nodes[one].unplugged = true;
    world.cut(one);
    world.pass(ms(3990));
    assert!(world.holds(one, 1));
    world.pass(ms(1000));
    world.granted(two, 2);
    world.nodes[one].unplugged = false;
    world.pass(ms(1500));
    assert_eq!(
        world.answers(one),
        [ClientEvent::Lost {
            id: id(1),
            why: Loss::Unconfirmed
        }]
    );
    world.release(two, 2);
    world.granted(one, 3);
}

#[test]
fn etcd_13294_a_restart_does_not_begin_a_limited_lease_anew() {
    let mut world = World::new();
    let client = world.client();
    let request = LockRequest {
        lease: Some(ms(20_000)),
        ..LockRequest::new(id(1), KEY)
    };
    world.nodes[client]
        .client
        .acquire(world.now, request)
        .unwrap();
    world.pass(ms(1));
    let end = world.now + ms(20_000);
    world.pass(ms(15_000));
    world.restart(ms(5000), 1000);
    world.pass(ms(1000));
    let held = world.nodes[client].client.held(world.now, id(1)).unwrap();
    assert!(held.good_until.unwrap() <= end, "{held:?}");
    world.pass(ms(5000));
    assert_eq!(world.nodes[client].client.held(world.now, id(1)), None);
}

#[test]
fn a_release_that_was_asked_before_a_restart_is_a_release() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    let node = &mut world.nodes[one];
    let connection = node.connection.take().expect("it is connected");
    world.broker.handle_disconnect(world.now, connection);
    node.client.handle_disconnected(world.now);
    // It holds, and gives it back, before it has a connection again.
    assert!(node.client.held(world.now, id(1)).is_some());
    node.client.release(world.now, id(1));
    world.restart(ms(5000), 1000);
    world.pass(ms(100));
    let result = Ok(());
    assert_eq!(
        world.answers(one),
        [ClientEvent::Released { id: id(1), result }]
    );
}

#[test]
fn a_downgrade_whose_answer_was_lost_is_one_after_a_restart() {
    let mut world = World::new();
    // The other is the first to come back.
    let (two, one) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.granted(one, 1);
    let mut second = leased(2);
    second.wants[0].1 = Mode::Shared;
    world.acquire(two, second);
    world.run();
    // The broker hears of it, and the connection is lost before its answer.
    let node = &mut world.nodes[one];
    let connection = node.connection.take().expect("it is connected");
    node.client.convert(world.now, id(1), Conversion::Downgrade);
    let asked = node.client.output().to_vec();
    world.broker.handle_input(world.now, connection, &asked);
    world.broker.handle_disconnect(world.now, connection);
    node.client.handle_disconnected(world.now);
    // The other shares it, and hears that.
    let node = &mut world.nodes[two];
    let connection = node.connection.expect("it is connected");
    let told = world.broker.output(connection).to_vec();
    node.client.handle_input(world.now, &told);
    assert!(node.client.held(world.now, id(2)).is_some());
    world.restart(ms(5000), 1000);
    world.pass(ms(100));
    assert!(matches!(
        world.answers(one)[..],
        [ClientEvent::Converted { result: Ok(_), .. }]
    ));
    for (client, number) in [(one, 1), (two, 2)] {
        let held = world.nodes[client].client.held(world.now, id(number));
        assert!(held.is_some(), "{number}");
    }
}

#[test]
fn holds_are_reclaimed_from_a_broker_that_restarted() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    let before = world.granted(one, 1);
    world.restart(ms(5000), 1000);
    world.pass(ms(2000));
    assert!(world.holds(one, 1));
    assert_eq!(world.answers(one), []);
    assert_eq!(world.answers(two), []);
    assert_eq!(world.holders(one), [(id(1), true), (id(2), false)]);
    world.pass(ms(10_000));
    assert!(world.holds(one, 1));
    world.release(one, 1);
    let after = world.granted(two, 2);
    assert!(before < after);
}

#[test]
fn a_hold_that_cannot_be_reclaimed_is_lost() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    world.restart(Duration::ZERO, 1000);
    world.pass(ms(1500));
    assert_eq!(
        world.answers(one),
        [ClientEvent::Lost {
            id: id(1),
            why: Loss::SessionLost
        }]
    );
}

#[test]
fn a_conversion_whose_answer_was_lost_is_made_once() {
    for to in [Conversion::Downgrade, Conversion::Upgrade] {
        let mut world = World::new();
        let one = world.client();
        let mut request = leased(1);
        if to == Conversion::Upgrade {
            request.wants[0].1 = Mode::Shared;
        }
        world.acquire(one, request);
        world.granted(one, 1);
        world.nodes[one].client.convert(world.now, id(1), to);
        let output = world.nodes[one].client.output().to_vec();
        world.nodes[one].client.consume_output(output.len());
        let connection = world.nodes[one].connection.expect("it is connected");
        world.broker.handle_input(world.now, connection, &output);
        world.cut(one);
        world.pass(ms(100));
        let answers = world.answers(one);
        assert!(
            matches!(
                answers.as_slice(),
                [ClientEvent::Converted { result: Ok(_), .. } | ClientEvent::Granted { .. }]
            ),
            "{to:?}: {answers:?}"
        );
    }
}

#[test]
fn a_wrong_token_stops_the_client_until_it_is_told_to_try_again() {
    let mut world = World::with(BrokerConfig {
        auth_token: Some(b"sesame".to_vec()),
        ..BrokerConfig::default()
    });
    let one = world.client();
    assert!(matches!(
        world.events(one).as_slice(),
        [ClientEvent::Failed { retries: false, .. }]
    ));
    assert!(world.nodes[one].client.is_stopped());
    world.acquire(one, leased(1));
    assert_eq!(
        world.answers(one),
        [ClientEvent::Refused {
            id: id(1),
            why: Refusal::Unreachable
        }]
    );
    world.pass(ms(60_000));
    assert_eq!(world.events(one), []);
    world.nodes[one].client.reconnect(world.now);
    assert_eq!(world.events(one).len(), 1);
}

#[test]
fn another_broker_in_the_place_of_the_old_one_is_met_with_a_new_session() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    // The same incarnation, another secret: the ticket is refused.
    world.config.incarnation -= 1;
    world.config.secret_seed = [9; 16];
    world.restart(Duration::ZERO, 1);
    world.pass(ms(3000));
    assert!(world.nodes[one].client.is_connected());
    let lost = ClientEvent::Lost {
        id: id(1),
        why: Loss::SessionLost,
    };
    assert!(world.answers(one).contains(&lost));
    world.acquire(one, leased(2));
    world.granted(one, 2);
}

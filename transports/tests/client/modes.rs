//! Each way to hold, through real sockets.

use std::num::NonZeroU32;
use std::time::Duration;

use lmx_core::client::Loss;
use lmx_core::table::AcquireError;
use lmx_transports::LockError;
use smol::future::poll_once;

use super::faults::through;
use super::proxy::Proxy;
use super::{LONG, broker, connect, run, until};

#[test]
fn readers_share_and_writers_wait_their_turn() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let one = client.lock("key").shared().await.expect("a grant");
        let two = client.lock("key").shared().await.expect("a grant");
        let writer = smol::spawn(client.lock("key").into_future());
        until(&client, "key", 2, 1).await;
        // Behind the writer.
        client
            .lock("key")
            .shared()
            .try_now()
            .await
            .expect_err("it would overtake");
        drop((one, two));
        drop(writer.await.expect("a grant"));
    });
}

#[test]
fn a_semaphore_has_so_many_permits() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let one = client.lock("key").semaphore(5, 3).await.expect("a grant");
        client
            .lock("key")
            .semaphore(5, 3)
            .try_now()
            .await
            .expect_err("it is full");
        let _two = client.lock("key").semaphore(5, 2).await.expect("a grant");
        drop(one);
        drop(client.lock("key").semaphore(5, 3).await.expect("a grant"));
    });
}

#[test]
fn several_keys_are_one_grant() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let one = client.lock("b").await.expect("a grant");
        let all = client.lock("a").also("b").shared().also("c");
        let all = smol::spawn(all.into_future());
        until(&client, "b", 1, 1).await;
        until(&client, "a", 0, 1).await;
        drop(one);
        let all = all.await.expect("a grant");
        assert_eq!(all.keys().len(), 3);
        let _shared = client.lock("b").shared().await.expect("a grant");
        client.lock("a").try_now().await.expect_err("it is held");
        all.release().await.expect("a release");
        drop(client.lock_all(["a", "c"]).await.expect("a grant"));
    });
}

#[test]
fn a_hold_is_downgraded_and_upgraded() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let mut guard = client.lock("key").await.expect("a grant");
        let first = guard.token();
        guard.downgrade().await.expect("a conversion");
        let mut reader = client.lock("key").shared().await.expect("a grant");
        let upgrading = smol::spawn(async move {
            guard.upgrade().await.expect("a conversion");
            guard
        });
        // Nobody gets in between once the broker knows of it.
        while let Ok(between) = client.lock("key").shared().try_now().await {
            drop(between);
        }
        reader
            .upgrade()
            .await
            .expect_err("both would wait for ever");
        assert!(reader.is_valid());
        drop(reader);
        let guard = upgrading.await;
        assert!(guard.token() > first);
        client
            .lock("key")
            .shared()
            .try_now()
            .await
            .expect_err("it is held alone");
    });
}

#[test]
fn an_upgrade_that_nobody_waits_for_any_more_is_withdrawn() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let mut one = client.lock("key").shared().await.expect("free");
        let two = client.lock("key").shared().await.expect("shared");
        let upgrade = one.upgrade();
        assert!(poll_once(upgrade).await.is_none());
        // Nobody has to wait for it, neither now nor once it could be had.
        let three = client.lock("key").shared().wait_forever().await;
        three.expect("shared").release().await.expect("held");
        two.release().await.expect("held");
        let four = client.lock("key").shared().try_now().await;
        four.expect("shared").release().await.expect("held");
        one.upgrade().await.expect("nobody else has it");
    });
}

#[test]
fn an_upgrade_of_what_is_exclusive_already_may_be_dropped() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let mut one = client.lock("key").await.expect("free");
        assert!(poll_once(one.upgrade()).await.is_none());
        client.ping().await.expect("an answer");
        let refused = client.lock("key").shared().try_now().await;
        assert!(
            matches!(refused, Err(LockError::Busy { .. })),
            "{refused:?}"
        );
        // The same after a downgrade and an upgrade.
        one.downgrade().await.expect("held");
        one.upgrade().await.expect("nobody else has it");
        let _ = poll_once(one.upgrade()).await;
        client.ping().await.expect("an answer");
        let refused = client.lock("key").shared().try_now().await;
        assert!(
            matches!(refused, Err(LockError::Busy { .. })),
            "{refused:?}"
        );
    });
}

/// They follow each other so closely that the first is not answered when the second is asked.
#[test]
fn an_upgrade_after_a_downgrade_that_was_dropped_waits_for_those_who_share_it() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let mut one = client.lock("key").await.expect("free");
        let two = client.lock("key").shared().wait_forever().into_future();
        let mut two = Box::pin(two);
        assert!(poll_once(&mut two).await.is_none());
        until(&client, "key", 1, 1).await;
        let _ = poll_once(one.downgrade()).await;
        let mut upgrade = Box::pin(one.upgrade());
        assert!(poll_once(&mut upgrade).await.is_none());
        let two = two.await.expect("shared");
        // What the broker has said by now it has said of the upgrade, too.
        client.ping().await.expect("an answer");
        assert!(poll_once(&mut upgrade).await.is_none());
        two.release().await.expect("held");
        upgrade.await.expect("nobody else has it");
    });
}

#[test]
fn a_holder_is_told_that_somebody_waits() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let guard = client
            .lock("key")
            .notify_contended()
            .await
            .expect("a grant");
        let waiting = smol::spawn(client.lock("key").into_future());
        guard.contended().await;
        drop(guard);
        drop(waiting.await.expect("a grant"));
    });
}

#[test]
fn a_circle_of_owners_is_refused() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let [one, two] = [1, 2].map(|owner| NonZeroU32::new(owner).expect("not zero"));
        let _a = client.lock("a").owner(one).await.expect("a grant");
        let b = client.lock("b").owner(two).await.expect("a grant");
        let waiting = smol::spawn(client.lock("b").owner(one).into_future());
        until(&client, "b", 1, 1).await;
        let error = client.lock("a").owner(two).await.expect_err("a circle");
        assert!(
            matches!(error, LockError::Refused(AcquireError::Deadlock { .. })),
            "{error}"
        );
        assert!(
            error.to_string().ends_with(": 2 waits for 1 waits for 2"),
            "{error}"
        );
        drop(b);
        drop(waiting.await.expect("a grant"));
    });
}

#[test]
fn a_lock_delay_holds_the_next_back_after_an_expiry_only() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let delay = LONG / 10;
        let released = client.lock("key").lock_delay(delay).await.expect("a grant");
        released.release().await.expect("a release");
        let proxy = Proxy::new(broker.tcp_address().expect("it listens on TCP"));
        let other = through(&proxy, Duration::ZERO).await;
        let guard = other.lock("key").lock_delay(delay).await.expect("a grant");
        proxy.refuse(true);
        assert_eq!(guard.lost().await, Loss::SessionLost);
        until(&client, "key", 0, 0).await;
        client
            .lock("key")
            .try_now()
            .await
            .expect_err("the delay runs");
    });
}

//! What a lock means where requests of different kinds meet, through real sockets; the
//! plain course of each kind is in `modes` and `basics`.

use std::num::NonZeroU32;
use std::pin::pin;
use std::time::Duration;

use lmx_core::client::Loss;
use lmx_core::table::{AcquireError, ConvertError as Conversion};
use lmx_core::wire::{
    AcquireFields, Answer, Command, Hello, MAGIC, Reply, Request, SeqBuf, WantFields, frame,
};
use lmx_core::{FencingToken, Mode, RequestId, Wait};
use lmx_transports::{Client, ConvertError, LockError, blocking};
use smol::future::poll_once;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::faults::through;
use super::proxy::Proxy;
use super::{LONG, broker, connect, run, setup, until};

#[test]
fn first_come_first_served_whatever_the_mode() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let lock = || client.lock("key").wait_forever();
        let first = lock().shared().await.expect("a grant");
        let writer = smol::spawn(lock().into_future());
        until(&client, "key", 1, 1).await;
        let reader = smol::spawn(lock().shared().into_future());
        until(&client, "key", 1, 2).await;
        let other_reader = smol::spawn(lock().shared().into_future());
        until(&client, "key", 1, 3).await;
        let last = smol::spawn(lock().semaphore(2, 1).into_future());
        until(&client, "key", 1, 4).await;

        drop(first);
        let writer = writer.await.expect("a grant");
        until(&client, "key", 1, 3).await;
        let mut token = writer.token();
        drop(writer);
        // Both readers at one time, and nobody else.
        until(&client, "key", 2, 1).await;
        let readers = [reader.await, other_reader.await].map(|guard| guard.expect("a grant"));
        for reader in &readers {
            assert!(reader.token() > token);
            token = reader.token();
        }
        drop(readers);
        assert!(last.await.expect("a grant").token() > token);
    });
}

#[test]
fn few_permits_do_not_overtake_many() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let held = client.lock("key").semaphore(5, 3).await.expect("a grant");
        let many = smol::spawn(
            client
                .lock("key")
                .semaphore(5, 4)
                .wait_forever()
                .into_future(),
        );
        until(&client, "key", 1, 1).await;
        // One permit would fit.
        let one = client.lock("key").semaphore(5, 1);
        one.clone().try_now().await.expect_err("it would overtake");
        let one = smol::spawn(one.wait_forever().into_future());
        until(&client, "key", 1, 2).await;
        held.release().await.expect("a release");
        let many = many.await.expect("a grant");
        assert!(one.await.expect("a grant").token() > many.token());
    });
}

#[test]
fn the_newest_capacity_counts_and_strands_nobody() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let lock = |capacity, permits| client.lock("key").semaphore(capacity, permits);
        let two = lock(2, 2).await.expect("a grant");
        let raised = lock(3, 1).await.expect("there is one more now");
        let many = smol::spawn(lock(3, 3).wait_forever().into_future());
        until(&client, "key", 2, 1).await;
        let lowered = smol::spawn(lock(1, 1).wait_forever().into_future());
        until(&client, "key", 2, 2).await;
        let seen = client.inspect("key").await.expect("an answer");
        assert_eq!(seen.key.capacity, Some(1));
        assert!(two.is_valid() && raised.is_valid());
        drop((two, raised));
        // It asked for more than there is by now, and gets it alone.
        let many = many.await.expect("a grant");
        until(&client, "key", 1, 1).await;
        drop(many);
        drop(lowered.await.expect("a grant"));
    });
}

#[test]
fn permits_that_can_never_be_had_are_refused_at_once() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let _held = client.lock("key").await.expect("a grant");
        for (capacity, permits) in [(2, 3), (2, 0), (0, 0), (0, 1)] {
            let lock = client.lock("key").semaphore(capacity, permits);
            let error = lock.wait_forever().await.expect_err("a refusal");
            assert!(
                matches!(error, LockError::Refused(AcquireError::Permits { .. })),
                "{error}"
            );
        }
        until(&client, "key", 1, 0).await;
    });
}

#[test]
fn a_refusal_says_who_holds_the_key_how_and_for_how_long_and_who_waits() {
    run(async {
        let broker = broker().await;
        let holder = setup(&broker).name("printer-7").connect().await.unwrap();
        let held = holder.lock("key").shared().label("page 3").lease(LONG);
        let held = held.await.expect("a grant");
        let client = connect(&broker).await;
        let _waiting = smol::spawn(client.lock("key").wait_forever().into_future());
        until(&client, "key", 1, 1).await;
        let error = client.lock("key").shared().try_now().await;
        let Err(LockError::Busy {
            key,
            holders,
            waiting,
        }) = error
        else {
            panic!("{error:?}");
        };
        assert_eq!((key.as_slice(), waiting), (&b"key"[..], 1));
        let [seen] = holders.as_slice() else {
            panic!("{holders:?}");
        };
        assert_eq!((seen.id, seen.token), (held.id(), Some(held.token())));
        assert_eq!(seen.mode, Mode::Shared);
        assert_eq!(
            (seen.label.as_slice(), seen.name.as_str()),
            (&b"page 3"[..], "printer-7")
        );
        let remaining = seen.remaining.expect("it has a lease");
        assert_eq!(remaining + seen.age, LONG);
        // Whoever inspects it sees the same, and who waits.
        let requests = client.inspect("key").await.expect("an answer").requests;
        assert_eq!((requests[0].id, &requests[0].label), (seen.id, &seen.label));
        assert_eq!(
            (requests[1].mode, requests[1].token),
            (Mode::Exclusive, None)
        );
    });
}

#[test]
fn force_ends_all_holders_of_a_key_or_one_request_even_one_that_waits() {
    run(async {
        let broker = broker().await;
        let (client, admin) = (connect(&broker).await, connect(&broker).await);
        let lock = || client.lock("key").shared();
        let holders = [
            lock().await.expect("a grant"),
            lock().await.expect("a grant"),
        ];
        let id = RequestId::from_u128(7);
        let revoked = smol::spawn(client.lock("key").id(id).wait_forever().into_future());
        until(&admin, "key", 2, 1).await;
        let waiting = smol::spawn(client.lock("key").wait_forever().into_future());
        until(&admin, "key", 2, 2).await;

        let ended = admin.force_release_request(id).await.expect("an answer");
        assert_eq!(ended.map(|ended| ended.id), Some(id));
        let error = revoked.await.expect_err("it was ended");
        assert!(matches!(error, LockError::Revoked), "{error}");
        until(&admin, "key", 2, 1).await;

        let ended = admin.force_release("key").await.expect("an answer");
        assert_eq!(ended.len(), 2);
        for holder in &holders {
            assert_eq!(holder.lost().await, Loss::Revoked);
        }
        drop(waiting.await.expect("those who wait are not ended"));
    });
}

#[test]
fn an_upgrade_goes_before_all_who_wait_and_there_is_one_at_a_time() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let lock = || client.lock("key").shared();
        let (mut one, mut two) = (lock().await.unwrap(), lock().await.unwrap());
        let writer = smol::spawn(client.lock("key").wait_forever().into_future());
        until(&client, "key", 2, 1).await;
        let before = one.token();
        {
            let mut upgrade = pin!(one.upgrade());
            assert!(poll_once(&mut upgrade).await.is_none());
            let error = two.upgrade().await.expect_err("neither would ever end");
            assert!(
                matches!(error, ConvertError::Refused(Conversion::UpgradeConflict)),
                "{error}"
            );
            assert!(two.is_valid());
            two.release().await.expect("a release");
            upgrade.await.expect("a conversion");
        }
        assert!(one.token() > before);
        until(&client, "key", 1, 1).await;
        // Downgraded it lets readers in, but none past the writer.
        one.downgrade().await.expect("a conversion");
        lock().try_now().await.expect_err("the writer is first");
        let token = one.token();
        drop(one);
        assert!(writer.await.expect("a grant").token() > token);
    });
}

#[test]
fn a_lock_delay_holds_those_who_wait_back_until_it_is_over() {
    run(async {
        let broker = broker().await;
        let client = connect(&broker).await;
        let token = lapse(&client, Duration::from_millis(40)).await;
        let next = client.lock("key").wait_forever().await.expect("a grant");
        assert!(next.token() > token);
        next.release().await.expect("a release");

        lapse(&client, LONG / 10).await;
        let refused = client.lock("key").try_now().await;
        refused.expect_err("the delay runs");
    });
}

/// Lets a hold with this lock-delay expire.
async fn lapse(client: &Client, delay: Duration) -> FencingToken {
    let lock = client.lock("key").lease(LONG).lock_delay(delay);
    let guard = lock.await.expect("a grant");
    // It may have ended again before this is told.
    let _ = guard.renew(Some(Duration::from_millis(20))).await;
    assert_eq!(guard.lost().await, Loss::Expired);
    until(client, "key", 0, 0).await;
    guard.token()
}

/// By the bytes on the wire: a client hides that it was told twice.
#[test]
fn a_holder_is_told_once_that_somebody_waits() {
    run(async {
        let broker = broker().await;
        let address = broker.tcp_address().expect("it listens on TCP");
        let mut stream = smol::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(&MAGIC).await.unwrap();
        let hello = Command::Hello(Hello {
            auth: &[],
            resume_window: Duration::ZERO,
            resume: None,
            name: "",
        });
        send(&mut stream, 1, hello).await;
        let mut buffer = [0; 64];
        let mut wants = SeqBuf::new(&mut buffer);
        assert!(wants.push(&WantFields {
            key: b"key",
            mode: Mode::Exclusive,
        }));
        let acquire = AcquireFields {
            wait: Wait::No,
            notify_contended: true,
            ..AcquireFields::new(RequestId::from_u128(7), wants.finish())
        };
        send(&mut stream, 2, Command::Acquire(acquire)).await;
        assert_eq!(contended_until(&mut stream, 2).await, 0);

        let client = connect(&broker).await;
        let wait = || smol::spawn(client.lock("key").wait_forever().into_future());
        let waiting = [wait(), wait()];
        until(&client, "key", 1, 2).await;
        for waiting in waiting {
            waiting.cancel().await;
        }
        until(&client, "key", 1, 0).await;
        let waiting = wait();
        until(&client, "key", 1, 1).await;

        send(&mut stream, 3, Command::Ping).await;
        assert_eq!(contended_until(&mut stream, 3).await, 1);
        drop(stream);
        drop(waiting.await.expect("a grant"));
    });
}

async fn send(stream: &mut smol::net::TcpStream, tag: u32, body: Command<'_>) {
    let mut bytes = Vec::new();
    frame::append(&Request { tag, seen: 0, body }, &mut bytes);
    stream.write_all(&bytes).await.expect("a connection");
}

/// How often somebody is said to wait before the answer with this tag.
async fn contended_until(stream: &mut smol::net::TcpStream, tag: u32) -> u32 {
    let mut count = 0;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.expect("an answer");
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut body).await.expect("an answer");
        let reply = Reply::decode(&body).expect("an answer");
        count += u32::from(matches!(reply.body, Answer::Contended { .. }));
        if reply.tag == tag {
            return count;
        }
    }
}

#[test]
fn without_async_each_mode_is_the_same() {
    let broker = run(broker());
    let client = setup(&broker).connect_blocking().expect("a connection");
    let one = client.lock("key").shared().acquire().expect("a grant");
    let mut two = client.lock("key").shared().acquire().expect("a grant");
    let writer = client.lock("key").try_now().acquire();
    assert!(matches!(writer, Err(LockError::Busy { .. })), "{writer:?}");
    one.release().expect("a release");
    two.upgrade().expect("a conversion");
    two.downgrade().expect("a conversion");
    drop(two);
    let permits = |permits| client.lock("key").semaphore(3, permits);
    let some = permits(2).acquire().expect("a grant");
    permits(2).try_now().acquire().expect_err("there is one");
    drop(some);
    let all = client.lock_all(["a", "b"]).also("c").shared().acquire();
    let all = all.expect("a grant");
    client
        .lock("b")
        .try_now()
        .acquire()
        .expect_err("it is held");
    drop(client.lock("c").shared().acquire().expect("a grant"));
    all.release().expect("a release");
}

#[test]
fn without_async_holders_are_told_and_requests_are_ended() {
    let broker = run(broker());
    let client = setup(&broker).connect_blocking().expect("a connection");
    let held = client.lock("key").notify_contended().label("who").acquire();
    let held = held.expect("a grant");
    let id = RequestId::from_u128(7);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.lock("key").id(id).wait_forever().acquire());
        held.contended();
        assert!(client.cancel(id));
        let error = waiting.join().unwrap().expect_err("it was cancelled");
        assert!(matches!(error, LockError::Cancelled), "{error}");
    });
    let ended = client.force_release_request(held.id()).expect("an answer");
    assert_eq!(ended.expect("it was held").label, b"who");
    assert_eq!(held.lost(), Loss::Revoked);
    let kept = client.lock("key").keep().no_lease().acquire();
    let kept = kept.expect("a grant").into_id();
    client.close();
    let other = setup(&broker).connect_blocking().expect("a connection");
    let ended = other.force_release("key").expect("an answer");
    assert_eq!(ended.iter().map(|it| it.id).collect::<Vec<_>>(), [kept]);
}

#[test]
fn without_async_a_circle_of_owners_is_refused() {
    let broker = run(broker());
    let client = setup(&broker).connect_blocking().expect("a connection");
    let [one, two] = [1, 2].map(|owner| NonZeroU32::new(owner).expect("not zero"));
    let _a = client.lock("a").owner(one).acquire().expect("a grant");
    let b = client.lock("b").owner(two).notify_contended().acquire();
    let b = b.expect("a grant");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.lock("b").owner(one).wait_forever().acquire());
        b.contended();
        let error = client.lock("a").owner(two).wait_forever().acquire();
        assert!(
            matches!(
                error,
                Err(LockError::Refused(AcquireError::Deadlock { .. }))
            ),
            "{error:?}"
        );
        b.release().expect("a release");
        drop(waiting.join().unwrap().expect("a grant"));
    });
}

#[test]
fn without_async_a_broken_connection_costs_neither_hold_nor_place() {
    let broker = run(broker());
    let proxy = Proxy::new(broker.tcp_address().expect("it listens on TCP"));
    let client = blocking::Client::from(run(through(&proxy, LONG)));
    let direct = setup(&broker).connect_blocking().expect("a connection");
    let held = client.lock("held").no_lease().acquire().expect("a grant");
    let first = direct.lock("queued").notify_contended().acquire();
    let first = first.expect("a grant");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.lock("queued").wait_forever().acquire());
        first.contended();
        proxy.cut();
        // It is in the queue before this one.
        let late = direct.lock("queued").try_now().acquire();
        assert!(
            matches!(late, Err(LockError::Busy { waiting: 1, .. })),
            "{late:?}"
        );
        first.release().expect("a release");
        drop(waiting.join().unwrap().expect("a grant"));
    });
    held.release().expect("a release");
    assert!(proxy.connections() > 1);
}

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::task::Wake;

use smol::LocalExecutor;
use smol::future::{FutureExt as _, block_on, yield_now};

use super::*;
use crate::clock::Alarm;
use crate::{Broker, Client, LockError};

/// Longer than the tests live.
const ALWAYS: Duration = Duration::from_hours(1);
/// What ends a test that hangs.
const HANG: Duration = Duration::from_mins(1);

/// Runs `test` alone, for how many lead at one time is limited, and ends it if it hangs.
fn run(test: impl Future<Output = ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let hang = async {
        Alarm::after(HANG).await;
        panic!("the test hangs")
    };
    block_on(test.or(hang));
}

async fn broker() -> Broker {
    let builder = Broker::builder().tcp("127.0.0.1", 0);
    builder.bind().await.expect("a broker")
}

/// A client whose futures have been found to be answered at once, and stay awake for so long.
async fn eager(broker: &Broker, awake_max: Duration) -> Client {
    let client = Client::builder()
        .endpoint(broker.addresses()[0].clone())
        .backoff(Duration::from_millis(1), Duration::from_millis(20));
    let client = client.connect().await.expect("a connection");
    client.handle.shared.lock().lead.judge = BusyPoll::eager(awake_max);
    client
}

async fn direct(broker: &Broker) -> Client {
    let client = Client::builder().endpoint(broker.addresses()[0].clone());
    let client = client.busy_poll(Duration::ZERO).connect().await;
    client.expect("a connection")
}

fn is_led(client: &Client) -> bool {
    client.handle.shared.lock().is_led()
}

fn has_leader(client: &Client) -> bool {
    client.handle.shared.lock().lead.leader.is_some()
}

/// A leader that is kept from the processor for long is one no more, but has been one.
fn has_been_led(client: &Client) -> bool {
    !client.handle.shared.lock().lead.buffer.is_empty()
}

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        yield_now().await;
    }
}

struct Tell(Mutex<Sender<()>>);

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.lock().expect("no panic").send(());
    }
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

#[test]
fn whoever_waits_leads_until_it_has_its_answer() {
    run(async {
        let broker = broker().await;
        let (client, other) = (eager(&broker, ALWAYS).await, direct(&broker).await);
        let held = other.lock("key").await.expect("a grant");
        let mut waiting = pin!(client.lock("key").wait_forever().into_future());
        assert!(poll_once(waiting.as_mut(), Waker::noop()).is_pending());
        assert!(has_been_led(&client));
        let free = async { held.release().await.expect("a release") };
        let grant = async {
            let guard = waiting.await.expect("a grant");
            assert!(!has_leader(&client));
            drop(guard);
        };
        smol::future::zip(free, grant).await;
        client.ping().await.expect("an answer");
    });
}

#[test]
fn when_a_leader_is_dropped_the_driver_wakes_those_who_wait() {
    run(async {
        let broker = broker().await;
        let (client, other) = (eager(&broker, ALWAYS).await, direct(&broker).await);
        let held = other.lock("key").await.expect("a grant");
        let guard = client.lock("guarded").await.expect("a grant");
        let (told, hears) = channel();
        let waker = Waker::from(Arc::new(Tell(Mutex::new(told))));
        let mut lost = pin!(guard.lost());
        assert!(poll_once(lost.as_mut(), &waker).is_pending());
        {
            let mut leader = pin!(client.lock("key").wait_forever().into_future());
            assert!(poll_once(leader.as_mut(), Waker::noop()).is_pending());
            assert!(has_been_led(&client));
        }
        assert!(!is_led(&client));
        other.force_release("guarded").await.expect("an answer");
        hears.recv_timeout(HANG).expect("it is woken");
        assert!(poll_once(lost.as_mut(), &waker).is_ready());
        drop(held);
    });
}

#[test]
fn when_a_leaders_executor_is_blocked_the_driver_wakes_those_who_wait() {
    run(async {
        let broker = broker().await;
        let (client, other) = (eager(&broker, ALWAYS).await, direct(&broker).await);
        let held = other.lock("key").await.expect("a grant");
        let guard = client.lock("guarded").await.expect("a grant");
        let (told, hears) = channel();
        let waker = Waker::from(Arc::new(Tell(Mutex::new(told))));
        let mut lost = pin!(guard.lost());
        assert!(poll_once(lost.as_mut(), &waker).is_pending());
        let mut leader = pin!(client.lock("key").wait_forever().into_future());
        assert!(poll_once(leader.as_mut(), Waker::noop()).is_pending());
        assert!(has_been_led(&client));
        // It is not polled any more. The driver leaves the socket to it for a moment.
        other.force_release("guarded").await.expect("an answer");
        hears.recv_timeout(HANG).expect("it is woken");
        assert!(poll_once(lost.as_mut(), &waker).is_ready());
        held.release().await.expect("a release");
        drop(leader.await.expect("a grant"));
    });
}

#[test]
fn another_threads_requests_are_answered_while_a_leaders_executor_is_blocked() {
    run(async {
        let broker = broker().await;
        let (client, other) = (eager(&broker, ALWAYS).await, direct(&broker).await);
        let held = other.lock("key").await.expect("a grant");
        let mut leader = pin!(client.lock("key").wait_forever().into_future());
        assert!(poll_once(leader.as_mut(), Waker::noop()).is_pending());
        assert!(has_been_led(&client));
        let (answered, hears) = channel();
        let asking = client.clone();
        let thread = std::thread::spawn(move || {
            for _ in 0..10 {
                block_on(asking.ping()).expect("an answer");
            }
            answered.send(()).expect("somebody listens");
        });
        hears.recv_timeout(HANG).expect("its answers");
        thread.join().expect("no panic");
        drop(held);
        drop(leader.await.expect("a grant"));
    });
}

/// Holds a lock with a short lease that is renewed, and finds it held several times as long
/// while `meanwhile` goes on.
async fn stays_held(client: &Client, other: &Client, meanwhile: impl Future<Output = ()>) {
    // So long that a busy machine is no reason to lose it.
    let lease = Duration::from_millis(600);
    let guard = client.lock("renewed").lease(lease).renewed().await;
    let guard = guard.expect("a grant");
    let tries = async {
        let wait = Duration::from_secs(2);
        let tried = other.lock("renewed").wait(wait).await;
        let error = tried.expect_err("it is held");
        assert!(matches!(error, LockError::TimedOut { .. }), "{error}");
    };
    tries
        .or(async {
            meanwhile.await;
            std::future::pending::<()>().await;
        })
        .await;
    assert!(guard.is_valid());
}

#[test]
fn leases_are_renewed_while_a_leaders_executor_is_blocked() {
    run(async {
        let broker = broker().await;
        let (client, other) = (eager(&broker, ALWAYS).await, direct(&broker).await);
        let _held = other.lock("key").await.expect("a grant");
        stays_held(&client, &other, async {
            let mut leader = pin!(client.lock("key").wait_forever().into_future());
            assert!(poll_once(leader.as_mut(), Waker::noop()).is_pending());
            assert!(has_been_led(&client));
            std::future::pending::<()>().await;
        })
        .await;
    });
}

#[test]
fn leases_are_renewed_while_a_leader_stays_awake() {
    run(async {
        let broker = broker().await;
        let (client, other) = (eager(&broker, ALWAYS).await, direct(&broker).await);
        let _held = other.lock("key").await.expect("a grant");
        stays_held(&client, &other, async {
            let waiting = client.lock("key").wait_forever();
            drop(waiting.await.expect("a grant"));
        })
        .await;
    });
}

#[test]
fn executors_of_two_threads_share_a_client() {
    run(async {
        let broker = broker().await;
        let client = eager(&broker, ALWAYS).await;
        let inside = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (client, inside) = (client.clone(), Arc::clone(&inside));
                std::thread::spawn(move || {
                    let executor = LocalExecutor::new();
                    let cycles = async || {
                        for _ in 0..100 {
                            let guard = client.lock("key").wait_forever().await;
                            let guard = guard.expect("a grant");
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            guard.release().await.expect("a release");
                        }
                    };
                    let tasks: Vec<_> = (0..5).map(|_| executor.spawn(cycles())).collect();
                    block_on(executor.run(async {
                        for task in tasks {
                            task.await;
                        }
                    }));
                })
            })
            .collect();
        for thread in threads {
            smol::unblock(|| thread.join().expect("no panic")).await;
        }
        let status = client.status().await.expect("an answer");
        assert_eq!((status.grants, status.held, status.waiting), (1000, 0, 0));
    });
}

#[test]
fn a_leader_whose_broker_goes_is_told_and_the_client_comes_back() {
    run(async {
        let first = broker().await;
        let (client, other) = (eager(&first, ALWAYS).await, direct(&first).await);
        let held = other.lock("key").await.expect("a grant");
        let executor = LocalExecutor::new();
        let waiting = executor.spawn(client.lock("key").wait_forever().into_future());
        let goes = async {
            until(|| has_been_led(&client)).await;
            let address = first.tcp_address().expect("it listens on TCP");
            first.stop().await.expect("a clean end");
            until(|| !client.is_connected()).await;
            assert!(!is_led(&client));
            let ip = address.ip().to_string();
            let again = Broker::builder().tcp(ip, address.port()).bind().await;
            let again = again.expect("a broker");
            // Granted anew, or told that its session is lost.
            drop(waiting.await);
            while client.ensure().await.is_err() {}
            drop(client.lock("other").await.expect("a grant"));
            again.stop().await.expect("a clean end");
        };
        executor.run(goes).await;
        drop(held);
    });
}

#[test]
fn a_client_is_closed_while_a_leader_stays_awake() {
    run(async {
        let broker = broker().await;
        let (client, other) = (eager(&broker, ALWAYS).await, direct(&broker).await);
        let held = other.lock("key").await.expect("a grant");
        let executor = LocalExecutor::new();
        let waiting = executor.spawn(client.lock("key").wait_forever().into_future());
        let closes = async {
            until(|| has_been_led(&client)).await;
            client.clone().close().await;
            let error = waiting.await.expect_err("it is closed");
            assert!(matches!(error, LockError::Closed), "{error}");
            assert!(!is_led(&client));
        };
        executor.run(closes).await;
        drop(held);
    });
}

#[test]
fn a_leader_gives_up_when_nothing_comes_and_the_driver_wakes_it() {
    run(async {
        let broker = broker().await;
        let awake_max = Duration::from_micros(50);
        let (client, other) = (eager(&broker, awake_max).await, direct(&broker).await);
        let held = other.lock("key").await.expect("a grant");
        let mut waiting = pin!(client.lock("key").wait_forever().into_future());
        assert!(poll_once(waiting.as_mut(), Waker::noop()).is_pending());
        assert!(has_been_led(&client));
        while has_leader(&client) {
            assert!(poll_once(waiting.as_mut(), Waker::noop()).is_pending());
        }
        assert!(!is_led(&client));
        held.release().await.expect("a release");
        drop(waiting.await.expect("a grant"));
    });
}

#[test]
fn whoever_gave_up_a_few_times_leads_no_more_until_messages_come_again() {
    let mut lead = Lead::new(ALWAYS);
    lead.judge = BusyPoll::eager(Duration::from_micros(50));
    let mut times = 0;
    while lead.judge.stays_awake() {
        lead.leader = Some(1);
        lead.forget_leader();
        times += 1;
    }
    assert_eq!(times, 4);
    let mut now = Instant::from_nanos(1_000_000_000);
    while !lead.judge.stays_awake() {
        now = now + Duration::from_micros(20);
        lead.handle_message(now);
    }
}

#[test]
fn a_client_that_is_not_to_stay_awake_is_never_led() {
    run(async {
        let broker = broker().await;
        let client = direct(&broker).await;
        for _ in 0..20 {
            client.ping().await.expect("an answer");
        }
        assert!(!has_been_led(&client));
    });
}

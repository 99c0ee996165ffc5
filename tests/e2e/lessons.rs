//! What other lock services got wrong: one test for each lesson that concerns exclusive
//! locks of a single broker and shows from outside. Its name begins with who learnt it.
//! (More of them are tested where they can be forced: in `core` and `sim`.)

use nix::sys::signal::Signal;

use lmx::core::table;
use lmx::{LockError, ReleaseError, blocking};

use super::harness::{Broker, Process, fail, lives, lmx, succeed};

fn client(broker: &Broker) -> blocking::Client {
    blocking::Client::connect(&format!("127.0.0.1:{}", broker.port)).unwrap()
}

#[test]
fn etcd_11456_a_waiter_whose_session_died_is_never_granted() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k"]));
    let dead = Process::spawn(broker.lmx(["acquire", "k", "--wait", "forever"]));
    broker.until_counts("k", 1, 1);
    dead.signal(Signal::SIGKILL);
    broker.until_counts("k", 1, 0);
    succeed(&mut broker.lmx(["release", "k"]));
    assert_eq!(broker.counts("k"), (0, 0));
}

#[test]
fn etcd_22082_a_retried_release_does_not_end_a_newer_lock() {
    let broker = Broker::start();
    let old = broker.json(&["acquire", "k"]);
    let old = old["id"].as_str().unwrap();
    succeed(&mut broker.lmx(["release", "k", "--id", old]));
    let new = broker.json(&["acquire", "k"]);
    fail(&mut broker.lmx(["release", "k", "--id", old]), 80);
    assert_eq!(
        broker.json(&["inspect", "k"])["holders"][0]["id"],
        new["id"]
    );
}

#[test]
fn etcd_v3lock_a_grant_states_its_deadline() {
    let broker = Broker::start();
    let leased = broker.json(&["acquire", "leased", "--lease", "1h"]);
    assert!(leased["deadline"].is_string());
    let endless = broker.json(&["acquire", "endless"]);
    assert!(endless["deadline"].is_null());
    assert!(broker.json(&["inspect", "endless"])["holders"][0]["deadline"].is_null());
}

#[test]
fn consul_9788_two_commands_never_run_at_one_time() {
    let broker = Broker::start();
    let options = ["--lease", "2s"];
    let mut first = Process::spawn(broker.run_sh("k", &options, "echo $$; sleep 1000"));
    let shell = first.pid_line();
    // The broker does not hear of the first any more, and it hears nothing of the broker.
    first.signal(Signal::SIGSTOP);
    let second = broker.json(&["acquire", "k", "--wait", "forever"]);
    assert!(second["token"].as_u64().unwrap() > 1);
    assert!(!lives(shell));
}

#[test]
fn consul_947_the_exit_code_of_the_command_is_not_lost() {
    let broker = Broker::start();
    fail(&mut broker.run_sh("k", &[], "exit 42"), 42);
}

#[test]
fn consul_4439_signals_are_obeyed_while_queued() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k"]));
    let mut run = Process::spawn(broker.run_sh("k", &[], "true"));
    broker.until_counts("k", 1, 1);
    run.signal(Signal::SIGINT);
    assert_eq!(run.code(), 130);
    assert_eq!(broker.counts("k"), (1, 0));
}

#[test]
fn consul_797_signals_are_passed_on() {
    let broker = Broker::start();
    let script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done";
    let mut run = Process::spawn(broker.run_sh("k", &[], script));
    assert_eq!(run.line(), "up");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 9);
}

#[test]
fn consul_2489_nobody_is_orphaned() {
    let broker = Broker::start();
    let mut run = Process::spawn(broker.run_sh("k", &[], "sleep 1000 & echo $!; wait"));
    let grandchild = run.pid_line();
    run.signal(Signal::SIGKILL);
    super::harness::until_dead(grandchild);
}

#[test]
fn redisson_7272_nothing_renews_a_lock_that_was_given_back() {
    let broker = Broker::start();
    let client = client(&broker);
    let guard = client.lock("k").acquire().unwrap();
    let id = guard.id();
    guard.release().unwrap();
    assert!(matches!(
        client.release_id(id),
        Err(ReleaseError::Failed(_))
    ));
    // Its place is free, and stays so.
    let again = client.lock("k").try_now().acquire().unwrap();
    assert_ne!(again.id(), id);
    assert!(again.is_valid());
}

#[test]
fn redisson_3194_renewal_goes_on_after_a_failure() {
    let broker = Broker::start();
    let mut run = Process::spawn(broker.run_sh(
        "k",
        &["--lease", "4s"],
        "echo up; while ! test -e go; do sleep 0.01; done; exit 4",
    ));
    assert_eq!(run.line(), "up");
    // For a moment nobody answers, then all goes on: a renewal or two is late.
    broker.signal(Signal::SIGSTOP);
    succeed(
        std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done"]),
    );
    broker.signal(Signal::SIGCONT);
    broker.until_renewed("k");
    broker.write("go", "");
    assert_eq!(run.code(), 4);
}

#[test]
fn redisson_1104_dead_waiters_do_not_stall_the_living() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k"]));
    let dead: Vec<Process> = (0..5)
        .map(|number| {
            let waiter = Process::spawn(broker.lmx(["acquire", "k", "--wait", "forever"]));
            broker.until_counts("k", 1, number + 1);
            waiter
        })
        .collect();
    let mut living = Process::spawn(broker.lmx(["acquire", "k", "--wait", "forever"]));
    broker.until_counts("k", 1, 6);
    for waiter in &dead {
        waiter.signal(Signal::SIGKILL);
    }
    succeed(&mut broker.lmx(["release", "k"]));
    assert_eq!(living.code(), 0);
    broker.until_counts("k", 1, 0);
}

#[test]
fn redisson_4050_several_keys_are_never_held_while_waiting() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "b"]));
    let waiting = Process::spawn(broker.lmx(["acquire", "a", "--also", "b", "--wait", "forever"]));
    broker.until_counts("a", 0, 1);
    assert_eq!(broker.counts("b"), (1, 1));
    drop(waiting);
    broker.until_counts("a", 0, 0);
}

#[test]
fn redisson_rw_readers_do_not_barge_past_a_writer() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k", "--shared"]));
    let writer = Process::spawn(broker.lmx(["acquire", "k", "--wait", "forever"]));
    broker.until_counts("k", 1, 1);
    fail(&mut broker.lmx(["acquire", "k", "--shared", "--try"]), 1);
    drop(writer);
    broker.until_counts("k", 1, 0);
    succeed(&mut broker.lmx(["acquire", "k", "--shared", "--try"]));
}

#[test]
fn curator_1121_a_request_of_another_session_is_not_ones_own() {
    let broker = Broker::start();
    let (one, other) = (client(&broker), client(&broker));
    let guard = one.lock("k").acquire().unwrap();
    let refused = other.release("k", guard.id()).unwrap_err();
    let refusal = table::ReleaseError::NotOwner.into();
    assert!(matches!(refused, ReleaseError::Failed(why) if why == refusal));
    assert!(guard.is_valid());
    guard.release().unwrap();
}

#[test]
fn dflockd_a_grant_that_races_with_the_end_of_a_wait_leaks_nothing() {
    let broker = Broker::start();
    let holder = client(&broker);
    let waiter = client(&broker);
    for round in 0..300_u64 {
        let guard = holder.lock("k").acquire().unwrap();
        let wait = std::time::Duration::from_micros(round * 7);
        let waiting = waiter.clone();
        let racing = std::thread::spawn(move || waiting.lock("k").wait(wait).acquire());
        guard.release().unwrap();
        match racing.join().unwrap() {
            Ok(won) => won.release().unwrap(),
            Err(LockError::TimedOut { .. } | LockError::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(broker.counts("k"), (0, 0));
}

#[test]
fn live_mutex_17_an_infinite_lease_is_no_lease() {
    let broker = Broker::start();
    for lease in ["Infinity", "inf", "NaN", "1e999", "-0"] {
        fail(
            &mut broker.lmx(["acquire", "k", &format!("--lease={lease}")]),
            64,
        );
    }
    assert_eq!(broker.counts("k"), (0, 0));
}

#[test]
fn live_mutex_131_a_wrong_id_evicts_nobody() {
    let broker = Broker::start();
    let lock = broker.json(&["acquire", "k"]);
    let wrong = "00000000-0000-4000-8000-000000000000";
    fail(&mut broker.lmx(["release", "k", "--id", wrong]), 80);
    assert_eq!(
        broker.json(&["inspect", "k"])["holders"][0]["id"],
        lock["id"]
    );
}

#[test]
fn postgres_a_release_of_what_is_not_held_is_an_error() {
    let broker = Broker::start();
    fail(&mut broker.lmx(["release", "k"]), 80);
}

#[test]
fn hazelcast_the_default_is_the_safe_one() {
    // Nobody else can reach it, unless that is asked for or they must say who they are.
    let words = fail(&mut lmx(["start", "0", "--host", "0.0.0.0"]), 64);
    assert!(words.contains("--allow-public"), "{words}");
    let broker = Broker::start();
    assert!(!broker.json(&["acquire", "k"])["token"].is_null());
}

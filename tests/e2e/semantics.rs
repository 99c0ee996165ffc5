//! What can be said of a lock, as options of the command.

use serde_json::json;

use super::harness::{Broker, Process, fail, stdout, succeed};

#[test]
fn readers_and_writers_are_served_in_the_order_they_came() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k", "--shared"]));
    let mut writer = Process::spawn(broker.lmx(["acquire", "k", "--wait", "forever"]));
    broker.until_counts("k", 1, 1);
    let args = ["acquire", "k", "--shared", "--wait", "forever"];
    let mut reader = Process::spawn(broker.lmx(args));
    broker.until_counts("k", 1, 2);
    succeed(&mut broker.lmx(["release", "k"]));
    assert_eq!(writer.code(), 0);
    assert_eq!(broker.counts("k"), (1, 1));
    succeed(&mut broker.lmx(["release", "k"]));
    assert_eq!(reader.code(), 0);
    assert_eq!(
        broker.json(&["inspect", "k"])["holders"][0]["mode"],
        "shared"
    );
}

#[test]
fn a_refusal_and_an_inspection_name_label_mode_lease_and_queue() {
    let broker = Broker::start();
    let args = ["acquire", "k", "--semaphore", "3:2", "--label", "page 3"];
    succeed(broker.lmx(args).args(["--lease", "1h"]));
    let _waiting = Process::spawn(broker.lmx(["acquire", "k", "--wait", "forever"]));
    broker.until_counts("k", 1, 1);
    let words = fail(&mut broker.lmx(["acquire", "k", "--try"]), 1);
    for part in ["page 3", "2 of 3 permits", "lease ends in 3", "1 waiting"] {
        assert!(words.contains(part), "{words}");
    }
    let words = stdout(&mut broker.lmx(["inspect", "k"]));
    for part in ["page 3", "2 of 3 permits", "exclusive"] {
        assert!(words.contains(part), "{words}");
    }
    let holder = &broker.json(&["inspect", "k"])["holders"][0];
    assert_eq!(holder["label"], "page 3");
    let mode = json!({ "semaphore": { "capacity": 3, "permits": 2 } });
    assert_eq!(holder["mode"], mode);
}

#[test]
fn the_newest_capacity_counts() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k", "--semaphore", "2:2"]));
    fail(
        &mut broker.lmx(["acquire", "k", "--semaphore", "2", "--try"]),
        1,
    );
    succeed(&mut broker.lmx(["acquire", "k", "--semaphore", "3", "--try"]));
    let words = fail(&mut broker.lmx(["acquire", "k", "--semaphore", "3:4"]), 64);
    assert!(words.contains("4 permits"), "{words}");
}

#[test]
fn a_circle_of_owners_is_refused() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "a", "--owner", "1"]));
    succeed(&mut broker.lmx(["acquire", "b", "--owner", "2"]));
    let args = ["acquire", "b", "--owner", "1", "--wait", "forever"];
    let _waiting = Process::spawn(broker.lmx(args));
    broker.until_counts("b", 1, 1);
    let args = ["acquire", "a", "--owner", "2", "--wait", "forever"];
    let words = fail(&mut broker.lmx(args), 70);
    assert!(words.contains("cycle of owners"), "{words}");
}

#[test]
fn a_lock_delay_follows_an_expiry_and_no_release() {
    let broker = Broker::start_with(&["--lock-delay-max", "1h"]);
    let args = ["acquire", "k", "--lock-delay", "1h", "--lease", "1m"];
    succeed(&mut broker.lmx(args));
    succeed(&mut broker.lmx(["release", "k"]));
    succeed(&mut broker.lmx(["acquire", "k", "--try"]));
    succeed(&mut broker.lmx(["release", "k"]));
    let args = ["acquire", "k", "--lock-delay", "1h", "--lease", "20ms"];
    // Its lease may have ended before it could be told.
    let _ = broker.lmx(args).output().expect("it runs");
    broker.until_counts("k", 0, 0);
    fail(&mut broker.lmx(["acquire", "k", "--try"]), 1);
}

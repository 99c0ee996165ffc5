//! What clients of live-mutex forget, what they do not know that they have lost, and for how long
//! that is remembered for them.

use std::time::Duration;

use super::names::{waiters, world};
use super::world::{Lines, World};

/// After so long it is asked whether a grant is still wanted.
const ASKED_AFTER_MS: u64 = 500;
/// Who does not answer that for so long has not forgotten it.
const ANSWERED_WITHIN_MS: u64 = 4500;
const NO_WARNING: &str = "\"unlocked\":true}";

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What only Node clients say: those that confirm what they get.
const OF_NODE: &str = ",\"keepLocksAfterDeath\":false,\"rwStatus\":null,\"max\":null";

impl Lines {
    /// The id of the question, if it is asked one.
    fn is_asked(&self, world: &mut World) -> Option<String> {
        let told = self.told(world);
        let line = told.lines().find(|line| !line.contains("fencingToken"))?;
        assert!(line.contains("\"acquired\":true"), "{told}");
        let (_, rest) = line.split_once("\"uuid\":\"").expect(line);
        rest.split('"').next().map(str::to_owned)
    }

    fn denies(&self, world: &mut World, question: &str) {
        self.notes(world, "lock-received-rejected", question, "k");
    }

    /// Locks for so many milliseconds, as the attempt of that number.
    fn tries(
        &self,
        world: &mut World,
        id: &str,
        key: &str,
        millis: u64,
        retry: u32,
    ) -> Option<bool> {
        let line = format!(
            "{{\"type\":\"lock\",\"uuid\":\"{id}\",\"key\":\"{key}\",\"pid\":1,\"ttl\":{millis},\"retryCount\":{retry}}}"
        );
        self.says(world, &line);
        self.is_acquired(world, id, key)
    }

    /// What an unlock is answered with.
    fn gives_back(&self, world: &mut World, id: &str, key: &str) -> String {
        let line =
            format!("{{\"type\":\"unlock\",\"uuid\":\"u\",\"_uuid\":\"{id}\",\"key\":\"{key}\"}}");
        self.says(world, &line);
        self.told(world).trim().to_owned()
    }
}

#[test]
fn who_has_forgotten_one_is_asked_about_the_next_at_once_until_it_keeps_one() {
    let (mut world, [a, b, _]) = world();
    assert_eq!(a.locks(&mut world, "a1", "k"), Some(true));
    for id in ["b1", "b2", "b3", "b4"] {
        assert_eq!(b.asks(&mut world, id, "k", OF_NODE), Some(false));
    }
    assert!(a.unlocks(&mut world, "a1", "k"));
    assert_eq!(b.is_asked(&mut world), None);
    world.later(ms(ASKED_AFTER_MS - 1));
    assert_eq!(b.is_asked(&mut world), None);
    world.later(ms(1));
    let question = b.is_asked(&mut world).expect("it has not confirmed");
    // Nothing is taken back unasked, and not by an answer to something else.
    b.denies(&mut world, "other");
    assert_eq!(waiters(&world, "k"), 3);
    b.denies(&mut world, &question);
    assert_eq!(waiters(&world, "k"), 2);
    let question = b.is_asked(&mut world).expect("it has forgotten one");
    b.denies(&mut world, &question);
    assert_eq!(waiters(&world, "k"), 1);
    let question = b.is_asked(&mut world).expect("it has forgotten two");
    b.notes(&mut world, "lock-received", "b3", "k");
    b.denies(&mut world, &question);
    assert_eq!(b.holders(&mut world, "k"), "[\"b3\"]");
    // It is there: of the next one it is asked when the time has come.
    assert!(b.unlocks(&mut world, "b3", "k"));
    world.later(ms(ASKED_AFTER_MS - 1));
    assert_eq!(b.is_asked(&mut world), None);
    world.later(ms(1));
    assert!(b.is_asked(&mut world).is_some());
}

#[test]
fn who_does_not_answer_keeps_what_it_was_asked_about() {
    let (mut world, [a, b, c]) = world();
    assert_eq!(a.locks(&mut world, "a1", "k"), Some(true));
    assert_eq!(b.asks(&mut world, "b1", "k", OF_NODE), Some(false));
    assert_eq!(c.locks(&mut world, "c1", "other"), Some(true));
    assert!(a.unlocks(&mut world, "a1", "k"));
    b.told(&mut world);
    world.later(ms(ASKED_AFTER_MS));
    let question = b.is_asked(&mut world).expect("it has not confirmed");
    world.later(ms(ANSWERED_WITHIN_MS - 1));
    // What is granted meanwhile is not what it was asked about.
    assert_eq!(b.asks(&mut world, "b2", "other", OF_NODE), Some(false));
    assert!(c.unlocks(&mut world, "c1", "other"));
    assert_eq!(b.is_asked(&mut world), None);
    world.later(ms(1));
    assert_eq!(b.is_asked(&mut world), None);
    b.denies(&mut world, &question);
    assert_eq!(b.holders(&mut world, "k"), "[\"b1\"]");
    // And nor is it asked of that again.
    world.later(ms(ASKED_AFTER_MS));
    let question = b.is_asked(&mut world).expect("of the second");
    b.denies(&mut world, &question);
    assert_eq!(b.holders(&mut world, "k"), "[\"b1\"]");
    assert_eq!(b.holders(&mut world, "other"), "[]");
}

#[test]
fn what_was_lost_with_its_connection_is_released_once_and_asked_for_anew() {
    let (mut world, [a, b, c]) = world();
    assert_eq!(a.locks(&mut world, "a1", "1"), Some(true));
    assert_eq!(a.locks(&mut world, "a2", "2"), Some(true));
    let kept = ",\"keepLocksAfterDeath\":true";
    assert_eq!(a.asks(&mut world, "a3", "3", kept), Some(true));
    assert_eq!(b.locks(&mut world, "b1", "4"), Some(true));
    assert_eq!(a.locks(&mut world, "a4", "4"), Some(false));
    world.broker.handle_disconnect(world.now, a.0);
    let late = c.gives_back(&mut world, "a1", "1");
    assert!(late.contains("\"unlocked\":true,\"warning\":"), "{late}");
    assert!(!c.unlocks(&mut world, "a1", "1"), "once");
    let kept = c.gives_back(&mut world, "a3", "3");
    assert!(kept.ends_with(NO_WARNING), "{kept}");
    // What only waited was never held.
    assert!(!c.unlocks(&mut world, "a4", "4"));
    // The answer may have been lost with the connection.
    assert_eq!(c.tries(&mut world, "a2", "2", 1000, 1), Some(true));
}

#[test]
fn what_looks_like_a_retry_after_a_grant_that_was_confirmed_is_a_new_request() {
    let (mut world, [a, b, c]) = world();
    for (is_confirmed, ends) in [
        (false, "unlock"),
        (false, "ttl"),
        (true, "unlock"),
        (true, "ttl"),
    ] {
        let (id, key) = (format!("{is_confirmed}"), ends);
        assert_eq!(a.tries(&mut world, &id, key, 100, 0), Some(true));
        if is_confirmed {
            a.notes(&mut world, "lock-received", &id, key);
        }
        if ends == "unlock" {
            assert!(a.unlocks(&mut world, &id, key));
        } else {
            world.later(ms(100));
        }
        let again = a.tries(&mut world, &id, key, 100, 1);
        assert_eq!(again, Some(is_confirmed), "{is_confirmed} {ends}");
        assert_eq!(waiters(&world, key), 0);
        a.unlocks(&mut world, &id, key);
    }
    // Another who waits under the same id is told to go on trying, if it does.
    assert_eq!(a.locks(&mut world, "held", "k"), Some(true));
    assert_eq!(b.locks(&mut world, "shared", "k"), Some(false));
    assert_eq!(c.tries(&mut world, "shared", "k", 100, 0), Some(false));
    assert_eq!(waiters(&world, "k"), 1);
    c.says(
        &mut world,
        "{\"type\":\"lock\",\"uuid\":\"shared\",\"key\":\"k\"}",
    );
    assert!(c.told(&mut world).contains("\"error\""));
}

/// Which of many, all of which share a place in what is remembered.
fn rival(number: u32) -> String {
    format!(
        "00000000-0000-0000-0000-{:012x}",
        0x400 * u64::from(number) + 5
    )
}

#[test]
fn who_is_still_to_be_told_is_remembered_longer_than_who_is_not() {
    let (mut world, [a, b, _]) = world();
    let expires = |world: &mut World, number| {
        assert_eq!(a.tries(world, &rival(number), "k", 100, 0), Some(true));
        world.later(ms(100));
    };
    let ends = |world: &mut World, number| {
        assert_eq!(a.locks(world, &rival(number), "k"), Some(true));
        assert!(a.unlocks(world, &rival(number), "k"));
    };
    expires(&mut world, 0);
    for number in 1..40 {
        ends(&mut world, number);
        // It is known for a while that this has ended.
        let again = a.tries(&mut world, &rival(number), "k", 100, 1);
        assert_eq!(again, Some(false), "{number}");
    }
    // Those of before are not known any more.
    assert_eq!(a.tries(&mut world, &rival(33), "k", 100, 1), Some(false));
    assert_eq!(a.tries(&mut world, &rival(32), "k", 100, 1), Some(true));
    assert!(a.unlocks(&mut world, &rival(32), "k"));
    let late = b.gives_back(&mut world, &rival(0), "k");
    assert!(late.contains("\"warning\":"), "{late}");
    // Where all are to be told, the oldest is not.
    for number in 100..109 {
        expires(&mut world, number);
    }
    assert!(!b.unlocks(&mut world, &rival(100), "k"));
    for number in 101..109 {
        let late = b.gives_back(&mut world, &rival(number), "k");
        assert!(late.contains("\"warning\":"), "{number}: {late}");
    }
    // Others have places of their own.
    expires(&mut world, 0);
    for number in 0..5 * 0x400 {
        if number % 0x400 != 5 {
            let id = format!("00000000-0000-0000-0000-{number:012x}");
            assert_eq!(a.tries(&mut world, &id, "k", 100, 0), Some(true));
            world.later(ms(100));
        }
    }
    let late = b.gives_back(&mut world, &rival(0), "k");
    assert!(late.contains("\"warning\":"), "{late}");
}

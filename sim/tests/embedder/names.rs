//! Ids of live-mutex, which name a lock on each of several keys.

use std::time::Duration;

use lmx_core::broker::BrokerConfig;
use lmx_core::{Key, RequestId};

use super::world::{Ask, Lines, World};

const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

impl Lines {
    /// Whether it is granted: true, false, or nothing yet.
    pub(super) fn locks(&self, world: &mut World, id: &str, key: &str) -> Option<bool> {
        self.asks(world, id, key, "")
    }

    pub(super) fn asks(&self, world: &mut World, id: &str, key: &str, more: &str) -> Option<bool> {
        let line = format!(
            "{{\"type\":\"lock\",\"uuid\":\"{id}\",\"key\":\"{key}\",\"pid\":1,\"retryCount\":0,\"ttl\":null{more}}}"
        );
        self.says(world, &line);
        self.is_acquired(world, id, key)
    }

    pub(super) fn is_acquired(&self, world: &mut World, id: &str, key: &str) -> Option<bool> {
        let told = self.told(world);
        if told.is_empty() {
            return None;
        }
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(&format!("\"uuid\":\"{id}\"")), "{told}");
        assert!(told.contains(&format!("\"key\":\"{key}\"")), "{told}");
        assert!(!told.contains("error"), "{told}");
        Some(told.contains("\"acquired\":true"))
    }

    pub(super) fn unlocks(&self, world: &mut World, id: &str, key: &str) -> bool {
        let line =
            format!("{{\"type\":\"unlock\",\"uuid\":\"u\",\"_uuid\":\"{id}\",\"key\":\"{key}\"}}");
        self.says(world, &line);
        self.told(world).contains("\"unlocked\":true")
    }

    /// Says `kind` of the lock under this id on this key.
    pub(super) fn notes(&self, world: &mut World, kind: &str, id: &str, key: &str) {
        let line = format!("{{\"type\":\"{kind}\",\"uuid\":\"{id}\",\"key\":\"{key}\"}}");
        self.says(world, &line);
    }

    pub(super) fn holders(&self, world: &mut World, key: &str) -> String {
        self.notes(world, "lock-info-request", "i", key);
        let told = self.told(world);
        let (_, rest) = told.split_once("\"lockholderUUIDs\":").expect(&told);
        rest.split_inclusive(']').next().expect(&told).to_owned()
    }
}

pub(super) fn world() -> (World, [Lines; 3]) {
    let mut world = World::ephemeral(BrokerConfig::default());
    let lines = [(); 3].map(|()| world.lines());
    (world, lines)
}

/// The request that holds the key.
fn holder(world: &World, key: &str) -> RequestId {
    let key = Key::new(key.as_bytes(), 8).expect("short enough");
    let view = world.broker.table().inspect(key).expect("it is held");
    view.holders().next().expect("it is held").id()
}

pub(super) fn waiters(world: &World, key: &str) -> u32 {
    let key = Key::new(key.as_bytes(), 8).expect("short enough");
    let view = world.broker.table().inspect(key);
    view.map_or(0, |view| view.waiters_len())
}

#[test]
fn one_id_names_a_lock_on_each_of_several_keys() {
    for id in ["order", UUID] {
        let (mut world, [a, b, c]) = world();
        assert_eq!(a.locks(&mut world, id, "1"), Some(true));
        assert_eq!(a.locks(&mut world, id, "2"), Some(true));
        assert_eq!(b.locks(&mut world, id, "3"), Some(true));
        for key in ["1", "2", "3"] {
            assert_eq!(a.holders(&mut world, key), format!("[\"{id}\"]"));
            // On its own key each is what it ever was: in use.
            assert_eq!(b.locks(&mut world, id, key), Some(false));
            assert_eq!(c.locks(&mut world, "other", key), Some(false));
        }
        let held = ["1", "2", "3"].map(|key| holder(&world, key));
        assert!(held[0] != held[1] && held[0] != held[2] && held[1] != held[2]);
        for key in ["2", "3", "1"] {
            assert!(a.unlocks(&mut world, id, key), "{key}");
            assert_eq!(c.is_acquired(&mut world, "other", key), Some(true));
            assert!(!a.unlocks(&mut world, id, key), "{key}");
            assert!(c.unlocks(&mut world, "other", key));
        }
        // Free again for any key.
        assert_eq!(b.locks(&mut world, id, "2"), Some(true));
        assert_eq!(b.locks(&mut world, id, "1"), Some(true));
    }
}

#[test]
fn only_an_id_that_is_in_use_on_another_key_is_another_there() {
    let (mut world, [a, b, _]) = world();
    assert_eq!(a.locks(&mut world, UUID, "1"), Some(true));
    let id = RequestId::of_live_mutex(UUID);
    assert_eq!(holder(&world, "1"), id);
    // A native client's is nobody's here to use again.
    let mut native = world.hello(None);
    native.asks(&mut world, Ask::new(7, &["n"]));
    let seven = "00000000-0000-0000-0000-000000000007";
    assert_eq!(b.locks(&mut world, seven, "2"), Some(false));
    // Nor is one that several keys were asked for under, on one of these.
    let line = "{\"type\":\"acquire-many\",\"uuid\":\"m\",\"keys\":[\"3\",\"4\"],\"ttl\":null}";
    a.says(&mut world, line);
    assert!(a.told(&mut world).contains("\"acquired\":true"));
    assert_eq!(b.locks(&mut world, "m", "4"), Some(false));
    assert_eq!(b.locks(&mut world, "m", "5"), Some(true));
    // Nor is a reader's.
    let of_a_reader = ",\"max\":10,\"rwStatus\":\"begin_read\"";
    assert_eq!(b.asks(&mut world, UUID, "6", of_a_reader), Some(false));
}

#[test]
fn what_is_said_of_a_grant_is_said_of_that_on_its_key() {
    let gives_up = [
        "lock-client-timeout",
        "lock-client-error",
        "lock-received-rejected",
    ];
    for (kind, is_received) in gives_up
        .iter()
        .flat_map(|kind| [(kind, false), (kind, true)])
    {
        let (mut world, [a, b, _]) = world();
        assert_eq!(a.locks(&mut world, "i", "1"), Some(true));
        assert_eq!(b.locks(&mut world, "of b", "2"), Some(true));
        assert_eq!(a.locks(&mut world, "i", "2"), Some(false));
        assert!(b.unlocks(&mut world, "of b", "2"));
        assert_eq!(a.is_acquired(&mut world, "i", "2"), Some(true));
        if is_received {
            a.notes(&mut world, "lock-received", "i", "2");
        }
        a.notes(&mut world, kind, "i", "2");
        assert_eq!(a.told(&mut world), "");
        let key = Key::new(b"2", 8).expect("short enough");
        let is_held = world
            .broker
            .table()
            .inspect(key)
            .is_some_and(|key| key.holders_len() == 1);
        assert_eq!(is_held, is_received, "{kind}");
        assert_eq!(a.holders(&mut world, "1"), "[\"i\"]");
    }
}

#[test]
fn who_waits_no_longer_under_an_id_still_waits_under_it_on_another_key() {
    let (mut world, [a, b, _]) = world();
    for key in ["1", "2"] {
        assert_eq!(a.locks(&mut world, "of a", key), Some(true));
        assert_eq!(b.locks(&mut world, "of b", key), Some(false));
    }
    b.notes(&mut world, "lock-client-timeout", "of b", "2");
    assert_eq!(["1", "2"].map(|key| waiters(&world, key)), [1, 0]);
    b.notes(&mut world, "lock-client-error", "of b", "1");
    assert_eq!(["1", "2"].map(|key| waiters(&world, key)), [0, 0]);
}

#[test]
fn who_waits_under_an_id_goes_to_the_front_by_force_and_nobody_else_under_it() {
    let (mut world, [a, b, c]) = world();
    assert_eq!(a.locks(&mut world, "of a", "1"), Some(true));
    assert_eq!(c.locks(&mut world, "of c", "1"), Some(false));
    assert_eq!(b.locks(&mut world, "of b", "1"), Some(false));
    let by_force = ",\"force\":true";
    // Another's id stays where it is, and the line is no longer for that.
    let line = format!("{{\"type\":\"lock\",\"uuid\":\"of b\",\"key\":\"1\"{by_force}}}");
    c.says(&mut world, &line);
    assert!(c.told(&mut world).contains("\"error\""));
    assert_eq!(waiters(&world, "1"), 2);
    assert_eq!(b.asks(&mut world, "of b", "1", by_force), Some(false));
    assert_eq!(waiters(&world, "1"), 2);
    assert!(a.unlocks(&mut world, "of a", "1"));
    assert_eq!(b.is_acquired(&mut world, "of b", "1"), Some(true));
}

#[test]
fn a_late_release_of_several_keys_is_one_once() {
    let (mut world, [a, b, _]) = world();
    let release = "{\"type\":\"release-many\",\"uuid\":\"r\",\"lockUuid\":\"m\"}";
    let is_released = |world: &mut World| {
        a.says(world, release);
        a.told(world).contains("\"released\":true")
    };
    assert!(!is_released(&mut world), "nobody has asked for it");
    let line = "{\"type\":\"acquire-many\",\"uuid\":\"m\",\"keys\":[\"1\",\"2\"],\"ttl\":1000}";
    a.says(&mut world, line);
    assert!(a.told(&mut world).contains("\"acquired\":true"));
    world.later(Duration::from_secs(1));
    a.told(&mut world);
    assert_eq!(b.locks(&mut world, "other", "1"), Some(true));
    assert!(is_released(&mut world), "its lease has ended it");
    assert!(!is_released(&mut world), "that was it");
    a.says(&mut world, &line.replace("[\"1\"", "[\"3\""));
    assert!(a.told(&mut world).contains("\"acquired\":true"));
    assert!(is_released(&mut world), "it is held");
    assert!(!is_released(&mut world), "that was it");
}

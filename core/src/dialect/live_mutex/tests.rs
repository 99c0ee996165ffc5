//! What is kept of a request goes with it.

use super::*;

struct World {
    machine: LiveMutex,
    table: LockTable<Growable>,
    by: ConnectionId,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let limits = TableConfig::default();
        let by = ConnectionId::new(0, 0);
        let mut machine = LiveMutex::new(Instant::EPOCH, &limits, 1 << 16);
        machine.connect(by);
        Self {
            machine,
            table: LockTable::new(limits).expect("good limits"),
            by,
            now: Instant::EPOCH,
        }
    }

    fn say(&mut self, line: &str) {
        let (machine, table) = (&mut self.machine, &mut self.table);
        machine.handle_line(self.now, self.by, line.as_bytes(), table);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(session) = self.table.poll_session() {
            while let Some(event) = self.table.poll_event(session) {
                let table = &mut self.table;
                self.machine.handle_event(self.now, session, event, table);
            }
        }
        while self.machine.poll_output().is_some() {}
        self.table.check();
    }

    fn connection(&self) -> &Connection {
        &self.machine.connections[&self.by]
    }
}

#[test]
fn a_name_is_remembered_for_as_long_as_its_lock() {
    let mut world = World::new();
    world.say(r#"{"type":"lock","uuid":"one","key":"k","ttl":null}"#);
    world.say(r#"{"type":"lock","uuid":"two","key":"l","ttl":1000}"#);
    assert_eq!(world.connection().names.len(), 2);
    world.say(r#"{"type":"unlock","uuid":"u","_uuid":"one","key":"k"}"#);
    assert_eq!(world.connection().names.len(), 1);
    world.now = Instant::from_millis(1000);
    world.table.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.connection().names.len(), 0);
    assert_eq!(world.table.counts().keys, 0);
}

#[test]
fn reads_of_one_key_end_one_by_one() {
    let mut world = World::new();
    for _ in 0..2 {
        world.say(r#"{"type":"increment-readers","uuid":"r","key":"k"}"#);
    }
    assert!(world.connection().rw.has_roles());
    for is_left in [true, false] {
        world.say(r#"{"type":"decrement-readers","uuid":"r","key":"k"}"#);
        assert_eq!(world.connection().rw.has_roles(), is_left);
        assert_eq!(world.table.counts().keys, u32::from(is_left));
    }
}

#[test]
fn a_role_that_is_ended_by_force_is_forgotten() {
    for line in [
        r#"{"type":"increment-readers","uuid":"r","key":"k"}"#,
        r#"{"type":"register-write-flag-and-readers-check","uuid":"w","key":"k"}"#,
    ] {
        let mut world = World::new();
        world.say(line);
        assert!(world.connection().rw.has_roles());
        let held = world.table.keys(0).flat_map(|key| key.holders());
        let ids: Vec<_> = held.map(|holder| holder.id()).collect();
        for id in ids {
            let target = ForceTarget::Request(id);
            world.table.force_release(world.now, target);
        }
        world.settle();
        assert!(!world.connection().rw.has_roles(), "{line}");
    }
}

#[test]
fn a_first_reader_that_goes_on_without_the_write_key_is_none() {
    let mut world = World::new();
    world.say(r#"{"type":"version","value":"0.2.27"}"#);
    world.say(r#"{"type":"lock","uuid":"a","key":"k","ttl":null,"rwStatus":"begin_read"}"#);
    assert_eq!(world.connection().rw.first_reads.len(), 1);
    world.say(r#"{"type":"unlock","uuid":"b","_uuid":"a","key":"k","rwStatus":"begin_read"}"#);
    assert_eq!(world.connection().rw.first_reads.len(), 0);
}

#[test]
fn a_key_whose_reader_waits_for_a_restart_to_be_over_is_not_shared_yet() {
    let mut world = World::new();
    let over = Instant::from_millis(1000);
    world.table.begin_grace(world.now, over);
    world.say(r#"{"type":"increment-readers","uuid":"r","key":"k"}"#);
    assert_eq!(world.table.counts().waiting, 1);
    assert!(!rw::is_shared(&world.table, b"k"));
    world.now = over;
    world.table.handle_timeout(world.now);
    world.settle();
    assert!(rw::is_shared(&world.table, b"k"));
}

#[test]
fn a_label_says_which_process_it_is_if_that_can_be_believed() {
    for (pid, expected) in [
        (r#","pid":77"#, "live-mutex pid 77"),
        (
            r#","pid":12345678901234567890"#,
            "live-mutex pid 12345678901234567890",
        ),
        (r#","pid":123456789012345678901"#, "live-mutex"),
        (r#","pid":7e7"#, "live-mutex"),
        (r#","pid":"77""#, "live-mutex"),
        ("", "live-mutex"),
    ] {
        for kind in [
            r#""lock","key":"k""#,
            r#""acquire-many","keys":["k","l"]"#,
            r#""increment-readers","key":"k""#,
        ] {
            let mut world = World::new();
            world.say(&alloc::format!(r#"{{"uuid":"u"{pid},"type":{kind}}}"#));
            let mut keys = world.table.keys(0);
            let holder = keys.next().and_then(|key| key.holders().next());
            let label: Vec<u8> = holder
                .expect("it is held")
                .label()
                .flatten()
                .copied()
                .collect();
            assert_eq!(String::from_utf8_lossy(&label), expected, "{kind}");
        }
    }
}

#[test]
fn a_reader_for_whom_there_is_no_room_does_not_read() {
    let limits = TableConfig {
        requests_max: 1,
        ..TableConfig::default()
    };
    let mut world = World::new();
    world.table = LockTable::new(limits).expect("good limits");
    world.say(r#"{"type":"lock","uuid":"one","key":"k","ttl":null,"rwStatus":"begin_read"}"#);
    assert_eq!(world.table.counts().held, 0);
    assert!(!world.connection().rw.has_roles());
    assert!(world.connection().unconfirmed.is_empty());
}

//! What a live-mutex client is told where little fits.

use lmx_core::Key;
use lmx_core::broker::BrokerConfig;
use lmx_core::wire::Command;

use super::world::{Ask, Lines, World};

const OUTPUT_BYTES_MAX: usize = 4096;

/// A world with room for little, and a live-mutex client's connection.
fn world() -> (World, Lines) {
    let mut world = World::ephemeral(BrokerConfig {
        frame_bytes_max: 4000,
        output_bytes_max: OUTPUT_BYTES_MAX as u32,
        ..BrokerConfig::default()
    });
    let lines = world.lines();
    (world, lines)
}

/// What is queued for one who reads nothing, and whether that is too much, after two answers
/// that echo ids of these lengths.
fn queued_after(ids: [usize; 2]) -> (usize, bool) {
    let (mut world, lines) = world();
    let mut holder = world.hello(None);
    for id in 0..8 {
        let key = format!("{id:0>240}");
        holder.asks(&mut world, Ask::new(id, &[&key]));
    }
    for bytes in ids {
        let line = format!("{{\"type\":\"ls\",\"uuid\":\"{:0>bytes$}\"}}", 1);
        lines.says(&mut world, &line);
    }
    let queued = world.broker.output(lines.0).len();
    (queued, world.broker.is_closing(lines.0))
}

#[test]
fn no_more_than_twice_the_output_limit_may_be_unread() {
    let (queued, is_closing) = queued_after([2000, 2000]);
    assert!(!is_closing, "{queued}");
    let longest = 2000 + 2 * OUTPUT_BYTES_MAX - queued;
    assert_eq!(queued_after([2000, longest]), (2 * OUTPUT_BYTES_MAX, false));
    for more in [1, 100] {
        assert!(queued_after([2000, longest + more]).1);
    }
}

#[test]
fn holders_are_named_as_far_as_half_the_output_holds() {
    const QUOTES: usize = 2;
    const COMMA: usize = 1;
    let others: Vec<_> = (0..7).map(|id| format!("{id:0>240}")).collect();
    let before = 1 + others.len() * (240 + QUOTES + COMMA) + QUOTES;
    let longest = OUTPUT_BYTES_MAX / 2 - before;
    for (bytes, is_cut) in [(longest, false), (longest + 1, true), (longest + 9, true)] {
        let (mut world, lines) = world();
        let last = "x".repeat(bytes);
        for id in others.iter().chain([&last]) {
            let line = format!(
                "{{\"type\":\"lock\",\"uuid\":\"{id}\",\"key\":\"k\",\"max\":9,\"ttl\":null}}"
            );
            lines.says(&mut world, &line);
            assert!(lines.told(&mut world).contains("\"acquired\":true"));
        }
        let line = "{\"type\":\"lock-info-request\",\"uuid\":\"l\",\"key\":\"k\"}";
        lines.says(&mut world, line);
        let told = lines.told(&mut world);
        assert!(others.iter().all(|id| told.contains(id)), "{told}");
        assert_eq!(told.contains(&last), !is_cut, "{told}");
        assert_eq!(told.contains("\"truncated\":true"), is_cut, "{told}");
    }
}

#[test]
fn several_keys_that_are_waited_for_are_refused_together_when_force_ends_that() {
    let (mut world, lines) = world();
    let mut holder = world.hello(None);
    holder.asks(&mut world, Ask::new(1, &["a"]));
    let line = "{\"type\":\"acquire-many\",\"uuid\":\"u\",\"keys\":[\"a\",\"b\"],\"ttl\":null}";
    lines.says(&mut world, line);
    assert_eq!(
        lines.told(&mut world),
        "",
        "whoever names no process just waits"
    );
    let key = Key::new(b"a", 8).expect("short enough");
    let view = world.broker.table().inspect(key).expect("it is held");
    let id = view.waiters().next().expect("somebody waits").id();
    holder.send(&mut world, Command::ForceReleaseRequest { id });
    let told = lines.told(&mut world);
    let begin =
        "{\"type\":\"acquire-many\",\"acquired\":false,\"keys\":[\"a\",\"b\"],\"uuid\":\"u\",";
    assert!(told.starts_with(begin), "{told}");
    assert!(told.contains("\"error\":"), "{told}");
    assert!(
        world
            .broker
            .table()
            .inspect(key)
            .is_some_and(|view| view.waiters_len() == 0)
    );
}

#[test]
fn a_first_reader_that_goes_waits_no_longer_for_the_key_of_writers() {
    let (mut world, lines) = world();
    let mut writer = world.hello(None);
    writer.asks(&mut world, Ask::new(1, &["w"]));
    for line in [
        "{\"type\":\"version\",\"value\":\"0.2.27\"}",
        "{\"type\":\"lock\",\"uuid\":\"a\",\"key\":\"r\",\"max\":10,\"rwStatus\":\"begin_read\"}",
        "{\"type\":\"lock\",\"uuid\":\"b\",\"key\":\"w\",\"rwStatus\":\"locking_write_key\"}",
    ] {
        lines.says(&mut world, line);
    }
    let key = Key::new(b"w", 8).expect("short enough");
    let waiting = |world: &World| {
        let view = world.broker.table().inspect(key);
        view.map(|view| view.waiters_len())
    };
    assert_eq!(waiting(&world), Some(1));
    world.broker.handle_disconnect(world.now, lines.0);
    world.broker.check();
    assert_eq!(waiting(&world), Some(0));
}

//! What is kept: nobody is told of its beginning, its growth or its end before a successor
//! would know.

use std::time::Duration;

use lmx_core::RequestId;
use lmx_core::broker::BrokerConfig;
use lmx_core::table::Conversion;
use lmx_core::wire::Command;

use super::world::{Ask, Peer, World};

const ID: RequestId = RequestId::from_u128(1);
const SHORT: Duration = Duration::from_secs(1);
const NOTHING: [&str; 0] = [];
const OUTPUT_BYTES_MAX: usize = 4096;

const fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

const fn renewed(lease: Option<Duration>) -> Command<'static> {
    Command::Renew { id: ID, lease }
}

#[test]
fn what_is_to_be_kept_waits_for_the_disk_when_it_is_granted_and_not_before() {
    let mut world = World::new();
    let (mut holder, _) = world.session();
    let (mut keeper, _) = world.session();
    let (mut other, _) = world.session();
    holder.asks(&mut world, Ask::new(9, &["key"]));
    keeper.asks(&mut world, Ask::new(1, &["key"]).kept());
    // That it waits is no promise: it is told at once, and nothing is written.
    assert_eq!(keeper.told(&mut world), ["queued 1"]);
    assert!(world.broker.is_durable());
    holder.releases(&mut world, 9);
    other.asks(&mut world, Ask::new(2, &["another key"]));
    assert_eq!(keeper.told(&mut world), NOTHING);
    assert_eq!(other.told(&mut world), ["granted 2 3"]);
    world.write();
    assert_eq!(keeper.told(&mut world), ["granted 1 2"]);
    assert_eq!(world.kept(), [1]);
}

#[test]
fn a_short_kept_hold_that_is_renewed_without_end_is_one_to_be_restored() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    keeper.asks(&mut world, Ask::new(1, &["key"]).kept().leased(SHORT));
    world.write();
    assert_eq!(keeper.told(&mut world), ["granted 1 1"]);
    // A successor waits for as long as it may last, and restores nothing.
    assert_eq!(world.kept(), [0; 0]);
    keeper.send(&mut world, renewed(None));
    assert_eq!(keeper.told(&mut world), NOTHING);
    world.write();
    assert_eq!(keeper.told(&mut world), ["renewed 1"]);
    assert_eq!(world.kept(), [1]);
    world.restart();
    world.end_grace();
    let (mut other, _) = world.session();
    other.asks(&mut world, Ask::new(2, &["key"]));
    assert_eq!(other.told(&mut world), ["queued 2"]);
}

#[test]
fn only_a_lease_that_has_grown_waits_for_the_disk() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let ask = Ask::new(1, &["key"]).kept().leased(hours(1));
    keeper.asks(&mut world, ask);
    world.write();
    assert_eq!(keeper.told(&mut world), ["granted 1 1"]);
    for (lease, has_grown) in [
        (Some(hours(1)), false),
        (Some(hours(2)), true),
        (Some(hours(1)), false),
        (None, true),
        (Some(hours(1)), false),
    ] {
        keeper.send(&mut world, renewed(lease));
        let at_once = keeper.told(&mut world);
        assert_eq!(at_once.is_empty(), has_grown, "{lease:?}");
        assert_eq!(world.broker.is_durable(), !has_grown, "{lease:?}");
        world.write();
        let then = keeper.told(&mut world);
        assert_eq!([at_once, then].concat(), ["renewed 1"]);
    }
    let record = world.disk.expect("it was written");
    assert_eq!(record.holds[0].lease, None);
}

#[test]
fn nothing_is_told_of_what_arrived_together_with_the_end_of_a_kept_hold() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let ask = Ask::new(1, &["key"]).kept().leased(hours(1));
    keeper.asks(&mut world, ask);
    world.write();
    assert_eq!(keeper.told(&mut world), ["granted 1 1"]);
    let release = Command::Release { id: ID };
    // The second alone would hold back what comes after the first.
    keeper.send_at_once(&mut world, [Command::Ping, renewed(None), release]);
    assert_eq!(keeper.told(&mut world), NOTHING);
    world.write();
    assert_eq!(keeper.told(&mut world), ["pong", "renewed 1", "released 1"]);
}

#[test]
fn what_is_durable_of_one_kept_hold_is_told_while_another_is_not() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut another, _) = world.session();
    keeper.asks(&mut world, Ask::new(1, &["key"]).kept());
    world.write();
    assert_eq!(keeper.told(&mut world), ["granted 1 1"]);
    another.asks(&mut world, Ask::new(2, &["another key"]).kept());
    keeper.asks(&mut world, Ask::new(1, &["key"]).kept());
    assert_eq!(another.told(&mut world), NOTHING);
    assert_eq!(keeper.told(&mut world), ["granted 1 1"]);
}

#[test]
fn what_is_not_told_to_the_first_is_not_told_to_the_next_who_asks() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut heir, _) = world.session();
    keeper.asks(&mut world, Ask::new(1, &["key"]).shared().kept());
    keeper.disconnects(&mut world);
    world.later(Duration::from_secs(4));
    // Its session is over, and it is whose asks for it.
    heir.asks(&mut world, Ask::new(1, &["key"]).shared().kept());
    assert_eq!(heir.told(&mut world), NOTHING);
    world.write();
    assert_eq!(heir.told(&mut world), ["granted 1 1"]);
    // Nor the new token of an upgrade.
    let to = Conversion::Upgrade;
    for _ in 0..2 {
        heir.send(&mut world, Command::Convert { id: ID, to });
        assert_eq!(heir.told(&mut world), NOTHING);
    }
    world.write();
    assert_eq!(heir.told(&mut world), ["granted 1 2", "granted 1 2"]);
}

/// Until so much is unread that there is no room for more.
fn reads_nothing(world: &mut World, peer: &mut Peer) {
    while world.broker.wants_input(peer.connection)
        && world.broker.output(peer.connection).len() < OUTPUT_BYTES_MAX
    {
        peer.send(world, Command::Ping);
    }
}

fn is_told_pongs_alone(world: &mut World, peer: &Peer) {
    let told = peer.told(world);
    assert!(told.iter().all(|it| it == "pong"), "{told:?}");
    assert_eq!(peer.told(world), NOTHING);
}

#[test]
fn what_there_was_no_room_to_tell_waits_for_the_disk_when_there_is() {
    // That a kept hold has begun, or what the end of one lets begin.
    for (before, after) in [
        (Ask::new(1, &["key"]), Ask::new(2, &["key"]).kept()),
        (Ask::new(1, &["key"]).kept(), Ask::new(2, &["key"])),
    ] {
        let mut world = World::with(BrokerConfig {
            frame_bytes_max: 4000,
            output_bytes_max: OUTPUT_BYTES_MAX as u32,
            ..BrokerConfig::default()
        });
        let (mut holder, _) = world.session();
        let (mut waiter, _) = world.session();
        holder.asks(&mut world, before);
        world.write();
        waiter.asks(&mut world, after);
        assert_eq!(waiter.told(&mut world), ["queued 2"]);
        reads_nothing(&mut world, &mut waiter);
        holder.releases(&mut world, 1);
        assert!(!world.broker.is_durable());
        is_told_pongs_alone(&mut world, &waiter);
        world.write();
        assert_eq!(waiter.told(&mut world), ["granted 2 2"]);
    }
}

#[test]
fn what_there_is_room_for_because_others_have_read_waits_for_the_disk_too() {
    let mut world = World::with(BrokerConfig {
        frame_bytes_max: 4000,
        output_bytes_max: 10 * OUTPUT_BYTES_MAX as u32,
        buffered_bytes_max: 2 * OUTPUT_BYTES_MAX,
        ..BrokerConfig::default()
    });
    let (mut holder, _) = world.session();
    let (mut waiter, _) = world.session();
    let (mut other, _) = world.session();
    holder.asks(&mut world, Ask::new(1, &["key"]));
    holder.asks(&mut world, Ask::new(3, &["another key"]));
    waiter.asks(&mut world, Ask::new(2, &["key"]).kept());
    waiter.asks(&mut world, Ask::new(4, &["another key"]));
    assert_eq!(waiter.told(&mut world), ["queued 2", "queued 4"]);
    reads_nothing(&mut world, &mut other);
    reads_nothing(&mut world, &mut waiter);
    holder.releases(&mut world, 1);
    is_told_pongs_alone(&mut world, &other);
    holder.releases(&mut world, 3);
    is_told_pongs_alone(&mut world, &waiter);
    world.write();
    assert_eq!(waiter.told(&mut world), ["granted 2 3", "granted 4 4"]);
}

/// After a kept hold was released, and before that is on the disk, a stranger asks for
/// something that cannot be, for it is not there any more.
fn told_of_an_end(world: &mut World, command: Command<'_>) -> Vec<String> {
    let (mut keeper, _) = world.session();
    let (mut stranger, _) = world.session();
    keeper.asks(world, Ask::new(1, &["key"]).kept());
    world.write();
    keeper.releases(world, 1);
    stranger.send(world, command);
    assert_eq!(keeper.told(world), ["granted 1 1"]);
    let told = stranger.told(world);
    world.write();
    assert_eq!(keeper.told(world), ["released 1"]);
    // From then on it is told at once.
    let then = stranger.told(world);
    stranger.send(world, command);
    assert_eq!(stranger.told(world), [&told[..], &then].concat());
    told
}

#[test]
fn that_there_is_nothing_to_release_is_not_told_before_a_successor_knows() {
    let mut world = World::new();
    let told = told_of_an_end(&mut world, Command::Release { id: ID });
    assert_eq!(told, NOTHING);
}

#[test]
fn no_other_refusal_tells_of_an_end_before_a_successor_knows() {
    let to = Conversion::Downgrade;
    for command in [
        Command::Renew {
            id: ID,
            lease: None,
        },
        Command::Cancel { id: ID },
        Command::Convert { id: ID, to },
    ] {
        let told = told_of_an_end(&mut World::new(), command);
        assert_eq!(told, NOTHING, "{command:?}");
    }
}

#[test]
fn a_refusal_that_tells_of_no_end_waits_for_no_disk() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut stranger, _) = world.session();
    keeper.asks(&mut world, Ask::new(1, &["key"]).kept());
    stranger.releases(&mut world, 1);
    stranger.send(&mut world, Command::Ping);
    assert_eq!(keeper.told(&mut world), NOTHING);
    assert_eq!(stranger.told(&mut world), ["NotOwner", "pong"]);
}

#[test]
fn who_asks_again_changes_nothing_about_what_is_kept() {
    for lease in [None, Some(SHORT), Some(hours(2)), Some(Duration::MAX)] {
        let mut world = World::new();
        let (mut keeper, _) = world.session();
        let ask = Ask::new(1, &["key"]).kept();
        keeper.asks(&mut world, ask.leased(hours(1)));
        // One of which only the longest lease is written down, and one that is not kept.
        keeper.asks(&mut world, Ask::new(2, &["short"]).kept().leased(SHORT));
        keeper.asks(&mut world, Ask::new(3, &["plain"]));
        world.write();
        let granted = ["granted 1 1", "granted 2 2", "granted 3 3"];
        assert_eq!(keeper.told(&mut world), granted);
        let holds = world.disk.as_ref().map(|record| record.holds.clone());
        for (id, key) in [(1, "key"), (2, "short"), (3, "plain")] {
            let again = Ask::new(id, std::slice::from_ref(&key)).kept();
            keeper.asks(&mut world, lease.map_or(again, |lease| again.leased(lease)));
        }
        world.write();
        assert_eq!(keeper.told(&mut world), granted);
        assert_eq!(world.kept(), [1]);
        let then = world.disk.as_ref().map(|record| record.holds.clone());
        assert_eq!(then, holds, "{lease:?}");
    }
}

#[test]
fn a_short_kept_hold_is_not_told_to_its_heir_before_a_successor_would_wait_for_it() {
    let window = Duration::from_secs(8);
    let mut world = World::new();
    let (mut heir, _) = world.session();
    let (mut keeper, _) = world.session();
    let ask = Ask::new(1, &["key"]).kept().leased(window);
    keeper.asks(&mut world, ask);
    keeper.disconnects(&mut world);
    world.later(Duration::from_secs(4));
    heir.asks(&mut world, ask);
    assert_eq!(heir.told(&mut world), NOTHING);
    world.write();
    assert_eq!(heir.told(&mut world), ["granted 1 1"]);
    // What is durable is told again at once, though something else is not.
    let (mut other, _) = world.session();
    other.asks(&mut world, Ask::new(2, &["another key"]).kept());
    heir.asks(&mut world, ask);
    assert_eq!(heir.told(&mut world), ["granted 1 1"]);
}

#[test]
fn who_asks_for_a_kept_hold_that_is_not_its_own_waits_for_no_disk() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut stranger, _) = world.session();
    keeper.asks(&mut world, Ask::new(1, &["key"]).kept());
    world.write();
    assert_eq!(keeper.told(&mut world), ["granted 1 1"]);
    stranger.asks(&mut world, Ask::new(1, &["key"]).kept());
    assert_eq!(stranger.told(&mut world), ["IdInUse"]);
    assert!(world.broker.is_durable());
}

#[test]
fn what_live_mutex_is_told_of_an_end_waits_for_the_disk_on_every_connection() {
    const LOCK: &str = "{\"type\":\"lock\",\"uuid\":\"1\",\"key\":\"k\",\"pid\":1,\"ttl\":null,\"keepLocksAfterDeath\":true}";
    const MANY: &str = "{\"type\":\"acquire-many\",\"uuid\":\"1\",\"keys\":[\"k\",\"l\"],\"pid\":1,\"ttl\":null,\"keepLocksAfterDeath\":true}";
    const UNLOCK: &str = "{\"type\":\"unlock\",\"uuid\":\"2\",\"_uuid\":\"1\",\"key\":\"k\"}";
    const FORCED: &str =
        "{\"type\":\"unlock\",\"uuid\":\"2\",\"_uuid\":\"1\",\"key\":\"k\",\"force\":true}";
    const RELEASE: &str = "{\"type\":\"release-many\",\"uuid\":\"2\",\"lockUuid\":\"1\"}";
    for (begins, ends, again) in [
        (LOCK, UNLOCK, UNLOCK),
        (LOCK, UNLOCK, FORCED),
        (MANY, RELEASE, RELEASE),
    ] {
        let mut world = World::new();
        let keeper = world.lines();
        keeper.says(&mut world, begins);
        assert_eq!(keeper.told(&mut world), "");
        world.write();
        assert!(keeper.told(&mut world).contains("\"acquired\":true"));
        assert_eq!(world.kept().len(), 1);
        keeper.says(&mut world, ends);
        assert_eq!(keeper.told(&mut world), "");
        // Its answer is lost with the connection, and the client tries again.
        world.broker.handle_disconnect(world.now, keeper.0);
        let keeper = world.lines();
        keeper.says(&mut world, again);
        assert_eq!(keeper.told(&mut world), "", "{again}");
        world.write();
        assert_ne!(keeper.told(&mut world), "");
        assert_eq!(world.kept(), [0; 0]);
    }
}

#[test]
fn what_live_mutex_is_told_of_others_waits_for_no_disk() {
    const LOCK: &str = "{\"type\":\"lock\",\"uuid\":\"1\",\"key\":\"k\",\"pid\":1,\"ttl\":null,\"keepLocksAfterDeath\":true}";
    const OTHER: &str = "{\"type\":\"lock\",\"uuid\":\"2\",\"key\":\"o\",\"pid\":1,\"ttl\":1000}";
    const UNLOCK: &str = "{\"type\":\"unlock\",\"uuid\":\"3\",\"_uuid\":\"2\",\"key\":\"o\"}";
    let mut world = World::new();
    let (keeper, other) = (world.lines(), world.lines());
    other.says(&mut world, OTHER);
    world.write();
    assert!(other.told(&mut world).contains("\"acquired\":true"));
    keeper.says(&mut world, LOCK);
    other.says(&mut world, UNLOCK);
    assert!(other.told(&mut world).contains("\"unlocked\":true"));
    assert_eq!(keeper.told(&mut world), "");
}

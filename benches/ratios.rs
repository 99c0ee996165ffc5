//! The table against a bare hash map, as ratios that can be compared between machines:
//!
//! ```text
//! cargo bench -p lmx-core --bench ratios             # everything, about a minute
//! cargo bench -p lmx-core --bench ratios -- hot      # only what has this in its name
//! ```
//!
//! What is compared takes turns, each a few milliseconds long, in one process, so that
//! both see the same mood of the machine; of all turns the median counts, and the middle
//! half of them is shown beside it. The map is hashbrown's with its own hash; as a table
//! owns its keys, each of the map's is boxed when it is put in and freed when it goes.

#[path = "workloads/table.rs"]
mod table;

use std::hint::black_box;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use table::Table;

/// How many locks are held, or leases end, where many do.
const MANY: usize = 1_000_000;
/// Cycles in one turn.
const CYCLES: usize = 20_000;
/// Turns of each.
const TURNS: usize = 201;
/// Times that a million leases end.
const ENDINGS: usize = 5;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = wanted.iter().filter(|word| *word != "--bench").collect();
    for (name, measure) in [
        ("hot", hot as fn()),
        ("among 1 million", among_many),
        ("1 million leases, set in the order of their ends", || {
            leases(|number| number);
        }),
        ("1 million leases, set in no order", || {
            leases(|number| number * 617_423 % MANY);
        }),
    ] {
        if wanted.is_empty() || wanted.iter().any(|word| name.contains(*word)) {
            println!("{name}:");
            measure();
        }
    }
}

/// One key is taken and given back, again and again.
fn hot() {
    let key = key(0);
    let mut map: HashMap<Box<[u8]>, u64> = HashMap::new();
    let mut table = Table::new();
    compare(
        || {
            map.insert(black_box(&key).clone(), 1);
            black_box(map.remove(black_box(&key)));
        },
        || {
            // Named by the client beforehand, as ids are: two halves of one that come back
            // out of memory as a whole would be waited for.
            let id = table.next_id();
            black_box(table.acquire_as(id, black_box(&key), None));
            table.release(id);
        },
    );
}

/// Of a million, one is given back and taken again, at random.
fn among_many() {
    let keys: Vec<_> = (0..MANY).map(key).collect();
    let mut map: HashMap<Box<[u8]>, u64> = keys.iter().map(|key| (key.clone(), 1)).collect();
    let mut table = Table::new();
    let mut ids: Vec<_> = keys.iter().map(|key| table.acquire(key, None).0).collect();
    let (mut of_map, mut of_table) = (order(), order());
    compare(
        || {
            let key = &keys[of_map()];
            black_box(map.remove(key));
            map.insert(key.clone(), 1);
        },
        || {
            let number = of_table();
            table.release(ids[number]);
            (ids[number], _) = table.acquire(&keys[number], None);
        },
    );
}

/// A million leases end within a second, and each holder is told; `place` says which ends
/// as the how-manieth.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn leases(place: fn(usize) -> usize) {
    let keys: Vec<_> = (0..MANY).map(key).collect();
    let mut rates = Vec::new();
    for _ in 0..ENDINGS {
        let mut table = Table::new();
        for (number, key) in keys.iter().enumerate() {
            let lease = Duration::from_secs(10) + Duration::from_micros(place(number) as u64);
            table.acquire(key, Some(lease));
        }
        let begun = now();
        let mut ended = 0;
        while ended < MANY {
            // A broker that is not busy wakes up more often than that.
            ended += table.expire(Duration::from_millis(1));
        }
        rates.push(MANY as f64 / begun.elapsed().as_secs_f64());
    }
    let [low, middle, high] = quartiles(&mut rates).map(|rate| rate / 1e6);
    println!("  {middle:.2} M/s ({low:.2} to {high:.2})");
}

/// Times the two in turn, and prints both and their ratio.
fn compare(mut map: impl FnMut(), mut table: impl FnMut()) {
    let (mut maps, mut tables, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first turns warm up, and do not count.
    for turn in 0..TURNS + 5 {
        let (of_map, of_table) = (nanos_of(&mut map), nanos_of(&mut table));
        if turn >= 5 {
            maps.push(of_map);
            tables.push(of_table);
            ratios.push(of_table / of_map);
        }
    }
    for (name, values, unit) in [
        ("hashbrown", &mut maps, " ns"),
        ("table", &mut tables, " ns"),
        ("ratio", &mut ratios, ""),
    ] {
        let [low, middle, high] = quartiles(values);
        println!("  {name}: {middle:.2}{unit} ({low:.2} to {high:.2})");
    }
}

/// Nanoseconds of one of the cycles of a turn.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn nanos_of(cycle: &mut impl FnMut()) -> f64 {
    let begun = now();
    (0..CYCLES).for_each(|_| cycle());
    begun.elapsed().as_secs_f64() * 1e9 / CYCLES as f64
}

/// A quarter of the values, half of them, and three quarters are no larger than these.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

fn key(number: usize) -> Box<[u8]> {
    format!("a key of 24 bytes: {number:05x}")
        .into_bytes()
        .into()
}

/// Numbers below `MANY` in an order that no cache foresees.
fn order() -> impl FnMut() -> usize {
    let mut number = 0;
    move || {
        number = (number + 617_423) % MANY;
        number
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "measuring time is what this is for"
)]
fn now() -> Instant {
    Instant::now()
}

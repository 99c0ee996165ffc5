//! The core's speed, and what a bare hash map would take: `cargo bench -p lmx-core --bench core`.
//!
//! For a machine that is busy with other things, `counts.rs` counts instructions.

mod workloads;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;

use workloads::Table;

/// How many locks are held where many are.
const MANY: usize = 1_000_000;

fn every_workload(criterion: &mut Criterion) {
    for (name, make) in workloads::ALL {
        let mut turn = make();
        criterion.bench_function(name, |bencher| bencher.iter(&mut turn));
    }
}

fn key(number: usize) -> Box<[u8]> {
    format!("a key of 24 bytes: {number:05x}")
        .into_bytes()
        .into()
}

/// What the table's cycle is compared with: inserting and removing the same boxed key.
fn bare_map(criterion: &mut Criterion) {
    let mut map = HashMap::new();
    let hot = key(0);
    criterion.bench_function("hashbrown/cycle", |bencher| {
        bencher.iter(|| {
            map.insert(black_box(&hot).clone(), 1_u64);
            map.remove(black_box(&hot)).expect("it is there")
        });
    });
}

/// Numbers below `MANY` in an order that no cache foresees.
fn order() -> impl FnMut() -> usize {
    let mut number = 0;
    move || {
        number = (number + 617_423) % MANY;
        number
    }
}

fn among_many(criterion: &mut Criterion) {
    let keys: Vec<_> = (0..MANY).map(key).collect();
    let mut map: HashMap<_, _> = keys.iter().map(|key| (key.clone(), 1_u64)).collect();
    let mut next = order();
    criterion.bench_function("hashbrown/cycle among 1 million", |bencher| {
        bencher.iter(|| {
            let key = &keys[next()];
            map.remove(key).expect("it is there");
            map.insert(key.clone(), 1)
        });
    });
    drop(map);
    let mut table = Table::new();
    let mut ids: Vec<_> = keys.iter().map(|key| table.acquire(key, None).0).collect();
    let mut next = order();
    criterion.bench_function("table/cycle among 1 million", |bencher| {
        bencher.iter(|| {
            let number = next();
            table.release(ids[number]);
            (ids[number], _) = table.acquire(&keys[number], None);
        });
    });
}

fn many_leases(criterion: &mut Criterion) {
    let keys: Vec<_> = (0..MANY).map(key).collect();
    let mut group = criterion.benchmark_group("table");
    group.sample_size(10);
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function("expiry of 1 million leases", |bencher| {
        bencher.iter_batched(
            || {
                let mut table = Table::new();
                for (number, key) in keys.iter().enumerate() {
                    // All end within one second, in no order.
                    let nanos = (number * 617_423 % MANY) as u64 * 1_000;
                    let lease = Duration::from_secs(10) + Duration::from_nanos(nanos);
                    table.acquire(key, Some(lease));
                }
                table
            },
            |mut table| {
                let mut count = 0;
                while count < MANY {
                    // A broker that is not busy wakes up more often than that.
                    count += table.expire(Duration::from_millis(1));
                }
                table
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(core, every_workload, bare_map, among_many, many_leases);
criterion_main!(core);

//! What a server needs: memory, bytes on disk, time to start; and how it answers while a
//! million leases end.

use std::path::Path;
use std::process::Command;

use crate::args::Args;
use crate::clock::{Duration, Instant, now};
use crate::drivers::{self, NativeConnection};
use crate::peer::{Address, Connection, News};
use crate::process::Server;
use crate::prove::Talk;
use crate::report::{Measure, Report};
use crate::scenario::{Hold, Keys, Load};

/// Requests sent at one time.
const BATCH: usize = 512;
/// Requests sent at one time where their rate is measured.
const CHURN_BATCH: usize = 64;
/// Connections that hold a million locks between them.
const HOLDERS: usize = 10;

/// Measures all of it that is wanted. What fails is named in the report, and the rest goes on.
pub(crate) fn measure(args: &Args, scratch: &Path, report: &mut Report) {
    let scale = if args.is_quick() { 100 } else { 1 };
    if args.wants_scenario("size") {
        record(report, "size", "lmx", size(scratch), |report, size| {
            report.quantity(&SIZE, "lmx", &[size]);
        });
    }
    if args.wants_scenario("start") {
        let times: Result<Vec<_>, _> = (0..9).map(|_| start_time(scratch)).collect();
        record(report, "start", "lmx", times, |report, times| {
            report.quantity(&START, "lmx", &times);
        });
    }
    for &(name, start) in SUBJECTS {
        let wants = |scenario| args.wants_peer(name) && args.wants_scenario(scenario);
        let subject = || {
            start(scratch)
                .inspect_err(|why| eprintln!("{name:<15} MISSING: {why}"))
                .ok()
        };
        if wants("idle")
            && let Some(subject) = subject()
        {
            let bytes = idle_bytes(&subject, 10_000 / scale);
            record(report, "idle", name, bytes, |report, bytes| {
                report.quantity(&IDLE, name, &[bytes]);
            });
        }
        // live-mutex's broker would need more time for a million locks than it is worth.
        if wants("held")
            && name != "live-mutex"
            && let Some(subject) = subject()
        {
            let held = held(&subject, 1_000_000 / scale, args);
            record(report, "held", name, held, |report, (bytes, rate)| {
                report.quantity(&HELD, name, &[bytes]);
                report.quantity(&CHURN, name, &[rate]);
            });
        }
    }
    if args.wants_scenario("expiry") && args.wants_peer("lmx-tcp") {
        let ends = expiry(scratch, 1_000_000 / scale);
        record(
            report,
            "expiry",
            "lmx-tcp",
            ends,
            |report, (worst, told)| {
                report.quantity(&EXPIRY, "lmx-tcp", &[worst]);
                report.quantity(&TOLD, "lmx-tcp", &[told]);
            },
        );
    }
}

fn record<T>(
    report: &mut Report,
    scenario: &'static str,
    peer: &'static str,
    measured: Result<T, String>,
    enter: impl FnOnce(&mut Report, T),
) {
    match measured {
        Ok(value) => enter(report, value),
        Err(error) => {
            eprintln!("{scenario:<15} {peer:<15} FAILED: {error}");
            report.failed(scenario, peer, error);
        }
    }
}

const SIZE: Measure = Measure {
    name: "size",
    what: "broker binary, stripped",
    unit: "MiB",
};
const START: Measure = Measure {
    name: "start",
    what: "start to ready",
    unit: "ms",
};
const IDLE: Measure = Measure {
    name: "idle",
    what: "memory of an idle connection, of 10,000",
    unit: "bytes",
};
const HELD: Measure = Measure {
    name: "held",
    what: "memory of a held lock with a 24-byte key, of 1 million",
    unit: "bytes",
};
const CHURN: Measure = Measure {
    name: "churn",
    what: "unlock and lock at random among 1 million held, 64 outstanding",
    unit: "cycles/s",
};
const EXPIRY: Measure = Measure {
    name: "expiry",
    what: "longest cycle of a bystander while 1 million leases end within a second",
    unit: "ms",
};
const TOLD: Measure = Measure {
    name: "told",
    what: "until all holders are told, after the last of those leases has ended",
    unit: "ms",
};

/// A server, and how to talk to it.
struct Subject {
    server: Server,
    address: Address,
    connection: Box<Connect>,
}

type Connect = dyn Fn(&Load, usize) -> Box<dyn Connection>;
type Start = fn(&Path) -> Result<Subject, String>;

const SUBJECTS: &[(&str, Start)] = &[
    ("lmx-tcp", |scratch| {
        let lmx = drivers::start_lmx(scratch)?;
        Ok(Subject {
            server: lmx.server,
            address: lmx.tcp,
            connection: Box::new(|load, index| Box::new(NativeConnection::new(load, index))),
        })
    }),
    ("redis-tcp", |scratch| {
        let mut redis = drivers::start_redis(scratch)?;
        let script = drivers::load_redis_script(&mut redis)?;
        Ok(Subject {
            address: redis.tcp.clone(),
            server: redis.server,
            connection: Box::new(move |load, index| {
                drivers::redis_connection(load, index, &script)
            }),
        })
    }),
    ("live-mutex", |_| {
        let (server, address) = drivers::start_live_mutex()?;
        Ok(Subject {
            server,
            address,
            connection: Box::new(drivers::live_mutex_connection),
        })
    }),
];

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn size(scratch: &Path) -> Result<f64, String> {
    let stripped = scratch.join("lmx-stripped");
    let status = Command::new("strip")
        .arg("-o")
        .args([stripped.as_os_str(), drivers::LMX_PROGRAM.as_ref()])
        .status()
        .map_err(|error| format!("cannot run strip: {error} (Debian: binutils)"))?;
    if !status.success() {
        return Err(format!("strip ended with {status}"));
    }
    let meta = std::fs::metadata(&stripped).map_err(|error| error.to_string())?;
    Ok(meta.len() as f64 / f64::from(1 << 20))
}

fn start_time(scratch: &Path) -> Result<f64, String> {
    let begun = now();
    let lmx = drivers::start_lmx(scratch)?;
    let took = begun.elapsed();
    drop(lmx);
    Ok(took.as_secs_f64() * 1_000.0)
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn idle_bytes(subject: &Subject, count: usize) -> Result<f64, String> {
    let load = own_keys(count, 1);
    let open = |index| Talk::open(&subject.address, (subject.connection)(&load, index));
    // What the first connection makes the server set up is not a connection's own.
    let _first = open(0)?;
    let before = subject.server.resident_bytes()?;
    let talks = (0..count).map(open).collect::<Result<Vec<_>, _>>()?;
    let after = subject.server.resident_bytes()?;
    drop(talks);
    Ok(after.saturating_sub(before) as f64 / count as f64)
}

fn own_keys(connections: usize, lanes: usize) -> Load {
    Load {
        name: "resources",
        what: "",
        connections,
        lanes,
        keys: Keys::Own,
        hold: Hold::Exclusive,
        is_for_clients: false,
    }
}

/// Memory of each of `count` held locks, and the rate of random traffic over them.
#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn held(subject: &Subject, count: usize, args: &Args) -> Result<(f64, f64), String> {
    let load = own_keys(HOLDERS, count / HOLDERS);
    let mut talks = (0..HOLDERS)
        .map(|index| Talk::open(&subject.address, (subject.connection)(&load, index)))
        .collect::<Result<Vec<_>, _>>()?;
    let before = subject.server.resident_bytes()?;
    for talk in &mut talks {
        fill(talk, load.lanes, |_, _| {})?;
    }
    let bytes = subject.server.resident_bytes()?.saturating_sub(before) as f64 / count as f64;
    let mut draw = 1_u64;
    let mut churn = |until: Instant| -> Result<u64, String> {
        let mut cycles = 0;
        while now() < until {
            draw = draw
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let talk = &mut talks[(draw >> 32) as usize % HOLDERS];
            // Far apart, and never twice the same.
            let lane = |n: usize| ((draw >> 20) as usize + n * 1_543) % load.lanes;
            let lanes = || (0..CHURN_BATCH.min(load.lanes)).map(lane);
            talk.exchange(lanes().count(), |protocol, out| {
                lanes().for_each(|lane| protocol.release(lane, out));
            })?;
            talk.exchange(lanes().count(), |protocol, out| {
                lanes().for_each(|lane| protocol.acquire(lane, out));
            })?;
            cycles += lanes().count() as u64;
        }
        Ok(cycles)
    };
    churn(now() + args.window().warm_up)?;
    let begun = now();
    let cycles = churn(begun + args.window().measure)?;
    Ok((bytes, cycles as f64 / begun.elapsed().as_secs_f64()))
}

/// Acquires every lane of a connection, `prepare` being called before each batch.
fn fill(
    talk: &mut Talk,
    lanes: usize,
    mut prepare: impl FnMut(&mut dyn Connection, usize),
) -> Result<(), String> {
    for first in (0..lanes).step_by(BATCH) {
        let batch = first..lanes.min(first + BATCH);
        talk.exchange(batch.len(), |protocol, out| {
            prepare(protocol, first);
            batch.for_each(|lane| protocol.acquire(lane, out));
        })?;
    }
    Ok(())
}

/// The longest cycle of a bystander while `count` leases end within one second, and how
/// long after the last one's end its holder was told, both in milliseconds.
fn expiry(scratch: &Path, count: usize) -> Result<(f64, f64), String> {
    let lmx = drivers::start_lmx(scratch)?;
    let load = own_keys(HOLDERS, count / HOLDERS);
    let mut talks = (0..HOLDERS)
        .map(|index| Talk::open(&lmx.tcp, Box::new(NativeConnection::new(&load, index))))
        .collect::<Result<Vec<_>, _>>()?;
    let first_end = now() + Duration::from_secs(8);
    let spread = Duration::from_secs(1);
    for talk in &mut talks {
        fill(talk, load.lanes, |protocol, lane| {
            let share = spread * u32::try_from(lane).unwrap_or(u32::MAX)
                / u32::try_from(load.lanes).unwrap_or(u32::MAX);
            protocol.set_lease((first_end + share).saturating_duration_since(now()));
        })?;
    }
    if now() > first_end {
        return Err("the machine is too slow to take the locks before they end".into());
    }
    let one = own_keys(1, 1);
    let mut bystander = Talk::open(&lmx.tcp, Box::new(NativeConnection::new(&one, HOLDERS)))?;
    let mut worst = Duration::ZERO;
    let last_end = first_end + spread;
    let told = std::thread::scope(|scope| {
        let readers: Vec<_> = talks
            .iter_mut()
            .map(|talk| scope.spawn(|| talk.count(load.lanes, News::Expired).map(|()| now())))
            .collect();
        while now() < last_end + Duration::from_millis(200) {
            let begun = now();
            bystander.acquire()?;
            bystander.expect(News::Acquired(0))?;
            bystander.release()?;
            bystander.expect(News::Released(0))?;
            if begun > first_end {
                worst = worst.max(begun.elapsed());
            }
        }
        let mut told = Duration::ZERO;
        for reader in readers {
            let ended = reader.join().map_err(|_| "a reader panicked")??;
            told = told.max(ended.saturating_duration_since(last_end));
        }
        Ok::<_, String>(told)
    })?;
    match lmx.status()? {
        status if status.held == 0 => {}
        status => return Err(format!("{} locks outlived their lease", status.held)),
    }
    Ok((worst.as_secs_f64() * 1_000.0, told.as_secs_f64() * 1_000.0))
}

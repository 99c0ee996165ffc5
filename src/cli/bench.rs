//! `lmx bench`: a closed loop of lock/unlock cycles.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use lmx_transports::clock;
use serde_json::{Value, json};
use smol::LocalExecutor;

use super::Outcome;
use super::args::BenchArgs;
use super::compat::OptionObject;
use super::connect::{connect, not_granted};
use super::exit::{self, Failure};
use super::mean::{Codes, Place, environment};
use super::print::{print, print_json};
use super::signals;
use crate::Client;

/// Times up to an hour, to three digits.
const MICROS_MAX: u64 = 3_600_000_000;
const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9)];

/// `lmx bench`.
pub(super) fn bench(typed: &BenchArgs) -> Outcome {
    let place = Place::new(
        typed.at.clone(),
        typed.port,
        &OptionObject::default(),
        &environment,
    )?;
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let mut signals = signals::catch(&signals::ENDS)?;
        // A task of its own: it would cost each cycle a system call to look for signals.
        let ended = executor.spawn(async move { signals::ended(&mut signals).await });
        let ended = async { Err(ended.await) };
        let measured = async { Ok(measure(&executor, &place, typed).await) };
        match smol::future::or(ended, measured).await {
            Ok(measured) => measured?.print(typed.json).map(|()| exit::DONE),
            Err(code) => Ok(code),
        }
    }))
}

async fn measure(
    executor: &LocalExecutor<'_>,
    place: &Place,
    typed: &BenchArgs,
) -> Result<Measured, Failure> {
    let mut clients = Vec::new();
    for _ in 0..typed.connections.get() {
        clients.push(connect(place, "lmx bench").await?);
    }
    let keys: Vec<String> = (0..typed.keys.get())
        .map(|number| format!("lmx-bench-{}-{number}", std::process::id()))
        .collect();
    let work = Rc::new(Work {
        next: Cell::new(0),
        cycles: typed.cycles.get(),
        keys,
        progress: progress(typed.cycles.get()),
    });
    let start = clock::now();
    let tasks: Vec<_> = (0..typed.concurrency.get())
        .map(|number| {
            let client = clients[number as usize % clients.len()].clone();
            executor.spawn(cycle(client, Rc::clone(&work)))
        })
        .collect();
    let mut times = Times::new();
    for task in tasks {
        times.add(&task.await?);
    }
    let elapsed = clock::now().saturating_duration_since(start);
    work.progress.finish_and_clear();
    for client in clients {
        client.close().await;
    }
    Ok(Measured {
        cycles: typed.cycles.get(),
        concurrency: typed.concurrency.get(),
        keys: typed.keys.get(),
        connections: typed.connections.get(),
        elapsed,
        times,
    })
}

/// What all tasks share.
struct Work {
    /// The next cycle, of `cycles`.
    next: Cell<u32>,
    cycles: u32,
    keys: Vec<String>,
    progress: ProgressBar,
}

impl Work {
    /// The key of one more cycle, until there are no more.
    fn take(&self) -> Option<&str> {
        let cycle = self.next.get();
        if cycle == self.cycles {
            return None;
        }
        self.next.set(cycle + 1);
        Some(&self.keys[cycle as usize % self.keys.len()])
    }
}

/// Locks and unlocks for as long as there is work.
async fn cycle(client: Client, work: Rc<Work>) -> Result<Times, Failure> {
    let mut times = Times::new();
    while let Some(key) = work.take() {
        let asked = clock::now();
        let guard = client
            .lock(key)
            .wait_forever()
            .await
            .map_err(|error| not_granted(&error, Codes::default()))?;
        let granted = clock::now();
        guard
            .release()
            .await
            .map_err(|error| Failure::new(exit::REFUSED, format!("a lock was lost: {error}")))?;
        let released = clock::now();
        record(&mut times.lock, granted.saturating_duration_since(asked));
        record(
            &mut times.unlock,
            released.saturating_duration_since(granted),
        );
        work.progress.inc(1);
    }
    Ok(times)
}

/// How long things took, in microseconds.
#[derive(Debug)]
struct Times {
    lock: Histogram<u64>,
    unlock: Histogram<u64>,
}

impl Times {
    fn new() -> Self {
        let histogram = || Histogram::new_with_max(MICROS_MAX, 3).expect("three digits of an hour");
        Self {
            lock: histogram(),
            unlock: histogram(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.lock.add(&other.lock).expect("the same range");
        self.unlock.add(&other.unlock).expect("the same range");
    }
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(MICROS_MAX));
}

/// A bar on standard error, if that is a terminal.
fn progress(cycles: u32) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} cycles, {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(cycles.into()).with_style(style)
}

/// The result.
struct Measured {
    cycles: u32,
    concurrency: u32,
    keys: u32,
    connections: u32,
    elapsed: Duration,
    times: Times,
}

impl Measured {
    fn cycles_per_ms(&self) -> f64 {
        f64::from(self.cycles) / (self.elapsed.as_secs_f64() * 1000.0)
    }

    fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            return print_json(&json!({
                "cycles": self.cycles,
                "concurrency": self.concurrency,
                "keys": self.keys,
                "connections": self.connections,
                "elapsed_ms": self.elapsed.as_secs_f64() * 1000.0,
                "cycles_per_ms": self.cycles_per_ms(),
                "lock_us": percentiles_json(&self.times.lock),
                "unlock_us": percentiles_json(&self.times.unlock),
            }));
        }
        print(format!(
            "{} cycles at concurrency {} on {} key(s) over {} connection(s)\n\
             {:.3} s, {:.1} cycles/ms\n\
             {}{}",
            self.cycles,
            self.concurrency,
            self.keys,
            self.connections,
            self.elapsed.as_secs_f64(),
            self.cycles_per_ms(),
            percentiles_line("lock", &self.times.lock),
            percentiles_line("unlock", &self.times.unlock),
        ))
    }
}

fn percentiles_json(histogram: &Histogram<u64>) -> Value {
    let mut object = json!({ "min": histogram.min(), "max": histogram.max() });
    for (name, percentile) in PERCENTILES {
        object[name] = histogram.value_at_percentile(percentile).into();
    }
    object
}

fn percentiles_line(what: &str, histogram: &Histogram<u64>) -> String {
    let mut line = format!("{what:6}");
    for (name, percentile) in PERCENTILES {
        let value = histogram.value_at_percentile(percentile);
        let _ = write!(line, "  {name} {value} \u{b5}s");
    }
    line + &format!("  max {} \u{b5}s\n", histogram.max())
}

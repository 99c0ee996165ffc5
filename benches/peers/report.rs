//! What comes out: Markdown, JSON, and a plot.

mod markdown;
mod plot;

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::args::Args;
use crate::figures;
use crate::process;
use crate::scenario::{LOADS, Load};
use crate::stats::{Sample, Spread};

/// Everything that was found.
#[derive(Serialize)]
pub(crate) struct Report {
    /// What it was measured on.
    machine: Machine,
    /// How to repeat it.
    command: String,
    rounds: u32,
    peers: Vec<PeerEntry>,
    missing: Vec<PeerEntry>,
    results: Vec<Entry>,
    quantities: Vec<Quantity>,
    #[serde(skip)]
    samples: Vec<(&'static str, &'static str, Vec<Sample>)>,
    absent: Vec<Absence>,
    failures: Vec<Failure>,
}

#[derive(Serialize)]
struct Failure {
    scenario: &'static str,
    peer: &'static str,
    error: String,
}

#[derive(Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    system: String,
    compiler: String,
    /// Averages over 1, 5 and 15 minutes, before the first round.
    load_before: String,
    /// The same after the last round.
    load_after: String,
}

#[derive(Serialize)]
struct PeerEntry {
    name: &'static str,
    what: &'static str,
    /// Its version, or why it is missing.
    note: String,
}

/// One peer under one load.
#[derive(Serialize)]
pub(crate) struct Entry {
    pub(crate) scenario: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) rate: Spread,
    /// Grants to another loop than the one before, per second.
    pub(crate) handoffs: Spread,
    pub(crate) p50_us: Spread,
    pub(crate) p99_us: Spread,
}

#[derive(Serialize)]
struct Absence {
    scenario: &'static str,
    peer: &'static str,
    why: &'static str,
}

/// Something that is measured and is not a rate of cycles.
#[derive(Serialize)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
}

/// How much of it a peer has.
#[derive(Serialize)]
struct Quantity {
    #[serde(flatten)]
    measure: &'static Measure,
    peer: &'static str,
    value: Spread,
}

impl Report {
    pub(crate) fn begin(args: &Args) -> Self {
        Self {
            machine: Machine::here(),
            command: command(),
            rounds: args.rounds(),
            peers: Vec::new(),
            missing: Vec::new(),
            results: Vec::new(),
            quantities: Vec::new(),
            samples: Vec::new(),
            absent: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// A peer takes part.
    pub(crate) fn peer(&mut self, name: &'static str, what: &'static str, version: &str) {
        self.peers.push(PeerEntry {
            name,
            what,
            note: version.to_owned(),
        });
    }

    /// A peer is not there.
    pub(crate) fn missing(&mut self, name: &'static str, what: &'static str, why: &str) {
        self.missing.push(PeerEntry {
            name,
            what,
            note: why.to_owned(),
        });
    }

    /// A peer cannot run a load.
    pub(crate) fn absent(&mut self, load: &Load, peer: &'static str, why: &'static str) {
        let is_known = |absence: &Absence| absence.scenario == load.name && absence.peer == peer;
        if !self.absent.iter().any(is_known) {
            self.absent.push(Absence {
                scenario: load.name,
                peer,
                why,
            });
        }
    }

    /// A peer failed in a round: no number of it in this scenario is to be believed.
    pub(crate) fn failed(&mut self, scenario: &'static str, peer: &'static str, error: String) {
        self.samples
            .retain(|(of, name, _)| *of != scenario || *name != peer);
        self.failures.push(Failure {
            scenario,
            peer,
            error,
        });
    }

    /// Whether it did.
    pub(crate) fn has_failed(&self, load: &Load, peer: &str) -> bool {
        self.failures
            .iter()
            .any(|failure| failure.scenario == load.name && failure.peer == peer)
    }

    /// A round has ended.
    pub(crate) fn sample(&mut self, load: &Load, peer: &'static str, sample: Sample) {
        let known = self
            .samples
            .iter_mut()
            .find(|(scenario, name, _)| *scenario == load.name && *name == peer);
        match known {
            Some((.., samples)) => samples.push(sample),
            None => self.samples.push((load.name, peer, vec![sample])),
        }
    }

    /// Something else was measured.
    pub(crate) fn quantity(
        &mut self,
        measure: &'static Measure,
        peer: &'static str,
        values: &[f64],
    ) {
        let value = Spread::of(values.iter().copied());
        let Measure { name, what, unit } = measure;
        eprintln!("{name:<15} {peer:<15} {what}: {:.1} {unit}", value.median);
        self.quantities.push(Quantity {
            measure,
            peer,
            value,
        });
    }

    /// Prints and writes everything.
    pub(crate) fn finish(mut self, args: &Args) -> Result<(), String> {
        self.machine.load_after = load_average();
        self.results = self
            .samples
            .iter()
            .map(|(scenario, peer, samples)| Entry {
                scenario,
                peer,
                rate: Spread::of(samples.iter().map(Sample::rate)),
                handoffs: Spread::of(samples.iter().map(Sample::handoff_rate)),
                p50_us: Spread::of(samples.iter().map(|sample| sample.p50_us)),
                p99_us: Spread::of(samples.iter().map(|sample| sample.p99_us)),
            })
            .collect();
        let text = markdown::render(&self);
        println!("{text}");
        if let Some(path) = &args.markdown {
            write(path, &text)?;
        }
        if let Some(path) = &args.json {
            let json = serde_json::to_string_pretty(&self).map_err(|error| error.to_string())?;
            write(path, &(json + "\n"))?;
        }
        if let Some(path) = &args.svg {
            write(path, &plot::render(&self))?;
        }
        match self.failures.len() {
            0 => Ok(()),
            count => Err(format!("{count} failures, named above")),
        }
    }

    /// What a peer did under a load.
    pub(crate) fn entry(&self, scenario: &str, peer: &str) -> Option<&Entry> {
        self.results
            .iter()
            .find(|entry| entry.scenario == scenario && entry.peer == peer)
    }

    /// What else was measured of a peer.
    pub(crate) fn value(&self, name: &str, peer: &str) -> Option<f64> {
        self.quantities
            .iter()
            .find(|quantity| quantity.measure.name == name && quantity.peer == peer)
            .map(|quantity| quantity.value.median)
    }

    /// The loads that were run, each with its entries in the order of the peers.
    fn by_load(&self) -> impl Iterator<Item = (&'static Load, Vec<&Entry>)> {
        LOADS.iter().filter_map(|load| {
            let entries: Vec<_> = self
                .peers
                .iter()
                .filter_map(|peer| self.entry(load.name, peer.name))
                .collect();
            (!entries.is_empty()).then_some((load, entries))
        })
    }

    /// The figures that LMX is to reach, as far as this run measured them.
    fn figures(&self) -> Vec<figures::Outcome> {
        figures::outcomes(self)
    }
}

impl Machine {
    fn here() -> Self {
        let processors = read("/proc/cpuinfo");
        let processor = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or(std::env::consts::ARCH, |rest| {
                rest.trim_start_matches([' ', '\t', ':'])
            })
            .to_owned();
        let unknown = |_| "unknown".to_owned();
        Self {
            processor,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            system: process::first_line(Command::new("uname").args(["-s", "-r", "-m"]))
                .unwrap_or_else(unknown),
            compiler: process::first_line(Command::new("rustc").arg("--version"))
                .unwrap_or_else(unknown),
            load_before: load_average(),
            load_after: String::new(),
        }
    }
}

fn load_average() -> String {
    let text = read("/proc/loadavg");
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The command that repeats this run.
fn command() -> String {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let mut command = "cargo bench --bench peers".to_owned();
    if !arguments.is_empty() {
        command = format!("{command} -- {}", arguments.join(" "));
    }
    command
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

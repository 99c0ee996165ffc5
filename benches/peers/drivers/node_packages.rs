//! What Node.js programs use, each with its own client: live-mutex (on its broker and on
//! ours), lockfile, and redlock on one Redis.
//!
//! They run the same closed loops in a process of their own (`node/loops.js`), one client
//! in it, all loops at the same time.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use crate::clock::Duration;
use crate::drivers::{live_mutex, lmx, redis};
use crate::node;
use crate::peer::{Address, Candidate, Connection, Peer, Window};
use crate::process;
use crate::process::Server;
use crate::scenario::{Hold, Load};
use crate::stats::{self, Sample};

/// live-mutex with its own broker.
pub(crate) const LIVE_MUTEX_CLIENT: Candidate = Candidate {
    name: "node-live-mutex",
    what: "live-mutex's Node client on its own broker",
    start: |_| {
        let (server, address) = live_mutex::start()?;
        Package::start("live-mutex", Backend::LiveMutex(server), address, None)
    },
};
/// live-mutex with our broker.
pub(crate) const LIVE_MUTEX_CLIENT_ON_LMX: Candidate = Candidate {
    name: "node-lmx",
    what: "live-mutex's Node client on LMX",
    start: |scratch| {
        let lmx = lmx::start_server(scratch)?;
        let address = lmx.tcp.clone();
        Package::start("live-mutex", Backend::Lmx(lmx), address, None)
    },
};
/// lockfile.
pub(crate) const LOCKFILE: Candidate = Candidate {
    name: "node-lockfile",
    what: "lockfile in one Node process, polling every 10 ms",
    start: |scratch| {
        let folder = tempfile::tempdir_in(scratch)
            .map_err(|error| error.to_string())?
            .keep();
        let address = Address::Unix(folder.clone());
        Package::start("lockfile", Backend::Folder, address, Some(folder))
    },
};
/// redlock.
pub(crate) const REDLOCK: Candidate = Candidate {
    name: "node-redlock",
    what: "redlock on one Redis, asking again after 10 to 15 ms",
    start: |scratch| {
        let redis = redis::start_server(scratch)?;
        let address = redis.tcp.clone();
        Package::start("redlock", Backend::Redis(redis), address, None)
    },
};

/// How long a run may take in all.
const PATIENCE: Duration = Duration::from_mins(1);
/// V8 needs longer than the servers do until it runs at speed.
const WARM_UP_MIN: Duration = Duration::from_secs(1);

struct Package {
    name: &'static str,
    version: String,
    backend: Backend,
    address: Address,
    folder: Option<PathBuf>,
}

/// What the package talks to.
enum Backend {
    LiveMutex(#[expect(dead_code, reason = "kept running")] Server),
    Lmx(lmx::Lmx),
    Redis(redis::Redis),
    Folder,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    latencies_us: Vec<f64>,
    handoffs: u64,
    elapsed_ms: f64,
}

impl Package {
    fn start(
        name: &'static str,
        backend: Backend,
        address: Address,
        folder: Option<PathBuf>,
    ) -> Result<Box<dyn Peer>, String> {
        let version = format!(
            "{name} {} on Node.js {}",
            node::version_of(name)?,
            node::node_version()?
        );
        Ok(Box::new(Self {
            name,
            version,
            backend,
            address,
            folder,
        }))
    }
}

impl Peer for Package {
    fn version(&self) -> &str {
        &self.version
    }

    fn address(&self) -> &Address {
        &self.address
    }

    fn supports(&self, load: &Load) -> Result<(), &'static str> {
        match load.hold {
            Hold::Shared | Hold::Permits(_) => Err("not run"),
            Hold::Exclusive if load.connections > 100 => Err("not run: one process, one client"),
            Hold::Exclusive if load.lanes > 1 && !load.is_for_clients => {
                Err("as own-100: it decides itself what is outstanding")
            }
            Hold::Exclusive => Ok(()),
        }
    }

    fn connection(&self, _load: &Load, _index: usize) -> Box<dyn Connection> {
        unreachable!("it brings its own client")
    }

    fn audit(&mut self, _load: &Load) -> Result<(), String> {
        match &mut self.backend {
            Backend::Lmx(lmx) => lmx.expect_idle(),
            Backend::Redis(redis) => redis.expect_empty(),
            Backend::Folder => is_empty(self.folder.as_deref().expect("it has one")),
            // The loops end when all is released, and its client checks every release.
            Backend::LiveMutex(_) => Ok(()),
        }
    }

    fn brings_client(&self) -> bool {
        true
    }

    fn run(&mut self, load: &Load, window: Window) -> Result<Sample, String> {
        let keys: Vec<String> = (0..load.connections)
            .flat_map(|connection| (0..load.lanes).map(move |lane| load.key(connection, lane)))
            .collect();
        let port = match &self.address {
            Address::Tcp(address) => address.port(),
            Address::Unix(_) => 0,
        };
        let spec = json!({
            "port": port,
            "folder": self.folder,
            "keys": keys,
            "warmUpMs": window.warm_up.max(WARM_UP_MIN).as_millis(),
            "measureMs": window.measure.as_millis(),
        });
        let mut script = node::script("loops.js", self.name)?;
        let output = process::output_within(script.args([self.name, &spec.to_string()]), PATIENCE)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let outcome: Outcome = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        self.audit(load)?;
        sample(&outcome)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "latencies are positive and far below 2^63 ns"
)]
fn sample(outcome: &Outcome) -> Result<Sample, String> {
    let mut latency = stats::histogram();
    for micros in &outcome.latencies_us {
        latency.saturating_record((micros * 1_000.0) as u64);
    }
    if latency.is_empty() {
        return Err("no cycle ended within the measured window".into());
    }
    let elapsed = Duration::from_secs_f64(outcome.elapsed_ms / 1_000.0);
    Ok(Sample {
        handoffs: outcome.handoffs,
        ..Sample::of(&latency, elapsed)
    })
}

fn is_empty(folder: &Path) -> Result<(), String> {
    match std::fs::read_dir(folder).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(count) => Err(format!("{count} lock files are left")),
        Err(error) => Err(error.to_string()),
    }
}

//! LMX through its own Rust client: one client that multiplexes any number of loops.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::clock::{Duration, now};
use crate::drivers::lmx::{Lmx, start_server};
use crate::peer::{Address, Candidate, Connection, Peer, Window};
use crate::scenario::{Hold, LEASE_MS, Load};
use crate::stats::{self, Sample};

/// Over TCP.
pub(crate) const CLIENT: Candidate = Candidate {
    name: "lmx-client",
    what: "LMX over TCP through its Rust client",
    start: |scratch| {
        Ok(Box::new(RustClient {
            lmx: start_server(scratch)?,
        }))
    },
};

struct RustClient {
    lmx: Lmx,
}

impl Peer for RustClient {
    fn version(&self) -> &str {
        &self.lmx.version
    }

    fn address(&self) -> &Address {
        &self.lmx.tcp
    }

    fn supports(&self, load: &Load) -> Result<(), &'static str> {
        match load.hold {
            Hold::Shared | Hold::Permits(_) => Err("as lmx-tcp"),
            Hold::Exclusive if load.connections > 100 => Err("not run: one process, one client"),
            Hold::Exclusive => Ok(()),
        }
    }

    fn connection(&self, _load: &Load, _index: usize) -> Box<dyn Connection> {
        unreachable!("it brings its own client")
    }

    fn audit(&mut self, _load: &Load) -> Result<(), String> {
        self.lmx.expect_idle()
    }

    fn brings_client(&self) -> bool {
        true
    }

    fn run(&mut self, load: &Load, window: Window) -> Result<Sample, String> {
        let Address::Tcp(address) = self.lmx.tcp else {
            unreachable!("the address is TCP")
        };
        let sample = smol::block_on(loops(&address.to_string(), load, window))?;
        self.audit(load)?;
        Ok(sample)
    }
}

async fn loops(endpoint: &str, load: &Load, window: Window) -> Result<Sample, String> {
    let client = lmx::Client::connect(endpoint)
        .await
        .map_err(|error| error.to_string())?;
    let begun = now() + window.warm_up;
    let end = begun + window.measure;
    let latency = RefCell::new(stats::histogram());
    let holders = RefCell::new(HashMap::<String, Cell<bool>>::new());
    let last = Cell::new(usize::MAX);
    let handoffs = Cell::new(0);
    let one_loop = async |index: usize, key: String| -> Result<(), String> {
        loop {
            let before = now();
            if before >= end {
                return Ok(());
            }
            let lease = Duration::from_millis(LEASE_MS);
            let lock = client.lock(&key).lease(lease).wait_forever();
            let guard = lock.await.map_err(|error| error.to_string())?;
            if holders
                .borrow_mut()
                .entry(key.clone())
                .or_default()
                .replace(true)
            {
                return Err(format!("two hold {key} at one time"));
            }
            holders.borrow()[&key].set(false);
            guard.release().await.map_err(|error| error.to_string())?;
            let after = now();
            if after >= begun && after < end {
                let took = after - before;
                latency
                    .borrow_mut()
                    .saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                handoffs.set(handoffs.get() + u64::from(last.get() != index));
            }
            last.set(index);
        }
    };
    // Every loop is a task, as in a program that uses the client.
    let executor = smol::LocalExecutor::new();
    let tasks: Vec<_> = (0..load.connections)
        .flat_map(|connection| (0..load.lanes).map(move |lane| load.key(connection, lane)))
        .enumerate()
        .map(|(index, key)| executor.spawn(one_loop(index, key)))
        .collect();
    executor
        .run(async {
            for task in tasks {
                task.await?;
            }
            Ok::<(), String>(())
        })
        .await?;
    drop(executor);
    client.clone().close().await;
    Ok(Sample {
        handoffs: handoffs.get(),
        ..Sample::of(&latency.borrow(), window.measure)
    })
}

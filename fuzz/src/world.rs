//! The whole world: brokers, clients, disks and a network that fails them, driven by the
//! bytes as its entropy.

use lmx_sim::RunOptions;
use lmx_sim::lmx::Lmx;
use lmx_sim::protocol::AnyProtocol as _;

pub fn world(data: &[u8]) {
    let plan = Lmx::plan_of_bytes(data);
    let outcome = Lmx.run(&plan, &RunOptions::default());
    if let Some(violation) = outcome.violation {
        panic!("{violation}\n{}", plan.to_json());
    }
}

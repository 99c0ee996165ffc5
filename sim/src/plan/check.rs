//! Whether a plan that was read can be run: files are edited by hand.

use std::fmt::Display;

use super::fault::{Fault, NodeId, When};
use super::{Action, Lock, Mode, Network, Plan, SECOND, Wait};

/// A protocol's servers at the most: sets of nodes have 64 bits, and clients need some.
pub const SERVERS_MAX: u16 = 32;
/// A plan's clients at the most.
pub const CLIENTS_MAX: u16 = 32;
/// Clocks are off by so much at the most, in parts per million.
pub const DRIFT_PPM_MAX: u32 = 500_000;
/// No time in a plan is longer: a year.
pub const TIME_NS_MAX: u64 = 366 * 24 * 3_600 * SECOND;

/// Tables are as long as the largest number in them.
const OP_ID_MAX: u32 = 1 << 20;
const KEY_MAX: u32 = 1 << 16;
const MILLION: u32 = 1_000_000;

/// Why a text is no plan that can be run.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It is something else.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A value cannot be.
    #[error("`{field}` is {is}, and would have to be {right}")]
    Value {
        /// Where it stands.
        field: String,
        /// What it is.
        is: String,
        /// What would be right.
        right: String,
    },
}

fn wrong(
    field: impl Into<String>,
    is: impl Display,
    right: impl Into<String>,
) -> Result<(), PlanError> {
    Err(PlanError::Value {
        field: field.into(),
        is: is.to_string(),
        right: right.into(),
    })
}

fn at_most(
    field: impl FnOnce() -> String,
    is: impl Into<u64>,
    max: impl Into<u64>,
) -> Result<(), PlanError> {
    let (is, max) = (is.into(), max.into());
    if is > max {
        return wrong(field(), is, format!("{max} at most"));
    }
    Ok(())
}

impl Plan {
    /// Whether it can be run, by a protocol of any size.
    ///
    /// # Errors
    ///
    /// Which value cannot be, and what would be right.
    pub fn check(&self) -> Result<(), PlanError> {
        if !(1..=CLIENTS_MAX).contains(&self.clients) {
            return wrong("clients", self.clients, format!("1 to {CLIENTS_MAX}"));
        }
        at_most(|| "heal_ns".to_owned(), self.heal_ns, TIME_NS_MAX)?;
        self.network.check()?;
        for (place, ppm) in self.drifts_ppm.iter().enumerate() {
            if ppm.unsigned_abs() > DRIFT_PPM_MAX {
                let right = format!("-{DRIFT_PPM_MAX} to {DRIFT_PPM_MAX}");
                return wrong(format!("drifts_ppm[{place}]"), ppm, right);
            }
        }
        if (self.protocol == "lmx") != self.lmx.is_some() {
            let (is, right) = if self.lmx.is_some() {
                ("there", "left out: only the protocol `lmx` has use for it")
            } else {
                (
                    "not there",
                    "what the broker is set to: the protocol is `lmx`",
                )
            };
            return wrong("lmx", is, right);
        }
        let ids = self.check_ops()?;
        self.check_faults(&ids)
    }

    /// Returns the operations' numbers, sorted.
    fn check_ops(&self) -> Result<Vec<u32>, PlanError> {
        let mut ids: Vec<u32> = self.ops.iter().map(|op| op.id).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            wrong("ops: id", twice[0], "another one: two operations have it")?;
        }
        for op in &self.ops {
            let field = |name: &str| format!("ops: #{}: {name}", op.id);
            at_most(|| field("id"), op.id, OP_ID_MAX)?;
            at_most(|| field("at_ns"), op.at_ns, TIME_NS_MAX)?;
            if op.client >= self.clients {
                let right = format!("below {}, as `clients` says", self.clients);
                wrong(field("client"), op.client, right)?;
            }
            match &op.action {
                Action::Lock(lock) => check_lock(lock, field)?,
                Action::ForceKey(key) => at_most(|| field("ForceKey"), *key, KEY_MAX)?,
                _ => {}
            }
        }
        Ok(ids)
    }

    fn check_faults(&self, ids: &[u32]) -> Result<(), PlanError> {
        // A plan may have lost clients since its faults were drawn, but no clock.
        let servers = if self.lmx.is_some() { 1 } else { SERVERS_MAX };
        let most = usize::from(servers + self.clients).max(self.drifts_ppm.len());
        let nodes = NodeId::try_from(most).unwrap_or(NodeId::MAX);
        for (place, event) in self.faults.iter().enumerate() {
            let field = |name: &str| format!("faults[{place}].{name}");
            at_most(|| field("lasts_ns"), event.lasts_ns, TIME_NS_MAX)?;
            let (op, at_ns) = match event.when {
                When::At(at_ns) => (None, at_ns),
                When::Asked { op, after_ns }
                | When::Granted { op, after_ns }
                | When::Released { op, after_ns } => (Some(op), after_ns),
            };
            at_most(|| field("when"), at_ns, TIME_NS_MAX)?;
            if let Some(op) = op.filter(|op| ids.binary_search(op).is_err()) {
                return wrong(field("when: op"), op, "the `id` of an operation in `ops`");
            }
            for node in nodes_of(event.fault).into_iter().flatten() {
                if node >= nodes {
                    let right = format!("below {nodes}: servers come first, then the clients");
                    return wrong(field("fault"), format!("about node {node}"), right);
                }
            }
            match event.fault {
                Fault::Drift { ppm, .. } => {
                    at_most(|| field("fault: ppm"), ppm.unsigned_abs(), DRIFT_PPM_MAX)?;
                }
                Fault::Jump { by_ns, .. } => {
                    at_most(|| field("fault: by_ns"), by_ns.unsigned_abs(), TIME_NS_MAX)?;
                }
                Fault::Step { by_ns, .. } => {
                    at_most(|| field("fault: by_ns"), by_ns, TIME_NS_MAX)?;
                }
                Fault::Delay { extra_ns, .. } => {
                    at_most(|| field("fault: extra_ns"), extra_ns, TIME_NS_MAX)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Network {
    fn check(&self) -> Result<(), PlanError> {
        let field = |name: &'static str| move || format!("network.{name}");
        at_most(field("delay_ns_max"), self.delay_ns_max, TIME_NS_MAX)?;
        if self.delay_ns_min > self.delay_ns_max {
            let right = format!("no more than `delay_ns_max`, {}", self.delay_ns_max);
            return wrong("network.delay_ns_min", self.delay_ns_min, right);
        }
        at_most(field("slow_ppm"), self.slow_ppm, MILLION)?;
        at_most(field("cut_ppm"), self.cut_ppm, MILLION)?;
        if self.window_bytes == 0 {
            return wrong("network.window_bytes", 0, "1 or more");
        }
        Ok(())
    }
}

fn check_lock(lock: &Lock, field: impl Fn(&str) -> String) -> Result<(), PlanError> {
    if lock.wants.is_empty() {
        return wrong(field("wants"), "empty", "a key or more");
    }
    for want in &lock.wants {
        at_most(|| field("key"), want.key, KEY_MAX)?;
        if let Mode::Semaphore { capacity: 0, .. } | Mode::Semaphore { permits: 0, .. } = want.mode
        {
            return wrong(field("mode"), "of 0 permits", "of 1 or more");
        }
    }
    let wait_ns = match lock.wait {
        Wait::For(ns) => ns,
        Wait::Forever | Wait::No => 0,
    };
    for (name, ns) in [
        ("lease_ns", lock.lease_ns),
        ("hold_ns", lock.hold_ns),
        ("lock_delay_ns", lock.lock_delay_ns),
        ("cancel_after_ns", lock.cancel_after_ns.unwrap_or(0)),
        ("wait", wait_ns),
    ] {
        at_most(|| field(name), ns, TIME_NS_MAX)?;
    }
    Ok(())
}

/// The nodes that a fault names one by one.
const fn nodes_of(fault: Fault) -> [Option<NodeId>; 2] {
    match fault {
        Fault::Pause(node)
        | Fault::Crash(node)
        | Fault::PowerLoss(node)
        | Fault::Stop(node)
        | Fault::Freeze(node)
        | Fault::Storm(node)
        | Fault::Refuse(node)
        | Fault::Isolate(node)
        | Fault::SlowReader(node)
        | Fault::Jump { node, .. }
        | Fault::Step { node, .. }
        | Fault::Drift { node, .. } => [Some(node), None],
        Fault::Delay { from: a, to: b, .. }
        | Fault::Stall { from: a, to: b }
        | Fault::Drop { from: a, to: b }
        | Fault::Reset { a, b }
        | Fault::HalfOpen { told: a, untold: b } => [Some(a), Some(b)],
        Fault::Partition { .. } | Fault::PartitionOneWay { .. } => [None, None],
    }
}

//! The figures that LMX is to reach, read off a report.

use crate::report::{Entry, Report};

/// One of them.
pub(crate) struct Outcome {
    pub(crate) what: String,
    pub(crate) to_reach: String,
    pub(crate) measured: String,
    pub(crate) is_reached: bool,
}

/// Those that the run measured.
pub(crate) fn outcomes(report: &Report) -> Vec<Outcome> {
    let mut all = Vec::new();
    let lmx = |scenario| report.entry(scenario, "lmx-tcp");
    for (scenario, redis, live_mutex) in [
        ("own-1", 1.0, 1.5),
        ("own-20", 1.25, 2.0),
        ("own-100", 1.25, 2.0),
        ("own-1000", 1.25, 2.0),
    ] {
        for (peer, factor) in [("redis-tcp", redis), ("live-mutex", live_mutex)] {
            all.extend(faster(lmx(scenario), report.entry(scenario, peer), factor));
        }
        if scenario != "own-1" {
            all.extend(p99_no_worse(
                lmx(scenario),
                report.entry(scenario, "redis-tcp"),
            ));
        }
    }
    all.extend(faster(
        lmx("pipelined-64"),
        report.entry("pipelined-64", "redis-tcp"),
        3.0,
    ));
    let one = |peer| report.entry("one-20", peer);
    all.extend(hands_over_faster(one("lmx-tcp"), one("live-mutex"), 3.0));
    all.extend(hands_over_faster(one("lmx-tcp"), one("redis-tcp"), 10.0));
    for scenario in ["own-1", "own-20"] {
        all.extend(faster(
            report.entry(scenario, "lmx-unix"),
            lmx(scenario),
            1.15,
        ));
    }
    all.extend(faster(
        report.entry("headline", "lmx-client"),
        report.entry("headline", "node-live-mutex"),
        4.0,
    ));
    for scenario in ["headline", "own-1", "own-20"] {
        all.extend(faster(
            report.entry(scenario, "node-lmx"),
            report.entry(scenario, "node-live-mutex"),
            1.2,
        ));
    }
    all.extend(latencies(report));
    all.extend(sizes(report));
    all
}

/// Against the floor of an echo.
fn latencies(report: &Report) -> Vec<Outcome> {
    let Some(echo) = report.entry("own-1", "echo-smol") else {
        return Vec::new();
    };
    let echo = echo.p50_us.median;
    let cycle = report
        .entry("own-1", "lmx-tcp")
        .map(|ours| ours.p50_us.median / echo)
        .map(|ratio| {
            at_most(
                "a cycle, one connection, in cycles of the echo floor",
                ratio,
                1.15,
                "×",
            )
        });
    // A cycle of the echo is two round trips.
    let handoff = report
        .entry("one-20", "lmx-tcp")
        .map(|ours| 1e6 / ours.handoffs.median / (echo / 2.0))
        .map(|ratio| {
            at_most(
                "a handoff, 20 connections, in round trips of the echo floor",
                ratio,
                1.3,
                "×",
            )
        });
    cycle.into_iter().chain(handoff).collect()
}

/// What is not a rate of cycles.
fn sizes(report: &Report) -> Vec<Outcome> {
    let mut all = Vec::new();
    for (name, what, limit) in [
        ("held", "memory of a held lock", 200.0),
        ("idle", "memory of an idle connection", 4096.0),
    ] {
        let Some(ours) = report.value(name, "lmx-tcp") else {
            continue;
        };
        all.push(at_most(what, ours, limit, "bytes"));
        if let Some(redis) = report.value(name, "redis-tcp") {
            all.push(at_most(
                &format!("{what}, against redis-tcp"),
                ours,
                redis,
                "bytes",
            ));
        }
    }
    let single = [
        (
            "expiry",
            "lmx-tcp",
            "a bystander's longest cycle while 1 million leases end",
            5.0,
            "ms",
        ),
        ("size", "lmx", "broker binary, stripped", 6.0, "MiB"),
        ("start", "lmx", "start to ready", 20.0, "ms"),
    ];
    for (name, peer, what, limit, unit) in single {
        let value = report.value(name, peer);
        all.extend(value.map(|value| at_most(what, value, limit, unit)));
    }
    all
}

fn faster(ours: Option<&Entry>, theirs: Option<&Entry>, factor: f64) -> Option<Outcome> {
    let (ours, theirs) = (ours?, theirs?);
    let ratio = ours.rate.median / theirs.rate.median;
    Some(Outcome {
        what: format!(
            "cycles/s, {}: {} against {}",
            ours.scenario, ours.peer, theirs.peer
        ),
        to_reach: format!("≥ {factor} ×"),
        // On a machine that others use, too, a window loses whole time slices, and a median
        // latency hardly anything.
        measured: format!(
            "{ratio:.2} × ({:.2} × by the median time of a cycle)",
            theirs.p50_us.median / ours.p50_us.median
        ),
        is_reached: ratio >= factor,
    })
}

fn hands_over_faster(ours: Option<&Entry>, theirs: Option<&Entry>, factor: f64) -> Option<Outcome> {
    let (ours, theirs) = (ours?, theirs?);
    let ratio = ours.handoffs.median / theirs.handoffs.median;
    Some(Outcome {
        what: format!(
            "handoffs/s, {}: {} against {}",
            ours.scenario, ours.peer, theirs.peer
        ),
        to_reach: format!("≥ {factor} ×"),
        measured: format!("{ratio:.2} ×"),
        is_reached: ratio >= factor,
    })
}

fn p99_no_worse(ours: Option<&Entry>, theirs: Option<&Entry>) -> Option<Outcome> {
    let (ours, theirs) = (ours?, theirs?);
    let (mine, other) = (ours.p99_us.median, theirs.p99_us.median);
    Some(Outcome {
        what: format!(
            "p99, {}: {} against {}",
            ours.scenario, ours.peer, theirs.peer
        ),
        to_reach: format!("≤ {other:.0} us"),
        measured: format!("{mine:.0} us"),
        is_reached: mine <= other,
    })
}

fn at_most(what: &str, value: f64, limit: f64, unit: &str) -> Outcome {
    let round = |number: f64| match number {
        _ if number < 100.0 => format!("{number:.2}"),
        _ => format!("{number:.0}"),
    };
    Outcome {
        what: what.to_owned(),
        to_reach: format!("≤ {} {unit}", round(limit)),
        measured: format!("{} {unit}", round(value)),
        is_reached: value <= limit,
    }
}

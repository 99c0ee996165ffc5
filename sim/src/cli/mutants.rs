//! `lmx-sim mutants`: plants one bug after the other and sees whether it is found.

use std::process::ExitCode;

use super::MutantsArgs;

#[cfg(not(lmx_planted))]
pub(super) fn mutants(_: &MutantsArgs) -> Result<ExitCode, String> {
    Err("this build has no planted bugs; build one with them:\n  \
         RUSTFLAGS=\"--cfg lmx_planted\" cargo run --release -p lmx-sim \
         --target-dir target/planted -- mutants"
        .to_owned())
}

#[cfg(lmx_planted)]
pub(super) fn mutants(args: &MutantsArgs) -> Result<ExitCode, String> {
    use super::wall::Stopwatch;
    use crate::plan::FaultSet;
    use crate::sweep::Sweep;
    use lmx_core::planted;

    std::panic::set_hook(Box::new(|_| {}));
    let mut times = Vec::new();
    let mut missed = Vec::new();
    let wanted = |name: &&str| args.only.as_deref().is_none_or(|only| only == *name);
    println!(
        "{:34} {:>9} {:>8}  found as",
        "planted bug", "seconds", "seeds"
    );
    for name in planted::NAMES.iter().copied().filter(wanted) {
        planted::plant(Some(name));
        let watch = Stopwatch::start();
        let sweep = Sweep {
            protocol: &crate::lmx::Lmx,
            faults: FaultSet::ALL,
            first: args.first,
            last: u64::MAX,
            jobs: 1,
            check_determinism: true,
        };
        let totals = sweep.run(|_, _, _| watch.elapsed() < args.limit);
        let seconds = watch.elapsed().as_secs_f64();
        if let Some((_, violation)) = &totals.failure {
            times.push(seconds);
            let found = violation.property.name();
            println!("{name:34} {seconds:>9.2} {:>8}  {found}", totals.seeds);
        } else {
            missed.push(name);
            println!("{name:34} {seconds:>9.2} {:>8}  NOT FOUND", totals.seeds);
        }
    }
    planted::plant(None);
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let slowest = times.last().copied().unwrap_or_default();
    println!(
        "{} of {} found; median {median:.2} s, slowest {slowest:.2} s",
        times.len(),
        times.len() + missed.len()
    );
    Ok(ExitCode::from(u8::from(!missed.is_empty())))
}

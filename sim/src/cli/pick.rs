//! Reads what was typed.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::out::Problem;
use super::watch::watched;
use super::{Rerun, What, signals};
use crate::outcome::{Outcome, RunOptions};
use crate::plan::fault::UnknownFault;
use crate::plan::{FaultKind, FaultSet, Plan};
use crate::protocol::external::External;
use crate::protocol::{AnyProtocol, check_name};
use crate::sweep;

/// `A..B` or `A..=B`: the first seed and the last one.
pub(super) fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let wrong = || format!("`{text}` is not a range of seeds, such as 0..1000");
    let empty = || format!("`{text}` is an empty range of seeds");
    let (first, end) = text.split_once("..").ok_or_else(wrong)?;
    let first: u64 = first.parse().map_err(|_| wrong())?;
    let last = match end.strip_prefix('=') {
        Some(last) => last.parse().map_err(|_| wrong())?,
        None => end
            .parse::<u64>()
            .map_err(|_| wrong())?
            .checked_sub(1)
            .ok_or_else(empty)?,
    };
    let range = first..=last;
    if range.is_empty() {
        return Err(empty());
    }
    Ok(range)
}

/// `swarm`, `none`, or kinds separated by commas.
pub(super) fn faults(text: &str) -> Result<FaultSet, String> {
    let mut kinds = text.split(',').map(str::trim);
    match kinds.find(|kind| ["swarm", "none"].contains(kind)) {
        Some(alone) if alone != text.trim() => Err(format!(
            "`{alone}` stands alone, without other kinds of faults"
        )),
        _ => text
            .trim()
            .parse()
            .map_err(|error: UnknownFault| error.to_string()),
    }
}

/// A number, which may have a fraction, and a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time, such as 250ms, 1.5s, 5m or 2h");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim_start() {
        "" => {
            return Err(format!(
                "`{text}` is not a time, for it has no unit: ns, us, ms, s, m or h, as in {text}s"
            ));
        }
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// A length of time as the simulator counts it.
pub(super) fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The name under which this program runs.
pub(super) fn program() -> String {
    std::env::args_os()
        .next()
        .and_then(|path| Some(Path::new(&path).file_stem()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "lmx-sim".to_owned())
}

/// The protocols that can be named.
pub(super) struct Protocols<'a> {
    own: &'a [&'static dyn AnyProtocol],
}

/// A protocol, and how it was named.
#[derive(Clone, Copy)]
pub(super) struct Picked<'a> {
    pub(super) protocol: &'static dyn AnyProtocol,
    pub(super) typed: &'a str,
}

impl<'a> Protocols<'a> {
    pub(super) fn new(own: &'a [&'static dyn AnyProtocol]) -> Result<Self, Problem> {
        let mut names = HashSet::new();
        for protocol in own {
            let name = protocol.name();
            check_name(name)
                .map_err(|error| format!("this program has a protocol of its own: {error}"))?;
            if !names.insert(name) {
                return Err(Problem(format!(
                    "this program has two protocols of its own with the name `{name}`"
                )));
            }
        }
        Ok(Self { own })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &'static dyn AnyProtocol> {
        self.own.iter().copied().chain(sweep::protocols())
    }

    fn known(&self, name: &str) -> Option<&'static dyn AnyProtocol> {
        self.all().find(|protocol| protocol.name() == name)
    }

    /// What runs without being named.
    fn default(&self) -> &'static str {
        self.own.first().map_or("lmx", |protocol| protocol.name())
    }

    /// The protocol that was asked for, by name or by a file.
    pub(super) fn pick<'b>(&self, what: &'b What) -> Result<Picked<'b>, Problem> {
        let typed = what.protocol.as_deref().unwrap_or(self.default());
        if let Some(protocol) = self.known(typed) {
            check_fit(protocol)?;
            check_faults(what, protocol)?;
            return Ok(Picked { protocol, typed });
        }
        let path = Path::new(typed);
        if path.extension().is_none_or(|extension| extension != "json") {
            return Err(Problem(format!(
                "there is no protocol `{typed}`; `{} protocols` lists them, and a file that \
                 ends in .json can name nodes of your own",
                program()
            )));
        }
        let external = External::from_file(path).map_err(|error| error.to_string())?;
        if self.known(&external.name).is_some() {
            return Err(Problem(format!(
                "{typed} describes a protocol `{}`, and this program has one of that name",
                external.name
            )));
        }
        signals::end_nodes_first()?;
        external
            .try_start()
            .map_err(|error| format!("{typed}: {error}"))?;
        check_fit(&external)?;
        check_faults(what, &external)?;
        // There are one or two of them, and they are needed until the end.
        let protocol = Box::leak(Box::new(external));
        Ok(Picked { protocol, typed })
    }

    /// Runs what was named, and keeps a trace of it.
    pub(super) fn rerun(&self, rerun: &Rerun) -> Result<(Plan, Outcome), Problem> {
        let (picked, plan) = self.plan(&rerun.source, &rerun.what)?;
        let options = RunOptions {
            trace: true,
            until_ns: rerun.until.map(ns),
        };
        let outcome = watched(picked.protocol, None, |protocol| {
            sweep::run_plan(protocol, &plan, &options)
        });
        Ok((plan, outcome))
    }

    /// A seed's plan, or one from a file, and the protocol that it is for.
    pub(super) fn plan<'b>(
        &self,
        source: &str,
        what: &'b What,
    ) -> Result<(Picked<'b>, Plan), Problem> {
        if let Ok(seed) = source.parse() {
            let picked = self.pick(what)?;
            return Ok((picked, picked.protocol.plan(seed, what.faults())));
        }
        let text = std::fs::read_to_string(source).map_err(|error| {
            format!("`{source}` is neither a seed nor a file that can be read: {error}")
        })?;
        let plan =
            Plan::from_json(&text).map_err(|error| format!("{source} is no plan: {error}"))?;
        if what.faults.is_some() {
            return Err(Problem(format!(
                "--faults is for seeds: {source} is a plan, which says itself what goes wrong"
            )));
        }
        if what.protocol.is_none()
            && let Some(protocol) = self.known(&plan.protocol)
        {
            check_fit(protocol)?;
            let typed = protocol.name();
            return Ok((Picked { protocol, typed }, plan));
        }
        if what.protocol.is_none() {
            return Err(Problem(format!(
                "{source} is a plan for `{}`, which is not known here; name the file that says \
                 how its nodes run: --protocol FILE.json",
                plan.protocol
            )));
        }
        let picked = self.pick(what)?;
        if picked.protocol.name() != plan.protocol {
            return Err(Problem(format!(
                "{source} is a plan for `{}`, and not for `{}`",
                plan.protocol,
                picked.protocol.name()
            )));
        }
        Ok((picked, plan))
    }
}

fn check_fit(protocol: &dyn AnyProtocol) -> Result<(), Problem> {
    protocol.check().map_err(|unfit| Problem(unfit.to_string()))
}

/// Whether the protocol's plans can have the faults that were asked for. If they can have
/// some of them, that is said, and they are run.
fn check_faults(what: &What, protocol: &dyn AnyProtocol) -> Result<(), Problem> {
    let asked = what.faults();
    if asked == FaultSet::ALL {
        return Ok(());
    }
    let names = |faults: FaultSet| {
        let names: Vec<&str> = faults.iter().map(FaultKind::name).collect();
        names.join(", ")
    };
    let lacking = asked.iter().filter(|kind| !protocol.faults().has(*kind));
    let lacking = FaultSet::of(&lacking.collect::<Vec<_>>());
    if lacking == FaultSet::NONE {
        return Ok(());
    }
    let said = format!(
        "there is no {} in the plans of `{}`: its contract does not cover that, or its nodes have \
         no such thing; there are: {}",
        names(lacking),
        protocol.name(),
        names(protocol.faults())
    );
    if lacking == asked {
        return Err(Problem(said));
    }
    eprintln!("{}: {said}", program());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ranges_are_read_and_nonsense_is_named() {
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("0.105537 s"), Ok(Duration::from_micros(105_537)));
        assert_eq!(duration("1ns"), Ok(Duration::from_nanos(1)));
        assert!(duration("2 parsecs").unwrap_err().contains("`2 parsecs`"));
        assert!(duration("17").is_err());
        assert_eq!(seeds("3..9"), Ok(3..=8));
        assert_eq!(seeds("3..=9"), Ok(3..=9));
        for empty in ["9..3", "3..3", "0..0", "9..=3"] {
            assert!(seeds(empty).unwrap_err().contains("empty"), "{empty}");
        }
        assert!(seeds("3-9").is_err());
    }

    #[test]
    fn names_that_own_protocols_cannot_have_are_refused() {
        let named = |name: &str| -> &'static dyn AnyProtocol {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/first_come.json");
            let external = External::from_file(Path::new(path)).unwrap();
            Box::leak(Box::new(External {
                name: name.to_owned(),
                ..external
            }))
        };
        let refused = |own: &[&'static dyn AnyProtocol]| Protocols::new(own).err().unwrap().0;
        assert!(Protocols::new(&[named("mine"), named("mine-2")]).is_ok());
        assert!(refused(&[named("mine"), named("mine")]).contains("two protocols"));
        assert!(refused(&[named("redlock")]).contains("`redlock` already"));
        assert!(refused(&[named("lmx")]).contains("`lmx` already"));
        assert!(refused(&[named("a.json")]).contains("ends in .json"));
        assert!(refused(&[named("")]).contains("is empty"));
        assert!(refused(&[named("a b")]).contains("letters, digits"));
    }
}

//! `lmx-sim explore`.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use super::ExploreArgs;
use super::out::{Out, Problem};
use super::wall::Stopwatch;
use crate::explore::{Scope, explore as explore_scope};

/// In a log it is said after so many states that it goes on, and whenever they have doubled.
/// A scope can have more of them than anybody waits for.
const LOG_EVERY: u64 = 10_000;

pub(super) fn explore(args: &ExploreArgs, out: &mut Out) -> Result<ExitCode, Problem> {
    if args.clients == 0 || args.clients > 5 || args.keys == 0 || args.keys > 4 {
        return Err("a scope has 1 to 5 clients and 1 to 4 keys".into());
    }
    let scope = Scope {
        clients: args.clients,
        keys: args.keys,
        ops: args.ops,
        disconnects: args.disconnects,
        expiries: args.expiries,
    };
    let watch = Stopwatch::start();
    let terminal = std::io::stderr().is_terminal();
    let explored = explore_scope(scope, |states| {
        if terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{states} states");
        } else if (states / LOG_EVERY).is_power_of_two() && states.is_multiple_of(LOG_EVERY) {
            let _ = writeln!(std::io::stderr(), "{states} states, and more to come");
        }
    });
    if terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    writeln!(
        out,
        "{} states, {} steps, paths of up to {} actions, {:.1} s",
        explored.states,
        explored.steps,
        explored.depth,
        watch.elapsed().as_secs_f64()
    )?;
    let Some((violation, path)) = explored.failure else {
        writeln!(out, "the table did what the model did in all of them")?;
        return Ok(ExitCode::SUCCESS);
    };
    writeln!(out, "FAILED: {violation}")?;
    for action in path {
        writeln!(out, "  {action}")?;
    }
    Ok(ExitCode::from(1))
}

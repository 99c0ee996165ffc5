//! Instructions of the core's workloads: numbers that do not depend on the machine's mood.
//!
//! ```text
//! cargo bench -p lmx-core --bench counts               # fails if one grew by more than 5 %
//! cargo bench -p lmx-core --bench counts -- --record   # writes them to benches/counts.txt
//! ```
//!
//! Each workload runs twice under callgrind, once with twice the turns; the difference is
//! what the turns cost, without the making ready. (gungraun counts the same way, but needs
//! a runner of its own version installed; this needs valgrind alone.)

mod workloads;

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/counts.txt");
const TURNS: u64 = 1_000;
/// How much more than recorded is too much, in percent.
const GROWTH_MAX: u64 = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--turns", turns, name] => run(name, turns),
        ["--bench"] | [] => check(),
        ["--record", "--bench"] | ["--record"] => record(),
        _ => Err("it takes --record, or nothing".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What runs under callgrind.
fn run(name: &str, turns: &str) -> Result<(), String> {
    let (_, make) = workloads::ALL
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or("no such workload")?;
    let turns: u64 = turns.parse().map_err(|_| "not a number of turns")?;
    let mut turn = make();
    // What grows on first use has grown by then.
    (0..100).for_each(|_| turn());
    (0..turns).for_each(|_| turn());
    Ok(())
}

fn check() -> Result<(), String> {
    let recorded = std::fs::read_to_string(RECORD)
        .map_err(|error| format!("cannot read {RECORD}: {error}"))?;
    let mut grown = Vec::new();
    for (name, _) in workloads::ALL {
        let count = count(name)?;
        let before = recorded
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .strip_prefix(": ")?
                    .parse::<u64>()
                    .ok()
            })
            .ok_or_else(|| format!("{name} is not recorded; record it with --record"))?;
        println!("{name}: {count} instructions, {before} recorded");
        if count * 100 > before * (100 + GROWTH_MAX) {
            grown.push(*name);
        }
    }
    if grown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "grown by more than {GROWTH_MAX} %: {}; mend that, or record it with --record and say why",
        grown.join("; ")
    ))
}

fn record() -> Result<(), String> {
    let compiler = Command::new("rustc")
        .arg("--version")
        .output()
        .map_err(|error| format!("cannot run rustc: {error}"))?;
    let mut text = format!(
        "Instructions of one turn, by `cargo bench -p lmx-core --bench counts`; {}\n",
        String::from_utf8_lossy(&compiler.stdout).trim()
    );
    for (name, _) in workloads::ALL {
        let count = count(name)?;
        println!("{name}: {count} instructions");
        writeln!(text, "{name}: {count}").expect("a string takes all");
    }
    std::fs::write(RECORD, text).map_err(|error| format!("cannot write {RECORD}: {error}"))
}

/// Instructions of one turn.
fn count(name: &str) -> Result<u64, String> {
    let once = total(name, TURNS)?;
    let twice = total(name, 2 * TURNS)?;
    Ok((twice - once) / TURNS)
}

/// Instructions of a whole process.
fn total(name: &str, turns: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(["--turns", &turns.to_string(), name])
        .output()
        .map_err(|error| {
            format!("cannot run valgrind: {error} (Debian: apt-get install valgrind)")
        })?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name} ended with {}: {errors}", output.status));
    }
    totals(&file).ok_or_else(|| format!("callgrind wrote no total for {name}"))
}

fn totals(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .and_then(|total| total.trim().parse().ok())
}

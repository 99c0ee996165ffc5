//! Instructions of the core's workloads: numbers that do not depend on the machine's mood.
//!
//! ```text
//! cargo bench -p lmx-core --bench counts               # fails if one grew by more than 5 %
//! cargo bench -p lmx-core --bench counts -- --record   # writes them to benches/counts.txt
//! ```
//!
//! gungraun counts them, under callgrind. Its runner is built into `target/` first, from
//! `benches/runner`, which takes a minute or two, once. Its own comparisons are with what an
//! earlier run left in `target/`; ours is with the file in the repository.

mod workloads;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/counts.txt");
const RUNNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/runner/Cargo.toml");
/// What tells this program that it is to be gungraun's.
const AS_JSON: &str = "--output-format=json";
const TURNS: u64 = 1_000;
/// How much more than recorded is too much, in percent.
const GROWTH_MAX: u64 = 5;

/// What gungraun measures, and its `main`.
mod harness {
    use std::hint::black_box;

    use gungraun::{Callgrind, LibraryBenchmarkConfig};
    use gungraun::{library_benchmark, library_benchmark_group, main};

    use super::{TURNS, workloads};

    type Turn = Box<dyn FnMut()>;

    /// What is aligned like a page of memory.
    #[repr(align(4096))]
    struct Page(u8);

    fn ready(workload: usize) -> Turn {
        let (_, make) = workloads::ALL[workload];
        let mut turn = make();
        // What grows on first use has grown by then.
        (0..100).for_each(|_| turn());
        turn
    }

    #[library_benchmark(setup = ready)]
    #[benches::workload(iter = 0..workloads::ALL.len())]
    fn turns(mut turn: Turn) -> Turn {
        // libc copies in another way what is aligned in another way, and where the stack begins
        // depends on the program's path and the environment. From here on it is aligned.
        let page = Page(0);
        black_box(&page.0);
        (0..TURNS).for_each(|_| turn());
        // Whose end is not counted.
        turn
    }

    library_benchmark_group!(name = all, benchmarks = turns);
    main!(
        config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
        library_benchmark_groups = all
    );

    pub(super) fn run() {
        main();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--gungraun-run" | AS_JSON, ..] => {
            harness::run();
            Ok(())
        }
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

fn check() -> Result<(), String> {
    let recorded = std::fs::read_to_string(RECORD)
        .map_err(|error| format!("cannot read {RECORD}: {error}"))?;
    let mut grown = Vec::new();
    for (name, count) in counts()? {
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
            grown.push(name);
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
    for (name, count) in counts()? {
        println!("{name}: {count} instructions");
        writeln!(text, "{name}: {count}").expect("a string takes all");
    }
    std::fs::write(RECORD, text).map_err(|error| format!("cannot write {RECORD}: {error}"))
}

/// Instructions of one turn of each workload.
fn counts() -> Result<Vec<(&'static str, u64)>, String> {
    // Better said before the runner is built, and gungraun would name what starts it.
    Command::new("valgrind")
        .arg("--version")
        .output()
        .map_err(|error| {
            format!("cannot run valgrind: {error} (Debian: apt-get install valgrind)")
        })?;
    let summaries = summaries(&runner_folder()?)?;
    let all = workloads::ALL.iter().enumerate();
    all.map(|(index, (name, _))| {
        let id = format!("workload_{index}");
        let total = summaries
            .iter()
            .find(|summary| summary["id"] == *id)
            .and_then(|summary| summary.pointer("/profiles/0/data/total/metrics/Ir/values/new"))
            .and_then(Value::as_u64)
            .ok_or_else(|| format!("gungraun did not count {name}"))?;
        Ok((*name, total / TURNS))
    })
    .collect()
}

/// Builds gungraun's runner, and says where it is.
fn runner_folder() -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("gungraun-runner");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--manifest-path", RUNNER])
        .arg("--target-dir")
        .arg(&target)
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err("cannot build gungraun's runner, see above".to_owned());
    }
    Ok(target.join("debug"))
}

/// What gungraun says of each benchmark.
fn summaries(runner_folder: &Path) -> Result<Vec<Value>, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [runner_folder.to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&path));
    let path = std::env::join_paths(folders).map_err(|error| error.to_string())?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        // Valgrind lays out the memory itself, and containers may forbid to switch this off.
        .args([AS_JSON, "--allow-aslr=yes", "--bench"])
        .env("PATH", path)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run itself: {error}"))?;
    if !output.status.success() {
        return Err(format!("gungraun ended with {}", output.status));
    }
    serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| format!("gungraun wrote no JSON: {error}"))
}

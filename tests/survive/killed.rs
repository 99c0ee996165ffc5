//! A broker that is killed again and again, under clients that write down who holds.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lmx::Client;
use lmx::net::Endpoint;
use nix::sys::signal::Signal;

use crate::harness::{Process, lmx, text, until};

const CLIENTS: usize = 50;
const KEYS: usize = 5;
const KILLS: usize = 100;
/// Cycles between two kills.
const CYCLES: u64 = 100;

fn start(folder: &Path) -> Process {
    let mut command = lmx([
        "start",
        "--no-tcp",
        "--json",
        "--log",
        "error",
        "--idle-max",
        "1s",
    ]);
    command
        .args(["--unix", text(&folder.join("socket"))])
        .args(["--state-dir", text(&folder.join("state"))]);
    let mut process = Process::spawn(command);
    assert_eq!(process.json_line()["ready"], true);
    process
}

/// What one client has done.
#[derive(Debug, Default)]
struct Progress {
    cycles: AtomicU64,
}

/// Locks, writes down that it began, works, and writes down that it has ended, for ever.
async fn work(
    folder: PathBuf,
    number: usize,
    progress: Arc<Vec<Progress>>,
    is_over: Arc<AtomicBool>,
) {
    let client = Client::builder()
        .endpoint(Endpoint::unix(folder.join("socket")))
        .name(format!("client {number}"))
        .resume_window(Duration::from_secs(1))
        .backoff(Duration::from_millis(2), Duration::from_millis(50))
        .build()
        .expect("a client");
    let mut key = number;
    while !is_over.load(Ordering::Relaxed) {
        key = (key + 1) % KEYS;
        let Ok(guard) = client.lock(format!("key {key}")).wait_forever().await else {
            continue;
        };
        let mut file = record(&folder, key);
        let token = guard.token();
        writeln!(file, "begin {token} {number}").expect("written");
        for _ in 0..20 {
            smol::future::yield_now().await;
        }
        // Whoever is not sure keeps its hands off.
        if guard.is_valid() {
            writeln!(file, "end {token} {number}").expect("written");
            progress[number].cycles.fetch_add(1, Ordering::Relaxed);
        }
        let _ = guard.release().await;
    }
    client.close().await;
}

fn record(folder: &Path, key: usize) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(format!("record {key}")))
        .expect("opened")
}

#[test]
fn a_hundred_kills_under_load_break_no_promise() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let progress: Arc<Vec<Progress>> =
        Arc::new((0..CLIENTS).map(|_| Progress::default()).collect());
    let is_over = Arc::new(AtomicBool::new(false));
    let total = || -> u64 {
        progress
            .iter()
            .map(|client| client.cycles.load(Ordering::Relaxed))
            .sum()
    };

    let mut broker = start(folder.path());
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|number| {
            smol::spawn(work(
                folder.path().to_owned(),
                number,
                Arc::clone(&progress),
                Arc::clone(&is_over),
            ))
        })
        .collect();
    for kill in 0..KILLS {
        let before = total();
        until(&format!("progress before kill {kill}"), || {
            total() >= before + CYCLES
        });
        broker.signal(Signal::SIGKILL);
        broker.wait();
        broker = start(folder.path());
    }
    let before: Vec<u64> = progress
        .iter()
        .map(|client| client.cycles.load(Ordering::Relaxed))
        .collect();
    until("progress of every client after the last kill", || {
        progress
            .iter()
            .zip(&before)
            .all(|(client, before)| client.cycles.load(Ordering::Relaxed) > *before)
    });
    is_over.store(true, Ordering::Relaxed);
    smol::block_on(async {
        for task in tasks {
            task.await;
        }
    });

    let mut all_tokens = HashMap::new();
    for key in 0..KEYS {
        let text =
            std::fs::read_to_string(folder.path().join(format!("record {key}"))).expect("a record");
        judge(key, &text, &mut all_tokens);
    }
}

/// Convicts if anybody began with a token that was not larger than every one before, or
/// wrote after somebody else had begun.
fn judge(key: usize, record: &str, all_tokens: &mut HashMap<u64, usize>) {
    let mut last = 0;
    for (number, line) in record.lines().enumerate() {
        let mut words = line.split(' ');
        let kind = words.next().expect("a word");
        let token: u64 = words
            .next()
            .and_then(|token| token.parse().ok())
            .expect("a token");
        match kind {
            "begin" => {
                assert!(
                    token > last,
                    "key {key}, line {number}: {line} after {last}"
                );
                let other = all_tokens.insert(token, key);
                assert_eq!(
                    other, None,
                    "key {key}, line {number}: {line} was given twice"
                );
                last = token;
            }
            _ => assert_eq!(
                token, last,
                "key {key}, line {number}: {line} after another began"
            ),
        }
    }
}

//! First come, first served, and what random deaths do to it.

use std::collections::BTreeSet;

use nix::sys::signal::{Signal, kill};

use super::harness::{Broker, Process, succeed};

#[test]
fn the_order_of_grants_is_the_order_of_arrival_across_processes() {
    let broker = Broker::start();
    succeed(&mut broker.lmx(["acquire", "k"]));
    let mut all = Vec::new();
    for number in 0..10 {
        let script = format!("echo {number} >> order");
        all.push(Process::spawn(broker.run_sh("k", &[], &script)));
        broker.until_counts("k", 1, number + 1);
    }
    succeed(&mut broker.lmx(["release", "k"]));
    for run in &mut all {
        assert_eq!(run.code(), 0);
    }
    let order: Vec<String> = broker.read("order").lines().map(str::to_owned).collect();
    let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(order, expected);
}

#[test]
fn no_update_is_lost_and_nobody_waits_for_ever_while_anybody_is_killed() {
    let broker = Broker::start();
    broker.write("log", "");
    // Whoever overlaps with another loses the other's line.
    let script = "echo $$; cat log > new.$$; echo $NAME >> new.$$; mv new.$$ log; echo done";
    let seed = 0x5eed_u64;
    let threads: Vec<_> = (0..40_u64)
        .map(|number| {
            let mut command = broker.run_sh("log", &[], script);
            command.env("NAME", format!("name-{number}"));
            std::thread::spawn(move || {
                let mut run = Process::spawn(command);
                let draw = mixed(seed, number);
                if draw.is_multiple_of(5) {
                    // Wherever it is by now: it may not even have asked.
                    run.signal(Signal::SIGKILL);
                }
                let first = run.line();
                if let Ok(shell) = first.parse() {
                    match draw % 5 {
                        1 => run.signal(Signal::SIGKILL),
                        2 => drop(kill(nix::unistd::Pid::from_raw(shell), Signal::SIGKILL)),
                        _ => {}
                    }
                }
                let completed = run.rest().contains("done");
                run.wait();
                assert!(completed || draw % 5 < 3, "{number} was let alone");
                completed.then(|| format!("name-{number}"))
            })
        })
        .collect();
    let completed: BTreeSet<String> = threads
        .into_iter()
        .filter_map(|thread| thread.join().expect("no panic"))
        .collect();
    let log = broker.read("log");
    let kept: Vec<&str> = log.lines().collect();
    let distinct: BTreeSet<String> = kept.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(kept.len(), distinct.len());
    assert!(completed.is_subset(&distinct), "{completed:?}\n{log}");
    // Whoever is dead holds nothing, and waits for nothing.
    broker.until_counts("log", 0, 0);
}

/// A number that looks random: the same one for the same arguments.
fn mixed(seed: u64, number: u64) -> u64 {
    let mut mixed = (seed ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32
}

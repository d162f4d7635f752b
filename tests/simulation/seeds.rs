//! Which seeds a simulation runs, and how it tells of those that failed.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::panics;

/// A number in the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")),
        Err(_) => default,
    }
}

/// The seeds that are kept, one a line.
fn kept(text: &str) -> Vec<u64> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let seeds = lines.filter(|line| !line.is_empty());
    seeds.map(|seed| seed.parse().unwrap_or_else(|_| panic!("regressions.txt: {seed:?}"))).collect()
}

/// Runs the seeds that the environment chooses, else the kept ones and `count` from 0; panics with the
/// first that failed, and with how to run it again. `test` is the test's binary, `run` gives what was
/// wrong in a seed's run.
pub fn hold(test: &str, regressions: &str, count: u64, run: impl Fn(u64) -> Option<String> + Sync) {
    let first = number("SIM_FIRST", 0);
    let count = number("SIM_COUNT", count);
    // Who chooses seeds gets those and no others.
    let chosen = std::env::var_os("SIM_COUNT").is_some();
    let mut seeds = if chosen { Vec::new() } else { kept(regressions) };
    seeds.extend(first..first + count);
    let enough = usize::try_from(number("SIM_FAILURES", 1)).expect("a small number");
    let failures = run_all(&seeds, enough, run);
    for (seed, violation) in failures.iter().skip(1) {
        let first = violation.split("\n\n").next().unwrap_or_default();
        println!("seed {seed} failed too: {first}");
    }
    if let Some((seed, violation)) = failures.into_iter().next() {
        panic!(
            "seed {seed} failed: {violation}\n\
             seed {seed} failed; again: SIM_FIRST={seed} SIM_COUNT=1 cargo test --test {test}"
        );
    }
}

/// Runs seeds on all processors, until so many failed; gives the failures by seed.
fn run_all(
    seeds: &[u64],
    enough: usize,
    run: impl Fn(u64) -> Option<String> + Sync,
) -> BTreeMap<u64, String> {
    panics::watch();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failures.lock().expect("failures").len() < enough {
                    let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    if let Some(violation) = run(*seed) {
                        failures.lock().expect("failures").insert(*seed, violation);
                    }
                }
            });
        }
    });
    failures.into_inner().expect("failures")
}

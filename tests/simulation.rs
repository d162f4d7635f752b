//! The loop against a simulated host, in simulated time, under faults drawn from a seed.
//!
//! `docs/SIMULATION.md` says what is simulated and what must hold. `SIM_FIRST` and `SIM_COUNT` choose
//! the seeds; a failing one prints itself, and `SIM_FIRST=seed SIM_COUNT=1` runs it again, step by
//! step the same.

mod simulation {
    pub mod chance;
    pub mod changes;
    pub mod clock;
    pub mod clones;
    pub mod controller;
    pub mod database;
    pub mod faults;
    pub mod files;
    pub mod frost;
    pub mod guests;
    pub mod host;
    pub mod hypervisor;
    pub mod installers;
    pub mod invariants;
    pub mod links;
    pub mod made;
    pub mod panics;
    pub mod run;
    pub mod script;
    pub mod store;
    pub mod watch;
    pub mod world;
}

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use simulation::{panics, run::run};

/// Seeds of a whole run.
const COUNT: u64 = 2000;

/// Seeds that found a fault once.
const REGRESSIONS: &str = include_str!("simulation/regressions.txt");

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")),
        Err(_) => default,
    }
}

fn regressions() -> Vec<u64> {
    let lines = REGRESSIONS.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let seeds = lines.filter(|line| !line.is_empty());
    seeds.map(|seed| seed.parse().unwrap_or_else(|_| panic!("regressions.txt: {seed:?}"))).collect()
}

/// Runs seeds on all processors, until so many failed; gives the failures by seed.
fn run_all(seeds: &[u64], enough: usize) -> BTreeMap<u64, String> {
    panics::watch();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failures.lock().expect("failures").len() < enough {
                    let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    if let Some(violation) = run(*seed).violation {
                        failures.lock().expect("failures").insert(*seed, violation);
                    }
                }
            });
        }
    });
    failures.into_inner().expect("failures")
}

#[test]
fn the_loop_is_right_whatever_happens() {
    let first = number("SIM_FIRST", 0);
    let count = number("SIM_COUNT", COUNT);
    // Who chooses seeds gets those and no others.
    let chosen = std::env::var_os("SIM_COUNT").is_some();
    let mut seeds = if chosen { Vec::new() } else { regressions() };
    seeds.extend(first..first + count);
    let enough = usize::try_from(number("SIM_FAILURES", 1)).expect("a small number");
    let failures = run_all(&seeds, enough);
    for (seed, violation) in failures.iter().skip(1) {
        let first = violation.split("\n\n").next().unwrap_or_default();
        println!("seed {seed} failed too: {first}");
    }
    if let Some((seed, violation)) = failures.into_iter().next() {
        panic!(
            "seed {seed} failed: {violation}\n\
             seed {seed} failed; again: SIM_FIRST={seed} SIM_COUNT=1 cargo test --test simulation"
        );
    }
}

/// All that can be asked for, and changed.
const KINDS: [&str; 25] = [
    "Create",
    "Start",
    "Stop",
    "Delete",
    "Suspend",
    "Save",
    "Reboot",
    "Reset",
    "SetAutostart",
    "Rename",
    "SetPolicy",
    "Resize",
    "GrowDisk",
    "AttachDisk",
    "DetachDisk",
    "ChangeMedium",
    "AttachInterface",
    "DetachInterface",
    "CreateSnapshot",
    "RevertSnapshot",
    "DeleteSnapshot",
    "Adopt",
    "Release",
    "Clone",
    "Lend",
];

#[test]
fn runs_reach_all_that_can_be_asked_for() {
    let (mut ends, mut freezes) = (BTreeMap::<String, u32>::new(), 0);
    let (mut longest_frost, mut installs) = (Duration::ZERO, 0);
    let all = |ends: &BTreeMap<String, u32>| {
        KINDS.iter().all(|kind| ends.contains_key(&format!("{kind} Succeeded")))
    };
    for seed in 0..COUNT {
        // Some are asked for seldom.
        if seed >= 200 && all(&ends) {
            break;
        }
        let outcome = run(seed);
        freezes += outcome.freezes;
        installs += outcome.installs;
        longest_frost = longest_frost.max(outcome.longest_frost);
        for (end, times) in outcome.ends {
            *ends.entry(end).or_default() += times;
        }
    }
    for kind in KINDS {
        assert!(ends.contains_key(&format!("{kind} Succeeded")), "no {kind} succeeds: {ends:#?}");
    }
    assert!(installs > 10, "systems were installed {installs} times");
    assert!(freezes > 10, "guests were frozen {freezes} times");
    assert!(!longest_frost.is_zero(), "nobody looked how long");
}

#[test]
fn a_seed_is_the_same_run_again() {
    for seed in [1, 7, 1234] {
        let (one, other) = (run(seed), run(seed));
        assert_eq!((one.hash, one.ticks), (other.hash, other.ticks), "seed {seed} is not one run");
        assert!(one.ticks > 20, "nothing happened in seed {seed}");
    }
}

//! A command's whole journey over a simulated log and simulated links, in simulated time, under faults
//! drawn from a seed: it runs at most once, and nobody is told what is not so.
//!
//! `docs/SIMULATION.md` says what is simulated and what must hold. `SIM_FIRST` and `SIM_COUNT` choose
//! the seeds; a failing one prints itself, and `SIM_FIRST=seed SIM_COUNT=1` runs it again, step by
//! step the same.

mod command_simulation {
    #[path = "../simulation/chance.rs"]
    #[allow(dead_code, reason = "a part of it is used")]
    pub mod chance;
    #[path = "../simulation/panics.rs"]
    pub mod panics;
    #[path = "../simulation/seeds.rs"]
    pub mod seeds;

    pub mod controller;
    pub mod faults;
    pub mod guests;
    pub mod judge;
    pub mod links;
    pub mod log;
    pub mod run;
    pub mod script;
    pub mod world;
}

use std::collections::BTreeMap;

use command_simulation::{run::run, seeds};

/// Seeds of a whole run.
const COUNT: u64 = 2000;

/// Seeds that found a fault once.
const REGRESSIONS: &str = include_str!("command_simulation/regressions.txt");

#[test]
fn a_command_runs_at_most_once_whatever_happens() {
    seeds::hold("command_simulation", REGRESSIONS, COUNT, |seed| run(seed).violation);
}

/// How a command can end, and why it can be refused.
const ENDS: [&str; 11] = [
    "Answered",
    "TimedOut",
    "Disconnected",
    "Lost",
    "Cancelled",
    "late answer",
    "AGENT_NOT_CONNECTED",
    "QUEUE_FULL",
    "ID_TAKEN",
    "STORE_UNAVAILABLE",
    "cancel",
];

#[test]
fn runs_reach_every_end_of_a_command() {
    let (mut seen, mut ran, mut lives) = (BTreeMap::<&str, u32>::new(), 0, 0);
    for seed in 0..200 {
        let outcome = run(seed);
        ran += outcome.ran;
        lives += outcome.lives;
        for (end, times) in outcome.ends {
            *seen.entry(end).or_default() += times;
        }
    }
    for end in ENDS {
        assert!(seen.get(end).is_some_and(|times| *times > 10), "{end} is seldom reached: {seen:#?}");
    }
    assert!(ran > 2000, "only {ran} commands ran: the guests are deaf");
    assert!(lives > 400, "only {lives} controllers lived: none dies");
}

#[test]
fn a_seed_is_the_same_run_again() {
    let mut lines = 0;
    for seed in 0..30 {
        let (one, other) = (run(seed), run(seed));
        let differs = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed} is not one run");
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed} is not one run");
        lines += one.trace.len();
    }
    assert!(lines > 3000, "only {lines} things happened in 30 runs");
}

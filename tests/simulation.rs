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
    pub mod seeds;
    pub mod store;
    pub mod watch;
    pub mod world;
}

use std::{collections::BTreeMap, time::Duration};

use simulation::{run::run, seeds};

/// Seeds of a whole run.
const COUNT: u64 = 2000;

/// Seeds that found a fault once.
const REGRESSIONS: &str = include_str!("simulation/regressions.txt");

#[test]
fn the_loop_is_right_whatever_happens() {
    seeds::hold("simulation", REGRESSIONS, COUNT, |seed| run(seed).violation);
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

//! The simulated world: a log of commands, guests with their links, and whatever can go wrong. It
//! outlives the controllers that are started in it, one after another.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use infinibay::{
    agents::LateAnswer,
    store::CommandRecord,
    vm::{CommandId, VmId},
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{chance::Chance, faults::Faults, guests::Guest, judge::Facts, links::Link};

/// Lines of the trace that a failing run shows.
const SHOWN: usize = 120;

/// More than any run needs.
const EFFECTS: u64 = 100_000;

/// See the module.
pub struct World {
    state: Mutex<State>,
    /// Rings when the controller dies, or a fault was seen.
    pub bell: Notify,
    origin: Instant,
}

/// A logged command.
#[derive(Debug)]
pub struct Row {
    pub record: CommandRecord,
    /// The controller that asked for it to be logged.
    pub life: u32,
}

/// Everything that is.
pub struct State {
    pub now: DateTime<Utc>,
    pub chance: Chance,
    pub faults: Faults,
    /// Counts the controllers; 0 before the first.
    pub life: u32,
    /// The present one is dead or dying: nothing that it begins has an effect any more.
    pub crashed: bool,
    /// The database cannot be reached.
    pub is_away: bool,
    pub rows: BTreeMap<CommandId, Row>,
    /// What is so of each command, in whatever life.
    pub facts: BTreeMap<CommandId, Facts>,
    /// Each in the order in which it was first asked for.
    pub order: Vec<CommandId>,
    pub guests: BTreeMap<VmId, Guest>,
    /// The links of the present controller.
    pub links: BTreeMap<VmId, Link>,
    /// Where the present controller is told of late answers.
    pub late: Option<mpsc::Sender<LateAnswer>>,
    /// Counts connections.
    pub connections: u64,
    /// How far the wall clock is ahead of the run's time, seconds.
    pub clock_ahead: i64,
    /// Counts looks at the clock, each of which takes a microsecond.
    looks: i64,
    /// How often each end was told or noted.
    pub ends: BTreeMap<&'static str, u32>,
    /// What was done wrong, first of all.
    pub violation: Option<String>,
    pub trace: Vec<String>,
    /// Counts what the controllers did.
    effects: u64,
}

fn epoch() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

impl State {
    /// Notes that something happened.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.push(format!("{} #{} {what}", self.now.format("%H:%M:%S%.6f"), self.life));
    }

    /// Notes that something was done wrong.
    pub fn violate(&mut self, what: fmt::Arguments<'_>) {
        self.note(format_args!("VIOLATION: {what}"));
        self.violation.get_or_insert_with(|| what.to_string());
    }

    /// A command as the trace names it: by the order in which it was asked for.
    pub fn label(&self, id: CommandId) -> String {
        let index = self.order.iter().position(|known| *known == id);
        index.map_or_else(|| "an unknown command".to_owned(), |index| format!("c{index}"))
    }

    pub fn is_alive(&self, life: u32) -> bool {
        self.life == life && !self.crashed
    }

    /// The clock on the wall; no two looks show the same.
    pub fn look_at_clock(&mut self) -> DateTime<Utc> {
        self.looks += 1;
        self.now + TimeDelta::microseconds(self.looks)
    }
}

impl World {
    /// A world with these guests, and an empty log.
    pub fn new(seed: u64, guests: BTreeMap<VmId, Guest>) -> Arc<Self> {
        let mut chance = Chance::new(seed, 1);
        let faults = Faults::draw(&mut chance);
        let state = State {
            now: epoch(),
            chance,
            faults,
            life: 0,
            crashed: false,
            is_away: false,
            rows: BTreeMap::new(),
            facts: BTreeMap::new(),
            order: Vec::new(),
            guests,
            links: BTreeMap::new(),
            late: None,
            connections: 0,
            clock_ahead: 0,
            looks: 0,
            ends: BTreeMap::new(),
            violation: None,
            trace: Vec::new(),
            effects: 0,
        };
        Arc::new(Self { state: Mutex::new(state), bell: Notify::new(), origin: Instant::now() })
    }

    /// Everything, with the time as it is.
    pub fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().expect("the world");
        let ahead = TimeDelta::seconds(state.clock_ahead);
        state.now = epoch() + TimeDelta::from_std(self.origin.elapsed()).expect("a short run") + ahead;
        state
    }

    /// Where the controller `life` may die. It does not come back from there when it does, nor when
    /// it is dead already.
    pub async fn point(&self, life: u32, what: &str) {
        let goes_on = {
            let mut state = self.state();
            let (alive, rate) = (state.is_alive(life), state.faults.crash);
            state.effects += u64::from(alive);
            if state.effects > EFFECTS {
                state.violate(format_args!("the commands do not come to rest"));
            }
            let dies = alive && state.chance.one_in(rate);
            if dies {
                state.note(format_args!("the controller dies {what}"));
                state.crashed = true;
                self.bell.notify_one();
            }
            if state.violation.is_some() {
                self.bell.notify_one();
            }
            alive && !dies
        };
        if !goes_on {
            std::future::pending::<()>().await;
        }
    }

    /// Does something in a while, whoever is alive then.
    pub fn later(self: &Arc<Self>, wait: Duration, work: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            work(&world);
        });
    }

    /// What happened last.
    pub fn last_lines(&self) -> String {
        let state = self.state();
        let from = state.trace.len().saturating_sub(SHOWN);
        state.trace[from..].iter().fold(String::new(), |all, line| all + line + "\n")
    }
}

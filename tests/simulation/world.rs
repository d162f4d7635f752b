//! The simulated world: one host with what is on it, one database, the guests, and whatever can go
//! wrong. It outlives the controllers that are started in it, one after another.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    hash::{DefaultHasher, Hasher},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use infinibay::{
    hypervisor::HypervisorEvent,
    vm::{HostId, UserId, VmId},
};
use tokio::{
    sync::{Notify, broadcast, mpsc},
    time::Instant,
};

use super::{chance::Chance, database::Database, faults::Faults, host::Host, links::Link, watch::Watch};

/// Lines of the trace that a failing run shows.
const SHOWN: usize = 120;

/// More than any run needs.
const EFFECTS: u64 = 300_000;

/// See the module.
pub struct World {
    state: Mutex<State>,
    /// Rings when the controller dies, or a fault of the loop was seen.
    pub bell: Notify,
    pub events: broadcast::Sender<HypervisorEvent>,
    origin: Instant,
}

/// Whom the present controller listens to.
#[derive(Debug)]
pub struct Hints {
    pub links: mpsc::Sender<VmId>,
    pub sockets: mpsc::Sender<Option<VmId>>,
}

/// Everything that is.
#[derive(Debug)]
pub struct State {
    pub now: DateTime<Utc>,
    pub chance: Chance,
    pub faults: Faults,
    /// The faults have ended.
    pub is_calm: bool,
    /// Counts the controllers; 0 before the first.
    pub life: u32,
    /// The present one is dying: nothing that it does has an effect any more.
    pub crashed: bool,
    pub hints: Option<Hints>,
    pub host_id: HostId,
    pub owner: UserId,
    pub host: Host,
    pub database: Database,
    pub links: BTreeMap<VmId, Link>,
    pub silent: BTreeSet<VmId>,
    /// Since when libvirt's events come.
    pub connected: DateTime<Utc>,
    /// How far the wall clock is ahead of the run's time, seconds.
    pub clock_ahead: i64,
    pub watch: Watch,
    /// What the loop did wrong, first of all.
    pub violation: Option<String>,
    trace: VecDeque<String>,
    hash: DefaultHasher,
    /// Counts what happened, and so orders it.
    pub tick: u64,
    /// Counts what the controllers did and asked.
    effects: u64,
}

impl State {
    /// Notes that something happened.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        self.tick += 1;
        let line = format!("{} #{} {what}", self.now.format("%H:%M:%S%.3f"), self.life);
        self.hash.write(line.as_bytes());
        if self.trace.len() == SHOWN {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    /// Notes that the loop did wrong.
    pub fn violate(&mut self, what: fmt::Arguments<'_>) {
        self.note(format_args!("VIOLATION: {what}"));
        self.violation.get_or_insert_with(|| what.to_string());
    }

    /// A VM as the trace names it: by the order in which it was asked for.
    pub fn label(&self, vm: VmId) -> String {
        self.database
            .order
            .iter()
            .position(|known| *known == vm)
            .map_or_else(|| "stranger".to_owned(), |index| format!("vm{index}"))
    }
}

pub fn epoch() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

impl World {
    /// An empty host with a few strangers' things on it.
    pub fn new(seed: u64) -> Arc<Self> {
        let mut chance = Chance::new(seed, 1);
        let faults = Faults::draw(&mut chance);
        let state = State {
            now: epoch(),
            host_id: HostId(chance.uuid()),
            owner: UserId(chance.uuid()),
            host: Host::with_strangers(&mut chance),
            chance,
            faults,
            is_calm: false,
            life: 0,
            crashed: false,
            hints: None,
            database: Database::default(),
            links: BTreeMap::new(),
            silent: BTreeSet::new(),
            connected: epoch(),
            clock_ahead: 0,
            watch: Watch::default(),
            violation: None,
            trace: VecDeque::new(),
            hash: DefaultHasher::new(),
            tick: 0,
            effects: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            bell: Notify::new(),
            events: broadcast::channel(256).0,
            origin: Instant::now(),
        })
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
            let alive = state.life == life && !state.crashed;
            state.effects += 1;
            state.judge_frost();
            if state.effects > EFFECTS {
                state.violate(format_args!("the loop does not come to rest"));
            }
            let rate = state.faults.crash;
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

    /// Tells the controller, as well as events do: they may be lost, doubled or late.
    pub fn tell(self: &Arc<Self>, event: Event) {
        let (lost, doubled, late) = {
            let mut state = self.state();
            let Faults { lost, doubled, late, .. } = state.faults;
            let late = state.chance.one_in(late).then(|| state.chance.seconds(1, 45));
            (state.chance.one_in(lost), state.chance.one_in(doubled), late)
        };
        if lost {
            return;
        }
        for _ in 0..=u32::from(doubled) {
            match late {
                None => self.deliver(event),
                Some(late) => {
                    let world = Arc::clone(self);
                    tokio::spawn(async move {
                        tokio::time::sleep(late).await;
                        world.deliver(event);
                    });
                }
            }
        }
    }

    fn deliver(&self, event: Event) {
        let state = self.state();
        match event {
            // Nobody there to listen is no fault.
            Event::Domain(vm) => drop(self.events.send(HypervisorEvent::Domain(vm))),
            Event::Connected => drop(self.events.send(HypervisorEvent::Connected)),
            Event::Disconnected => drop(self.events.send(HypervisorEvent::Disconnected)),
            Event::Link(vm) => drop(state.hints.as_ref().map(|hints| hints.links.try_send(vm))),
            Event::Socket(vm) => drop(state.hints.as_ref().map(|hints| hints.sockets.try_send(Some(vm)))),
        }
    }

    /// Does something in a while.
    pub fn later(self: &Arc<Self>, wait: Duration, work: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            work(&world);
        });
    }

    /// What a run did, as a number: the same for the same run.
    pub fn hash(&self) -> u64 {
        self.state().hash.finish()
    }

    /// What happened last.
    pub fn last_lines(&self) -> String {
        self.state().trace.iter().fold(String::new(), |all, line| all + line + "\n")
    }
}

/// What the controller may be told.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    Domain(VmId),
    Connected,
    Disconnected,
    Link(VmId),
    Socket(VmId),
}

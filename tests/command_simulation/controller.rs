//! One life of a controller: the real [`Commands`], over the simulated world.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use infinibay::{
    access::Actor,
    commands::{Clock, Commands},
    config::CommandsConfig,
    events::EventBus,
    vm::{CommandId, GuestCommand, LinkEnd, Redactor, VmId},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    judge::{Attempt, Facts},
    world::World,
};

/// How long a controller may take to start before it is killed.
const START: Duration = Duration::from_secs(60);

/// The world as the controller of one life sees it; behind all the traits of the journey.
#[derive(Clone)]
pub struct Ports {
    pub world: Arc<World>,
    pub life: u32,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Clock for Ports {
    fn now(&self) -> DateTime<Utc> {
        self.world.state().look_at_clock()
    }
}

/// Who asks for what.
#[derive(Debug)]
pub struct Request<'a> {
    pub id: CommandId,
    pub actor: &'a Actor,
    pub vm: VmId,
    pub command: GuestCommand,
    pub timeout: Duration,
}

/// See the module.
pub struct Controller {
    ports: Ports,
    commands: Commands,
    /// What an earlier life left pending is lost.
    started: Arc<AtomicBool>,
    stop: CancellationToken,
    /// Those who wait for answers, and the start.
    tasks: JoinSet<()>,
    /// The callers, with what they asked for.
    callers: Vec<(CommandId, usize, AbortHandle)>,
}

impl Controller {
    pub fn start(world: &Arc<World>, config: CommandsConfig) -> Self {
        let (late, late_answers) = mpsc::channel(256);
        let life = {
            let mut state = world.state();
            state.life += 1;
            state.crashed = false;
            state.links.clear();
            state.late = Some(late);
            state.guests.values_mut().for_each(|guest| guest.at_work = 0);
            state.note(format_args!("a controller starts"));
            let wanted: Vec<VmId> =
                state.guests.iter().filter(|(_, guest)| guest.is_wanted).map(|(vm, _)| *vm).collect();
            wanted.into_iter().for_each(|vm| world.open_link(&mut state, vm));
            state.life
        };
        let ports = Ports { world: Arc::clone(world), life };
        let commands =
            Commands::new(config, Redactor::default(), ports.clone(), ports.clone(), EventBus::default())
                .with_clock(ports.clone());
        let (started, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let start = {
            let (commands, world, started, stop) =
                (commands.clone(), Arc::clone(world), Arc::clone(&started), stop.clone());
            async move {
                if timeout(START, commands.sweep()).await.is_ok_and(|swept| swept.is_ok()) {
                    started.store(true, Ordering::Relaxed);
                    commands.tend(late_answers, stop).await;
                } else {
                    let mut state = world.state();
                    state.note(format_args!("the controller cannot start"));
                    state.crashed = true;
                    world.bell.notify_one();
                }
            }
        };
        tasks.spawn(start);
        Self { ports, commands, started, stop, tasks, callers: Vec::new() }
    }

    /// Whether it answers.
    pub fn is_up(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// Somebody asks for a command to be run, and waits.
    pub fn ask(&mut self, request: Request<'_>) {
        let Request { id, actor, vm, command, timeout } = request;
        let (world, life) = (Arc::clone(&self.ports.world), self.ports.life);
        let attempt = {
            let mut state = world.state();
            if !state.facts.contains_key(&id) {
                state.order.push(id);
                state.facts.insert(id, Facts::new(vm));
                state.guests.entry(vm).and_modify(|guest| guest.known.push(id));
            }
            let label = state.label(id);
            state.note(format_args!("{label} is asked for, to end within {timeout:?}"));
            let facts = state.facts.get_mut(&id).expect("just put in");
            facts.attempts.push(Attempt::new(life));
            facts.attempts.len() - 1
        };
        let (commands, actor) = (self.commands.clone(), actor.clone());
        let handle = self.tasks.spawn(async move {
            let told = commands.execute_as(id, &actor, vm, command, timeout).await;
            let mut state = world.state();
            if state.is_alive(life) {
                state.tell(id, attempt, told);
                world.bell.notify_one();
            }
        });
        self.callers.push((id, attempt, handle));
    }

    /// One of those who wait goes away.
    pub fn leave(&mut self, which: u64) {
        self.callers.retain(|(.., task)| !task.is_finished());
        let Some(which) = which.checked_rem(self.callers.len() as u64) else { return };
        let (id, attempt, task) = self.callers.swap_remove(usize::try_from(which).expect("an index"));
        task.abort();
        let mut state = self.ports.world.state();
        let label = state.label(id);
        state.note(format_args!("who asked for {label} goes away"));
        state.facts.get_mut(&id).expect("asked for").attempts[attempt].gone = true;
    }

    pub fn cancel(&mut self, actor: &Actor, vm: VmId, id: CommandId) {
        let (world, life) = (Arc::clone(&self.ports.world), self.ports.life);
        {
            let mut state = world.state();
            let label = state.label(id);
            state.note(format_args!("somebody cancels {label}"));
        }
        let (commands, actor) = (self.commands.clone(), actor.clone());
        self.tasks.spawn(async move {
            let told = commands.cancel(&actor, vm, id).await;
            let mut state = world.state();
            if state.is_alive(life) {
                state.tell_canceller(id, told);
                world.bell.notify_one();
            }
        });
    }

    /// Ends as it does when it is told to; gives whether it says that all outcomes are in the log.
    pub async fn end(&self) -> bool {
        let world = &self.ports.world;
        self.commands.drain(Duration::from_secs(5)).await;
        {
            let mut state = world.state();
            let linked: Vec<VmId> = state.links.keys().copied().collect();
            linked.into_iter().for_each(|vm| state.close_link(vm, LinkEnd::ControllerStopping));
        }
        self.drained(Duration::from_secs(8)).await
    }

    /// Waits until all outcomes are in the log.
    pub async fn drained(&self, limit: Duration) -> bool {
        let drained = self.commands.drain(limit).await;
        let mut state = self.ports.world.state();
        state.note(format_args!("all outcomes are in the log: {drained}"));
        if drained && state.is_alive(self.ports.life) {
            let left = state.pending(true);
            if !left.is_empty() {
                state.violate(format_args!("all outcomes are said to be in the log, and {left:?} are not"));
            }
        }
        drained
    }

    /// The process is gone, wherever it was.
    pub fn kill(&mut self) {
        let mut state = self.ports.world.state();
        state.crashed = true;
        state.links.clear();
        state.late = None;
        for (id, attempt, _) in &self.callers {
            let facts = state.facts.get_mut(id).expect("asked for");
            facts.attempts[*attempt].gone |= facts.attempts[*attempt].is_open();
        }
        state.note(format_args!("the controller is gone"));
        drop(state);
        self.stop.cancel();
        self.tasks.abort_all();
    }
}

//! One run: a seed's script under the seed's faults, then calm.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use infinibay::vm::CommandId;

use super::{
    chance::Chance,
    controller::{Controller, Request},
    faults::Faults,
    panics,
    script::{Act, Script, open},
    world::World,
};

/// How long the log may go on being written by calls that nobody waits for any more.
const STRAGGLERS: Duration = Duration::from_secs(60);

/// How often commands are looked for that are pending for longer than any can be, and how much longer.
const SWEEP: Duration = Duration::from_secs(600);
const SWEEP_MARGIN: Duration = Duration::from_secs(300);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// All that happened, in its order.
    pub trace: Vec<String>,
    /// What went wrong, with the last lines of the trace.
    pub violation: Option<String>,
    /// How often each end was told or noted.
    pub ends: BTreeMap<&'static str, u32>,
    /// How many commands ran.
    pub ran: u32,
    /// How many controllers lived.
    pub lives: u32,
}

/// Runs one seed.
pub fn run(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    // What an earlier run of this thread left is not this one's.
    drop(panics::take());
    runtime.block_on(async {
        let mut script = Script::new(seed);
        let world = World::new(seed, script.guests());
        let controller = Controller::start(&world, script.config.clone());
        let mut run = Run { world: world.clone(), controller, script, chance: Chance::new(seed, 3) };
        let end = run.go().await;
        let violation = end.err().map(|why| format!("{why}\n\n{}", world.last_lines()));
        let state = world.state();
        Outcome {
            trace: state.trace.clone(),
            violation,
            ends: state.ends.clone(),
            ran: state.facts.values().map(|facts| facts.ran).sum(),
            lives: state.life,
        }
    })
}

struct Run {
    world: Arc<World>,
    controller: Controller,
    script: Script,
    chance: Chance,
}

impl Run {
    async fn go(&mut self) -> Result<(), String> {
        while let Some(gap) = self.script.gap() {
            self.wait(gap).await?;
            match self.script.act(&self.world, &mut self.controller) {
                Act::Done => {}
                Act::Kill => self.restart().await,
                Act::End => {
                    self.controller.end().await;
                    self.wait(Duration::ZERO).await?;
                    self.restart().await;
                }
            }
        }
        let rest = self.chance.seconds(0, 20);
        self.wait(rest).await?;

        self.calm();
        self.settle().await?;
        self.wait(STRAGGLERS).await?;
        let by_restart = self.chance.one_in(2);
        if by_restart {
            self.restart().await;
        }
        // A clock that was set back makes what is pending look as if it were still to come.
        let behind = self.clock_behind();
        if !by_restart || !behind.is_zero() {
            self.wait(self.script.config.max_timeout + SWEEP + SWEEP_MARGIN + behind).await?;
        }
        self.wait(STRAGGLERS).await?;
        let left = self.world.state().pending(false);
        if !left.is_empty() {
            return Err(format!("{left:?} are pending for ever"));
        }
        self.fill_the_house().await
    }

    /// By how much the clock is behind the latest row's.
    fn clock_behind(&self) -> Duration {
        let state = self.world.state();
        let latest = state.rows.values().map(|row| row.record.created_at).max();
        latest.and_then(|latest| (latest - state.now).to_std().ok()).unwrap_or_default()
    }

    /// Lets time pass; a controller that dies meanwhile is followed by another.
    async fn wait(&mut self, time: Duration) -> Result<(), String> {
        let end = tokio::time::Instant::now() + time;
        loop {
            let rang = tokio::time::timeout_at(end, self.world.bell.notified()).await.is_ok();
            let (crashed, violation) = {
                let state = self.world.state();
                (state.crashed, state.violation.clone())
            };
            if let Some(violation) = violation {
                return Err(violation);
            }
            if let Some(panic) = panics::take() {
                return Err(format!("something panicked: {panic}"));
            }
            if crashed {
                self.restart().await;
            }
            if !rang {
                return Ok(());
            }
        }
    }

    async fn restart(&mut self) {
        self.world.state().crashed = true;
        let longest = if self.controller.is_up() { 3 } else { 30 };
        let pause = self.chance.seconds(0, longest);
        self.controller.kill();
        tokio::time::sleep(pause).await;
        self.controller = Controller::start(&self.world, self.script.config.clone());
    }

    /// Everything that can go wrong ends.
    fn calm(&mut self) {
        let mut state = self.world.state();
        state.note(format_args!("all is calm"));
        state.faults = Faults::default();
        state.is_away = false;
        drop(state);
        for vm in &self.script.vms {
            open(&self.world, *vm);
        }
    }

    /// Every caller is told, and every outcome is in the log.
    async fn settle(&mut self) -> Result<(), String> {
        let longest = self.script.config.max_timeout + Duration::from_secs(120);
        let soon = tokio::time::Instant::now() + longest;
        while tokio::time::Instant::now() < soon && !self.world.state().open_attempts().is_empty() {
            self.wait(Duration::from_secs(1)).await?;
        }
        let open: Vec<String> = {
            let state = self.world.state();
            state.open_attempts().into_iter().map(|id| state.label(id)).collect()
        };
        if !open.is_empty() {
            return Err(format!("after {longest:?} of calm nobody was told what became of {open:?}"));
        }
        // What the caller of went away may still be under way.
        if !self.controller.drained(longest).await {
            return Err("the outcomes are not all in the log".to_owned());
        }
        self.wait(Duration::ZERO).await
    }

    /// Each VM takes as many commands as it may have, and answers them: no place was lost.
    async fn fill_the_house(&mut self) -> Result<(), String> {
        self.wait(Duration::from_secs(10)).await?;
        for vm in self.script.vms.clone() {
            let room = self.script.config.queue_per_vm.min(self.script.config.queue_total);
            let share = (self.script.config.queue_per_vm - self.script.config.queue_per_vm / 4).max(1);
            let answered = |run: &Self| run.world.state().ends.get("Answered").copied().unwrap_or_default();
            let before = answered(self);
            for index in 0..room {
                let id = CommandId(self.chance.uuid());
                let actor = &self.script.actors[usize::from(index >= share)];
                let command = infinibay::vm::GuestCommand::Safe(infinibay::vm::SafeAction::OsInfo);
                let timeout = Duration::from_secs(20);
                self.controller.ask(Request { id, actor, vm, command, timeout });
            }
            self.wait(Duration::from_secs(20)).await?;
            let done = answered(self) - before;
            if done != room {
                return Err(format!("in calm, a VM answers {done} of the {room} commands that it may have"));
            }
        }
        Ok(())
    }
}

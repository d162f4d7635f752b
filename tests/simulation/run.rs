//! One run: a seed's script under the seed's faults, then calm, then everything is deleted.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use infinibay::vm::{DesiredPower, IdentityChange, VmChange, VmId};

use super::{
    chance::Chance,
    changes,
    controller::Controller,
    faults::Faults,
    guests::SETTLED,
    installers::Manners,
    invariants::{open_requests, unsettled},
    script::{Script, ask, ask_clone},
    world::{Event, World},
};

/// How long the world may take to settle once it is calm: more than the longest budget of an operation,
/// whatever the clock says.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// How long what was asked for may take then: more than any wait of the loop, after calls that hang
/// one after another.
const SOON: Duration = Duration::from_secs(1800);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub hash: u64,
    /// How many effects and events there were.
    pub ticks: u64,
    /// What went wrong, with the last lines of the trace.
    pub violation: Option<String>,
    /// How requests of each kind ended, and how often.
    pub ends: BTreeMap<String, u32>,
    /// How often a guest was frozen.
    pub freezes: u32,
    /// How many systems were installed from a disc.
    pub installs: u32,
    /// The longest that one stayed so with nothing in the way.
    pub longest_frost: Duration,
}

/// Runs one seed.
pub fn run(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let world = World::new(seed);
        let end = Run {
            world: world.clone(),
            controller: None,
            chance: Chance::new(seed, 3),
            extra: Chance::new(seed, 5),
        }
        .go(seed)
        .await;
        let violation = end.err().map(|why| format!("{why}\n\n{}", world.last_lines()));
        let hash = world.hash();
        let state = world.state();
        let mut ends = BTreeMap::new();
        for over in &state.database.over {
            *ends.entry(format!("{:?} {:?}", over.kind, over.status)).or_default() += 1;
        }
        Outcome {
            hash,
            ticks: state.tick,
            violation,
            ends,
            freezes: state.watch.freezes,
            installs: state.watch.installs,
            longest_frost: state.watch.frost.longest,
        }
    })
}

struct Run {
    world: Arc<World>,
    controller: Option<Controller>,
    chance: Chance,
    /// What decides of copies.
    extra: Chance,
}

impl Run {
    async fn go(mut self, seed: u64) -> Result<(), String> {
        let strangers = |world: &World| world.state().host.strangers_things();
        let mut script = Script::new(seed);
        script.begin(&self.world);
        self.controller = Some(Controller::start(&self.world));
        while let Some(gap) = script.gap() {
            self.wait(gap).await?;
            script.act(&self.world, self.controller.as_ref());
        }
        let rest = self.chance.seconds(0, 60);
        self.wait(rest).await?;

        self.calm();
        let theirs = strangers(&self.world);
        self.settle("as it was asked for").await?;
        self.ask_again();
        self.settle("as it was asked for again").await?;
        let which = self.chance.below(changes::IN_CALM);
        self.ask_all(|state, vm, asked| {
            let change = changes::in_calm(state, vm, which, asked.operation);
            change.is_some_and(|change| state.database.request_change(vm, change, asked))
        });
        self.clone_in_calm();
        self.settle("changed").await?;
        self.ask_all(|state, vm, asked| {
            let release = VmChange::Identity(IdentityChange::Release);
            state.database.request_delete(vm, asked) || state.database.request_change(vm, release, asked)
        });
        self.settle("gone").await?;
        if !self.world.state().database.vms.is_empty() {
            return Err("VMs are left".to_owned());
        }
        let now = strangers(&self.world);
        if now != theirs {
            return Err(format!("strangers' things changed: {theirs:?} became {now:?}"));
        }
        if let Some(controller) = self.controller.take() {
            controller.kill(&self.world).await;
        }
        Ok(())
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
            if let Some(panic) = super::panics::take() {
                return Err(format!("the loop panicked: {panic}"));
            }
            if crashed {
                if let Some(controller) = self.controller.take() {
                    controller.kill(&self.world).await;
                }
                let pause = self.chance.millis(0, 3000);
                tokio::time::sleep(pause).await;
                self.controller = Some(Controller::start(&self.world));
            } else if self.controller.as_ref().is_none_or(Controller::is_over) {
                return Err("the loop ended unasked".to_owned());
            }
            if !rang {
                return Ok(());
            }
        }
    }

    /// Everything that can go wrong ends.
    fn calm(&mut self) {
        let mut state = self.world.state();
        state.note(format_args!("all is calm"));
        state.faults = Faults::default();
        state.is_calm = true;
        state.host.reachable = true;
        state.database.is_away = false;
        state.silent.clear();
        // What no process waits for any more is over.
        let life = state.life;
        state.host.copies.retain(|copy| copy.life == life && copy.ended.is_none());
        for domain in state.host.domains.values_mut() {
            domain.is_deaf = false;
            domain.clings = false;
            domain.installer.iter_mut().for_each(|installer| installer.manners = Manners::Good);
        }
        drop(state);
        self.world.tell(Event::Connected);
    }

    /// Waits until everything is as it has to be, and sees that it stays so.
    async fn settle(&mut self, what: &str) -> Result<(), String> {
        let begun = tokio::time::Instant::now();
        loop {
            self.wait(Duration::from_secs(5)).await?;
            if begun.elapsed() > SOON {
                let open = open_requests(&self.world.state());
                if !open.is_empty() {
                    return Err(format!("after {SOON:?} of calm it is not {what}:\n{}", open.join("\n")));
                }
            }
            if unsettled(&self.world.state()).is_empty() {
                self.wait(SETTLED).await?;
                let left = unsettled(&self.world.state());
                if left.is_empty() {
                    return Ok(());
                }
                if begun.elapsed() > PATIENCE {
                    return Err(format!("it did not stay {what}:\n{}", left.join("\n")));
                }
            }
            if begun.elapsed() > PATIENCE {
                let left = unsettled(&self.world.state());
                return Err(format!(
                    "in {PATIENCE:?} of calm it did not become {what}:\n{}",
                    left.join("\n")
                ));
            }
        }
    }

    /// Asks for whatever was given up, or undone by somebody, once more.
    fn ask_again(&mut self) {
        self.ask_all(|state, vm, asked| {
            let power = if asked.operation.uuid().as_u128() % 3 == 0 {
                DesiredPower::Stopped
            } else {
                DesiredPower::Running
            };
            state.request_power(vm, power, asked)
        });
    }

    /// Has a VM that is off copied, now and then.
    fn clone_in_calm(&mut self) {
        if !self.extra.one_in(3) {
            return;
        }
        let lenders: Vec<VmId> = {
            let state = self.world.state();
            let whole = |vm: &VmId| !state.watch.robbed.contains(vm) && !state.watch.warped.contains(vm);
            state.lenders().into_iter().filter(whole).collect()
        };
        if !lenders.is_empty() {
            let (from, vm) = (self.extra.pick(&lenders), VmId(self.extra.uuid()));
            let power = self.extra.pick(&[DesiredPower::Running, DesiredPower::Stopped]);
            let controller = self.controller.as_ref();
            ask_clone(&self.world, controller, from, vm, power, &mut self.extra);
            let mut state = self.world.state();
            let asked: Vec<_> = state
                .database
                .vms
                .get(&vm)
                .into_iter()
                .flat_map(|it| &it.operations)
                .map(|it| it.id)
                .collect();
            state.watch.asked_in_calm.extend(asked);
        }
    }

    fn ask_all(&mut self, request: impl Fn(&mut super::world::State, VmId, super::database::Asked) -> bool) {
        let vms: Vec<VmId> = self.world.state().database.vms.keys().copied().collect();
        for vm in vms {
            let controller = self.controller.as_ref();
            ask(&self.world, controller, vm, "it", &mut self.chance, |state, asked| {
                state.watch.asked_in_calm.insert(asked.operation);
                request(state, vm, asked)
            });
        }
    }
}

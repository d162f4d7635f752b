//! What people, guests, the loop and fate do to a run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use infinibay::{
    access::{Actor, Role},
    config::CommandsConfig,
    vm::{CommandId, GuestCommand, LinkEnd, SafeAction, UnsafeCommand, UserId, VmId},
};

use super::{
    chance::Chance,
    controller::{Controller, Request},
    guests::Guest,
    world::World,
};

/// See the module.
pub struct Script {
    chance: Chance,
    left: u64,
    pub actors: [Actor; 2],
    pub vms: Vec<VmId>,
    pub config: CommandsConfig,
}

/// What an act asks of the run itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Done,
    Kill,
    End,
}

impl Script {
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed, 2);
        let actor = |chance: &mut Chance| {
            Actor::new(UserId(chance.uuid()), "ana".to_owned(), Role::Member, [].into())
        };
        Self {
            left: 10 + chance.below(50),
            actors: [actor(&mut chance), actor(&mut chance)],
            vms: (0..=chance.below(3)).map(|_| VmId(chance.uuid())).collect(),
            config: CommandsConfig {
                queue_per_vm: chance.pick(&[2, 4, 8, 32]),
                queue_total: chance.pick(&[4, 12, 1000]),
                max_timeout: Duration::from_secs(chance.pick(&[30, 120, 3600])),
                ..CommandsConfig::default()
            },
            chance,
        }
    }

    pub fn guests(&mut self) -> BTreeMap<VmId, Guest> {
        let Self { vms, chance, .. } = self;
        vms.iter()
            .map(|vm| {
                let (concurrency, known) = (concurrency(chance), Vec::new());
                (*vm, Guest { is_wanted: true, concurrency, most: 1, at_work: 0, known })
            })
            .collect()
    }

    /// How long until the next act; `None` after the last.
    pub fn gap(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        Some(match self.chance.below(40) {
            0..20 => self.chance.millis(0, 30),
            20..32 => self.chance.millis(0, 1000),
            32..39 => self.chance.seconds(1, 30),
            _ => self.chance.seconds(60, 900),
        })
    }

    /// One act.
    pub fn act(&mut self, world: &Arc<World>, controller: &mut Controller) -> Act {
        let vm = self.chance.pick(&self.vms);
        match self.chance.below(46) {
            44 | 0..16 => self.ask(controller, vm),
            16..18 => (0..2 + self.chance.below(8)).for_each(|_| self.ask(controller, vm)),
            18..23 => self.ask_again(world, controller, vm),
            23..28 => self.cancel(world, controller),
            28..30 => controller.leave(self.chance.below(100)),
            30..32 => self.close_or_open(world, vm),
            32..35 => {
                let mut state = world.state();
                let concurrency = concurrency(&mut self.chance);
                state.guests.entry(vm).and_modify(|guest| guest.concurrency = concurrency);
                state.disconnect(vm, LinkEnd::ChannelClosed);
                world.reconnect(vm, &mut state);
            }
            35..38 => self.lose_the_database(world),
            38..40 => {
                let by = self.chance.pick(&[-7200, -600, -1, 600, 7200, 7200]);
                let mut state = world.state();
                state.note(format_args!("the clock is set by {by} s"));
                state.clock_ahead += by;
            }
            40..44 => return Act::Kill,
            _ => return Act::End,
        }
        Act::Done
    }

    fn ask(&mut self, controller: &mut Controller, vm: VmId) {
        let id = CommandId(self.chance.uuid());
        self.ask_under(controller, vm, id);
    }

    /// The same again, as a client does that got no answer; or another's id by mistake.
    fn ask_again(&mut self, world: &World, controller: &mut Controller, vm: VmId) {
        let known: Vec<_> = world.state().facts.iter().map(|(id, facts)| (*id, facts.vm)).collect();
        if known.is_empty() {
            return;
        }
        let (id, its_vm) = self.chance.pick(&known);
        let logged = world.state().rows.contains_key(&id);
        // Where nothing was logged, another VM's would be a command of its own.
        let vm = if logged && self.chance.one_in(6) { vm } else { its_vm };
        for _ in 0..=self.chance.below(2) {
            self.ask_under(controller, vm, id);
        }
    }

    fn ask_under(&mut self, controller: &mut Controller, vm: VmId, id: CommandId) {
        let longest = self.config.max_timeout.as_secs();
        let most = if self.chance.one_in(4) { longest } else { longest.min(20) };
        let timeout = self.chance.seconds(1, most);
        let actor = usize::from(self.chance.one_in(3));
        let command = self.command();
        if controller.is_up() {
            controller.ask(Request { id, actor: &self.actors[actor], vm, command, timeout });
        }
    }

    fn command(&mut self) -> GuestCommand {
        if self.chance.one_in(3) {
            return GuestCommand::Safe(SafeAction::OsInfo);
        }
        GuestCommand::Unsafe(UnsafeCommand {
            raw_command: "run".to_owned(),
            shell: None,
            working_dir: None,
            env_vars: BTreeMap::new(),
        })
    }

    /// One that somebody waits for, mostly: others have ended.
    fn cancel(&mut self, world: &World, controller: &mut Controller) {
        let order = world.state().order.clone();
        if order.is_empty() || !controller.is_up() {
            return;
        }
        let open = world.state().open_attempts();
        let is_open = !open.is_empty() && !self.chance.one_in(5);
        let id = self.chance.pick(if is_open { &open } else { &order });
        let vm = world.state().facts[&id].vm;
        controller.cancel(&self.actors[0], vm, id);
    }

    fn close_or_open(&mut self, world: &Arc<World>, vm: VmId) {
        let end = self.chance.pick(&[LinkEnd::VmStopped, LinkEnd::VmDeleted, LinkEnd::Evicted]);
        let back = self.chance.millis(0, 3000);
        let mut state = world.state();
        state.guests.entry(vm).and_modify(|guest| guest.is_wanted = false);
        state.close_link(vm, end);
        drop(state);
        world.later(back, move |world| open(world, vm));
    }

    fn lose_the_database(&mut self, world: &Arc<World>) {
        let back = self.chance.millis(10, 40_000);
        let mut state = world.state();
        state.note(format_args!("the database is away"));
        state.is_away = true;
        drop(state);
        world.later(back, |world| {
            let mut state = world.state();
            state.note(format_args!("the database is back"));
            state.is_away = false;
        });
    }
}

fn concurrency(chance: &mut Chance) -> usize {
    chance.pick(&[1, 1, 2, 3])
}

/// The VM is to have a link.
pub fn open(world: &Arc<World>, vm: VmId) {
    let mut state = world.state();
    state.guests.entry(vm).and_modify(|guest| guest.is_wanted = true);
    let life = state.life;
    if state.is_alive(life) && !state.links.contains_key(&vm) {
        world.open_link(&mut state, vm);
    }
}

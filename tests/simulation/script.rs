//! What people ask for in a run, and what happens to the host meanwhile.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use infinibay::vm::{
    Base, DesiredPower, DomainState, Firmware, GuestChange, Image, ImageFormat, NetworkAttachment,
    OperationId, Origin, OsFamily, Provisioning, SettingChange, Unattended, VmChange, VmId, VmSpec,
};

use super::{
    chance::Chance,
    changes,
    controller::Controller,
    database::Asked,
    guests::{self, SHUT_DOWN, misfortune},
    host::{Domain, File, socket_path},
    installers, made,
    world::{Event, State, World},
};

/// libvirt's words for why a domain is off: its hypervisor died.
const CRASHED: i32 = 3;

/// And for why it is paused: somebody asked for it.
const PAUSED_BY_SOMEBODY: i32 = 1;
const MAX_VMS: usize = 4;

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
enum Act {
    Create,
    Power(DesiredPower),
    Delete,
    Autostart,
    Reset,
    Change,
    Adopt,
    SomebodySaves,
    SomebodySizes,
    SomebodyRenames,
    SomebodyShoots,
    GuestPowersOff,
    GuestCrashes,
    GuestPauses,
    GuestResumes,
    QemuIsKilled,
    SomebodyUndefines,
    SomebodyDestroys,
    SomebodyStarts,
    DiskIsRemoved,
    SocketIsReplaced,
    GuestTurnsDeaf,
    AgentIsSilent,
    AgentHangsUp,
    LibvirtIsAway,
    StoreIsAway,
    HostReboots,
    ClockJumps,
    Resync,
    Clone,
    Install,
}

const ACTS: [Act; 68] = [
    Act::Create,
    Act::Create,
    Act::Create,
    Act::Power(DesiredPower::Running),
    Act::Power(DesiredPower::Running),
    Act::Power(DesiredPower::Running),
    Act::Power(DesiredPower::Stopped),
    Act::Power(DesiredPower::Stopped),
    Act::Power(DesiredPower::Stopped),
    Act::Power(DesiredPower::ForcedOff),
    Act::Power(DesiredPower::ForcedOff),
    Act::Delete,
    Act::Delete,
    Act::Delete,
    Act::Autostart,
    Act::Autostart,
    Act::Reset,
    Act::Reset,
    Act::Power(DesiredPower::Paused),
    Act::Power(DesiredPower::Paused),
    Act::Power(DesiredPower::Saved),
    Act::Power(DesiredPower::Saved),
    Act::Power(DesiredPower::ColdRunning),
    Act::Power(DesiredPower::ForcedOff),
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Change,
    Act::Adopt,
    Act::SomebodySaves,
    Act::SomebodySizes,
    Act::SomebodyRenames,
    Act::SomebodyShoots,
    Act::GuestPowersOff,
    Act::GuestPowersOff,
    Act::GuestPowersOff,
    Act::GuestCrashes,
    Act::GuestPauses,
    Act::GuestResumes,
    Act::QemuIsKilled,
    Act::SomebodyUndefines,
    Act::SomebodyDestroys,
    Act::SomebodyStarts,
    Act::DiskIsRemoved,
    Act::SocketIsReplaced,
    Act::GuestTurnsDeaf,
    Act::AgentIsSilent,
    Act::AgentHangsUp,
    Act::LibvirtIsAway,
    Act::LibvirtIsAway,
    Act::StoreIsAway,
    Act::HostReboots,
    Act::ClockJumps,
    Act::Resync,
];

/// A run's plan: its own sequence of chances.
pub struct Script {
    chance: Chance,
    /// What decides of copies and installations, beside the rest: in most runs there are none.
    extra: Chance,
    clones: bool,
    installs: bool,
    left: u64,
    /// VMs that are there from the beginning; then much is asked of them.
    made: u64,
}

impl Script {
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed, 2);
        let made = chance.below(4).saturating_sub(1);
        let left = if made > 0 { 8 + chance.below(24) } else { 4 + chance.below(20) };
        let mut extra = Chance::new(seed, 4);
        let clones = extra.one_in(3);
        let installs = extra.one_in(3);
        Self { chance, extra, clones, installs, left, made }
    }

    /// What is there before anything happens.
    pub fn begin(&mut self, world: &Arc<World>) {
        for _ in 0..self.made {
            let vm = VmId(self.chance.uuid());
            let mut state = world.state();
            let operation = OperationId(self.chance.uuid());
            let asked = Asked { operation, by: state.owner, at: state.now };
            made::make(&mut state, vm, asked, &mut self.chance);
            drop(state);
            guests::go_on(world, vm);
        }
    }

    /// How long nothing happens; `None` when the script is over.
    pub fn gap(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        Some(match self.chance.below(3) {
            0 => self.chance.millis(0, 300),
            1 => self.chance.seconds(0, 10),
            _ => self.chance.seconds(5, 90),
        })
    }

    /// The next thing happens.
    pub fn act(&mut self, world: &Arc<World>, controller: Option<&Controller>) {
        let vms: Vec<VmId> = world.state().database.vms.keys().copied().collect();
        let act = match (vms.is_empty(), self.made > 0 && self.chance.one_in(2)) {
            (true, _) => Act::Create,
            (false, true) => Act::Change,
            (false, false) => self.chance.pick(&ACTS),
        };
        let act = if self.clones && self.extra.one_in(4) { Act::Clone } else { act };
        let act = if self.installs && self.extra.one_in(6) { Act::Install } else { act };
        let vm = if vms.is_empty() { VmId(self.chance.uuid()) } else { self.chance.pick(&vms) };
        let wait = self.chance.seconds(1, 120);
        match act {
            Act::Create if vms.len() >= MAX_VMS => {}
            Act::Create => self.create(world, controller),
            Act::Power(power) => {
                ask(world, controller, vm, &format!("{power:?}"), &mut self.chance, |s, a| {
                    s.request_power(vm, power, a)
                })
            }
            Act::Delete => ask(world, controller, vm, "deletion", &mut self.chance, |s, a| {
                s.database.request_delete(vm, a)
            }),
            Act::Autostart => {
                let on = self.chance.one_in(2);
                let change = VmChange::Setting(SettingChange::Autostart(on));
                ask(world, controller, vm, "a change of autostart", &mut self.chance, |s, a| {
                    s.database.request_change(vm, change, a)
                });
            }
            Act::Reset => ask(world, controller, vm, "a reset", &mut self.chance, |s, a| {
                s.database.request_change(vm, VmChange::Guest(GuestChange::Reset), a)
            }),
            Act::Change => {
                let change = changes::any(&world.state(), vm, &mut self.chance);
                if let Some(change) = change {
                    let what = format!("{change:?}");
                    ask(world, controller, vm, &what, &mut self.chance, |s, a| {
                        s.database.request_change(vm, change, a)
                    });
                }
            }
            Act::Install if vms.len() >= MAX_VMS => {}
            Act::Install => self.install(world, controller),
            Act::Clone => self.clone_one(world, controller, &vms),
            Act::Adopt if vms.len() >= MAX_VMS => {}
            Act::Adopt => self.adopt(world, controller),
            Act::LibvirtIsAway => away(world, wait, "libvirt", |state, away| {
                state.host.reachable = !away;
                if away {
                    state.lose_copies();
                }
                state.connected = state.now;
            }),
            Act::StoreIsAway => away(world, wait, "the store", |state, away| state.database.is_away = away),
            Act::ClockJumps => {
                let by = self.chance.pick(&[3600, -3600, 40, -40]);
                let mut state = world.state();
                state.note(format_args!("the clock jumps by {by} s"));
                state.clock_ahead += by;
            }
            Act::HostReboots => reboot(world),
            Act::Resync => {
                if let Some(controller) = controller {
                    let waker = controller.waker.clone();
                    tokio::spawn(async move { waker.resync(vm).await });
                }
            }
            other => befall(world, vm, other, wait),
        }
    }

    /// A VM whose system is installed from a disc.
    fn install(&mut self, world: &Arc<World>, controller: Option<&Controller>) {
        let vm = VmId(self.extra.uuid());
        let windows = self.extra.one_in(3);
        let agent = windows || !self.extra.one_in(4);
        ask(world, controller, vm, "a VM that is installed", &mut self.extra, |state, asked| {
            let spec = spec(state.database.order.len(), Provisioning::CloudInit);
            let host = state.host_id;
            state.database.create(vm, host, installers::base(spec, windows, agent), asked);
            true
        });
    }

    /// One that is off is copied; where none is, one is to be.
    fn clone_one(&mut self, world: &Arc<World>, controller: Option<&Controller>, vms: &[VmId]) {
        let lenders = world.state().lenders();
        if lenders.is_empty() && !vms.is_empty() {
            let vm = self.extra.pick(vms);
            ask(world, controller, vm, "its end for a copy", &mut self.extra, |s, a| {
                s.request_power(vm, DesiredPower::ForcedOff, a)
            });
        } else if !lenders.is_empty() && vms.len() < MAX_VMS + 2 {
            let (from, vm) = (self.extra.pick(&lenders), VmId(self.extra.uuid()));
            let power = self.extra.pick(&[DesiredPower::Running, DesiredPower::Stopped]);
            ask_clone(world, controller, from, vm, power, &mut self.extra);
        }
    }

    /// Somebody made a domain, and has it managed from now on.
    fn adopt(&mut self, world: &Arc<World>, controller: Option<&Controller>) {
        let vm = VmId(self.chance.uuid());
        let on = self.chance.one_in(2);
        let mut domain = Domain::new(&mut self.chance);
        domain.is_foreign = true;
        (domain.config.vcpus, domain.config.max_vcpus) = (1, 1);
        (domain.config.memory_mib, domain.config.max_memory_mib) = (512, 512);
        ask(world, controller, vm, "an adoption", &mut self.chance, |state, asked| {
            let mut spec = spec(state.database.order.len(), Provisioning::None);
            spec.origin = Origin::Adopted { macs: Vec::new() };
            domain.name = spec.name.to_string();
            state.host.domains.insert(vm, domain);
            state.host.once_defined.insert(vm);
            if on {
                state.host.power_on(vm);
            }
            let power = if on { DesiredPower::Running } else { DesiredPower::Stopped };
            let host = state.host_id;
            state.database.adopt(vm, host, spec, power, asked);
            true
        });
        guests::go_on(world, vm);
    }

    fn create(&mut self, world: &Arc<World>, controller: Option<&Controller>) {
        let vm = VmId(self.chance.uuid());
        let crowded = self.chance.one_in(2);
        let provisioning = if self.chance.one_in(5) { Provisioning::None } else { Provisioning::CloudInit };
        ask(world, controller, vm, "a VM", &mut self.chance, |state, asked| {
            let number = state.database.order.len();
            if crowded {
                state.host.crowd(vm);
            }
            let host = state.host_id;
            state.database.create(vm, host, spec(number, provisioning), asked);
            true
        });
    }
}

impl State {
    /// Asks for power, and keeps in mind since when the guest may be expected to go by itself.
    pub fn request_power(&mut self, vm: VmId, power: DesiredPower, asked: Asked) -> bool {
        let forced = self.database.vms.get(&vm).is_some_and(|bundle| {
            let intent = &bundle.record.intent;
            intent.is_open() && intent.power == DesiredPower::ForcedOff
        });
        // One whose plug was to be pulled anyway may lose it at any moment.
        if power == DesiredPower::Stopped && !forced {
            self.watch.polite.insert(vm, tokio::time::Instant::now());
        } else {
            self.watch.polite.remove(&vm);
        }
        self.database.request_power(vm, power, asked)
    }
}

/// Somebody asks; the loop is told, mostly.
pub fn ask(
    world: &World,
    controller: Option<&Controller>,
    vm: VmId,
    what: &str,
    chance: &mut Chance,
    request: impl FnOnce(&mut State, Asked) -> bool,
) {
    let mut state = world.state();
    let asked = Asked { operation: OperationId(chance.uuid()), by: state.owner, at: state.now };
    let accepted = request(&mut state, asked);
    let label = state.label(vm);
    state
        .note(format_args!("asked for {what} of {label}: {}", if accepted { "accepted" } else { "refused" }));
    drop(state);
    if let Some(controller) = controller.filter(|_| accepted && !chance.one_in(10)) {
        controller.waker.wake(vm);
    }
}

/// Somebody asks for a copy of a VM; both are told of it.
pub fn ask_clone(
    world: &World,
    controller: Option<&Controller>,
    from: VmId,
    vm: VmId,
    power: DesiredPower,
    chance: &mut Chance,
) {
    let label = world.state().label(from);
    ask(world, controller, vm, &format!("a copy of {label}, {power:?},"), chance, |state, asked| {
        state.request_clone(from, vm, power, asked)
    });
    if let Some(controller) = controller.filter(|_| !chance.one_in(10)) {
        controller.waker.wake(from);
    }
}

fn away(world: &Arc<World>, wait: Duration, what: &'static str, set: fn(&mut State, bool)) {
    let mut state = world.state();
    state.note(format_args!("{what} is away for {wait:?}"));
    set(&mut state, true);
    drop(state);
    world.tell(Event::Disconnected);
    world.later(wait, move |world| {
        let mut state = world.state();
        state.note(format_args!("{what} is back"));
        set(&mut state, false);
        drop(state);
        world.tell(Event::Connected);
    });
}

/// All domains are off, but for those that libvirt starts by itself; the controller is gone too.
fn reboot(world: &Arc<World>) {
    let mut state = world.state();
    state.note(format_args!("the host reboots"));
    let vms: Vec<VmId> = state.host.domains.keys().copied().collect();
    // Whatever was at work is gone.
    state.host.calls.clear();
    state.host.copies.clear();
    let mut started = Vec::new();
    for vm in vms {
        state.host.power_off(vm, CRASHED, false);
        state.disturb(vm);
        if state.host.domains.get(&vm).is_some_and(|domain| domain.autostart) {
            state.host.power_on(vm);
            started.push(vm);
        }
    }
    state.crashed = true;
    drop(state);
    world.bell.notify_one();
    for vm in started {
        guests::boot(world, vm);
    }
}

/// Something happens to a VM.
fn befall(world: &Arc<World>, vm: VmId, act: Act, wait: Duration) {
    let state = world.state().host.domains.get(&vm).map(|domain| domain.state);
    let runs = state == Some(DomainState::Running);
    let is_active = state.is_some_and(DomainState::is_active);
    match act {
        Act::GuestPowersOff if runs => {
            misfortune(world, vm, "the guest powers off", |s| s.host.power_off(vm, SHUT_DOWN, true));
        }
        Act::GuestCrashes if runs => misfortune(world, vm, "the guest crashes", |s| {
            if let Some(domain) = s.host.domains.get_mut(&vm) {
                domain.state = DomainState::Crashed;
                domain.is_up = false;
                domain.boot += 1;
            }
        }),
        Act::GuestPauses if runs => misfortune(world, vm, "the guest is paused", |s| {
            if let Some(domain) = s.host.domains.get_mut(&vm) {
                domain.state = DomainState::Paused;
                domain.reason = PAUSED_BY_SOMEBODY;
            }
        }),
        Act::GuestResumes if state == Some(DomainState::Paused) => {
            misfortune(world, vm, "the guest goes on", |s| {
                if let Some(domain) = s.host.domains.get_mut(&vm) {
                    domain.state = DomainState::Running;
                    domain.reason = 0;
                }
            });
            guests::go_on(world, vm);
        }
        Act::QemuIsKilled if is_active => {
            misfortune(world, vm, "its QEMU is killed", |s| s.host.power_off(vm, CRASHED, false));
        }
        Act::SomebodyDestroys if is_active => {
            misfortune(world, vm, "somebody destroys it", |s| s.host.power_off(vm, 2, true));
        }
        Act::SomebodyUndefines if state.is_some() => misfortune(world, vm, "somebody undefines it", |s| {
            s.watch.robbed.insert(vm);
            match s.host.domains.get_mut(&vm) {
                Some(domain) if domain.state.is_active() => domain.persistent = false,
                _ => drop(s.host.domains.remove(&vm)),
            }
        }),
        Act::SomebodyStarts if state == Some(DomainState::Shutoff) => {
            misfortune(world, vm, "somebody starts it", |s| {
                let is_foreign = s.host.domains.get(&vm).is_some_and(|domain| domain.is_foreign);
                if s.host.lacks_file(vm).is_some() {
                    return;
                }
                let is_read = s.host.copies.iter().any(|copy| copy.at_work && copy.from == Some(vm));
                // Not every kind of storage knows of locks.
                if is_read && s.chance.one_in(2) {
                    return;
                }
                if is_foreign || s.host.root(vm).is_some_and(|volume| volume.whole) {
                    s.host.power_on(vm);
                }
            });
            guests::boot(world, vm);
        }
        Act::SomebodySaves if is_active => misfortune(world, vm, "somebody saves it", |s| {
            if let Some(domain) = s.host.domains.get_mut(&vm).filter(|domain| domain.persistent) {
                domain.saved = Some(domain.live.clone());
                s.host.power_off(vm, 5, true);
            }
        }),
        Act::SomebodySizes if state.is_some() => {
            warp(world, vm, "somebody gives it a processor", |domain, _| {
                domain.config.vcpus += 1;
                domain.config.max_vcpus += 1;
            })
        }
        Act::SomebodyRenames if state == Some(DomainState::Shutoff) => {
            warp(world, vm, "somebody renames it", |domain, _| domain.name.push('x'));
        }
        Act::SomebodyShoots if state.is_some() && !world.state().is_installing(vm) => {
            warp(world, vm, "somebody takes a snapshot of it", |domain, now| {
                domain.shoot(format!("theirs-{}", domain.shots.len()), None, now);
            });
        }
        Act::DiskIsRemoved if !is_active => misfortune(world, vm, "somebody removes its disk", |s| {
            s.watch.robbed.insert(vm);
            s.host.volumes.retain(|_, volume| volume.vm != Some(vm));
        }),
        Act::SocketIsReplaced if !is_active => {
            misfortune(world, vm, "a stranger takes its socket's place", |s| {
                s.host.files.insert(socket_path(vm), File::Intruder);
            })
        }
        Act::GuestTurnsDeaf if state.is_some() => {
            let mut state = world.state();
            state.host.domains.get_mut(&vm).into_iter().for_each(|domain| domain.is_deaf ^= true);
        }
        Act::AgentIsSilent if runs => {
            world.state().silent.insert(vm);
            world.later(wait, move |world| {
                world.state().silent.remove(&vm);
                world.tell(Event::Link(vm));
            });
        }
        Act::AgentHangsUp if runs => {
            let mut state = world.state();
            let now = state.now;
            if let Some(link) = state.links.get_mut(&vm) {
                link.since = now;
                link.heard = None;
            }
            drop(state);
            world.tell(Event::Link(vm));
        }
        _ => {}
    }
}

/// Somebody changes what the domain is made of.
fn warp(world: &Arc<World>, vm: VmId, what: &str, work: impl FnOnce(&mut Domain, DateTime<Utc>)) {
    let mut state = world.state();
    let label = state.label(vm);
    state.note(format_args!("{label}: {what}"));
    state.watch.warped.insert(vm);
    let now = state.now;
    if let Some(domain) = state.host.domains.get_mut(&vm) {
        work(domain, now);
    }
    drop(state);
    world.tell(Event::Domain(vm));
}

pub fn spec(number: usize, provisioning: Provisioning) -> VmSpec {
    VmSpec {
        devices: infinibay::vm::Plugged::default(),
        keeping: infinibay::vm::PowerKeeping::default(),
        origin: infinibay::vm::Origin::Created,
        name: format!("simulated-{number}").parse().expect("a name"),
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "debian".parse().expect("a name"),
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning,
            disk: PathBuf::from("/images/debian/disk.qcow2"),
            format: ImageFormat::Qcow2,
            virtual_bytes: 1 << 30,
            sha256: String::new(),
            kernel: None,
        }),
        vcpus: 1,
        memory_mib: 512,
        disk_bytes: 1 << 30,
        pool: super::host::POOL.parse().expect("a name"),
        network: NetworkAttachment::None,
        // Where nothing reads settings, none are accepted.
        unattended: Unattended {
            password_hash: (provisioning == Provisioning::CloudInit).then(|| "secret".to_owned()),
            ..Unattended::default()
        },
    }
}

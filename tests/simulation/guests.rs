//! The guests: they boot, install themselves, speak, and do what they like with their power.

use std::{sync::Arc, time::Duration};

use infinibay::vm::{DomainState, VmId};

use super::{
    installers,
    world::{Event, World},
};

/// libvirt's words for why a domain is off: the guest did it.
pub const SHUT_DOWN: i32 = 1;

/// The guest begins to boot.
pub fn boot(world: &Arc<World>, vm: VmId) {
    world.tell(Event::Domain(vm));
    world.tell(Event::Socket(vm));
    go_on(world, vm);
}

/// The guest goes on where it was.
pub fn go_on(world: &Arc<World>, vm: VmId) {
    if world.state().runs_installer(vm) {
        installers::work(world, vm);
        return;
    }
    let (boot, left) = {
        let state = world.state();
        let Some(domain) = state.host.domains.get(&vm) else { return };
        (domain.boot, domain.boots_in.saturating_sub(domain.started.elapsed()))
    };
    world.later(left, move |world| {
        let now = world.state().now;
        let rises = |domain: &mut super::host::Domain| {
            if !std::mem::replace(&mut domain.is_up, true) {
                domain.up_since = Some(now);
            }
        };
        if !if_same(world, vm, boot, rises) {
            return;
        }
        let first_boot = {
            let mut state = world.state();
            let label = state.label(vm);
            state.note(format_args!("the agent of {label} is up"));
            state.chance.seconds(1, 30)
        };
        world.tell(Event::Link(vm));
        world.later(first_boot, move |world| {
            if if_same(world, vm, boot, |_| ()) {
                let mut state = world.state();
                for volume in state.host.volumes.values_mut().filter(|volume| volume.vm == Some(vm)) {
                    volume.installed = true;
                }
                drop(state);
                world.tell(Event::Link(vm));
            }
        });
    });
}

/// Does it if the guest still runs, and was not started again.
fn if_same(world: &World, vm: VmId, boot: u64, work: impl FnOnce(&mut super::host::Domain)) -> bool {
    let mut state = world.state();
    match state.host.domains.get_mut(&vm) {
        Some(domain) if domain.boot == boot && domain.state == DomainState::Running => {
            work(domain);
            true
        }
        _ => false,
    }
}

/// The guest is asked to power off: it does in a while, if it hears.
pub fn press_power_button(world: &Arc<World>, vm: VmId) {
    let (boot, takes) = {
        let mut state = world.state();
        let takes = state.chance.seconds(1, 30);
        let Some(domain) = state.host.domains.get(&vm) else { return };
        if domain.state != DomainState::Running || !domain.is_up || domain.is_deaf {
            return;
        }
        (domain.boot, takes)
    };
    world.later(takes, move |world| {
        let mut state = world.state();
        let same = state.host.domains.get(&vm).is_some_and(|domain| domain.boot == boot);
        if same {
            let label = state.label(vm);
            state.note(format_args!("the guest of {label} powers off as asked"));
            if !state.is_asked_to_stop(vm) {
                // It was asked to be on meanwhile; the button was pressed all the same.
                state.disturb(vm);
            }
            state.host.power_off(vm, SHUT_DOWN, true);
            drop(state);
            world.tell(Event::Domain(vm));
        }
    });
}

/// The guest is asked to boot anew: it does in a while, if it hears.
pub fn press_reset_politely(world: &Arc<World>, vm: VmId) {
    let (boot, takes) = {
        let mut state = world.state();
        let takes = state.chance.seconds(1, 20);
        let Some(domain) = state.host.domains.get(&vm) else { return };
        if domain.state != DomainState::Running || !domain.is_up || domain.is_deaf {
            return;
        }
        (domain.boot, takes)
    };
    world.later(takes, move |world| {
        let now = world.state().now;
        let same = if_same(world, vm, boot, |domain| {
            domain.boot += 1;
            domain.is_up = false;
            domain.is_frozen = false;
            domain.started = tokio::time::Instant::now();
            domain.rebooted = Some(now);
        });
        if same {
            let mut state = world.state();
            let label = state.label(vm);
            state.note(format_args!("the guest of {label} boots anew as asked"));
            drop(state);
            self::boot(world, vm);
        }
    });
}

/// Something happens to the guest that nobody asked for.
pub fn misfortune(world: &Arc<World>, vm: VmId, what: &str, work: impl FnOnce(&mut super::world::State)) {
    let mut state = world.state();
    let label = state.label(vm);
    state.note(format_args!("{label}: {what}"));
    state.disturb(vm);
    work(&mut state);
    drop(state);
    world.tell(Event::Domain(vm));
}

/// For as long as guests take to boot and install.
pub const SETTLED: Duration = Duration::from_secs(120);

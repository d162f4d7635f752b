//! What is done to a domain as a whole: halting and saving it, booting it anew, its name.

use async_trait::async_trait;
use infinibay::{
    hypervisor::{GuestControls, HypervisorError, Reboots},
    vm::{DomainState, GuestChange, SettingChange, VmChange, VmId, VmName},
};
use tokio::time::Instant;

use super::invalid;
use crate::simulation::{controller::Ports, guests, installers::Boot, watch::Seen};

/// libvirt's words for why a domain is off: it was saved.
const SAVED: i32 = 5;

/// And for why it is paused: somebody asked for it.
const PAUSED_BY_SOMEBODY: i32 = 1;

#[async_trait]
impl GuestControls for Ports {
    async fn press_enter(&self, id: VmId) -> Result<(), HypervisorError> {
        self.call(id, "press_enter", move |world| world.state().domain("press_enter", id).map(drop)).await
    }

    async fn reset(&self, id: VmId) -> Result<(), HypervisorError> {
        self.world.state().judge_asked(id, "reset", |change| matches!(change, VmChange::Guest(_)));
        self.call(id, "reset", move |world| {
            let mut state = world.state();
            let domain = state.domain("reset", id)?;
            if domain.state != DomainState::Running {
                return Err(invalid("reset", "the domain is not running"));
            }
            domain.resets += 1;
            if domain.installer.is_some() && domain.boots == Boot::Kernel {
                // Whatever boots it anew ends it.
                state.host.power_off(id, guests::SHUT_DOWN, true);
                return Ok(());
            }
            domain.installer = None;
            domain.boot += 1;
            domain.is_up = false;
            domain.is_frozen = false;
            domain.started = Instant::now();
            drop(state);
            guests::boot(world, id);
            Ok(())
        })
        .await
    }

    async fn set_autostart(&self, id: VmId, on: bool) -> Result<(), HypervisorError> {
        let asked = move |change: &VmChange| *change == VmChange::Setting(SettingChange::Autostart(on));
        self.world.state().judge_asked(id, "set_autostart", asked);
        self.call(id, "set_autostart", move |world| {
            let mut state = world.state();
            let domain = state.domain("set_autostart", id)?;
            if on && !domain.persistent {
                return Err(invalid("set_autostart", "a transient domain"));
            }
            domain.autostart = on;
            Ok(())
        })
        .await
    }

    fn reboots(&self, id: VmId) -> Reboots {
        let state = self.world.state();
        // Events are told for as long as there is a connection.
        Reboots {
            told_since: state.host.reachable.then_some(state.connected),
            last: state.host.domains.get(&id).and_then(|domain| domain.rebooted),
        }
    }

    async fn request_reboot(&self, id: VmId) -> Result<(), HypervisorError> {
        let politely = VmChange::Guest(GuestChange::Reboot { force: false });
        self.world.state().judge_asked(id, "request_reboot", move |change| *change == politely);
        self.call(id, "request_reboot", move |world| {
            let mut state = world.state();
            let domain = state.domain("request_reboot", id)?;
            if !domain.state.is_active() {
                return Err(invalid("request_reboot", "the domain is not running"));
            }
            domain.reboots_asked += 1;
            drop(state);
            guests::press_reset_politely(world, id);
            Ok(())
        })
        .await
    }

    async fn suspend(&self, id: VmId) -> Result<(), HypervisorError> {
        self.call(id, "suspend", move |world| {
            let mut state = world.state();
            let domain = state.domain("suspend", id)?;
            if !domain.state.is_active() {
                return Err(invalid("suspend", "the domain is not running"));
            }
            domain.state = DomainState::Paused;
            domain.reason = PAUSED_BY_SOMEBODY;
            Ok(())
        })
        .await
    }

    async fn save(&self, id: VmId) -> Result<(), HypervisorError> {
        self.world.state().judge_destruction(id, "save", &[Seen::Active]);
        self.call(id, "save", move |world| {
            let mut state = world.state();
            let clean = state.chance.one_in(2);
            let domain = state.domain("save", id)?;
            if !domain.state.is_active() {
                let done = domain.saved.is_some();
                return if done { Ok(()) } else { Err(invalid("save", "the domain is not running")) };
            }
            if !domain.persistent {
                return Err(invalid("save", "a transient domain"));
            }
            domain.saved = Some(domain.live.clone());
            state.host.power_off(id, SAVED, clean);
            Ok(())
        })
        .await
    }

    async fn discard_saved(&self, id: VmId) -> Result<(), HypervisorError> {
        self.world.state().judge_destruction(id, "dropping what was saved", &[Seen::Off]);
        self.call(id, "discard_saved", move |world| {
            world.state().domain("discard_saved", id)?.saved = None;
            Ok(())
        })
        .await
    }

    async fn rename(&self, id: VmId, name: &VmName) -> Result<(), HypervisorError> {
        let renames = |change: &VmChange| matches!(change, VmChange::Setting(SettingChange::Rename(_)));
        self.world.state().judge_asked(id, "rename", renames);
        let name = name.to_string();
        self.call(id, "rename", move |world| {
            let mut state = world.state();
            let taken = state.host.domains.iter().any(|(vm, other)| *vm != id && other.name == name);
            let domain = state.domain("rename", id)?;
            if domain.name == name {
                return Ok(());
            }
            if taken || domain.state != DomainState::Shutoff || domain.saved.is_some() {
                return Err(invalid("rename", "not as it is"));
            }
            domain.name = name;
            Ok(())
        })
        .await
    }
}

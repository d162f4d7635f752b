//! The reset button, and how libvirt treats a domain.

use async_trait::async_trait;
use infinibay::{
    hypervisor::{GuestControls, HypervisorError, Reboots},
    vm::{DomainState, VmId, VmName},
};
use tokio::time::Instant;

use super::{invalid, not_simulated};
use crate::simulation::{controller::Ports, guests};

#[async_trait]
impl GuestControls for Ports {
    async fn press_enter(&self, _id: VmId) -> Result<(), HypervisorError> {
        not_simulated("press_enter")
    }

    async fn reset(&self, id: VmId) -> Result<(), HypervisorError> {
        self.call(id, "reset", move |world| {
            let mut state = world.state();
            let domain = state.domain("reset", id)?;
            if domain.state != DomainState::Running {
                return Err(invalid("reset", "the domain is not running"));
            }
            domain.resets += 1;
            domain.boot += 1;
            domain.is_up = false;
            domain.started = Instant::now();
            drop(state);
            guests::boot(world, id);
            Ok(())
        })
        .await
    }

    async fn set_autostart(&self, id: VmId, on: bool) -> Result<(), HypervisorError> {
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

    fn reboots(&self, _id: VmId) -> Reboots {
        Reboots::default()
    }

    async fn request_reboot(&self, _id: VmId) -> Result<(), HypervisorError> {
        not_simulated("request_reboot")
    }

    async fn suspend(&self, _id: VmId) -> Result<(), HypervisorError> {
        not_simulated("suspend")
    }

    async fn save(&self, _id: VmId) -> Result<(), HypervisorError> {
        not_simulated("save")
    }

    async fn discard_saved(&self, _id: VmId) -> Result<(), HypervisorError> {
        not_simulated("discard_saved")
    }

    async fn rename(&self, _id: VmId, _name: &VmName) -> Result<(), HypervisorError> {
        not_simulated("rename")
    }
}

//! The reset button and libvirt's settings, simulated.

use async_trait::async_trait;

use super::World;
use crate::{
    hypervisor::{GuestControls, HypervisorError},
    vm::{DomainState, VmId},
};

#[async_trait]
impl GuestControls for World {
    async fn reset(&self, _id: VmId) -> Result<(), HypervisorError> {
        self.on_host("reset", |state| {
            assert_eq!(state.domain, Some(DomainState::Running), "a domain that is off was reset");
            state.resets += 1;
        })
        .await
    }

    async fn set_autostart(&self, _id: VmId, on: bool) -> Result<(), HypervisorError> {
        self.on_host("set autostart", |state| state.autostart = on).await
    }
}

//! Halting, saving, rebooting, and libvirt's settings, simulated.

use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;

use super::World;
use crate::{
    hypervisor::{GuestControls, HypervisorError, Reboots},
    reconcile::ports::Clock,
    vm::{DomainState, VmId, VmName},
};

#[async_trait]
impl GuestControls for World {
    async fn press_enter(&self, _id: VmId) -> Result<(), HypervisorError> {
        let now = self.now();
        self.on_host("press a key", |state| state.installer.pressed(now)).await
    }

    async fn reset(&self, _id: VmId) -> Result<(), HypervisorError> {
        self.on_host("reset", |state| {
            assert_eq!(state.domain, Some(DomainState::Running), "a domain that is off was reset");
            state.resets += 1;
        })
        .await
    }

    async fn request_reboot(&self, _id: VmId) -> Result<(), HypervisorError> {
        let now = self.now();
        self.on_host("reboot", |state| {
            assert_eq!(state.domain, Some(DomainState::Running), "a domain that is off was rebooted");
            state.reboots_asked += 1;
            if !state.deaf && state.reboots.told_since.is_some() {
                state.reboots.last = Some(now);
            }
        })
        .await
    }

    fn reboots(&self, _id: VmId) -> Reboots {
        self.state().reboots
    }

    async fn suspend(&self, _id: VmId) -> Result<(), HypervisorError> {
        self.on_host("suspend", |state| {
            assert!(state.domain.is_some_and(DomainState::is_active), "a domain that is off was halted");
            state.domain = Some(DomainState::Paused);
        })
        .await
    }

    async fn save(&self, _id: VmId) -> Result<(), HypervisorError> {
        let until = self.now() + TimeDelta::minutes(5);
        self.on_host("save", |state| {
            assert!(state.domain.is_some_and(DomainState::is_active), "a domain that is off was saved");
            assert_eq!(state.late_until, None, "a domain was saved while it is saved");
            if state.slow {
                state.late_until = Some(until);
                let limit = Duration::from_secs(30);
                return Err(HypervisorError::Deadline { operation: "save".to_owned(), limit });
            }
            state.domain = Some(DomainState::Shutoff);
            (state.reason, state.saved) = (5, true);
            Ok(())
        })
        .await?
    }

    async fn discard_saved(&self, _id: VmId) -> Result<(), HypervisorError> {
        self.on_host("discard", |state| {
            assert_eq!(state.domain, Some(DomainState::Shutoff), "what a domain goes on from was dropped");
            state.saved = false;
        })
        .await
    }

    async fn set_autostart(&self, _id: VmId, on: bool) -> Result<(), HypervisorError> {
        self.on_host("set autostart", |state| state.autostart = on).await
    }

    async fn rename(&self, _id: VmId, name: &VmName) -> Result<(), HypervisorError> {
        self.on_host("rename", |state| {
            assert_eq!(state.domain, Some(DomainState::Shutoff), "a domain was renamed while it runs");
            state.name = Some(name.to_string());
        })
        .await
    }
}

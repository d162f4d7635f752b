//! Halting, saving and booting anew, and how libvirt calls and treats a domain. Idempotent in the
//! manner of `power`: libvirt is told first, and only if it objects is it asked whether what was
//! wanted is already so.

use async_trait::async_trait;
use virt::sys;

use super::{LibvirtHypervisor, error::is_unsupported, power::unless, session::Call};
use crate::{
    hypervisor::{GuestControls, HypervisorError, Reboots},
    vm::{DomainState, VmId, VmName},
};

#[async_trait]
impl GuestControls for LibvirtHypervisor {
    async fn press_enter(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("press a key of", id, move |call| press_enter(call, id)).await
    }

    async fn reset(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("reset", id, move |call| reset(call, id)).await
    }

    async fn request_reboot(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("reboot", id, move |call| request_reboot(call, id)).await
    }

    fn reboots(&self, id: VmId) -> Reboots {
        let link = self.link.borrow();
        link.session.as_ref().map(|session| session.reboots(id)).unwrap_or_default()
    }

    async fn suspend(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("suspend", id, move |call| suspend(call, id)).await
    }

    async fn save(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("save", id, move |call| save(call, id)).await
    }

    async fn discard_saved(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("drop the saved memory of", id, move |call| discard_saved(call, id)).await
    }

    async fn set_autostart(&self, id: VmId, on: bool) -> Result<(), HypervisorError> {
        self.on_domain("set the autostart of", id, move |call| set_autostart(call, id, on)).await
    }

    async fn rename(&self, id: VmId, name: &VmName) -> Result<(), HypervisorError> {
        let name = name.to_string();
        self.on_domain("rename", id, move |call| rename(call, id, &name)).await
    }
}

fn press_enter(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    /// `KEY_ENTER` of Linux.
    const ENTER: u32 = 28;
    /// Milliseconds.
    const HELD: u32 = 50;
    let domain = call.domain(id)?;
    let mut keys = [ENTER];
    let count = i32::try_from(keys.len()).unwrap_or(1);
    let pressed =
        call.ask_raw(|_| domain.send_key(sys::VIR_KEYCODE_SET_LINUX, HELD, keys.as_mut_ptr(), count, 0));
    match pressed {
        Err(error) if is_unsupported(&error) => Ok(()),
        outcome => outcome.map_err(|error| call.sort(error)),
    }
}

fn reset(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    call.ask(|_| domain.reset().map(drop))
}

/// With both flags libvirt asks the guest's QEMU agent where it is connected, and presses the power
/// button where that fails. Drivers that know neither have one way only.
fn request_reboot(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    const POLITELY: u32 = sys::VIR_DOMAIN_REBOOT_GUEST_AGENT | sys::VIR_DOMAIN_REBOOT_ACPI_POWER_BTN;
    let domain = call.domain(id)?;
    match call.ask_raw(|_| domain.reboot(POLITELY)) {
        Err(error) if is_unsupported(&error) => call.ask(|_| domain.reboot(0)),
        outcome => outcome.map_err(|error| call.sort(error)),
    }
}

fn suspend(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    let outcome = call.ask(|_| domain.suspend());
    unless(call, &domain, outcome, |state| matches!(state, DomainState::Paused | DomainState::Suspended))
}

fn save(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    match call.ask(|_| domain.managed_save(0)) {
        // Refused because it is off: of its own accord, or because it was saved before a crash.
        Err(error @ HypervisorError::Refused { .. }) => {
            let off = !call.ask(|_| domain.is_active())?;
            if off && call.ask(|_| domain.has_managed_save(0))? { Ok(()) } else { Err(error) }
        }
        outcome => outcome,
    }
}

fn discard_saved(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    if call.ask(|_| domain.has_managed_save(0))? {
        call.ask(|_| domain.managed_save_remove(0))?;
    }
    Ok(())
}

fn set_autostart(call: &Call<'_>, id: VmId, on: bool) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    call.ask(|_| domain.set_autostart(on).map(drop))
}

fn rename(call: &Call<'_>, id: VmId, name: &str) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    if domain.name().map_err(|error| call.sort(error))? == name {
        return Ok(());
    }
    call.ask(|_| domain.rename(name, 0))
}

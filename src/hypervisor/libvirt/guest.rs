//! The reset button, and how libvirt treats a domain.

use async_trait::async_trait;

use super::{LibvirtHypervisor, session::Call};
use crate::{
    hypervisor::{GuestControls, HypervisorError},
    vm::VmId,
};

#[async_trait]
impl GuestControls for LibvirtHypervisor {
    async fn reset(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("reset", id, move |call| reset(call, id)).await
    }

    async fn set_autostart(&self, id: VmId, on: bool) -> Result<(), HypervisorError> {
        self.on_domain("set the autostart of", id, move |call| set_autostart(call, id, on)).await
    }
}

fn reset(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    call.ask(|_| domain.reset().map(drop))
}

fn set_autostart(call: &Call<'_>, id: VmId, on: bool) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    call.ask(|_| domain.set_autostart(on).map(drop))
}

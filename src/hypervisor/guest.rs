//! What is done to a domain as a whole, beyond power: the reset button, and how libvirt treats it.

use async_trait::async_trait;

use super::HypervisorError;
use crate::vm::VmId;

/// See the module.
#[async_trait]
pub trait GuestControls: Send + Sync {
    /// Presses the reset button of a domain that runs.
    async fn reset(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Whether libvirt starts the domain when the host boots. Idempotent.
    async fn set_autostart(&self, id: VmId, on: bool) -> Result<(), HypervisorError>;
}

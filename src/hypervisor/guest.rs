//! What is done to a domain as a whole, beyond on and off: halting and saving it, booting it anew,
//! and how libvirt calls and treats it.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::HypervisorError;
use crate::vm::{VmId, VmName};

/// What is known of a domain's booting anew while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reboots {
    /// Since when every one is told to this process; `None`: they are not told, or not now.
    pub told_since: Option<DateTime<Utc>>,
    /// The last one that was told.
    pub last: Option<DateTime<Utc>>,
}

/// See the module.
#[async_trait]
pub trait GuestControls: Send + Sync {
    /// Presses and releases the guest's Enter key. A driver that has no keyboard is success.
    async fn press_enter(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Presses the reset button of a domain that runs.
    async fn reset(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Asks the guest to boot anew: by its QEMU agent where that answers, else by ACPI. Returns
    /// once the request was taken; whether the guest follows it is seen by [`Self::reboots`].
    async fn request_reboot(&self, id: VmId) -> Result<(), HypervisorError>;

    /// When the domain's machine was seen to boot anew. Asks nobody and never waits.
    fn reboots(&self, id: VmId) -> Reboots;

    /// Halts the processors. Halted already is success.
    async fn suspend(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Writes the memory to disk and powers off; the next start goes on from there. May take
    /// minutes. Saved already is success.
    async fn save(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Drops what was saved of the memory. Nothing saved is success.
    async fn discard_saved(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Whether libvirt starts the domain when the host boots. Idempotent.
    async fn set_autostart(&self, id: VmId, on: bool) -> Result<(), HypervisorError>;

    /// Gives a domain that is off another name. It has that name already is success.
    async fn rename(&self, id: VmId, name: &VmName) -> Result<(), HypervisorError>;
}

//! What is plugged into a domain, and how large it is.
//!
//! Every change goes into the persistent configuration, and into the running domain where the
//! hypervisor can do that. What it cannot do waits for the next start, which is no error.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::HypervisorError;
use crate::{
    domain_xml::{DeviceName, Hardware, NewDevice},
    vm::VmId,
};

/// A domain's size and devices.
#[derive(Debug, Clone, Default)]
pub struct DomainHardware {
    /// As configured: what the next start gives it.
    pub config: Hardware,
    /// As it runs; `None` while it does not.
    pub live: Option<Hardware>,
    /// It is off, and its memory is saved: the next start goes on from there, as it was then.
    pub saved: bool,
    /// It has snapshots, which may go back to what it is made of now.
    pub has_snapshots: bool,
}

/// What became of the running domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// It does not run, or is already as asked, or was changed.
    Done,
    /// The hypervisor refused, in these words; the next start brings it.
    Refused(String),
}

/// What became of a device that was to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unplugged {
    /// It is neither configured nor in the running domain.
    Gone,
    /// The guest has not let go of it; its configuration is as before. With the hypervisor's words,
    /// where it had any.
    Kept(Option<String>),
}

/// An empty qcow2 volume to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlankVolume {
    /// The pool.
    pub pool: String,
    /// The volume's name, with the VM's id in it.
    pub name: String,
    /// The size the guest sees, bytes.
    pub capacity_bytes: u64,
}

/// A volume that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Where it is.
    pub path: PathBuf,
    /// The size a guest sees, bytes.
    pub capacity_bytes: u64,
    /// `qcow2`, `raw`, `iso`, …, as the pool found it to be.
    pub format: Option<String>,
    /// Whether it is a file, rather than a block device or something of the network.
    pub is_file: bool,
}

impl VolumeFacts {
    /// Whether it can be put into a drive: a file that looks like a disc, or like nothing else.
    #[must_use]
    pub fn is_medium(&self) -> bool {
        self.is_file && matches!(self.format.as_deref(), Some("raw" | "iso"))
    }
}

/// Which volume a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePlace {
    /// The pool.
    pub pool: String,
    /// The volume's name.
    pub name: String,
    /// The size a guest sees, bytes.
    pub capacity_bytes: u64,
}

/// See the module.
#[async_trait]
pub trait Devices: Send + Sync {
    /// Size and devices, configured and live.
    async fn hardware(&self, id: VmId) -> Result<DomainHardware, HypervisorError>;

    /// Configures processors and memory (MiB), and asks the running domain for as much of it as it
    /// can do. What came of that [`Self::hardware`] shows; a guest takes its time over memory.
    async fn resize(&self, id: VmId, vcpus: u32, memory_mib: u64) -> Result<(), HypervisorError>;

    /// Makes an empty volume and gives its path, as [`super::Hypervisor::create_overlay`] does.
    async fn create_blank(&self, id: VmId, volume: BlankVolume) -> Result<PathBuf, HypervisorError>;

    /// A volume; `None` if the pool is there and the volume is not.
    async fn volume(&self, id: VmId, pool: &str, name: &str) -> Result<Option<VolumeFacts>, HypervisorError>;

    /// The volume that a file is; `None` if no active pool has it.
    async fn volume_at(&self, id: VmId, path: &Path) -> Result<Option<VolumePlace>, HypervisorError>;

    /// Makes a volume larger that no running domain uses. One that is as large is success.
    async fn grow_volume(&self, id: VmId, pool: &str, name: &str, bytes: u64) -> Result<(), HypervisorError>;

    /// Makes a running domain's disk larger. One that is as large is success.
    async fn grow_disk(&self, id: VmId, target: &str, bytes: u64) -> Result<(), HypervisorError>;

    /// Plugs a device in: configured, and live where the domain runs. Idempotent by its name.
    async fn plug(&self, id: VmId, device: NewDevice) -> Result<Live, HypervisorError>;

    /// Unplugs a device: from the running domain first, and once it is gone there from the
    /// configuration. Idempotent.
    async fn unplug(&self, id: VmId, device: DeviceName) -> Result<Unplugged, HypervisorError>;

    /// Puts a medium into a drive, or takes it out; configured, and live where the domain runs with
    /// that drive. Idempotent.
    async fn set_medium(
        &self,
        id: VmId,
        target: &str,
        medium: Option<PathBuf>,
    ) -> Result<Live, HypervisorError>;
}

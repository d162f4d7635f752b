//! The hypervisor: domains, volumes and what happens to them.
//!
//! [`Hypervisor`] is what the rest of the house sees; [`libvirt`] is the real one. Every call
//! may block for seconds inside libvirt, so the implementation runs it off the async threads,
//! with a deadline and a bound on how many are in flight. A call past its deadline is *not
//! over*: the error says so ([`HypervisorError::Deadline`]), and the caller must not act on that
//! domain again until [`Hypervisor::is_busy`] denies it.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::vm::{DomainFacts, DomainObservation, MachineFacts, VmId};

mod console;
mod copies;
mod devices;
mod guest;
mod identity;
pub mod libvirt;
mod snapshots;
mod storage;

pub use console::{Console, MAX_SCREENSHOT_BYTES, Screenshot};
pub use copies::{Copied, Copies, Copying, VolumeCopy};
pub use devices::{BlankVolume, Devices, DomainHardware, Live, Unplugged, VolumeFacts, VolumePlace};
pub use guest::{GuestControls, Reboots};
pub use identity::{DomainDescription, GivenBack, Identity};
pub use snapshots::{FileSystems, Freeze, RevertTo, SnapshotRequest, Snapshots, Thaw};
pub use storage::{PoolContents, Storage};

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HypervisorError {
    /// There is no connection, or it broke under the call.
    #[error("{operation}: libvirt is not reachable")]
    Unreachable {
        /// What was tried.
        operation: String,
        /// libvirt's words, where it had any.
        #[source]
        source: Option<virt::error::Error>,
    },
    /// The call did not return in time and is still under way.
    #[error("{operation}: no answer from libvirt within {limit:?}; the call is still under way")]
    Deadline {
        /// What was tried.
        operation: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The thing named does not exist.
    #[error("{operation}: not found")]
    NotFound {
        /// What was tried.
        operation: String,
    },
    /// libvirt refused.
    #[error("{operation}")]
    Refused {
        /// What was tried.
        operation: String,
        /// libvirt's words.
        #[source]
        source: virt::error::Error,
    },
    /// The domain is not made in a way that we can change it: it will not be by itself.
    #[error("{operation}: {reason}")]
    Unfit {
        /// What was tried.
        operation: String,
        /// Why not, for people; says what to do.
        reason: String,
    },
    /// What libvirt gave could not be read, or what was asked makes no sense to it.
    #[error("{operation}: {reason}")]
    Invalid {
        /// What was tried.
        operation: String,
        /// What was wrong.
        reason: String,
    },
}

impl HypervisorError {
    /// Whether the hypervisor's driver cannot do this at all.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        use virt::error::ErrorNumber::{NoSupport, OperationUnsupported};
        let code = |source: &virt::error::Error| source.code().known();
        matches!(self, Self::Refused { source, .. }
            if matches!(code(source), Some(NoSupport | OperationUnsupported)))
    }
}

/// One bulk look at the host: every domain that libvirt has, ours and others'.
#[derive(Debug, Clone, Default)]
pub struct HostObservation {
    /// By domain UUID. A domain that was too busy to be asked is here with
    /// [`crate::vm::DomainState::Unknown`]. Who is not here does not exist.
    pub domains: HashMap<VmId, DomainFacts>,
}

/// What the host can do and has, for people and for choosing a domain type.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    /// The host's own name.
    pub hostname: String,
    /// The libvirt URI in use.
    pub uri: String,
    /// `11.3.0`.
    pub libvirt_version: String,
    /// The hypervisor's version, where it has one.
    pub hypervisor_version: Option<String>,
    /// CPU architecture.
    pub arch: String,
    /// Logical processors.
    pub cpus: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes.
    pub free_memory_bytes: u64,
    /// Storage pools.
    pub pools: Vec<PoolFacts>,
    /// Networks.
    pub networks: Vec<NetworkFacts>,
    /// What new VMs can have.
    pub machine: MachineFacts,
}

/// A storage pool.
#[derive(Debug, Clone)]
pub struct PoolFacts {
    /// Its name.
    pub name: String,
    /// Whether it is active.
    pub active: bool,
    /// Bytes.
    pub capacity_bytes: u64,
    /// Bytes.
    pub available_bytes: u64,
}

/// A network.
#[derive(Debug, Clone)]
pub struct NetworkFacts {
    /// Its name.
    pub name: String,
    /// Whether it is active.
    pub active: bool,
}

/// The domain type that a new domain is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainType {
    /// Hardware virtualisation.
    Kvm,
    /// Software emulation.
    Qemu,
    /// libvirt's test driver.
    Test,
}

/// An address of a guest, as the host's DHCP server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Lower-case, colon separated.
    pub mac: String,
    /// Without prefix length.
    pub ip: String,
}

/// A qcow2 overlay to be made on top of an image's disk.
#[derive(Debug, Clone)]
pub struct OverlayVolume {
    /// The pool.
    pub pool: String,
    /// The volume's name, with the VM's id in it.
    pub name: String,
    /// The size the guest sees, bytes.
    pub capacity_bytes: u64,
    /// Absolute path of the image's disk.
    pub backing_path: PathBuf,
    /// `qcow2` or `raw`.
    pub backing_format: String,
}

/// Something libvirt told us. A hint: what is true is found by looking.
#[derive(Debug, Clone)]
pub enum HypervisorEvent {
    /// Something about this domain changed.
    Domain(VmId),
    /// A connection was made; everything may have changed while there was none.
    Connected,
    /// The connection broke.
    Disconnected,
}

/// The hypervisor as the rest of the house sees it.
#[async_trait]
pub trait Hypervisor:
    GuestControls
    + Devices
    + Copies
    + Snapshots
    + FileSystems
    + Identity
    + Console
    + Storage
    + Send
    + Sync
    + 'static
{
    /// Every domain in one look, with a constant number of calls however many there are.
    /// An `Err` means that nothing is known; an `Ok` is complete.
    async fn observe_all(&self) -> Result<HostObservation, HypervisorError>;

    /// One domain, afresh. `Ok` is never `Unknown`.
    async fn observe(&self, id: VmId) -> Result<DomainObservation, HypervisorError>;

    /// Whether there is a connection right now. Asks nobody and never waits.
    fn is_reachable(&self) -> bool;

    /// Whether a call that concerns this domain is still under way past its deadline.
    fn is_busy(&self, id: VmId) -> bool;

    /// Hints to look. A receiver that lags should look at everything.
    fn events(&self) -> broadcast::Receiver<HypervisorEvent>;

    /// The domain type for new domains: configured, or found out.
    async fn domain_type(&self) -> Result<DomainType, HypervisorError>;

    /// Defines (or redefines) a domain from its whole XML. Idempotent.
    async fn define(&self, id: VmId, xml: String) -> Result<(), HypervisorError>;

    /// Powers on. Already running is success.
    async fn start(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Asks the guest to power off (ACPI). Returns at once; already off is success.
    async fn request_shutdown(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Unpauses.
    async fn resume(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Pulls the plug, also beside a call that is past its deadline, which then ends. Already off is
    /// success.
    async fn destroy(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Undefines, with NVRAM, the TPM's state, managed save and snapshot metadata. Absent is success.
    async fn undefine(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Makes a volume and gives its path. One of that name that is there already is success if
    /// it is what was asked for; any other is what a creation that broke off left behind, and is
    /// deleted and made anew. Only for volumes that nothing uses yet.
    async fn create_overlay(&self, id: VmId, volume: OverlayVolume) -> Result<PathBuf, HypervisorError>;

    /// The path of a volume; `None` if the pool is there and the volume is not.
    async fn volume_path(&self, id: VmId, pool: &str, name: &str)
    -> Result<Option<PathBuf>, HypervisorError>;

    /// Removes a volume. Absent is success; a pool that cannot be asked is not.
    async fn delete_volume(&self, id: VmId, pool: &str, name: &str) -> Result<(), HypervisorError>;

    /// What the host is and has, as of at most two seconds ago.
    async fn host(&self) -> Result<HostFacts, HypervisorError>;

    /// All DHCP leases of a network, as of at most two seconds ago. One call for all its guests.
    async fn leases(&self, network: &str) -> Result<Vec<Lease>, HypervisorError>;

    /// Whether a domain of this name exists, whoever made it; its UUID if so.
    async fn domain_named(&self, name: &str) -> Result<Option<VmId>, HypervisorError>;
}

//! What one look at one VM saw.

use super::loan::Loan;
use crate::{
    hypervisor::{Copying, Reboots},
    vm::{DomainObservation, LinkObservation, SocketObservation, StorageObservation},
};

/// Everything the planner knows of the present.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The domain.
    pub domain: DomainObservation,
    /// Whether an earlier call on the domain is still under way: nothing may be changed then.
    pub busy: bool,
    /// When the domain booted anew, as far as that is told.
    pub reboots: Reboots,
    /// Of a VM that is lent, or made as a copy: how that stands.
    pub loan: Loan,
    /// Of a VM that is made as a copy: whether one of its disks is being copied.
    pub copying: Copying,
    /// Our end of the channel.
    pub link: LinkObservation,
    /// The pools that its volumes lie in, as of the last look at them.
    pub storage: StorageObservation,
    /// The socket file; looked at only where it matters (deletion).
    pub socket: SocketObservation,
    /// How an installation shows itself; looked at only while one is under way.
    pub install: Option<InstallSigns>,
}

/// How an installation shows itself to who cannot look into it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstallSigns {
    /// The last lines of the console, fit to be shown: without escapes, bounded.
    pub last_lines: Vec<String>,
    /// What the end of the console's log has of whole lines, each as a number that is the same for
    /// the same line.
    pub lines: Vec<u64>,
    /// What our scripts in the installer wrote last to the console of where it is, `[a-z0-9-]`, at
    /// most 64 characters; as far as the log's end has it.
    pub stage: Option<String>,
    /// What the disk takes of the host, bytes.
    pub disk_bytes: Option<u64>,
}

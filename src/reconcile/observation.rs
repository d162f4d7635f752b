//! What one look at one VM saw.

use super::loan::Loan;
use crate::{
    hypervisor::{Copying, Reboots},
    vm::{DomainObservation, LinkObservation, SocketObservation},
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
    /// The socket file; looked at only where it matters (deletion).
    pub socket: SocketObservation,
}

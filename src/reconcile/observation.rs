//! What one look at one VM saw.

use crate::{
    hypervisor::Reboots,
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
    /// Our end of the channel.
    pub link: LinkObservation,
    /// The pools that its volumes lie in, as of the last look at them.
    pub storage: StorageObservation,
    /// The socket file; looked at only where it matters (deletion).
    pub socket: SocketObservation,
}

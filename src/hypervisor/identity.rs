//! Whose a domain is: what stands in its configuration, what we note in it, and what a domain that
//! others made is given and gives back.

use std::path::PathBuf;

use async_trait::async_trait;

use super::HypervisorError;
use crate::{
    domain_xml::{FoundNote, Note},
    vm::{DomainFacts, VmId},
};

/// A domain as its configuration has it.
#[derive(Debug, Clone)]
pub struct DomainDescription {
    /// Its state is the present one; all else is from the configuration that survives its end, or
    /// of a transient domain from the running one.
    pub facts: DomainFacts,
    /// Our element in its metadata.
    pub note: Option<FoundNote>,
}

/// What became of the channel of a domain that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// The domain has none any more, or only its own.
    Done,
    /// It goes at the domain's next start: the hypervisor could not take it from the running one.
    AtNextStart,
}

/// See the module.
#[async_trait]
pub trait Identity: Send + Sync {
    /// One domain's configuration; `None` if there is no such domain.
    async fn describe(&self, id: VmId) -> Result<Option<DomainDescription>, HypervisorError>;

    /// Notes a VM in its domain's metadata, in the place of what was noted before. Idempotent.
    async fn note(&self, id: VmId, note: Note) -> Result<(), HypervisorError>;

    /// Gives a domain that others made our note and, if it has none, the agent's channel: in its
    /// configuration, and at once where it runs and the hypervisor can. Idempotent. Gives whether the
    /// channel is there already.
    ///
    /// # Errors
    /// `Invalid` if the domain is transient or cannot be given them.
    async fn adopt(&self, id: VmId, socket: PathBuf, note: Note) -> Result<bool, HypervisorError>;

    /// Takes back what [`Identity::adopt`] gave. Idempotent; a domain that is gone is fine.
    async fn release(&self, id: VmId) -> Result<GivenBack, HypervisorError>;
}

//! VMs: specification, intent, milestones, derived status.

mod adopted;
mod changes;
mod clones;
mod counts;
mod installs;
mod list;
mod load;
mod progress;
mod requests;
mod row;

pub use adopted::FoundVm;
pub use clones::NewClone;
pub use installs::HeardReport;
pub use list::{VmSearch, VmsFrom};

use crate::vm::{
    AgentConnectivity, DesiredPower, Effect, HostId, InstallReport, Operation, Resource, SealKey, UserId,
    VmId, VmPhase, VmRecord, VmSpec, VmStatus,
};

/// A VM to be stored.
#[derive(Debug, Clone)]
pub struct NewVm {
    /// Made by us, or given by the client so that a retry is safe.
    pub id: VmId,
    /// The controller's host.
    pub host: HostId,
    /// Who asked.
    pub owner: UserId,
    /// What for.
    pub spec: VmSpec,
}

/// What carrying out a change made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeOutcome {
    /// When it takes hold.
    pub effect: Option<Effect>,
    /// What the VM is made of from now on; `None`: as before.
    pub spec: Option<VmSpec>,
    /// The power that the change left the VM in and that is to be kept, as a revert does.
    pub power: Option<DesiredPower>,
    /// The VM is no more ours: its rows go with the end of the change, its history stays.
    pub released: bool,
}

/// All the loop needs of one VM.
#[derive(Debug, Clone)]
pub struct VmBundle {
    /// The VM.
    pub record: VmRecord,
    /// What was last told to people; `None` before the first pass.
    pub status: Option<VmStatus>,
    /// Operations that are not final, oldest first.
    pub operations: Vec<Operation>,
    /// What was made for it.
    pub resources: Vec<Resource>,
    /// What its installer last said, where one is at work.
    pub install_report: Option<InstallReport>,
    /// What its channel is sealed with, if it was given a key.
    pub seal: Option<SealKey>,
}

/// What decides whether something may be asked of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmAccess {
    /// Which.
    pub vm: VmId,
    /// Whose.
    pub owner: UserId,
    /// On its way out.
    pub deleting: bool,
    /// What people are told it does, and whether its agent can be talked to; `None` before the
    /// loop's first pass.
    pub state: Option<(VmPhase, AgentConnectivity)>,
}

/// A VM with what people are told about it.
#[derive(Debug, Clone)]
pub struct VmView {
    /// The VM.
    pub record: VmRecord,
    /// `None` before the loop's first pass.
    pub status: Option<VmStatus>,
    /// What its installer last said, where one was at work.
    pub install_report: Option<InstallReport>,
}

/// How many VMs are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmCount {
    /// Where they are in their lives.
    pub phase: VmPhase,
    /// Whether their agents can be talked to.
    pub agent: AgentConnectivity,
    /// At least one.
    pub vms: i64,
}

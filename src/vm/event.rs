//! What subscribers hear.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{CommandId, MetricsSample, Operation, VmId, VmStatus};

/// Something that happened to a VM. Names follow the specification (`vm:online`, …). Events are
/// for people who watch; nothing that must be stored travels this way.
#[derive(Debug, Clone)]
pub enum VmEvent {
    /// `vm:online`: the agent was heard.
    Online {
        /// Which VM.
        vm: VmId,
        /// When.
        at: DateTime<Utc>,
    },
    /// `vm:offline`: the agent fell silent or its link closed.
    Offline {
        /// Which VM.
        vm: VmId,
        /// When.
        at: DateTime<Utc>,
        /// Why, in a few words.
        reason: String,
    },
    /// `vm:metrics`: a valid reading came.
    Metrics(Arc<MetricsSample>),
    /// `vm:command`: a command ended.
    Command {
        /// Which VM.
        vm: VmId,
        /// Which command.
        command: CommandId,
        /// The agent's verdict; false where there was none.
        success: bool,
        /// When.
        at: DateTime<Utc>,
    },
    /// `vm:error`: the guest reported an error.
    Error {
        /// Which VM.
        vm: VmId,
        /// The guest's words, bounded and cleaned.
        error: String,
        /// When.
        at: DateTime<Utc>,
    },
    /// `vm:status`: phase, connectivity or a condition changed.
    Status {
        /// Which VM.
        vm: VmId,
        /// The new state.
        status: Arc<VmStatus>,
        /// When.
        at: DateTime<Utc>,
    },
    /// `vm:operation`: an operation moved on.
    Operation(Arc<Operation>),
    /// `vm:deleted`: nothing of the VM is left.
    Deleted {
        /// Which VM.
        vm: VmId,
        /// When.
        at: DateTime<Utc>,
    },
}

impl VmEvent {
    /// The VM it is about.
    #[must_use]
    pub fn vm(&self) -> VmId {
        match self {
            Self::Online { vm, .. }
            | Self::Offline { vm, .. }
            | Self::Command { vm, .. }
            | Self::Error { vm, .. }
            | Self::Status { vm, .. }
            | Self::Deleted { vm, .. } => *vm,
            Self::Metrics(sample) => sample.vm,
            Self::Operation(operation) => operation.vm,
        }
    }

    /// The name front ends know it by.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Online { .. } => "vm:online",
            Self::Offline { .. } => "vm:offline",
            Self::Metrics(_) => "vm:metrics",
            Self::Command { .. } => "vm:command",
            Self::Error { .. } => "vm:error",
            Self::Status { .. } => "vm:status",
            Self::Operation(_) => "vm:operation",
            Self::Deleted { .. } => "vm:deleted",
        }
    }
}

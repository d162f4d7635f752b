//! Changes of a VM beyond its power and its end: asked for once, carried out once by the loop,
//! followed by an operation.
//!
//! A change travels whole in its operation's row, so that a crash at any point finds in the
//! database what is left to be done.

mod device;
mod guest;
mod identity;
mod lend;
mod setting;
mod size;
mod snapshot;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use device::DeviceChange;
pub use guest::GuestChange;
pub use identity::IdentityChange;
pub use lend::LendChange;
pub use setting::SettingChange;
pub use size::SizeChange;
pub use snapshot::{Before, Frost, NewSnapshot, SnapshotChange};

use super::{OperationKind, VmRecord, VmStatus};

/// What is to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmChange {
    /// Something that is done to the running guest, and leaves no trace in its configuration.
    Guest(GuestChange),
    /// How the VM is called and treated.
    Setting(SettingChange),
    /// Processors, memory, the size of a disk.
    Size(SizeChange),
    /// What is plugged into it.
    Device(DeviceChange),
    /// Its snapshots.
    Snapshot(SnapshotChange),
    /// Whose its domain is.
    Identity(IdentityChange),
    /// Its disks, while another VM is made as a copy.
    Lend(LendChange),
}

/// When a change that was carried out takes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It holds already.
    Live,
    /// The running guest goes on as before; it holds when the VM is powered off and started again.
    NextBoot,
}

/// Why a change cannot be made as the VM is: a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongState(pub String);

/// Why a change may not be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// As the VM is now.
    #[error(transparent)]
    WrongState(#[from] WrongState),
    /// QEMU takes no such snapshot of what the VM is made of: a sentence that says what to do.
    #[error("{0}")]
    SnapshotUnsupported(&'static str),
}

impl VmChange {
    /// The kind of its operation.
    #[must_use]
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Guest(change) => change.kind(),
            Self::Setting(change) => change.kind(),
            Self::Size(change) => change.kind(),
            Self::Device(change) => change.kind(),
            Self::Snapshot(change) => change.kind(),
            Self::Identity(change) => change.kind(),
            Self::Lend(_) => OperationKind::Lend,
        }
    }

    /// What is happening while it is carried out, in a few words.
    #[must_use]
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Guest(change) => change.stage(),
            Self::Setting(change) => change.stage(),
            Self::Size(change) => change.stage(),
            Self::Device(change) => change.stage(),
            Self::Snapshot(change) => change.stage(),
            Self::Identity(change) => change.stage(),
            Self::Lend(change) => change.stage(),
        }
    }

    /// How long it may take from when it was asked for; then it is given up.
    #[must_use]
    pub fn budget(&self) -> Duration {
        match self {
            Self::Guest(change) => change.budget(),
            Self::Setting(_) => Duration::from_secs(300),
            Self::Size(_) => Duration::from_secs(600),
            Self::Device(change) => change.budget(),
            Self::Snapshot(change) => change.budget(),
            Self::Identity(change) => change.budget(),
            Self::Lend(_) => LendChange::BUDGET,
        }
    }

    /// Whether it may be asked for as the VM is.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn check(&self, record: &VmRecord, status: Option<&VmStatus>) -> Result<(), Unfit> {
        if record.milestones.defined.is_none() {
            let words = "the VM is still being made; wait for its operation to end";
            return Err(WrongState(words.to_owned()).into());
        }
        match self {
            Self::Guest(change) => change.check(status)?,
            Self::Setting(change) => change.check(status)?,
            Self::Size(change) => change.check(record, status)?,
            Self::Device(change) => change.check(record, status)?,
            Self::Snapshot(change) => change.check(record, status)?,
            Self::Identity(change) => change.check(record)?,
            Self::Lend(_) => LendChange::check(record, status)?,
        }
        Ok(())
    }

    /// Whether a request for this power ends it: what was to be done to the guest is beside the
    /// point once the guest is to be gone.
    #[must_use]
    pub fn yields_to_power(&self) -> bool {
        matches!(self, Self::Guest(_))
    }

    /// Whether the guest's file systems may be frozen on its behalf: then they are thawed before
    /// anything else.
    #[must_use]
    pub fn may_be_frozen(&self) -> bool {
        matches!(self, Self::Snapshot(change) if change.may_be_frozen())
    }

    /// Whether it can be carried out although the domain is gone.
    #[must_use]
    pub fn outlives_domain(&self) -> bool {
        matches!(self, Self::Identity(IdentityChange::Release))
    }
}

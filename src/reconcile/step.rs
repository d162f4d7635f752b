//! The steps that the loop can take.

use crate::vm::{OperationId, Resource};

/// The name of a step that carries a change out: its failures are the change's, not the request's for
/// power.
pub const CHANGE: &str = "Change";

/// One change of the world. Each is idempotent: done again, it finds its work done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the overlay volume.
    CreateDisk,
    /// Write the seed medium.
    WriteSeed,
    /// Define the domain.
    Define,
    /// Power on.
    Start,
    /// Unpause.
    Resume,
    /// Ask the guest to power off.
    RequestShutdown,
    /// Pull the plug.
    Destroy,
    /// Take the secrets off the seed medium and out of the store.
    ScrubSeed,
    /// Write down in the domain itself what it is.
    Note,
    /// Carry out the change that this operation asks for.
    Change(OperationId),
    /// Undefine the domain.
    Undefine,
    /// Remove the socket that a killed hypervisor left behind.
    RemoveSocket,
    /// Remove one thing that was made for the VM.
    Remove(Resource),
    /// Close the deletion: nothing is left but history.
    Forget,
}

impl Step {
    /// For conditions and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateDisk => "CreateDisk",
            Self::WriteSeed => "WriteSeed",
            Self::Define => "Define",
            Self::Start => "Start",
            Self::Resume => "Resume",
            Self::RequestShutdown => "RequestShutdown",
            Self::Destroy => "Destroy",
            Self::ScrubSeed => "ScrubSeed",
            Self::Note => "Note",
            Self::Change(_) => CHANGE,
            Self::Undefine => "Undefine",
            Self::RemoveSocket => "RemoveSocket",
            Self::Remove(_) => "Remove",
            Self::Forget => "Forget",
        }
    }

    /// Whether doing it on incomplete knowledge could lose something.
    #[cfg(test)]
    pub(super) fn is_destructive(&self) -> bool {
        matches!(self, Self::Destroy | Self::Undefine | Self::RemoveSocket | Self::Remove(_) | Self::Forget)
    }
}

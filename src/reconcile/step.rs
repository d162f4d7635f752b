//! The steps that the loop can take.

use crate::vm::{OperationId, Resource};

/// The name of a step that carries a change out: its failures are the change's, not the request's for
/// power.
pub const CHANGE: &str = "Change";

/// The name of the step that thaws a guest's file systems: its failures are its own.
pub const THAW: &str = "Thaw";

/// One change of the world. Each is idempotent: done again, it finds its work done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the overlay volume.
    CreateDisk,
    /// Copy the disks of another VM: begin the next, or take down that one has ended.
    CopyDisks,
    /// Write the seed medium.
    WriteSeed,
    /// Define the domain.
    Define,
    /// Have the domain boot from its disk, without the installer and its media.
    ReplaceBoot,
    /// Press Enter: firmware asks for a key before it boots a disc.
    PressKey,
    /// Power on.
    Start,
    /// Power on what went off although it was asked to run.
    Restart,
    /// Drop what was saved of the memory.
    DiscardSaved,
    /// Unpause.
    Resume,
    /// Halt the processors.
    Suspend,
    /// Write the memory to disk and power off.
    Save,
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
    /// Say that the VM is off and may be copied from, as this operation wants.
    Lend(OperationId),
    /// Ask the guest to boot anew, as this operation wants.
    RequestReboot(OperationId),
    /// Close the change of this operation: it was seen to be done.
    Settle(OperationId),
    /// Thaw the guest's file systems, which this operation's change may have left frozen.
    Thaw(OperationId),
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
            Self::CopyDisks => "CopyDisks",
            Self::WriteSeed => "WriteSeed",
            Self::Define => "Define",
            Self::ReplaceBoot => "ReplaceBoot",
            Self::PressKey => "PressKey",
            Self::Start => "Start",
            Self::Restart => "Restart",
            Self::DiscardSaved => "DiscardSaved",
            Self::Resume => "Resume",
            Self::Suspend => "Suspend",
            Self::Save => "Save",
            Self::RequestShutdown => "RequestShutdown",
            Self::Destroy => "Destroy",
            Self::ScrubSeed => "ScrubSeed",
            Self::Note => "Note",
            Self::Change(_) | Self::Lend(_) | Self::RequestReboot(_) | Self::Settle(_) => CHANGE,
            Self::Thaw(_) => THAW,
            Self::Undefine => "Undefine",
            Self::RemoveSocket => "RemoveSocket",
            Self::Remove(_) => "Remove",
            Self::Forget => "Forget",
        }
    }

    /// Whether doing it on incomplete knowledge could lose something.
    #[cfg(test)]
    pub(super) fn is_destructive(&self) -> bool {
        matches!(
            self,
            Self::Destroy
                | Self::DiscardSaved
                | Self::Undefine
                | Self::RemoveSocket
                | Self::Remove(_)
                | Self::Forget
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failpoint::OPERATIONS;

    /// Each step with an operation that takes it and a point behind its effect. It is one table for the
    /// compiler, which misses a new step in it, and for the test, which looks its points up.
    macro_rules! steps {
        ($($step:pat => $operation:literal, $point:literal;)*) => {
            fn is_told(step: &Step) -> bool {
                match step { $($step => true),* }
            }
            const TOLD: &[(&str, &str)] = &[$(($operation, $point)),*];
        };
    }

    steps! {
        Step::CreateDisk => "create", "create-disk.made";
        Step::CopyDisks => "clone", "copy-disks.begun";
        Step::WriteSeed => "create", "write-seed.made";
        Step::Define => "create", "define.made";
        Step::ReplaceBoot => "install", "replace-boot.edited";
        Step::PressKey => "press-key", "press-key.pressed";
        Step::Start => "create", "start.started";
        Step::Restart => "power", "start.started";
        Step::DiscardSaved => "power", "discard-saved.discarded";
        Step::Resume => "power", "resume.resumed";
        Step::Suspend => "power", "suspend.suspended";
        Step::Save => "power", "save.saved";
        Step::RequestShutdown => "power", "shutdown.requested";
        Step::Destroy => "delete", "destroy.destroyed";
        Step::ScrubSeed => "create", "scrub-seed.scrubbed";
        Step::Note => "note", "note.written";
        // Which has further ones: see `tests/failpoints.rs`.
        Step::Change(_) => "rename", "change.done";
        Step::Lend(_) => "clone", "lend.noted";
        Step::RequestReboot(_) => "reboot", "reboot.requested";
        Step::Settle(_) => "reboot", "settle.ended";
        Step::Thaw(_) => "thaw", "thaw.thawed";
        Step::Undefine => "delete", "undefine.undefined";
        Step::RemoveSocket => "delete", "remove-socket.removed";
        Step::Remove(_) => "delete", "remove.released";
        Step::Forget => "delete", "forget.forgotten";
    }

    #[test]
    fn behind_every_step_lies_a_failpoint() {
        assert!(is_told(&Step::Forget));
        for (operation, point) in TOLD {
            let listed = OPERATIONS.iter().find(|(name, _)| name == operation);
            assert!(listed.is_some_and(|(_, points)| points.contains(point)), "{point} of {operation}");
        }
    }
}

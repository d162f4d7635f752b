//! Full copies of volumes, which take as long as their disks are large: begun in one call, asked after
//! in others.
//!
//! A copy that nobody who is still there saw end well is no copy, however whole it looks: whoever begins
//! it deletes what stands under its name.

use std::path::PathBuf;

use async_trait::async_trait;

use super::HypervisorError;
use crate::vm::VmId;

/// A qcow2 volume without backing, to be made with what another volume holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeCopy {
    /// The pool of the volume that is copied.
    pub from_pool: String,
    /// That volume, which nobody writes to meanwhile.
    pub from_name: String,
    /// The new volume's pool.
    pub pool: String,
    /// The new volume's name, with its VM's id in it.
    pub name: String,
    /// The size the guest sees, bytes; as large as what is copied, or larger.
    pub capacity_bytes: u64,
}

/// How a copy stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copied {
    /// It is being made.
    UnderWay,
    /// It ended well in this process; where it is.
    Whole(PathBuf),
}

/// What is known of the copies that this process began for a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copying {
    /// There is nothing that is to be waited for: none was begun, or it has ended.
    #[default]
    Nothing,
    /// One is being made; how much of it is there, 0 to 100, where that can be told.
    UnderWay(Option<u8>),
    /// One is being made, and for minutes nothing more of it was seen to be there.
    Stalled,
}

/// See the module.
#[async_trait]
pub trait Copies: Send + Sync {
    /// Begins a copy for a VM, or tells how it stands once it was begun. Whole is told once, and so is
    /// a failure: asked again, the copy begins anew. At most one copy of a VM is under way. While an
    /// earlier process's copy of that name is still being made, the error is a
    /// [`HypervisorError::Deadline`].
    async fn copy_volume(&self, id: VmId, copy: VolumeCopy) -> Result<Copied, HypervisorError>;

    /// Nobody needs a copy for this VM any more: one that waits for its turn is not made. One that is
    /// being made is not broken off; where none ever waits there is nothing to do.
    async fn withdraw_copy(&self, _id: VmId) {}

    /// Whether a copy for this VM is under way, or waits for its turn.
    async fn copying(&self, id: VmId) -> Copying;
}

//! A domain's snapshots, and bringing its guest's file systems to rest.

use async_trait::async_trait;

use super::HypervisorError;
use crate::vm::{Snapshot, SnapshotName, SnapshotTag, VmId};

/// A snapshot to be taken of a domain as it is, running or off.
#[derive(Debug, Clone)]
pub struct SnapshotRequest {
    /// Its name.
    pub name: SnapshotName,
    /// What people write about it.
    pub description: String,
    /// What is noted in it.
    pub tag: SnapshotTag,
}

/// Where a revert leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevertTo {
    /// The guest goes on running from there.
    Running,
    /// The domain is off, whatever the snapshot holds beside its disks.
    Off,
}

/// What a wish to freeze a guest's file systems came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// They are frozen.
    Frozen,
    /// They may or may not be; they have to be thawed.
    Doubtful,
}

/// What a wish to thaw a guest's file systems came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thaw {
    /// None is frozen now; so many were until now.
    Thawed(u32),
    /// The domain's processors are halted, and its agent with them.
    Halted,
    /// The domain is off.
    Off,
}

/// See the module.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// All snapshots, oldest first; one call for the list, one for which is current, one for each.
    async fn snapshots(&self, id: VmId) -> Result<Vec<Snapshot>, HypervisorError>;

    /// The names of all snapshots, by one call.
    async fn snapshot_names(&self, id: VmId) -> Result<Vec<String>, HypervisorError>;

    /// One snapshot, if it is there and complete. While the domain is at work on any,
    /// [`HypervisorError::Deadline`]: an earlier call is not over, whoever made it.
    async fn snapshot(&self, id: VmId, name: &SnapshotName) -> Result<Option<Snapshot>, HypervisorError>;

    /// Takes a snapshot inside the domain's disks: of a running domain with its memory, for
    /// nothing else is possible, of one that is off without. A name that is taken is
    /// [`HypervisorError::Refused`].
    async fn create_snapshot(&self, id: VmId, request: SnapshotRequest) -> Result<(), HypervisorError>;

    /// Puts the domain back. [`HypervisorError::NotFound`], where there is no such snapshot.
    async fn revert_snapshot(
        &self,
        id: VmId,
        name: &SnapshotName,
        to: RevertTo,
    ) -> Result<(), HypervisorError>;

    /// Removes a snapshot, and what builds on it or not. Absent is success.
    async fn delete_snapshot(
        &self,
        id: VmId,
        name: &SnapshotName,
        children: bool,
    ) -> Result<(), HypervisorError>;

    /// The number of the hypervisor's process for the domain; it grows with each. `None`: off.
    async fn instance(&self, id: VmId) -> Result<Option<u32>, HypervisorError>;
}

/// The guest's file systems, through its QEMU agent. Each call has a short deadline of its own,
/// and passes beside others that are under way for the domain, late ones too.
#[async_trait]
pub trait FileSystems: Send + Sync {
    /// Whether an agent answers.
    async fn can_freeze(&self, id: VmId) -> Result<bool, HypervisorError>;

    /// Flushes them and stops all writing. Whatever comes of it: thaw.
    async fn freeze(&self, id: VmId) -> Result<Freeze, HypervisorError>;

    /// Lets writing go on. Done again it does nothing.
    async fn thaw(&self, id: VmId) -> Result<Thaw, HypervisorError>;
}

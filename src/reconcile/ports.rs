//! What the loop touches, as traits.

use std::{error::Error, path::Path};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    reconcile::observation::InstallSigns,
    store::{ChangeOutcome, StoreError, VmBundle},
    vm::{
        InstallerBoot, LinkEnd, LinkObservation, Milestone, Operation, OperationError, OperationId,
        OperationStatus, Resource, SealKey, SocketObservation, UserId, VmChange, VmId, VmSpec, VmStatus,
    },
};

/// The part of the store that the loop uses. Everything is idempotent.
#[async_trait]
pub trait LoopStore: Send + Sync + 'static {
    /// All VMs of the host, in a constant number of statements.
    async fn load_host(&self) -> Result<Vec<VmBundle>, StoreError>;
    /// One VM; `None` when it is not, or not any more.
    async fn load_vm(&self, vm: VmId) -> Result<Option<VmBundle>, StoreError>;
    /// Notes a milestone.
    async fn pass_milestone(
        &self,
        vm: VmId,
        milestone: Milestone,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError>;
    /// Notes that the power of a generation was reached.
    async fn satisfy(&self, vm: VmId, generation: i64) -> Result<(), StoreError>;
    /// Gives a generation up and fails its operations, in one transaction; gives those.
    async fn give_up(
        &self,
        vm: VmId,
        generation: i64,
        error: &OperationError,
        now: DateTime<Utc>,
    ) -> Result<Vec<Operation>, StoreError>;
    /// Replaces what people are told.
    async fn save_status(&self, vm: VmId, status: &VmStatus) -> Result<(), StoreError>;
    /// Moves an operation on.
    async fn progress_operation(
        &self,
        id: OperationId,
        progress: i32,
        stage: &str,
    ) -> Result<Option<Operation>, StoreError>;
    /// Ends an operation.
    async fn finish_operation(
        &self,
        id: OperationId,
        status: OperationStatus,
        error: Option<OperationError>,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError>;
    /// Writes down how far a change has come, before it goes on.
    async fn note_change(&self, id: OperationId, change: &VmChange) -> Result<(), StoreError>;
    /// Ends a change that was carried out, together with what it made of the VM.
    async fn finish_change(
        &self,
        vm: VmId,
        id: OperationId,
        outcome: &ChangeOutcome,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError>;
    /// A row before the thing.
    async fn reserve_resource(&self, resource: &Resource) -> Result<(), StoreError>;
    /// The thing was made.
    async fn resource_created(&self, resource: &Resource) -> Result<(), StoreError>;
    /// The thing was removed.
    async fn release_resource(&self, resource: &Resource) -> Result<(), StoreError>;
    /// Takes the secrets out of the specification and passes `SeedScrubbed`.
    async fn forget_secrets(&self, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError>;
    /// Closes a deletion; gives the `Delete` operations it ended.
    async fn finish_delete(&self, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError>;
    /// A user's name.
    async fn user_name(&self, user: UserId) -> Result<Option<String>, StoreError>;
    /// One operation, as it is now.
    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError>;
}

/// The part of the guest links that the loop uses. Nothing here waits.
pub trait LoopLinks: Send + Sync + 'static {
    /// Wants a link to this socket, sealed with this key if there is one.
    fn open(&self, vm: VmId, path: &Path, seal: Option<&SealKey>);
    /// Wants no link, for this reason.
    fn close(&self, vm: VmId, end: LinkEnd);
    /// The link's state.
    fn observe(&self, vm: VmId) -> LinkObservation;
    /// Asks for a reading: a known agent proves itself alive.
    fn request_metrics(&self, vm: VmId);
}

/// A file could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct FilesError {
    /// What was tried.
    pub operation: String,
    /// Why not.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// A seed's directory and file name.
#[derive(Debug, Clone, Copy)]
pub struct SeedPlace<'a> {
    /// The directory.
    pub dir: &'a Path,
    /// The file.
    pub name: &'a str,
}

/// The host's files.
#[async_trait]
pub trait Files: Send + Sync + 'static {
    /// Writes the seed medium, whole or not at all, readable by its owner alone.
    /// `seal`: what the VM's agent is to seal with.
    async fn write_seed(
        &self,
        vm: VmId,
        spec: &VmSpec,
        seal: Option<&SealKey>,
        place: SeedPlace<'_>,
    ) -> Result<(), FilesError>;
    /// Overwrites the seed medium in place: same instance, no secrets. A missing one is fine.
    async fn scrub_seed(&self, vm: VmId, spec: &VmSpec, place: SeedPlace<'_>) -> Result<(), FilesError>;
    /// Writes what an installer is started with into the directory: its kernel and initial RAM disk
    /// out of its disc, and its answers; each whole or not at all, readable by its owner alone. Gives
    /// what the machine boots.
    async fn write_installer(
        &self,
        vm: VmId,
        spec: &VmSpec,
        seal: Option<&SealKey>,
        dir: &Path,
    ) -> Result<InstallerBoot, FilesError>;
    /// What the machine boots once [`Self::write_installer`] has been there. Writes nothing.
    async fn installer_boot(&self, vm: VmId, spec: &VmSpec, dir: &Path) -> Result<InstallerBoot, FilesError>;
    /// Overwrites a file of ours and removes it. Missing is fine.
    async fn shred(&self, dir: &Path, name: &str) -> Result<(), FilesError>;
    /// Makes a console's log, where it would be made by somebody whose files we cannot read. One that is
    /// there stays; a host that is not a real one has none.
    async fn begin_console(&self, _log: &Path) -> Result<(), FilesError> {
        Ok(())
    }
    /// How an installation shows itself in the console's log and on the disk, where that is a file;
    /// what cannot be read shows nothing.
    async fn install_signs(&self, console: &Path, disk: Option<&Path>) -> InstallSigns;
    /// Removes a file of ours and its rotated siblings (`name.0`, `name.1`, …). Missing is fine.
    async fn remove(&self, dir: &Path, name: &str) -> Result<(), FilesError>;
    /// Whether a regular file stands there; a link is none.
    async fn has_file(&self, path: &Path) -> Result<bool, FilesError>;
    /// Looks at a socket's path without following links.
    async fn inspect_socket(&self, path: &Path) -> SocketObservation;
    /// Removes a socket on which nobody listens. Missing is fine; one that answers is an error.
    async fn remove_socket(&self, path: &Path) -> Result<(), FilesError>;
}

/// The time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> DateTime<Utc>;
}

/// Chance.
pub trait Randomness: Send + Sync + 'static {
    /// Within 0..1.
    fn jitter(&self) -> f64;
}

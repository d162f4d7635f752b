//! VMs: specification, intent, milestones, derived status.

use chrono::{DateTime, Utc};

use super::{Page, PageOf, Store, StoreError};
use crate::vm::{
    DesiredPower, HostId, Milestone, Operation, OperationId, Resource, UserId, VmId, VmRecord, VmSpec,
    VmStatus,
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
}

/// A VM with what people are told about it.
#[derive(Debug, Clone)]
pub struct VmView {
    /// The VM.
    pub record: VmRecord,
    /// `None` before the loop's first pass.
    pub status: Option<VmStatus>,
}

impl Store {
    /// Stores the intent (generation 1, `Running`), a `Create` operation and an audit row, in one
    /// transaction. The same id again with the same owner, name and image gives the VM and its
    /// `Create` operation as they are now: a retry.
    ///
    /// # Errors
    /// `NameTaken`, `IdTaken`.
    pub async fn create_vm(
        &self,
        _vm: &NewVm,
        _operation: OperationId,
        _now: DateTime<Utc>,
    ) -> Result<(VmRecord, Operation), StoreError> {
        todo!()
    }

    /// Asks for a power state: generation + 1, a `Start` or `Stop` operation, an audit row; open
    /// `Start`/`Stop` operations of the VM become `Superseded`. (An open `Create` stays open on
    /// `Running`, and is superseded by a stop.)
    ///
    /// # Errors
    /// `NotFound`, `Deleting`.
    pub async fn request_power(
        &self,
        _vm: VmId,
        _power: DesiredPower,
        _operation: OperationId,
        _by: UserId,
        _now: DateTime<Utc>,
    ) -> Result<(VmRecord, Operation), StoreError> {
        todo!()
    }

    /// Asks for deletion; supersedes every other open operation. Asked again, it gives the open
    /// `Delete` operation.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn request_delete(
        &self,
        _vm: VmId,
        _operation: OperationId,
        _by: UserId,
        _now: DateTime<Utc>,
    ) -> Result<(VmRecord, Operation), StoreError> {
        todo!()
    }

    /// One VM.
    pub async fn vm(&self, _vm: VmId) -> Result<Option<VmView>, StoreError> {
        todo!()
    }

    /// Several VMs in one statement; those that do not exist are left out.
    pub async fn vms_by_id(&self, _vms: &[VmId]) -> Result<Vec<VmView>, StoreError> {
        todo!()
    }

    /// VMs in the order of their ids, of one owner or of all.
    pub async fn list_vms(&self, _owner: Option<UserId>, _page: Page) -> Result<PageOf<VmView>, StoreError> {
        todo!()
    }

    /// Everything the loop needs of all VMs of a host, in a constant number of statements.
    pub async fn load_host(&self, _host: HostId) -> Result<Vec<VmBundle>, StoreError> {
        todo!()
    }

    /// The same of one VM.
    pub async fn load_vm(&self, _vm: VmId) -> Result<Option<VmBundle>, StoreError> {
        todo!()
    }

    /// Notes a milestone; the first time counts.
    pub async fn pass_milestone(
        &self,
        _vm: VmId,
        _milestone: Milestone,
        _at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        todo!()
    }

    /// Notes that the power of `generation` was reached; never lowers the mark.
    pub async fn satisfy(&self, _vm: VmId, _generation: i64) -> Result<(), StoreError> {
        todo!()
    }

    /// Replaces what people are told.
    pub async fn save_status(&self, _vm: VmId, _status: &VmStatus) -> Result<(), StoreError> {
        todo!()
    }

    /// Takes the secrets out of the stored specification and passes `SeedScrubbed`, in one
    /// transaction.
    pub async fn forget_secrets(&self, _vm: VmId, _now: DateTime<Utc>) -> Result<(), StoreError> {
        todo!()
    }

    /// Ends a deletion: closes the `Delete` operation as succeeded and removes the VM's row and
    /// resource rows, in one transaction. Command log, errors, metrics, audit and operations stay until
    /// they expire. A VM that is gone already is fine.
    pub async fn finish_delete(&self, _vm: VmId, _now: DateTime<Utc>) -> Result<(), StoreError> {
        todo!()
    }
}

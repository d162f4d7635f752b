//! The store, narrowed to one host and to what the loop uses.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    reconcile::ports::LoopStore,
    store::{ChangeOutcome, Store, StoreError, VmBundle},
    vm::{
        HostId, Milestone, Operation, OperationError, OperationId, OperationStatus, Resource, UserId,
        VmChange, VmId, VmStatus,
    },
};

/// The VMs of one host.
#[derive(Debug, Clone)]
pub struct HostStore {
    store: Store,
    host: HostId,
}

impl HostStore {
    /// This host's part of the store.
    #[must_use]
    pub fn new(store: Store, host: HostId) -> Self {
        Self { store, host }
    }
}

/// A database that vanished without a word must not hold the loop for as long as TCP hopes.
const LIMIT: Duration = Duration::from_secs(30);

async fn bounded<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(LIMIT, work).await.unwrap_or(Err(StoreError::NoAnswer { limit: LIMIT }))
}

#[async_trait]
impl LoopStore for HostStore {
    async fn load_host(&self) -> Result<Vec<VmBundle>, StoreError> {
        bounded(self.store.load_host(self.host)).await
    }

    async fn load_vm(&self, vm: VmId) -> Result<Option<VmBundle>, StoreError> {
        // Another host's VM is none of this loop's business.
        Ok(bounded(self.store.load_vm(vm)).await?.filter(|bundle| bundle.record.host == self.host))
    }

    async fn pass_milestone(
        &self,
        vm: VmId,
        milestone: Milestone,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        bounded(self.store.pass_milestone(vm, milestone, at)).await
    }

    async fn satisfy(&self, vm: VmId, generation: i64) -> Result<(), StoreError> {
        bounded(self.store.satisfy(vm, generation)).await
    }

    async fn give_up(
        &self,
        vm: VmId,
        generation: i64,
        error: &OperationError,
        now: DateTime<Utc>,
    ) -> Result<Vec<Operation>, StoreError> {
        bounded(self.store.give_up(vm, generation, error, now)).await
    }

    async fn save_status(&self, vm: VmId, status: &VmStatus) -> Result<(), StoreError> {
        bounded(self.store.save_status(vm, status)).await
    }

    async fn progress_operation(
        &self,
        id: OperationId,
        progress: i32,
        stage: &str,
    ) -> Result<Option<Operation>, StoreError> {
        bounded(self.store.progress_operation(id, progress, stage)).await
    }

    async fn finish_operation(
        &self,
        id: OperationId,
        status: OperationStatus,
        error: Option<OperationError>,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError> {
        bounded(self.store.finish_operation(id, status, error, now)).await
    }

    async fn note_change(&self, id: OperationId, change: &VmChange) -> Result<(), StoreError> {
        bounded(self.store.note_change(id, change)).await
    }

    async fn finish_change(
        &self,
        vm: VmId,
        id: OperationId,
        outcome: &ChangeOutcome,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError> {
        bounded(self.store.finish_change(vm, id, outcome, now)).await
    }

    async fn reserve_resource(&self, resource: &Resource) -> Result<(), StoreError> {
        bounded(self.store.reserve_resource(resource)).await
    }

    async fn resource_created(&self, resource: &Resource) -> Result<(), StoreError> {
        bounded(self.store.resource_created(resource)).await
    }

    async fn release_resource(&self, resource: &Resource) -> Result<(), StoreError> {
        bounded(self.store.release_resource(resource)).await
    }

    async fn forget_secrets(&self, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError> {
        bounded(self.store.forget_secrets(vm, now)).await
    }

    async fn finish_delete(&self, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError> {
        bounded(self.store.finish_delete(vm, now)).await
    }

    async fn user_name(&self, user: UserId) -> Result<Option<String>, StoreError> {
        Ok(bounded(self.store.user(user)).await?.map(|user| user.name))
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        bounded(self.store.operation(id)).await
    }
}

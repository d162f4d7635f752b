//! A domain's snapshots: none are taken, here.

use async_trait::async_trait;
use infinibay::{
    hypervisor::{FileSystems, Freeze, HypervisorError, RevertTo, SnapshotRequest, Snapshots, Thaw},
    vm::{Snapshot, SnapshotName, VmId},
};

use super::not_simulated;
use crate::simulation::controller::Ports;

#[async_trait]
impl Snapshots for Ports {
    async fn snapshots(&self, _id: VmId) -> Result<Vec<Snapshot>, HypervisorError> {
        not_simulated("snapshots")
    }

    async fn snapshot_names(&self, _id: VmId) -> Result<Vec<String>, HypervisorError> {
        not_simulated("snapshot_names")
    }

    async fn snapshot(&self, _id: VmId, _name: &SnapshotName) -> Result<Option<Snapshot>, HypervisorError> {
        not_simulated("snapshot")
    }

    async fn create_snapshot(&self, _id: VmId, _request: SnapshotRequest) -> Result<(), HypervisorError> {
        not_simulated("create_snapshot")
    }

    async fn revert_snapshot(
        &self,
        _id: VmId,
        _name: &SnapshotName,
        _to: RevertTo,
    ) -> Result<(), HypervisorError> {
        not_simulated("revert_snapshot")
    }

    async fn delete_snapshot(
        &self,
        _id: VmId,
        _name: &SnapshotName,
        _children: bool,
    ) -> Result<(), HypervisorError> {
        not_simulated("delete_snapshot")
    }

    async fn instance(&self, _id: VmId) -> Result<Option<u32>, HypervisorError> {
        not_simulated("instance")
    }
}

#[async_trait]
impl FileSystems for Ports {
    async fn can_freeze(&self, _id: VmId) -> Result<bool, HypervisorError> {
        not_simulated("can_freeze")
    }

    async fn freeze(&self, _id: VmId) -> Result<Freeze, HypervisorError> {
        not_simulated("freeze")
    }

    async fn thaw(&self, _id: VmId) -> Result<Thaw, HypervisorError> {
        not_simulated("thaw")
    }
}

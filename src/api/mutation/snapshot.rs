//! A VM's snapshots.

use async_graphql::{Context, Object};
use uuid::Uuid;

use super::payload;
use crate::{
    api::{
        auth::Call,
        error::ApiError,
        types::{SnapshotQuiesce, VmPayload},
    },
    vm::{Frost, NewSnapshot, SnapshotChange, SnapshotName, VmId},
};

#[derive(Default)]
pub(in crate::api) struct SnapshotMutations;

#[Object]
impl SnapshotMutations {
    /// Takes a snapshot of a VM that runs, is paused or is off, inside its disks.
    async fn create_vm_snapshot(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] id: Uuid,
        #[graphql(
            desc = "What it is to be called, unique for the VM: 1 to 63 letters, digits, `-`, `_` and `.`, the \
                    first a letter or digit."
        )]
        name: String,
        #[graphql(default, desc = "What people are to know of it: at most 1,024 characters.")]
        description: String,
        #[graphql(
            desc = "Whether the guest goes on running from there after a revert. Without, a revert leaves the VM \
                    off, with its disks as they were. Left out: if the VM runs."
        )]
        memory: Option<bool>,
        #[graphql(
            default_with = "SnapshotQuiesce::IfPossible",
            desc = "Of a running VM without `memory`: whether the guest's file systems are brought to rest first."
        )]
        quiesce: SnapshotQuiesce,
    ) -> Result<VmPayload, ApiError> {
        let new = NewSnapshot {
            name: parse(&name)?,
            description,
            memory,
            quiesce: quiesce.into(),
            frost: Frost::default(),
        };
        change(ctx, id, SnapshotChange::Create(new)).await
    }

    /// Puts a VM back as it was. What its disks hold that is in no snapshot is lost. A VM whose
    /// snapshot holds its memory runs afterwards, any other is off.
    async fn revert_vm_snapshot(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] id: Uuid,
        #[graphql(desc = "The snapshot's name.")] name: String,
    ) -> Result<VmPayload, ApiError> {
        change(ctx, id, SnapshotChange::Revert { name: parse(&name)?, before: None }).await
    }

    /// Forgets a snapshot. The VM, and what else it has, stay as they are.
    async fn delete_vm_snapshot(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] id: Uuid,
        #[graphql(desc = "The snapshot's name.")] name: String,
        #[graphql(default = false, desc = "With all snapshots that build on it; they stay otherwise.")]
        children: bool,
    ) -> Result<VmPayload, ApiError> {
        change(ctx, id, SnapshotChange::Delete { name: parse(&name)?, children }).await
    }
}

async fn change(ctx: &Context<'_>, vm: Uuid, change: SnapshotChange) -> Result<VmPayload, ApiError> {
    let call = Call::of(ctx)?;
    payload(&call, call.api.lifecycle.change_snapshots(call.actor, VmId(vm), change).await).await
}

fn parse(name: &str) -> Result<SnapshotName, ApiError> {
    name.parse().map_err(|reason| ApiError::invalid("name", format!("{reason}")))
}

//! A VM's snapshots.

use async_graphql::MergedObject;

#[derive(MergedObject, Default)]
pub(in crate::api) struct SnapshotMutations();

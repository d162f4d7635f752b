//! Processors, memory, the size of a disk.

use async_graphql::MergedObject;

#[derive(MergedObject, Default)]
pub(in crate::api) struct SizeMutations();

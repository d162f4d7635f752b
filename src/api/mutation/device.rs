//! What is plugged into a VM.

use async_graphql::MergedObject;

#[derive(MergedObject, Default)]
pub(in crate::api) struct DeviceMutations();

//! What was made on the host, by VM.

use super::{Store, StoreError};
use crate::vm::Resource;

impl Store {
    /// Writes the row before the thing is made. A row that is there already stays.
    pub async fn reserve_resource(&self, _resource: &Resource) -> Result<(), StoreError> {
        todo!()
    }

    /// Notes that the thing was made.
    pub async fn resource_created(&self, _resource: &Resource) -> Result<(), StoreError> {
        todo!()
    }

    /// Removes the row after the thing was removed. A missing row is fine.
    pub async fn release_resource(&self, _resource: &Resource) -> Result<(), StoreError> {
        todo!()
    }
}

//! Operations.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};
use crate::vm::{Operation, OperationError, OperationId, OperationStatus};

impl Store {
    /// One operation.
    pub async fn operation(&self, _id: OperationId) -> Result<Option<Operation>, StoreError> {
        todo!()
    }

    /// Moves an open operation on; a final one stays as it is. Gives the operation as it is now.
    pub async fn progress_operation(
        &self,
        _id: OperationId,
        _progress: i32,
        _stage: &str,
    ) -> Result<Option<Operation>, StoreError> {
        todo!()
    }

    /// Ends an open operation; a final one stays as it is. Gives the operation as it is now.
    pub async fn finish_operation(
        &self,
        _id: OperationId,
        _status: OperationStatus,
        _error: Option<OperationError>,
        _now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError> {
        todo!()
    }
}

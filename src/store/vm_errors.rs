//! Errors that guests reported.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{Page, PageOf, Store, StoreError};
use crate::vm::VmId;

/// One reported error.
#[derive(Debug, Clone)]
pub struct VmErrorRecord {
    /// The row.
    pub id: Uuid,
    /// The VM. It may be gone.
    pub vm: VmId,
    /// The guest's words, bounded and cleaned.
    pub error: String,
    /// An object.
    pub details: Value,
    /// The guest's clock.
    pub timestamp: DateTime<Utc>,
    /// Ours.
    pub created_at: DateTime<Utc>,
}

impl Store {
    /// Stores one; the same id again is left alone.
    pub async fn insert_vm_error(&self, _error: &VmErrorRecord) -> Result<(), StoreError> {
        todo!()
    }

    /// Errors of a VM, newest first.
    pub async fn vm_errors(&self, _vm: VmId, _page: Page) -> Result<PageOf<VmErrorRecord>, StoreError> {
        todo!()
    }
}

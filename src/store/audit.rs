//! Who asked for what. Rows are written inside the transaction of what they tell about.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};

impl Store {
    /// Removes command logs, guest errors, final operations of deleted VMs and audit rows older than
    /// `before`; gives how many rows.
    pub async fn expire_history(&self, _before: DateTime<Utc>) -> Result<u64, StoreError> {
        todo!()
    }
}

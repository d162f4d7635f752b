//! Charts: readings or their roll-ups, a bounded number of points.

use super::{Store, StoreError};
use crate::vm::{Series, SeriesRequest};

impl Store {
    /// A chart of at most `limit` points, oldest first.
    ///
    /// # Errors
    /// `Database`.
    pub async fn series(&self, request: &SeriesRequest, limit: u32) -> Result<Series, StoreError> {
        let _ = (request, limit);
        todo!()
    }
}

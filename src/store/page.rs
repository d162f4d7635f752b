//! Parts of lists, by the last row seen rather than by counting: rows that come or go meanwhile
//! are neither skipped nor shown twice.

use super::StoreError;

/// Rows of one page at most, whatever is asked for.
const MAX_ROWS: u32 = 1000;

/// Which part of a list.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// At most this many; never more than 1000.
    pub first: u32,
    /// Continue after the row with this id.
    pub after: Option<uuid::Uuid>,
}

/// Part of a list.
#[derive(Debug, Clone)]
pub struct PageOf<T> {
    /// The rows.
    pub nodes: Vec<T>,
    /// Whether there is more.
    pub has_next: bool,
}

impl Page {
    /// One row more than is shown, to know whether there is more.
    pub(super) fn limit(self) -> i64 {
        i64::from(self.first.min(MAX_ROWS)) + 1
    }

    /// Rows that are shown at most.
    pub(super) fn shown(self) -> usize {
        self.first.min(MAX_ROWS) as usize
    }

    /// A page of what [`Page::limit`] rows became.
    pub(super) fn cut<R, T>(
        self,
        mut rows: Vec<R>,
        read: impl FnMut(R) -> Result<T, StoreError>,
    ) -> Result<PageOf<T>, StoreError> {
        let shown = self.shown();
        let has_next = rows.len() > shown;
        rows.truncate(shown);
        Ok(PageOf { nodes: rows.into_iter().map(read).collect::<Result<_, _>>()?, has_next })
    }
}

//! Lists as connections.

use async_graphql::SimpleObject;
use uuid::Uuid;

use super::{CommandLog, VmErrorEntry, VmObject};
use crate::{api::error::ApiError, store::Page};

/// Most nodes of one page.
pub(crate) const MAX_FIRST: i32 = 200;

/// Where a page ends.
#[derive(Debug, SimpleObject)]
pub(crate) struct PageInfo {
    /// Whether there is more after `endCursor`.
    pub(crate) has_next_page: bool,
    /// To be given as `after`.
    pub(crate) end_cursor: Option<String>,
}

impl PageInfo {
    pub(crate) fn new(has_next_page: bool, last: Option<Uuid>) -> Self {
        Self { has_next_page, end_cursor: last.map(|id| id.to_string()) }
    }
}

/// `first` and `after`, checked.
pub(crate) fn page(first: i32, after: Option<&str>) -> Result<Page, ApiError> {
    if !(1..=MAX_FIRST).contains(&first) {
        return Err(ApiError::invalid("first", format!("must be between 1 and {MAX_FIRST}")));
    }
    let after = after
        .map(|cursor| {
            Uuid::parse_str(cursor).map_err(|_| ApiError::invalid("after", "is not a cursor of this list"))
        })
        .transpose()?;
    Ok(Page { first: first.unsigned_abs(), after })
}

/// VMs.
#[derive(SimpleObject)]
pub(crate) struct VmConnection {
    /// In the order of their ids.
    pub(crate) nodes: Vec<VmObject>,
    /// Where the page ends.
    pub(crate) page_info: PageInfo,
}

/// Logged commands.
#[derive(SimpleObject)]
pub(crate) struct CommandLogConnection {
    /// Newest first.
    pub(crate) nodes: Vec<CommandLog>,
    /// Where the page ends.
    pub(crate) page_info: PageInfo,
}

/// Errors that a guest reported.
#[derive(SimpleObject)]
pub(crate) struct VmErrorConnection {
    /// Newest first.
    pub(crate) nodes: Vec<VmErrorEntry>,
    /// Where the page ends.
    pub(crate) page_info: PageInfo,
}

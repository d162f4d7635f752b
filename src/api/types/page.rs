//! Lists as connections.

use async_graphql::SimpleObject;
use uuid::Uuid;

use super::{AlertObject, CommandLog, ImageObject, VmErrorEntry, VmObject};
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
    pub(crate) fn new(has_next_page: bool, last: Option<impl ToString>) -> Self {
        Self { has_next_page, end_cursor: last.map(|cursor| cursor.to_string()) }
    }
}

/// `first` and `after`, checked.
pub(crate) fn page(first: i32, after: Option<&str>) -> Result<Page, ApiError> {
    let first = page_size(first)?;
    let after = after
        .map(|cursor| {
            Uuid::parse_str(cursor).map_err(|_| ApiError::invalid("after", "is not a cursor of this list"))
        })
        .transpose()?;
    Ok(Page { first, after })
}

fn page_size(first: i32) -> Result<u32, ApiError> {
    if !(1..=MAX_FIRST).contains(&first) {
        return Err(ApiError::invalid("first", format!("must be between 1 and {MAX_FIRST}")));
    }
    Ok(first.unsigned_abs())
}

/// VMs.
#[derive(SimpleObject)]
pub(crate) struct VmConnection {
    /// In the order that `sort` asks for.
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

/// Alerts.
#[derive(SimpleObject)]
pub(crate) struct AlertConnection {
    /// Newest first.
    pub(crate) nodes: Vec<AlertObject>,
    /// Where the page ends.
    pub(crate) page_info: PageInfo,
}

/// Images.
#[derive(SimpleObject)]
pub(crate) struct ImageConnection {
    /// By name.
    pub(crate) nodes: Vec<ImageObject>,
    /// Where the page ends.
    pub(crate) page_info: PageInfo,
}

impl ImageConnection {
    /// A page of all there are, cut here: a library is small and read whole. The cursor is the
    /// last name, so that a page goes on where it ended although images come and go.
    pub(crate) fn cut(all: Vec<ImageObject>, first: i32, after: Option<&str>) -> Result<Self, ApiError> {
        let first = usize::try_from(page_size(first)?).unwrap_or(usize::MAX);
        let mut nodes = all;
        nodes.retain(|image| after.is_none_or(|after| image.cursor() > after));
        nodes.sort_by(|a, b| a.cursor().cmp(b.cursor()));
        let has_next = nodes.len() > first;
        nodes.truncate(first);
        let page_info = PageInfo::new(has_next, nodes.last().map(ImageObject::cursor));
        Ok(Self { nodes, page_info })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::BrokenImage;

    fn cut(first: i32, after: Option<&str>) -> (Vec<String>, bool, Option<String>) {
        let images = ["b", "d", "a", "c"];
        let broken = images.map(|name| BrokenImage { name: name.to_owned(), reason: String::new() });
        let page = ImageConnection::cut(broken.map(ImageObject::from).into(), first, after).unwrap();
        let names = page.nodes.iter().map(|image| image.cursor().to_owned()).collect();
        (names, page.page_info.has_next_page, page.page_info.end_cursor)
    }

    #[test]
    fn pages_of_images_follow_each_other() {
        let page = |names: &[&str], next, end: Option<&str>| {
            (names.iter().map(|&name| name.to_owned()).collect(), next, end.map(str::to_owned))
        };
        assert_eq!(cut(200, None), page(&["a", "b", "c", "d"], false, Some("d")));
        assert_eq!(cut(3, None), page(&["a", "b", "c"], true, Some("c")));
        assert_eq!(cut(3, Some("c")), page(&["d"], false, Some("d")));
        assert_eq!(cut(2, Some("b")), page(&["c", "d"], false, Some("d")));
        assert_eq!(cut(1, Some("bb")), page(&["c"], true, Some("c")), "an image that is gone is no hole");
        assert_eq!(cut(1, Some("d")), page(&[], false, None));
        for first in [0, -1, MAX_FIRST + 1] {
            assert!(ImageConnection::cut(Vec::new(), first, None).is_err(), "{first}");
        }
    }
}

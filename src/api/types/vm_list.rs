//! Which VMs a list holds, in which order, and where its next page begins.

use async_graphql::{Enum, InputObject};
use chrono::DateTime;
use uuid::Uuid;

use super::{agent::AgentConnectivityName, vm::VmPhaseName};
use crate::{
    api::error::ApiError,
    store::{VmSearch, VmView, VmsFrom},
    vm::UserId,
};

/// No name is longer.
const MAX_NAME: usize = 63;

/// Microseconds since 1970 at which a VM can have been asked for: until the year 9999, which both databases
/// know.
const TIMES: std::ops::Range<i64> = 0..253_402_300_800_000_000;

/// Which VMs; everything that is given has to fit.
#[derive(InputObject)]
pub(crate) struct VmFilter {
    /// Of this user.
    owner_id: Option<Uuid>,
    /// With this somewhere in their names, in capitals or not: 1 to 63 characters.
    name: Option<String>,
    /// In this phase.
    phase: Option<VmPhaseName>,
    /// With an agent that can be talked to like this.
    connectivity: Option<AgentConnectivityName>,
}

impl VmFilter {
    /// # Errors
    /// `INVALID_INPUT`.
    pub(in crate::api) fn into_search(self) -> Result<VmSearch, ApiError> {
        let bad = |name: &String| {
            name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control)
        };
        if self.name.as_ref().is_some_and(bad) {
            let why = format!("has 1 to {MAX_NAME} characters, and no control characters");
            return Err(ApiError::invalid("filter.name", why));
        }
        Ok(VmSearch {
            owner: self.owner_id.map(UserId),
            name: self.name,
            phase: self.phase.map(Into::into),
            connectivity: self.connectivity.map(Into::into),
        })
    }
}

/// The order of a list of VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum VmSort {
    /// By id.
    Id,
    /// By name, in capitals or not.
    Name,
    /// By when they were asked for, the newest first.
    Newest,
    /// By when they were asked for, the oldest first.
    Oldest,
}

impl VmSort {
    /// Where a page begins. A cursor is the row's id, and behind a dot what it is sorted by.
    ///
    /// # Errors
    /// `INVALID_INPUT`: the cursor is none of a list in this order.
    pub(in crate::api) fn begins(self, after: Option<&str>) -> Result<VmsFrom, ApiError> {
        let wrong = || ApiError::invalid("after", "is not a cursor of this list");
        let row = after.map(|cursor| {
            let (id, key) = cursor.split_once('.').map_or((cursor, None), |(id, key)| (id, Some(key)));
            let id = Uuid::parse_str(id).map_err(|_| wrong())?;
            Ok::<_, ApiError>((id, key))
        });
        let row = row.transpose()?;
        let at = || {
            let row = row.map(|(id, key)| {
                let micros = key?.strip_prefix('t')?.parse().ok().filter(|micros| TIMES.contains(micros))?;
                Some((DateTime::from_timestamp_micros(micros)?, id))
            });
            row.map(|row| row.ok_or_else(wrong)).transpose()
        };
        let name = |key: &str| {
            let name = key.strip_prefix('n')?;
            let fits = name.len() <= MAX_NAME && !name.chars().any(char::is_control);
            fits.then(|| name.to_owned())
        };
        Ok(match (self, row) {
            (Self::Id, None) => VmsFrom::Id(None),
            (Self::Id, Some((id, None))) => VmsFrom::Id(Some(id)),
            (Self::Id, Some((_, Some(_)))) => return Err(wrong()),
            (Self::Name, row) => {
                let row = row.map(|(id, key)| key.and_then(name).map(|name| (name, id)).ok_or_else(wrong));
                VmsFrom::Name(row.transpose()?)
            }
            (Self::Newest, _) => VmsFrom::Newest(at()?),
            (Self::Oldest, _) => VmsFrom::Oldest(at()?),
        })
    }

    /// Where the page after this row begins.
    pub(crate) fn cursor(self, view: &VmView) -> String {
        let (id, record) = (view.record.id.uuid(), &view.record);
        match self {
            Self::Id => id.to_string(),
            Self::Name => format!("{id}.n{}", record.spec.name),
            Self::Newest | Self::Oldest => format!("{id}.t{}", record.created_at.timestamp_micros()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_its_order() {
        let id = Uuid::now_v7();
        let at = DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap();
        let (by_id, by_name) = (id.to_string(), format!("{id}.nweb.1"));
        let by_time = format!("{id}.t{}", at.timestamp_micros());
        assert_eq!(VmSort::Id.begins(Some(&by_id)).unwrap(), VmsFrom::Id(Some(id)));
        assert_eq!(
            VmSort::Name.begins(Some(&by_name)).unwrap(),
            VmsFrom::Name(Some(("web.1".to_owned(), id)))
        );
        assert_eq!(VmSort::Newest.begins(Some(&by_time)).unwrap(), VmsFrom::Newest(Some((at, id))));
        assert_eq!(VmSort::Oldest.begins(None).unwrap(), VmsFrom::Oldest(None));
        let long = format!("{id}.n{}", "a".repeat(64));
        for (sort, wrong) in [
            (VmSort::Id, &by_name),
            (VmSort::Id, &by_time),
            (VmSort::Name, &by_id),
            (VmSort::Name, &by_time),
            (VmSort::Name, &long),
            (VmSort::Newest, &by_id),
            (VmSort::Oldest, &by_name),
            (VmSort::Oldest, &format!("{id}.t99999999999999999999")),
            (VmSort::Id, &"x".to_owned()),
        ] {
            let told = sort.begins(Some(wrong)).unwrap_err();
            assert_eq!(told.code(), "INVALID_INPUT", "{sort:?} {wrong}");
        }
    }
}

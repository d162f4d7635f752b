//! Which entries a VM's command log and the list of alerts hold.

use async_graphql::{Enum, InputObject};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    alert::{AlertKindName, AlertSeverityName},
    command::CommandStatusName,
    input::SafeActionName,
};
use crate::{
    api::error::ApiError,
    store::{AlertSearch, CommandSearch},
    vm::{UserId, VmId},
};

/// How a command is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum CommandType {
    /// One of a fixed list.
    Safe,
    /// A shell line.
    Unsafe,
}

/// Which commands; everything that is given has to fit.
#[derive(InputObject)]
pub(crate) struct CommandLogFilter {
    /// That stand like this.
    status: Option<CommandStatusName>,
    /// That are run like this.
    #[graphql(name = "type")]
    kind: Option<CommandType>,
    /// The safe ones that do this.
    action: Option<SafeActionName>,
    /// That this user asked for.
    requested_by: Option<Uuid>,
    /// Asked for at this moment or after it.
    since: Option<DateTime<Utc>>,
    /// Asked for before this moment, which has to be after `since`.
    until: Option<DateTime<Utc>>,
}

impl CommandLogFilter {
    /// # Errors
    /// `INVALID_INPUT`, with the field.
    pub(in crate::api) fn into_search(self) -> Result<CommandSearch, ApiError> {
        if self.since.zip(self.until).is_some_and(|(since, until)| since >= until) {
            return Err(ApiError::invalid("filter.until", "must be after `since`"));
        }
        if self.kind == Some(CommandType::Unsafe) && self.action.is_some() {
            return Err(ApiError::invalid("filter.action", "is one of safe commands"));
        }
        let kind = self.kind.map(|kind| match kind {
            CommandType::Safe => "safe",
            CommandType::Unsafe => "unsafe",
        });
        Ok(CommandSearch {
            status: self.status.map(Into::into),
            kind,
            action: self.action.map(SafeActionName::word),
            requested_by: self.requested_by.map(UserId),
            since: self.since,
            until: self.until,
        })
    }
}

/// Which alerts; everything that is given has to fit.
#[derive(Default, InputObject)]
pub(crate) struct AlertFilter {
    /// About this VM, which may be gone.
    vm_id: Option<Uuid>,
    /// About this.
    kind: Option<AlertKindName>,
    /// This bad, at its worst.
    severity: Option<AlertSeverityName>,
    /// `true`: those that go on; `false`: those that have ended.
    open: Option<bool>,
}

impl AlertFilter {
    /// With `openOnly`, which is the same as `open` with `true`.
    ///
    /// # Errors
    /// `INVALID_INPUT`: the two contradict each other.
    pub(in crate::api) fn into_search(self, open_only: bool) -> Result<AlertSearch, ApiError> {
        if open_only && self.open == Some(false) {
            return Err(ApiError::invalid("filter.open", "is `false`, and `openOnly` is `true`"));
        }
        Ok(AlertSearch {
            vm: self.vm_id.map(VmId),
            kind: self.kind.map(Into::into),
            severity: self.severity.map(Into::into),
            open: self.open.or(open_only.then_some(true)),
        })
    }
}

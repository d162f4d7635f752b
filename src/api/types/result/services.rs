//! Services.

use async_graphql::SimpleObject;

use super::read::Fields;

/// The services of a guest.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct Services {
    /// In no particular order.
    services: Vec<Service>,
    /// Whether the agent left some out.
    truncated: Option<bool>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct Service {
    /// Its name, as in `ssh.service`.
    name: Option<String>,
    /// In its maker's words.
    description: Option<String>,
    /// `loaded`, `not-found`, `masked`, ….
    load_state: Option<String>,
    /// `active`, `inactive`, `failed`, ….
    active_state: Option<String>,
    /// `running`, `dead`, `exited`, ….
    sub_state: Option<String>,
    /// `enabled`, `disabled`, `static`, …: whether it is started at boot.
    enabled: Option<String>,
}

/// A service after something was done with it.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct ServiceState {
    /// Its name, as it was asked for.
    service: Option<String>,
    /// What was done: `start`, `stop`, `restart`, `enable`, `disable` or `status`.
    operation: Option<String>,
    /// In its maker's words.
    description: Option<String>,
    /// `loaded`, `not-found`, `masked`, ….
    load_state: Option<String>,
    /// `active`, `inactive`, `failed`, ….
    active_state: Option<String>,
    /// `running`, `dead`, `exited`, ….
    sub_state: Option<String>,
    /// `enabled`, `disabled`, `static`, …: whether it is started at boot.
    enabled: Option<String>,
}

impl Services {
    pub(super) fn of(data: Fields<'_>) -> Option<Self> {
        let services = data.rows("services", |row| Service {
            name: row.text("name"),
            description: row.text("description"),
            load_state: row.text("load_state"),
            active_state: row.text("active_state"),
            sub_state: row.text("sub_state"),
            enabled: row.text("enabled"),
        })?;
        Some(Self { services, truncated: data.flag("truncated") })
    }
}

impl ServiceState {
    pub(super) fn of(data: Fields<'_>) -> Option<Self> {
        let data = data.with_any(&["active_state", "sub_state", "load_state", "enabled"])?;
        Some(Self {
            service: data.text("service"),
            operation: data.text("operation"),
            description: data.text("description"),
            load_state: data.text("load_state"),
            active_state: data.text("active_state"),
            sub_state: data.text("sub_state"),
            enabled: data.text("enabled"),
        })
    }
}

//! The actions that a guest offers without giving its shell away. On the wire an action is one
//! flat object: `{"action": "ServiceControl", "service": "ssh", "operation": "restart"}`.

use serde::{Deserialize, Serialize};

/// What to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceOperation {
    /// Start it now.
    Start,
    /// Stop it now.
    Stop,
    /// Stop and start.
    Restart,
    /// Start it at boot.
    Enable,
    /// Do not start it at boot.
    Disable,
    /// Tell its state.
    Status,
}

/// The order of `ProcessTop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SortBy {
    /// Processor use.
    Cpu,
    /// Memory use.
    Memory,
}

/// Per cent used at which `CheckDiskSpace` speaks up.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct DiskThresholds {
    /// Per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning_threshold: Option<f64>,
    /// Per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical_threshold: Option<f64>,
}

/// One action with its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action")]
pub enum SafeAction {
    /// The services of the guest.
    ServiceList,
    /// Change or read one service.
    ServiceControl {
        /// The service's name.
        service: String,
        /// What to do.
        operation: ServiceOperation,
    },
    /// The packages installed.
    PackageList,
    /// Install one package.
    PackageInstall {
        /// The package's name.
        package: String,
    },
    /// Remove one package.
    PackageRemove {
        /// The package's name.
        package: String,
    },
    /// Bring one package up to date.
    PackageUpdate {
        /// The package's name.
        package: String,
    },
    /// Search the package index.
    PackageSearch {
        /// The words to search for.
        query: String,
    },
    /// The processes.
    ProcessList {
        /// At most this many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// End one process.
    ProcessKill {
        /// Its process id.
        pid: u32,
        /// Without a chance to clean up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
    },
    /// The busiest processes.
    ProcessTop {
        /// At most this many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
        /// Busiest in what.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sort_by: Option<SortBy>,
    },
    /// The machine: processors, memory, host name, uptime.
    SystemInfo,
    /// The operating system: name, version, kernel.
    OsInfo,
    /// How full the file systems are.
    CheckDiskSpace(DiskThresholds),
}

/// Why an action was refused before it reached a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// A name that is empty, too long, or could be read as an option or as several words.
    #[error("{field} must be 1 to {max} characters of letters, digits and '._+:@~-', not beginning with '-'")]
    Name {
        /// The parameter.
        field: &'static str,
        /// Its longest value.
        max: usize,
    },
    /// Out of range.
    #[error("{field} must be between {min} and {max}")]
    Range {
        /// The parameter.
        field: &'static str,
        /// Lower bound.
        min: u32,
        /// Upper bound.
        max: u32,
    },
}

const MAX_NAME: usize = 256;

fn name(field: &'static str, text: &str) -> Result<(), ActionError> {
    let fits = (1..=MAX_NAME).contains(&text.len())
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._+:@~-".contains(c));
    if fits { Ok(()) } else { Err(ActionError::Name { field, max: MAX_NAME }) }
}

fn range(field: &'static str, value: Option<u32>, min: u32, max: u32) -> Result<(), ActionError> {
    match value {
        Some(value) if !(min..=max).contains(&value) => Err(ActionError::Range { field, min, max }),
        _ => Ok(()),
    }
}

impl SafeAction {
    /// The action's name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ServiceList => "ServiceList",
            Self::ServiceControl { .. } => "ServiceControl",
            Self::PackageList => "PackageList",
            Self::PackageInstall { .. } => "PackageInstall",
            Self::PackageRemove { .. } => "PackageRemove",
            Self::PackageUpdate { .. } => "PackageUpdate",
            Self::PackageSearch { .. } => "PackageSearch",
            Self::ProcessList { .. } => "ProcessList",
            Self::ProcessKill { .. } => "ProcessKill",
            Self::ProcessTop { .. } => "ProcessTop",
            Self::SystemInfo => "SystemInfo",
            Self::OsInfo => "OsInfo",
            Self::CheckDiskSpace(_) => "CheckDiskSpace",
        }
    }

    /// Checks the parameters; both ends do, each for its own sake.
    ///
    /// # Errors
    /// The first parameter that breaks its rule.
    pub fn check(&self) -> Result<(), ActionError> {
        match self {
            Self::ServiceControl { service, .. } => name("service", service),
            Self::PackageInstall { package }
            | Self::PackageRemove { package }
            | Self::PackageUpdate { package } => name("package", package),
            Self::PackageSearch { query } => name("query", query),
            Self::ProcessList { limit } | Self::ProcessTop { limit, .. } => range("limit", *limit, 1, 10_000),
            // Killing process 0 or 1 would mean "the whole group" or "the system".
            Self::ProcessKill { pid, .. } => range("pid", Some(*pid), 2, i32::MAX as u32),
            Self::CheckDiskSpace(thresholds) => {
                for (field, value) in [
                    ("warning_threshold", thresholds.warning_threshold),
                    ("critical_threshold", thresholds.critical_threshold),
                ] {
                    if value.is_some_and(|v| !(0.0..=100.0).contains(&v)) {
                        return Err(ActionError::Range { field, min: 0, max: 100 });
                    }
                }
                Ok(())
            }
            Self::ServiceList | Self::PackageList | Self::SystemInfo | Self::OsInfo => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_could_be_read_as_options_are_refused() {
        for bad in ["", "-y", "a b", "a;b", "$(x)", "../x", &"a".repeat(300)] {
            assert!(SafeAction::PackageInstall { package: bad.into() }.check().is_err(), "{bad}");
        }
        assert!(SafeAction::PackageInstall { package: "libc6:amd64".into() }.check().is_ok());
        assert!(SafeAction::ProcessKill { pid: 1, force: None }.check().is_err());
    }
}

//! Safe actions as clients write them: a name, and exactly the parameters that it takes. One that
//! is missing, superfluous or against its rule is named in the refusal.

use agent_protocol::{ActionError, DiskThresholds, SortBy};
use async_graphql::{Enum, InputObject};

use crate::{
    api::error::ApiError,
    vm::{SafeAction, ServiceOperation},
};

/// An action that needs no shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(in crate::api::types) enum SafeActionName {
    /// No parameters.
    ServiceList,
    /// `service`, `operation`.
    ServiceControl,
    /// No parameters.
    PackageList,
    /// `package`.
    PackageInstall,
    /// `package`.
    PackageRemove,
    /// `package`.
    PackageUpdate,
    /// `query`.
    PackageSearch,
    /// `limit`, optional.
    ProcessList,
    /// `pid`; `force`, optional.
    ProcessKill,
    /// `limit` and `sortBy`, optional.
    ProcessTop,
    /// No parameters.
    SystemInfo,
    /// No parameters.
    OsInfo,
    /// `warningThreshold` and `criticalThreshold`, optional.
    CheckDiskSpace,
    /// `evaluationWindowDays`, optional.
    CheckResourceOptimization,
    /// `checkName`.
    RunHealthCheck,
    /// No parameters.
    RunAllHealthChecks,
    /// `drive`, `targets`.
    DiskCleanup,
    /// Windows. No parameters.
    CheckWindowsUpdates,
    /// Windows. `days`, optional.
    GetUpdateHistory,
    /// Windows. No parameters.
    GetPendingUpdates,
    /// Windows. No parameters.
    CheckWindowsDefender,
    /// Windows. No parameters.
    GetDefenderStatus,
    /// Windows. No parameters.
    RunDefenderQuickScan,
    /// Windows. No parameters.
    GetThreatHistory,
    /// Windows. No parameters.
    GetInstalledApplicationsWmi,
    /// Windows. No parameters.
    CheckApplicationUpdates,
    /// Windows. `appId`.
    GetApplicationDetails,
    /// Windows. `appId`.
    CheckSpecificAppUpdates,
    /// Windows. `appId`.
    EstimateUpdateSize,
    /// Windows. No parameters.
    GetAvailableUpdates,
    /// Windows. No parameters.
    GetSecurityUpdates,
}

impl SafeActionName {
    /// The action's name on the wire and in the log.
    pub(in crate::api::types) fn word(self) -> &'static str {
        match self {
            Self::ServiceList => "ServiceList",
            Self::ServiceControl => "ServiceControl",
            Self::PackageList => "PackageList",
            Self::PackageInstall => "PackageInstall",
            Self::PackageRemove => "PackageRemove",
            Self::PackageUpdate => "PackageUpdate",
            Self::PackageSearch => "PackageSearch",
            Self::ProcessList => "ProcessList",
            Self::ProcessKill => "ProcessKill",
            Self::ProcessTop => "ProcessTop",
            Self::SystemInfo => "SystemInfo",
            Self::OsInfo => "OsInfo",
            Self::CheckDiskSpace => "CheckDiskSpace",
            Self::CheckResourceOptimization => "CheckResourceOptimization",
            Self::RunHealthCheck => "RunHealthCheck",
            Self::RunAllHealthChecks => "RunAllHealthChecks",
            Self::DiskCleanup => "DiskCleanup",
            Self::CheckWindowsUpdates => "CheckWindowsUpdates",
            Self::GetUpdateHistory => "GetUpdateHistory",
            Self::GetPendingUpdates => "GetPendingUpdates",
            Self::CheckWindowsDefender => "CheckWindowsDefender",
            Self::GetDefenderStatus => "GetDefenderStatus",
            Self::RunDefenderQuickScan => "RunDefenderQuickScan",
            Self::GetThreatHistory => "GetThreatHistory",
            Self::GetInstalledApplicationsWmi => "GetInstalledApplicationsWMI",
            Self::CheckApplicationUpdates => "CheckApplicationUpdates",
            Self::GetApplicationDetails => "GetApplicationDetails",
            Self::CheckSpecificAppUpdates => "CheckSpecificAppUpdates",
            Self::EstimateUpdateSize => "EstimateUpdateSize",
            Self::GetAvailableUpdates => "GetAvailableUpdates",
            Self::GetSecurityUpdates => "GetSecurityUpdates",
        }
    }
}

/// What to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "ServiceOperation", name = "ServiceOperation")]
pub(super) enum ServiceOperationName {
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

/// The order of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "SortBy", name = "SortBy")]
pub(super) enum SortByName {
    /// Processor use.
    Cpu,
    /// Memory use.
    Memory,
}

/// An action with its parameters: exactly those that the action names.
#[derive(Debug, InputObject)]
pub(crate) struct SafeCommandInput {
    /// The action.
    action: SafeActionName,
    /// A service's name.
    service: Option<String>,
    /// What to do with the service.
    operation: Option<ServiceOperationName>,
    /// A package's name.
    package: Option<String>,
    /// Words to search for.
    query: Option<String>,
    /// At most this many, 1 to 10,000.
    limit: Option<i32>,
    /// A process id, from 2 on.
    pid: Option<i32>,
    /// Without a chance to clean up.
    force: Option<bool>,
    /// Busiest in what.
    sort_by: Option<SortByName>,
    /// Per cent.
    warning_threshold: Option<f64>,
    /// Per cent.
    critical_threshold: Option<f64>,
    /// Days looked back on, 1 to 365.
    evaluation_window_days: Option<i32>,
    /// A health check's name, as the agent has it: `disk_space`, `memory`, `load` and
    /// `failed_services` with ours.
    check_name: Option<String>,
    /// A drive's letter, as in `C:`, or the absolute path of a mount point.
    drive: Option<String>,
    /// What to remove, 1 to 32 names.
    targets: Option<Vec<String>>,
    /// Days looked back on, 1 to 3,650.
    days: Option<i32>,
    /// An application, as `GET_INSTALLED_APPLICATIONS_WMI` names it.
    app_id: Option<String>,
}

fn need<T>(field: &'static str, value: &mut Option<T>) -> Result<T, ApiError> {
    value.take().ok_or_else(|| ApiError::invalid(field, "this action needs it"))
}

fn whole(field: &'static str, number: i32) -> Result<u32, ApiError> {
    u32::try_from(number).map_err(|_| ApiError::invalid(field, "must not be negative"))
}

fn maybe_whole(field: &'static str, value: &mut Option<i32>) -> Result<Option<u32>, ApiError> {
    value.take().map(|number| whole(field, number)).transpose()
}

/// The parameter's name here.
fn input_name(field: &'static str) -> &'static str {
    match field {
        "warning_threshold" => "warningThreshold",
        "critical_threshold" => "criticalThreshold",
        "evaluation_window_days" => "evaluationWindowDays",
        "check_name" => "checkName",
        "app_id" => "appId",
        same => same,
    }
}

impl SafeCommandInput {
    /// # Errors
    /// `INVALID_INPUT`, naming the parameter.
    pub(super) fn into_action(mut self) -> Result<SafeAction, ApiError> {
        let action = self.take()?;
        if let Some(field) = self.left_over() {
            return Err(ApiError::invalid(field, "this action does not take it"));
        }
        action.check().map_err(|ActionError { field, rule }| ApiError::invalid(input_name(field), rule))?;
        Ok(action)
    }

    /// Takes what the action takes.
    fn take(&mut self) -> Result<SafeAction, ApiError> {
        use SafeActionName as Name;
        Ok(match self.action {
            Name::ServiceList => SafeAction::ServiceList,
            Name::ServiceControl => SafeAction::ServiceControl {
                service: need("service", &mut self.service)?,
                operation: need("operation", &mut self.operation)?.into(),
            },
            Name::PackageList => SafeAction::PackageList,
            Name::PackageInstall => {
                SafeAction::PackageInstall { package: need("package", &mut self.package)? }
            }
            Name::PackageRemove => SafeAction::PackageRemove { package: need("package", &mut self.package)? },
            Name::PackageUpdate => SafeAction::PackageUpdate { package: need("package", &mut self.package)? },
            Name::PackageSearch => SafeAction::PackageSearch { query: need("query", &mut self.query)? },
            Name::ProcessList => SafeAction::ProcessList { limit: maybe_whole("limit", &mut self.limit)? },
            Name::ProcessKill => SafeAction::ProcessKill {
                pid: whole("pid", need("pid", &mut self.pid)?)?,
                force: self.force.take(),
            },
            Name::ProcessTop => SafeAction::ProcessTop {
                limit: maybe_whole("limit", &mut self.limit)?,
                sort_by: self.sort_by.take().map(Into::into),
            },
            Name::SystemInfo => SafeAction::SystemInfo,
            Name::OsInfo => SafeAction::OsInfo,
            Name::CheckDiskSpace => SafeAction::CheckDiskSpace(DiskThresholds {
                warning_threshold: self.warning_threshold.take(),
                critical_threshold: self.critical_threshold.take(),
            }),
            Name::CheckResourceOptimization => SafeAction::CheckResourceOptimization {
                evaluation_window_days: maybe_whole(
                    "evaluationWindowDays",
                    &mut self.evaluation_window_days,
                )?,
            },
            Name::RunHealthCheck => {
                SafeAction::RunHealthCheck { check_name: need("checkName", &mut self.check_name)? }
            }
            Name::RunAllHealthChecks => SafeAction::RunAllHealthChecks,
            Name::DiskCleanup => SafeAction::DiskCleanup {
                drive: need("drive", &mut self.drive)?,
                targets: need("targets", &mut self.targets)?,
            },
            Name::CheckWindowsUpdates => SafeAction::CheckWindowsUpdates,
            Name::GetUpdateHistory => {
                SafeAction::GetUpdateHistory { days: maybe_whole("days", &mut self.days)? }
            }
            Name::GetPendingUpdates => SafeAction::GetPendingUpdates,
            Name::CheckWindowsDefender => SafeAction::CheckWindowsDefender,
            Name::GetDefenderStatus => SafeAction::GetDefenderStatus,
            Name::RunDefenderQuickScan => SafeAction::RunDefenderQuickScan,
            Name::GetThreatHistory => SafeAction::GetThreatHistory,
            Name::GetInstalledApplicationsWmi => SafeAction::GetInstalledApplicationsWmi,
            Name::CheckApplicationUpdates => SafeAction::CheckApplicationUpdates,
            Name::GetApplicationDetails => {
                SafeAction::GetApplicationDetails { app_id: need("appId", &mut self.app_id)? }
            }
            Name::CheckSpecificAppUpdates => {
                SafeAction::CheckSpecificAppUpdates { app_id: need("appId", &mut self.app_id)? }
            }
            Name::EstimateUpdateSize => {
                SafeAction::EstimateUpdateSize { app_id: need("appId", &mut self.app_id)? }
            }
            Name::GetAvailableUpdates => SafeAction::GetAvailableUpdates,
            Name::GetSecurityUpdates => SafeAction::GetSecurityUpdates,
        })
    }

    /// A parameter that the action did not take.
    fn left_over(&self) -> Option<&'static str> {
        let Self {
            action: _,
            service,
            operation,
            package,
            query,
            limit,
            pid,
            force,
            sort_by,
            warning_threshold,
            critical_threshold,
            evaluation_window_days,
            check_name,
            drive,
            targets,
            days,
            app_id,
        } = self;
        [
            ("service", service.is_some()),
            ("operation", operation.is_some()),
            ("package", package.is_some()),
            ("query", query.is_some()),
            ("limit", limit.is_some()),
            ("pid", pid.is_some()),
            ("force", force.is_some()),
            ("sortBy", sort_by.is_some()),
            ("warningThreshold", warning_threshold.is_some()),
            ("criticalThreshold", critical_threshold.is_some()),
            ("evaluationWindowDays", evaluation_window_days.is_some()),
            ("checkName", check_name.is_some()),
            ("drive", drive.is_some()),
            ("targets", targets.is_some()),
            ("days", days.is_some()),
            ("appId", app_id.is_some()),
        ]
        .into_iter()
        .find_map(|(field, given)| given.then_some(field))
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::resolver_utils::EnumType as _;

    use super::*;

    #[test]
    fn the_log_knows_an_action_by_the_name_that_clients_write() {
        for item in SafeActionName::items() {
            let written = item.name.replace('_', "");
            assert_eq!(written, item.value.word().to_uppercase());
        }
        // As it is on the wire, capitals and all.
        for (name, action) in [
            (SafeActionName::OsInfo, SafeAction::OsInfo),
            (SafeActionName::GetInstalledApplicationsWmi, SafeAction::GetInstalledApplicationsWmi),
        ] {
            assert_eq!(name.word(), action.name());
        }
    }
}

//! What safe actions found, typed, for the shapes that our own agent gives.
//!
//! A guest wrote them, and other agents have shapes of their own: a field of the wrong kind is
//! null, a row that is none is left out, and what does not fit at all is no result. The answer as
//! it came stays in `response.data`. Nothing here is larger than that answer was, and texts are
//! without control characters.

mod machine;
mod packages;
mod processes;
mod read;
mod services;
#[cfg(test)]
mod tests;

use async_graphql::Union;
use serde_json::Value;

use machine::{DiskSpace, HealthReport, OsInfo, SystemInfo};
use packages::{FoundPackages, InstalledPackages};
use processes::{EndedProcess, Processes};
use services::{ServiceState, Services};

/// What a safe action found.
#[derive(Debug, Clone, PartialEq, Union)]
pub(crate) enum SafeActionResult {
    /// Of `SERVICE_LIST`.
    Services(Services),
    /// Of `SERVICE_CONTROL`.
    ServiceState(ServiceState),
    /// Of `PACKAGE_LIST`.
    InstalledPackages(InstalledPackages),
    /// Of `PACKAGE_SEARCH`.
    FoundPackages(FoundPackages),
    /// Of `PROCESS_LIST` and `PROCESS_TOP`.
    Processes(Processes),
    /// Of `PROCESS_KILL`.
    EndedProcess(EndedProcess),
    /// Of `SYSTEM_INFO`.
    SystemInfo(SystemInfo),
    /// Of `OS_INFO`.
    OsInfo(OsInfo),
    /// Of `CHECK_DISK_SPACE`.
    DiskSpace(DiskSpace),
    /// Of `RUN_HEALTH_CHECK` and `RUN_ALL_HEALTH_CHECKS`.
    HealthReport(HealthReport),
}

impl SafeActionResult {
    /// The result of this action, as named on the wire, out of its `data`.
    pub(super) fn of(action: &str, data: &Value) -> Option<Self> {
        let data = read::Fields::of(data)?;
        match action {
            "ServiceList" => Services::of(data).map(Self::Services),
            "ServiceControl" => ServiceState::of(data).map(Self::ServiceState),
            "PackageList" => InstalledPackages::of(data).map(Self::InstalledPackages),
            "PackageSearch" => FoundPackages::of(data).map(Self::FoundPackages),
            "ProcessList" | "ProcessTop" => Processes::of(data).map(Self::Processes),
            "ProcessKill" => EndedProcess::of(data).map(Self::EndedProcess),
            "SystemInfo" => SystemInfo::of(data).map(Self::SystemInfo),
            "OsInfo" => OsInfo::of(data).map(Self::OsInfo),
            "CheckDiskSpace" => DiskSpace::of(data).map(Self::DiskSpace),
            "RunHealthCheck" | "RunAllHealthChecks" => HealthReport::of(data).map(Self::HealthReport),
            _ => None,
        }
    }
}

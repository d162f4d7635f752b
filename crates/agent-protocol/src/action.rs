//! The actions that a guest offers without giving its shell away. On the wire an action is one
//! flat object: `{"action": "ServiceControl", "service": "ssh", "operation": "restart"}`.

mod check;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use check::ActionError;

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
    /// Whether the machine is larger or smaller than its use.
    CheckResourceOptimization {
        /// Days looked back on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evaluation_window_days: Option<u32>,
    },
    /// One of the agent's health checks.
    RunHealthCheck {
        /// The check's name, as the agent has it.
        check_name: String,
    },
    /// All of the agent's health checks.
    RunAllHealthChecks,
    /// Remove what can be had again.
    DiskCleanup {
        /// A drive's letter, or the absolute path of a mount point.
        drive: String,
        /// What to remove, in the agent's words.
        targets: Vec<String>,
    },
    /// Whether Windows has updates for itself.
    CheckWindowsUpdates,
    /// The updates that were installed.
    GetUpdateHistory {
        /// Days looked back on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        days: Option<u32>,
    },
    /// The updates that wait, for a restart too.
    GetPendingUpdates,
    /// Whether Defender protects the machine.
    CheckWindowsDefender,
    /// Defender's state in detail.
    GetDefenderStatus,
    /// Let Defender look at the usual places.
    RunDefenderQuickScan,
    /// What Defender has found.
    GetThreatHistory,
    /// The applications installed, as Windows' management interface tells them.
    #[serde(rename = "GetInstalledApplicationsWMI")]
    GetInstalledApplicationsWmi,
    /// Which applications have updates.
    CheckApplicationUpdates,
    /// One application in detail.
    GetApplicationDetails {
        /// The application, as `GetInstalledApplicationsWMI` names it.
        app_id: String,
    },
    /// Whether one application has an update.
    CheckSpecificAppUpdates {
        /// The application.
        app_id: String,
    },
    /// How much an application's update would download.
    EstimateUpdateSize {
        /// The application.
        app_id: String,
    },
    /// The updates of Windows that could be installed.
    GetAvailableUpdates,
    /// Those of them that concern security.
    GetSecurityUpdates,
}

/// A kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Any Linux.
    Linux,
    /// Any Windows.
    Windows,
}

impl Platform {
    /// As a handshake says it, in any case. `None` for what we do not know.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        [Self::Linux, Self::Windows].into_iter().find(|platform| platform.word().eq_ignore_ascii_case(word))
    }

    /// The handshake's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Windows => "windows",
        }
    }

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::Windows => "Windows",
        }
    }
}

const EVERYWHERE: &[Platform] = &[Platform::Linux, Platform::Windows];
const WINDOWS: &[Platform] = &[Platform::Windows];

impl SafeAction {
    /// The action's name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.facts().0
    }

    /// The platforms whose guests have the action at all.
    #[must_use]
    pub fn platforms(&self) -> &'static [Platform] {
        self.facts().1
    }

    fn facts(&self) -> (&'static str, &'static [Platform]) {
        match self {
            Self::ServiceList => ("ServiceList", EVERYWHERE),
            Self::ServiceControl { .. } => ("ServiceControl", EVERYWHERE),
            Self::PackageList => ("PackageList", EVERYWHERE),
            Self::PackageInstall { .. } => ("PackageInstall", EVERYWHERE),
            Self::PackageRemove { .. } => ("PackageRemove", EVERYWHERE),
            Self::PackageUpdate { .. } => ("PackageUpdate", EVERYWHERE),
            Self::PackageSearch { .. } => ("PackageSearch", EVERYWHERE),
            Self::ProcessList { .. } => ("ProcessList", EVERYWHERE),
            Self::ProcessKill { .. } => ("ProcessKill", EVERYWHERE),
            Self::ProcessTop { .. } => ("ProcessTop", EVERYWHERE),
            Self::SystemInfo => ("SystemInfo", EVERYWHERE),
            Self::OsInfo => ("OsInfo", EVERYWHERE),
            Self::CheckDiskSpace(_) => ("CheckDiskSpace", EVERYWHERE),
            Self::CheckResourceOptimization { .. } => ("CheckResourceOptimization", EVERYWHERE),
            Self::RunHealthCheck { .. } => ("RunHealthCheck", EVERYWHERE),
            Self::RunAllHealthChecks => ("RunAllHealthChecks", EVERYWHERE),
            Self::DiskCleanup { .. } => ("DiskCleanup", EVERYWHERE),
            Self::CheckWindowsUpdates => ("CheckWindowsUpdates", WINDOWS),
            Self::GetUpdateHistory { .. } => ("GetUpdateHistory", WINDOWS),
            Self::GetPendingUpdates => ("GetPendingUpdates", WINDOWS),
            Self::CheckWindowsDefender => ("CheckWindowsDefender", WINDOWS),
            Self::GetDefenderStatus => ("GetDefenderStatus", WINDOWS),
            Self::RunDefenderQuickScan => ("RunDefenderQuickScan", WINDOWS),
            Self::GetThreatHistory => ("GetThreatHistory", WINDOWS),
            Self::GetInstalledApplicationsWmi => ("GetInstalledApplicationsWMI", WINDOWS),
            Self::CheckApplicationUpdates => ("CheckApplicationUpdates", WINDOWS),
            Self::GetApplicationDetails { .. } => ("GetApplicationDetails", WINDOWS),
            Self::CheckSpecificAppUpdates { .. } => ("CheckSpecificAppUpdates", WINDOWS),
            Self::EstimateUpdateSize { .. } => ("EstimateUpdateSize", WINDOWS),
            Self::GetAvailableUpdates => ("GetAvailableUpdates", WINDOWS),
            Self::GetSecurityUpdates => ("GetSecurityUpdates", WINDOWS),
        }
    }
}

//! The rule of each parameter. Both ends check them, each for its own sake. Whatever passes can
//! stand in an argument list of any program: it is no option, no second word, no path that climbs.

use super::SafeAction;

/// Why an action was refused before it reached a guest. The value is never repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct ActionError {
    /// The parameter, as on the wire.
    pub field: &'static str,
    /// What it must be.
    pub rule: String,
}

const MAX_NAME: usize = 256;
const MAX_CHECK_NAME: usize = 64;
const MAX_TARGET: usize = 64;
const MAX_TARGETS: usize = 32;
const MAX_MOUNT_POINT: usize = 512;

fn keep(field: &'static str, kept: bool, rule: impl FnOnce() -> String) -> Result<(), ActionError> {
    if kept { Ok(()) } else { Err(ActionError { field, rule: rule() }) }
}

/// Whether it is 1 to `max` characters of letters, digits and `others`, not beginning with `-`.
fn is_word(text: &str, max: usize, others: &str) -> bool {
    (1..=max).contains(&text.len())
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

fn name(field: &'static str, text: &str, max: usize) -> Result<(), ActionError> {
    const OTHERS: &str = "._+:@~-";
    keep(field, is_word(text, max, OTHERS), || {
        format!("must be 1 to {max} characters of letters, digits and '{OTHERS}', not beginning with '-'")
    })
}

fn range(field: &'static str, value: Option<u32>, min: u32, max: u32) -> Result<(), ActionError> {
    keep(field, value.is_none_or(|value| (min..=max).contains(&value)), || {
        format!("must be between {min} and {max}")
    })
}

fn percentage(field: &'static str, value: Option<f64>) -> Result<(), ActionError> {
    // Not a number is in no range.
    keep(field, value.is_none_or(|value| (0.0..=100.0).contains(&value)), || {
        "must be between 0 and 100".to_owned()
    })
}

fn app_id(text: &str) -> Result<(), ActionError> {
    const OTHERS: &str = "._+{}-";
    let kept = is_word(text, MAX_NAME, OTHERS) && !text.starts_with('.') && !text.contains("..");
    keep("app_id", kept, || {
        format!(
            "must be 1 to {MAX_NAME} characters of letters, digits and '{OTHERS}', not beginning with '-' or \
             '.', without '..'"
        )
    })
}

fn drive(text: &str) -> Result<(), ActionError> {
    let letter = text.strip_suffix(':').unwrap_or(text);
    let is_letter = letter.len() == 1 && letter.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_mount_point = text.len() <= MAX_MOUNT_POINT
        && text.strip_prefix('/').is_some_and(|path| {
            let part = |part: &str| part != "." && part != ".." && is_word(part, MAX_MOUNT_POINT, "._+:@~-");
            path.is_empty() || path.split('/').all(part)
        });
    keep("drive", is_letter || is_mount_point, || {
        format!(
            "must be a drive's letter, as in 'C:', or the absolute path of a mount point, at most \
             {MAX_MOUNT_POINT} characters of letters, digits and '._+:@~-/'"
        )
    })
}

fn targets(targets: &[String]) -> Result<(), ActionError> {
    keep("targets", (1..=MAX_TARGETS).contains(&targets.len()), || {
        format!("must be 1 to {MAX_TARGETS} names")
    })?;
    targets.iter().try_for_each(|target| name("targets", target, MAX_TARGET))
}

impl SafeAction {
    /// Checks the parameters.
    ///
    /// # Errors
    /// The first parameter that breaks its rule.
    pub fn check(&self) -> Result<(), ActionError> {
        match self {
            Self::ServiceControl { service, operation: _ } => name("service", service, MAX_NAME),
            Self::PackageInstall { package }
            | Self::PackageRemove { package }
            | Self::PackageUpdate { package } => name("package", package, MAX_NAME),
            Self::PackageSearch { query } => name("query", query, MAX_NAME),
            Self::ProcessList { limit } | Self::ProcessTop { limit, sort_by: _ } => {
                range("limit", *limit, 1, 10_000)
            }
            // Killing process 0 or 1 would mean "the whole group" or "the system".
            Self::ProcessKill { pid, force: _ } => range("pid", Some(*pid), 2, i32::MAX as u32),
            Self::CheckDiskSpace(thresholds) => {
                percentage("warning_threshold", thresholds.warning_threshold)?;
                percentage("critical_threshold", thresholds.critical_threshold)
            }
            Self::CheckResourceOptimization { evaluation_window_days } => {
                range("evaluation_window_days", *evaluation_window_days, 1, 365)
            }
            Self::RunHealthCheck { check_name } => name("check_name", check_name, MAX_CHECK_NAME),
            Self::DiskCleanup { drive: place, targets: what } => {
                drive(place)?;
                targets(what)
            }
            Self::GetUpdateHistory { days } => range("days", *days, 1, 3650),
            Self::GetApplicationDetails { app_id: id }
            | Self::CheckSpecificAppUpdates { app_id: id }
            | Self::EstimateUpdateSize { app_id: id } => app_id(id),
            Self::ServiceList
            | Self::PackageList
            | Self::SystemInfo
            | Self::OsInfo
            | Self::RunAllHealthChecks
            | Self::CheckWindowsUpdates
            | Self::GetPendingUpdates
            | Self::CheckWindowsDefender
            | Self::GetDefenderStatus
            | Self::RunDefenderQuickScan
            | Self::GetThreatHistory
            | Self::GetInstalledApplicationsWmi
            | Self::CheckApplicationUpdates
            | Self::GetAvailableUpdates
            | Self::GetSecurityUpdates => Ok(()),
        }
    }
}

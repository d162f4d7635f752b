//! From an action to the file that carries it out. Parameters are checked again on this side:
//! what the host believes about them is its own affair.

use agent_protocol::SafeAction;

use super::{
    answer::{Failure, Outcome},
    machine, packages, processes, services, shell,
};

/// Seconds, for actions that only look.
const LOOK_TIMEOUT: u32 = 30;
/// Seconds, for actions that download and install.
const CHANGE_TIMEOUT: u32 = 600;

/// Carries out one action.
pub(super) fn run(action: &SafeAction, timeout: Option<u32>) -> Result<Outcome, Failure> {
    action.check().map_err(|e| Failure::new("BAD_PARAMETERS", e.to_string()))?;
    let look = shell::limit(timeout, LOOK_TIMEOUT);
    let change = shell::limit(timeout, CHANGE_TIMEOUT);
    match action {
        SafeAction::ServiceList => services::list(look),
        SafeAction::ServiceControl { service, operation } => services::control(service, *operation, look),
        SafeAction::PackageList => packages::list(look),
        SafeAction::PackageSearch { query } => packages::search(query, look),
        SafeAction::PackageInstall { package } => packages::install(package, change),
        SafeAction::PackageRemove { package } => packages::remove(package, change),
        SafeAction::PackageUpdate { package } => packages::update(package, change),
        SafeAction::ProcessList { limit } => processes::list(*limit, None),
        SafeAction::ProcessTop { limit, sort_by } => processes::top(*limit, *sort_by),
        SafeAction::ProcessKill { pid, force } => processes::kill(*pid, force.unwrap_or(false)),
        SafeAction::SystemInfo => Ok(machine::system_info().into()),
        SafeAction::OsInfo => Ok(machine::os_info().into()),
        SafeAction::CheckDiskSpace(thresholds) => Ok(machine::disk_space(thresholds).into()),
    }
}

//! From an action to the file that carries it out. Parameters are checked again on this side:
//! what the host believes about them is its own affair.

use agent_protocol::SafeAction;

use super::{
    answer::{Failure, Outcome},
    health, machine, packages, processes, services, shell,
};

/// Seconds, for actions that only look.
const LOOK_TIMEOUT: u32 = 30;
/// Seconds, for actions that download and install.
const CHANGE_TIMEOUT: u32 = 600;

/// The actions that this agent carries out, as its greeting names them. The host knows more: what
/// only Windows has, and what is not done here, because the host's own readings tell it better
/// (`CheckResourceOptimization`) or because nobody could say beforehand what would be lost
/// (`DiskCleanup`).
pub(crate) const OFFERED: [&str; 15] = [
    "ServiceList",
    "ServiceControl",
    "PackageList",
    "PackageInstall",
    "PackageRemove",
    "PackageUpdate",
    "PackageSearch",
    "ProcessList",
    "ProcessKill",
    "ProcessTop",
    "SystemInfo",
    "OsInfo",
    "CheckDiskSpace",
    "RunHealthCheck",
    "RunAllHealthChecks",
];

/// The answer to an action that is not offered, known or not.
pub(super) fn unsupported(action: &str) -> Failure {
    Failure::new("UNSUPPORTED_ACTION", format!("this agent does not offer the action {action}"))
}

/// Carries out one action.
pub(super) fn run(action: &SafeAction, timeout: Option<u32>) -> Result<Outcome, Failure> {
    if !OFFERED.contains(&action.name()) {
        return Err(unsupported(action.name()));
    }
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
        SafeAction::RunHealthCheck { check_name } => health::one(check_name, look),
        SafeAction::RunAllHealthChecks => Ok(health::all(look).into()),
        other => Err(unsupported(other.name())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The action of this name with parameters that suit any.
    fn named(name: &str) -> SafeAction {
        let mut wire = json!({
            "service": "x", "operation": "status", "package": "@x", "query": "-x", "pid": 1, "limit": 1,
            "check_name": "disk_space", "drive": "/", "targets": ["x"], "app_id": "x",
        });
        wire["action"] = json!(name);
        serde_json::from_value(wire).unwrap()
    }

    #[test]
    fn what_is_offered_is_carried_out_and_the_rest_refused() {
        for name in OFFERED {
            // Whatever becomes of it here, it is not unknown.
            if let Err(failure) = run(&named(name), Some(20)) {
                assert_ne!(failure.code, "UNSUPPORTED_ACTION", "{name}");
            }
        }
        for name in
            ["CheckResourceOptimization", "DiskCleanup", "CheckWindowsUpdates", "GetApplicationDetails"]
        {
            let failure = run(&named(name), None).unwrap_err();
            assert_eq!(failure.code, "UNSUPPORTED_ACTION", "{name}");
            assert!(failure.message.contains(name), "{}", failure.message);
        }
        let done = run(&named("RunHealthCheck"), None).unwrap();
        assert_ne!(done.data.unwrap()["status"], Value::Null);
    }
}

//! From what is stored of a VM to what is alarming about it. Pure.
//!
//! There are three answers, not two: what is not known is neither alarming nor over. After a
//! restart of the controller, and while libvirt is away, nothing is known of any VM, and neither
//! begins nor ends an alert.

use serde_json::{Value, json};

use crate::{
    store::WatchedVm,
    vm::{
        AgentConnectivity, AlertKind, AlertSeverity, Condition, ConditionKind, ConditionStatus, VmPhase,
        VmStatus, alert_details, alert_summary,
    },
};

/// What is wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alarm {
    pub(super) severity: AlertSeverity,
    pub(super) summary: String,
    pub(super) details: Value,
    /// Whether it has to last before it counts.
    pub(super) must_last: bool,
}

/// What can be said of one kind of alert about one VM.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// It is wrong.
    Firing(Alarm),
    /// It is right.
    Clear,
    /// It is not known.
    Unknown,
}

/// One verdict for each kind of condition that a VM can have.
pub(super) fn verdicts(vm: &WatchedVm) -> [(AlertKind, Verdict); 3] {
    let (offline, stuck, skew) = match &vm.status {
        None => (Verdict::Unknown, Verdict::Unknown, Verdict::Unknown),
        Some(status) => (offline(vm, status), stuck(vm, status), skew(vm, status)),
    };
    [(AlertKind::VmOffline, offline), (AlertKind::InstallStuck, stuck), (AlertKind::ClockSkew, skew)]
}

fn condition(status: &VmStatus, kind: ConditionKind) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.kind == kind)
}

fn alarm(severity: AlertSeverity, summary: &str, details: Value, must_last: bool) -> Verdict {
    Verdict::Firing(Alarm {
        severity,
        summary: alert_summary(summary),
        details: alert_details(details),
        must_last,
    })
}

/// What a condition says, for the details.
fn reason(status: &VmStatus, kind: ConditionKind) -> Value {
    condition(status, kind).map_or(Value::Null, |found| {
        json!({ "reason": found.reason, "message": alert_summary(&found.message), "since": found.since })
    })
}

fn offline(vm: &WatchedVm, status: &VmStatus) -> Verdict {
    let name = &vm.name;
    let details = |kind| {
        json!({
            "phase": status.phase, "agent": status.agent, "lastSeenAt": status.last_seen,
            "condition": reason(status, kind),
        })
    };
    match status.phase {
        VmPhase::Crashed => alarm(
            AlertSeverity::Critical,
            &format!("{name} crashed."),
            details(ConditionKind::AgentConnected),
            false,
        ),
        VmPhase::Missing => alarm(
            AlertSeverity::Critical,
            &format!("{name}'s domain is gone although nobody asked this controller."),
            details(ConditionKind::DriftedFromIntent),
            false,
        ),
        VmPhase::Running | VmPhase::Installing => match status.agent {
            AgentConnectivity::Offline => alarm(
                AlertSeverity::Warning,
                &format!("{name} runs, but its agent is not heard."),
                details(ConditionKind::AgentConnected),
                true,
            ),
            AgentConnectivity::Unknown => Verdict::Unknown,
            // One that was never heard may be an image without an agent.
            AgentConnectivity::Online | AgentConnectivity::NeverSeen | AgentConnectivity::Unsupported => {
                Verdict::Clear
            }
        },
        VmPhase::Unknown => Verdict::Unknown,
        // A person asked for it, or the guest did; nothing is expected of the agent.
        VmPhase::Provisioning
        | VmPhase::Starting
        | VmPhase::Stopping
        | VmPhase::Stopped
        | VmPhase::Saved
        | VmPhase::Paused
        | VmPhase::Deleting
        | VmPhase::Failed => Verdict::Clear,
    }
}

fn stuck(vm: &WatchedVm, status: &VmStatus) -> Verdict {
    match status.phase {
        VmPhase::Unknown => Verdict::Unknown,
        VmPhase::Installing => match condition(status, ConditionKind::InstallProgressing) {
            Some(found) if found.status == ConditionStatus::False && is_stuck(&found.reason) => alarm(
                AlertSeverity::Warning,
                &match found.reason.as_str() {
                    "Stuck" => format!("{}: the first boot takes longer than it should.", vm.name),
                    _ => format!("{}: the installation does not go on.", vm.name),
                },
                json!({ "condition": reason(status, ConditionKind::InstallProgressing) }),
                false,
            ),
            _ => Verdict::Clear,
        },
        _ => Verdict::Clear,
    }
}

fn is_stuck(reason: &str) -> bool {
    matches!(reason, "Stuck" | "InstallStuck" | "InstallTimeout" | "InstallFailed")
}

fn skew(vm: &WatchedVm, status: &VmStatus) -> Verdict {
    match status.phase {
        VmPhase::Unknown => Verdict::Unknown,
        VmPhase::Running | VmPhase::Installing => {
            match condition(status, ConditionKind::ClockSkew).map(|found| found.status) {
                Some(ConditionStatus::True) => alarm(
                    AlertSeverity::Warning,
                    &format!("{}: the guest's clock is too far off; its readings are refused.", vm.name),
                    json!({ "condition": reason(status, ConditionKind::ClockSkew) }),
                    false,
                ),
                Some(ConditionStatus::False) => Verdict::Clear,
                // Without a link, nothing is known of the clock.
                Some(ConditionStatus::Unknown) | None => Verdict::Unknown,
            }
        }
        _ => Verdict::Clear,
    }
}

#[cfg(test)]
mod tests {
    use VmPhase::Running;

    use super::*;
    use crate::vm::VmId;

    fn vm(phase: VmPhase, agent: AgentConnectivity, conditions: Vec<Condition>) -> WatchedVm {
        let status = VmStatus { phase, agent, last_seen: None, agent_version: None, conditions };
        WatchedVm { id: VmId::generate(), name: "web".to_owned(), status: Some(status) }
    }

    fn holds(kind: ConditionKind, status: ConditionStatus, reason: &str) -> Condition {
        let since = chrono::DateTime::UNIX_EPOCH;
        Condition { kind, status, reason: reason.to_owned(), message: "words\n".to_owned(), since }
    }

    /// `!`: critical, `x`: firing, `-`: clear, `?`: unknown.
    fn word(vm: &WatchedVm, kind: AlertKind) -> char {
        let verdict = verdicts(vm).into_iter().find(|(of, _)| *of == kind).expect("a verdict").1;
        match verdict {
            Verdict::Firing(alarm) if alarm.severity == AlertSeverity::Critical => '!',
            Verdict::Firing(_) => 'x',
            Verdict::Clear => '-',
            Verdict::Unknown => '?',
        }
    }

    fn row(kind: AlertKind, agent: AgentConnectivity, conditions: &[Condition]) -> String {
        VmPhase::ALL.map(|phase| word(&vm(phase, agent, conditions.to_vec()), kind)).iter().collect()
    }

    #[test]
    fn offline_by_phase_and_agent() {
        let row = |agent| row(AlertKind::VmOffline, agent, &[]);
        //                                                  PISRSSSPCMUDF
        assert_eq!(row(AgentConnectivity::Offline), "-x-x----!!?--");
        assert_eq!(row(AgentConnectivity::Online), "--------!!?--");
        assert_eq!(row(AgentConnectivity::NeverSeen), "--------!!?--");
        assert_eq!(row(AgentConnectivity::Unsupported), "--------!!?--");
        assert_eq!(row(AgentConnectivity::Unknown), "-?-?----!!?--");
    }

    #[test]
    fn stuck_only_while_it_installs() {
        let row = |condition| row(AlertKind::InstallStuck, AgentConnectivity::NeverSeen, &[condition]);
        let kind = ConditionKind::InstallProgressing;
        for reason in ["Stuck", "InstallStuck", "InstallTimeout", "InstallFailed"] {
            assert_eq!(row(holds(kind, ConditionStatus::False, reason)), "-x--------?--");
        }
        assert_eq!(row(holds(kind, ConditionStatus::False, "Finished")), "----------?--");
        assert_eq!(row(holds(kind, ConditionStatus::False, "FinishedWithErrors")), "----------?--");
        assert_eq!(row(holds(kind, ConditionStatus::True, "Booting")), "----------?--");
    }

    #[test]
    fn skew_only_while_the_guest_is_up() {
        let row = |conditions: &[Condition]| row(AlertKind::ClockSkew, AgentConnectivity::Online, conditions);
        let skew = |status| [holds(ConditionKind::ClockSkew, status, "TooFarOff")];
        assert_eq!(row(&skew(ConditionStatus::True)), "-x-x------?--");
        assert_eq!(row(&skew(ConditionStatus::False)), "----------?--");
        assert_eq!(row(&[]), "-?-?------?--");
    }

    #[test]
    fn of_a_vm_that_was_never_looked_at_nothing_is_known() {
        let unseen = WatchedVm { id: VmId::generate(), name: "web".to_owned(), status: None };
        assert!(verdicts(&unseen).iter().all(|(_, verdict)| *verdict == Verdict::Unknown));
    }

    #[test]
    fn an_aged_status_says_nothing() {
        let conditions = [
            holds(ConditionKind::AgentConnected, ConditionStatus::False, "Silent"),
            holds(ConditionKind::ClockSkew, ConditionStatus::True, "TooFarOff"),
        ];
        let mut vm = vm(Running, AgentConnectivity::Offline, conditions.to_vec());
        vm.status = vm.status.map(VmStatus::aged);
        assert!(verdicts(&vm).iter().all(|(_, verdict)| *verdict == Verdict::Unknown));
    }
}

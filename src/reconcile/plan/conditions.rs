//! What is right and what is not, each with a sentence that says what to do: a mutation of the API, a
//! command of the host, or a place to look at.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Look, disks, drift, installing, is_anothers};
use crate::vm::{
    AgentConnectivity, Condition, ConditionKind, ConditionStatus, DesiredPower, DomainObservation, FirstBoot,
    InstallFamily, LinkObservation, LinkSeal, Milestone, OsFamily,
};

/// A condition without its time.
pub(super) type Draft = (ConditionKind, ConditionStatus, &'static str, String);

pub(super) fn derive(look: &Look<'_>, agent: AgentConnectivity) -> Vec<Condition> {
    let drafts = [
        Some(hypervisor(look)),
        channel(look),
        Some(connected(look, agent)),
        clock(look),
        install(look),
        drift::derive(look),
        disks::present(look),
        disks::room(look),
        restart(look),
        Some(reconciled(look)),
    ];
    let before = look.bundle.status.as_ref().map_or(&[][..], |status| &status.conditions);
    drafts
        .into_iter()
        .flatten()
        .map(|(kind, status, reason, message)| {
            let same = before.iter().find(|old| old.kind == kind && old.status == status);
            let since = same.map_or(look.now, |old| old.since);
            Condition { kind, status, reason: reason.to_owned(), message, since }
        })
        .collect()
}

fn hypervisor(look: &Look<'_>) -> Draft {
    let kind = ConditionKind::HypervisorReachable;
    match look.observed.domain {
        DomainObservation::Unknown if look.observed.busy => {
            (kind, ConditionStatus::Unknown, "CallUnderWay", under_way(look))
        }
        DomainObservation::Unknown => (
            kind,
            ConditionStatus::False,
            "NoAnswer",
            "libvirt does not answer; what is known of this VM may be out of date. Check on the host \
             that libvirtd runs, with `systemctl status libvirtd`."
                .to_owned(),
        ),
        _ => (kind, ConditionStatus::True, "Answers", "libvirt answers.".to_owned()),
    }
}

/// Of a call that does not return, and whose work nobody else may do meanwhile.
fn under_way(look: &Look<'_>) -> String {
    let name = look.bundle.record.spec.name.as_str();
    format!(
        "A libvirt call on this domain is still under way, such as one that saves its memory; nothing else is done \
         meanwhile. `virsh domjobinfo {name}` on the host says how far it is, and `virsh domjobabort {name}` ends it. \
         If neither answers, `systemctl restart libvirtd` lets go of it, and leaves guests running."
    )
}

fn channel(look: &Look<'_>) -> Option<Draft> {
    let DomainObservation::Present(facts) = &look.observed.domain else { return None };
    let kind = ConditionKind::ChannelPresent;
    let expected = look.rules.socket_dir.join(look.bundle.record.id.socket_name());
    Some(match &facts.channel {
        Some(channel) if is_anothers(&channel.path, look.bundle.record.id) => (
            kind,
            ConditionStatus::False,
            "AnothersSocket",
            format!(
                "The agent channel's socket {:?} is another VM's, of whose domain this one may be a copy; nothing \
                 is sent through it. Power the VM off, put it right with `infinibayd channel add`, and start it.",
                channel.path
            ),
        ),
        // The agent is reached there all the same; but what is left there after a crash of the
        // hypervisor is not known to be ours.
        Some(channel) if channel.path != expected => (
            kind,
            ConditionStatus::False,
            "WrongPath",
            format!(
                "The agent channel's socket is {:?} and not {expected:?}; put it right with `infinibayd channel \
                 add`, then power the VM off and start it.",
                channel.path
            ),
        ),
        Some(_) => (kind, ConditionStatus::True, "Present", "The domain has the agent channel.".to_owned()),
        None => (
            kind,
            ConditionStatus::False,
            "Absent",
            "The domain has no agent channel; add it with `infinibayd channel add`.".to_owned(),
        ),
    })
}

fn connected(look: &Look<'_>, agent: AgentConnectivity) -> Draft {
    let kind = ConditionKind::AgentConnected;
    if look.observed.link.seal() == LinkSeal::Refused && agent != AgentConnectivity::Online {
        let message = "The agent speaks without the seal that the configuration (agents.seal) demands: it has lost its key \
                       (/etc/infiniservice/seal.key), is another program, or is not our guest's. Nothing is taken \
                       from it and nothing sent; look at the service infiniservice in the guest.";
        return (kind, ConditionStatus::False, "Unsealed", message.to_owned());
    }
    match agent {
        AgentConnectivity::Online => (kind, ConditionStatus::True, "Heard", "The agent is heard.".to_owned()),
        AgentConnectivity::Unknown => {
            let known = "The agent is known from before. It was not heard since the controller started, or \
                         while libvirt could not be asked.";
            let message = match unopened(look) {
                Some(why) => format!("{known} {why}"),
                None => format!("{known} Should that last, look at the service infiniservice in the guest."),
            };
            (kind, ConditionStatus::Unknown, "NotHeardYet", message)
        }
        AgentConnectivity::NeverSeen => {
            let message = match silence(look) {
                Some(why) => format!("The agent has never been heard. {why}"),
                None => {
                    "The agent has never been heard. It will be once the VM runs (`startVm`) and the service \
                         infiniservice in the guest does."
                        .to_owned()
                }
            };
            (kind, ConditionStatus::False, "NeverSeen", message)
        }
        AgentConnectivity::Unsupported => {
            let message = "The domain has no agent channel, without which no agent is heard; add it with \
                           `infinibayd channel add`.";
            (kind, ConditionStatus::False, "NoChannel", message.to_owned())
        }
        AgentConnectivity::Offline => {
            let why = silence(look).unwrap_or_else(|| match &look.observed.domain {
                DomainObservation::Present(facts) if facts.state.is_active() => {
                    "The channel is closed. Look at the service infiniservice in the guest; `resync` looks again."
                        .to_owned()
                }
                _ => "The VM is not running; start it with `startVm`.".to_owned(),
            });
            (kind, ConditionStatus::False, "Silent", why)
        }
    }
}

/// Why there is no link, where one is wanted.
fn unopened(look: &Look<'_>) -> Option<String> {
    let LinkObservation::Connecting { last_error: Some(error), .. } = &look.observed.link else {
        return None;
    };
    let path = match &look.observed.domain {
        DomainObservation::Present(facts) => facts.channel.as_ref().map(|channel| &channel.path),
        _ => None,
    };
    let place = path.map_or_else(|| "its socket".to_owned(), |path| format!("{path:?}"));
    Some(format!(
        "The channel cannot be opened: {error}. Look at {place} on the host; libvirt makes it anew when the VM is \
         stopped with `stopVm` and started with `startVm`."
    ))
}

/// What may keep a silent agent from being heard, as far as the link tells.
fn silence(look: &Look<'_>) -> Option<String> {
    let LinkObservation::Open(link) = &look.observed.link else { return unopened(look) };
    let guest_connected = match &look.observed.domain {
        DomainObservation::Present(facts) => facts.channel.as_ref().and_then(|it| it.guest_connected),
        _ => None,
    };
    // A connection proves nothing: the hypervisor serves one client, and lets others wait.
    let why = match (link.last_message_at, guest_connected) {
        (Some(_), _) => {
            "The agent fell silent although the channel is open; look at the service infiniservice in the \
             guest."
        }
        (None, Some(false)) => {
            "The channel is open, but nobody in the guest listens on it; look at the service infiniservice \
             in the guest."
        }
        (None, Some(true)) => {
            "The channel is open and the guest holds its end, but nothing is heard: another program of this \
             host may hold the channel (`ss -xp` shows it), or the agent hangs (look at the service \
             infiniservice in the guest)."
        }
        (None, None) => {
            "The channel is open, but nothing is heard: the agent may not run in the guest (look at the \
             service infiniservice), or another program of this host may hold the channel (`ss -xp` shows it)."
        }
    };
    Some(why.to_owned())
}

fn clock(look: &Look<'_>) -> Option<Draft> {
    let skew = look.observed.link.open()?.skew?;
    let limit = TimeDelta::from_std(look.rules.max_clock_skew).unwrap_or(TimeDelta::MAX);
    let kind = ConditionKind::ClockSkew;
    Some(if skew.abs() > limit {
        // Coarse on purpose: a message that changes with every frame would be news with every frame.
        let minutes = skew.num_minutes();
        (
            kind,
            ConditionStatus::True,
            "TooFarOff",
            format!(
                "The guest's clock is off by about {minutes} minutes; its readings are refused. Set the clock, or \
                 have it set, in the guest: with `timedatectl set-ntp true`, on Windows with `w32tm /resync`."
            ),
        )
    } else {
        (kind, ConditionStatus::False, "InStep", "The guest's clock is close enough.".to_owned())
    })
}

fn install(look: &Look<'_>) -> Option<Draft> {
    let kind = ConditionKind::InstallProgressing;
    if installing::is_under_way(look) {
        return installing::condition(look);
    }
    let end = look.install_end()?;
    let first_boot = look.observed.link.open().map(|link| &link.first_boot);
    if look.passed(Milestone::Installed) {
        return Some(match first_boot {
            Some(FirstBoot::Finished { errors }) if !errors.is_empty() => (
                kind,
                ConditionStatus::False,
                "FinishedWithErrors",
                format!(
                    "The first boot finished, but: {}. Look at {} in the guest, by `executeVmCommand` for example.",
                    errors.join("; "),
                    first_boot_log(look)
                ),
            ),
            _ => {
                // What was said of a finished first boot stands, also when the agent is away.
                let before = look.bundle.status.as_ref().and_then(|status| {
                    status
                        .conditions
                        .iter()
                        .find(|old| old.kind == kind && old.reason == "FinishedWithErrors")
                });
                match (before, first_boot) {
                    (Some(old), None) => (kind, old.status, "FinishedWithErrors", old.message.clone()),
                    _ => (kind, ConditionStatus::False, "Finished", "The first boot is finished.".to_owned()),
                }
            }
        });
    }
    let overdue = look.now >= end;
    Some(match (overdue, first_boot) {
        (true, _) => (
            kind,
            ConditionStatus::False,
            "Stuck",
            "The first boot takes longer than it should; look at the console (`vmConsoleLog`, `virsh console`)."
                .to_owned(),
        ),
        (false, Some(_)) => (
            kind,
            ConditionStatus::True,
            "FirstBootRunning",
            "The agent is heard; packages and first-boot commands are at work.".to_owned(),
        ),
        (false, None) => {
            (kind, ConditionStatus::True, "Booting", "The system boots for the first time.".to_owned())
        }
    })
}

/// Where a first boot writes what it does.
fn first_boot_log(look: &Look<'_>) -> &'static str {
    let spec = &look.bundle.record.spec;
    match spec.installation().map(|installation| installation.family) {
        _ if spec.os_family() == OsFamily::Windows => "C:\\Windows\\Temp\\infinibay-install.log",
        Some(InstallFamily::Debian | InstallFamily::RedHat) => "/var/log/infinibay-first-boot.log",
        _ => "/var/log/cloud-init-output.log",
    }
}

/// Told only while something waits.
fn restart(look: &Look<'_>) -> Option<Draft> {
    let DomainObservation::Present(facts) = &look.observed.domain else { return None };
    if facts.waiting.is_empty() || !facts.state.is_active() {
        return None;
    }
    let message = format!(
        "Changes wait until the VM is powered off with `stopVm` and started again with `startVm` (a reboot from \
         within is not enough): {}.",
        facts.waiting.join("; ")
    );
    Some((ConditionKind::RestartRequired, ConditionStatus::True, "ChangesWait", message))
}

fn reconciled(look: &Look<'_>) -> Draft {
    let kind = ConditionKind::Reconciled;
    if let Some(failure) = &look.memory.failure {
        let next = match (look.gave_up(), look.memory.boot_loop) {
            (true, _) => format!("It was given up; ask again with `{}` to retry.", asks_again(look)),
            (false, true) => "It is left alone until somebody starts it with `startVm`.".to_owned(),
            (false, false) => "It is tried again; `resync` tries it at once.".to_owned(),
        };
        let message = format!("{}: {}. {next}", failure.step, failure.message);
        return (kind, ConditionStatus::False, "StepFailed", message);
    }
    if look.observed.busy {
        return (kind, ConditionStatus::Unknown, "CallUnderWay", under_way(look));
    }
    if look.bundle.record.intent.is_given_up() {
        // Given up before this controller started, or other steps went well since: the words stand.
        let before = look.bundle.status.as_ref().and_then(|status| {
            status.conditions.iter().find(|old| old.kind == kind && old.reason == "StepFailed")
        });
        let message = before.map_or_else(
            || {
                let again = asks_again(look);
                format!("The last request was given up; its operation says why. Ask again with `{again}` to retry.")
            },
            |old| old.message.clone(),
        );
        return (kind, ConditionStatus::False, "StepFailed", message);
    }
    (kind, ConditionStatus::True, "Done", "Nothing is left to do, or all goes well.".to_owned())
}

/// The mutation by which somebody asked for what was given up.
fn asks_again(look: &Look<'_>) -> &'static str {
    let intent = &look.bundle.record.intent;
    match intent.power {
        _ if intent.deleting => "deleteVm",
        DesiredPower::Running | DesiredPower::ColdRunning => "startVm",
        DesiredPower::Stopped | DesiredPower::ForcedOff => "stopVm",
        DesiredPower::Paused => "suspendVm",
        DesiredPower::Saved => "saveVm",
    }
}

/// When the install budget ends.
pub(super) fn wake_at(look: &Look<'_>) -> Option<DateTime<Utc>> {
    let end = look.install_end()?;
    (!look.passed(Milestone::Installed) && end > look.now).then_some(end)
}

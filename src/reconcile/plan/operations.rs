//! What the people who asked are told about the progress of their request.

use std::borrow::Cow;

use super::{Look, OperationUpdate, Step, clone, course::Course, installing, power};
use crate::{
    hypervisor::Copying,
    vm::{
        DesiredPower, DomainObservation, FORCED, FirstBoot, GuestChange, Milestone, Operation,
        OperationError, OperationKind, OperationStatus, VmChange,
    },
};

pub(super) fn update(look: &Look<'_>, course: &Course) -> Vec<OperationUpdate> {
    look.bundle
        .operations
        .iter()
        .filter(|operation| !operation.status.is_final())
        .filter_map(|operation| one(look, course, operation))
        .collect()
}

fn one(look: &Look<'_>, course: &Course, operation: &Operation) -> Option<OperationUpdate> {
    if let Some(change) = &operation.change {
        // Ended by its step, together with what it made of the VM; or given up.
        return match look.gives_change_up() {
            Some(error) => Some(fail(operation, error)),
            None if is_reset(course, operation) => {
                progress(operation, 80, &forced("the guest did not boot anew in time and is reset"))
            }
            None if is_asked(look, operation) => {
                progress(operation, 50, "asked to reboot; waiting for the guest to boot anew")
            }
            None => progress(operation, 10, change.stage()),
        };
    }
    let intent = &look.bundle.record.intent;
    if course.given_up.is_some() && operation.kind != OperationKind::Delete {
        // Failed in the transaction that gives the request up.
        return None;
    }
    let reached = intent.satisfied.max(course.satisfied.unwrap_or(0)) >= operation.generation;
    match operation.kind {
        // Closed by `Forget`, in the transaction that removes the VM.
        OperationKind::Delete => progress(operation, 50, deletion_stage(look, course)),
        OperationKind::Start | OperationKind::Stop | OperationKind::Suspend | OperationKind::Save
            if reached =>
        {
            Some(succeed(operation))
        }
        OperationKind::Start => progress(operation, 30, &stage(look, course)),
        OperationKind::Stop if is_unplugged(look, course) => {
            progress(operation, 80, &forced("the guest did not power off in time, and its plug is pulled"))
        }
        OperationKind::Stop => progress(operation, 30, "waiting for the guest to power off"),
        OperationKind::Suspend => progress(operation, 30, "halting the processors"),
        OperationKind::Save => progress(operation, 30, "writing the memory to disk"),
        OperationKind::Create if look.passed(Milestone::Installed) => Some(succeed(operation)),
        OperationKind::Create if overdue(look) => Some(fail(
            operation,
            OperationError {
                code: "INSTALL_TIMEOUT".to_owned(),
                message: "The first boot did not finish in time; look at the console (`virsh console`)"
                    .to_owned(),
            },
        )),
        OperationKind::Create => match installing::failure(look) {
            Some(error) => Some(fail(operation, error)),
            None => progress(operation, create_progress(look), &stage(look, course)),
        },
        OperationKind::Clone if look.passed(Milestone::Defined) && (intent.power.is_off() || reached) => {
            Some(succeed(operation))
        }
        OperationKind::Clone => {
            let stage = clone::stage(look).map_or_else(|| stage(look, course), Cow::Borrowed);
            progress(operation, clone::progress(look), &stage)
        }
        // Every other kind carries its change, which was answered for above.
        _ => None,
    }
}

/// Whether a reboot was asked of the guest.
fn is_asked(look: &Look<'_>, operation: &Operation) -> bool {
    look.memory.reboot_asked.is_some_and(|(by, _)| by == operation.id)
}

/// Whether a guest that was asked to reboot is reset instead.
fn is_reset(course: &Course, operation: &Operation) -> bool {
    let politely = matches!(operation.change, Some(VmChange::Guest(GuestChange::Reboot { force: false })));
    politely && course.step == Some(Step::Change(operation.id))
}

/// Whether a guest that was asked to power off is powered off instead.
fn is_unplugged(look: &Look<'_>, course: &Course) -> bool {
    let politely = look.bundle.record.intent.power == DesiredPower::Stopped;
    politely && course.step == Some(Step::Destroy) && look.now >= power::stop_deadline(look)
}

fn forced(words: &str) -> String {
    format!("{FORCED}{words}")
}

fn overdue(look: &Look<'_>) -> bool {
    look.install_end().is_some_and(|end| look.now >= end)
}

fn create_progress(look: &Look<'_>) -> i32 {
    let first_boot = look.observed.link.open().filter(|link| link.last_message_at.is_some());
    let steps = [
        (Milestone::DiskCreated, 10),
        (Milestone::SeedWritten, 20),
        (Milestone::Defined, 30),
        (Milestone::FirstStarted, 40),
        (Milestone::FirstSeen, 70),
    ];
    let passed =
        steps.iter().filter(|(milestone, _)| look.passed(*milestone)).map(|(_, percent)| *percent).max();
    match first_boot.map(|link| &link.first_boot) {
        Some(FirstBoot::Finished { .. }) => 90,
        _ => installing::percent(look).or(passed).unwrap_or(0),
    }
}

fn stage(look: &Look<'_>, course: &Course) -> Cow<'static, str> {
    let runs = matches!(&look.observed.domain, DomainObservation::Present(facts) if facts.state.is_active());
    match installing::stage(look).filter(|_| runs && course.step.is_none()) {
        Some(stage) => stage.into(),
        None => plain_stage(look, course).into(),
    }
}

fn plain_stage(look: &Look<'_>, course: &Course) -> &'static str {
    match &course.step {
        Some(Step::ReplaceBoot) => "setting the domain up to boot from its disk",
        Some(Step::CreateDisk) => "creating the disk",
        Some(Step::WriteSeed) if look.bundle.record.spec.installation().is_some() => {
            "taking the installer out of its disc"
        }
        Some(Step::WriteSeed) => "writing the seed medium",
        Some(Step::Define) => "defining the domain",
        Some(Step::Start) => "starting the domain",
        Some(Step::DiscardSaved) => "dropping what was saved",
        Some(Step::Resume) => "resuming the domain",
        _ if look.memory.failure.is_some() => "a step failed and is tried again",
        _ => match &look.observed.domain {
            DomainObservation::Unknown => "waiting for libvirt",
            DomainObservation::Present(facts) if !facts.state.is_active() => "the domain is off",
            _ if look.passed(Milestone::FirstSeen) => "the agent is heard; the first boot is at work",
            _ if look.passed(Milestone::FirstStarted) => "booting; waiting for the agent",
            _ => "waiting",
        },
    }
}

fn deletion_stage(look: &Look<'_>, course: &Course) -> &'static str {
    match &course.step {
        Some(Step::Destroy) => "stopping the domain",
        Some(Step::Undefine) => "undefining the domain",
        Some(Step::Remove(_) | Step::RemoveSocket) => "removing disks and files",
        Some(_) => "closing",
        None => match look.observed.copying {
            Copying::Nothing => "waiting",
            Copying::UnderWay(_) => "waiting for the end of a disk's copy, which libvirt makes",
            Copying::Stalled => {
                "waiting for a disk's copy, of which nothing was written for 5 min: look at its pool"
            }
        },
    }
}

fn succeed(operation: &Operation) -> OperationUpdate {
    OperationUpdate::Finish { id: operation.id, status: OperationStatus::Succeeded, error: None }
}

fn fail(operation: &Operation, error: OperationError) -> OperationUpdate {
    OperationUpdate::Finish { id: operation.id, status: OperationStatus::Failed, error: Some(error) }
}

/// Only what is news; progress never goes backwards.
fn progress(operation: &Operation, percent: i32, stage: &str) -> Option<OperationUpdate> {
    let percent = percent.max(operation.progress);
    let news = operation.status == OperationStatus::Pending
        || percent != operation.progress
        || stage != operation.stage;
    news.then(|| OperationUpdate::Progress { id: operation.id, progress: percent, stage: stage.to_owned() })
}

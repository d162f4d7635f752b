//! Whatever is told as wrong says what to do about it: a mutation of the API, a command of the host or
//! a place to look at.

use std::collections::BTreeSet;

use regex::Regex;

use super::{installing as installs, *};
use crate::vm::{Condition, ConditionStatus, OnCrash, Origin, StorageObservation};

const SCHEMA: &str = include_str!("../../../../schema.graphql");
/// Where conditions are drawn up.
const SOURCES: [&str; 4] = [
    include_str!("../conditions.rs"),
    include_str!("../disks.rs"),
    include_str!("../drift.rs"),
    include_str!("../installing/told.rs"),
];
/// The reasons of conditions that are as they should be, or only tell how far something is.
const RIGHT: [&str; 13] = [
    "Answers",
    "AsAsked",
    "Booting",
    "Done",
    "Enough",
    "Finished",
    "FirstBootRunning",
    "Heard",
    "InStep",
    "Installing",
    "Present",
    "SystemInstalled",
    "Usable",
];
/// Programs of the host or the guest that a person runs.
const COMMANDS: [&str; 6] = ["infinibayd", "ss", "systemctl", "timedatectl", "virsh", "w32tm"];
/// Places to look at that have no command.
const PLACES: [&str; 2] = ["service infiniservice in the guest", "libvirt's log"];

/// The fields of the root types.
fn of_the_api() -> BTreeSet<&'static str> {
    let root = |name: &str| {
        let begin = format!("type {name} {{");
        let from = SCHEMA.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
        let body = &SCHEMA[from..];
        &body[..body.find("\n}").expect("an end")]
    };
    let field = Regex::new(r"(?m)^\t([a-z]\w*)[(:]").unwrap();
    ["Mutation", "Query"]
        .into_iter()
        .flat_map(|name| field.captures_iter(root(name)).map(|found| found.get(1).unwrap().as_str()))
        .collect()
}

/// What a message tells to do.
fn advice<'a>(message: &'a str, api: &BTreeSet<&str>) -> Vec<&'a str> {
    let quoted = message.split('`').skip(1).step_by(2).filter(|quoted| {
        let first = quoted.split(' ').next().unwrap_or_default();
        api.contains(quoted) || COMMANDS.contains(&first)
    });
    quoted.chain(PLACES.iter().copied().filter(|place| message.contains(place))).collect()
}

fn is_wrong(condition: &Condition) -> bool {
    match condition.kind {
        ConditionKind::HypervisorReachable
        | ConditionKind::ChannelPresent
        | ConditionKind::AgentConnected
        | ConditionKind::DisksPresent
        | ConditionKind::Reconciled => condition.status != ConditionStatus::True,
        ConditionKind::InstallProgressing => {
            condition.status != ConditionStatus::True && condition.reason != "Finished"
        }
        ConditionKind::ClockSkew
        | ConditionKind::StorageLow
        | ConditionKind::DriftedFromIntent
        | ConditionKind::RestartRequired => condition.status != ConditionStatus::False,
    }
}

/// A VM that runs as it was asked to, or did.
fn settled() -> VmBundle {
    let mut vm = bundle();
    made(&mut vm);
    vm.record.intent.satisfied = 1;
    vm
}

fn with(state: DomainState, change: impl FnOnce(&mut DomainFacts)) -> Observation {
    let DomainObservation::Present(mut facts) = domain(state) else { unreachable!() };
    change(&mut facts);
    observed(DomainObservation::Present(facts))
}

fn failing(step: &'static str, attempts: u32) -> Memory {
    let mut memory = memory();
    memory.enter(1, None);
    memory.failure = Some(Failure { step, attempts, message: "no space".to_owned(), retry_at: now() });
    memory
}

fn looping(mut memory: Memory, boot_loop: bool) -> Memory {
    memory.boot_loop = boot_loop;
    memory
}

/// A link that is open and silent, or that cannot be opened.
fn silent_links() -> Vec<LinkObservation> {
    let LinkObservation::Open(mute) = heard(3600, FirstBoot::NotReported) else { unreachable!() };
    let never = OpenLink { last_message_at: None, greeted_at: None, ..mute.clone() };
    let last_error = Some("a symbolic link stands in its place".to_owned());
    let closed = |seal| LinkObservation::Connecting {
        since: now(),
        last_error: last_error.clone(),
        seal,
        counters: LinkCounters::default(),
    };
    let refused = OpenLink { seal: LinkSeal::Refused, ..never.clone() };
    vec![
        LinkObservation::None,
        LinkObservation::Open(mute),
        LinkObservation::Open(never),
        LinkObservation::Open(refused),
        closed(LinkSeal::Unused),
        closed(LinkSeal::Refused),
    ]
}

fn of_the_agent(plans: &mut Vec<Plan>) {
    let (mut unseen, known) = (settled(), settled());
    unseen.record.milestones.first_seen = None;
    for link in silent_links() {
        for guest_connected in [None, Some(false), Some(true)] {
            for state in [DomainState::Running, DomainState::Shutoff] {
                for (vm, memory) in [(&unseen, memory()), (&known, memory()), (&known, Memory::new(now()))] {
                    let mut seen = with(state, |facts| {
                        facts.channel.as_mut().unwrap().guest_connected = guest_connected;
                    });
                    seen.link = link.clone();
                    plans.push(decide(vm, &seen, &memory));
                }
            }
        }
    }
    plans.push(decide(&known, &observed(DomainObservation::Absent), &memory()));
    plans.push(decide(&known, &with(DomainState::Running, |facts| facts.channel = None), &memory()));
    let another = PathBuf::from("/run").join(VmId::generate().socket_name());
    let copied = with(DomainState::Running, |facts| facts.channel.as_mut().unwrap().path = another);
    plans.push(decide(&known, &copied, &memory()));
    let mut off = observed(domain(DomainState::Running));
    let LinkObservation::Open(link) = heard(1, FirstBoot::Running) else { unreachable!() };
    off.link = LinkObservation::Open(OpenLink { skew: Some(TimeDelta::hours(1)), ..link });
    plans.push(decide(&known, &off, &memory()));
}

fn of_installs(plans: &mut Vec<Plan>) {
    let mut finished = observed(domain(DomainState::Running));
    finished.link = heard(1, FirstBoot::Finished { errors: vec!["no nginx".to_owned()] });
    let mut image = settled();
    plans.push(decide(&image, &finished, &memory()));
    image.record.spec.image_mut().unwrap().os_family = OsFamily::Windows;
    plans.push(decide(&image, &finished, &memory()));
    let mut debian = installs::debian();
    made(&mut debian);
    debian.record.milestones.pass(Milestone::BootReplaced, now());
    plans.push(decide(&debian, &finished, &memory()));

    let mut slow = settled();
    slow.record.milestones.installed = None;
    plans.push(decide(&slow, &observed(domain(DomainState::Running)), &memory()));

    let debian = installs::debian();
    let (on, off) = (installs::seen(DomainState::Running), installs::seen(DomainState::Shutoff));
    let mut mute = on.clone();
    mute.install = None;
    let failed = installs::reported(installs::debian(), "failed");
    let mut stopped = installs::debian();
    stopped.record.intent.power = DesiredPower::Stopped;
    let mut late = installs::debian();
    late.record.milestones.first_started = Some(now() - TimeDelta::days(1));
    late.record.intent.asked_at = now() - TimeDelta::days(1);
    for (vm, seen, silence) in [
        (&debian, &on, 3600),
        (&debian, &mute, 3600),
        (&late, &on, 0),
        (&failed, &on, 0),
        (&debian, &off, 60),
        (&stopped, &off, 60),
    ] {
        plans.push(decide(vm, seen, &installs::silent(silence)));
    }
}

fn of_disks(plans: &mut Vec<Plan>) {
    let pool = || "default".to_owned();
    let fine = StorageObservation::default;
    let low = StorageObservation { low: vec![pool()], ..fine() };
    let missing = |count| vec![(pool(), "vol".to_owned()); count];
    for (reason, storage) in [
        (1, StorageObservation { missing: missing(1), ..fine() }),
        (1, StorageObservation { missing: missing(3), ..fine() }),
        (1, StorageObservation { silent: vec![pool()], ..fine() }),
        (5, fine()),
        (5, low.clone()),
        (1, low),
    ] {
        let paused = with(DomainState::Paused, |facts| facts.reason = reason);
        plans.push(decide(&settled(), &Observation { storage, ..paused }, &memory()));
    }
}

fn of_power(plans: &mut Vec<Plan>) {
    use DesiredPower::{Paused, Running, Saved, Stopped};
    for (power, state, reason) in [
        (Running, DomainState::Suspended, 1),
        (Running, DomainState::Paused, 5),
        (Running, DomainState::Paused, 1),
        (Running, DomainState::Shutoff, 0),
        (Running, DomainState::Shutoff, 1),
        (Running, DomainState::Shutoff, 2),
        (Running, DomainState::Shutoff, 3),
        (Stopped, DomainState::Running, 1),
        (Saved, DomainState::Shutoff, 1),
        (Paused, DomainState::Shutoff, 1),
        (Paused, DomainState::Running, 1),
    ] {
        let mut vm = settled();
        vm.record.intent.power = power;
        plans.push(decide(&vm, &with(state, |facts| facts.reason = reason), &memory()));
    }
    let mut restarted = settled();
    restarted.record.spec.keeping.on_crash = OnCrash::Restart;
    let crashed = with(DomainState::Shutoff, |facts| facts.reason = 3);
    for boot_loop in [false, true] {
        plans.push(decide(&restarted, &crashed, &looping(memory(), boot_loop)));
    }
    let mut gone = memory();
    gone.missing_since = Some(now() - TimeDelta::minutes(1));
    let mut adopted = settled();
    adopted.record.spec.origin = Origin::Adopted { macs: Vec::new() };
    for vm in [settled(), adopted] {
        plans.push(decide(&vm, &observed(DomainObservation::Absent), &gone));
    }
    let waiting = vec!["vCPUs: 4".to_owned()];
    for changed in [
        with(DomainState::Running, |facts| facts.name = "other".to_owned()),
        with(DomainState::Running, |facts| facts.persistent = false),
        with(DomainState::Running, |facts| facts.waiting = waiting),
    ] {
        plans.push(decide(&settled(), &changed, &memory()));
    }
}

fn of_steps(plans: &mut Vec<Plan>) {
    use DesiredPower::{ColdRunning, ForcedOff, Paused, Running, Saved, Stopped};
    let unknown = observed(DomainObservation::Unknown);
    plans.push(decide(&settled(), &unknown, &memory()));
    plans.push(decide(&settled(), &Observation { busy: true, ..unknown.clone() }, &memory()));
    plans.push(decide(&settled(), &unknown, &looping(failing("Restart", 1), true)));
    for power in [Running, ColdRunning, Stopped, ForcedOff, Paused, Saved] {
        for deleting in [false, true] {
            let mut vm = bundle();
            vm.record.intent = VmIntent { power, deleting, ..vm.record.intent };
            plans.push(decide(&vm, &unknown, &failing("Start", 1)));
            plans.push(decide(&vm, &unknown, &failing("Start", MAX_ATTEMPTS)));
            vm.record.intent.given_up = 1;
            plans.push(decide(&vm, &unknown, &memory()));
        }
    }
}

#[test]
fn whatever_is_wrong_is_told_with_what_to_do() {
    let api = of_the_api();
    assert!(api.contains("startVm") && api.contains("vmConsoleLog") && !api.contains("name"), "{api:?}");
    let mut plans = Vec::new();
    for add in [of_the_agent, of_installs, of_disks, of_power, of_steps] {
        add(&mut plans);
    }
    let wrong: Vec<_> =
        plans.iter().flat_map(|plan| &plan.status.conditions).filter(|found| is_wrong(found)).collect();
    for found in &wrong {
        assert!(!found.message.contains("  "), "{}", found.message);
        let (kind, reason, message) = (found.kind, &found.reason, &found.message);
        assert!(!advice(message, &api).is_empty(), "{kind:?} {reason} says nothing to do: {message}");
        // Nothing is quoted as if it could be asked for, and cannot.
        for quoted in message.split('`').skip(1).step_by(2) {
            assert!(advice(&format!("`{quoted}`"), &api).len() == 1, "there is no `{quoted}`: {message}");
        }
    }

    // Every one that can be drawn up was.
    let literal = Regex::new(r#""([A-Z][a-z]+(?:[A-Z][a-z]+)*)""#).unwrap();
    let drawn: BTreeSet<&str> = SOURCES
        .iter()
        .flat_map(|source| literal.captures_iter(source).map(|found| found.get(1).unwrap().as_str()))
        .filter(|reason| !RIGHT.contains(reason))
        .collect();
    let seen: BTreeSet<&str> = wrong.iter().map(|found| found.reason.as_str()).collect();
    assert_eq!(drawn, seen, "what is drawn up and what was looked at");
}

#[test]
fn what_was_given_up_names_the_mutation_that_asked_for_it() {
    for (power, mutation) in [
        (DesiredPower::Running, "startVm"),
        (DesiredPower::ColdRunning, "startVm"),
        (DesiredPower::Stopped, "stopVm"),
        (DesiredPower::ForcedOff, "stopVm"),
        (DesiredPower::Paused, "suspendVm"),
        (DesiredPower::Saved, "saveVm"),
    ] {
        let mut vm = settled();
        vm.record.intent = VmIntent { power, given_up: 1, ..vm.record.intent };
        for memory in [memory(), failing("Start", MAX_ATTEMPTS)] {
            let plan = decide(&vm, &observed(DomainObservation::Unknown), &memory);
            let told = plan.status.conditions.iter().find(|it| it.kind == ConditionKind::Reconciled).unwrap();
            assert!(told.message.contains(&format!("`{mutation}`")), "{power:?}: {}", told.message);
        }
    }
}

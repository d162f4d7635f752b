//! What is told of a domain that something is wrong with.

use super::*;
use crate::vm::{ConditionStatus, StorageObservation};

fn condition(plan: &Plan, kind: ConditionKind) -> Option<(ConditionStatus, &str)> {
    let found = plan.status.conditions.iter().find(|condition| condition.kind == kind)?;
    Some((found.status, &found.reason))
}

#[test]
fn a_running_domain_without_a_configuration_is_told_as_drift() {
    let mut bundle = bundle();
    made(&mut bundle);
    bundle.record.intent.satisfied = bundle.record.intent.generation;
    let drift = |persistent| {
        let DomainObservation::Present(facts) = domain(DomainState::Running) else { panic!("no domain") };
        let facts = DomainFacts { persistent, ..facts };
        let plan = decide(&bundle, &observed(DomainObservation::Present(facts)), &memory());
        let (status, reason) = condition(&plan, ConditionKind::DriftedFromIntent).unwrap();
        (status, reason.to_owned())
    };
    assert_eq!(drift(false), (ConditionStatus::True, "NotPersistent".to_owned()));
    assert_eq!(drift(true), (ConditionStatus::False, "AsAsked".to_owned()));
}

#[test]
fn why_a_known_agent_cannot_be_reached_is_told_at_once() {
    let mut bundle = bundle();
    made(&mut bundle);
    let mut seen = observed(domain(DomainState::Running));
    let error = "a symbolic link stands in its place".to_owned();
    seen.link = LinkObservation::Connecting {
        since: now(),
        last_error: Some(error.clone()),
        seal: LinkSeal::Unused,
        counters: LinkCounters::default(),
    };
    let plan = decide(&bundle, &seen, &Memory::new(now()));
    assert_eq!(plan.status.agent, AgentConnectivity::Unknown);
    let told = plan.status.conditions.iter().find(|it| it.kind == ConditionKind::AgentConnected).unwrap();
    assert!(told.message.contains(&error), "{}", told.message);
}

#[test]
fn a_channel_at_another_path_is_told_and_used_all_the_same() {
    let mut bundle = bundle();
    made(&mut bundle);
    let mut facts = match domain(DomainState::Running) {
        DomainObservation::Present(facts) => facts,
        other => panic!("{other:?}"),
    };
    let plan = |facts: &DomainFacts, bundle: &VmBundle| {
        decide(bundle, &observed(DomainObservation::Present(facts.clone())), &memory())
    };
    let strange = plan(&facts, &bundle);
    assert_eq!(
        condition(&strange, ConditionKind::ChannelPresent),
        Some((ConditionStatus::False, "WrongPath"))
    );
    assert_eq!(strange.link, LinkWish::Open("/run/a.sock".into()));
    let path = PathBuf::from("/run").join(bundle.record.id.socket_name());
    facts.channel = Some(ChannelFacts { path, guest_connected: None });
    let right = plan(&facts, &bundle);
    assert_eq!(condition(&right, ConditionKind::ChannelPresent), Some((ConditionStatus::True, "Present")));
}

#[test]
fn a_pause_on_an_io_error_is_told_until_it_is_over() {
    let mut bundle = bundle();
    made(&mut bundle);
    let seen = |bundle: &VmBundle, state, reason| {
        let DomainObservation::Present(mut facts) = domain(state) else { panic!("no domain") };
        facts.reason = reason;
        decide(bundle, &observed(DomainObservation::Present(facts)), &memory())
    };
    let disks = ConditionKind::DisksPresent;
    assert_eq!(condition(&seen(&bundle, DomainState::Running, 1), disks), None);
    // Paused by a person: nothing is the matter with the disks.
    assert_eq!(condition(&seen(&bundle, DomainState::Paused, 1), disks), None);
    let failed = seen(&bundle, DomainState::Paused, 5);
    assert_eq!(condition(&failed, disks), Some((ConditionStatus::False, "IoError")));
    bundle.status = Some(failed.status);
    let resumed = seen(&bundle, DomainState::Running, 1);
    assert_eq!(condition(&resumed, disks), Some((ConditionStatus::True, "Usable")));
}

#[test]
fn what_was_said_of_the_disks_stands_until_something_else_is_seen() {
    let mut bundle = bundle();
    made(&mut bundle);
    let (disks, low) = (ConditionKind::DisksPresent, ConditionKind::StorageLow);
    let pool = || "default".to_owned();
    let seen = |bundle: &VmBundle, domain: DomainObservation, storage: StorageObservation| {
        decide(bundle, &Observation { storage, ..observed(domain) }, &memory())
    };
    let fine = StorageObservation::default;
    let running = || domain(DomainState::Running);

    let missing = StorageObservation { missing: vec![(pool(), "vol".to_owned())], ..fine() };
    let told = seen(&bundle, running(), missing.clone());
    assert_eq!(condition(&told, disks), Some((ConditionStatus::False, "DiskMissing")));
    let message = &told.status.conditions.iter().find(|found| found.kind == disks).unwrap().message;
    assert!(message.contains("\"default\"") && message.contains("\"vol\""), "{message}");
    bundle.status = Some(told.status);
    // After a restart, before the pools were looked at.
    let partial = StorageObservation { partial: true, ..fine() };
    let stands = seen(&bundle, DomainObservation::Unknown, partial.clone());
    assert_eq!(condition(&stands, disks), Some((ConditionStatus::False, "DiskMissing")));
    let silent = StorageObservation { silent: vec![pool()], ..fine() };
    let unknown = seen(&bundle, running(), silent);
    assert_eq!(condition(&unknown, disks), Some((ConditionStatus::Unknown, "PoolSilent")));
    assert_eq!(condition(&seen(&bundle, running(), fine()), disks), Some((ConditionStatus::True, "Usable")));
    bundle.record.intent.deleting = true;
    assert_eq!(condition(&seen(&bundle, running(), missing), disks), None, "it is to be gone");
    bundle.record.intent.deleting = false;

    let full = StorageObservation { low: vec![pool()], ..fine() };
    let DomainObservation::Present(mut facts) = domain(DomainState::Paused) else { panic!("no domain") };
    facts.reason = 5;
    let told = seen(&bundle, DomainObservation::Present(facts), full);
    assert_eq!(condition(&told, disks), Some((ConditionStatus::False, "PoolFull")));
    assert_eq!(condition(&told, low), Some((ConditionStatus::True, "PoolNearlyFull")));
    bundle.status = Some(told.status);
    let away = seen(&bundle, DomainObservation::Unknown, partial);
    assert_eq!(condition(&away, disks), Some((ConditionStatus::False, "PoolFull")), "unknown is not usable");
    assert_eq!(condition(&away, low), Some((ConditionStatus::True, "PoolNearlyFull")));
    let over = seen(&bundle, running(), fine());
    assert_eq!(condition(&over, low), Some((ConditionStatus::False, "Enough")));
}

#[test]
fn nothing_is_sent_through_another_vms_socket() {
    let mut bundle = bundle();
    made(&mut bundle);
    let with = |socket: String| {
        let DomainObservation::Present(mut facts) = domain(DomainState::Running) else { panic!("no domain") };
        facts.channel =
            Some(ChannelFacts { path: PathBuf::from("/run").join(socket), guest_connected: None });
        decide(&bundle, &observed(DomainObservation::Present(facts)), &memory())
    };
    let copy = with(VmId::generate().socket_name());
    assert_eq!(copy.link, LinkWish::Close(LinkEnd::ChannelClosed));
    let channel = ConditionKind::ChannelPresent;
    assert_eq!(condition(&copy, channel), Some((ConditionStatus::False, "AnothersSocket")));
    let own = with(bundle.record.id.socket_name());
    assert!(matches!(own.link, LinkWish::Open(_)));
    assert_eq!(condition(&own, channel), Some((ConditionStatus::True, "Present")));
}

#[test]
fn who_adopted_a_domain_that_is_gone_is_told_to_release_it() {
    let mut bundle = bundle();
    made(&mut bundle);
    let mut memory = memory();
    memory.missing_since = Some(now() - TimeDelta::minutes(1));
    let message = |bundle: &VmBundle| {
        let plan = decide(bundle, &observed(DomainObservation::Absent), &memory);
        let kind = ConditionKind::DriftedFromIntent;
        plan.status.conditions.into_iter().find(|found| found.kind == kind).unwrap().message
    };
    assert!(message(&bundle).contains("`deleteVm`"));
    bundle.record.spec.origin = crate::vm::Origin::Adopted { macs: Vec::new() };
    assert!(message(&bundle).contains("`releaseDomain`") && !message(&bundle).contains("delete"));
}

//! What is told of a domain that something is wrong with.

use super::*;
use crate::vm::ConditionStatus;

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

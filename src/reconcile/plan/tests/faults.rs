//! What is told of a domain that something is wrong with.

use super::*;
use crate::vm::ConditionStatus;

fn condition(plan: &Plan, kind: ConditionKind) -> Option<(ConditionStatus, &str)> {
    let found = plan.status.conditions.iter().find(|condition| condition.kind == kind)?;
    Some((found.status, &found.reason))
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

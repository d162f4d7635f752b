//! The decision, by table and by property.

mod clone;
mod faults;
mod frost;
mod installing;
mod power;
mod words;

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::{
    hypervisor::Reboots,
    reconcile::memory::Failure,
    vm::{
        AgentConnectivity, Base, ChannelFacts, ConditionKind, DesiredPower, DomainFacts, Firmware, HostId,
        Image, ImageFormat, LinkCounters, LinkEnd, LinkObservation, LinkSeal, Milestones, NetworkAttachment,
        OpenLink, Operation, OperationKind, OsFamily, PowerKeeping, Provisioning, Resource, ResourceKind,
        ResourceState, SocketObservation, Unattended, UserId, VmId, VmIntent, VmPhase, VmRecord, VmSpec,
    },
};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn rules() -> Rules {
    Rules {
        stop_grace: Duration::from_secs(90),
        reboot_grace: Duration::from_secs(60),
        missing_grace: Duration::from_secs(15),
        install_budget: Duration::from_secs(1800),
        installs: InstallsConfig::default(),
        install_reports: true,
        offline_after: Duration::from_secs(60),
        max_clock_skew: Duration::from_secs(300),
        socket_dir: "/run".into(),
    }
}

fn spec() -> VmSpec {
    VmSpec {
        name: "web-1".parse().unwrap(),
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "debian".parse().unwrap(),
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::CloudInit,
            disk: PathBuf::from("/images/debian/disk.qcow2"),
            format: ImageFormat::Qcow2,
            virtual_bytes: 1 << 30,
            sha256: String::new(),
            kernel: None,
        }),
        vcpus: 1,
        memory_mib: 512,
        disk_bytes: 1 << 30,
        pool: "default".parse().unwrap(),
        network: NetworkAttachment::None,
        unattended: Unattended::default(),
        keeping: PowerKeeping::default(),
        devices: Default::default(),
        origin: crate::vm::Origin::Created,
    }
}

pub(in crate::reconcile) fn bundle() -> VmBundle {
    let id = VmId::generate();
    let owner = UserId::generate();
    let record = VmRecord {
        id,
        host: HostId::generate(),
        owner,
        spec: spec(),
        intent: VmIntent {
            power: DesiredPower::Running,
            deleting: false,
            generation: 1,
            satisfied: 0,
            given_up: 0,
            asked_at: now(),
        },
        milestones: Milestones::default(),
        created_at: now(),
    };
    let operation = Operation {
        id: OperationId::generate(),
        vm: id,
        kind: OperationKind::Create,
        status: OperationStatus::Pending,
        progress: 0,
        stage: String::new(),
        error: None,
        change: None,
        effect: None,
        generation: 1,
        requested_by: owner,
        created_at: now(),
        finished_at: None,
    };
    VmBundle {
        record,
        status: None,
        operations: vec![operation],
        resources: Vec::new(),
        install_report: None,
        seal: None,
    }
}

fn resource(bundle: &VmBundle, kind: ResourceKind) -> Resource {
    Resource {
        vm: bundle.record.id,
        kind,
        place: "default".to_owned(),
        name: format!("{kind:?}"),
        state: ResourceState::Created,
    }
}

pub(in crate::reconcile) fn domain(state: DomainState) -> DomainObservation {
    DomainObservation::Present(DomainFacts {
        name: "web-1".to_owned(),
        state,
        reason: 1,
        persistent: true,
        managed_save: false,
        channel: Some(ChannelFacts { path: "/run/a.sock".into(), guest_connected: None }),
        interfaces: Vec::new(),
        waiting: Vec::new(),
        about: crate::vm::DomainAbout::default(),
    })
}

fn observed(domain: DomainObservation) -> Observation {
    Observation {
        loan: Default::default(),
        copying: Default::default(),
        domain,
        busy: false,
        reboots: Reboots::default(),
        link: LinkObservation::None,
        storage: crate::vm::StorageObservation::default(),
        socket: SocketObservation::Missing,
        install: None,
    }
}

fn heard(ago: i64, first_boot: FirstBoot) -> LinkObservation {
    LinkObservation::Open(OpenLink {
        since: now() - TimeDelta::seconds(ago + 5),
        last_message_at: Some(now() - TimeDelta::seconds(ago)),
        greeted_at: Some(now() - TimeDelta::seconds(ago)),
        version: Some("1".to_owned()),
        platform: None,
        capabilities: Vec::new(),
        reported_state: None,
        actions: None,
        skew: None,
        first_boot,
        seal: LinkSeal::Unused,
        counters: LinkCounters::default(),
    })
}

fn made(bundle: &mut VmBundle) {
    for milestone in [
        Milestone::DiskCreated,
        Milestone::SeedWritten,
        Milestone::Defined,
        Milestone::FirstStarted,
        Milestone::FirstSeen,
        Milestone::Installed,
        Milestone::SeedScrubbed,
    ] {
        bundle.record.milestones.pass(milestone, now() - TimeDelta::hours(1));
    }
}

fn decide(bundle: &VmBundle, observed: &Observation, memory: &Memory) -> Plan {
    plan(&rules(), now(), bundle, observed, memory)
}

fn memory() -> Memory {
    Memory::new(now() - TimeDelta::hours(1))
}

#[test]
fn a_new_vm_is_made_step_by_step() {
    let mut vm = bundle();
    let absent = observed(DomainObservation::Absent);
    for (expected, milestone) in [
        (Step::CreateDisk, Milestone::DiskCreated),
        (Step::WriteSeed, Milestone::SeedWritten),
        (Step::Define, Milestone::Defined),
    ] {
        let plan = decide(&vm, &absent, &memory());
        assert_eq!((plan.step, plan.status.phase), (Some(expected), VmPhase::Provisioning));
        vm.record.milestones.pass(milestone, now());
    }
    let plan = decide(&vm, &observed(domain(DomainState::Shutoff)), &memory());
    assert_eq!((plan.step, plan.status.phase), (Some(Step::Start), VmPhase::Starting));
    let plan = decide(&vm, &observed(domain(DomainState::Running)), &memory());
    assert_eq!((plan.step, plan.satisfied, plan.status.phase), (None, Some(1), VmPhase::Installing));
    assert_eq!(plan.link, LinkWish::Open("/run/a.sock".into()));
}

#[test]
fn a_create_ends_when_the_first_boot_is_finished_and_not_before() {
    let mut vm = bundle();
    vm.record.milestones.pass(Milestone::Defined, now());
    vm.record.milestones.pass(Milestone::SeedWritten, now());
    let mut seen = observed(domain(DomainState::Running));
    seen.link = heard(1, FirstBoot::Running);
    let plan = decide(&vm, &seen, &memory());
    assert!(
        plan.milestones.contains(&Milestone::FirstSeen) && !plan.milestones.contains(&Milestone::Installed)
    );
    assert!(matches!(plan.operations[..], [OperationUpdate::Progress { .. }]), "{:?}", plan.operations);
    seen.link = heard(1, FirstBoot::Finished { errors: vec![] });
    let plan = decide(&vm, &seen, &memory());
    assert!(plan.milestones.contains(&Milestone::Installed));
    assert!(matches!(
        plan.operations[..],
        [OperationUpdate::Finish { status: OperationStatus::Succeeded, .. }]
    ));
    assert_eq!((plan.status.phase, plan.status.agent), (VmPhase::Running, AgentConnectivity::Online));
}

#[test]
fn the_seed_is_scrubbed_once_the_system_is_installed() {
    let mut vm = bundle();
    made(&mut vm);
    vm.record.milestones.seed_scrubbed = None;
    vm.record.intent.satisfied = 1;
    let plan = decide(&vm, &observed(domain(DomainState::Running)), &memory());
    assert_eq!(plan.step, Some(Step::ScrubSeed));
}

#[test]
fn power_is_satisfied_once_and_then_the_guest_is_followed() {
    let mut vm = bundle();
    made(&mut vm);
    vm.record.intent.satisfied = 1;
    let plan = decide(&vm, &observed(domain(DomainState::Shutoff)), &memory());
    assert_eq!((plan.step, plan.status.phase), (None, VmPhase::Stopped));
}

#[test]
fn a_stop_is_polite_first_and_forced_after_the_grace() {
    let mut vm = bundle();
    made(&mut vm);
    vm.record.intent.power = DesiredPower::Stopped;
    let running = observed(domain(DomainState::Running));
    let plan = decide(&vm, &running, &memory());
    assert_eq!((plan.step, plan.status.phase), (Some(Step::RequestShutdown), VmPhase::Stopping));
    let mut asked = memory();
    asked.enter(1, None);
    asked.shutdown_asked_at = Some(now());
    let plan = decide(&vm, &running, &asked);
    assert_eq!(plan.step, None);
    assert_eq!(plan.wake_at, Some(now() + TimeDelta::seconds(20)));
    // However long ago it was asked for: the grace counts from the first try.
    vm.record.intent.asked_at = now() - TimeDelta::hours(1);
    asked.stopping_since = Some(now() - TimeDelta::seconds(89));
    assert_eq!(decide(&vm, &running, &asked).step, None);
    asked.stopping_since = Some(now() - TimeDelta::seconds(90));
    assert_eq!(decide(&vm, &running, &asked).step, Some(Step::Destroy));
    // A guest that cannot even be asked is cut off then, too.
    asked.failure = Some(Failure {
        step: "RequestShutdown",
        attempts: 0,
        message: "busy".to_owned(),
        retry_at: now() + TimeDelta::seconds(30),
    });
    assert_eq!(decide(&vm, &running, &asked).step, Some(Step::Destroy));
}

#[test]
fn a_domain_that_is_gone_becomes_missing_after_the_grace_and_is_never_made_again() {
    let mut vm = bundle();
    made(&mut vm);
    let absent = observed(DomainObservation::Absent);
    let mut lately = memory();
    lately.missing_since = Some(now());
    let plan = decide(&vm, &absent, &lately);
    assert_eq!((plan.step, plan.status.phase), (None, VmPhase::Unknown));
    assert_eq!(plan.wake_at, Some(now() + TimeDelta::seconds(15)));
    lately.missing_since = Some(now() - TimeDelta::seconds(16));
    let plan = decide(&vm, &absent, &lately);
    assert_eq!((plan.step, plan.status.phase), (None, VmPhase::Missing));
    assert!(plan.given_up.is_some_and(|(generation, error)| generation == 1 && error.code == "VM_MISSING"));
}

#[test]
fn a_deletion_goes_in_order() {
    let mut vm = bundle();
    made(&mut vm);
    vm.record.intent.deleting = true;
    vm.resources = vec![resource(&vm, ResourceKind::Seed), resource(&vm, ResourceKind::Volume)];
    let plan = decide(&vm, &observed(domain(DomainState::Paused)), &memory());
    assert_eq!((plan.step, plan.link), (Some(Step::Destroy), LinkWish::Close(LinkEnd::VmDeleted)));
    let plan = decide(&vm, &observed(domain(DomainState::Shutoff)), &memory());
    assert_eq!(plan.step, Some(Step::Undefine));
    let mut absent = observed(DomainObservation::Absent);
    absent.socket = SocketObservation::Present;
    let plan = decide(&vm, &absent, &memory());
    assert_eq!(plan.step, Some(Step::Remove(resource(&vm, ResourceKind::Volume))));
    vm.resources = vec![resource(&vm, ResourceKind::Seed)];
    assert_eq!(decide(&vm, &absent, &memory()).step, Some(Step::RemoveSocket));
    absent.socket = SocketObservation::Missing;
    assert_eq!(decide(&vm, &absent, &memory()).step, Some(Step::Remove(resource(&vm, ResourceKind::Seed))));
    vm.resources.clear();
    assert_eq!(decide(&vm, &absent, &memory()).step, Some(Step::Forget));
}

#[test]
fn a_request_that_keeps_failing_is_given_up_and_told() {
    let vm = bundle();
    let mut failing = memory();
    failing.enter(1, None);
    failing.failure = Some(Failure {
        step: "CreateDisk",
        attempts: MAX_ATTEMPTS,
        message: "no space".to_owned(),
        retry_at: now(),
    });
    let plan = decide(&vm, &observed(DomainObservation::Absent), &failing);
    assert_eq!((plan.step, plan.satisfied, plan.status.phase), (None, None, VmPhase::Failed));
    let Some((1, error)) = &plan.given_up else { panic!("{:?}", plan.given_up) };
    assert!(error.message.contains("no space"));

    // It stays told, also by a controller that does not remember.
    let mut vm = vm;
    vm.record.intent.satisfied = 1;
    vm.record.intent.given_up = 1;
    vm.status = Some(plan.status);
    for memory in [failing, memory()] {
        let plan = decide(&vm, &observed(DomainObservation::Absent), &memory);
        assert_eq!((plan.step, plan.given_up, plan.status.phase), (None, None, VmPhase::Failed));
        let told =
            plan.status.conditions.iter().find(|condition| condition.kind == ConditionKind::Reconciled);
        let told = told.expect("the condition");
        assert!(told.message.contains("no space") && told.message.contains("given up"), "{told:?}");
    }
}

#[test]
fn what_is_reached_does_not_wait_for_what_failed_on_the_way() {
    let mut vm = bundle();
    vm.record.milestones.pass(Milestone::Defined, now());
    let mut failing = memory();
    failing.enter(1, None);
    failing.failure = Some(Failure {
        step: "Start",
        attempts: MAX_ATTEMPTS,
        message: "in vain".to_owned(),
        retry_at: now() + TimeDelta::seconds(30),
    });
    let plan = decide(&vm, &observed(domain(DomainState::Running)), &failing);
    assert_eq!((plan.satisfied, plan.given_up), (Some(1), None));
    let plan = decide(&vm, &observed(domain(DomainState::Shutoff)), &failing);
    assert!(plan.given_up.is_some() && plan.step.is_none());
    failing.failure.as_mut().unwrap().attempts = 1;
    let plan = decide(&vm, &observed(domain(DomainState::Shutoff)), &failing);
    assert_eq!((plan.step, plan.wake_at), (None, Some(now() + TimeDelta::seconds(30))));
}

#[test]
fn what_waits_for_the_next_start_is_told_while_the_domain_runs() {
    let mut bundle = bundle();
    made(&mut bundle);
    let told = |state: DomainState, waiting: &[&str]| {
        let DomainObservation::Present(mut facts) = domain(state) else { panic!("the domain is there") };
        facts.waiting = waiting.iter().map(ToString::to_string).collect();
        let plan = decide(&bundle, &observed(DomainObservation::Present(facts)), &memory());
        let kind = ConditionKind::RestartRequired;
        plan.status.conditions.into_iter().find(|condition| condition.kind == kind)
    };
    assert_eq!(told(DomainState::Running, &[]), None);
    assert_eq!(told(DomainState::Shutoff, &["a disk"]), None, "the next start brings it");
    for state in [DomainState::Running, DomainState::Paused] {
        let condition = told(state, &["2 processors", "a disk"]).expect("it is told");
        assert_eq!(condition.status, crate::vm::ConditionStatus::True);
        assert!(condition.message.contains("2 processors; a disk"), "{}", condition.message);
    }
}

#[test]
fn silence_means_different_things_in_different_states() {
    let mut vm = bundle();
    made(&mut vm);
    vm.record.intent.satisfied = 1;
    let mut online = memory();
    online.agent = Some(AgentConnectivity::Online);
    for (state, link, memory, expected) in [
        (DomainState::Running, heard(59, FirstBoot::NotReported), &online, AgentConnectivity::Online),
        (DomainState::Running, heard(61, FirstBoot::NotReported), &online, AgentConnectivity::Offline),
        (DomainState::Paused, heard(3600, FirstBoot::NotReported), &online, AgentConnectivity::Online),
        (DomainState::Unknown, heard(59, FirstBoot::NotReported), &online, AgentConnectivity::Online),
        (DomainState::Unknown, heard(61, FirstBoot::NotReported), &online, AgentConnectivity::Unknown),
        (DomainState::Unknown, LinkObservation::None, &online, AgentConnectivity::Unknown),
        (DomainState::Running, LinkObservation::None, &online, AgentConnectivity::Offline),
        (DomainState::Shutoff, LinkObservation::None, &online, AgentConnectivity::Offline),
        (DomainState::Running, LinkObservation::None, &Memory::new(now()), AgentConnectivity::Unknown),
        (DomainState::Running, LinkObservation::None, &memory(), AgentConnectivity::Offline),
    ] {
        let mut seen = observed(domain(state));
        seen.link = link;
        assert_eq!(decide(&vm, &seen, memory).status.agent, expected, "{seen:?}");
    }
    for (before, expected) in [
        (AgentConnectivity::Online, AgentConnectivity::Unknown),
        (AgentConnectivity::Offline, AgentConnectivity::Offline),
    ] {
        let mut memory = memory();
        memory.agent = Some(before);
        assert_eq!(decide(&vm, &observed(DomainObservation::Unknown), &memory).status.agent, expected);
    }
    vm.record.milestones.first_seen = None;
    let plan = decide(&vm, &observed(domain(DomainState::Running)), &memory());
    assert_eq!(plan.status.agent, AgentConnectivity::NeverSeen);
}

#[test]
fn silence_says_what_may_be_the_matter() {
    let mut vm = bundle();
    made(&mut vm);
    vm.record.intent.satisfied = 1;
    let unheard = || match heard(61, FirstBoot::NotReported) {
        LinkObservation::Open(open) => LinkObservation::Open(OpenLink { last_message_at: None, ..open }),
        other => other,
    };
    let connecting = |error: &str| LinkObservation::Connecting {
        since: now(),
        last_error: Some(error.to_owned()),
        seal: LinkSeal::Unused,
        counters: LinkCounters::default(),
    };
    for (link, guest_connected, words) in [
        (heard(61, FirstBoot::NotReported), None, "fell silent"),
        (unheard(), Some(false), "nobody in the guest listens"),
        (unheard(), Some(true), "may hold the channel (`ss -xp` shows it), or the agent hangs"),
        (unheard(), None, "the agent may not run in the guest"),
        (unheard(), None, "another program of this host may hold the channel"),
        (connecting("nobody listens on the socket"), None, "cannot be opened: nobody listens"),
        (LinkObservation::None, None, ""),
    ] {
        for seen_before in [true, false] {
            let mut domain = domain(DomainState::Running);
            if let DomainObservation::Present(facts) = &mut domain
                && let Some(channel) = &mut facts.channel
            {
                channel.guest_connected = guest_connected;
            }
            let mut seen = observed(domain);
            seen.link = link.clone();
            vm.record.milestones.first_seen = seen_before.then(now);
            let status = decide(&vm, &seen, &memory()).status;
            let condition = status
                .conditions
                .into_iter()
                .find(|condition| condition.kind == crate::vm::ConditionKind::AgentConnected)
                .unwrap();
            // One whose words are only old was heard, whether that was noted or not.
            let seen_before = seen_before || link.open().is_some_and(|open| open.last_message_at.is_some());
            let reason = if seen_before { "Silent" } else { "NeverSeen" };
            assert_eq!(
                (condition.status, condition.reason.as_str()),
                (crate::vm::ConditionStatus::False, reason),
                "{seen:?}"
            );
            assert!(condition.message.contains(words), "{words:?} is not in {:?}", condition.message);
            assert_eq!(condition.message.contains("never been heard"), !seen_before);
        }
    }
}

fn any_state() -> impl Strategy<Value = DomainState> {
    prop_oneof![
        Just(DomainState::Running),
        Just(DomainState::Blocked),
        Just(DomainState::Paused),
        Just(DomainState::ShuttingDown),
        Just(DomainState::Shutoff),
        Just(DomainState::Crashed),
        Just(DomainState::Suspended),
        Just(DomainState::Unknown),
    ]
}

fn any_domain() -> impl Strategy<Value = DomainObservation> {
    prop_oneof![
        Just(DomainObservation::Unknown),
        Just(DomainObservation::Absent),
        any_state().prop_map(domain),
    ]
}

const POWERS: [DesiredPower; 6] = [
    DesiredPower::Running,
    DesiredPower::ColdRunning,
    DesiredPower::Stopped,
    DesiredPower::ForcedOff,
    DesiredPower::Paused,
    DesiredPower::Saved,
];

fn any_vm() -> impl Strategy<Value = VmBundle> {
    (any::<[bool; 7]>(), 0..6usize, any::<bool>(), 0..2i64, 0..200i64, any::<bool>()).prop_map(
        |(milestones, power, deleting, satisfied, asked, resources)| {
            let mut vm = bundle();
            let all = [
                Milestone::DiskCreated,
                Milestone::SeedWritten,
                Milestone::Defined,
                Milestone::FirstStarted,
                Milestone::FirstSeen,
                Milestone::Installed,
                Milestone::SeedScrubbed,
            ];
            for (milestone, _) in all.iter().zip(milestones).filter(|(_, passed)| *passed) {
                vm.record.milestones.pass(*milestone, now() - TimeDelta::hours(1));
            }
            vm.record.intent.power = POWERS[power];
            vm.record.intent.deleting = deleting;
            vm.record.intent.satisfied = satisfied;
            vm.record.intent.asked_at = now() - TimeDelta::seconds(asked);
            if resources {
                vm.resources =
                    vec![resource(&vm, ResourceKind::Volume), resource(&vm, ResourceKind::ConsoleLog)];
            }
            vm
        },
    )
}

/// Somebody asked for the end of what the VM runs, at once.
fn is_to_end(vm: &VmBundle) -> bool {
    let intent = &vm.record.intent;
    intent.deleting || (intent.is_open() && intent.power == DesiredPower::ForcedOff)
}

proptest! {
    #[test]
    fn nothing_is_destroyed_on_incomplete_knowledge(vm in any_vm(), busy in any::<bool>()) {
        for domain in [DomainObservation::Unknown, domain(DomainState::Unknown)] {
            let mut seen = observed(domain);
            seen.busy = busy;
            let plan = decide(&vm, &seen, &memory());
            let asked = busy && plan.step == Some(Step::Destroy) && is_to_end(&vm);
            let harmless = plan.step.as_ref().is_none_or(|step| !step.is_destructive());
            prop_assert!(harmless || asked, "{:?}", plan.step);
            prop_assert!(!matches!(plan.status.phase, VmPhase::Stopped | VmPhase::Missing));
        }
    }

    #[test]
    fn a_busy_domain_is_left_alone_but_by_who_pulls_its_plug(vm in any_vm(), domain in any_domain()) {
        let mut seen = observed(domain);
        seen.busy = true;
        let plan = decide(&vm, &seen, &memory());
        prop_assert!(plan.step.is_none() || plan.step == Some(Step::Destroy) && is_to_end(&vm), "{:?}", plan.step);
        // Once; what came of it shows when the call is over.
        let mut pulled = memory();
        pulled.last_done = Some(Step::Destroy);
        prop_assert_eq!(decide(&vm, &seen, &pulled).step, None);
    }

    #[test]
    fn disks_go_only_when_somebody_asked_and_the_domain_is_gone(vm in any_vm(), domain in any_domain()) {
        let plan = decide(&vm, &observed(domain.clone()), &memory());
        if matches!(plan.step, Some(Step::Remove(_) | Step::RemoveSocket | Step::Forget)) {
            prop_assert!(vm.record.intent.deleting);
            prop_assert_eq!(domain, DomainObservation::Absent);
        }
        if plan.step == Some(Step::Undefine) {
            prop_assert!(vm.record.intent.deleting);
        }
    }

    #[test]
    fn a_defined_vm_is_never_silently_made_again(vm in any_vm()) {
        prop_assume!(vm.record.milestones.defined.is_some());
        let mut gone = memory();
        gone.missing_since = Some(now() - TimeDelta::hours(1));
        let plan = decide(&vm, &observed(DomainObservation::Absent), &gone);
        prop_assert!(!matches!(plan.step, Some(Step::Define | Step::CreateDisk | Step::Start)));
    }

    #[test]
    fn deciding_again_tells_nothing_new(vm in any_vm(), domain in any_domain()) {
        let seen = observed(domain);
        let first = decide(&vm, &seen, &memory());
        let mut later = vm.clone();
        later.status = Some(first.status.clone());
        for milestone in &first.milestones {
            later.record.milestones.pass(*milestone, now());
        }
        let second = decide(&later, &seen, &memory());
        prop_assert_eq!(first.status, second.status);
    }
}

#[test]
fn an_agent_that_does_not_greet_counts_after_a_while() {
    let mut vm = bundle();
    vm.record.milestones.pass(Milestone::Defined, now());
    let mut seen = observed(domain(DomainState::Running));
    for (age, installed) in [(4, false), (5, true)] {
        let LinkObservation::Open(mut link) = heard(0, FirstBoot::NotReported) else { unreachable!() };
        link.version = None;
        link.since = now() - TimeDelta::seconds(age);
        seen.link = LinkObservation::Open(link);
        let plan = decide(&vm, &seen, &memory());
        assert_eq!(plan.milestones.contains(&Milestone::Installed), installed);
        assert_eq!(plan.wake_at == Some(now() + TimeDelta::seconds(1)), !installed, "{:?}", plan.wake_at);
    }
}

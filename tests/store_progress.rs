//! What the loop notes may be noted again, and comes back as it was noted.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use chrono::TimeDelta;
use infinibay::{
    access::Audience,
    store::{StoreError, VmSearch, VmsFrom},
    vm::{
        AgentConnectivity, Condition, ConditionKind, ConditionStatus, FORCED, HostId, Milestone,
        OperationError, OperationId, OperationStatus, Resource, ResourceKind, ResourceState, UserId, VmId,
        VmPhase, VmStatus,
    },
};
use support::sample::{create, new_vm, now};

const MILESTONES: [Milestone; 7] = [
    Milestone::DiskCreated,
    Milestone::SeedWritten,
    Milestone::Defined,
    Milestone::FirstStarted,
    Milestone::FirstSeen,
    Milestone::Installed,
    Milestone::SeedScrubbed,
];

fn status(phase: VmPhase) -> VmStatus {
    VmStatus {
        phase,
        agent: AgentConnectivity::Online,
        last_seen: Some(now()),
        agent_version: Some("1.2.3\u{0}".to_owned()),
        conditions: vec![Condition {
            kind: ConditionKind::ClockSkew,
            status: ConditionStatus::True,
            reason: "Skewed".to_owned(),
            message: "the guest's clock is 3 minutes off; start its time service".to_owned(),
            since: now(),
        }],
    }
}

on_both! {
    async fn the_first_time_of_a_milestone_counts(db: TestDatabase) {
        let store = db.store().await;
        let vm = new_vm(HostId::generate(), UserId::generate(), "web-1");
        create(&store, &vm).await;
        for (n, milestone) in (0..).zip(MILESTONES) {
            let at = now() + TimeDelta::seconds(n);
            store.pass_milestone(vm.id, milestone, at).await.unwrap();
            store.pass_milestone(vm.id, milestone, at + TimeDelta::hours(1)).await.unwrap();
            let milestones = store.vm(vm.id).await.unwrap().unwrap().record.milestones;
            assert_eq!(milestones.at(milestone), Some(at), "{milestone:?}");
            let passed = MILESTONES.iter().filter(|m| milestones.at(**m).is_some()).count();
            assert_eq!(passed, usize::try_from(n).unwrap() + 1, "only {milestone:?} was passed now");
        }
    }

    async fn the_mark_of_the_satisfied_generation_never_falls(db: TestDatabase) {
        let store = db.store().await;
        let by = UserId::generate();
        let vm = new_vm(HostId::generate(), by, "web-1");
        create(&store, &vm).await;
        for _ in 0..3 {
            let power = infinibay::vm::DesiredPower::Running;
            store.request_power(vm.id, power, OperationId::generate(), by, now()).await.unwrap();
        }
        for (noted, stands) in [(2, 2), (1, 2), (4, 4), (3, 4)] {
            store.satisfy(vm.id, noted).await.unwrap();
            assert_eq!(store.vm(vm.id).await.unwrap().unwrap().record.intent.satisfied, stands);
        }
        assert!(store.satisfy(vm.id, 5).await.is_err(), "nobody asked for a fifth generation");
    }

    async fn a_status_comes_back_whole(db: TestDatabase) {
        let store = db.store().await;
        let vm = new_vm(HostId::generate(), UserId::generate(), "web-1");
        create(&store, &vm).await;
        for phase in [VmPhase::Installing, VmPhase::Running] {
            let told = status(phase);
            store.save_status(vm.id, &told).await.unwrap();
            let access = store.vm_access(&[vm.id]).await.unwrap();
            assert_eq!(access[0].state, Some((told.phase, told.agent)));
            assert_eq!(store.vm(vm.id).await.unwrap().unwrap().status, Some(told));
        }
    }

    async fn nothing_is_noted_of_a_vm_that_is_not_there(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        let resource = Resource {
            vm,
            kind: ResourceKind::Volume,
            place: "default".to_owned(),
            name: "disk".to_owned(),
            state: ResourceState::Creating,
        };
        let outcomes = [
            store.pass_milestone(vm, Milestone::Defined, now()).await,
            store.satisfy(vm, 1).await,
            store.save_status(vm, &status(VmPhase::Running)).await,
            store.forget_secrets(vm, now()).await,
            store.reserve_resource(&resource).await,
            store.resource_created(&resource).await,
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Err(StoreError::NotFound)), "{outcome:?}");
        }
        store.release_resource(&resource).await.unwrap();
        store.finish_delete(vm, now()).await.unwrap();
    }

    async fn a_resource_is_known_from_before_it_is_made_until_after_it_is_gone(db: TestDatabase) {
        let store = db.store().await;
        let vm = new_vm(HostId::generate(), UserId::generate(), "web-1");
        create(&store, &vm).await;
        let kinds = [ResourceKind::ConsoleLog, ResourceKind::Seed, ResourceKind::Volume];
        let resources = kinds.map(|kind| Resource {
            vm: vm.id,
            kind,
            place: "/place with 'quotes'".to_owned(),
            name: format!("{}.qcow2", vm.id),
            state: ResourceState::Creating,
        });
        for resource in &resources {
            store.reserve_resource(resource).await.unwrap();
        }
        let known = async || store.load_vm(vm.id).await.unwrap().unwrap().resources;
        assert_eq!(known().await, resources);

        let created = Resource { state: ResourceState::Created, ..resources[0].clone() };
        for _ in 0..2 {
            store.resource_created(&resources[0]).await.unwrap();
        }
        store.reserve_resource(&resources[0]).await.unwrap();
        assert_eq!(known().await[0], created, "reserved again, it is still there");

        for _ in 0..2 {
            store.release_resource(&created).await.unwrap();
        }
        assert_eq!(known().await, resources[1..]);
        store.resource_created(&resources[0]).await.unwrap();
        assert_eq!(known().await[0], created, "what exists must be known, whatever came before");
    }

    async fn an_operation_ends_once(db: TestDatabase) {
        let store = db.store().await;
        let vm = new_vm(HostId::generate(), UserId::generate(), "web-1");
        let (_, operation) = create(&store, &vm).await;
        let id = operation.id;

        let moved = store.progress_operation(id, 130, "half\0way").await.unwrap().unwrap();
        assert_eq!((moved.status, moved.progress), (OperationStatus::Running, 100));
        let moved = store.progress_operation(id, 30, "installing").await.unwrap().unwrap();
        assert_eq!((moved.progress, moved.stage.as_str()), (30, "installing"));

        let refused = store.finish_operation(id, OperationStatus::Running, None, now()).await;
        assert!(refused.is_err(), "running is no end: {refused:?}");

        let error = OperationError { code: "DISK_FULL".to_owned(), message: "no space".to_owned() };
        let at = now();
        let failed = OperationStatus::Failed;
        let ended = store.finish_operation(id, failed, Some(error.clone()), at).await.unwrap().unwrap();
        assert_eq!((ended.status, ended.progress), (OperationStatus::Failed, 30));
        assert_eq!((ended.error.as_ref(), ended.finished_at), (Some(&error), Some(at)));

        let succeeded = OperationStatus::Succeeded;
        assert_eq!(store.finish_operation(id, succeeded, None, now()).await.unwrap().unwrap(), ended);
        assert_eq!(store.progress_operation(id, 99, "late").await.unwrap().unwrap(), ended);

        // That a guest was made to is not forgotten when all is well.
        for (stage, kept) in [(format!("{FORCED}it did not follow"), true), ("it is forced: ".to_owned(), false)] {
            let vm = new_vm(HostId::generate(), UserId::generate(), "web-1");
            let (_, operation) = create(&store, &vm).await;
            store.progress_operation(operation.id, 80, &stage).await.unwrap();
            let ended = store.finish_operation(operation.id, succeeded, None, now()).await.unwrap().unwrap();
            assert_eq!((ended.stage.as_str(), ended.progress), (if kept { &stage } else { "done" }, 100));
        }

        let nobody = OperationId::generate();
        assert_eq!(store.progress_operation(nobody, 1, "x").await.unwrap(), None);
        assert_eq!(store.finish_operation(nobody, succeeded, None, now()).await.unwrap(), None);
    }

    async fn a_host_is_loaded_whole_and_without_its_neighbours(db: TestDatabase) {
        let store = db.store().await;
        let (host, owner) = (HostId::generate(), UserId::generate());
        let mut ids = Vec::new();
        for n in 0..5 {
            let vm = new_vm(host, owner, &format!("vm-{n}"));
            create(&store, &vm).await;
            create(&store, &new_vm(HostId::generate(), owner, &format!("vm-{n}"))).await;
            let resource = Resource {
                vm: vm.id,
                kind: ResourceKind::Volume,
                place: "default".to_owned(),
                name: vm.id.to_string(),
                state: ResourceState::Creating,
            };
            store.reserve_resource(&resource).await.unwrap();
            store.save_status(vm.id, &status(VmPhase::Provisioning)).await.unwrap();
            ids.push(vm.id);
        }
        let bundles = store.load_host(host).await.unwrap();
        assert_eq!(bundles.iter().map(|bundle| bundle.record.id).collect::<Vec<_>>(), ids);
        for bundle in bundles {
            let id = bundle.record.id;
            assert_eq!(bundle.operations.iter().map(|o| o.vm).collect::<Vec<_>>(), [id]);
            assert_eq!(bundle.resources.iter().map(|r| r.name.clone()).collect::<Vec<_>>(), [id.to_string()]);
            assert_eq!(bundle.status.as_ref().map(|s| s.phase), Some(VmPhase::Provisioning));
            assert_eq!(store.load_vm(id).await.unwrap().unwrap().operations, bundle.operations);
        }
        assert!(store.load_vm(VmId::generate()).await.unwrap().is_none());
        assert!(store.load_host(HostId::generate()).await.unwrap().is_empty());
    }

    async fn lists_come_in_pages(db: TestDatabase) {
        let store = db.store().await;
        let (host, one, two) = (HostId::generate(), UserId::generate(), UserId::generate());
        let mut mine = Vec::new();
        for n in 0..7 {
            let owner = if n % 2 == 0 { one } else { two };
            let vm = new_vm(host, owner, &format!("vm-{n}"));
            create(&store, &vm).await;
            mine.extend((owner == one).then_some(vm.id));
        }
        for (owner, total) in [(Some(one), 4), (Some(two), 3), (None, 7), (Some(UserId::generate()), 0)] {
            for first in [1, 2, 3, 4, 7, 8] {
                let mut seen = Vec::new();
                let mut after = None;
                loop {
                    let page = store.list_vms(Audience::Everybody, &VmSearch { owner, ..VmSearch::default() }, &VmsFrom::Id(after), first).await.unwrap();
                    assert!(page.nodes.len() <= first as usize);
                    seen.extend(page.nodes.iter().map(|view| view.record.id));
                    after = seen.last().map(|id| id.uuid());
                    if !page.has_next {
                        break;
                    }
                    assert_eq!(page.nodes.len(), first as usize);
                }
                assert_eq!(seen.len(), total, "{owner:?} by {first}");
                assert!(seen.is_sorted(), "{seen:?}");
                if owner == Some(one) {
                    assert_eq!(seen, mine);
                }
            }
        }
        assert!(store.list_vms(Audience::Everybody, &VmSearch::default(), &VmsFrom::Id(None), 0).await.unwrap().has_next);

        let wanted = [mine[2], VmId::generate(), mine[0], mine[2]];
        let found = store.vms_by_id(&wanted).await.unwrap();
        assert_eq!(found.iter().map(|view| view.record.id).collect::<Vec<_>>(), [mine[0], mine[2]]);
        assert!(store.vms_by_id(&[]).await.unwrap().is_empty());
    }
}

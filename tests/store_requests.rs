//! A request is stored whole or not at all — intent, operation and audit row together —, may be
//! made again, and is never lost among others.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::collections::BTreeSet;

use infinibay::{
    store::{ChangeOutcome, NewVm, StoreError},
    vm::{
        DesiredPower, Effect, GuestChange, HostId, NetworkAttachment, OperationId, OperationKind,
        OperationStatus, SettingChange, UserId, VmChange, VmId,
    },
};
use support::sample::{create, new_vm, now};

on_both! {
    async fn what_was_asked_comes_back(db: TestDatabase) {
        let store = db.store().await;
        let (host, owner) = (HostId::generate(), UserId::generate());
        let asked = new_vm(host, owner, "web-1");
        let (record, operation) = create(&store, &asked).await;

        assert_eq!((record.id, record.host, record.owner), (asked.id, host, owner));
        assert_eq!(record.spec, asked.spec);
        assert_eq!(record.intent.power, DesiredPower::Running);
        assert_eq!((record.intent.generation, record.intent.satisfied, record.intent.deleting), (1, 0, false));
        assert_eq!(operation.kind, OperationKind::Create);
        assert_eq!(operation.status, OperationStatus::Pending);
        assert_eq!((operation.vm, operation.generation, operation.requested_by), (asked.id, 1, owner));

        let bundle = store.load_vm(asked.id).await.unwrap().expect("the VM is there");
        assert_eq!(bundle.record, record);
        assert_eq!(bundle.operations, std::slice::from_ref(&operation));
        assert_eq!(bundle.status, None);
        assert_eq!(store.operation(operation.id).await.unwrap(), Some(operation));
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'vm.create'").await, 1);
    }

    async fn without_an_audit_row_nothing_is_stored(db: TestDatabase) {
        let store = db.store().await;
        let owner = UserId::generate();
        let there = new_vm(HostId::generate(), owner, "there");
        let (before, _) = create(&store, &there).await;
        db.tamper(
            "CREATE TRIGGER broken BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'broken'); END",
            "ALTER TABLE audit_log ADD CONSTRAINT broken CHECK (FALSE) NOT VALID",
        )
        .await;

        let new = new_vm(there.host, owner, "new");
        let refused = store.create_vm(&new, OperationId::generate(), now()).await;
        assert!(matches!(refused, Err(StoreError::Database { .. })), "{refused:?}");
        let power = DesiredPower::Stopped;
        let refused = store.request_power(there.id, power, OperationId::generate(), owner, now()).await;
        assert!(matches!(refused, Err(StoreError::Database { .. })), "{refused:?}");
        let refused = store.request_delete(there.id, OperationId::generate(), owner, now()).await;
        assert!(matches!(refused, Err(StoreError::Database { .. })), "{refused:?}");

        assert!(store.vm(new.id).await.unwrap().is_none());
        assert_eq!(store.vm(there.id).await.unwrap().unwrap().record, before);
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 1);
    }

    async fn asked_again_gives_the_same_vm(db: TestDatabase) {
        let store = db.store().await;
        let asked = new_vm(HostId::generate(), UserId::generate(), "web-1");
        let (record, operation) = create(&store, &asked).await;

        let (again, same) = create(&store, &asked).await;
        assert_eq!((again, same), (record, operation.clone()));
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM audit_log").await, 1);

        // As it is now, not as it was.
        store.progress_operation(operation.id, 40, "writing the disk").await.unwrap();
        let (_, now_at) = create(&store, &asked).await;
        assert_eq!((now_at.progress, now_at.stage.as_str()), (40, "writing the disk"));

        let mut other_password = asked.clone();
        other_password.spec.unattended.password_hash = Some("$6$another$salt".to_owned());
        create(&store, &other_password).await;

        type Change = fn(&mut NewVm);
        let changes: [(&str, Change); 9] = [
            ("host", |vm| vm.host = HostId::generate()),
            ("owner", |vm| vm.owner = UserId::generate()),
            ("name", |vm| vm.spec.name = "web-2".parse().unwrap()),
            ("image", |vm| vm.spec.image_mut().unwrap().name = "alpine".parse().unwrap()),
            ("vcpus", |vm| vm.spec.vcpus += 1),
            ("memory", |vm| vm.spec.memory_mib += 1),
            ("disk", |vm| vm.spec.disk_bytes += 1),
            ("pool", |vm| vm.spec.pool = "fast".parse().unwrap()),
            ("network", |vm| vm.spec.network = NetworkAttachment::User),
        ];
        for (what, change) in changes {
            let mut other = asked.clone();
            change(&mut other);
            let refused = store.create_vm(&other, OperationId::generate(), now()).await;
            assert!(matches!(refused, Err(StoreError::IdTaken)), "another {what}: {refused:?}");
        }
    }

    async fn of_many_with_one_name_exactly_one_wins(db: TestDatabase) {
        // Two handles, as two processes would have.
        let stores = [db.store().await, db.store().await];
        let (host, owner) = (HostId::generate(), UserId::generate());
        let tasks: Vec<_> = (0..16)
            .map(|n| {
                let store = stores[n % 2].clone();
                let vm = new_vm(host, owner, "only-one");
                tokio::spawn(async move { store.create_vm(&vm, OperationId::generate(), now()).await })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok((record, _)) => winners.push(record.id),
                Err(StoreError::NameTaken) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(db.number("SELECT count(*) FROM vms").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM audit_log").await, 1);
        // Another host may use the name.
        create(&stores[0], &new_vm(HostId::generate(), owner, "only-one")).await;
    }

    async fn the_same_request_made_at_once_many_times_is_one_vm(db: TestDatabase) {
        let store = db.store().await;
        let asked = new_vm(HostId::generate(), UserId::generate(), "web-1");
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (store, asked) = (store.clone(), asked.clone());
                tokio::spawn(async move { create(&store, &asked).await.1.id })
            })
            .collect();
        let mut operations = BTreeSet::new();
        for task in tasks {
            operations.insert(task.await.unwrap());
        }
        assert_eq!(operations.len(), 1, "{operations:?}");
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 1);
    }

    async fn no_request_for_power_is_lost(db: TestDatabase) {
        let stores = [db.store().await, db.store().await];
        let by = UserId::generate();
        let vm = new_vm(HostId::generate(), by, "busy").id;
        let asked = NewVm { id: vm, ..new_vm(HostId::generate(), by, "busy") };
        create(&stores[0], &asked).await;
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                let store = stores[n % 2].clone();
                let power = if n % 3 == 0 { DesiredPower::Stopped } else { DesiredPower::Running };
                tokio::spawn(async move {
                    let asked = store.request_power(vm, power, OperationId::generate(), by, now()).await;
                    let (record, operation) = asked.expect("asking for power");
                    assert_eq!(record.intent.power, power);
                    assert_eq!(record.intent.generation, operation.generation);
                    operation.generation
                })
            })
            .collect();
        let mut generations = BTreeSet::new();
        for task in tasks {
            generations.insert(task.await.unwrap());
        }
        assert_eq!(generations, (2..=101).collect(), "each request has a generation of its own");
        let bundle = stores[1].load_vm(vm).await.unwrap().unwrap();
        assert_eq!(bundle.record.intent.generation, 101);
        assert_eq!(bundle.operations.len(), 1, "only the last one is open: {:?}", bundle.operations);
        assert_eq!(bundle.operations[0].generation, 101);
        assert_eq!(db.number("SELECT count(*) FROM operations WHERE status = 'superseded'").await, 100);
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'vm.power'").await, 100);
    }

    async fn a_halt_supersedes_power_and_reboots_but_not_the_making(db: TestDatabase) {
        let store = db.store().await;
        let by = UserId::generate();
        let asked = new_vm(HostId::generate(), by, "web-1");
        let (_, made) = create(&store, &asked).await;
        let status = async |id| store.operation(id).await.unwrap().expect("an operation").status;
        let mut before = None;
        for (power, kind) in [
            (DesiredPower::Paused, OperationKind::Suspend),
            (DesiredPower::Saved, OperationKind::Save),
            (DesiredPower::ColdRunning, OperationKind::Start),
            (DesiredPower::Paused, OperationKind::Suspend),
        ] {
            let change = VmChange::Guest(GuestChange::Reboot { force: false });
            let reboot = store.request_change(asked.id, &change, OperationId::generate(), by, now()).await;
            let reboot = reboot.expect("asking for a reboot").1;
            let (record, operation) =
                store.request_power(asked.id, power, OperationId::generate(), by, now()).await.unwrap();
            assert_eq!((record.intent.power, operation.kind), (power, kind));
            assert_eq!(store.vm(asked.id).await.unwrap().unwrap().record.intent, record.intent);
            let halted = !power.is_on();
            assert_eq!(status(reboot.id).await == OperationStatus::Superseded, halted, "{power:?}");
            if !halted {
                store.finish_operation(reboot.id, OperationStatus::Succeeded, None, now()).await.unwrap();
            }
            if let Some(before) = before.replace(operation.id) {
                assert_eq!(status(before).await, OperationStatus::Superseded);
            }
        }
        assert_eq!(status(made.id).await, OperationStatus::Pending);
    }

    async fn names_are_found_on_their_host(db: TestDatabase) {
        let store = db.store().await;
        let asked = new_vm(HostId::generate(), UserId::generate(), "web-1");
        create(&store, &asked).await;
        let find = async |host, name: &str| store.vm_named(host, &name.parse().unwrap()).await.unwrap();
        assert_eq!(find(asked.host, "web-1").await, Some(asked.id));
        assert_eq!(find(asked.host, "web-2").await, None);
        assert_eq!(find(HostId::generate(), "web-1").await, None);
    }

    async fn a_later_request_supersedes_what_it_contradicts(db: TestDatabase) {
        let store = db.store().await;
        let by = UserId::generate();
        let asked = new_vm(HostId::generate(), by, "web-1");
        let (_, made) = create(&store, &asked).await;
        let ask = async |power| {
            let asked = store.request_power(asked.id, power, OperationId::generate(), by, now()).await;
            asked.expect("asking for power").1
        };
        let status = async |id| store.operation(id).await.unwrap().expect("an operation").status;

        // Still being made, and asked to run: that is what it is made for.
        let start = ask(DesiredPower::Running).await;
        assert_eq!(start.kind, OperationKind::Start);
        assert_eq!(status(made.id).await, OperationStatus::Pending);

        let stop = ask(DesiredPower::Stopped).await;
        assert_eq!(stop.kind, OperationKind::Stop);
        assert_eq!(status(made.id).await, OperationStatus::Superseded);
        assert_eq!(status(start.id).await, OperationStatus::Superseded);

        let forced = ask(DesiredPower::ForcedOff).await;
        assert_eq!((forced.kind, status(stop.id).await), (OperationKind::Stop, OperationStatus::Superseded));

        // What has ended stays as it ended.
        store.finish_operation(forced.id, OperationStatus::Succeeded, None, now()).await.unwrap();
        let start = ask(DesiredPower::Running).await;
        assert_eq!(status(forced.id).await, OperationStatus::Succeeded);

        let (record, delete) =
            store.request_delete(asked.id, OperationId::generate(), by, now()).await.unwrap();
        assert!(record.intent.deleting);
        assert_eq!(delete.generation, record.intent.generation);
        assert_eq!(status(start.id).await, OperationStatus::Superseded);
        let superseded = store.operation(start.id).await.unwrap().unwrap();
        assert!(superseded.finished_at.is_some());
    }

    async fn deletion_is_asked_for_once(db: TestDatabase) {
        let store = db.store().await;
        let by = UserId::generate();
        let asked = new_vm(HostId::generate(), by, "web-1");
        create(&store, &asked).await;
        let delete = async || store.request_delete(asked.id, OperationId::generate(), by, now()).await.unwrap();

        let (record, first) = delete().await;
        assert_eq!((first.kind, record.intent.generation), (OperationKind::Delete, 2));
        assert_eq!(delete().await, (record.clone(), first.clone()));
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'vm.delete'").await, 1);

        let refused =
            store.request_power(asked.id, DesiredPower::Running, OperationId::generate(), by, now()).await;
        assert!(matches!(refused, Err(StoreError::Deleting)), "{refused:?}");

        // Given up, it may be asked for anew.
        store.finish_operation(first.id, OperationStatus::Failed, None, now()).await.unwrap();
        let (record, second) = delete().await;
        assert_ne!(second.id, first.id);
        assert_eq!(record.intent.generation, 3);
    }

    async fn there_is_nothing_to_ask_of_a_vm_that_is_not_there(db: TestDatabase) {
        let store = db.store().await;
        let (vm, by) = (VmId::generate(), UserId::generate());
        let refused = store.request_power(vm, DesiredPower::Running, OperationId::generate(), by, now()).await;
        assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
        let refused = store.request_delete(vm, OperationId::generate(), by, now()).await;
        assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
        assert_eq!(db.number("SELECT count(*) FROM audit_log").await, 0);
    }

    async fn a_change_that_sets_the_power_ends_what_was_asked_of_it_before(db: TestDatabase) {
        let store = db.store().await;
        let owner = UserId::generate();
        let asked = new_vm(HostId::generate(), owner, "put-back");
        create(&store, &asked).await;
        let put_back = async |power| {
            let (_, start) =
                store.request_power(asked.id, DesiredPower::Running, OperationId::generate(), owner, now()).await.unwrap();
            let change = VmChange::Setting(SettingChange::Autostart(true));
            let (_, operation) =
                store.request_change(asked.id, &change, OperationId::generate(), owner, now()).await.unwrap();
            let later = match power {
                None => None,
                Some(power) => {
                    Some(store.request_power(asked.id, power, OperationId::generate(), owner, now()).await.unwrap().1)
                }
            };
            let outcome = ChangeOutcome { power: Some(DesiredPower::Stopped), ..ChangeOutcome::default() };
            store.finish_change(asked.id, operation.id, &outcome, now()).await.unwrap().unwrap();
            let last = later.map_or(start.id, |later| later.id);
            let power = store.load_vm(asked.id).await.unwrap().unwrap().record.intent.power;
            (power, store.operation(last).await.unwrap().unwrap().status)
        };
        assert_eq!(put_back(None).await, (DesiredPower::Stopped, OperationStatus::Superseded));
        // Whoever asked since is heard.
        let heard = put_back(Some(DesiredPower::Paused)).await;
        assert_eq!(heard, (DesiredPower::Paused, OperationStatus::Pending));
    }

    async fn changes_of_a_vm_come_one_after_the_other(db: TestDatabase) {
        let store = db.store().await;
        let owner = UserId::generate();
        let asked = new_vm(HostId::generate(), owner, "changed");
        let (before, _) = create(&store, &asked).await;
        let change = VmChange::Setting(SettingChange::Autostart(true));
        let ask = async || store.request_change(asked.id, &change, OperationId::generate(), owner, now()).await;
        let (_, operation) = ask().await.unwrap();
        assert_eq!((operation.kind, operation.change.as_ref()), (OperationKind::SetAutostart, Some(&change)));
        let StoreError::ChangeUnderWay(open) = ask().await.unwrap_err() else { panic!("two changes at once") };
        assert_eq!(*open, operation);

        let mut spec = before.spec.clone();
        spec.vcpus += 1;
        let outcome = ChangeOutcome { effect: Some(Effect::NextBoot), spec: Some(spec.clone()), ..ChangeOutcome::default() };
        let ended = store.finish_change(asked.id, operation.id, &outcome, now()).await.unwrap().unwrap();
        assert_eq!((ended.status, ended.effect), (OperationStatus::Succeeded, Some(Effect::NextBoot)));
        let after = store.load_vm(asked.id).await.unwrap().unwrap();
        assert_eq!((after.record.spec, after.record.intent), (spec, before.intent));

        // Ended once: what is said of it later changes nothing.
        let late = ChangeOutcome { effect: Some(Effect::Live), spec: Some(before.spec), ..ChangeOutcome::default() };
        let told = store.finish_change(asked.id, operation.id, &late, now()).await.unwrap().unwrap();
        assert_eq!(told, ended);
        assert_ne!(store.load_vm(asked.id).await.unwrap().unwrap().record.spec.vcpus, asked.spec.vcpus);

        let (_, operation) = ask().await.unwrap();
        store.request_delete(asked.id, OperationId::generate(), owner, now()).await.unwrap();
        let superseded = store.operation(operation.id).await.unwrap().unwrap();
        assert_eq!(superseded.status, OperationStatus::Superseded);
        assert!(matches!(ask().await, Err(StoreError::Deleting)));
    }
}

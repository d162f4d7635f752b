//! Secrets go when they have served, a VM when it is deleted, history when it is old; none
//! sooner.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use chrono::{DateTime, TimeDelta, Utc};
use infinibay::{
    store::{CommandEnd, CommandSearch, CommandStatus, NewCommand, Page, Store, StoreError, VmErrorRecord},
    vm::{
        CommandId, HostId, Milestone, OperationId, OperationStatus, Resource, ResourceKind, ResourceState,
        UserId, VmId,
    },
};
use serde_json::json;
use support::{
    database::{Backend, TestDatabase},
    sample::{create, new_vm, now, sample},
};
use uuid::Uuid;

const ALL: Page = Page { first: 100, after: None };

/// Whether the bytes stand in any file of a SQLite database; `None` for another database.
fn stands_in_files(db: &TestDatabase, secret: &str) -> Option<bool> {
    let files = std::fs::read_dir(db.directory()?).unwrap();
    let found = files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .any(|bytes| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    Some(found)
}

/// Something of everything that is told of a VM.
async fn live(store: &Store, vm: VmId, by: UserId, at: DateTime<Utc>) -> CommandId {
    let id = CommandId::generate();
    let command = json!({ "action": "ListServices" });
    let new = NewCommand { id, vm, kind: "safe", command, requested_by: by, created_at: at };
    store.insert_command(&new, std::time::Duration::from_secs(30)).await.unwrap();
    let end = CommandEnd {
        status: CommandStatus::Answered,
        success: true,
        response: Some("{}".to_owned()),
        sent_at: None,
        queue_ms: None,
        run_ms: None,
        execution_ms: 5,
    };
    store.finish_command(id, &end).await.unwrap();
    let error = VmErrorRecord {
        id: Uuid::now_v7(),
        vm,
        error: "out of memory".to_owned(),
        details: json!({}),
        timestamp: at,
        created_at: at,
    };
    store.insert_vm_error(&error).await.unwrap();
    store.insert_metrics(&[sample(vm, at, 1.0)]).await.unwrap();
    id
}

on_both! {
    async fn secrets_are_forgotten(db: TestDatabase) {
        const HASH: &str = "$6$saltsaltsalt$averylonghash";
        const COMMAND: &str = "echo a-token-that-nobody-should-see";
        let store = db.store().await;
        let mut asked = new_vm(HostId::generate(), UserId::generate(), "web-1");
        asked.spec.unattended.password_hash = Some(HASH.to_owned());
        // Long enough to spill over several pages of the file.
        asked.spec.unattended.first_boot_commands = vec![COMMAND.to_owned(); 500];
        asked.spec.unattended.packages = vec!["nginx".to_owned()];
        create(&store, &asked).await;
        assert_ne!(stands_in_files(&db, COMMAND), Some(false), "the story would prove nothing");

        let at = now();
        for later in [0, 60] {
            store.forget_secrets(asked.id, at + TimeDelta::seconds(later)).await.unwrap();
            let record = store.vm(asked.id).await.unwrap().unwrap().record;
            assert_eq!(record.spec.unattended, asked.spec.unattended.without_secrets());
            assert_eq!(record.spec.unattended.packages, ["nginx"]);
            assert_eq!(record.milestones.at(Milestone::SeedScrubbed), Some(at));
        }
        for secret in [HASH, COMMAND] {
            assert_ne!(stands_in_files(&db, secret), Some(true), "{secret} still stands in the file");
        }
        let found = db
            .number("SELECT count(*) FROM audit_log WHERE CAST(details AS TEXT) LIKE '%nobody-should-see%'")
            .await;
        assert_eq!(found, 0);
        // And it is still the same VM for a client that asks again.
        create(&store, &asked).await;
    }

    async fn a_deleted_vm_leaves_its_history_and_nothing_else(db: TestDatabase) {
        let store = db.store().await;
        let by = UserId::generate();
        let asked = new_vm(HostId::generate(), by, "web-1");
        let (_, made) = create(&store, &asked).await;
        let resource = Resource {
            vm: asked.id,
            kind: ResourceKind::Volume,
            place: "default".to_owned(),
            name: "disk".to_owned(),
            state: ResourceState::Created,
        };
        store.reserve_resource(&resource).await.unwrap();
        let command = live(&store, asked.id, by, now()).await;

        let refused = store.finish_delete(asked.id, now()).await;
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "nobody asked for it: {refused:?}");
        let (_, delete) = store.request_delete(asked.id, OperationId::generate(), by, now()).await.unwrap();
        let at = now();
        store.finish_delete(asked.id, at).await.unwrap();
        store.finish_delete(asked.id, now()).await.unwrap();

        assert!(store.vm(asked.id).await.unwrap().is_none());
        assert_eq!(db.number("SELECT count(*) FROM resources").await, 0);
        let delete = store.operation(delete.id).await.unwrap().unwrap();
        assert_eq!((delete.status, delete.progress), (OperationStatus::Succeeded, 100));
        assert_eq!(delete.finished_at, Some(at));
        let made = store.operation(made.id).await.unwrap().unwrap();
        assert_eq!(made.status, OperationStatus::Superseded);
        assert!(store.command(command).await.unwrap().is_some());
        assert_eq!(store.vm_errors(asked.id, ALL).await.unwrap().nodes.len(), 1);
        assert_eq!(store.metrics(asked.id, now() - TimeDelta::hours(1), 10).await.unwrap().len(), 1);
        assert_eq!(db.number("SELECT count(*) FROM audit_log").await, 3);

        // The name is free; the id, which all that history is filed under, is not.
        create(&store, &new_vm(asked.host, by, "web-1")).await;
        let mut heir = asked.clone();
        heir.spec.name = "heir".parse().unwrap();
        heir.owner = UserId::generate();
        let refused = store.create_vm(&heir, OperationId::generate(), now()).await;
        assert!(matches!(refused, Err(StoreError::IdTaken)), "{refused:?}");
        assert!(store.vm(asked.id).await.unwrap().is_none());
    }

    async fn history_expires_by_age(db: TestDatabase) {
        let store = db.store().await;
        let by = UserId::generate();
        let (old, new) = (now() - TimeDelta::days(91), now() - TimeDelta::days(1));
        let host = HostId::generate();
        let (gone, stays) = (new_vm(host, by, "gone"), new_vm(host, by, "stays"));
        for vm in [&gone, &stays] {
            let (_, made) = store.create_vm(vm, OperationId::generate(), old).await.unwrap();
            store.finish_operation(made.id, OperationStatus::Succeeded, None, old).await.unwrap();
            live(&store, vm.id, by, old).await;
            live(&store, vm.id, by, new).await;
        }
        store.request_delete(gone.id, OperationId::generate(), by, old).await.unwrap();
        store.finish_delete(gone.id, old).await.unwrap();

        let before = now() - TimeDelta::days(90);
        // Two commands, two errors, the two operations of the VM that is gone, and five audit
        // rows: two creations, two commands, one deletion.
        assert_eq!(store.expire_history(before).await.unwrap(), 2 + 2 + 2 + 5);
        assert_eq!(store.expire_history(before).await.unwrap(), 0);
        // Two rows, or the day that held them.
        let removed = if db.backend() == Backend::Sqlite { 2 } else { 1 };
        assert_eq!(store.expire_metrics(before).await.unwrap(), removed);
        assert_eq!(store.expire_metrics(before).await.unwrap(), 0);

        for vm in [gone.id, stays.id] {
            assert_eq!(store.command_log(vm, &CommandSearch::default(), ALL).await.unwrap().nodes.len(), 1);
            assert_eq!(store.vm_errors(vm, ALL).await.unwrap().nodes.len(), 1);
            assert_eq!(store.metrics(vm, old - TimeDelta::days(1), 10).await.unwrap().len(), 1);
        }
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 1, "of the VM that stays");
        assert_eq!(db.number("SELECT count(*) FROM audit_log").await, 2);
        // A retry still finds the operation of the VM that stays.
        create(&store, &stays).await;
    }

    async fn an_old_vm_deleted_yesterday_keeps_its_history(db: TestDatabase) {
        let store = db.store().await;
        let by = UserId::generate();
        let (old, yesterday) = (now() - TimeDelta::days(400), now() - TimeDelta::days(1));
        let asked = new_vm(HostId::generate(), by, "veteran");
        let (_, made) = store.create_vm(&asked, OperationId::generate(), old).await.unwrap();
        store.finish_operation(made.id, OperationStatus::Succeeded, None, old).await.unwrap();
        live(&store, asked.id, by, yesterday).await;
        store.request_delete(asked.id, OperationId::generate(), by, yesterday).await.unwrap();
        store.finish_delete(asked.id, yesterday).await.unwrap();

        // Of the creation only the audit row goes.
        assert_eq!(store.expire_history(now() - TimeDelta::days(90)).await.unwrap(), 1);
        assert_eq!(store.former_owner(asked.id).await.unwrap(), Some(by));
        assert!(store.operation(made.id).await.unwrap().is_some());
        assert_eq!(store.command_log(asked.id, &CommandSearch::default(), ALL).await.unwrap().nodes.len(), 1);
        assert_eq!(store.vm_errors(asked.id, ALL).await.unwrap().nodes.len(), 1);

        // Two operations, a command, an error with its alert, and the audit rows of the command and the
        // deletion.
        assert_eq!(store.expire_history(now()).await.unwrap(), 2 + 1 + 2 + 2);
        assert_eq!(store.former_owner(asked.id).await.unwrap(), None);
    }

    async fn more_than_one_batch_expires(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        let old = now() - TimeDelta::days(40);
        let samples: Vec<_> = (0..4500).map(|n| sample(vm, old + TimeDelta::seconds(n), 1.0)).collect();
        store.insert_metrics(&samples).await.unwrap();
        store.insert_metrics(&[sample(vm, now(), 1.0)]).await.unwrap();
        let removed = store.expire_metrics(now() - TimeDelta::days(30)).await.unwrap();
        if db.backend() == Backend::Sqlite {
            assert_eq!(removed, 4500);
        }
        assert_eq!(db.number("SELECT count(*) FROM vm_metrics").await, 1);
    }
}

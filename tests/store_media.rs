//! Media as rows: who asks at the same time as another, and what the importer may write then.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use infinibay::{
    store::{MediaBounds, MediumEnd, NewMedium, NotAsked, Page, Store, StoreError},
    vm::{
        DiskFacts, HostId, ImageFormat, Medium, MediumFacts, MediumFailure, MediumId, MediumKind,
        MediumSource, MediumState, OperationId, OsFamily, Provisioning, UserId,
    },
};
use support::sample::{new_vm, now};

const BOUNDS: MediaBounds = MediaBounds { open: 3, all: 50 };
const FILE: &str = "/media/debian-12.iso";

fn disk(host: HostId, name: &str) -> NewMedium {
    NewMedium {
        id: MediumId::generate(),
        host,
        name: name.parse().unwrap(),
        kind: MediumKind::DiskImage,
        source: MediumSource::Url("https://example.org/disk?token=hunter2".to_owned()),
        expected_sha256: Some("ab".repeat(32)),
        disk: Some(DiskFacts {
            description: "Debian 12".to_owned(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::CloudInit,
            format: ImageFormat::Qcow2,
        }),
        by: UserId::generate(),
    }
}

async fn ready(store: &Store, new: &NewMedium) -> Medium {
    let medium = store.ask_for_medium(new, BOUNDS, now()).await.unwrap();
    assert!(store.medium_started(medium.id, now()).await.unwrap());
    assert!(store.medium_progress(medium.id, 5, Some(9), Some("\"a\"")).await.unwrap());
    let facts = MediumFacts { label: Some("x".to_owned()), ..MediumFacts::default() };
    assert!(store.medium_checked(medium.id, 9, &"ab".repeat(32), &facts).await.unwrap());
    assert!(store.medium_ended(medium.id, &MediumEnd::Ready, now()).await.unwrap());
    let stored = store.medium(new.host, &new.name).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.bytes_done, stored.bytes_total), (MediumState::Ready, 9, Some(9)));
    assert_eq!((&stored.facts, stored.partial, stored.validator.as_deref()), (&facts, false, Some("\"a\"")));
    stored
}

on_both! {
    async fn a_vm_is_made_of_an_image_or_the_image_is_deleted_never_both(db: TestDatabase) {
        let store = db.store().await;
        for round in 0..24 {
            let host = HostId::generate();
            let medium = ready(&store, &disk(host, "debian-12")).await;
            let vm = new_vm(host, medium.requested_by, &format!("vm-{round}"));
            let make = {
                let (store, vm) = (store.clone(), vm.clone());
                tokio::spawn(async move {
                    if round % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                    store.create_vm(&vm, OperationId::generate(), now()).await.map(drop)
                })
            };
            let delete = {
                let (store, medium) = (store.clone(), medium.clone());
                tokio::spawn(async move {
                    if round % 3 == 1 {
                        tokio::task::yield_now().await;
                    }
                    store.delete_medium(host, &medium.name, FILE, medium.requested_by, now()).await.map(drop)
                })
            };
            match (make.await.unwrap(), delete.await.unwrap()) {
                (Ok(()), Err(NotAsked::InUse(uses))) => {
                    assert_eq!((uses.count, uses.some), (1, vec![format!("vm-{round}")]));
                    assert_eq!(store.medium_uses(&medium, FILE).await.unwrap().count, 1);
                }
                (Err(StoreError::ImageGone), Ok(())) => {
                    assert!(store.vm(vm.id).await.unwrap().is_none());
                }
                other => panic!("both, or neither: {other:?}"),
            }
        }
    }

    async fn what_comes_meanwhile_is_not_written_over(db: TestDatabase) {
        let store = db.store().await;
        let host = HostId::generate();
        let new = disk(host, "one");
        let medium = store.ask_for_medium(&new, BOUNDS, now()).await.unwrap();
        assert!(store.medium_started(medium.id, now()).await.unwrap());
        let cancelled = store.cancel_medium(host, &new.name, new.by, now()).await.unwrap();
        assert_eq!((cancelled.state, cancelled.discard), (MediumState::Failed, true));
        assert!(!store.medium_progress(medium.id, 5, None, None).await.unwrap());
        assert!(!store.medium_checked(medium.id, 5, "", &MediumFacts::default()).await.unwrap());
        assert!(!store.medium_ended(medium.id, &MediumEnd::Ready, now()).await.unwrap());
        let refused = store.ask_for_medium(&new, BOUNDS, now()).await;
        assert!(matches!(refused, Err(NotAsked::WrongState(MediumState::Failed))), "{refused:?}");
        assert_eq!(store.media_to_do(host).await.unwrap().len(), 1, "what was left is to be removed");
        store.medium_discarded(medium.id).await.unwrap();
        assert!(store.media_to_do(host).await.unwrap().is_empty());
        // Asked for again, it is the same one.
        let again = store.ask_for_medium(&NewMedium { id: MediumId::generate(), ..new.clone() }, BOUNDS, now()).await;
        assert_eq!(again.unwrap().id, medium.id);
        let failure = MediumFailure { code: "TOO_SLOW".to_owned(), message: "é\0".repeat(600) };
        let end = MediumEnd::Failed { failure, keep: true };
        assert!(store.medium_ended(medium.id, &end, now()).await.unwrap());
        let failed = store.medium(host, &new.name).await.unwrap().unwrap();
        assert_eq!(failed.failure.unwrap().message.chars().count(), 500);
        assert!(!failed.discard);
        store.delete_medium(host, &new.name, FILE, new.by, now()).await.unwrap();
        assert!(store.delete_medium(host, &new.name, FILE, new.by, now()).await.is_ok(), "asked again");
        store.medium_gone(medium.id).await.unwrap();
        assert!(store.medium(host, &new.name).await.unwrap().is_none());
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action LIKE 'medium.%'").await, 4);
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE CAST(details AS TEXT) LIKE '%hunter2%'").await, 0);
    }

    async fn there_are_only_so_many_and_names_are_the_hosts(db: TestDatabase) {
        let store = db.store().await;
        let (host, other) = (HostId::generate(), HostId::generate());
        for name in ["a", "b", "c"] {
            store.ask_for_medium(&disk(host, name), BOUNDS, now()).await.unwrap();
        }
        let refused = store.ask_for_medium(&disk(host, "d"), BOUNDS, now()).await;
        assert!(matches!(refused, Err(NotAsked::TooMany(3))), "{refused:?}");
        store.ask_for_medium(&disk(other, "a"), BOUNDS, now()).await.unwrap();
        let another = NewMedium { expected_sha256: None, ..disk(host, "a") };
        let refused = store.ask_for_medium(&another, MediaBounds { open: 9, all: 50 }, now()).await;
        assert!(matches!(refused, Err(NotAsked::NameTaken)), "{refused:?}");
        let refused = store.ask_for_medium(&disk(host, "d"), MediaBounds { open: 9, all: 3 }, now()).await;
        assert!(matches!(refused, Err(NotAsked::TooMany(3))), "{refused:?}");
        let first = store.media(host, false, Page { first: 2, after: None }).await.unwrap();
        let names: Vec<_> = first.nodes.iter().map(|medium| medium.name.to_string()).collect();
        assert_eq!((names, first.has_next), (vec!["c".to_owned(), "b".to_owned()], true));
        let after = Some(first.nodes[1].id.uuid());
        let second = store.media(host, false, Page { first: 2, after }).await.unwrap();
        assert_eq!((second.nodes.len(), second.has_next), (1, false));
        assert!(store.media(host, true, Page { first: 2, after: None }).await.unwrap().nodes.is_empty());
    }
}

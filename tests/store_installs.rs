//! Installations as rows: what an installer may write by its token, how long, and which media they hold.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::path::PathBuf;

use chrono::TimeDelta;
use infinibay::{
    store::{HeardReport, NewVm, NotAsked, Store, StoreError},
    vm::{
        Base, Disc, FirstBootSecret, HostId, InstallFamily, InstallReport, Installation, InstallerKernel,
        Medium, Milestone, OperationId, UserId, VmId,
    },
};
use support::sample::{create, medium, new_vm, now};

const FILE: &str = "/media/debian-13.iso";

fn disc(name: &str) -> Disc {
    Disc { medium: name.parse().unwrap(), path: PathBuf::from(format!("/media/{name}.iso")) }
}

fn installed(host: HostId, name: &str, token: &str) -> NewVm {
    let mut vm = new_vm(host, UserId::generate(), name);
    vm.spec.base = Base::Installation(Box::new(Installation {
        disc: disc("debian-13"),
        family: InstallFamily::Debian,
        label: Some("Debian".to_owned()),
        kernel: Some(InstallerKernel { kernel: "linux".to_owned(), initrd: "initrd.gz".to_owned() }),
        drivers: None,
        mirror: None,
        edition: None,
        medium_language: None,
        agent: true,
        token: Some(FirstBootSecret::new(token.to_owned())),
    }));
    vm
}

async fn says(store: &Store, token: &str, stage: &str) -> Option<HeardReport> {
    let report = InstallReport::new(stage, now()).unwrap();
    store.report_install(&Installation::token_sha256(token), &report).await.unwrap()
}

async fn stage(store: &Store, vm: VmId) -> Option<String> {
    let bundle = store.load_vm(vm).await.unwrap().unwrap();
    let view = store.vm(vm).await.unwrap().unwrap();
    assert_eq!(bundle.install_report, view.install_report);
    view.install_report.map(|report| report.stage)
}

on_both! {
    async fn an_installer_is_heard_until_it_has_ended(db: TestDatabase) {
        let store = db.store().await;
        let host = HostId::generate();
        medium(&store, host, "debian-13").await;
        let (one, two) = (installed(host, "one", "token-1"), installed(host, "two", "token-2"));
        for vm in [&one, &two] {
            create(&store, vm).await;
        }
        assert_eq!(says(&store, "token-3", "started").await, None);
        assert_eq!(says(&store, "", "started").await, None);
        assert_eq!(stage(&store, one.id).await, None);
        assert_eq!(says(&store, "token-1", "started").await, Some(HeardReport { vm: one.id, is_news: true }));
        assert_eq!(says(&store, "token-1", "started").await, Some(HeardReport { vm: one.id, is_news: false }));
        assert_eq!(says(&store, "token-1", "installed").await, Some(HeardReport { vm: one.id, is_news: true }));
        assert_eq!(stage(&store, one.id).await.as_deref(), Some("installed"));
        assert_eq!(stage(&store, two.id).await, None);

        // The disk has the system, and the installer still has a word.
        store.pass_milestone(one.id, Milestone::SystemInstalled, now()).await.unwrap();
        assert!(says(&store, "token-1", "finished").await.is_some());
        assert_eq!(says(&store, "token-1", "started").await, None, "after its last word");
        assert_eq!(stage(&store, one.id).await.as_deref(), Some("finished"));

        // What it says last is not its end before the disk has the system.
        assert!(says(&store, "token-2", "finished").await.is_some());
        assert!(says(&store, "token-2", "failed").await.is_some());
        store.pass_milestone(two.id, Milestone::Installed, now()).await.unwrap();
        assert_eq!(says(&store, "token-2", "started").await, None, "after the first boot");

        let three = installed(host, "three", "token-3");
        create(&store, &three).await;
        store.request_delete(three.id, OperationId::generate(), three.owner, now()).await.unwrap();
        assert_eq!(says(&store, "token-3", "started").await, None, "while its VM goes");
        store.finish_delete(three.id, now()).await.unwrap();
        assert_eq!(says(&store, "token-3", "started").await, None, "after its VM is gone");
    }

    async fn one_that_has_too_much_to_say_is_no_longer_written_down(db: TestDatabase) {
        let store = db.store().await;
        let host = HostId::generate();
        medium(&store, host, "debian-13").await;
        let vm = installed(host, "talks", "token");
        create(&store, &vm).await;
        let mut written = 0;
        for word in 0..510 {
            written += u32::from(says(&store, "token", &format!("word-{word}")).await.unwrap().is_news);
        }
        assert_eq!(written, 500);
        assert_eq!(stage(&store, vm.id).await.as_deref(), Some("word-499"));
    }

    async fn the_token_is_kept_as_a_digest_and_forgotten_with_the_secrets(db: TestDatabase) {
        const TOKEN: &str = "a-token-that-nobody-should-see";
        let store = db.store().await;
        let host = HostId::generate();
        medium(&store, host, "debian-13").await;
        let vm = installed(host, "secret", TOKEN);
        let (record, _) = create(&store, &vm).await;
        assert_eq!(record.spec, vm.spec);
        let kept = "SELECT count(*) FROM vms WHERE length(install_token_sha256) = 64";
        assert_eq!(db.number(kept).await, 1);
        assert!(says(&store, TOKEN, "started").await.is_some());
        for later in [0, 60] {
            store.forget_secrets(vm.id, now() + TimeDelta::seconds(later)).await.unwrap();
        }
        assert_eq!(says(&store, TOKEN, "failed").await, None);
        assert_eq!(db.number(kept).await, 0);
        let left = "SELECT count(*) FROM vms WHERE CAST(spec AS TEXT) LIKE '%nobody-should-see%'";
        assert_eq!(db.number(left).await, 0);
        let audited = "SELECT count(*) FROM audit_log WHERE CAST(details AS TEXT) LIKE '%nobody-should-see%'";
        assert_eq!(db.number(audited).await, 0);
        let named = "SELECT count(*) FROM audit_log WHERE CAST(details AS TEXT) LIKE '%medium%debian-13%'
                     AND action = 'vm.create'";
        assert_eq!(db.number(named).await, 1);
    }

    async fn a_vm_is_installed_from_a_medium_or_the_medium_is_deleted_never_both(db: TestDatabase) {
        let store = db.store().await;
        for round in 0..24 {
            let host = HostId::generate();
            let medium = medium(&store, host, "debian-13").await;
            let vm = installed(host, &format!("vm-{round}"), &format!("token-{round}"));
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
                (Ok(()), Err(NotAsked::InUse(uses))) => assert_eq!(uses.some, [format!("vm-{round}")]),
                (Err(StoreError::MediumGone(name)), Ok(())) => {
                    assert_eq!(name, medium.name);
                    assert!(store.vm(vm.id).await.unwrap().is_none());
                }
                other => panic!("both, or neither: {other:?}"),
            }
        }
    }

    async fn a_medium_is_used_until_the_domain_boots_from_its_disk(db: TestDatabase) {
        let store = db.store().await;
        let host = HostId::generate();
        let debian = medium(&store, host, "debian-13").await;
        let mut vm = installed(host, "first", "token-1");
        let Base::Installation(installation) = &mut vm.spec.base else { panic!("an installation") };
        installation.drivers = Some(disc("virtio-win"));
        let missing = store.create_vm(&vm, OperationId::generate(), now()).await;
        assert!(matches!(&missing, Err(StoreError::MediumGone(name)) if name.as_str() == "virtio-win"), "{missing:?}");
        let drivers = medium(&store, host, "virtio-win").await;
        create(&store, &vm).await;
        create(&store, &installed(host, "second", "token-2")).await;
        let uses = async |medium: &Medium, file: &str| store.medium_uses(medium, file).await.unwrap().some;
        assert_eq!(uses(&debian, FILE).await, ["first", "second"]);
        assert_eq!(uses(&drivers, "/media/virtio-win.iso").await, ["first"]);
        for milestone in [Milestone::FirstStarted, Milestone::SystemInstalled] {
            store.pass_milestone(vm.id, milestone, now()).await.unwrap();
            assert_eq!(uses(&debian, FILE).await, ["first", "second"], "{milestone:?}");
        }
        store.pass_milestone(vm.id, Milestone::BootReplaced, now()).await.unwrap();
        assert_eq!(uses(&debian, FILE).await, ["second"]);
        assert!(uses(&drivers, "/media/virtio-win.iso").await.is_empty());
    }

    async fn an_image_and_a_medium_of_one_name_are_two_requests(db: TestDatabase) {
        let store = db.store().await;
        let host = HostId::generate();
        medium(&store, host, "debian-13").await;
        let vm = installed(host, "one", "token-1");
        let (record, operation) = create(&store, &vm).await;
        // A token is new with each request, and the first one counts.
        let mut again = installed(host, "one", "token-2");
        (again.id, again.owner) = (vm.id, vm.owner);
        assert_eq!(create(&store, &again).await, (record, operation));
        assert!(says(&store, "token-1", "started").await.is_some());
        assert_eq!(says(&store, "token-2", "started").await, None);
        let mut image = new_vm(host, vm.owner, "one");
        image.id = vm.id;
        image.spec.image_mut().unwrap().name = "debian-13".parse().unwrap();
        let refused = store.create_vm(&image, OperationId::generate(), now()).await;
        assert!(matches!(refused, Err(StoreError::IdTaken)), "{refused:?}");
    }
}

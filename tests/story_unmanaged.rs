//! Domains that others made: seen by admins, touched by nobody.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{
    daemon::{Home, Setup, wait},
    guests::Places,
    host::{self, DomainGuard},
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(20);
/// The domain that libvirt's test driver begins with.
const STRANGER: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";
const LIST: &str = "query($first: Int!, $after: String) { unmanagedDomains(first: $first, after: $after) {
    nodes { uuid name state persistent hasAgentChannel hasOurMetadata interfaces { mac network } memoryMib vcpus }
    pageInfo { hasNextPage endCursor } } }";

on_both! {
    async fn admins_see_what_is_not_ours(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let eve = trial.home.between(&mut trial.daemon, |home| home.user("eve", &[]));
        let eve = trial.daemon.client(&eve);
        let client = trial.daemon.client(&trial.token);
        assert_eq!(eve.refused(LIST, json!({ "first": 10 })).await, "FORBIDDEN");
        let (vm, _) = client.create(trial.request("ours")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;

        // What our domain was told of itself when it was defined is still true.
        let log = std::fs::read_to_string(trial.home.path().join("log-2")).unwrap();
        assert!(log.contains("\"step\":\"Define\"") && !log.contains("\"step\":\"Note\""), "{log}");

        let seen = client.ask(LIST, json!({ "first": 10 })).await["unmanagedDomains"].take();
        let nodes = seen["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 1, "{seen}");
        let stranger = &nodes[0];
        assert_eq!((&stranger["uuid"], &stranger["name"]), (&json!(STRANGER), &json!("test")));
        assert_eq!((&stranger["state"], &stranger["persistent"]), (&json!("RUNNING"), &json!(true)));
        assert_eq!(stranger["hasAgentChannel"], false);
        assert_eq!(stranger["hasOurMetadata"], false);
        assert_eq!((&stranger["memoryMib"], &stranger["vcpus"]), (&json!("2048"), &json!(2)));
        assert_eq!(seen["pageInfo"], json!({ "hasNextPage": false, "endCursor": STRANGER }));

        let rest = client.ask(LIST, json!({ "first": 10, "after": STRANGER })).await;
        assert_eq!(rest["unmanagedDomains"]["nodes"], json!([]));
        for (first, after) in [(0, Value::Null), (201, Value::Null), (1, json!("x"))] {
            assert_eq!(client.refused(LIST, json!({ "first": first, "after": after })).await, "INVALID_INPUT");
        }
        trial.daemon.stop();
    }
}

fn diskless(uuid: &str, name: &str) -> String {
    format!(
        "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><title>Theirs</title>
         <metadata><x:theirs xmlns:x='urn:theirs' a='1'>words</x:theirs></metadata>
         <memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>
         <devices><controller type='usb' model='none'/></devices></domain>"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_changes_nothing_of_them() {
    let home = Home::new(Setup {
        uri: "qemu:///system".into(),
        database_url: None,
        images_dir: host::test_images(),
        base_dir: host::test_base_dir(),
        env: vec![("INFINIBAY__RECONCILE__SCAN_INTERVAL".into(), "1s".into())],
    });
    let token = home.admin();
    let uuid = uuid::Uuid::new_v4().to_string();
    let name = format!("story-unmanaged-{}", std::process::id());
    let file = home.path().join("theirs.xml");
    std::fs::write(&file, diskless(&uuid, &name)).unwrap();
    let _place = Places::take(1);
    let _guard = DomainGuard(name.clone());
    host::virsh(&["define", file.to_str().unwrap()]);
    let whole = || host::virsh(&["dumpxml", "--inactive", "--security-info", &name]);
    let before = whole();

    let daemon = home.start();
    let client = daemon.client(&token);
    let of = async || {
        let seen = client.ask(LIST, json!({ "first": 200 })).await["unmanagedDomains"]["nodes"].take();
        seen.as_array().unwrap().iter().find(|domain| domain["uuid"] == uuid.as_str()).cloned()
    };
    assert_eq!(of().await.unwrap()["state"], "SHUTOFF");
    host::virsh(&["start", &name]);
    let live = host::virsh(&["dumpxml", "--security-info", &name]);
    assert_eq!(of().await.unwrap()["state"], "RUNNING");
    // Scans, events and requests that name it: none of them is a reason to touch it.
    for mutation in ["startVm", "stopVm", "deleteVm", "releaseDomain"] {
        let query = format!("mutation($id: UUID!) {{ {mutation}(id: $id) {{ operation {{ id }} }} }}");
        assert_eq!(client.refused(&query, json!({ "id": uuid })).await, "VM_NOT_FOUND", "{mutation}");
    }
    let looks = std::cell::Cell::new(0);
    wait("some scans", SOON, || {
        looks.set(looks.get() + 1);
        (looks.get() > 200).then_some(())
    });
    assert_eq!(host::virsh(&["dumpxml", "--security-info", &name]), live);
    assert_eq!(whole(), before);
    daemon.stop();
    assert_eq!(host::domain_state(&name).as_deref(), Some("running"));
}

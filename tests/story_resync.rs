//! `resync`: what failed and waits to be tried again is tried at once, by who may see the VM.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    daemon::Client,
    guest::{FakeGuest, well_behaved},
    trial::{Blank, Trial, image},
};

const SOON: Duration = Duration::from_secs(20);
/// What failed is not tried again before that, unless it is asked for.
const WAIT: (Duration, &str) = (Duration::from_secs(60), "60s");
const RESYNC: &str = "mutation($id: UUID!) { resync(id: $id) { id phase } }";

/// Waits until one of the VM's conditions says this.
async fn says(client: &Client, vm: &str, word: &str) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let now = client.vm(vm).await;
        let conditions = now["conditions"].as_array().unwrap();
        if let Some(found) = conditions.iter().find(|it| it["message"].as_str().unwrap().contains(word)) {
            return found.clone();
        }
        assert!(Instant::now() < deadline, "nothing says {word:?}: {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

on_both! {
    async fn what_waits_because_it_failed_is_tried_at_once(db: TestDatabase) {
        let mut trial = Trial::start_with(&db, &[("INFINIBAY__RECONCILE__RETRY_BASE", WAIT.1)]).await;
        image(&trial.library.path().join("cloudy"), &Blank { provisioning: "cloud-init", ..Blank::default() });
        let eve = trial.home.between(&mut trial.daemon, |home| home.user("eve", &[]));
        let eve = trial.daemon.client(&eve);
        let client = trial.daemon.client(&trial.token);
        let mut request = trial.request("stuck");
        request["image"] = json!("cloudy");
        let (vm, create) = client.create(request).await;
        let asked = Instant::now();
        // Nobody put the agent there that is to be installed.
        let failed = says(&client, &vm, "WriteSeed").await;
        assert_eq!(client.vm(&vm).await["phase"], "PROVISIONING", "{failed}");

        // It is looked at again, and it fails again.
        let told = client.ask(RESYNC, json!({ "id": vm })).await;
        assert_eq!(told["resync"], json!({ "id": vm, "phase": "PROVISIONING" }));
        let root = trial.library.path().join("base/infiniservice");
        for (file, content) in [
            ("binaries/linux/infiniservice", "\x7fELF made up"),
            ("install/install-linux.sh", "#!/bin/sh\n"),
            ("install/infiniservice.service", "[Service]\n"),
        ] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), content).unwrap();
        }
        // Whoever may not see it does not learn whether it is there.
        for id in [vm.clone(), uuid::Uuid::new_v4().to_string()] {
            assert_eq!(eve.refused(RESYNC, json!({ "id": id })).await, "VM_NOT_FOUND");
        }
        client.ask(RESYNC, json!({ "id": vm })).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        assert!(asked.elapsed() < WAIT.0, "this host is too slow to tell a retry from a resync");
        let operation = client.operation(&create).await;
        assert!(operation["error"].is_null(), "{operation}");
        // Where nothing waits, it is one more look.
        client.ask(RESYNC, json!({ "id": vm })).await;
        assert_eq!(client.vm(&vm).await["phase"], "INSTALLING");
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 1, "it is no request of its own");
        trial.daemon.stop();
    }

    async fn a_deletion_that_is_held_up_is_tried_at_once_too(db: TestDatabase) {
        let trial = Trial::start_with(&db, &[("INFINIBAY__RECONCILE__RETRY_BASE", WAIT.1)]).await;
        let client = &trial.client;
        let id = VmId::generate();
        let guest = FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 4, Vec::new()));
        let mut request = trial.request("going");
        request["id"] = json!(id.to_string());
        let (vm, _) = client.create(request).await;
        client.agent_is(&vm, "ONLINE", SOON).await;
        // A socket that somebody listens on is not left over.
        let delete = client.change("deleteVm", &vm).await;
        says(client, &vm, "listens").await;
        let held_up = Instant::now();
        drop(guest);
        let told = client.ask(RESYNC, json!({ "id": vm })).await;
        assert_eq!(told["resync"], json!({ "id": vm, "phase": "DELETING" }));
        client.succeeded(&delete, SOON).await;
        assert!(held_up.elapsed() < WAIT.0, "this host is too slow to tell a retry from a resync");
        assert_eq!(client.refused(RESYNC, json!({ "id": vm })).await, "VM_NOT_FOUND");
        trial.daemon.stop();
    }
}

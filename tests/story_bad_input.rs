//! What people and programs get wrong, each refused with a stable code, and nothing half done.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    guest::{FakeGuest, well_behaved},
    trial::{Blank, Trial, image},
};

const SOON: Duration = Duration::from_secs(20);
const CREATE: &str = "mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id } } }";
const RUN: &str = "mutation($vm: UUID!) { executeVmCommand(vmId: $vm, command: { safe: { action: OS_INFO } }) { success } }";

on_both! {
    async fn bad_requests_are_refused_and_leave_nothing(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let with = |key: &str, value: Value| {
            let mut request = trial.request("fine");
            request[key] = value;
            json!({ "input": request })
        };
        for (key, value, code) in [
            ("name", json!(""), "INVALID_INPUT"),
            ("name", json!("x".repeat(300)), "INVALID_INPUT"),
            ("name", json!("<a b='c'>\"&amp;\n</a>"), "INVALID_INPUT"),
            ("name", json!("two\nlines"), "INVALID_INPUT"),
            ("name", json!("../../etc/passwd"), "INVALID_INPUT"),
            // The test driver's own domain, which we did not make.
            ("name", json!("test"), "NAME_TAKEN"),
            ("vcpus", json!(0), "INVALID_INPUT"),
            ("vcpus", json!(-1), "INVALID_INPUT"),
            ("memoryMib", json!(1), "INVALID_INPUT"),
            ("diskGib", json!(0), "INVALID_INPUT"),
            ("diskGib", json!(1_000_000_000), "INVALID_INPUT"),
            ("image", json!("no-such"), "IMAGE_NOT_FOUND"),
            ("image", json!("/etc/passwd"), "INVALID_INPUT"),
            ("pool", json!("no-such"), "POOL_NOT_FOUND"),
            ("network", json!("no-such"), "NETWORK_NOT_FOUND"),
            ("network", json!("user"), "INVALID_INPUT"),
        ] {
            let refused = client.refused(CREATE, with(key, value.clone())).await;
            assert_eq!(refused, code, "{key} = {value:.60}");
        }
        // Sizes and first-boot settings, of images that have a say in them.
        let library = trial.library.path();
        image(&library.join("cloudy"), &Blank { provisioning: "cloud-init", ..Blank::default() });
        image(&library.join("large"), &Blank { size: "2G", ..Blank::default() });
        for (image, key, value, field) in [
            ("large", "diskGib", json!(1), "diskGib"),
            ("cloudy", "unattended", json!({ "user": "root; rm -rf /" }), "unattended.user"),
            ("cloudy", "unattended", json!({ "hostname": "a b" }), "unattended.hostname"),
            ("cloudy", "unattended", json!({ "timezone": "../../etc/shadow" }), "unattended.timezone"),
            ("cloudy", "unattended", json!({ "packages": ["-o", "APT::x"] }), "unattended.packages"),
            ("cloudy", "unattended", json!({ "sshKeys": ["ssh-rsa A\ncommand"] }), "unattended.sshKeys"),
            // Nothing in this image would read them.
            ("blank", "unattended", json!({ "hostname": "web" }), "unattended"),
            ("blank", "unattended", json!({ "user": "ada", "password": "correct horse" }), "unattended"),
            ("blank", "unattended", json!({ "firstBootCommands": ["true"] }), "unattended"),
        ] {
            let mut request = with(key, value.clone());
            request["input"]["image"] = json!(image);
            let answer = client.send(CREATE, request).await;
            let told = &answer["errors"][0]["extensions"];
            assert_eq!((&told["code"], &told["field"]), (&json!("INVALID_INPUT"), &json!(field)), "{key} = {value}: {answer}");
        }
        let vms = client.ask("{ vms { nodes { id } } }", json!({})).await;
        assert_eq!(vms["vms"]["nodes"], json!([]), "a refused request left a VM");
        // Settings that say nothing are none.
        let mut request = trial.request("fine");
        request["unattended"] = json!({ "packages": [] });
        client.create(request).await;
    }

    async fn a_taken_name_and_a_taken_id_are_refused(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, _) = client.create(trial.request("taken")).await;
        assert_eq!(client.refused(CREATE, json!({ "input": trial.request("taken") })).await, "NAME_TAKEN");
        let mut request = trial.request("other");
        request["id"] = json!(vm);
        assert_eq!(client.refused(CREATE, json!({ "input": request })).await, "ID_TAKEN");
    }

    async fn commands_for_vms_that_cannot_hear_are_refused(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let nobody = VmId::generate().to_string();
        assert_eq!(client.refused(RUN, json!({ "vm": nobody })).await, "VM_NOT_FOUND");
        let (vm, _) = client.create(trial.request("silent")).await;
        assert_eq!(client.refused(RUN, json!({ "vm": vm })).await, "AGENT_NOT_CONNECTED");
        client.phase_is(&vm, "INSTALLING", SOON).await;
        assert_eq!(client.refused(RUN, json!({ "vm": vm })).await, "AGENT_NOT_CONNECTED");
        let stop = "mutation($id: UUID!) { stopVm(id: $id, force: true) { operation { id } } }";
        client.ask(stop, json!({ "id": vm })).await;
        client.phase_is(&vm, "STOPPED", SOON).await;
        let answer = client.send(RUN, json!({ "vm": vm })).await;
        let error = &answer["errors"][0];
        assert_eq!(error["extensions"]["code"], "AGENT_NOT_CONNECTED", "{answer}");
        assert!(error["message"].as_str().unwrap().contains("start it with `startVm`"), "{answer}");
        for mutation in ["startVm", "stopVm", "deleteVm"] {
            let query = format!("mutation($id: UUID!) {{ {mutation}(id: $id) {{ operation {{ id }} }} }}");
            assert_eq!(client.refused(&query, json!({ "id": nobody })).await, "VM_NOT_FOUND");
        }
    }

    async fn a_vm_that_is_deleting_takes_no_commands(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let id = VmId::generate();
        let guest = FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 4, Vec::new()));
        let mut request = trial.request("going");
        request["id"] = json!(id.to_string());
        let (vm, _) = client.create(request).await;
        client.agent_is(&vm, "ONLINE", SOON).await;
        let heard = guest.received_of("SafeCommand").len();
        // A socket that somebody listens on is not left over: as long as the guest does, the
        // deletion cannot end.
        let delete = client.change("deleteVm", &vm).await;
        let held_up = async {
            loop {
                let now = client.vm(&vm).await;
                let conditions = now["conditions"].as_array().unwrap();
                if conditions.iter().any(|c| c["message"].as_str().is_some_and(|m| m.contains("listens"))) {
                    return now;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let now = tokio::time::timeout(SOON, held_up).await.expect("what holds the deletion up is told");
        assert_eq!(now["phase"], "DELETING", "{now}");
        assert_eq!(client.refused(RUN, json!({ "vm": vm })).await, "VM_DELETING");
        for mutation in ["startVm", "stopVm"] {
            let query = format!("mutation($id: UUID!) {{ {mutation}(id: $id) {{ operation {{ id }} }} }}");
            assert_eq!(client.refused(&query, json!({ "id": vm })).await, "VM_DELETING");
        }
        assert_eq!(guest.received_of("SafeCommand").len(), heard, "a refused command was sent");
        drop(guest);
        client.succeeded(&delete, Duration::from_secs(60)).await;
        assert_eq!(client.refused(RUN, json!({ "vm": vm })).await, "VM_NOT_FOUND");
    }

    async fn an_image_that_cannot_be_built_is_refused_and_shown_as_such(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let folder = trial.library.path().join("a-broken");
        image(&folder, &Blank::default());
        std::fs::write(folder.join("manifest.toml"), "description = 1").unwrap();
        let mut request = trial.request("pane");
        request["image"] = json!("a-broken");
        assert_eq!(client.refused(CREATE, json!({ "input": request })).await, "IMAGE_UNUSABLE");
        let page = "query($after: String) { images(first: 1, after: $after) {
            nodes { name usable problem } pageInfo { hasNextPage endCursor } } }";
        let first = client.ask(page, json!({})).await;
        let problem = &first["images"]["nodes"][0]["problem"];
        assert!(problem.as_str().is_some_and(|problem| problem.starts_with("manifest.toml: ")), "{first}");
        assert_eq!(first["images"], json!({
            "nodes": [{ "name": "a-broken", "usable": false, "problem": problem }],
            "pageInfo": { "hasNextPage": true, "endCursor": "a-broken" },
        }));
        let second = client.ask(page, json!({ "after": "a-broken" })).await;
        assert_eq!(second["images"], json!({
            "nodes": [{ "name": "blank", "usable": true, "problem": null }],
            "pageInfo": { "hasNextPage": false, "endCursor": "blank" },
        }));
        let refused = client.refused("{ images(first: 0) { nodes { name } } }", json!({})).await;
        assert_eq!(refused, "INVALID_INPUT");
    }

    async fn a_machine_that_the_host_cannot_make_is_refused(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let host = client.ask("{ host { firmware tpm } }", json!({})).await;
        assert_eq!(host["host"], json!({ "firmware": ["BIOS"], "tpm": false }));
        for (firmware, tpm, missing) in [
            ("UEFI", false, "ovmf"),
            ("UEFI_SECURE_BOOT", true, "secure boot"),
            ("BIOS", true, "swtpm"),
        ] {
            let mut request = trial.request("proud");
            request["firmware"] = json!(firmware);
            request["tpm"] = json!(tpm);
            let answer = client.send(CREATE, json!({ "input": request })).await;
            assert_eq!(answer["errors"][0]["extensions"]["code"], "NOT_SUPPORTED", "{answer}");
            assert!(answer["errors"][0]["message"].as_str().unwrap().contains(missing), "{answer}");
        }
        let mut request = trial.request("proud");
        request["firmware"] = json!("COREBOOT");
        assert_eq!(client.refused(CREATE, json!({ "input": request })).await, "INVALID_QUERY");
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 0);

        // What needs nothing special is made; the same id with another machine is another request.
        let mut request = trial.request("modest");
        request["id"] = json!(infinibay::vm::VmId::generate().to_string());
        let first = client.create(request.clone()).await;
        assert_eq!(client.create(request.clone()).await, first);
        let shown = client.ask("query($id: UUID!) { vm(id: $id) { firmware tpm } }", json!({ "id": first.0 })).await;
        assert_eq!(shown["vm"], json!({ "firmware": "BIOS", "tpm": false }));
        request["tpm"] = json!(true);
        assert_eq!(client.refused(CREATE, json!({ "input": request })).await, "ID_TAKEN");
    }

    async fn a_windows_image_can_be_made_into_a_vm(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        image(&trial.library.path().join("a-windows"), &Blank { os_family: "windows", ..Blank::default() });
        let mut request = trial.request("pane");
        request["image"] = json!("a-windows");
        let (vm, _) = trial.client.create(request).await;
        // Its domain is made and runs; nobody plays its agent.
        trial.client.phase_is(&vm, "INSTALLING", Duration::from_secs(60)).await;
        let delete = trial.client.change("deleteVm", &vm).await;
        trial.client.succeeded(&delete, Duration::from_secs(60)).await;
    }

    async fn an_image_that_names_other_files_is_refused(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        image(&trial.library.path().join("leaky"), &Blank { backing: Some("/etc/passwd"), ..Blank::default() });
        let mut request = trial.request("leaky");
        request["image"] = json!("leaky");
        assert_eq!(trial.client.refused(CREATE, json!({ "input": request })).await, "IMAGE_UNUSABLE");
    }

    async fn strangers_see_nothing_and_shell_lines_need_the_permission(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("private")).await;
        // Users are made while no daemon runs.
        let beside = trial.home.command().args(["user", "add", "mallory"]).output().unwrap();
        assert!(!beside.status.success(), "the database was changed beside a running daemon");
        let nobody = trial.daemon.client("not-a-token");
        assert_eq!(nobody.refused("{ vms { nodes { id } } }", json!({})).await, "UNAUTHENTICATED");
        let Trial { home, daemon, .. } = &mut trial;
        let token = home.between(daemon, |home| home.user("eve", &[]));
        let eve = trial.daemon.client(&token);
        assert_eq!(eve.ask("{ vms { nodes { id } } }", json!({})).await["vms"]["nodes"], json!([]));
        assert!(eve.ask("query($id: UUID!) { vm(id: $id) { id } }", json!({ "id": vm })).await["vm"].is_null());
        assert_eq!(eve.refused(RUN, json!({ "vm": vm })).await, "VM_NOT_FOUND");
        let delete = "mutation($id: UUID!) { deleteVm(id: $id) { operation { id } } }";
        assert_eq!(eve.refused(delete, json!({ "id": vm })).await, "VM_NOT_FOUND");
        // Her own VM: safe commands yes, shell lines no.
        let id = VmId::generate();
        let _guest = FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 4, Vec::new()));
        let mut request = trial.request("eves");
        request["id"] = json!(id.to_string());
        let (own, _) = eve.create(request).await;
        eve.agent_is(&own, "ONLINE", SOON).await;
        assert_eq!(eve.action(&own, "OS_INFO").await["success"], true);
        let shell = "mutation($vm: UUID!) { executeVmCommand(vmId: $vm, command: { unsafe: { rawCommand: \"id\" } }) { id } }";
        assert_eq!(eve.refused(shell, json!({ "vm": own })).await, "FORBIDDEN");
    }
}

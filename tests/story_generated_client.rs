//! The API for programs of another ecosystem: a client that ariadne-codegen (PyPI) generates from
//! `schema.graphql` and a few documents. Every answer has to fit the types that were generated.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{fs, path::Path, process::Command};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    guest::{FakeGuest, well_behaved},
    node::{Node, SOON, clients, here},
    trial::Trial,
};

/// Generates the client; the directory holds its package.
fn generated() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(here("ariadne.toml")).unwrap();
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql");
    let whence = format!(
        "[tool.ariadne-codegen]\nschema_path = {schema:?}\nqueries_path = {:?}\ntarget_package_path = {:?}",
        here("operations"),
        dir.path(),
    );
    let config = config.replace("[tool.ariadne-codegen]", &whence);
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let ran = Command::new(format!("{}/python/bin/ariadne-codegen", clients()))
        .args(["--config", "config.toml"])
        .current_dir(dir.path())
        .output()
        .expect("ariadne-codegen is needed; scripts/test installs it");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    dir
}

on_both! {
    async fn a_generated_client_reads_all_it_is_told(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let eve = trial.home.between(&mut trial.daemon, |home| home.user("eve", &[]));
        trial.client = trial.daemon.client(&trial.token);
        let ids: Vec<_> = (0..4).map(|_| VmId::generate()).collect();
        let agent = |&id: &VmId| {
            FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 4, Vec::new()))
        };
        let mut agents: Vec<_> = ids.iter().map(agent).collect();
        let mut request = trial.request("guest");
        request["id"] = json!(ids[3].to_string());
        let (guest, operation) = trial.client.create(request).await;
        trial.client.succeeded(&operation, SOON).await;
        trial.client.agent_is(&guest, "ONLINE", SOON).await;
        let vms: Vec<_> = ids[..3].iter().map(ToString::to_string).collect();

        let package = generated();
        let mut program = Node::python("generated.py", package.path());
        program
            .tell(json!({ "url": trial.daemon.url, "token": trial.token, "stranger": eve, "vms": vms, "guest": guest }))
            .await;
        let me = program.hears("generated", "me").await;
        assert_eq!(me, json!({ "name": "admin", "role": "ADMIN", "permissions": ["unsafe_commands"] }));
        for (number, vm) in vms.iter().enumerate() {
            let made = program.hears("generated", "created").await;
            assert_eq!((&made["name"], &made["vm"]), (&json!(format!("made-{number}")), &json!(vm)));
            assert!(made["stages"].as_u64().unwrap() > 0, "{made}");
        }
        let listed = program.hears("generated", "listed").await;
        assert_eq!(listed, json!([["made-0", "made-1"], ["made-2"]]));
        assert_eq!(program.hears("generated", "newest").await, "made-2");
        let ran = program.hears("generated", "ran").await;
        assert_eq!((&ran["status"], &ran["success"]), (&json!("ANSWERED"), &json!(true)), "{ran}");
        assert!(ran["response"]["stdout"].as_str().unwrap().contains("uptime"), "{ran}");
        assert_eq!(program.hears("generated", "logged").await, json!([["safe"], ["unsafe"]]));
        let seen = program.hears("generated", "guest").await;
        assert_eq!(seen["connectivity"], "ONLINE", "{seen}");
        assert!(seen["capabilities"].as_array().unwrap().contains(&json!("unsafe_commands")), "{seen}");
        let events = program.hears("generated", "events").await;
        assert_eq!(events["snapshot"]["agent"], "ONLINE", "{events}");
        let types = events["types"].as_array().unwrap();
        assert!(types[0] == "snapshot" && types.len() > 1, "{events}");
        // QEMU's socket goes with its VM.
        drop(agents.remove(0));
        for (what, code) in [
            ("no processors", "INVALID_INPUT"),
            ("a name that is taken", "NAME_TAKEN"),
            ("another's", "VM_NOT_FOUND"),
            ("nobody's", "VM_NOT_FOUND"),
            ("a shell line of one who may not", "VM_NOT_FOUND"),
            ("no such cursor", "INVALID_INPUT"),
            ("a wrong token", "UNAUTHENTICATED"),
        ] {
            let told = program.hears("generated", "refused").await;
            assert_eq!((&told["what"], &told["codes"]), (&json!(what), &json!([code])), "{told}");
        }
        assert_eq!(program.hears("generated", "another's events").await, json!([]));
        assert_eq!(program.hears("generated", "another's list").await, json!([]));
        assert_eq!(program.hears("generated", "deleted").await["there"], false);
        // What it says that it did is so.
        assert_eq!(trial.client.vm(&vms[0]).await, Value::Null);
        assert_eq!(trial.client.vm(&vms[1]).await["name"], "made-1");
        trial.daemon.stop();
    }
}

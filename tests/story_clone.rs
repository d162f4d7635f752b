//! Full copies on libvirt's test driver: made, told, asked for again, refused, and caught up in what
//! becomes of either VM meanwhile.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    daemon::{Client, Home, Setup, unnumbered},
    guest::{FakeGuest, well_behaved},
    host::{self, DomainGuard, Pool},
    trial::Trial,
};

const READY: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
const CLONE: &str = "mutation($id: UUID!, $input: CloneVmInput!) {
    cloneVm(id: $id, input: $input) { vm { id phase } operation { id kind vmId } } }";
const LOOK: &str = "query($id: UUID!) { vm(id: $id) { name image vcpus memoryMib diskBytes power autostart clonedFrom
    ownerId macAddresses policy { onCrash } disks { target bytes pool } interfaces { network } media { target } } }";
/// The test driver's own domain.
const OF_OTHERS: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";
const VOLUMES: &str = "SELECT count(*) FROM resources WHERE kind = 'volume'";
const OPEN_LOANS: &str = "SELECT count(*) FROM operations WHERE kind = 'lend' AND finished_at IS NULL";

async fn done(client: &Client, mutation: &str, arguments: &str) {
    let query = format!("mutation {{ {mutation}({arguments}) {{ operation {{ id }} }} }}");
    let asked = client.ask(&query, json!({})).await[mutation]["operation"]["id"].take();
    client.succeeded(asked.as_str().unwrap(), SOON).await;
}

/// A VM that was ready once and is off.
async fn off(trial: &Trial, name: &str) -> String {
    let client = &trial.client;
    let (vm, create) = client.create(trial.request(name)).await;
    client.phase_is(&vm, "INSTALLING", SOON).await;
    let id: VmId = vm.parse().unwrap();
    let guest = FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 1, Vec::new()));
    client.succeeded(&create, SOON).await;
    done(client, "stopVm", &format!("id: \"{vm}\"")).await;
    client.phase_is(&vm, "STOPPED", SOON).await;
    drop(guest);
    vm
}

/// How an operation ended: its status, and its error's code.
async fn ended(client: &Client, operation: &str) -> (String, Option<String>) {
    let deadline = Instant::now() + SOON;
    loop {
        let now = client.operation(operation).await;
        let word = |value: &Value| value.as_str().map(str::to_owned);
        match now["status"].as_str().unwrap() {
            "PENDING" | "RUNNING" => assert!(Instant::now() < deadline, "still at {now}"),
            status => return (status.to_owned(), word(&now["error"]["code"])),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a number in the database is this.
async fn counts(db: &support::database::TestDatabase, sql: &'static str, expected: i64) {
    let deadline = Instant::now() + SOON;
    loop {
        let now = db.number(sql).await;
        if now == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {now}, not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn id_of(asked: &Value, what: &str) -> String {
    asked["cloneVm"][what]["id"].as_str().unwrap().to_owned()
}

on_both! {
    async fn a_copy_is_made_told_and_outlives_what_it_was_made_of(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let source = off(&trial, "source").await;
        let of_source = format!("id: \"{source}\"");
        done(client, "attachVmDisk", &format!("{of_source}, bytes: \"1500000\"")).await;
        done(client, "attachVmInterface", &format!("{of_source}, network: \"default\"")).await;
        done(client, "setVmAutostart", &format!("{of_source}, autostart: true")).await;
        done(client, "setVmPolicy", &format!("{of_source}, onPowerOff: FOLLOW, onCrash: RESTART")).await;

        let id = VmId::generate().to_string();
        let input = json!({ "id": id, "name": "copy", "network": "default" });
        let asked = client.ask(CLONE, json!({ "id": source, "input": input })).await;
        assert_eq!((id_of(&asked, "vm"), &asked["cloneVm"]["operation"]["kind"]), (id.clone(), &json!("CLONE")));
        assert_eq!(asked["cloneVm"]["operation"]["vmId"], json!(id));
        let operation = id_of(&asked, "operation");
        client.succeeded(&operation, SOON).await;
        client.phase_is(&id, "STOPPED", SOON).await;

        let (theirs, ours) = (
            client.ask(LOOK, json!({ "id": source })).await["vm"].take(),
            client.ask(LOOK, json!({ "id": id })).await["vm"].take(),
        );
        for same in ["image", "vcpus", "memoryMib", "diskBytes", "policy", "disks", "ownerId"] {
            assert_eq!(ours[same], theirs[same], "{same}");
        }
        assert_eq!(ours["disks"].as_array().unwrap().len(), 2);
        assert_eq!((&ours["name"], &ours["power"], &ours["clonedFrom"]), (&json!("copy"), &json!("STOPPED"), &json!(source)));
        assert_eq!((&ours["autostart"], &theirs["autostart"]), (&json!(false), &json!(true)));
        // One that was plugged in, and the first, which the copy was given.
        let cards = |vm: &Value| vm["interfaces"].as_array().unwrap().len();
        assert_eq!((cards(&theirs), cards(&ours)), (1, 2), "{theirs} and {ours}");
        counts(&db, VOLUMES, 4).await;
        counts(&db, OPEN_LOANS, 0).await;

        // The same once more is the same.
        let again = client.ask(CLONE, json!({ "id": source, "input": input })).await;
        assert_eq!((id_of(&again, "vm"), id_of(&again, "operation")), (id.clone(), operation));
        for (key, value) in [("name", "other"), ("network", "none")] {
            let mut other = input.clone();
            other[key] = json!(value);
            assert_eq!(client.refused(CLONE, json!({ "id": source, "input": other })).await, "ID_TAKEN", "{key}");
        }

        // One that is to run, of the copy's own original, which is free again.
        let input = json!({ "name": "running", "start": true });
        let asked = client.ask(CLONE, json!({ "id": source, "input": input })).await;
        let running = id_of(&asked, "vm");
        client.succeeded(&id_of(&asked, "operation"), SOON).await;
        client.phase_is(&running, "INSTALLING", SOON).await;
        counts(&db, OPEN_LOANS, 0).await;
        done(client, "startVm", &of_source).await;

        done(client, "deleteVm", &of_source).await;
        counts(&db, VOLUMES, 4).await;
        done(client, "startVm", &format!("id: \"{id}\"")).await;
        let input = json!({ "id": id, "name": "copy", "network": "default" });
        let again = client.ask(CLONE, json!({ "id": source, "input": input })).await;
        assert_eq!(id_of(&again, "vm"), id, "a retry outlives the VM that was copied");
        for vm in [&id, &running] {
            done(client, "deleteVm", &format!("id: \"{vm}\"")).await;
        }
        assert_eq!(db.number("SELECT count(*) FROM resources").await, 0);
        trial.daemon.stop();
    }

    async fn what_cannot_be_copied_is_refused(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let eve = trial.home.between(&mut trial.daemon, |home| home.user("eve", &[]));
        trial.client = trial.daemon.client(&trial.token);
        let client = &trial.client;
        let source = off(&trial, "source").await;
        let with = |input: Value| json!({ "id": source, "input": input });
        for (field, input) in [
            ("name", json!({ "name": "" })),
            ("name", json!({ "name": "x".repeat(300) })),
            ("name", json!({ "name": "../../etc/passwd" })),
            ("name", json!({ "name": "two\nlines" })),
            ("name", json!({ "name": "<a b='c'>\"&amp;</a>" })),
            ("id", json!({ "name": "fine", "id": "00000000-0000-0000-0000-000000000000" })),
            ("network", json!({ "name": "fine", "network": "../x" })),
            ("network", json!({ "name": "fine", "network": "user" })),
            ("hostname", json!({ "name": "fine", "hostname": "a b; reboot" })),
            // Nothing in this image would read it.
            ("hostname", json!({ "name": "fine", "hostname": "web-1" })),
        ] {
            let answer = client.send(CLONE, with(input.clone())).await;
            let told = &answer["errors"][0]["extensions"];
            assert_eq!((&told["code"], &told["field"]), (&json!("INVALID_INPUT"), &json!(field)), "{input}: {answer}");
        }
        for (code, input) in [
            ("NAME_TAKEN", json!({ "name": "source" })),
            ("NAME_TAKEN", json!({ "name": "test" })),
            ("NETWORK_NOT_FOUND", json!({ "name": "fine", "network": "no-such" })),
            ("ID_TAKEN", json!({ "name": "fine", "id": source })),
        ] {
            assert_eq!(client.refused(CLONE, with(input.clone())).await, code, "{input}");
        }

        // Somebody else's is as if it were not there.
        let stranger = trial.daemon.client(&eve);
        let nobody = json!({ "id": VmId::generate().to_string(), "input": { "name": "fine" } });
        let fine = with(json!({ "name": "fine" }));
        let told = |answer: Value| unnumbered(answer["errors"][0]["extensions"].clone());
        let (theirs, none) = (stranger.send(CLONE, fine.clone()).await, stranger.send(CLONE, nobody).await);
        assert_eq!((&told(theirs.clone()), told(theirs)["code"].as_str()), (&told(none), Some("VM_NOT_FOUND")));

        // Not while it runs, not as it is saved, not before it was ready, not on its way out.
        let id = format!("id: \"{source}\"");
        done(client, "startVm", &id).await;
        assert_eq!(client.refused(CLONE, fine.clone()).await, "WRONG_STATE");
        done(client, "saveVm", &id).await;
        client.phase_is(&source, "SAVED", SOON).await;
        assert_eq!(client.refused(CLONE, fine.clone()).await, "WRONG_STATE");
        let (young, _) = client.create(trial.request("young")).await;
        client.phase_is(&young, "INSTALLING", SOON).await;
        done(client, "stopVm", &format!("id: \"{young}\"")).await;
        client.phase_is(&young, "STOPPED", SOON).await;
        let of_young = json!({ "id": young, "input": { "name": "fine" } });
        assert_eq!(client.refused(CLONE, of_young.clone()).await, "WRONG_STATE");
        done(client, "deleteVm", &format!("id: \"{young}\"")).await;
        assert_eq!(client.refused(CLONE, of_young).await, "VM_NOT_FOUND");
        assert_eq!(db.number("SELECT count(*) FROM vms").await, 1, "a refused request left a VM");
        assert_eq!(db.number("SELECT count(*) FROM operations WHERE kind IN ('clone', 'lend')").await, 0);

        // The test driver's own domain: its disks are not ours to copy.
        const ADOPT: &str = "mutation($uuid: UUID!) { adoptDomain(uuid: $uuid) { vm { id } } }";
        let adopted = client.ask(ADOPT, json!({ "uuid": OF_OTHERS })).await["adoptDomain"]["vm"]["id"].take();
        assert_eq!(client.refused(CLONE, json!({ "id": adopted, "input": { "name": "fine" } })).await, "VM_ADOPTED");
        trial.daemon.stop();
    }

    async fn copies_at_once_and_deletions_in_between_end_well(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let source = off(&trial, "source").await;

        // Many at once: those that came too early are told so, and nothing is half stored.
        let mut requests = tokio::task::JoinSet::new();
        for n in 0..6 {
            let (client, source) = (client.clone(), source.clone());
            requests.spawn(async move {
                let input = json!({ "name": format!("copy-{n}") });
                client.send(CLONE, json!({ "id": source, "input": input })).await
            });
        }
        let answers = requests.join_all().await;
        let mut copies = Vec::new();
        for mut answer in answers {
            match answer["errors"][0]["extensions"]["code"].as_str() {
                None => copies.push((id_of(&answer["data"], "vm"), id_of(&answer["data"].take(), "operation"))),
                Some(code) => assert_eq!(code, "VM_BUSY", "{answer}"),
            }
        }
        assert!(!copies.is_empty(), "each refused the others");
        for (_, operation) in &copies {
            assert_eq!(ended(client, operation).await, ("SUCCEEDED".to_owned(), None));
        }
        for (copy, _) in copies {
            done(client, "deleteVm", &format!("id: \"{copy}\"")).await;
        }

        // The copy is deleted at once: the loan ends with it.
        for n in 0..3 {
            counts(&db, OPEN_LOANS, 0).await;
            let input = json!({ "name": format!("gone-{n}"), "start": n == 1 });
            let asked = client.ask(CLONE, json!({ "id": source, "input": input })).await;
            done(client, "deleteVm", &format!("id: \"{}\"", id_of(&asked, "vm"))).await;
            let (status, _) = ended(client, &id_of(&asked, "operation")).await;
            assert!(["SUPERSEDED", "SUCCEEDED"].contains(&status.as_str()), "{status}");
        }
        counts(&db, OPEN_LOANS, 0).await;
        counts(&db, VOLUMES, 1).await;

        // What is copied is deleted at once: that wins, and the copy is there or says why not.
        let asked = client.ask(CLONE, json!({ "id": source, "input": { "name": "orphan" } })).await;
        done(client, "deleteVm", &format!("id: \"{source}\"")).await;
        match ended(client, &id_of(&asked, "operation")).await {
            (status, None) => assert_eq!(status, "SUCCEEDED"),
            (status, Some(code)) => {
                assert_eq!((status.as_str(), code.as_str()), ("FAILED", "SOURCE_DELETED"));
                client.phase_is(&id_of(&asked, "vm"), "FAILED", SOON).await;
            }
        }
        done(client, "deleteVm", &format!("id: \"{}\"", id_of(&asked, "vm"))).await;
        assert_eq!(db.number("SELECT count(*) FROM resources").await, 0);
        trial.daemon.stop();
    }

    /// On QEMU: the test driver's host dies with its daemon, and with it what is to be copied.
    async fn a_copy_goes_on_after_a_crash(db: TestDatabase) {
        host::need_image("pocket");
        let home = Home::new(Setup {
            uri: "qemu:///system".into(),
            database_url: Some(db.url.clone()),
            images_dir: host::test_images(),
            base_dir: host::test_base_dir(),
            env: vec![],
        });
        let pool = Pool::new(home.path());
        let token = home.admin();
        let name = format!("story-crash-{}", VmId::generate());
        let copy_name = format!("{name}-copy");
        let _guards = (DomainGuard(name.clone()), DomainGuard(copy_name.clone()));
        let mut daemon = home.start();
        let client = daemon.client(&token);
        let input = json!({
            "name": name, "image": "pocket", "vcpus": 1, "memoryMib": 192, "pool": pool.name, "network": "none",
        });
        let (source, create) = client.create(input).await;
        client.succeeded(&create, READY).await;
        done(&client, "stopVm", &format!("id: \"{source}\"")).await;
        client.phase_is(&source, "STOPPED", SOON).await;

        let asked = client.ask(CLONE, json!({ "id": source, "input": { "name": copy_name } })).await;
        home.between(&mut daemon, |_| ());
        let client = daemon.client(&token);
        assert_eq!(ended(&client, &id_of(&asked, "operation")).await, ("SUCCEEDED".to_owned(), None));
        let copy = id_of(&asked, "vm");
        client.phase_is(&copy, "STOPPED", SOON).await;
        counts(&db, OPEN_LOANS, 0).await;
        assert_eq!(pool.volumes().len(), 2, "{:?}", pool.volumes());
        for vm in [&source, &copy] {
            done(&client, "deleteVm", &format!("id: \"{vm}\"")).await;
            assert!(!host::domain_exists(vm), "the domain of {vm} is left");
        }
        assert_eq!(pool.volumes(), Vec::<std::path::PathBuf>::new());
        assert_eq!(db.number("SELECT count(*) FROM resources").await, 0);
        daemon.stop();
    }
}

//! Many people at one VM at the same moment: of changes one is under way, of requests for power the
//! last one holds, of two new VMs one gets the name, and a deletion, also of what is still being made,
//! leaves nothing.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{daemon::Client, host, trial::Trial};
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(60);
const ROUNDS: u64 = 6;
const CREATE: &str =
    "mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id } operation { id } } }";
const RESIZE: &str = "mutation($id: UUID!, $memory: Int!) {
    resizeVm(id: $id, memoryMib: $memory) { vm { id } operation { id } } }";
const AUTOSTART: &str = "mutation($id: UUID!, $on: Boolean!) {
    setVmAutostart(id: $id, autostart: $on) { vm { id } operation { id } } }";
const PULL_PLUG: &str =
    "mutation($id: UUID!) { stopVm(id: $id, force: true) { vm { id } operation { id } } }";

/// A request that was taken: the ids of VM and operation. Or the code by which it was refused.
type Answer = Result<(String, String), String>;

fn plain(mutation: &str) -> String {
    format!("mutation($id: UUID!) {{ {mutation}(id: $id) {{ vm {{ id }} operation {{ id }} }} }}")
}

/// All of these at the same moment, each over a connection of its own.
async fn at_once(trial: &Trial, requests: Vec<(String, Value)>) -> Vec<Answer> {
    let together = std::sync::Arc::new(tokio::sync::Barrier::new(requests.len()));
    let mut asked = JoinSet::new();
    for (request, variables) in requests {
        let (client, together) = (trial.daemon.client(&trial.token), std::sync::Arc::clone(&together));
        asked.spawn(async move {
            together.wait().await;
            let answer = client.send(&request, variables).await;
            let code = answer["errors"][0]["extensions"]["code"].as_str();
            if let Some(code) = code {
                return Err(code.to_owned());
            }
            let payload = answer["data"].as_object().and_then(|data| data.values().next());
            let id = |of: &str| payload.and_then(|it| it[of]["id"].as_str()).map(str::to_owned);
            Ok((id("vm").unwrap(), id("operation").unwrap_or_else(|| panic!("{answer}"))))
        });
    }
    asked.join_all().await
}

fn taken(answers: &[Answer]) -> BTreeSet<&str> {
    answers.iter().flatten().map(|(_, operation)| operation.as_str()).collect()
}

/// Every refusal has one of these codes.
fn refused_only_as(answers: &[Answer], codes: &[&str]) {
    for code in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert!(codes.contains(&code.as_str()), "{answers:?}");
    }
}

/// How the operation ended.
async fn ended(client: &Client, operation: &str) -> String {
    let deadline = Instant::now() + SOON;
    loop {
        let now = client.operation(operation).await;
        match now["status"].as_str().unwrap() {
            "PENDING" | "RUNNING" => assert!(Instant::now() < deadline, "still at {now}"),
            status => return status.to_owned(),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn made(trial: &Trial, name: &str) -> String {
    let (vm, _) = trial.client.create(trial.request(name)).await;
    trial.client.phase_is(&vm, "INSTALLING", SOON).await;
    vm
}

/// Neither in the database, nor in libvirt, nor on the disk.
async fn nothing_is_left(trial: &Trial, db: &support::database::TestDatabase) {
    assert_eq!(db.number("SELECT count(*) FROM vms").await, 0);
    assert_eq!(db.number("SELECT count(*) FROM resources").await, 0);
    let open = "SELECT count(*) FROM operations WHERE finished_at IS NULL";
    assert_eq!(db.number(open).await, 0, "operations go on without their VM");
    let domains = trial.client.ask("{ unmanagedDomains { nodes { name } } }", json!({})).await;
    // The test driver's own.
    assert_eq!(domains["unmanagedDomains"]["nodes"], json!([{ "name": "test" }]));
    for dir in ["seeds", "console"] {
        assert_eq!(host::files_in(&trial.home.state_dir().join(dir)), Vec::<PathBuf>::new());
    }
}

on_both! {
    async fn of_changes_one_is_under_way(db: TestDatabase) {
        const OPEN: &str = "SELECT count(*) FROM operations WHERE change IS NOT NULL AND finished_at IS NULL";
        let trial = Trial::start(&db).await;
        let vm = made(&trial, "changed").await;
        let (mut changes, mut busy) = (0, 0);
        for _ in 0..ROUNDS {
            let resize = |memory: u64| (RESIZE.to_owned(), json!({ "id": vm, "memory": memory }));
            let switch = |on: bool| (AUTOSTART.to_owned(), json!({ "id": vm, "on": on }));
            let reset = (plain("resetVm"), json!({ "id": vm }));
            let requests = vec![
                resize(136), resize(144), resize(152), resize(160), switch(true), switch(false), reset.clone(), reset,
            ];
            let answers = {
                let mut asking = std::pin::pin!(at_once(&trial, requests));
                loop {
                    tokio::select! {
                        answers = &mut asking => break answers,
                        open = db.number(OPEN) => assert!(open <= 1, "{open} changes are under way"),
                    }
                }
            };
            refused_only_as(&answers, &["VM_BUSY"]);
            busy += answers.iter().filter(|answer| answer.is_err()).count();
            let taken = taken(&answers);
            assert!(!taken.is_empty(), "{answers:?}");
            for operation in &taken {
                assert_eq!(ended(&trial.client, operation).await, "SUCCEEDED");
            }
            changes += i64::try_from(taken.len()).unwrap();
        }
        assert!(busy > 0, "none of {changes} changes met another");
        assert_eq!(db.number("SELECT count(*) FROM operations WHERE change IS NOT NULL").await, changes);
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'vm.change'").await, changes);
        trial.daemon.stop();
    }

    async fn of_requests_for_power_the_last_one_holds(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let vm = made(&trial, "powered").await;
        for _ in 0..ROUNDS {
            let mut requests = vec![(PULL_PLUG.to_owned(), json!({ "id": vm })); 2];
            for mutation in ["startVm", "startVm", "stopVm", "suspendVm", "resumeVm", "saveVm"] {
                requests.push((plain(mutation), json!({ "id": vm })));
            }
            let answers = at_once(&trial, requests).await;
            refused_only_as(&answers, &["WRONG_STATE"]);
            let taken = taken(&answers);
            assert!(taken.len() >= 5, "start and stop are never refused: {answers:?}");
            for operation in &taken {
                let status = ended(&trial.client, operation).await;
                // One that asked for a guest may find it off.
                assert!(["SUCCEEDED", "SUPERSEDED", "FAILED"].contains(&status.as_str()), "{status}");
            }
            let power = trial.client.ask("query($id: UUID!) { vm(id: $id) { power } }", json!({ "id": vm })).await;
            let phases: &[&str] = match power["vm"]["power"].as_str().unwrap() {
                "RUNNING" => &["INSTALLING"],
                // One that was saved stays saved.
                "STOPPED" | "FORCED_OFF" | "SAVED" => &["STOPPED", "SAVED"],
                // Unless it was off already when its turn came.
                "PAUSED" => &["PAUSED", "STOPPED", "SAVED"],
                other => panic!("{other}"),
            };
            let deadline = Instant::now() + SOON;
            loop {
                let now = trial.client.vm(&vm).await;
                if phases.contains(&now["phase"].as_str().unwrap()) {
                    break;
                }
                assert!(Instant::now() < deadline, "asked for {power}, and is {now}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        trial.daemon.stop();
    }

    async fn a_name_and_an_id_are_given_once(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let request = |id: VmId| {
            let mut request = trial.request("contested");
            request["id"] = json!(id.to_string());
            (CREATE.to_owned(), json!({ "input": request }))
        };
        let answers = at_once(&trial, (0..6).map(|_| request(VmId::generate())).collect()).await;
        refused_only_as(&answers, &["NAME_TAKEN"]);
        assert_eq!(taken(&answers).len(), 1, "{answers:?}");
        let (vm, _) = answers.iter().flatten().next().unwrap();
        let delete = trial.client.change("deleteVm", vm).await;
        trial.client.succeeded(&delete, SOON).await;

        // The same request, sent again by somebody who had no answer.
        let answers = at_once(&trial, vec![request(VmId::generate()); 6]).await;
        refused_only_as(&answers, &[]);
        assert_eq!(taken(&answers).len(), 1, "{answers:?}");
        trial.daemon.stop();
    }

    async fn a_deletion_wins_over_whatever_is_asked_with_it(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        for _ in 0..ROUNDS {
            let vm = made(&trial, "going").await;
            let mut requests = vec![(plain("deleteVm"), json!({ "id": vm })); 2];
            for mutation in ["startVm", "stopVm", "resetVm", "saveVm"] {
                requests.push((plain(mutation), json!({ "id": vm })));
            }
            requests.push((AUTOSTART.to_owned(), json!({ "id": vm, "on": true })));
            let answers = at_once(&trial, requests).await;
            refused_only_as(&answers, &["VM_DELETING", "VM_NOT_FOUND", "VM_BUSY", "WRONG_STATE"]);
            for operation in taken(&answers) {
                ended(&trial.client, operation).await;
            }
            let gone = "SELECT count(*) FROM operations WHERE kind = 'delete' AND status <> 'succeeded'";
            assert_eq!(db.number(gone).await, 0);
            nothing_is_left(&trial, &db).await;
        }
        trial.daemon.stop();
    }

    async fn what_is_still_being_made_can_be_deleted_at_any_moment(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let mut lives = JoinSet::new();
        for n in 0..16_u32 {
            let (client, request) = (trial.client.clone(), trial.request(&format!("short-lived-{n}")));
            lives.spawn(async move {
                let (vm, create) = client.create(request).await;
                // Each at a moment of its own, from before the first step to after the last one.
                tokio::time::sleep(Duration::from_millis(12) * n).await;
                let delete = client.change("deleteVm", &vm).await;
                client.succeeded(&delete, SOON).await;
                assert_eq!(ended(&client, &create).await, "SUPERSEDED");
            });
        }
        lives.join_all().await;
        nothing_is_left(&trial, &db).await;
        trial.daemon.stop();
    }
}

//! A domain that others made becomes a VM, is used as one, and is given back as it was.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    daemon::{Client, wait},
    guest::{FakeGuest, quirky},
    host,
    stranger::Stranger,
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(30);
/// The domain that libvirt's test driver begins with.
const STRANGER: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";
const ADOPT: &str = "mutation($uuid: UUID!, $owner: UUID) { adoptDomain(uuid: $uuid, ownerId: $owner) {
    vm { id name adopted image ownerId vcpus memoryMib diskBytes power } operation { id kind } } }";

async fn adopted(client: &Client, uuid: &str) -> Value {
    let mut data = client.ask(ADOPT, json!({ "uuid": uuid })).await;
    let operation = data["adoptDomain"]["operation"]["id"].as_str().unwrap().to_owned();
    client.succeeded(&operation, SOON).await;
    let effect =
        client.ask("query($id: UUID!) { operation(id: $id) { effect } }", json!({ "id": operation })).await;
    data["adoptDomain"]["effect"] = effect["operation"]["effect"].clone();
    data["adoptDomain"].take()
}

async fn released(client: &Client, vm: &str) {
    let operation = client.change("releaseDomain", vm).await;
    client.succeeded(&operation, SOON).await;
    let gone = client.ask("query($id: UUID!) { vm(id: $id) { id } }", json!({ "id": vm })).await;
    assert!(gone["vm"].is_null(), "a released VM is still there");
}

on_both! {
    async fn a_strangers_domain_is_adopted_used_and_given_back(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let eve = trial.home.between(&mut trial.daemon, |home| home.user("eve", &[]));
        let eve = trial.daemon.client(&eve);
        let client = trial.daemon.client(&trial.token);

        let nobody = uuid::Uuid::new_v4().to_string();
        assert_eq!(eve.refused(ADOPT, json!({ "uuid": STRANGER })).await, "FORBIDDEN");
        assert_eq!(client.refused(ADOPT, json!({ "uuid": nobody })).await, "DOMAIN_NOT_FOUND");
        assert_eq!(client.refused(ADOPT, json!({ "uuid": STRANGER, "owner": nobody })).await, "INVALID_INPUT");

        let guest = FakeGuest::listen(&trial.home.socket_dir(), STRANGER.parse::<VmId>().unwrap(), |s, r| {
            quirky(s, r, Vec::new())
        });
        let told = adopted(&client, STRANGER).await;
        assert_eq!(told["operation"]["kind"], "ADOPT");
        let vm = &told["vm"];
        assert_eq!((&vm["id"], &vm["name"], &vm["adopted"]), (&json!(STRANGER), &json!("test"), &json!(true)));
        assert_eq!((&vm["image"], &vm["diskBytes"]), (&json!("(none)"), &json!("0")));
        assert_eq!((&vm["vcpus"], &vm["memoryMib"], &vm["power"]), (&json!(2), &json!("2048"), &json!("RUNNING")));
        client.phase_is(STRANGER, "RUNNING", SOON).await;

        assert_eq!(client.refused(ADOPT, json!({ "uuid": STRANGER })).await, "ID_TAKEN");
        let named = json!({ "input": trial.request("test") });
        let create = "mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id } } }";
        assert_eq!(client.refused(create, named).await, "NAME_TAKEN");
        let delete = "mutation($id: UUID!) { deleteVm(id: $id) { vm { id } } }";
        assert_eq!(client.refused(delete, json!({ "id": STRANGER })).await, "VM_ADOPTED");
        let release = "mutation($id: UUID!) { releaseDomain(id: $id) { vm { id } } }";
        assert_eq!(eve.refused(release, json!({ "id": STRANGER })).await, "VM_NOT_FOUND");

        // With its channel from its next start at the latest, it is a VM like others.
        for (mutation, phase) in [("stopVm", "STOPPED"), ("startVm", "RUNNING")] {
            let operation = client.change(mutation, STRANGER).await;
            client.succeeded(&operation, SOON).await;
            client.phase_is(STRANGER, phase, SOON).await;
        }
        client.agent_is(STRANGER, "ONLINE", SOON).await;
        assert_eq!(client.shell(STRANGER, "echo one").await["success"], true);
        drop(guest);
        let stop = client.change("stopVm", STRANGER).await;
        client.succeeded(&stop, SOON).await;

        released(&client, STRANGER).await;
        assert_eq!(db.number("SELECT count(*) FROM vms").await, 0);
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'vm.adopt'").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM command_log").await, 1, "history stays");
        let list = "{ unmanagedDomains { nodes { uuid state hasAgentChannel hasOurMetadata } } }";
        let seen = client.ask(list, json!({})).await["unmanagedDomains"]["nodes"].take();
        let expected = json!([{ "uuid": STRANGER, "state": "SHUTOFF", "hasAgentChannel": false, "hasOurMetadata": false }]);
        assert_eq!(seen, expected);

        // Again, for somebody else; and one that was made here is not given back.
        let eves = eve.ask("{ me { id } }", json!({})).await["me"]["id"].take();
        let again = client.ask(ADOPT, json!({ "uuid": STRANGER, "owner": eves })).await;
        client.succeeded(again["adoptDomain"]["operation"]["id"].as_str().unwrap(), SOON).await;
        assert_eq!(eve.vm(STRANGER).await["phase"], "STOPPED");
        assert_eq!(eve.refused(release, json!({ "id": STRANGER })).await, "FORBIDDEN");
        let (ours, _) = client.create(trial.request("ours")).await;
        client.phase_is(&ours, "INSTALLING", SOON).await;
        assert_eq!(client.refused(release, json!({ "id": ours })).await, "WRONG_STATE");
        trial.daemon.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_off_gets_its_channel_with_its_start_and_is_given_back_as_it_was() {
    let stage = Stranger::set("off");
    stage.bring("define", "", "");
    let before = stage.whole();
    let (daemon, client) = stage.start();
    let vm = stage.uuid.as_str();
    assert_eq!(adopted(&client, vm).await["effect"], "LIVE");
    assert!(stage.whole().contains("org.infinibay.agent") && stage.whole().contains("hunter2"));
    client.phase_is(vm, "STOPPED", SOON).await;
    let start = client.change("startVm", vm).await;
    client.succeeded(&start, SOON).await;
    let socket = stage.home.socket(vm);
    wait("the channel's socket", SOON, || socket.exists().then_some(()));
    let off = "mutation($id: UUID!) { stopVm(id: $id, force: true) { operation { id } } }";
    let off = client.ask(off, json!({ "id": vm })).await;
    client.succeeded(off["stopVm"]["operation"]["id"].as_str().unwrap(), SOON).await;

    released(&client, vm).await;
    assert_eq!(stage.whole(), before);
    assert!(!socket.exists(), "its socket is left");
    assert_eq!(host::domain_state(vm).as_deref(), Some("shut off"));
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_runs_gets_its_channel_at_once_and_goes_on_when_it_is_given_back() {
    let stage = Stranger::set("on");
    let theirs = "<metadata><x:theirs xmlns:x='urn:theirs' a='1'>words</x:theirs></metadata>";
    stage.bring("define", theirs, "<controller type='virtio-serial' index='0'/>");
    host::virsh(&["start", &stage.name]);
    let (before, pid) = (stage.whole(), stage.pid());
    let (daemon, client) = stage.start();
    let vm = stage.uuid.as_str();
    assert_eq!(adopted(&client, vm).await["effect"], "LIVE");
    let socket = stage.home.socket(vm);
    wait("the channel's socket", SOON, || socket.exists().then_some(()));
    client.phase_is(vm, "RUNNING", SOON).await;
    // Killed and started anew, the controller finds it as it left it.
    daemon.kill();
    let (daemon, client) = stage.start();
    client.phase_is(vm, "RUNNING", SOON).await;

    released(&client, vm).await;
    assert_eq!(stage.whole(), before);
    assert_eq!(stage.pid(), pid, "the domain was started anew");
    let live = host::virsh(&["dumpxml", &stage.name]);
    assert!(!live.contains("urn:infinibay"), "{live}");
    if !live.contains("org.infinibay.agent") {
        assert!(!socket.exists(), "its socket is left");
    }
    daemon.stop();
    assert_eq!(host::domain_state(vm).as_deref(), Some("running"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_domain_that_others_removed_can_be_let_go() {
    let stage = Stranger::set("gone");
    stage.bring("define", "", "");
    let (daemon, client) = stage.start();
    let vm = stage.uuid.as_str();
    adopted(&client, vm).await;
    host::virsh(&["undefine", &stage.name]);
    released(&client, vm).await;
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_domain_is_refused() {
    let stage = Stranger::set("transient");
    stage.bring("create", "", "");
    let (daemon, client) = stage.start();
    let live = || host::virsh(&["dumpxml", "--security-info", &stage.name]);
    let before = live();
    let refused = client.send(ADOPT, json!({ "uuid": stage.uuid })).await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], "DOMAIN_NOT_ADOPTABLE", "{refused}");
    assert!(refused["errors"][0]["message"].as_str().unwrap().contains("transient"), "{refused}");
    assert_eq!(live(), before);
    daemon.stop();
}

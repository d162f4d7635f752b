//! Somebody else's domain is taken in and given back as it was.

use serde_json::json;

use super::death::{ask_to_death, points_of, under_way};
use crate::support::{
    daemon::{Client, operation_in},
    host::virsh,
    stage::SOON,
    stranger::Stranger,
};

pub const TOLD: &[&str] = &["adopt", "release"];

const ADOPT: &str = "mutation($id: UUID!) { adoptDomain(uuid: $id) { operation { id } } }";
const RELEASE: &str = "mutation($id: UUID!) { releaseDomain(id: $id) { operation { id } } }";

pub async fn story() {
    let stranger = Stranger::set("killed");
    stranger.bring("define", "", "<controller type='virtio-serial' index='0'/>");
    let (vm, before) = (stranger.uuid.as_str(), stranger.whole());
    let mut adoptions = points_of("adopt").iter();
    for point in points_of("release") {
        // Only of one that runs something is to be taken out at once.
        let runs = matches!(*point, "release.detached" | "release.forgotten");
        let phase = if runs { "RUNNING" } else { "STOPPED" };
        if runs {
            virsh(&["start", vm]);
        }
        match adoptions.next() {
            Some(point) => killed_at(&stranger, point, None, ADOPT).await,
            None => stranger.start().1.done(ADOPT, json!({ "id": vm })).await,
        }
        let whole = stranger.whole();
        assert!(whole.contains("org.infinibay.agent") && whole.contains("urn:infinibay"), "{whole}");

        if *point == "release.cleared" {
            // As of a guest whose process was killed.
            drop(std::os::unix::net::UnixListener::bind(stranger.home.socket(vm)).unwrap());
        }
        killed_at(&stranger, point, Some(phase), RELEASE).await;
        let (_daemon, client) = stranger.start();
        assert!(is_gone(&client, vm).await, "{point}: a VM that was given back is still there");
        assert_eq!(stranger.whole(), before, "{point}");
        if runs {
            let live = virsh(&["dumpxml", vm]);
            assert!(!live.contains("urn:infinibay"), "{point}: {live}");
            virsh(&["destroy", vm]);
        } else {
            assert!(!stranger.home.socket(vm).exists(), "{point}: its socket is left");
        }
    }
    assert_eq!(adoptions.next(), None, "more ways to adopt a domain than to give it back");
}

async fn is_gone(client: &Client, vm: &str) -> bool {
    client.ask("query($id: UUID!) { vm(id: $id) { id } }", json!({ "id": vm })).await["vm"].is_null()
}

async fn killed_at(stranger: &Stranger, point: &str, phase: Option<&str>, mutation: &str) {
    let vm = stranger.uuid.as_str();
    let ready = async |client: &Client| {
        if let Some(phase) = phase {
            client.phase_is(vm, phase, SOON).await;
        }
    };
    let at = (&stranger.home, stranger.token.as_str());
    let answered = ask_to_death(at, point, ready, mutation, &json!({ "id": vm })).await;
    let operation = match answered {
        Some(answered) => Some(operation_in(&answered)),
        None => under_way(&stranger.home, vm).await,
    };
    let (_daemon, client) = stranger.start();
    if let Some(operation) = operation {
        client.succeeded(&operation, SOON).await;
    }
}

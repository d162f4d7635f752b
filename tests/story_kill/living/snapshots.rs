//! Snapshots: taken once, of file systems at rest, which are never left frozen; gone back to once; forgotten.

use std::collections::BTreeSet;

use serde_json::json;

use super::{super::death::points_of, MARK, Scene};
use crate::support::{
    host::{self, virsh},
    qemu_agent,
    stage::{READY, SOON},
};

const TAKE: &str = "mutation($id: UUID!, $name: String!) { \
    createVmSnapshot(id: $id, name: $name, memory: false, quiesce: REQUIRED) { operation { id } } }";
const TAKE_WITH_MEMORY: &str =
    "mutation($id: UUID!, $name: String!) { createVmSnapshot(id: $id, name: $name) { operation { id } } }";
const REVERT: &str =
    "mutation($id: UUID!, $name: String!) { revertVmSnapshot(id: $id, name: $name) { operation { id } } }";
const FORGET: &str =
    "mutation($id: UUID!, $name: String!) { deleteVmSnapshot(id: $id, name: $name) { operation { id } } }";

impl Scene {
    pub(super) async fn snapshots(&mut self) {
        let client = self.client();
        client.output(&self.vm, "echo kept >/tmp/mark").await;
        client.done(TAKE_WITH_MEMORY, json!({ "id": self.vm, "name": "with-memory" })).await;
        let mut taken = BTreeSet::from(["with-memory".to_owned()]);
        // A thaw is on the way of a snapshot that a crash left frozen.
        let thaws = points_of("thaw").iter().map(|point| vec!["freeze.frozen", *point]);
        let ways = points_of("create-snapshot").iter().map(|point| vec![*point]).chain(thaws);
        for (number, points) in ways.enumerate() {
            let name = format!("snapshot-{number}");
            qemu_agent::forget(&self.client(), &self.vm).await;
            self.killed_at(&points, TAKE, json!({ "name": name })).await;
            taken.insert(name.clone());
            assert_eq!(self.listed().await, taken, "killed at {points:?}");
            let client = self.client();
            client.agent_is(&self.vm, "ONLINE", SOON).await;
            let told = qemu_agent::told(&client, &self.vm).await;
            assert!(told.contains("freeze"), "{points:?}: never frozen");
            assert!(told.ends_with("thaw"), "{points:?}: left frozen: {told}");
        }

        for point in points_of("retake-snapshot") {
            let name = "retaken".to_owned();
            qemu_agent::forget(&self.client(), &self.vm).await;
            let operation = self.killed(&["create-snapshot.taken"], TAKE, json!({ "name": name })).await;
            // The guest's file systems did not rest until the end: somebody else let them go.
            virsh(&["domfsthaw", &self.vm]);
            self.stage.home.dies_at(point, SOON);
            assert!(!virsh(&["snapshot-list", "--name", &self.vm]).contains(&name), "{point}");
            self.finished(operation).await;
            taken.insert(name);
            assert_eq!(self.listed().await, taken, "killed at {point}");
            let told = qemu_agent::told(&self.client(), &self.vm).await;
            assert!(told.matches("freeze").count() > 1 && told.ends_with("thaw"), "{point}: {told}");
        }

        for point in points_of("revert-snapshot") {
            let off = *point == "revert-snapshot.paused";
            let to = if off { "snapshot-0" } else { "with-memory" };
            self.client().output(&self.vm, "echo lost >/tmp/mark").await;
            let operation = self.killed(&[point], REVERT, json!({ "name": to })).await;
            let process = virsh(&["domid", &self.vm]);
            self.finished(operation).await;
            if point.starts_with("change.") && *point != "change.stored" {
                let now = virsh(&["domid", &self.vm]);
                assert_eq!(now, process, "{point}: taken back once more from a guest that went on");
            }
            let client = self.client();
            if off {
                client.phase_is(&self.vm, "STOPPED", SOON).await;
                assert_eq!(host::domain_state(&self.vm).as_deref(), Some("shut off"), "{point}");
                let start = client.change("startVm", &self.vm).await;
                client.succeeded(&start, READY).await;
                client.agent_is(&self.vm, "ONLINE", READY).await;
            } else {
                client.agent_is(&self.vm, "ONLINE", SOON).await;
                assert_eq!(client.output(&self.vm, MARK).await, "kept", "{point}");
            }
            assert_eq!(self.listed().await, taken, "{point}");
        }

        for (number, point) in points_of("delete-snapshot").iter().enumerate() {
            let name = format!("snapshot-{number}");
            self.killed_at(&[point], FORGET, json!({ "name": name })).await;
            taken.remove(&name);
            assert_eq!(self.listed().await, taken, "killed at {point}");
        }
        for name in taken {
            self.client().done(FORGET, json!({ "id": self.vm, "name": name })).await;
        }
    }

    /// The names of the snapshots, as the API and libvirt tell them.
    async fn listed(&self) -> BTreeSet<String> {
        const LIST: &str = "query($id: UUID!) { vmSnapshots(vmId: $id) { name } }";
        let told = self.client().ask(LIST, json!({ "id": self.vm })).await["vmSnapshots"].take();
        let told = told.as_array().unwrap().iter();
        let told: BTreeSet<_> = told.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        let names = virsh(&["snapshot-list", "--name", &self.vm]);
        let names: Vec<_> = names.split_whitespace().map(str::to_owned).collect();
        assert_eq!(names.len(), told.len(), "{names:?}, {told:?}");
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), told);
        told
    }
}

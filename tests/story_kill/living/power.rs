//! Power and name.

use serde_json::json;

use super::{super::death::points_of, MARK, Scene};
use crate::support::{
    host::{self, DomainGuard, virsh},
    stage::{READY, SOON},
};

const RENAME: &str =
    "mutation($id: UUID!, $name: String!) { renameVm(id: $id, name: $name) { operation { id } } }";

impl Scene {
    /// On a way through all the states of power; what the guest has in memory stays where it should.
    pub(super) async fn power_and_name(&mut self) {
        for point in points_of("power") {
            let (mutation, expected) = match *point {
                "shutdown.requested" => ("stopVm(id: $id)", "shut off"),
                "start.started" => ("startVm(id: $id)", "running"),
                "suspend.suspended" | "power.stored" => ("suspendVm(id: $id)", "paused"),
                "resume.resumed" => ("resumeVm(id: $id)", "running"),
                "save.saved" => ("saveVm(id: $id)", "shut off"),
                "discard-saved.discarded" => ("startVm(id: $id, discardSaved: true)", "running"),
                other => panic!("{other}: what is asked for there is not told"),
            };
            let mutation = format!("mutation($id: UUID!) {{ {mutation} {{ operation {{ id }} }} }}");
            self.killed_at(&[point], &mutation, json!({})).await;
            assert_eq!(host::domain_state(&self.vm).as_deref(), Some(expected), "{point}");
            let client = self.client();
            match *point {
                "shutdown.requested" => {
                    self.rename().await;
                    self.loses_its_name(RENAME).await;
                    self.is_given_up().await;
                }
                "start.started" | "discard-saved.discarded" => {
                    client.agent_is(&self.vm, "ONLINE", READY).await;
                    assert_eq!(client.output(&self.vm, MARK).await, "", "{point}: not a new start");
                    client.output(&self.vm, "echo kept >/tmp/mark").await;
                }
                "resume.resumed" => {
                    client.agent_is(&self.vm, "ONLINE", SOON).await;
                    assert_eq!(client.output(&self.vm, MARK).await, "kept", "{point}");
                }
                _ => {}
            }
        }
        let client = self.client();
        client
            .done("mutation($id: UUID!) { resumeVm(id: $id) { operation { id } } }", json!({ "id": self.vm }))
            .await;
        client.agent_is(&self.vm, "ONLINE", SOON).await;
        assert_eq!(client.output(&self.vm, MARK).await, "kept");
    }

    /// There and back as often as there are points.
    async fn rename(&mut self) {
        for (number, point) in points_of("rename").iter().enumerate() {
            let name = format!("{}-{number}", self.stage.name);
            let _guard = DomainGuard(name.clone());
            self.killed_at(&[point], RENAME, json!({ "name": name })).await;
            assert_eq!(self.client().vm(&self.vm).await["name"], name.as_str(), "{point}");
            assert_eq!(virsh(&["domname", &self.vm]).trim(), name, "{point}");
            self.client().done(RENAME, json!({ "id": self.vm, "name": self.stage.name })).await;
        }
    }
}

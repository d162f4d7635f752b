//! How a VM is treated, and what is done to its guest; and requests that end badly: as they would have
//! without a crash, with nothing left of them.

use std::time::Instant;

use serde_json::{Value, json};

use super::{super::death::points_of, ATTACH, MARK, Scene};
use crate::support::{
    host::{DomainGuard, virsh},
    stage::{READY, SOON},
};

const AUTOSTART: &str =
    "mutation($id: UUID!, $on: Boolean!) { setVmAutostart(id: $id, autostart: $on) { operation { id } } }";
const POLICY: &str = "mutation($id: UUID!, $off: OnPowerOff!, $crash: OnCrash!) { \
    setVmPolicy(id: $id, onPowerOff: $off, onCrash: $crash) { operation { id } } }";
const TREATED: &str = "query($id: UUID!) { vm(id: $id) { autostart policy { onPowerOff onCrash } } }";

fn disk_of(vm: &str) -> String {
    format!("infinibay-{vm}.qcow2")
}

impl Scene {
    async fn treated(&self) -> Value {
        self.client().ask(TREATED, json!({ "id": self.vm })).await["vm"].take()
    }

    /// Waits until the operation ended badly, with this code.
    async fn failed(&mut self, operation: &str, code: &str, point: &str) {
        self.finished(None).await;
        let (client, deadline) = (self.client(), Instant::now() + READY);
        loop {
            let now = client.operation(operation).await;
            match now["status"].as_str().unwrap() {
                "PENDING" | "RUNNING" => {
                    assert!(Instant::now() < deadline, "{point}: still at {now}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                status => {
                    let told = (status, now["error"]["code"].as_str());
                    assert_eq!(told, ("FAILED", Some(code)), "{point}: {now}");
                    return;
                }
            }
        }
    }

    pub(super) async fn settings(&mut self) {
        for (number, point) in points_of("set-autostart").iter().enumerate() {
            let on = number % 2 == 0;
            self.killed_at(&[point], AUTOSTART, json!({ "on": on })).await;
            assert_eq!(self.treated().await["autostart"], on, "{point}");
            let info = virsh(&["dominfo", &self.vm]);
            let line = info.lines().find(|line| line.starts_with("Autostart:")).unwrap();
            assert!(line.ends_with(if on { "enable" } else { "disable" }), "{point}: {line}");
        }
        self.client().done(AUTOSTART, json!({ "id": self.vm, "on": false })).await;

        for (number, point) in points_of("set-policy").iter().enumerate() {
            let (off, crash) = if number % 2 == 0 { ("CORRECT", "STAY") } else { ("FOLLOW", "RESTART") };
            self.killed_at(&[point], POLICY, json!({ "off": off, "crash": crash })).await;
            let expected = json!({ "onPowerOff": off, "onCrash": crash });
            assert_eq!(self.treated().await["policy"], expected, "{point}");
        }
        self.client().done(POLICY, json!({ "id": self.vm, "off": "FOLLOW", "crash": "STAY" })).await;
    }

    /// What the guest had in memory is gone, and it answers.
    async fn booted_anew(&self, point: &str) {
        self.client().agent_is(&self.vm, "ONLINE", READY).await;
        self.guest_sees("[ -e /tmp/mark ] && echo kept || echo gone", "gone").await;
        assert_eq!(self.client().output(&self.vm, MARK).await, "", "{point}");
    }

    pub(super) async fn boots(&mut self) {
        const RESET: &str = "mutation($id: UUID!) { resetVm(id: $id) { operation { id } } }";
        const REBOOT: &str = "mutation($id: UUID!) { rebootVm(id: $id) { operation { id } } }";
        let of = |operation, mutation| points_of(operation).iter().map(move |point| (*point, mutation));
        for (point, mutation) in of("reset", RESET).chain(of("reboot", REBOOT)) {
            let process = virsh(&["domid", &self.vm]);
            self.client().output(&self.vm, "echo kept >/tmp/mark").await;
            self.killed_at(&[point], mutation, json!({})).await;
            self.booted_anew(point).await;
            assert_eq!(virsh(&["domid", &self.vm]), process, "{point}: it was powered off");
        }
    }

    /// Of a disk that cannot be plugged in, because its domain has no configuration any more.
    pub(super) async fn undone_disk(&mut self) {
        let (xml, file) =
            (virsh(&["dumpxml", "--inactive", &self.vm]), self.stage.home.path().join("kept.xml"));
        std::fs::write(&file, xml).unwrap();
        virsh(&["undefine", "--snapshots-metadata", "--managed-save", &self.vm]);
        for point in points_of("undo-disk") {
            let operation = self.killed(&[point], ATTACH, json!({})).await;
            match operation {
                Some(operation) => self.failed(&operation, "NOT_SUPPORTED", point).await,
                None => self.finished(None).await,
            }
            let volumes = self.stage.pool.volumes();
            assert_eq!(volumes.len(), 1, "{point}: {volumes:?}");
        }
        virsh(&["define", file.to_str().unwrap()]);
        std::fs::remove_file(&file).unwrap();
        self.client().phase_is(&self.vm, "RUNNING", SOON).await;
        self.client().done(ATTACH, json!({ "id": self.vm })).await;
        const DETACH: &str = "mutation($id: UUID!) { \
            detachVmDisk(id: $id, target: \"vdb\", deleteVolume: true) { operation { id } } }";
        self.client().done(DETACH, json!({ "id": self.vm })).await;
    }

    /// The VM is off, and another one gets its new name before it does.
    pub(super) async fn loses_its_name(&mut self, rename: &str) {
        for (number, point) in points_of("take-name-back").iter().enumerate() {
            let name = format!("{}-taken-{number}", self.stage.name);
            let _guard = DomainGuard(name.clone());
            let operation = self.killed(&["change.done"], rename, json!({ "name": name })).await.unwrap();
            assert_eq!(virsh(&["domname", &self.vm]).trim(), name, "{point}");
            let other = super::super::death::made_meanwhile(&self.stage.home, &self.vm, &name).await;
            self.stage.home.dies_at(point, SOON);
            self.failed(&operation, "NAME_TAKEN", point).await;
            assert_eq!(virsh(&["domname", &self.vm]).trim(), self.stage.name, "{point}");
            let client = self.client();
            assert_eq!(client.vm(&self.vm).await["name"], self.stage.name.as_str(), "{point}");
            let gone = client.change("deleteVm", &other).await;
            client.succeeded(&gone, SOON).await;
            let volumes = self.stage.pool.volumes();
            assert!(!volumes.iter().any(|path| path.ends_with(disk_of(&other))), "{point}: {volumes:?}");
            client.phase_is(&self.vm, "STOPPED", SOON).await;
        }
    }

    /// The VM is off, and cannot be started.
    pub(super) async fn is_given_up(&mut self) {
        let disk = self.stage.pool.dir.join(disk_of(&self.vm));
        let kept = self.stage.home.path().join("kept.qcow2");
        for point in points_of("give-up") {
            std::fs::rename(&disk, &kept).unwrap();
            let start = "mutation($id: UUID!) { startVm(id: $id) { operation { id } } }";
            let operation = self.killed(&[point], start, json!({})).await.unwrap();
            self.failed(&operation, "STEP_FAILED", point).await;
            std::fs::rename(&kept, &disk).unwrap();
            self.client().phase_is(&self.vm, "FAILED", SOON).await;
            let off = self.client().change("stopVm", &self.vm).await;
            self.client().succeeded(&off, SOON).await;
            self.client().phase_is(&self.vm, "STOPPED", SOON).await;
        }
    }
}

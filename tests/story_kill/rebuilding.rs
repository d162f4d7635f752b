//! The database is lost, and what rebuilds it dies on its way: done again, it ends as if it never had.

use std::os::unix::process::ExitStatusExt;

use serde_json::json;

use super::death::points_of;
use crate::support::{
    daemon::wait,
    host::{files_in, virsh},
    stage::{SOON, Stage},
};

pub const TOLD: &[&str] = &["rebuild"];

pub async fn story() {
    const LOOK: &str =
        "query($id: UUID!) { vm(id: $id) { name installedAt createdAt ownerId image memoryMib diskBytes } }";
    let stage = Stage::set("rebuilt");
    let mut daemon = stage.home.start();
    let (mut client, vm) = stage.create(&daemon).await;
    let before = client.ask(LOOK, json!({ "id": vm })).await;
    let process = virsh(&["domid", &vm]);
    // The last thing that is noted of it is that it is installed.
    let written = before["vm"]["installedAt"].as_str().unwrap()[..19].to_owned();
    wait("the domain to be told that it is installed", SOON, || {
        let text = virsh(&["metadata", &vm, "--uri", "urn:infinibay:domain"]);
        text.contains(&format!("\"installed_at\":\"{written}")).then_some(())
    });

    for point in points_of("rebuild") {
        daemon.kill();
        for file in files_in(&stage.home.state_dir()) {
            if file.file_name().unwrap().to_str().unwrap().starts_with("infinibay.db") {
                std::fs::remove_file(file).unwrap();
            }
        }
        let mut dying = stage.home.command();
        let dead = dying.env("FAILPOINTS", format!("{point}=return")).args(["db", "rebuild", &vm]);
        let dead = dead.output().unwrap();
        assert_eq!(dead.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&dead.stderr));
        stage.home.run(&["db", "rebuild", &vm]);
        let again = stage.home.run(&["db", "rebuild", &vm]);
        assert!(again.contains("is there already"), "{point}: {again}");

        // His name and his id are there once, and he has no token.
        let users = stage.home.run(&["user", "list"]);
        assert_eq!(users.matches("admin\tmember\t-").count(), 1, "{point}: {users}");
        let token = stage.home.run(&["user", "token", "admin"]);
        daemon = stage.home.start();
        client = daemon.client(token.trim());
        client.agent_is(&vm, "ONLINE", SOON).await;
        client.phase_is(&vm, "RUNNING", SOON).await;
        assert_eq!(client.ask(LOOK, json!({ "id": vm })).await, before, "{point}");
        assert_eq!(virsh(&["domid", &vm]), process, "{point}: another process");
    }
    let gone = client.change("deleteVm", &vm).await;
    client.succeeded(&gone, SOON).await;
    stage.nothing_is_left(&vm);
    daemon.stop();
}

//! The daemon dies with SIGKILL in the middle of things, on real QEMU with a real guest, and the
//! next one finishes the job: nothing twice, nothing left behind.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{path::Path, time::Duration};

use support::{
    daemon::wait,
    host,
    stage::{READY, SOON, Stage},
};

fn exists(path: &Path) -> Option<()> {
    path.exists().then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_request_was_just_accepted() {
    let stage = Stage::set("accepted");
    let daemon = stage.home.start();
    let (vm, operation) = stage.ask(&daemon).await;
    daemon.kill();
    let daemon = stage.home.start();
    let client = stage.is_ready(&daemon, &vm, &operation).await;
    stage.delete(&client, &vm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_disk_was_just_made() {
    let stage = Stage::set("disk");
    let daemon = stage.home.start();
    let (vm, operation) = stage.ask(&daemon).await;
    wait("the disk", SOON, || stage.pool.volumes().first().cloned());
    daemon.kill();
    let daemon = stage.home.start();
    let client = stage.is_ready(&daemon, &vm, &operation).await;
    stage.delete(&client, &vm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_guest_boots_and_again_in_the_middle_of_its_deletion() {
    let stage = Stage::set("boot");
    let daemon = stage.home.start();
    let (vm, operation) = stage.ask(&daemon).await;
    let socket = stage.home.socket(&vm);
    wait("the guest's socket", SOON, || exists(&socket));
    daemon.kill();
    let daemon = stage.home.start();
    let client = stage.is_ready(&daemon, &vm, &operation).await;
    assert_eq!(client.shell(&vm, "echo alive").await["response"]["stdout"], "alive\n");

    let operation = client.change("deleteVm", &vm).await;
    // Begun: the guest is down, and something is left to do.
    wait("the domain to go down", SOON, || (!socket.exists()).then_some(()));
    daemon.kill();
    assert!(!stage.pool.volumes().is_empty(), "the deletion was over before it could be interrupted");
    let daemon = stage.home.start();
    daemon.client(&stage.token).succeeded(&operation, SOON).await;
    stage.nothing_is_left(&vm);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_the_agent_again_at_once_and_a_second_daemon_is_refused() {
    let stage = Stage::set("restart");
    let daemon = stage.home.start();
    let (vm, operation) = stage.ask(&daemon).await;
    stage.is_ready(&daemon, &vm, &operation).await;

    let (code, words) = stage.home.start_refused();
    assert_ne!(code, Some(0), "a second daemon on the same state was let in");
    assert!(words.contains("held"), "the refusal does not say who holds the host: {words}");

    daemon.kill();
    let begun = std::time::Instant::now();
    let daemon = stage.home.start();
    let client = daemon.client(&stage.token);
    client.agent_is(&vm, "ONLINE", Duration::from_secs(5)).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "the agent was online again only {took:?} after the restart");
    assert_eq!(client.shell(&vm, "echo back").await["response"]["stdout"], "back\n");

    let took = daemon.stop();
    assert!(took < Duration::from_secs(12), "a graceful stop took {took:?}");
    let daemon = stage.home.start();
    let client = daemon.client(&stage.token);
    client.agent_is(&vm, "ONLINE", Duration::from_secs(5)).await;
    stage.delete(&client, &vm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_process_dies_is_told_started_again_and_deleted_with_its_socket() {
    let stage = Stage::set("died");
    let daemon = stage.home.start();
    let (vm, operation) = stage.ask(&daemon).await;
    let client = stage.is_ready(&daemon, &vm, &operation).await;

    host::kill_hypervisor_process(&stage.name);
    client.phase_is(&vm, "CRASHED", SOON).await;
    client.agent_is(&vm, "OFFLINE", SOON).await;
    let start = client.change("startVm", &vm).await;
    client.succeeded(&start, SOON).await;
    client.agent_is(&vm, "ONLINE", READY).await;

    host::kill_hypervisor_process(&stage.name);
    client.phase_is(&vm, "CRASHED", SOON).await;
    // Where libvirt does not clean up after the dead process, its socket stays.
    let _ = std::fs::remove_file(stage.home.socket(&vm));
    drop(std::os::unix::net::UnixListener::bind(stage.home.socket(&vm)).unwrap());
    // Off is what it is.
    let stop = client.change("stopVm", &vm).await;
    client.succeeded(&stop, SOON).await;
    stage.delete(&client, &vm).await;
}

//! A link finds its guest again: after QEMU went and came back under the same path, and when the
//! socket comes later than the wish.

mod support;

use std::time::Duration;

use infinibay::{
    agents::Links,
    config::AgentsConfig,
    vm::{FirstBoot, LinkObservation, OpenLink, VmId},
};
use support::guest::{FakeGuest, eventually, well_behaved};

async fn opened(links: &Links, vm: VmId) -> OpenLink {
    eventually("the agent is heard", || {
        links.observe(vm).open().filter(|open| open.last_message_at.is_some()).cloned()
    })
    .await
}

fn guest(dir: &std::path::Path, vm: VmId) -> FakeGuest {
    FakeGuest::listen(dir, vm, |s, r| well_behaved(s, r, 4, Vec::new()))
}

#[tokio::test]
async fn the_socket_goes_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let vm = VmId::generate();
    let (links, mut inbox) = Links::new(AgentsConfig::default());
    let path = dir.path().join(vm.socket_name());
    links.open(vm, path.clone());
    eventually("the link says that there is no socket", || match links.observe(vm) {
        LinkObservation::Connecting { last_error: Some(why), .. } => why.contains("no socket").then_some(()),
        _ => None,
    })
    .await;

    let first = guest(dir.path(), vm);
    links.open(vm, path.clone());
    let open = opened(&links, vm).await;
    assert_eq!((open.version.as_deref(), open.platform.as_deref()), (Some("1.2.3"), Some("linux")));
    assert_eq!(open.first_boot, FirstBoot::Finished { errors: Vec::new() });
    assert!(open.skew.is_some_and(|skew| skew.abs() < chrono::TimeDelta::seconds(10)), "{:?}", open.skew);
    assert_eq!(inbox.hints.recv().await, Some(vm));
    let frames = open.counters.frames;

    drop(first);
    eventually("the link notices", || match links.observe(vm) {
        LinkObservation::Connecting { .. } => Some(()),
        _ => None,
    })
    .await;
    let second = guest(dir.path(), vm);
    let open = opened(&links, vm).await;
    assert!(open.counters.frames > frames, "counters only grow while the link lives");
    // Known from before: it is asked for a reading, so that nobody waits for the next one.
    eventually("it is asked for a reading", || second.received_of("Metrics").pop()).await;

    // A stale socket, as after a killed QEMU: the file is there and nobody listens.
    drop(second);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    eventually("the link says that nobody listens", || match links.observe(vm) {
        LinkObservation::Connecting { last_error: Some(why), .. } => {
            why.contains("nobody listens").then_some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn requests_for_readings_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let vm = VmId::generate();
    // Greets and reads, but never gives a reading.
    let guest = FakeGuest::listen(dir.path(), vm, |mut stream, received| async move {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
        stream.write_all(support::guest::handshake_line(4).as_bytes()).await?;
        let mut lines = tokio::io::BufReader::new(&mut stream).lines();
        while let Some(line) = lines.next_line().await? {
            received.lock().expect("received").push(serde_json::from_str(&line)?);
        }
        Ok(())
    });
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.request_metrics(vm);
    links.open(vm, guest.path.clone());
    opened(&links, vm).await;
    for _ in 0..100 {
        links.request_metrics(vm);
    }
    eventually("it is asked", || guest.received_of("Metrics").pop()).await;
    for _ in 0..100 {
        links.request_metrics(vm);
    }
    // A command goes the same way: once it is there, whatever else was sent is there too.
    let command = infinibay::vm::GuestCommand::Safe(infinibay::vm::SafeAction::OsInfo);
    let id = infinibay::vm::CommandId::generate();
    links.execute(vm, id, &command, Duration::from_millis(500)).await.unwrap();
    eventually("the command arrives", || guest.received_of("SafeCommand").pop()).await;
    assert_eq!(guest.received_of("Metrics").len(), 1);
}

#[tokio::test]
async fn another_path_replaces_the_link() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let vm = VmId::generate();
    let (before, after) = (guest(old.path(), vm), guest(new.path(), vm));
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(vm, before.path.clone());
    opened(&links, vm).await;
    links.open(vm, after.path.clone());
    eventually("the new path is used", || (after.connections() == 1).then_some(())).await;
    opened(&links, vm).await;
    assert_eq!(links.observe_all().len(), 1);
}

//! The directory of the sockets may be anybody's: only a socket of QEMU, of root or of ourselves
//! is spoken to.

mod support;

use std::os::unix::fs::symlink;

use infinibay::{
    agents::Links,
    config::AgentsConfig,
    vm::{LinkObservation, VmId},
};
use support::guest::{FakeGuest, eventually, well_behaved};

async fn refusal(links: &Links, vm: VmId) -> String {
    eventually("the link says why it is not open", || match links.observe(vm) {
        LinkObservation::Connecting { last_error, .. } => last_error,
        LinkObservation::Open(_) => panic!("the link opened"),
        LinkObservation::None => None,
    })
    .await
}

#[tokio::test]
async fn a_link_or_a_file_in_the_sockets_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| well_behaved(s, r, 1, Vec::new()));
    let (links, _inbox) = Links::new(AgentsConfig::default());

    let vm = VmId::generate();
    let link = dir.path().join(vm.socket_name());
    symlink(&guest.path, &link).unwrap();
    links.open(vm, link);
    let why = refusal(&links, vm).await;
    assert!(why.contains("symbolic link"), "{why}");

    let vm = VmId::generate();
    let file = dir.path().join(vm.socket_name());
    std::fs::write(&file, "").unwrap();
    links.open(vm, file);
    let why = refusal(&links, vm).await;
    assert!(why.contains("no socket"), "{why}");

    assert_eq!(guest.connections(), 0, "the link was followed");
}

/// Runs as root, as the controller does: only root can give a socket away.
#[tokio::test]
async fn a_strangers_socket_is_refused_unless_he_is_named() {
    assert!(rustix::process::geteuid().is_root(), "this story needs root: it gives a socket away");
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| well_behaved(s, r, 1, Vec::new()));
    std::os::unix::fs::chown(&guest.path, Some(65_534), None).unwrap();

    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    let why = refusal(&links, guest.vm).await;
    assert!(why.contains("65534"), "{why}");
    assert_eq!(guest.connections(), 0);

    let named = AgentsConfig { socket_owners: "no-such-user, 65534".to_owned(), ..AgentsConfig::default() };
    let (links, _inbox) = Links::new(named);
    links.open(guest.vm, guest.path.clone());
    eventually("the named owner's socket opens", || links.observe(guest.vm).open().cloned()).await;
}

//! What the hypervisor's stories share: waiting for a state, and domains that clean up after
//! themselves.
#![allow(dead_code, reason = "each story uses a part")]

#[path = "../support/guests.rs"]
mod guests;
#[path = "../support/wait.rs"]
mod wait;

use std::{path::Path, time::Duration};

use guests::Places;
use infinibay::{
    config::HypervisorConfig,
    hypervisor::{Hypervisor, HypervisorEvent, libvirt::LibvirtHypervisor},
    vm::{DomainFacts, DomainObservation, DomainState, VmId},
};
use tokio::sync::broadcast;

/// Longest wait for anything; far beyond what any of it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A hypervisor on `uri`, connected.
pub(crate) async fn connect(uri: &str) -> LibvirtHypervisor {
    let hypervisor = LibvirtHypervisor::start(config(uri));
    hypervisor.connected(PATIENCE).await.unwrap_or_else(|error| {
        panic!("these tests need libvirt at {uri}: {error}: {:?}", std::error::Error::source(&error))
    });
    hypervisor
}

pub(crate) fn config(uri: &str) -> HypervisorConfig {
    HypervisorConfig { uri: uri.to_owned(), ..HypervisorConfig::default() }
}

/// Waits until `look` gives something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for an event; lagging is fine as long as it comes.
pub(crate) async fn event(
    what: &str,
    events: &mut broadcast::Receiver<HypervisorEvent>,
    wanted: impl Fn(&HypervisorEvent) -> bool,
) {
    let waiting = async {
        loop {
            match events.recv().await {
                Ok(event) if wanted(&event) => return,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => {
                    panic!("no more events while waiting for: {what}")
                }
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "waited in vain for the event: {what}");
}

pub(crate) fn about(id: VmId) -> impl Fn(&HypervisorEvent) -> bool {
    move |event| matches!(event, HypervisorEvent::Domain(seen) if *seen == id)
}

/// The domain, which must be there.
pub(crate) async fn present(hypervisor: &LibvirtHypervisor, id: VmId) -> DomainFacts {
    match hypervisor.observe(id).await.expect("observe") {
        DomainObservation::Present(facts) => facts,
        other => panic!("domain {id} should be present, not {other:?}"),
    }
}

pub(crate) async fn state(hypervisor: &LibvirtHypervisor, id: VmId) -> DomainState {
    present(hypervisor, id).await.state
}

/// A diskless domain that sits in its firmware.
pub(crate) fn domain_xml(kind: &str, id: VmId, name: &str, channel: Option<&Path>) -> String {
    let channel = channel.map(infinibay::domain_xml::channel_element).unwrap_or_default();
    format!(
        "<domain type='{kind}'><name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>64</memory>\
         <vcpu>1</vcpu><os><type arch='{}'>hvm</type></os><devices>{channel}</devices></domain>",
        if kind == "test" { "i686" } else { "x86_64" },
    )
}

/// Removes a domain when the test is over, however it ends.
pub(crate) struct Domain {
    pub(crate) id: VmId,
    pub(crate) name: String,
    uri: String,
    _place: Option<Places>,
}

impl Domain {
    /// On QEMU, once there is a place for a guest; a test has one.
    pub(crate) fn new(uri: &str) -> Self {
        let id = VmId::generate();
        let place = uri.starts_with("qemu:").then(|| Places::take(1));
        Self { id, name: format!("hyper-{id}"), uri: uri.to_owned(), _place: place }
    }

    /// For what the trait does not do.
    pub(crate) fn with<T>(
        &self,
        act: impl FnOnce(&virt::domain::Domain) -> Result<T, virt::error::Error>,
    ) -> T {
        let connection = virt::connect::Connect::open(Some(&self.uri)).expect("open libvirt");
        let domain = connection.lookup_domain_by_uuid(self.id.uuid()).expect("find the test's domain");
        act(&domain).expect("act on the test's domain")
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let Ok(connection) = virt::connect::Connect::open(Some(&self.uri)) else { return };
        let Ok(domain) = connection.lookup_domain_by_uuid(self.id.uuid()) else { return };
        let _ = domain.destroy();
        // Managed save, snapshot metadata, NVRAM: whatever the test left.
        let _ = domain.undefine_flags(1 | 2 | 4).or_else(|_| domain.undefine());
    }
}

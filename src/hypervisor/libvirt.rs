//! [`Hypervisor`] on libvirt.
//!
//! One supervised connection (`supervisor`), one gate for all calls (`gate`), one cache of what
//! domain XML tells (`cache`), one flight for those who ask the same (`flights`), and the calls themselves, by subject: `scan`, `power`, `volumes`,
//! `host`, `channels`, `snapshots`, `filesystems`. libvirt's handles never leave the thread of the call that made them.

mod cache;
mod channels;
mod console;
mod copies;
mod devices;
mod error;
mod events;
mod ffi;
mod filesystems;
mod flights;
mod gate;
mod guest;
mod host;
mod identity;
mod power;
mod scan;
mod session;
mod snapshots;
mod storage;
mod supervisor;
mod volumes;

pub use channels::{ChannelChange, ConfigChange, LiveChange};
pub use snapshots::snapshot_xml;
pub use volumes::{overlay_xml, plain_xml};

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    cache::XmlCache,
    copies::CopyTable,
    flights::Flights,
    gate::{Gate, Lane, Subject},
    session::Call,
    supervisor::{Link, Supervisor},
};
use super::{
    DomainType, HostFacts, HostObservation, Hypervisor, HypervisorError, HypervisorEvent, Lease,
    OverlayVolume,
};
use crate::{
    config::HypervisorConfig,
    vm::{DomainObservation, VmId},
};

/// Hints kept for a receiver that is slow; one that falls further behind looks at everything.
const EVENTS_KEPT: usize = 1024;

/// The hypervisor, through libvirt. Dropping it closes the connection.
#[derive(Debug)]
pub struct LibvirtHypervisor {
    config: HypervisorConfig,
    gate: Arc<Gate>,
    link: Arc<watch::Sender<Link>>,
    cache: Arc<XmlCache>,
    domain_type: Flights<(), DomainType>,
    host: Flights<(), HostFacts>,
    leases: Flights<String, Vec<Lease>>,
    copies: Arc<CopyTable>,
    events: broadcast::Sender<HypervisorEvent>,
    libvirt_calls: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl LibvirtHypervisor {
    /// Starts connecting, and goes on doing so for as long as this lives; returns at once.
    /// Until there is a connection every call fails with [`HypervisorError::Unreachable`].
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    #[must_use]
    pub fn start(config: HypervisorConfig) -> Self {
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let link = Arc::new(watch::Sender::new(Link::default()));
        let cache = Arc::new(XmlCache::default());
        let libvirt_calls = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let supervisor = Supervisor {
            uri: config.uri.clone(),
            reconnect_delay: config.reconnect_delay,
            call_timeout: config.call_timeout,
            link: Arc::clone(&link),
            events: events.clone(),
            cache: Arc::clone(&cache),
            calls: Arc::clone(&libvirt_calls),
            stop: stop.clone(),
        };
        tokio::spawn(supervisor.supervise());
        Self {
            gate: Arc::new(Gate::new(config.max_calls, config.call_timeout, events.clone())),
            config,
            link,
            cache,
            domain_type: Flights::default(),
            host: Flights::default(),
            leases: Flights::default(),
            copies: Arc::default(),
            events,
            libvirt_calls,
            _stop: stop.drop_guard(),
        }
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    /// [`HypervisorError::Unreachable`], with why the last attempt failed, if there is none
    /// `within` that time.
    pub async fn connected(&self, within: Duration) -> Result<(), HypervisorError> {
        let mut link = self.link.subscribe();
        let outcome = tokio::time::timeout(within, link.wait_for(|link| link.session.is_some())).await;
        if matches!(outcome, Ok(Ok(_))) {
            return Ok(());
        }
        drop(outcome);
        Err(HypervisorError::Unreachable {
            operation: format!("connect to {}", self.config.uri),
            source: self.link.borrow().error.clone(),
        })
    }

    /// Whether there is a connection right now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.borrow().session.is_some()
    }

    /// How many calls were made to libvirt since the start.
    #[must_use]
    pub fn libvirt_calls(&self) -> u64 {
        self.libvirt_calls.load(Ordering::Relaxed)
    }

    /// How often the gate was passed since the start; one passage may make several calls.
    #[must_use]
    pub fn gate_passages(&self) -> u64 {
        self.gate.calls()
    }

    /// Runs something on the current connection, through the gate.
    fn call<T, F>(
        &self,
        operation: String,
        subject: Option<Subject>,
        lane: Lane,
        work: F,
    ) -> impl Future<Output = Result<T, HypervisorError>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Call<'_>) -> Result<T, HypervisorError> + Send + 'static,
    {
        let (gate, link) = (Arc::clone(&self.gate), Arc::clone(&self.link));
        async move {
            gate.run(operation, subject, lane, move |operation| {
                // Taken here, not outside: who drops a session last may block.
                let session = {
                    let link = link.borrow();
                    link.session.clone().ok_or_else(|| HypervisorError::Unreachable {
                        operation: operation.to_owned(),
                        source: link.error.clone(),
                    })?
                };
                work(&Call::new(&session, operation))
            })
            .await
        }
    }

    /// A call that concerns one domain.
    async fn on_domain<T, F>(&self, verb: &str, id: VmId, work: F) -> Result<T, HypervisorError>
    where
        T: Send + 'static,
        F: FnOnce(&Call<'_>) -> Result<T, HypervisorError> + Send + 'static,
    {
        self.call(format!("{verb} domain {id}"), Some(Subject::Domain(id)), Lane::Work, work).await
    }
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    async fn observe_all(&self) -> Result<HostObservation, HypervisorError> {
        self.scan().await
    }

    async fn observe(&self, id: VmId) -> Result<DomainObservation, HypervisorError> {
        self.look_at(id).await
    }

    fn is_reachable(&self) -> bool {
        self.is_connected()
    }

    fn is_busy(&self, id: VmId) -> bool {
        self.gate.is_busy(id)
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.events.subscribe()
    }

    async fn domain_type(&self) -> Result<DomainType, HypervisorError> {
        let known =
            self.link.borrow().session.as_ref().and_then(|session| session.domain_type.get().copied());
        if let Some(known) = known {
            return Ok(known);
        }
        let setting = self.config.domain_type;
        let call = self.call(
            "find out the domain type".to_owned(),
            Some(Subject::DomainType),
            Lane::Work,
            move |call| host::domain_type(call, setting),
        );
        self.domain_type.ask((), call).await
    }

    async fn define(&self, id: VmId, xml: String) -> Result<(), HypervisorError> {
        self.on_domain("define", id, move |call| power::define(call, id, &xml)).await
    }

    async fn start(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("start", id, move |call| power::start(call, id)).await
    }

    async fn request_shutdown(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("shut down", id, move |call| power::request_shutdown(call, id)).await
    }

    async fn resume(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("resume", id, move |call| power::resume(call, id)).await
    }

    async fn destroy(&self, id: VmId) -> Result<(), HypervisorError> {
        let (operation, plug) = (format!("destroy domain {id}"), Some(Subject::Plug(id)));
        self.call(operation, plug, Lane::Work, move |call| power::destroy(call, id)).await
    }

    async fn undefine(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_domain("undefine", id, move |call| power::undefine(call, id)).await
    }

    async fn create_overlay(&self, id: VmId, volume: OverlayVolume) -> Result<PathBuf, HypervisorError> {
        let operation = format!("create volume {:?} in pool {:?}", volume.name, volume.pool);
        let limit = self.config.call_timeout;
        self.call(operation, Some(Subject::Domain(id)), Lane::Work, move |call| {
            volumes::create_overlay(call, &volume, limit)
        })
        .await
    }

    async fn volume_path(
        &self,
        id: VmId,
        pool: &str,
        name: &str,
    ) -> Result<Option<PathBuf>, HypervisorError> {
        let operation = format!("look up volume {name:?} in pool {pool:?}");
        let (pool, name) = (pool.to_owned(), name.to_owned());
        self.call(operation, Some(Subject::Domain(id)), Lane::Work, move |call| {
            volumes::path(call, &pool, &name)
        })
        .await
    }

    async fn delete_volume(&self, id: VmId, pool: &str, name: &str) -> Result<(), HypervisorError> {
        self.copies.forget(id);
        let operation = format!("delete volume {name:?} of pool {pool:?}");
        let (pool, name) = (pool.to_owned(), name.to_owned());
        self.call(operation, Some(Subject::Domain(id)), Lane::Work, move |call| {
            volumes::delete(call, &pool, &name)
        })
        .await
    }

    async fn host(&self) -> Result<HostFacts, HypervisorError> {
        let call = self.call("look at the host".to_owned(), Some(Subject::Host), Lane::Ask, host::facts);
        self.host.ask((), call).await
    }

    async fn leases(&self, network: &str) -> Result<Vec<Lease>, HypervisorError> {
        let operation = format!("read the leases of network {network:?}");
        let key = network.to_owned();
        let network = key.clone();
        let subject = Subject::Network(key.clone());
        let call = self.call(operation, Some(subject), Lane::Ask, move |call| host::leases(call, &network));
        self.leases.ask(key, call).await
    }

    async fn domain_named(&self, name: &str) -> Result<Option<VmId>, HypervisorError> {
        let operation = format!("look up domain {name:?}");
        let name = name.to_owned();
        let subject = Subject::Name(name.clone());
        self.call(operation, Some(subject), Lane::Ask, move |call| host::domain_named(call, &name)).await
    }
}

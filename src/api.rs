//! The doors: GraphQL over HTTP and WebSocket, Socket.IO, health, Prometheus, the guests' downloads and reports.
//!
//! A door translates, authorises and delegates; it decides nothing. Every field needs a known
//! actor and passes [`crate::access::authorize`]; only `/healthz` and GraphiQL's page do not. An
//! installer, which is nobody, has a token for one thing.

mod audited;
mod auth;
mod batch;
mod caller;
mod command;
mod deadline;
mod doors;
mod downloads;
mod error;
mod fence;
mod forwarded;
mod front;
mod gates;
mod guests;
mod health;
mod http;
mod install_report;
mod listener;
mod mutation;
mod origin;
mod page;
mod places;
mod problem;
mod prometheus;
mod query;
mod rate;
mod readers;
mod ready;
mod room;
mod scalars;
mod schema;
mod screenshot;
mod series;
mod sign_in;
mod size;
mod slow;
mod socketio;
mod subscription;
mod tls;
mod types;
mod validity;
mod websocket;

pub use front::Front;
pub use guests::serve_guests;
pub use install_report::InstallReports;
pub use prometheus::Telemetry;
pub use schema::sdl;
pub use tls::{Tls, TlsError};

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::Accounts,
    commands::Commands,
    config::{ApiConfig, MetricsConfig},
    events::EventBus,
    hypervisor::Hypervisor,
    images::Images,
    lifecycle::Lifecycle,
    media::Media,
    metrics::Metrics,
    store::Store,
    vm::{HostId, LinkCounters, LinkObservation, VmId},
};

/// What the doors may touch. Clones share everything.
#[derive(Clone)]
pub struct ApiContext {
    /// This host.
    pub host: HostId,
    /// The doors' numbers.
    pub config: ApiConfig,
    /// For reading.
    pub store: Store,
    /// For asking.
    pub lifecycle: Lifecycle,
    /// For guests.
    pub commands: Commands,
    /// For what was refused.
    pub metrics: Metrics,
    /// How long readings are kept.
    pub metrics_config: MetricsConfig,
    /// A link's state, now.
    pub links: Arc<dyn Fn(VmId) -> LinkObservation + Send + Sync>,
    /// What a link has counted.
    pub counters: Arc<dyn Fn(VmId) -> LinkCounters + Send + Sync>,
    /// What every link there is has counted.
    pub all_counters: Arc<dyn Fn() -> HashMap<VmId, LinkCounters> + Send + Sync>,
    /// How the controller itself does.
    pub telemetry: Telemetry,
    /// Who is asking.
    pub accounts: Accounts,
    /// The library.
    pub images: Images,
    /// Disks and discs that are brought in.
    pub media: Media,
    /// What happens.
    pub events: EventBus,
    /// What stands before the doors.
    pub front: Front,
    /// The host's capacity and leases.
    pub hypervisor: Arc<dyn Hypervisor>,
}

/// Serves until `stop`: no new connections then, WebSockets are told to go, and requests under
/// way get a few seconds.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, api: ApiContext, stop: CancellationToken) -> io::Result<()> {
    let http = api.front.http.clone();
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let connections = size(api.config.max_websockets).saturating_add(size(http.max_connections));
    let bounds = listener::Bounds {
        connections: connections.min(tokio::sync::Semaphore::MAX_PERMITS),
        when_full: listener::WhenFull::Refuses,
        per_peer: size(http.max_connections_per_address),
        // Everybody may sit behind one proxy.
        unbounded: http.trusted_proxies,
        head: http.header_timeout,
        head_bytes: size(http.max_header_bytes),
        // A connection idles longest between two pings of a WebSocket.
        idle: Duration::from_secs(60),
        stop_limit: Duration::from_secs(6),
    };
    let tls = api.front.tls.clone();
    let doors = doors::Doors::new(api, stop.clone());
    let ledger = doors.ledger.clone();
    let served = tokio::select! {
        served = listener::serve(listener, http::router(doors), bounds, tls, stop) => served,
        never = ledger.keep() => match never {},
    };
    // Requests that were cut off have left something to write.
    ledger.settle().await;
    served
}

//! The doors: GraphQL over HTTP and WebSocket, Socket.IO, health, Prometheus, the guests' downloads and reports.
//!
//! A door translates, authorises and delegates; it decides nothing. Every field needs a known
//! actor and passes [`crate::access::authorize`]; only `/healthz` and GraphiQL's page do not. An
//! installer, which is nobody, has a token for one thing.

mod audited;
mod auth;
mod batch;
mod command;
mod deadline;
mod doors;
mod error;
mod gates;
mod guests;
mod health;
mod http;
mod install_report;
mod listener;
mod mutation;
mod problem;
mod prometheus;
mod query;
mod readers;
mod room;
mod scalars;
mod schema;
mod screenshot;
mod series;
mod sign_in;
mod size;
mod socketio;
mod subscription;
mod types;
mod websocket;

pub use guests::serve_guests;
pub use http::router;
pub use install_report::InstallReports;
pub use prometheus::Telemetry;
pub use schema::sdl;

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
    /// The host's capacity and leases.
    pub hypervisor: Arc<dyn Hypervisor>,
}

/// Serves until `stop`: no new connections then, WebSockets are told to go, and requests under
/// way get a few seconds.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, api: ApiContext, stop: CancellationToken) -> io::Result<()> {
    // Everybody may sit behind one proxy, so there is no bound of one peer's own. A connection
    // idles longest between two pings of a WebSocket.
    let connections = usize::try_from(api.config.max_websockets).unwrap_or(usize::MAX).saturating_add(512);
    let connections = connections.min(tokio::sync::Semaphore::MAX_PERMITS);
    let bounds = listener::Bounds {
        connections,
        per_peer: connections,
        idle: Duration::from_secs(60),
        stop_limit: Duration::from_secs(6),
    };
    listener::serve(listener, router(api, stop.clone()), bounds, stop).await
}

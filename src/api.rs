//! The doors: GraphQL over HTTP and WebSocket, health, and the guests' downloads.
//!
//! A door translates, authorises and delegates; it decides nothing. Every field needs a known
//! actor and passes [`crate::access::authorize`]; only `/healthz` and GraphiQL's page do not.

mod auth;
mod batch;
mod error;
mod guests;
mod http;
mod mutation;
mod query;
mod scalars;
mod schema;
mod subscription;
mod types;
mod websocket;

pub use guests::guest_router;
pub use http::{router, serve};
pub use schema::sdl;

use std::sync::Arc;

use crate::{
    accounts::Accounts,
    commands::Commands,
    config::ApiConfig,
    events::EventBus,
    hypervisor::Hypervisor,
    images::Images,
    lifecycle::Lifecycle,
    metrics::Metrics,
    store::Store,
    vm::{HostId, LinkObservation, VmId},
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
    /// A link's state, now.
    pub links: Arc<dyn Fn(VmId) -> LinkObservation + Send + Sync>,
    /// Who is asking.
    pub accounts: Accounts,
    /// The library.
    pub images: Images,
    /// What happens.
    pub events: EventBus,
    /// The host's capacity and leases.
    pub hypervisor: Arc<dyn Hypervisor>,
}

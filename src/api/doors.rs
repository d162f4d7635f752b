//! What the doors share.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    ApiContext,
    audited::Ledger,
    health::Health,
    places::Places,
    prometheus::Scrapes,
    rate::Limits,
    ready::Readiness,
    schema::{self, ApiSchema},
};

/// Pictures of screens that are taken at the same time.
const SCREENS: usize = 2;

/// What routes share.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) api: ApiContext,
    pub(super) schema: ApiSchema,
    pub(super) stop: CancellationToken,
    /// For WebSockets, and for connections of Socket.IO.
    pub(super) places: Places,
    pub(super) health: Health,
    pub(super) readiness: Readiness,
    /// How many requests a token, or an address, may make.
    pub(super) limits: Limits,
    pub(super) scrapes: Scrapes,
    /// Where refusals are written down.
    pub(super) ledger: Ledger,
    /// How many pictures of screens are taken at once: each is held whole.
    pub(super) screens: Arc<Semaphore>,
}

impl Doors {
    pub(super) fn new(api: ApiContext, stop: CancellationToken) -> Self {
        let ledger = Ledger::new(api.store.clone(), stop.clone());
        Self {
            schema: schema::build(api.clone(), ledger.clone()),
            ledger,
            places: Places::new(api.config.max_websockets),
            health: Health::default(),
            readiness: Readiness::default(),
            limits: Limits::new(&api.front.http),
            scrapes: Scrapes::default(),
            screens: Arc::new(Semaphore::new(SCREENS)),
            api,
            stop,
        }
    }
}

//! What the doors share.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    ApiContext,
    audited::Ledger,
    health::Health,
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
    pub(super) websockets: Arc<Semaphore>,
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
        let websockets = usize::try_from(api.config.max_websockets).unwrap_or(Semaphore::MAX_PERMITS);
        let ledger = Ledger::new(api.store.clone(), stop.clone());
        Self {
            schema: schema::build(api.clone(), ledger.clone()),
            ledger,
            websockets: Arc::new(Semaphore::new(websockets.min(Semaphore::MAX_PERMITS))),
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

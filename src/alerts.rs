//! What operators are told without asking: guests' errors, offline VMs, stuck installations, clock
//! skew, lost readings.
//!
//! Nothing that must be told travels on the event bus, which loses. A watcher compares what is
//! stored of all VMs with the alerts that are open; events only say that a look is worth while.
//! Guests' errors become alerts in the transaction that stores them. The table of alerts is the
//! outbox: a second task takes from it what is due and notes what arrived, so that either may die
//! between two lines and the next start goes on.

mod backoff;
mod decide;
mod deliver;
mod message;
mod pace;
mod verdict;
mod watch;
mod webhook;

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{AlertsConfig, WebhookMistake},
    events::EventBus,
    store::Store,
    vm::{HostId, LossCounts},
};
use deliver::Deliverer;
use watch::Watcher;
use webhook::Webhook;

/// Gives the readings lost since the controller started.
pub type LostReadings = Arc<dyn Fn() -> LossCounts + Send + Sync>;

/// Why alerts cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum AlertsError {
    /// The webhook is not configured well.
    #[error(transparent)]
    Webhook(#[from] WebhookMistake),
    /// The HTTP client could not be made.
    #[error("making the webhook's HTTP client")]
    Client(#[source] reqwest::Error),
}

/// How often things are looked at and tried again.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Between two looks at everything.
    pub look: Duration,
    /// Between two looks when events ask for one.
    pub look_soon: Duration,
    /// Between two looks into the outbox.
    pub poll: Duration,
    /// Before a delivery is tried again for the first time; doubles up to `retry_max`.
    pub retry_base: Duration,
    /// Before a delivery is tried again, at most, whatever the receiver asks for.
    pub retry_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(15),
            look_soon: Duration::from_secs(2),
            poll: Duration::from_secs(2),
            retry_base: Duration::from_secs(10),
            retry_max: Duration::from_secs(3600),
        }
    }
}

/// The watcher and the one who tells.
pub struct Alerts {
    host: HostId,
    config: AlertsConfig,
    timing: Timing,
    store: Store,
    events: EventBus,
    lost: LostReadings,
    webhook: Option<Webhook>,
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alerts")
            .field("host", &self.host)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Alerts {
    /// Of this host's VMs. `lost` gives how many readings were lost since the controller started, and why.
    ///
    /// # Errors
    /// The webhook's, if it is configured.
    pub fn new(
        host: HostId,
        config: AlertsConfig,
        store: Store,
        events: EventBus,
        lost: LostReadings,
    ) -> Result<Self, AlertsError> {
        let webhook =
            config.webhook()?.map(|target| Webhook::new(target, config.webhook_timeout)).transpose()?;
        Ok(Self { host, config, timing: Timing::default(), store, events, lost, webhook })
    }

    /// With another timing.
    #[must_use]
    pub fn timed(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// Watches and tells until `stop`; what is being sent then gets a moment.
    pub async fn run(self, stop: CancellationToken) {
        let news = Arc::new(Notify::new());
        let Self { host, config, timing, store, events, lost, webhook } = self;
        if webhook.is_none() {
            tracing::info!("no webhook is configured: alerts go to the log");
        }
        let deliverer = Deliverer::new(host, &config, &timing, store.clone(), webhook, news.clone());
        let watcher = Watcher::new(host, &config, timing, store, events, lost, news);
        tokio::join!(watcher.run(stop.clone()), deliverer.run(stop));
    }
}

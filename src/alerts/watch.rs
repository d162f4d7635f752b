//! The watcher: looks at everything every so often, and soon when an event says that something
//! changed. Looks are alike whatever caused them, so an event that is lost costs time only.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    LostReadings, Timing,
    decide::{Decision, Measure, Memory},
};
use crate::{
    agents::Throttle,
    config::AlertsConfig,
    events::{EventBus, Notice, Subscription},
    store::{Store, StoreError},
    vm::{AlertKind, HostId, VmEvent},
};

/// How often trouble is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Watcher {
    host: HostId,
    lasting: TimeDelta,
    timing: Timing,
    store: Store,
    events: EventBus,
    lost: LostReadings,
    /// Told when there is something to tell.
    news: Arc<Notify>,
    memory: Memory,
    trouble: Throttle,
}

/// Whether events ask for a look.
struct Hints {
    events: Option<Subscription>,
    wanted: bool,
}

impl Hints {
    /// Waits until the next event has been heard.
    async fn hear(&mut self) {
        let Some(events) = &mut self.events else { return std::future::pending().await };
        match events.next().await {
            Some(Notice::Event(VmEvent::Status { .. } | VmEvent::Deleted { .. }) | Notice::Lagged(_)) => {
                self.wanted = true;
            }
            Some(Notice::Event(_)) => {}
            None => self.events = None,
        }
    }
}

impl Watcher {
    pub(super) fn new(
        host: HostId,
        config: &AlertsConfig,
        timing: Timing,
        store: Store,
        events: EventBus,
        lost: LostReadings,
        news: Arc<Notify>,
    ) -> Self {
        let lasting = TimeDelta::from_std(config.offline_for).unwrap_or(TimeDelta::MAX);
        let (memory, trouble) = (Memory::default(), Throttle::new(LOG_INTERVAL));
        Self { host, lasting, timing, store, events, lost, news, memory, trouble }
    }

    /// Looks until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut hints = Hints { events: Some(self.events.subscribe()), wanted: false };
        loop {
            hints.wanted = false;
            // A look that a stop cuts off has changed everything it wanted to, or nothing.
            let wake_at = tokio::select! {
                () = stop.cancelled() => return,
                wake_at = self.look() => wake_at,
            };
            let looked = Instant::now();
            loop {
                let next = if hints.wanted { self.timing.look_soon } else { self.next_look(wake_at) };
                // Cancel-safe: a sleep until a fixed time, and a receiver that keeps its place.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(looked + next) => break,
                    () = hints.hear() => {}
                }
            }
        }
    }

    fn next_look(&self, wake_at: Option<DateTime<Utc>>) -> Duration {
        let Some(wake_at) = wake_at else { return self.timing.look };
        let left = (wake_at - Utc::now()).to_std().unwrap_or_default();
        left.clamp(self.timing.look_soon.min(self.timing.look), self.timing.look)
    }

    /// Gives when to look again at the latest.
    async fn look(&mut self) -> Option<DateTime<Utc>> {
        match self.try_look().await {
            Ok(wake_at) => wake_at,
            Err(error) => {
                if let Some(held_back) = self.trouble.pass(Instant::now()) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        held_back,
                        "what is alarming cannot be looked for; it is tried again"
                    );
                }
                None
            }
        }
    }

    async fn try_look(&mut self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let look = self.store.alert_look(self.host).await?;
        let (now, lost) = (Utc::now(), (self.lost)());
        let Decision { changes, wake_at } =
            self.memory.decide(&look, &lost, Measure { now, lasting: self.lasting });
        if !changes.is_empty() {
            self.store.change_alerts(self.host, &changes, now).await?;
            self.news.notify_one();
        }
        self.memory.stored(lost.total());
        Ok(wake_at)
    }
}

/// Says how many alerts are open.
pub(super) async fn count_open(store: &Store, host: HostId) -> Result<(), StoreError> {
    let open = store.open_alerts(host).await?;
    for kind in AlertKind::ALL {
        let count = open.iter().find(|(of, _)| *of == kind).map_or(0, |(_, count)| *count);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and rows are few")]
        ::metrics::gauge!("infinibay_alerts_open", "kind" => kind.name()).set(count as f64);
    }
    Ok(())
}

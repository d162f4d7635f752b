//! Tells what the table says is to be told: to the log, and to the webhook where there is one.
//!
//! At least once: what arrived is noted after it arrived, so a crash between the two sends the
//! same message, with the same id, again.

use std::{collections::HashSet, panic, sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Timing, backoff, message,
    pace::{PerMinute, Turns},
    watch::count_open,
    webhook::{Answer, Webhook},
};
use crate::{
    agents::Throttle,
    config::AlertsConfig,
    store::{Store, StoreError, Told},
    vm::{Alert, AlertMessage, AlertSeverity, HostId, chain},
};

/// Deliveries under way at once: one slow answer holds up one of them.
const PARALLEL: usize = 4;

/// How often quiet errors are closed and open alerts counted.
const KEEP_HOUSE: Duration = Duration::from_secs(15);

/// What is under way when the controller stops gets this long; it is sent again after the start.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// How long after a failure a delivery's outcome is noted again.
const NOTE_AGAIN: Duration = Duration::from_secs(5);

/// How often trouble is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Deliverer {
    post: Arc<Post>,
    poll: Duration,
    news: Arc<Notify>,
    pace: PerMinute,
    turns: Turns,
    under_way: HashSet<Uuid>,
    kept_house: Option<Instant>,
    trouble: Throttle,
}

/// What one delivery needs.
struct Post {
    host: HostId,
    store: Store,
    webhook: Option<Webhook>,
    repeat_after: Duration,
    give_up_after: TimeDelta,
    retry: (Duration, Duration),
}

impl Deliverer {
    pub(super) fn new(
        host: HostId,
        config: &AlertsConfig,
        timing: &Timing,
        store: Store,
        webhook: Option<Webhook>,
        news: Arc<Notify>,
    ) -> Self {
        let post = Arc::new(Post {
            host,
            store,
            webhook,
            repeat_after: config.repeat_after,
            give_up_after: TimeDelta::from_std(config.give_up_after).unwrap_or(TimeDelta::MAX),
            retry: (timing.retry_base, timing.retry_max),
        });
        Self {
            post,
            poll: timing.poll,
            news,
            pace: PerMinute::new(config.max_per_minute),
            turns: Turns::default(),
            under_way: HashSet::new(),
            kept_house: None,
            trouble: Throttle::new(LOG_INTERVAL),
        }
    }

    /// Delivers until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut deliveries: JoinSet<(Uuid, Result<(), StoreError>)> = JoinSet::new();
        loop {
            let begun = tokio::select! {
                () = stop.cancelled() => break,
                begun = self.begin(&mut deliveries) => begun,
            };
            if let Err(error) = begun {
                self.say(&error);
            }
            // Cancel-safe: a token, a join set, a notification and a sleep.
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = deliveries.join_next() => self.ended(ended),
                () = self.news.notified() => {}
                () = tokio::time::sleep(self.poll) => {}
            }
        }
        let last = async { while deliveries.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_MOMENT, last).await.is_err() {
            tracing::info!(
                count = deliveries.len(),
                "deliveries of alerts are cut off; they are repeated after the start"
            );
        }
    }

    /// Begins what is due, as far as there is room and the pace allows.
    async fn begin(
        &mut self,
        deliveries: &mut JoinSet<(Uuid, Result<(), StoreError>)>,
    ) -> Result<(), StoreError> {
        self.keep_house().await?;
        if self.under_way.len() >= PARALLEL {
            return Ok(());
        }
        let mut due = self.post.store.due_alerts(self.post.host, Utc::now()).await?;
        due.retain(|alert| !self.under_way.contains(&alert.id));
        self.turns.sort(&mut due);
        for alert in due {
            if self.under_way.len() >= PARALLEL || !self.pace.pass(Instant::now()) {
                break;
            }
            self.turns.served(alert.vm, Instant::now());
            self.under_way.insert(alert.id);
            let post = Arc::clone(&self.post);
            deliveries.spawn(async move { (alert.id, post.tell(alert.id).await) });
        }
        Ok(())
    }

    async fn keep_house(&mut self) -> Result<(), StoreError> {
        if self.kept_house.is_some_and(|at| at.elapsed() < KEEP_HOUSE.min(self.poll * 8)) {
            return Ok(());
        }
        self.kept_house = Some(Instant::now());
        self.post.store.close_quiet_alerts(self.post.host, Utc::now()).await?;
        count_open(&self.post.store, self.post.host).await
    }

    fn ended(&mut self, ended: Result<(Uuid, Result<(), StoreError>), tokio::task::JoinError>) {
        match ended {
            Ok((id, outcome)) => {
                self.under_way.remove(&id);
                if let Err(error) = outcome {
                    self.say(&error);
                }
            }
            // A fault of ours; the part dies of it, and says so.
            Err(error) => match error.try_into_panic() {
                Ok(reason) => panic::resume_unwind(reason),
                Err(error) => tracing::error!(%error, "a delivery was cut off"),
            },
        }
    }

    fn say(&mut self, error: &StoreError) {
        if let Some(held_back) = self.trouble.pass(Instant::now()) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, held_back, "alerts cannot be taken from the database; it is tried again");
        }
    }
}

impl Post {
    /// Tells one alert and notes how that went.
    async fn tell(&self, id: Uuid) -> Result<(), StoreError> {
        // It may have changed since it was found due; it is told as it is now.
        let Some(alert) = self.store.alert(id).await? else { return Ok(()) };
        if alert.attempts_so_far() == 0 {
            log(&alert);
        }
        let told = match &self.webhook {
            None => Told::Suppressed,
            Some(webhook) => self.send(webhook, &alert).await,
        };
        let outcome = match &told {
            Told::Delivered => "delivered",
            Told::Suppressed => "suppressed",
            Told::Retry { .. } => "retried",
            Told::Failed { .. } => "failed",
        };
        ::metrics::counter!("infinibay_alert_deliveries_total", "outcome" => outcome).increment(1);
        // Noted until it is noted: one that arrived and was not noted would be sent again and again.
        while let Err(error) = self.store.note_told(&alert, &told, Utc::now(), self.repeat_after).await {
            tracing::warn!(alert = %alert.id, error = chain(&error), outcome, "what was told cannot be noted yet");
            tokio::time::sleep(NOTE_AGAIN).await;
        }
        Ok(())
    }

    async fn send(&self, webhook: &Webhook, alert: &Alert) -> Told {
        let now = Utc::now();
        let body = message::body(alert, now).to_string();
        let (error, retry_after) = match webhook.send(&alert.message_id(), &body, now).await {
            Answer::Taken => return Told::Delivered,
            Answer::Gone => {
                tracing::error!(alert = %alert.id, "the webhook is gone (410): this message is not tried again");
                return Told::Failed { error: "status 410".to_owned() };
            }
            Answer::Failed { error, retry_after } => (error, retry_after),
        };
        let now = Utc::now();
        let failures = alert.attempts_so_far().saturating_add(1);
        let wait = backoff::delay(failures, self.retry, retry_after, backoff::random());
        let at = TimeDelta::from_std(wait).ok().and_then(|wait| now.checked_add_signed(wait)).unwrap_or(now);
        if at - alert.failing_since(now) > self.give_up_after {
            tracing::error!(alert = %alert.id, error, "an alert is given up: the webhook did not take it in time");
            return Told::Failed { error };
        }
        tracing::debug!(alert = %alert.id, error, ?wait, "an alert did not arrive; it is sent again");
        Told::Retry { error, at }
    }
}

/// One line, as often as messages may be sent.
fn log(alert: &Alert) {
    let (told, kind) = (alert.message().name(), alert.kind.name());
    let vm = alert.vm.map(tracing::field::display);
    let (id, name, count, summary) = (alert.id, alert.vm_name.as_deref(), alert.count, &alert.summary);
    if alert.message() == AlertMessage::Resolved || alert.severity == AlertSeverity::Info {
        tracing::info!(%id, kind, vm, name, count, summary, "{told}");
    } else {
        tracing::warn!(%id, kind, vm, name, count, summary, "{told}");
    }
}

//! A running pipeline of readings, without guests.
#![allow(clippy::unwrap_used, reason = "a story fails where it stands")]

use std::{path::Path, time::Duration};

use agent_protocol::SystemReading;
use chrono::{TimeDelta, Utc};
use infinibay::{
    agents::GuestFrame,
    config::MetricsConfig,
    events::{EventBus, Subscription},
    metrics::Metrics,
    store::{MetricsRow, Store},
    vm::{Redactor, VmId},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{database::TestDatabase, guest::DEADLINE};

pub(crate) const MAX_SKEW: Duration = Duration::from_secs(300);

/// A running pipeline.
pub(crate) struct Pipeline {
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) frames: mpsc::Sender<GuestFrame>,
    pub(crate) told: Subscription,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    spool: Option<TempDir>,
}

impl Pipeline {
    /// With a spool of its own.
    pub(crate) async fn start(db: &TestDatabase, config: MetricsConfig) -> Self {
        let spool = tempfile::tempdir().expect("a directory");
        let mut pipeline = Self::start_at(db.store().await, config, spool.path());
        pipeline.spool = Some(spool);
        pipeline
    }

    /// As a controller that finds this spool.
    pub(crate) fn start_at(store: Store, config: MetricsConfig, spool: &Path) -> Self {
        let events = EventBus::default();
        let metrics = Metrics::new(
            config,
            MAX_SKEW,
            Redactor::default(),
            spool.to_owned(),
            store.clone(),
            events.clone(),
        );
        let (frames, receiver) = mpsc::channel(1000);
        let (told, stop) = (events.subscribe(), CancellationToken::new());
        let task = tokio::spawn({
            let (metrics, stop) = (metrics.clone(), stop.clone());
            async move { metrics.run(receiver, stop).await }
        });
        Self { store, metrics, frames, told, stop, task, spool: None }
    }

    pub(crate) async fn send(&self, vm: VmId, system: Value) {
        let now = Utc::now();
        let frame =
            GuestFrame::Metrics { vm, received_at: now, timestamp: now, system: SystemReading::of(&system) };
        self.frames.send(frame).await.expect("the pipeline takes frames");
    }

    /// As at the end of a controller.
    pub(crate) async fn stop(self) -> Store {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("it stops in time").expect("without panic");
        self.store
    }
}

/// A small frame.
pub(crate) fn system(cpu: f64) -> Value {
    json!({
        "cpu": {"usage_percent": cpu},
        "memory": {"total_kb": 100, "used_kb": 40},
        "processes": [{"command_line": "x --password hunter2"}],
    })
}

/// What is stored of a VM, oldest first.
pub(crate) async fn stored(store: &Store, vm: VmId) -> Vec<MetricsRow> {
    let since = Utc::now() - TimeDelta::hours(1);
    let mut rows = store.metrics(vm, since, 10_000).await.expect("reading readings");
    rows.reverse();
    rows
}

pub(crate) async fn stored_cpu(store: &Store, vm: VmId) -> Vec<f64> {
    stored(store, vm).await.iter().map(|row| row.readings.cpu_usage).collect()
}

/// Waits until that many are stored.
pub(crate) async fn until_stored(store: &Store, vm: VmId, count: usize) -> Vec<f64> {
    tokio::time::timeout(DEADLINE, async {
        loop {
            let cpu = stored_cpu(store, vm).await;
            if cpu.len() >= count {
                return cpu;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("not {count} readings stored within {DEADLINE:?}"))
}

/// Stores often.
pub(crate) fn eager() -> MetricsConfig {
    MetricsConfig { flush_interval: Duration::from_millis(30), ..MetricsConfig::default() }
}

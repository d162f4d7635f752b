//! Links, readings and store of the library, in the bench's own process, put together as the daemon
//! does it.

use std::{path::Path, time::Duration};

use infinibay::{
    agents::{Inbox, Links},
    config::{AgentsConfig, MetricsConfig},
    events::EventBus,
    metrics::Metrics,
    store::Store,
    vm::{LinkCounters, Redactor, VmId},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::limits_of;

/// Frames per second that a link may deliver: what is measured is the pipeline, not the rate that a
/// guest is held to.
const FRAMES_PER_SECOND: u32 = 10_000;

/// How often what is less than a batch is stored.
const FLUSH: Duration = Duration::from_secs(1);

fn agents() -> AgentsConfig {
    AgentsConfig { max_links: 10_000, max_frames_per_second: FRAMES_PER_SECOND, ..AgentsConfig::default() }
}

fn readings() -> MetricsConfig {
    MetricsConfig { flush_interval: FLUSH, ..MetricsConfig::default() }
}

/// What it is held to, for notes.
pub(crate) fn limits() -> String {
    limits_of(&agents(), &readings())
}

pub(crate) struct Pipeline {
    links: Links,
    vms: Vec<VmId>,
    stop: CancellationToken,
    work: JoinHandle<()>,
    hints: JoinHandle<()>,
}

impl Pipeline {
    /// Nothing comes before [`Self::open`].
    pub(crate) fn new(store: Store, spool: &Path) -> Self {
        let (agents, metrics) = (agents(), readings());
        let skew = agents.max_clock_skew;
        let (links, Inbox { frames, mut hints, .. }) = Links::new(agents);
        let metrics =
            Metrics::new(metrics, skew, Redactor::default(), spool.to_owned(), store, EventBus::default());
        let stop = CancellationToken::new();
        let work = tokio::spawn({
            let stop = stop.clone();
            async move { metrics.run(frames, stop).await }
        });
        let hints = tokio::spawn(async move { while hints.recv().await.is_some() {} });
        Self { links, vms: Vec::new(), stop, work, hints }
    }

    /// Takes what these guests send.
    pub(crate) fn open(&mut self, dir: &Path, vms: &[Uuid]) {
        self.vms = vms.iter().map(|&vm| VmId::from(vm)).collect();
        for vm in &self.vms {
            self.links.open(*vm, dir.join(vm.socket_name()));
        }
    }

    /// What the links counted, together: frames that came, and those that were dropped.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let counters = |vm: &VmId| self.links.observe(*vm).open().map(|open| open.counters);
        let sum = |of: fn(&LinkCounters) -> u64| self.vms.iter().filter_map(counters).map(|c| of(&c)).sum();
        (sum(|c| c.frames), sum(|c| c.dropped))
    }

    /// Stores what is left, and ends.
    pub(crate) async fn end(self) {
        self.links.shutdown(Duration::from_secs(10)).await;
        self.stop.cancel();
        self.work.await.unwrap();
        self.hints.abort();
    }
}

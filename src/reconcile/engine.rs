//! Feeding the workers: a full scan every so often, hints in between.
//!
//! Hints (libvirt's events, link and socket events, requests) only say *where* to look; a scan
//! looks everywhere with a constant number of calls, so that a lost hint costs one interval. A
//! scan that could not see the domains still reaches every worker, as `Unknown`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, Semaphore, broadcast, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    apply::{Hands, Settings},
    pass::Pass,
    plan::Rules,
    ports::{Clock, Files, LoopLinks, LoopStore, Randomness},
    storage::{Looked, StorageWatch},
    waker::{WakeUp, WakeUps, Waker},
    worker::{Mailbox, Scan, Shared, Worker},
};
use crate::{
    config::{AgentsConfig, InstallsConfig, ReconcileConfig},
    events::EventBus,
    hypervisor::{Hypervisor, HypervisorEvent},
    store::VmBundle,
    vm::{DomainObservation, VmId, chain},
};

/// A burst of reasons to scan makes one scan.
const SCAN_DEBOUNCE: Duration = Duration::from_millis(50);

/// How soon everything is looked at again where a look failed: the next scan may be far away, and no
/// event comes of what was true all the time. One scan, however many looks failed.
const SCAN_AGAIN: Duration = Duration::from_secs(2);

/// What is wanted soon of the pools waits at least so long after the last look began: a look is heavy,
/// and anybody may ask for one.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// How soon pools are looked at again that could not be.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What the loop is made of.
pub struct Parts {
    /// The hypervisor.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// The store.
    pub store: Arc<dyn LoopStore>,
    /// The guest links.
    pub links: Arc<dyn LoopLinks>,
    /// The host's files.
    pub files: Arc<dyn Files>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub randomness: Arc<dyn Randomness>,
    /// Whom to tell.
    pub events: EventBus,
    /// Where things are put.
    pub settings: Settings,
    /// The loop's numbers.
    pub config: ReconcileConfig,
    /// The agents' numbers.
    pub agents: AgentsConfig,
    /// The numbers of installations.
    pub installs: InstallsConfig,
    /// Whether installers can reach us to report how far they are.
    pub install_reports: bool,
    /// Links that changed.
    pub link_hints: mpsc::Receiver<VmId>,
    /// Sockets that came or went; `None`: look at all.
    pub socket_hints: mpsc::Receiver<Option<VmId>>,
}

/// The loop.
pub struct Reconciler {
    shared: Arc<Shared>,
    wake_ups: WakeUps,
    link_hints: mpsc::Receiver<VmId>,
    socket_hints: mpsc::Receiver<Option<VmId>>,
    scan_interval: Duration,
    mailboxes: HashMap<VmId, Arc<Mailbox>>,
    workers: JoinSet<VmId>,
}

/// What a scan saw.
type Scanned = Vec<(VmId, Scan)>;

impl Reconciler {
    /// The loop, and how to wake it.
    #[must_use]
    pub fn new(parts: Parts) -> (Self, Waker) {
        let (waker, wake_ups) = Waker::new();
        let Parts { config, agents, .. } = &parts;
        let rules = Rules {
            stop_grace: config.stop_grace,
            reboot_grace: config.reboot_grace,
            missing_grace: config.missing_grace,
            install_budget: config.install_budget,
            installs: parts.installs.clone(),
            install_reports: parts.install_reports,
            offline_after: agents.offline_after,
            max_clock_skew: agents.max_clock_skew,
            socket_dir: parts.settings.socket_dir.clone(),
        };
        // One look serves both questions: what became of the domains, and who fell silent.
        let scan_interval = config.scan_interval.min(agents.liveness_interval);
        let turns = Arc::new(Semaphore::new(config.max_parallel.max(1) as usize));
        let started_at = parts.clock.now();
        let hands = Hands {
            hypervisor: parts.hypervisor,
            store: parts.store,
            files: parts.files,
            clock: parts.clock,
            settings: parts.settings,
        };
        let shared = Shared {
            hands,
            links: parts.links,
            events: parts.events,
            randomness: parts.randomness,
            storage: StorageWatch::default(),
            unseen: Notify::new(),
            rules,
            config: parts.config,
            turns,
            started_at,
        };
        let reconciler = Self {
            shared: Arc::new(shared),
            wake_ups,
            link_hints: parts.link_hints,
            socket_hints: parts.socket_hints,
            scan_interval,
            mailboxes: HashMap::new(),
            workers: JoinSet::new(),
        };
        (reconciler, waker)
    }

    /// Works until `stop`; then lets steps under way end.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut domains = self.shared.hands.hypervisor.events();
        let mut ticker = tokio::time::interval(self.scan_interval);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut scans: JoinSet<Option<Scanned>> = JoinSet::new();
        let mut scan_wanted = true;
        let mut scan_again: Option<Instant> = None;
        let mut looks: JoinSet<Looked> = JoinSet::new();
        let mut last_look = Instant::now();
        let mut next_look = last_look;
        loop {
            if scan_wanted && scans.is_empty() {
                scan_wanted = false;
                scans.spawn(scan(self.shared.clone()));
            }
            // Every arm is cancel-safe and awaits nothing inside.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(result) = scans.join_next() => match result {
                    Ok(Some(scanned)) => self.deliver(scanned, &stop),
                    Ok(None) => {}
                    Err(error) => tracing::error!(%error, "a scan died"),
                },
                Some(result) = looks.join_next() => match result {
                    Ok(Looked { news, in_vain }) => {
                        scan_wanted |= news;
                        if in_vain {
                            next_look = next_look.min(last_look + LOOK_AGAIN);
                        }
                    }
                    Err(error) => tracing::error!(%error, "a look at the pools died"),
                },
                Some(ended) = self.workers.join_next() => self.buried(ended),
                event = domains.recv() => match event {
                    Ok(HypervisorEvent::Domain(vm)) => self.hint_known(vm),
                    Ok(HypervisorEvent::Connected) => {
                        scan_wanted = true;
                        self.shared.storage.want();
                    }
                    Ok(HypervisorEvent::Disconnected) | Err(broadcast::error::RecvError::Lagged(_)) => scan_wanted = true,
                    // The hypervisor is gone for good: only a stop can follow.
                    Err(broadcast::error::RecvError::Closed) => {
                        tracing::error!("the hypervisor's events ended");
                        break;
                    }
                },
                Some(wake_up) = self.wake_ups.vms.recv() => match wake_up {
                    WakeUp::Look(vm) => self.hint(vm, &stop),
                    WakeUp::Resync(vm) => {
                        self.worker(vm, &stop).resync();
                        self.shared.storage.want();
                    }
                },
                Some(vm) = self.link_hints.recv() => self.hint_known(vm),
                Some(hint) = self.socket_hints.recv() => match hint {
                    Some(vm) => self.hint_known(vm),
                    None => scan_wanted = true,
                },
                () = self.wake_ups.all.notified() => scan_wanted = true,
                _ = ticker.tick() => scan_wanted = true,
                () = self.shared.unseen.notified() => {
                    scan_again.get_or_insert_with(|| Instant::now() + SCAN_AGAIN);
                }
                () = until(scan_again), if scan_again.is_some() => {
                    scan_again = None;
                    scan_wanted = true;
                }
                () = self.shared.storage.wanted() => next_look = next_look.min(last_look + LOOK_PAUSE),
                () = tokio::time::sleep_until(next_look), if looks.is_empty() => {
                    last_look = Instant::now();
                    next_look = last_look + self.shared.config.storage_interval;
                    looks.spawn(look(self.shared.clone()));
                }
            }
        }
        scans.shutdown().await;
        looks.shutdown().await;
        // Workers see the same token; what they are in the middle of, they finish.
        while self.workers.join_next().await.is_some() {}
    }

    /// A hint from outside concerns only VMs that we have; sockets and domains of others do not
    /// make a worker.
    fn hint_known(&self, vm: VmId) {
        if let Some(mailbox) = self.mailboxes.get(&vm) {
            mailbox.hint();
        }
    }

    fn hint(&mut self, vm: VmId, stop: &CancellationToken) {
        self.worker(vm, stop).hint();
    }

    fn deliver(&mut self, scanned: Scanned, stop: &CancellationToken) {
        for (vm, scan) in scanned {
            self.worker(vm, stop).scanned(scan);
        }
    }

    fn worker(&mut self, vm: VmId, stop: &CancellationToken) -> &Mailbox {
        self.mailboxes.entry(vm).or_insert_with(|| {
            let mailbox = Arc::new(Mailbox::default());
            let worker = Worker::new(vm, self.shared.clone(), mailbox.clone());
            self.workers.spawn(worker.run(stop.clone()));
            mailbox
        })
    }

    fn buried(&mut self, ended: Result<VmId, tokio::task::JoinError>) {
        match ended {
            Ok(vm) => {
                self.mailboxes.remove(&vm);
            }
            Err(error) => {
                // Which worker it was cannot be told; the next scan makes it anew.
                tracing::error!(%error, "a worker died");
                self.mailboxes.retain(|_, mailbox| Arc::strong_count(mailbox) > 1);
                self.wake_ups.all.notify_one();
            }
        }
    }
}

/// Waits for that moment; for ever where there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// One look at every pool. The rows are read first.
async fn look(shared: Arc<Shared>) -> Looked {
    let bundles = shared.hands.store.load_host().await;
    shared.storage.look(bundles, shared.hands.hypervisor.as_ref()).await
}

/// One look at everything: intent of all VMs, then all domains. `None`: the store is away.
async fn scan(shared: Arc<Shared>) -> Option<Scanned> {
    tokio::time::sleep(SCAN_DEBOUNCE).await;
    let pass = Arc::new(Pass { begun: Instant::now() });
    let bundles = match shared.hands.store.load_host().await {
        Ok(bundles) => bundles,
        Err(error) => {
            tracing::warn!(error = chain(&error), "the scan could not read the store");
            shared.unseen.notify_one();
            return None;
        }
    };
    let mut host = match shared.hands.hypervisor.observe_all().await {
        Ok(host) => Some(host),
        Err(error) => {
            tracing::warn!(error = chain(&error), "the scan could not see the domains");
            shared.was_not_seen();
            None
        }
    };
    let scanned = |bundle: VmBundle| {
        let id = bundle.record.id;
        let domain = match &mut host {
            None => DomainObservation::Unknown,
            Some(host) => {
                host.domains.remove(&id).map_or(DomainObservation::Absent, DomainObservation::Present)
            }
        };
        (id, Scan { pass: Arc::clone(&pass), bundle, domain })
    };
    Some(bundles.into_iter().map(scanned).collect())
}

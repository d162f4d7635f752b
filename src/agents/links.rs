//! The registry of links: which are wanted, which of them have a place, and how others reach them.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Inbox, LinkState, counting,
    limit::{Claim, Holder, who_goes},
    link::Link,
    rate::Throttle,
    seal::Sealing,
    session::{Job, Limits},
    shared::{Outlets, Shared},
    socket::SocketOwners,
};
use crate::{
    config::AgentsConfig,
    vm::{LinkCounters, LinkEnd, LinkObservation, LinkSeal, SealKey, VmId},
};

/// Frames waiting for their receiver, of up to 256 KiB each: 64 MiB at most.
const FRAMES: usize = 256;

/// Hints waiting for the loop; one that finds no room is not needed.
const HINTS: usize = 1024;

/// Answers waiting for those who may know their commands.
const LATE: usize = 256;

/// Commands waiting for one link; more wait with their callers, in order.
const JOBS: usize = 16;

/// Links that look for their sockets at once; looking takes a thread.
const CONNECTING: usize = 32;

/// How often the log is told of evictions.
const EVICTION_INTERVAL: Duration = Duration::from_secs(60);

/// How often those that wait have the places looked through for one that is of no use.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// All links of the host. Clones share them.
#[derive(Debug, Clone)]
pub struct Links {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: AgentsConfig,
    owners: Arc<SocketOwners>,
    outlets: Outlets,
    registry: Mutex<Registry>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
struct Registry {
    live: HashMap<VmId, Live>,
    waiting: HashMap<VmId, Waiting>,
    evictions: Throttle,
    /// When those that wait last had the places looked through in vain.
    searched_at: Option<Instant>,
}

/// It has a task.
#[derive(Debug)]
pub(super) struct Live {
    path: PathBuf,
    sealing: Option<Arc<Sealing>>,
    pub(super) jobs: mpsc::Sender<Box<Job>>,
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Live {
    fn end(&self, end: LinkEnd) {
        self.shared.end_as(end);
        self.stop.cancel();
    }
}

/// There are too many already; it gets a task when there is a place for it.
#[derive(Debug)]
struct Waiting {
    path: PathBuf,
    sealing: Option<Arc<Sealing>>,
    since: DateTime<Utc>,
    waits_from: Instant,
    /// The link that had to go, if it had one.
    evicted: Option<Arc<Shared>>,
}

impl Waiting {
    fn new(path: PathBuf, sealing: Option<Arc<Sealing>>, evicted: Option<Arc<Shared>>) -> Self {
        Self { path, sealing, since: Utc::now(), waits_from: Instant::now(), evicted }
    }

    fn observe(&self, max_links: u32) -> LinkObservation {
        let why = match self.evicted {
            Some(_) => format!("evicted for another VM's link, being one of more than {max_links}"),
            None => format!("{max_links} links exist already"),
        };
        LinkObservation::Connecting {
            since: self.since,
            last_error: Some(format!("{why}; raise agents.max_links")),
            seal: LinkSeal::Unused,
            counters: self.evicted.as_ref().map(|shared| shared.counters()).unwrap_or_default(),
        }
    }
}

impl Links {
    /// Starts with no link. Resolves the owners' names, which reads `/etc/passwd`.
    #[must_use]
    pub fn new(config: AgentsConfig) -> (Self, Inbox) {
        let (frames_in, frames) = mpsc::channel(FRAMES);
        let (hints_in, hints) = mpsc::channel(HINTS);
        let (late_in, late) = mpsc::channel(LATE);
        let inner = Inner {
            owners: Arc::new(SocketOwners::resolve(&config.socket_owners)),
            config,
            outlets: Outlets {
                frames: frames_in,
                hints: hints_in,
                late: late_in,
                connecting: Arc::new(Semaphore::new(CONNECTING)),
            },
            registry: Mutex::new(Registry {
                live: HashMap::new(),
                waiting: HashMap::new(),
                evictions: Throttle::new(EVICTION_INTERVAL),
                searched_at: None,
            }),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        (Self { inner: Arc::new(inner) }, Inbox { frames, hints, late })
    }

    /// Wants a link to this socket. Idempotent; another path replaces the link. Asked again while
    /// the link waits to connect, it looks at the file: where that is another than the one it tried
    /// last, it connects at once, but not sooner than `reconnect_base` after the last attempt. Needs
    /// a runtime.
    ///
    /// Where `max_links` exist, a VM that asks for the first time takes the place of the one that
    /// was heard least recently and has no pending command, if there is one; that one waits then.
    /// One that waits takes, asked again, a free place, or, having waited for twice
    /// `offline_after`, that of a link that was silent for so long.
    ///
    /// Nothing is sealed over it; see [`Links::open_sealed`].
    pub fn open(&self, vm: VmId, path: PathBuf) {
        self.open_sealed(vm, path, None);
    }

    /// The same of a VM that has this key; another key replaces the link as another path does.
    pub fn open_sealed(&self, vm: VmId, path: PathBuf, key: Option<SealKey>) {
        let inner = &self.inner;
        let sealing = Sealing::of(inner.config.seal, key);
        let mut registry = inner.registry();
        if inner.stop.is_cancelled() {
            return;
        }
        if let Some(live) = registry.live.get(&vm) {
            if live.path == path && live.sealing.as_deref() == sealing.as_ref() {
                live.shared.look.notify_one();
            } else {
                // Its place stays its own.
                live.end(LinkEnd::ChannelClosed);
                let before = Arc::clone(&live.shared);
                registry.live.insert(vm, inner.start(vm, path, sealing.map(Arc::new), Some(&before)));
            }
            return;
        }
        let now = Instant::now();
        let sealing = sealing.map(Arc::new);
        let claim = registry
            .waiting
            .get(&vm)
            .map_or(Claim::New, |waiting| Claim::Waiting(now.saturating_duration_since(waiting.waits_from)));
        if inner.make_room(&mut registry, claim, now) {
            let before = registry.waiting.remove(&vm).and_then(|waiting| waiting.evicted);
            registry.live.insert(vm, inner.start(vm, path, sealing, before.as_deref()));
        } else if let Some(waiting) = registry.waiting.get_mut(&vm) {
            (waiting.path, waiting.sealing) = (path, sealing);
        } else {
            registry.waiting.insert(vm, Waiting::new(path, sealing, None));
        }
    }

    /// Wants no link: it is closed and its pending commands end as `Disconnected`, or unsent as
    /// `Ended`, for this reason. Idempotent.
    pub fn close(&self, vm: VmId, end: LinkEnd) {
        let mut registry = self.inner.registry();
        registry.waiting.remove(&vm);
        let Some(live) = registry.live.remove(&vm) else { return };
        live.end(end);
        // Whoever waited longest takes the place.
        let next = registry.waiting.iter().min_by_key(|(_, waiting)| waiting.waits_from);
        if let Some((&vm, _)) = next
            && let Some(waiting) = registry.waiting.remove(&vm)
        {
            let Waiting { path, sealing, evicted, .. } = waiting;
            let live = self.inner.start(vm, path, sealing, evicted.as_deref());
            registry.live.insert(vm, live);
        }
    }

    /// The link's state, now.
    #[must_use]
    pub fn observe(&self, vm: VmId) -> LinkObservation {
        let registry = self.inner.registry();
        let waits = || registry.waiting.get(&vm).map(|waiting| waiting.observe(self.inner.config.max_links));
        let lives = registry.live.get(&vm).map(|live| live.shared.observe());
        lives.or_else(waits).unwrap_or(LinkObservation::None)
    }

    /// Every wanted link's state, now.
    #[must_use]
    pub fn observe_all(&self) -> HashMap<VmId, LinkObservation> {
        let registry = self.inner.registry();
        let max = self.inner.config.max_links;
        let waiting = registry.waiting.iter().map(|(&vm, waiting)| (vm, waiting.observe(max)));
        registry.live.iter().map(|(&vm, live)| (vm, live.shared.observe())).chain(waiting).collect()
    }

    /// What senders of commands need to know of the link, at once when it changes. Only the last
    /// state is seen, not each one. `None`: no link is wanted, or it waits for a place. When the
    /// link is gone for good, the sender is dropped after `ended` was told.
    #[must_use]
    pub fn watch(&self, vm: VmId) -> Option<watch::Receiver<LinkState>> {
        self.with_live(vm, |live| live.shared.watch())
    }

    /// What this VM's link has counted since it was made, also while it connects anew.
    #[must_use]
    pub fn counters(&self, vm: VmId) -> LinkCounters {
        self.observe(vm).counters()
    }

    /// The same of every link there is.
    #[must_use]
    pub fn all_counters(&self) -> HashMap<VmId, LinkCounters> {
        self.observe_all().into_iter().map(|(vm, link)| (vm, link.counters())).collect()
    }

    /// How many commands the agent takes at once; 1 unless it announced more.
    #[must_use]
    pub fn concurrency(&self, vm: VmId) -> usize {
        self.with_live(vm, |live| live.shared.concurrency()).unwrap_or(1)
    }

    /// Asks for a reading, as soon as the link is open. Never waits. At most one request is out
    /// at a time, since a guest that does not read finds them all later.
    pub fn request_metrics(&self, vm: VmId) {
        self.with_live(vm, |live| live.shared.want_metrics());
    }

    /// Closes every link and waits for their tasks, at most `limit`. No link is opened any more.
    pub async fn shutdown(&self, limit: Duration) {
        self.inner.stop.cancel();
        {
            let mut registry = self.inner.registry();
            registry.waiting.clear();
            registry.live.drain().for_each(|(_, live)| live.end(LinkEnd::ControllerStopping));
        }
        self.inner.tasks.close();
        if timeout(limit, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.inner.tasks.len(), "guest links did not close in time");
        }
    }

    /// Looks at a link that has a place, and which cannot lose it meanwhile.
    pub(super) fn with_live<T>(&self, vm: VmId, look: impl FnOnce(&Live) -> T) -> Option<T> {
        self.inner.registry().live.get(&vm).map(look)
    }
}

impl Inner {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a place for the claim, if need be after somebody had to go.
    fn make_room(&self, registry: &mut Registry, claim: Claim, now: Instant) -> bool {
        if registry.live.len() < usize::try_from(self.config.max_links).unwrap_or(usize::MAX) {
            return true;
        }
        if claim != Claim::New {
            // With thousands waiting, each asking with every scan.
            let too_soon = |at| now.saturating_duration_since(at) < SEARCH_INTERVAL;
            if registry.searched_at.is_some_and(too_soon) {
                return false;
            }
        }
        let holders = registry.live.iter().map(|(&vm, live)| {
            let (heard, silence) = live.shared.silence(now);
            Holder { vm, busy: live.shared.is_busy(), heard, silence }
        });
        let Some(vm) = who_goes(claim, self.config.offline_after * 2, holders) else {
            if claim != Claim::New {
                registry.searched_at = Some(now);
            }
            return false;
        };
        let Some(live) = registry.live.remove(&vm) else { return false };
        live.end(LinkEnd::Evicted);
        counting::evicted();
        if let Some(held_back) = registry.evictions.pass(now) {
            let max_links = self.config.max_links;
            tracing::warn!(
                %vm, max_links, held_back,
                "a guest's link is evicted for another VM's; raise agents.max_links"
            );
        }
        registry.waiting.insert(vm, Waiting::new(live.path, live.sealing, Some(live.shared)));
        true
    }

    fn start(&self, vm: VmId, path: PathBuf, sealing: Option<Arc<Sealing>>, before: Option<&Shared>) -> Live {
        let shared = Arc::new(Shared::new(vm, before));
        let stop = self.stop.child_token();
        let (jobs, receiver) = mpsc::channel(JOBS);
        let link = Link {
            path: path.clone(),
            shared: Arc::clone(&shared),
            owners: Arc::clone(&self.owners),
            outlets: self.outlets.clone(),
            limits: Limits {
                frame_bytes: usize::try_from(self.config.max_frame_bytes).unwrap_or(usize::MAX),
                frames_per_second: self.config.max_frames_per_second,
            },
            reconnect_base: self.config.reconnect_base,
            reconnect_max: self.config.reconnect_max,
            sealing: sealing.clone(),
            stop: stop.clone(),
        };
        self.tasks.spawn(link.run(receiver));
        Live { path, sealing, jobs, shared, stop }
    }
}

//! The registry of links: which are wanted, and how others reach them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Inbox, LinkError,
    flight::ANSWER_MARGIN,
    link::Link,
    sending::Sending,
    session::{Job, Limits},
    shared::{LinkState, Outlets, Shared},
    socket::SocketOwners,
};
use crate::{
    config::AgentsConfig,
    vm::{CommandId, CommandOutcome, GuestCommand, LinkEnd, LinkObservation, VmId},
};

/// Frames waiting for their receiver, of up to 128 KiB each.
const FRAMES: usize = 256;

/// Hints waiting for the loop; one that finds no room is not needed.
const HINTS: usize = 1024;

/// Late answers waiting for their receiver.
const LATE: usize = 64;

/// Commands waiting for one link; more wait with their callers, in order.
const JOBS: usize = 16;

/// The longest that a command is waited for, whatever its caller says.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

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
    wanted: Mutex<HashMap<VmId, Wanted>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
enum Wanted {
    /// It has a task.
    Live { path: PathBuf, jobs: mpsc::Sender<Job>, shared: Arc<Shared>, stop: CancellationToken },
    /// There are too many already; it gets a task when one of them goes.
    Waiting { path: PathBuf, since: DateTime<Utc> },
}

impl Wanted {
    fn path(&self) -> &Path {
        match self {
            Self::Live { path, .. } | Self::Waiting { path, .. } => path,
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
            outlets: Outlets { frames: frames_in, hints: hints_in, late: late_in },
            wanted: Mutex::new(HashMap::new()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        (Self { inner: Arc::new(inner) }, Inbox { frames, hints, late })
    }

    /// Wants a link to this socket. Idempotent; another path replaces the link. Asked again while
    /// the link waits to connect, it tries sooner, but not sooner than `reconnect_base`. Needs a
    /// runtime.
    pub fn open(&self, vm: VmId, path: PathBuf) {
        let mut wanted = self.inner.wanted();
        match wanted.get(&vm) {
            Some(Wanted::Live { path: present, shared, .. }) if *present == path => {
                shared.retry.notify_one();
                return;
            }
            Some(present) if present.path() == path => return,
            _ => {}
        }
        if self.inner.stop.is_cancelled() {
            return;
        }
        if let Some(Wanted::Live { stop, shared, .. }) = wanted.remove(&vm) {
            shared.end_as(LinkEnd::ChannelClosed);
            stop.cancel();
        }
        let live = wanted.values().filter(|link| matches!(link, Wanted::Live { .. })).count();
        let link = if live < self.inner.max_links() {
            self.inner.start(vm, path)
        } else {
            Wanted::Waiting { path, since: Utc::now() }
        };
        wanted.insert(vm, link);
    }

    /// Wants no link: it is closed and its pending commands end as `Disconnected` for this reason.
    /// Idempotent.
    pub fn close(&self, vm: VmId, end: LinkEnd) {
        let mut wanted = self.inner.wanted();
        let Some(Wanted::Live { stop, shared, .. }) = wanted.remove(&vm) else { return };
        shared.end_as(end);
        stop.cancel();
        // Whoever waited longest takes the place.
        let next = wanted
            .iter()
            .filter_map(|(&vm, link)| match link {
                Wanted::Waiting { path, since } => Some((*since, vm, path.clone())),
                Wanted::Live { .. } => None,
            })
            .min();
        if let Some((_, vm, path)) = next {
            wanted.insert(vm, self.inner.start(vm, path));
        }
    }

    /// The link's state, now.
    #[must_use]
    pub fn observe(&self, vm: VmId) -> LinkObservation {
        self.inner.wanted().get(&vm).map_or(LinkObservation::None, |link| self.inner.observe(link))
    }

    /// Every wanted link's state, now.
    #[must_use]
    pub fn observe_all(&self) -> HashMap<VmId, LinkObservation> {
        self.inner.wanted().iter().map(|(&vm, link)| (vm, self.inner.observe(link))).collect()
    }

    /// The link's state as it changes; `None`: no link is wanted. The sender goes with the link.
    #[must_use]
    pub fn watch(&self, vm: VmId) -> Option<watch::Receiver<LinkState>> {
        match self.inner.wanted().get(&vm) {
            Some(Wanted::Live { shared, .. }) => Some(shared.link.subscribe()),
            _ => None,
        }
    }

    /// How many commands the agent takes at once; 1 unless it announced more.
    #[must_use]
    pub fn concurrency(&self, vm: VmId) -> usize {
        match self.inner.wanted().get(&vm) {
            Some(Wanted::Live { shared, .. }) => shared.concurrency(),
            _ => 1,
        }
    }

    /// Sends a command and waits for its outcome. Waits for a free place first (one command in
    /// flight unless the agent announced more); that counts against `timeout`, and the agent is
    /// told what is left of it. Once sent, the command is waited for until `timeout` and a margin
    /// of 5 s more, so that the agent's own word on a command that it had to end comes in time.
    ///
    /// # Errors
    /// `NotConnected`, `NoPlace`: nothing was sent.
    pub async fn execute(
        &self,
        vm: VmId,
        id: CommandId,
        command: &GuestCommand,
        timeout: Duration,
    ) -> Result<CommandOutcome, LinkError> {
        self.execute_noting(vm, id, command, timeout, &Sending::default()).await
    }

    /// The same, for one who wants to know whether it was sent. Dropping the future detaches the
    /// caller: what was sent keeps its place until its answer, which is late then.
    ///
    /// # Errors
    /// `NotConnected`, `NoPlace`, `Ended`: nothing was sent.
    pub async fn execute_noting(
        &self,
        vm: VmId,
        id: CommandId,
        command: &GuestCommand,
        timeout: Duration,
        sending: &Sending,
    ) -> Result<CommandOutcome, LinkError> {
        let deadline = Instant::now() + timeout.min(LONGEST);
        let jobs = match self.inner.wanted().get(&vm) {
            Some(Wanted::Live { jobs, shared, .. }) if shared.is_heard() => jobs.clone(),
            _ => return Err(LinkError::NotConnected),
        };
        let (reply, mut outcome) = oneshot::channel();
        let job = Job { id, command: command.clone(), deadline, sending: sending.clone(), reply };
        match timeout_at(deadline, jobs.send(job)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(LinkError::NotConnected),
            Err(_) => return Err(LinkError::NoPlace),
        }
        // The link ended with the job unsent.
        let settle = |told: Result<_, _>| told.unwrap_or(Err(LinkError::NotConnected));
        if let Ok(told) = timeout_at(deadline, &mut outcome).await {
            return settle(told);
        }
        // From here on it cannot be sent any more, so that what is said now stays true.
        if sending.withdraw() {
            // The link may have told why in this very moment.
            return outcome.try_recv().unwrap_or(Err(LinkError::NoPlace));
        }
        match timeout_at(deadline + ANSWER_MARGIN, outcome).await {
            Ok(told) => settle(told),
            Err(_) => Ok(CommandOutcome::TimedOut),
        }
    }

    /// Asks for a reading, as soon as the link is open. Never waits. At most one request is out
    /// at a time, since a guest that does not read finds them all later.
    pub fn request_metrics(&self, vm: VmId) {
        if let Some(Wanted::Live { shared, .. }) = self.inner.wanted().get(&vm) {
            shared.want_metrics();
        }
    }

    /// Closes every link and waits for their tasks, at most `limit`. No link is opened any more.
    pub async fn shutdown(&self, limit: Duration) {
        self.inner.stop.cancel();
        for (_, link) in self.inner.wanted().drain() {
            if let Wanted::Live { shared, .. } = link {
                shared.end_as(LinkEnd::ControllerStopping);
            }
        }
        self.inner.tasks.close();
        if timeout(limit, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.inner.tasks.len(), "guest links did not close in time");
        }
    }
}

impl Inner {
    fn wanted(&self) -> MutexGuard<'_, HashMap<VmId, Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn max_links(&self) -> usize {
        usize::try_from(self.config.max_links).unwrap_or(usize::MAX)
    }

    fn start(&self, vm: VmId, path: PathBuf) -> Wanted {
        let shared = Arc::new(Shared::new(vm));
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
            stop: stop.clone(),
        };
        self.tasks.spawn(link.run(receiver));
        Wanted::Live { path, jobs, shared, stop }
    }

    fn observe(&self, link: &Wanted) -> LinkObservation {
        match link {
            Wanted::Live { shared, .. } => shared.observe(),
            Wanted::Waiting { since, .. } => LinkObservation::Connecting {
                since: *since,
                last_error: Some(format!(
                    "{} links exist already; raise agents.max_links",
                    self.config.max_links
                )),
            },
        }
    }
}

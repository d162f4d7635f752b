//! One VM's task: the only writer of that VM.
//!
//! It sleeps until a hint, a scan or its own alarm; then it looks, plans, commits and takes at
//! most one step, and looks again, until nothing is left to do now. An observation that began
//! before its last turn ended is thrown away: it may show a past that was already acted upon.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    apply::Hands,
    loan,
    memory::{Memory, Wait},
    observation::{InstallSigns, Observation},
    pass::Pass,
    plan::{LinkWish, OperationUpdate, Plan, Rules, is_watched, plan},
    ports::{LoopLinks, Randomness},
    step::{Step, THAW},
    storage::StorageWatch,
};
use crate::{
    config::ReconcileConfig,
    events::EventBus,
    failpoint::failpoint,
    store::{StoreError, VmBundle},
    vm::{
        AgentConnectivity, DesiredPower, DomainObservation, DomainState, LinkEnd, LinkObservation, Milestone,
        OperationKind, OperationStatus, SealKey, SocketObservation, VmEvent, VmId, VmStatus, chain,
    },
};

/// Steps of one turn, after which other VMs get theirs.
const STEPS_PER_TURN: usize = 16;
/// How soon a VM is looked at again whose libvirt call does not return.
const BUSY_RECHECK: TimeDelta = TimeDelta::seconds(2);
/// How soon thawing a guest's file systems is tried again.
const THAW_AGAIN: Duration = Duration::from_secs(1);
/// A clock that differs from the time that passed by more than this was set by somebody.
const CLOCK_SET: TimeDelta = TimeDelta::seconds(2);
/// libvirt's `VIR_DOMAIN_PAUSED_IOERROR`.
const PAUSED_BY_IO_ERROR: i32 = 5;
/// `lastSeen` alone is not worth a write more often than this.
const LAST_SEEN_GRAIN: TimeDelta = TimeDelta::minutes(10);

/// What all workers share.
pub(super) struct Shared {
    pub(super) hands: Hands,
    pub(super) links: Arc<dyn LoopLinks>,
    pub(super) events: EventBus,
    pub(super) randomness: Arc<dyn Randomness>,
    pub(super) storage: StorageWatch,
    /// Something could not be looked at, and no news will say that it can be again.
    pub(super) unseen: Notify,
    pub(super) rules: Rules,
    pub(super) config: ReconcileConfig,
    pub(super) turns: Arc<Semaphore>,
    pub(super) started_at: DateTime<Utc>,
}

impl Shared {
    /// A look at the hypervisor failed. One that is away tells when it is back.
    pub(super) fn was_not_seen(&self) {
        if self.hands.hypervisor.is_reachable() {
            self.unseen.notify_one();
        }
    }
}

/// A VM's share of a full scan.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) pass: Arc<Pass>,
    pub(super) bundle: VmBundle,
    pub(super) domain: DomainObservation,
}

/// Where hints and scans are left. Later ones replace earlier ones: there is nothing to queue.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Mail {
    look: bool,
    retry: bool,
    scan: Option<Scan>,
}

impl Mail {
    fn is_empty(&self) -> bool {
        !self.look && !self.retry && self.scan.is_none()
    }
}

impl Mailbox {
    /// Something may have changed: look afresh.
    pub(super) fn hint(&self) {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).look = true;
        self.notify.notify_one();
    }

    /// Look afresh, and try again at once what waits because it failed.
    pub(super) fn resync(&self) {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        (mail.look, mail.retry) = (true, true);
        drop(mail);
        self.notify.notify_one();
    }

    /// A scan saw this.
    pub(super) fn scanned(&self, scan: Scan) {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).scan = Some(scan);
        self.notify.notify_one();
    }

    fn take(&self) -> Mail {
        std::mem::take(&mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a turn ended.
enum Turn {
    /// Sleep; look again then.
    Sleep(Option<DateTime<Utc>>),
    /// The VM is gone from the store.
    Gone,
}

pub(super) struct Worker {
    id: VmId,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    memory: Memory,
    last_turn_ended: Option<Instant>,
    /// When the clock on the wall was last read for the memory, and what it said.
    clock_read: (Instant, DateTime<Utc>),
    /// It was last seen paused because a disk failed.
    starved: bool,
    /// What people were last told.
    told: Option<Arc<VmStatus>>,
    /// Where the disk of an installation is, once it was found.
    disk_path: Option<PathBuf>,
}

impl Worker {
    pub(super) fn new(id: VmId, shared: Arc<Shared>, mailbox: Arc<Mailbox>) -> Self {
        let memory = Memory::new(shared.started_at);
        let clock_read = (Instant::now(), shared.hands.clock.now());
        Self {
            id,
            shared,
            mailbox,
            memory,
            last_turn_ended: None,
            clock_read,
            starved: false,
            told: None,
            disk_path: None,
        }
    }

    /// Works until the VM is gone or `stop`. A step under way is finished first.
    pub(super) async fn run(mut self, stop: CancellationToken) -> VmId {
        let mut alarm: Option<DateTime<Utc>> = None;
        loop {
            // All arms are cancel-safe and hold nothing across the wait.
            let alarmed = tokio::select! {
                biased;
                () = stop.cancelled() => return self.id,
                () = self.mailbox.notify.notified() => false,
                () = sleep_until(alarm, self.now()), if alarm.is_some() => true,
            };
            let permit = tokio::select! {
                biased;
                () = stop.cancelled() => return self.id,
                permit = self.shared.turns.clone().acquire_owned() => permit,
            };
            // The semaphore is never closed; if it were, this would be the end of work.
            let Ok(permit) = permit else { return self.id };
            let mail = self.mailbox.take();
            // What came while a turn was waited for was taken with what had come before.
            if mail.is_empty() && !alarmed {
                continue;
            }
            let turn = self.turn(mail, &stop).await;
            drop(permit);
            self.last_turn_ended = Some(Instant::now());
            match turn {
                Ok(Turn::Sleep(wake_at)) => alarm = wake_at,
                Ok(Turn::Gone) => {
                    self.shared.links.close(self.id, LinkEnd::VmDeleted);
                    return self.id;
                }
                Err(error) => {
                    tracing::warn!(vm = %self.id, error = chain(&error), "the store failed; the VM is looked at again");
                    alarm = Some(
                        self.now()
                            + TimeDelta::from_std(self.shared.config.retry_base).unwrap_or(BUSY_RECHECK),
                    );
                }
            }
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.shared.hands.clock.now()
    }

    /// The time, for what is remembered: where the clock was set since the last look at it, the
    /// memory moves along first.
    fn now_for_memory(&mut self) -> DateTime<Utc> {
        let (now, moment) = (self.now(), Instant::now());
        let (then, said) = std::mem::replace(&mut self.clock_read, (moment, now));
        let passed = TimeDelta::from_std(moment - then).unwrap_or(TimeDelta::MAX);
        let jump = (now - said).checked_sub(&passed).unwrap_or_default();
        if jump.abs() > CLOCK_SET {
            self.memory.shift(jump);
        }
        now
    }

    async fn turn(&mut self, mail: Mail, stop: &CancellationToken) -> Result<Turn, StoreError> {
        if mail.retry {
            let now = self.now_for_memory();
            self.memory.retry_now(now);
        }
        let fresh = mail
            .scan
            .filter(|scan| !mail.look && self.last_turn_ended.is_none_or(|ended| scan.pass.begun > ended));
        // Held to the end of the turn: until then the pass is not over.
        let (_pass, mut bundle, mut domain) = match fresh {
            Some(scan) => (Some(scan.pass), scan.bundle, scan.domain),
            None => match self.look().await? {
                Some((bundle, domain)) => (None, bundle, domain),
                None => return Ok(Turn::Gone),
            },
        };
        for _ in 0..STEPS_PER_TURN {
            let (plan, observed) = self.decide(&bundle, domain).await;
            self.commit(&bundle, &plan).await?;
            let Some(step) = &plan.step else {
                let busy = observed.busy.then(|| self.now() + BUSY_RECHECK);
                return Ok(Turn::Sleep([plan.wake_at, busy].into_iter().flatten().min()));
            };
            self.take(&bundle, step).await;
            if stop.is_cancelled() {
                return Ok(Turn::Sleep(None));
            }
            match self.look().await? {
                Some(seen) => (bundle, domain) = seen,
                None => return Ok(Turn::Gone),
            }
        }
        Ok(Turn::Sleep(Some(self.now())))
    }

    /// Looks afresh at intent and domain.
    async fn look(&self) -> Result<Option<(VmBundle, DomainObservation)>, StoreError> {
        let hands = &self.shared.hands;
        let Some(bundle) = hands.store.load_vm(self.id).await? else { return Ok(None) };
        // A domain whose call hangs would only make this one hang too.
        let domain = if hands.hypervisor.is_busy(self.id) {
            DomainObservation::Unknown
        } else {
            hands.hypervisor.observe(self.id).await.unwrap_or_else(|error| {
                tracing::debug!(vm = %self.id, error = chain(&error), "the domain could not be observed");
                self.shared.was_not_seen();
                DomainObservation::Unknown
            })
        };
        Ok(Some((bundle, domain)))
    }

    async fn decide(&mut self, bundle: &VmBundle, domain: DomainObservation) -> (Plan, Observation) {
        let now = self.now_for_memory();
        let record = &bundle.record;
        let change = bundle.operations.iter().find(|operation| operation.change.is_some());
        self.memory.enter(record.intent.generation, change.map(|operation| operation.id));
        self.memory.made(&bundle.resources);
        self.memory.times.look(bundle, now);
        match &domain {
            DomainObservation::Absent if record.milestones.at(Milestone::Defined).is_some() => {
                self.memory.missing_since.get_or_insert(now);
            }
            DomainObservation::Unknown => {}
            _ => self.memory.missing_since = None,
        }
        if let DomainObservation::Present(facts) = &domain
            && facts.state != DomainState::Unknown
        {
            self.memory.seen(facts.state.is_off(), now);
            self.memory.note.keep(bundle, facts);
        }
        if let DomainObservation::Present(facts) = &domain {
            let paused = (facts.state, facts.reason) == (DomainState::Paused, PAUSED_BY_IO_ERROR);
            // The pool may have run full since it was last looked at.
            if paused && !self.starved {
                self.shared.storage.want();
            }
            self.starved = paused;
        }
        let stops = record.intent.is_open() && record.intent.power == DesiredPower::Stopped;
        if stops && matches!(&domain, DomainObservation::Present(facts) if facts.state.is_active()) {
            self.memory.stopping_since.get_or_insert(now);
        }
        let socket = if record.intent.deleting {
            let path = self.shared.hands.socket_path(self.id);
            self.shared.hands.files.inspect_socket(&path).await
        } else {
            SocketObservation::Unknown
        };
        let reboots = self.shared.hands.hypervisor.reboots(self.id);
        let link = self.shared.links.observe(self.id);
        let install = if is_watched(bundle, &domain) {
            Some(self.watch_install(bundle, &domain, now).await)
        } else {
            None
        };
        let (loan, copying) = loan::look(&self.shared.hands, bundle).await;
        let observed = Observation {
            install,
            domain,
            loan,
            copying,
            busy: self.shared.hands.hypervisor.is_busy(self.id),
            reboots: self.memory.times.reboots(reboots, now),
            link: self.memory.times.link(link, now),
            storage: self.shared.storage.observe(&bundle.resources),
            socket,
        };
        let plan = plan(&self.shared.rules, now, bundle, &observed, &self.memory);
        (plan, observed)
    }

    /// Looks at what an installation shows, and remembers what was new of it.
    async fn watch_install(
        &mut self,
        bundle: &VmBundle,
        domain: &DomainObservation,
        now: DateTime<Utc>,
    ) -> InstallSigns {
        let signs = self.shared.hands.install_signs(bundle, &mut self.disk_path).await;
        let stage = bundle.install_report.as_ref().map(|report| report.stage.as_str());
        self.memory.install.look(stage, &signs, now);
        if !matches!(domain, DomainObservation::Present(facts) if facts.state.is_running()) {
            self.memory.install.rest(now);
        }
        signs
    }

    /// Writes down what was decided, before anything is done about it.
    async fn commit(&mut self, bundle: &VmBundle, plan: &Plan) -> Result<(), StoreError> {
        let store = &self.shared.hands.store;
        let now = self.now();
        for milestone in &plan.milestones {
            store.pass_milestone(self.id, *milestone, now).await?;
            failpoint!("commit.milestone");
        }
        if let Some(generation) = plan.satisfied {
            store.satisfy(self.id, generation).await?;
            failpoint!("commit.satisfied");
            self.memory.reached();
        }
        if let Some((generation, error)) = &plan.given_up {
            tracing::warn!(vm = %self.id, code = error.code, error = error.message, "a request is given up");
            let ended = store.give_up(self.id, *generation, error, now).await?;
            failpoint!("commit.given-up");
            for operation in ended {
                self.shared.events.publish(VmEvent::Operation(Arc::new(operation)));
            }
        }
        if worth_storing(bundle.status.as_ref(), &plan.status) {
            store.save_status(self.id, &plan.status).await?;
            failpoint!("commit.status");
        }
        for update in &plan.operations {
            let changed = match update {
                OperationUpdate::Progress { id, progress, stage } => {
                    store.progress_operation(*id, *progress, stage).await?
                }
                OperationUpdate::Finish { id, status, error } => {
                    store.finish_operation(*id, *status, error.clone(), now).await?
                }
            };
            failpoint!("commit.operation");
            if let Some(operation) = changed {
                self.shared.events.publish(VmEvent::Operation(Arc::new(operation)));
            }
        }
        self.wish(&plan.link, plan.status.agent, bundle.seal.as_ref());
        self.tell(bundle, &plan.status, now);
        Ok(())
    }

    fn wish(&self, wish: &LinkWish, agent: AgentConnectivity, seal: Option<&SealKey>) {
        let links = &self.shared.links;
        match wish {
            LinkWish::Open(path) => {
                let fresh = links.observe(self.id) == LinkObservation::None;
                links.open(self.id, path, seal);
                // An agent known from before may not have noticed that we were away.
                if fresh && agent == AgentConnectivity::Unknown {
                    links.request_metrics(self.id);
                }
            }
            LinkWish::Close(end) => links.close(self.id, *end),
            LinkWish::Keep => {}
        }
    }

    /// Publishes what changed.
    fn tell(&mut self, bundle: &VmBundle, status: &VmStatus, now: DateTime<Utc>) {
        let events = &self.shared.events;
        let before = self.memory.agent.replace(status.agent);
        let was_heard = !matches!(before, None | Some(AgentConnectivity::NeverSeen));
        match status.agent {
            AgentConnectivity::Online if before != Some(AgentConnectivity::Online) => {
                events.publish(VmEvent::Online { vm: self.id, at: now });
            }
            AgentConnectivity::Offline if was_heard && before != Some(AgentConnectivity::Offline) => {
                let reason = offline_reason(status);
                events.publish(VmEvent::Offline { vm: self.id, at: now, reason });
            }
            _ => {}
        }
        // What was told, not what was stored: a store that failed in between costs no news.
        let told = self.told.as_deref().or(bundle.status.as_ref());
        if told.is_none_or(|old| is_news(old, status)) {
            let status = Arc::new(status.clone());
            self.told = Some(Arc::clone(&status));
            events.publish(VmEvent::Status { vm: self.id, status, at: now });
        }
    }

    async fn take(&mut self, bundle: &VmBundle, step: &Step) {
        tracing::info!(vm = %self.id, step = step.name(), "taking a step");
        let begun = self.now_for_memory();
        self.memory.attempting(step, begun);
        match self.shared.hands.apply(bundle, step).await {
            Ok(None) if self.memory.is_in_vain(step) => {
                tracing::warn!(vm = %self.id, step = step.name(), "a step was done again and had no lasting effect");
                let message =
                    "it was done, and had no lasting effect; look at the console and at libvirt's log";
                self.note_failure(step, !is_polite(bundle, step), message.to_owned());
            }
            Ok(ended) => {
                let now = self.now_for_memory();
                self.memory.succeeded(step, now);
                if let Step::RequestReboot(operation) = step {
                    self.memory.asked_to_reboot(*operation, begun);
                }
                if let Some(ended) = ended {
                    let released =
                        ended.kind == OperationKind::Release && ended.status == OperationStatus::Succeeded;
                    if released {
                        self.shared.events.publish(VmEvent::Deleted { vm: self.id, at: self.now() });
                    }
                    self.shared.events.publish(VmEvent::Operation(Arc::new(ended)));
                }
                if matches!(step, Step::Forget) {
                    self.tell_deleted(bundle).await;
                }
            }
            Err(error) => {
                // The causes name paths and other things of the host: for its operator, not for
                // everybody who may see the VM.
                let correlation = uuid::Uuid::now_v7();
                let why = chain(&error);
                tracing::warn!(vm = %self.id, step = step.name(), %correlation, error = why, "a step failed");
                let message = error.told().map_or_else(
                    || format!("{error} (the log tells why under {correlation})"),
                    ToOwned::to_owned,
                );
                let counted = error.is_counted() && !is_polite(bundle, step);
                self.note_failure(step, counted, message);
            }
        }
    }

    fn note_failure(&mut self, step: &Step, counted: bool, message: String) {
        let now = self.now_for_memory();
        let config = &self.shared.config;
        let jitter = self.shared.randomness.jitter();
        // A guest is not left frozen for longer and longer.
        let max = if step.name() == THAW { THAW_AGAIN } else { config.retry_max };
        let wait = Wait { base: config.retry_base, max, jitter };
        self.memory.failed(step, counted, message, now, wait);
    }

    async fn tell_deleted(&self, bundle: &VmBundle) {
        for operation in bundle.operations.iter().filter(|operation| operation.kind == OperationKind::Delete)
        {
            match self.shared.hands.store.operation(operation.id).await {
                Ok(Some(now)) => self.shared.events.publish(VmEvent::Operation(Arc::new(now))),
                Ok(None) => {}
                Err(error) => tracing::warn!(error = chain(&error), "a finished deletion could not be told"),
            }
        }
        self.shared.events.publish(VmEvent::Deleted { vm: self.id, at: self.now() });
    }
}

/// Whether a step asks a guest, or makes it able to hear. That it cannot be asked is no reason to let
/// it run on: it is forced in time, and the request is not given up before.
fn is_polite(bundle: &VmBundle, step: &Step) -> bool {
    match step {
        Step::RequestShutdown | Step::RequestReboot(_) => true,
        Step::Resume => bundle.record.intent.power == DesiredPower::Stopped,
        _ => false,
    }
}

fn offline_reason(status: &VmStatus) -> String {
    use crate::vm::ConditionKind;
    let condition =
        status.conditions.iter().find(|condition| condition.kind == ConditionKind::AgentConnected);
    condition.map(|condition| condition.message.clone()).unwrap_or_default()
}

/// Whether people would care.
fn is_news(old: &VmStatus, new: &VmStatus) -> bool {
    (old.phase, old.agent, &old.agent_version, &old.conditions)
        != (new.phase, new.agent, &new.agent_version, &new.conditions)
}

fn worth_storing(old: Option<&VmStatus>, new: &VmStatus) -> bool {
    let Some(old) = old else { return true };
    let aged = match (old.last_seen, new.last_seen) {
        (None, Some(_)) => true,
        (Some(old), Some(new)) => new - old >= LAST_SEEN_GRAIN,
        _ => false,
    };
    is_news(old, new) || aged
}

/// Sleeps until `alarm`; for ever without one.
async fn sleep_until(alarm: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    match alarm {
        Some(at) => {
            // A floor, so that a clock that stands still cannot make a busy loop.
            let wait = (at - now).to_std().unwrap_or_default().max(Duration::from_millis(5));
            tokio::time::sleep(wait).await;
        }
        None => std::future::pending().await,
    }
}

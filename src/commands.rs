//! A command's journey: logged as pending, its turn waited for, handed to the link, its outcome
//! noted and told.
//!
//! At most once: nothing is sent before it is logged, and what a dead controller left pending is
//! reported as lost, never sent again. Each command has one task, which alone decides how it ends.

mod adapters;
mod check;
mod journey;
mod late;
mod ports;
mod queue;
mod record;
mod refusal;
mod registry;
mod support;
mod turns;
mod unstored;

pub use ports::{Clock, CommandLinks, CommandLog, Handover};
pub use refusal::CommandError;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    access::Actor,
    agents::LinkState,
    config::CommandsConfig,
    events::EventBus,
    store::{self, CommandRecord, NewCommand, StoreError},
    vm::{CommandId, CommandOutcome, GuestCommand, LinkSeal, Redactor, VmId, truncate_to_micros},
};
use adapters::SystemClock;
use check::check;
use record::{kept_command, kind};
use registry::{Entered, Registry};
use support::supported;
use turns::{Place, Turns};
use unstored::Unstored;

/// How long the log is waited for before a command is refused.
const LOG_PATIENCE: Duration = Duration::from_millis(1000);

/// Runs commands in guests. Clones share the queues.
#[derive(Debug, Clone)]
pub struct Commands {
    config: CommandsConfig,
    redactor: Redactor,
    log: Arc<dyn CommandLog>,
    links: Arc<dyn CommandLinks>,
    clock: Arc<dyn Clock>,
    events: EventBus,
    turns: Turns,
    registry: Registry,
    unstored: Unstored,
    running: Arc<TaskTracker>,
}

/// A command that has a place.
#[derive(Debug)]
struct Accepted {
    new: NewCommand,
    command: GuestCommand,
    submitted: Instant,
    deadline: Instant,
    link: watch::Receiver<LinkState>,
    entered: Entered,
    place: Place,
}

impl Commands {
    /// Commands over these links, logged there.
    #[must_use]
    pub fn new(
        config: CommandsConfig,
        redactor: Redactor,
        log: impl CommandLog,
        links: impl CommandLinks,
        events: EventBus,
    ) -> Self {
        let bound = |bound: u32| usize::try_from(bound).unwrap_or(usize::MAX);
        let turns = Turns::new(bound(config.queue_per_vm), bound(config.queue_total));
        Self {
            config,
            redactor,
            log: Arc::new(log),
            links: Arc::new(links),
            clock: Arc::new(SystemClock),
            events,
            turns,
            registry: Registry::default(),
            unstored: Unstored::default(),
            running: Arc::default(),
        }
    }

    /// The same by another clock than the system's.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// What bounds commands.
    #[must_use]
    pub fn config(&self) -> &CommandsConfig {
        &self.config
    }

    /// Whether a command would be refused whichever VM it is for; costs nothing.
    ///
    /// # Errors
    /// [`CommandError::QueuesFull`].
    pub fn has_room(&self) -> Result<(), CommandError> {
        self.turns.has_room().map_err(|full| CommandError::from(full).counted())
    }

    /// Whether this VM's agent can be talked to, now.
    #[must_use]
    pub fn reaches(&self, vm: VmId) -> bool {
        self.heard_link(vm).is_some()
    }

    fn heard_link(&self, vm: VmId) -> Option<watch::Receiver<LinkState>> {
        self.links.watch(vm).filter(|link| link.borrow().open_and_heard)
    }

    /// Why this VM's agent cannot be talked to.
    fn unreached(&self, vm: VmId) -> CommandError {
        match self.links.observe(vm).seal() {
            LinkSeal::Refused => CommandError::Unsealed,
            LinkSeal::Unused | LinkSeal::Unsealed | LinkSeal::Sealed => CommandError::NotConnected,
        }
    }

    /// [`Commands::execute_as`] under a new id.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn execute(
        &self,
        actor: &Actor,
        vm: VmId,
        command: GuestCommand,
        timeout: Duration,
    ) -> Result<CommandRecord, CommandError> {
        self.execute_as(CommandId::generate(), actor, vm, command, timeout).await
    }

    /// Runs one command and gives its log entry, which has an outcome. `timeout` counts from now;
    /// waiting for a turn counts. The caller has authorised it. Dropping the future does not lose
    /// the outcome: the command is finished in the background.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn execute_as(
        &self,
        id: CommandId,
        actor: &Actor,
        vm: VmId,
        command: GuestCommand,
        timeout: Duration,
    ) -> Result<CommandRecord, CommandError> {
        let accepted = self.accept(id, actor, vm, command, timeout).map_err(CommandError::counted)?;
        // Its audit row is written there.
        let journey = store::asked_likewise(self.clone().journey(accepted));
        self.running.spawn(journey).await?.map_err(CommandError::counted)
    }

    /// Everything that can be said without asking anybody.
    fn accept(
        &self,
        id: CommandId,
        actor: &Actor,
        vm: VmId,
        command: GuestCommand,
        timeout: Duration,
    ) -> Result<Accepted, CommandError> {
        let submitted = Instant::now();
        // First of all, and cheap: whoever asks for too much is to cost little.
        let mut place = self.turns.admit(vm, actor.user)?;
        let bytes = self.check(id, &command, timeout)?;
        let link = self.heard_link(vm).ok_or_else(|| self.unreached(vm))?;
        supported(&command, self.links.observe(vm).open())?;
        place.weigh(bytes)?;
        let kind = kind(&command);
        let created_at = truncate_to_micros(self.clock.now());
        let entered = self.registry.enter(id, vm, kind, created_at).ok_or(CommandError::IdTaken)?;
        let new = NewCommand {
            id,
            vm,
            kind,
            command: kept_command(&self.redactor, &command),
            requested_by: actor.user,
            created_at,
        };
        Ok(Accepted { new, command, submitted, deadline: submitted + timeout, link, entered, place })
    }

    /// What is wrong with a command, whichever VM it is for; gives its bytes on the wire.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn check(
        &self,
        id: CommandId,
        command: &GuestCommand,
        timeout: Duration,
    ) -> Result<usize, CommandError> {
        Ok(check(id, command, timeout, self.config.max_timeout)?)
    }

    /// `safe` or `unsafe`, for those who decide who may cancel it.
    ///
    /// # Errors
    /// `NotFound`: the VM has no such command.
    pub async fn kind(&self, vm: VmId, id: CommandId) -> Result<String, CommandError> {
        match self.registry.kind(vm, id) {
            Some(kind) => Ok(kind.to_owned()),
            None => Ok(self.logged(vm, id).await?.kind),
        }
    }

    /// Cancels a command of this VM. One that was not sent is never sent; the caller of one that
    /// was is told so at once, and its answer is noted as late. Gives the entry, also of one that
    /// has ended already.
    ///
    /// # Errors
    /// `NotFound`, `Store`.
    pub async fn cancel(
        &self,
        actor: &Actor,
        vm: VmId,
        id: CommandId,
    ) -> Result<CommandRecord, CommandError> {
        if self.registry.kind(vm, id).is_some() {
            let audited = timeout(LOG_PATIENCE, self.log.audit_cancel(actor.user, vm, id)).await;
            audited.unwrap_or(Err(StoreError::NoAnswer { limit: LOG_PATIENCE }))?;
            // Its task ends now, within the patience it has for the database.
            if let Some(told) = self.registry.cancel(vm, id)
                && let Ok(record) = told.await
            {
                return Ok(record);
            }
        }
        self.logged(vm, id).await
    }

    async fn logged(&self, vm: VmId, id: CommandId) -> Result<CommandRecord, CommandError> {
        let found = timeout(LOG_PATIENCE, self.log.command(id)).await;
        let found = found.unwrap_or(Err(StoreError::NoAnswer { limit: LOG_PATIENCE }))?;
        found.filter(|record| record.vm == vm).ok_or(CommandError::NotFound)
    }

    /// Processes that a guest lists have secrets in their command lines, as in its readings.
    fn hide_secrets(&self, outcome: &mut CommandOutcome) {
        if let CommandOutcome::Answered { data: Some(data), .. } = outcome {
            self.redactor.hide_command_lines(data);
        }
    }

    fn max_output(&self) -> usize {
        usize::try_from(self.config.max_output_bytes).unwrap_or(usize::MAX)
    }

    /// Waits until every accepted command has its outcome in the log, at most `limit`; gives
    /// whether all of them have. New ones are still accepted, so stop asking first.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.running.close();
        let ended = timeout(limit, self.running.wait()).await.is_ok();
        self.running.reopen();
        if !ended {
            tracing::warn!(left = self.running.len(), "commands are still running");
        }
        ended
    }

    /// Marks what an earlier controller left pending as lost. Once, at start.
    ///
    /// # Errors
    /// `Database`.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        self.log.lose_pending_commands(self.clock.now()).await
    }
}

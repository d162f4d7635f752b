//! A command's journey: logged as pending, its turn waited for, handed to the link, its outcome
//! noted and told.
//!
//! At most once: nothing is sent before it is logged, and what a dead controller left pending is
//! reported as lost, never sent again. Each command has one task, which alone decides how it ends.

mod check;
mod late;
mod queue;
mod record;
mod refusal;
mod registry;
mod turns;
mod unstored;

pub use refusal::CommandError;

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Actor,
    agents::{LinkState, Links, Sending},
    config::CommandsConfig,
    events::EventBus,
    store::{CommandEnd, CommandRecord, CommandStatus, NewCommand, NotLogged, Store, StoreError},
    vm::{CommandId, GuestCommand, LinkEnd, Redactor, VmEvent, VmId, truncate_to_micros},
};
use check::check;
use record::{End, Kept, NotSent, kept_command, kept_end, kind};
use registry::{Entered, Registry};
use turns::{Place, Turn, Turns, Waiting};
use unstored::{Entry, Unstored};

/// How long the log is waited for before a command is refused.
const LOG_PATIENCE: Duration = Duration::from_millis(1000);

/// How long a caller waits for the log to take the outcome; then he is told, and the outcome waits
/// for the database in the background.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);

/// Waits between attempts within that time.
const FINISH_WAITS: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];

/// Runs commands in guests. Clones share the queues.
#[derive(Debug, Clone)]
pub struct Commands {
    config: CommandsConfig,
    redactor: Redactor,
    store: Store,
    links: Links,
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
    /// Commands over these links, logged in this store.
    #[must_use]
    pub fn new(
        config: CommandsConfig,
        redactor: Redactor,
        store: Store,
        links: Links,
        events: EventBus,
    ) -> Self {
        let bound = |bound: u32| usize::try_from(bound).unwrap_or(usize::MAX);
        let turns = Turns::new(bound(config.queue_per_vm), bound(config.queue_total));
        Self {
            config,
            redactor,
            store,
            links,
            events,
            turns,
            registry: Registry::default(),
            unstored: Unstored::default(),
            running: Arc::default(),
        }
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
        self.running.spawn(self.clone().journey(accepted)).await?.map_err(CommandError::counted)
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
        let mut place = self.turns.admit(vm)?;
        let bytes = self.check(id, &command, timeout)?;
        let link = self.links.watch(vm).filter(|link| link.borrow().open_and_heard);
        let link = link.ok_or(CommandError::NotConnected)?;
        place.weigh(bytes)?;
        let kind = kind(&command);
        let entered = self.registry.enter(id, vm, kind).ok_or(CommandError::IdTaken)?;
        let new = NewCommand {
            id,
            vm,
            kind,
            command: kept_command(&self.redactor, &command),
            requested_by: actor.user,
            created_at: truncate_to_micros(Utc::now()),
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
        check(id, command, timeout, self.config.max_timeout).map_err(CommandError::Invalid)
    }

    /// From the log to the outcome. Nothing in here depends on the caller still being there.
    async fn journey(self, accepted: Accepted) -> Result<CommandRecord, CommandError> {
        let Accepted { new, command, submitted, deadline, link, entered, place } = accepted;
        self.log(&new).await?;
        let sending = Sending::default();
        let end = self.run(&new, &command, deadline, &place, &entered.cancel, link, &sending).await;
        let ended = Instant::now();
        let sent = sending.sent();
        let Kept { status, success, response } = kept_end(end, self.max_output());
        let end = CommandEnd {
            status,
            success,
            response: Some(response.to_string()),
            sent_at: sent.map(|sent| truncate_to_micros(sent.at)),
            queue_ms: sent.map(|sent| millis(sent.instant - submitted)),
            run_ms: sent.map(|sent| millis(ended - sent.instant)),
            execution_ms: millis(ended - submitted),
        };
        let record = CommandRecord {
            id: new.id,
            vm: new.vm,
            kind: new.kind.to_owned(),
            command: new.command,
            response: Some(response),
            status,
            success: Some(success),
            execution_ms: Some(end.execution_ms),
            sent_at: end.sent_at,
            queue_ms: end.queue_ms,
            run_ms: end.run_ms,
            late_response: None,
            late_at: None,
            requested_by: new.requested_by,
            created_at: new.created_at,
        };
        metrics::counter!("infinibay_commands_total", "status" => status_label(status)).increment(1);
        metrics::histogram!("infinibay_command_seconds").record((ended - submitted).as_secs_f64());
        self.finish(new.id, new.vm, end).await;
        self.events.publish(VmEvent::Command { vm: new.vm, command: new.id, success, at: Utc::now() });
        entered.ended(&record);
        Ok(record)
    }

    /// Logs it as pending. Where the database does not say whether it has, the command is not sent,
    /// and its row, should there be one, is ended when the database is back; should we die before,
    /// it is found pending at the next start and is lost.
    async fn log(&self, new: &NewCommand) -> Result<(), CommandError> {
        let error = match self.store.insert_command(new, LOG_PATIENCE).await {
            Ok(()) => return Ok(()),
            Err(NotLogged::Refused(error)) => error,
            Err(NotLogged::Unknown(error)) => {
                let never = kept_end(End::NotSent(NotSent::NotLogged), 0).response.to_string();
                if !self.unstored.keep(&self.store, &self.running, Entry::Void(new.clone(), never)) {
                    tracing::error!(vm = %new.vm, command = %new.id, "too many commands wait to be noted as never sent");
                }
                error
            }
        };
        Err(error.into())
    }

    /// Waits for the turn, sends, waits for the outcome.
    #[expect(clippy::too_many_arguments, reason = "each is another thing's, and none outlives the call")]
    async fn run(
        &self,
        new: &NewCommand,
        command: &GuestCommand,
        deadline: Instant,
        place: &Place,
        cancel: &CancellationToken,
        link: watch::Receiver<LinkState>,
        sending: &Sending,
    ) -> End {
        let waiting = place.wait(new.id, new.requested_by);
        let _turn = match self.turn(new.vm, waiting, link.clone(), deadline, cancel).await {
            Ok(turn) => turn,
            Err(why) => return End::NotSent(why),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let executed = self.links.execute_noting(new.vm, new.id, command, left, sending);
        tokio::select! {
            // What came is told, whatever else happens.
            biased;
            told = executed => match (End::from(told), link.borrow().ended) {
                // The turn came with the end of the link, which says more.
                (End::NotSent(NotSent::NotConnected), Some(ended)) => End::NotSent(NotSent::LinkEnded(ended)),
                (end, _) => end,
            },
            () = cancel.cancelled() => {
                if sending.withdraw() { End::NotSent(NotSent::Cancelled) } else { End::Detached }
            }
        }
    }

    /// Waits for the turn, unless something ends the wait.
    async fn turn(
        &self,
        vm: VmId,
        mut waiting: Waiting,
        mut link: watch::Receiver<LinkState>,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<Turn, NotSent> {
        loop {
            let LinkState { open_and_heard, concurrency, ended } = link.borrow_and_update().clone();
            if !open_and_heard {
                return Err(NotSent::LinkEnded(ended.unwrap_or(LinkEnd::ChannelClosed)));
            }
            self.turns.set_capacity(vm, concurrency);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(NotSent::Cancelled),
                () = sleep_until(deadline) => return Err(NotSent::TimeOver),
                turn = waiting.turn() => return Ok(turn),
                changed = link.changed() => if changed.is_err() {
                    let ended = link.borrow().ended.unwrap_or(LinkEnd::ChannelClosed);
                    return Err(NotSent::LinkEnded(ended));
                },
            }
        }
    }

    /// Notes the outcome, or leaves it to be noted as soon as the database is back.
    async fn finish(&self, id: CommandId, vm: VmId, end: CommandEnd) {
        let attempts = async {
            for wait in FINISH_WAITS.into_iter().map(Some).chain([None]) {
                let error = match self.store.finish_command(id, &end).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                };
                // A row that is gone does not come back.
                let passes = matches!(error, StoreError::Database { .. });
                let Some(wait) = wait.filter(|_| passes) else { return Err(error) };
                tracing::debug!(%vm, command = %id, %error, ?wait, "noting a command's outcome again");
                sleep(wait).await;
            }
            Ok(())
        };
        let noted = timeout(FINISH_PATIENCE, attempts).await;
        let Err(error) = noted.unwrap_or(Err(StoreError::NoAnswer { limit: FINISH_PATIENCE })) else {
            return;
        };
        let status = end.status;
        if matches!(error, StoreError::Database { .. } | StoreError::NoAnswer { .. })
            && self.unstored.keep(&self.store, &self.running, Entry::End(id, end))
        {
            tracing::warn!(%vm, command = %id, %error, "a command's outcome waits for the database");
            return;
        }
        tracing::error!(
            %vm, command = %id, ?status, error = &error as &dyn std::error::Error,
            "a command's outcome could not be noted; it will be marked as lost"
        );
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
            let audited = timeout(LOG_PATIENCE, self.store.audit_cancel(actor.user, vm, id)).await;
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
        let found = timeout(LOG_PATIENCE, self.store.command(id)).await;
        let found = found.unwrap_or(Err(StoreError::NoAnswer { limit: LOG_PATIENCE }))?;
        found.filter(|record| record.vm == vm).ok_or(CommandError::NotFound)
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
        self.store.lose_pending_commands(Utc::now()).await
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// For Prometheus.
fn status_label(status: CommandStatus) -> &'static str {
    match status {
        CommandStatus::Pending => "pending",
        CommandStatus::Answered => "answered",
        CommandStatus::TimedOut => "timed_out",
        CommandStatus::Disconnected => "disconnected",
        CommandStatus::Lost => "lost",
        CommandStatus::Cancelled => "cancelled",
    }
}

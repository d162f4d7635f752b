//! A command's journey: logged as pending, handed to the link, its outcome noted and told.
//!
//! At most once: nothing is sent before it is logged, and what a dead controller left pending is
//! reported as lost, never sent again.

mod check;
mod late;
mod places;
mod record;
mod support;

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::{
    access::Actor,
    agents::Links,
    config::CommandsConfig,
    events::EventBus,
    store::{CommandRecord, NewCommand, Store, StoreError},
    vm::{CommandId, CommandOutcome, GuestCommand, Redactor, VmEvent, VmId, truncate_to_micros},
};
use check::check;
use late::Late;
use places::{Place, Places};
use record::{Kept, kept_command, kept_outcome, kind};
use support::supported;

/// Waits between attempts to note an outcome: six attempts in about ten seconds. Then its caller is
/// told, and the outcome waits for the store in the background.
const FINISH_WAITS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1500),
    Duration::from_secs(3),
    Duration::from_secs(5),
];

/// Runs commands in guests. Clones share the queues.
#[derive(Debug, Clone)]
pub struct Commands {
    config: CommandsConfig,
    redactor: Redactor,
    store: Store,
    links: Links,
    events: EventBus,
    places: Places,
    late: Late,
    running: Arc<TaskTracker>,
}

/// Why a command was not accepted. Once accepted, it is in the log with an outcome.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Code `AGENT_NOT_CONNECTED`.
    #[error("the VM's agent is not connected")]
    NotConnected,
    /// Code `COMMAND_QUEUE_FULL`.
    #[error("{limit} commands wait for this VM already")]
    QueueFull {
        /// The bound.
        limit: usize,
    },
    /// Code `INVALID_INPUT`.
    #[error("{0}")]
    Invalid(String),
    /// Code `ACTION_UNSUPPORTED`: this guest cannot carry it out.
    #[error("{action} {reason}")]
    Unsupported {
        /// The action's name on the wire.
        action: &'static str,
        /// Why, as the rest of a sentence that begins with the name.
        reason: String,
    },
    /// The log could not be written; nothing was sent.
    #[error("the command log could not be written")]
    Store(#[from] StoreError),
    /// The task that ran it failed. The log may keep it as pending until the next start, when it
    /// is marked as lost.
    #[error("the command's task failed")]
    Task(#[from] tokio::task::JoinError),
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
        let limit = usize::try_from(config.queue_per_vm).unwrap_or(usize::MAX);
        Self {
            config,
            redactor,
            store,
            links,
            events,
            places: Places::new(limit),
            late: Late::default(),
            running: Arc::default(),
        }
    }

    /// Runs one command and gives its log entry, which has an outcome. The caller has authorised
    /// it. Dropping the future does not lose the outcome: the command is finished in the
    /// background.
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
        let id = CommandId::generate();
        check(id, &command, timeout, self.config.max_timeout).map_err(CommandError::Invalid)?;
        supported(&command, self.links.observe(vm).open())?;
        let heard = self.links.observe(vm).open().is_some_and(|open| open.last_message_at.is_some());
        if !heard {
            return Err(CommandError::NotConnected);
        }
        let place = self.places.take(vm).ok_or(CommandError::QueueFull { limit: self.places.limit() })?;
        let new = NewCommand {
            id,
            vm,
            kind: kind(&command),
            command: kept_command(&self.redactor, &command),
            requested_by: actor.user,
            created_at: truncate_to_micros(Utc::now()),
        };
        let journey = self.clone().journey(new, command, timeout, place);
        self.running.spawn(journey).await?
    }

    /// From the log to the outcome. Nothing in here depends on the caller still being there.
    async fn journey(
        self,
        new: NewCommand,
        command: GuestCommand,
        timeout: Duration,
        _place: Place,
    ) -> Result<CommandRecord, CommandError> {
        let started = Instant::now();
        self.store.insert_command(&new).await?;
        let left = timeout.saturating_sub(started.elapsed());
        let mut outcome = self.links.execute(new.vm, new.id, &command, left).await;
        // Processes that a guest lists have secrets in their command lines, as in its readings.
        if let Ok(CommandOutcome::Answered { data: Some(data), .. }) = &mut outcome {
            self.redactor.hide_command_lines(data);
        }
        let max = usize::try_from(self.config.max_output_bytes).unwrap_or(usize::MAX);
        let kept = kept_outcome(outcome, max);
        let execution_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.finish(new.id, new.vm, &kept, execution_ms).await;
        self.events.publish(VmEvent::Command {
            vm: new.vm,
            command: new.id,
            success: kept.success,
            at: Utc::now(),
        });
        Ok(CommandRecord {
            id: new.id,
            vm: new.vm,
            kind: new.kind.to_owned(),
            command: new.command,
            response: Some(kept.response),
            status: kept.status,
            success: Some(kept.success),
            execution_ms: Some(execution_ms),
            requested_by: new.requested_by,
            created_at: new.created_at,
        })
    }

    /// Notes the outcome, or leaves it to be noted as soon as the database is back.
    async fn finish(&self, id: CommandId, vm: VmId, kept: &Kept, execution_ms: i64) {
        let mut waits = FINISH_WAITS.iter();
        loop {
            let Kept { status, success, response } = kept;
            let noted = self.store.finish_command(id, *status, *success, Some(response), execution_ms).await;
            let error = match noted {
                Ok(()) => return,
                Err(error) => error,
            };
            // A row that is gone does not come back.
            let passes = matches!(error, StoreError::Database { .. });
            let Some(wait) = waits.next().filter(|_| passes) else {
                if passes && self.late.keep(&self.store, &self.running, id, kept, execution_ms) {
                    tracing::warn!(%vm, command = %id, %error, "a command's outcome waits for the database");
                    return;
                }
                tracing::error!(
                    %vm, command = %id, ?status, error = &error as &dyn std::error::Error,
                    "a command's outcome could not be noted; the next start marks it as lost"
                );
                return;
            };
            tracing::warn!(%vm, command = %id, %error, ?wait, "noting a command's outcome again");
            sleep(*wait).await;
        }
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

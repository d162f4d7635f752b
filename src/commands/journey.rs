//! One command's task, from the log to the outcome.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Accepted, CommandError, Commands, LOG_PATIENCE,
    record::{End, Kept, NotSent, kept_end},
    turns::{Place, Turn, Waiting},
    unstored::Entry,
};
use crate::{
    agents::{LinkState, SentAt},
    store::{CommandEnd, CommandRecord, CommandStatus, NewCommand, NotLogged, StoreError},
    vm::{CommandId, FrameText, GuestCommand, LinkEnd, VmEvent, VmId, truncate_to_micros},
};

/// How long a caller waits for the log to take the outcome; then he is told, and the outcome waits
/// for the database in the background.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);

/// Waits between attempts within that time.
const FINISH_WAITS: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];

impl Commands {
    /// From the log to the outcome. Nothing in here depends on the caller still being there.
    pub(super) async fn journey(self, accepted: Accepted) -> Result<CommandRecord, CommandError> {
        let Accepted { new, command, submitted, deadline, link, entered, place } = accepted;
        self.log(&new).await?;
        let (mut end, sent) = self.run(&new, &command, deadline, &place, &entered.cancel, link).await;
        if let End::Outcome(outcome) = &mut end {
            self.hide_secrets(outcome);
        }
        let ended = Instant::now();
        let Kept { status, success, response } = kept_end(end, self.max_output());
        let response = response.to_string();
        let end = CommandEnd {
            status,
            success,
            response: Some(response.clone()),
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
            response: Some(FrameText::new(response)),
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
        self.events.publish(VmEvent::Command { vm: new.vm, command: new.id, success, at: self.clock.now() });
        entered.ended(&record);
        Ok(record)
    }

    /// Logs it as pending. Where the database does not say whether it has, the command is not sent,
    /// and its row, should there be one, is ended when the database is back; should we die before,
    /// it is found pending at the next start and is lost.
    async fn log(&self, new: &NewCommand) -> Result<(), CommandError> {
        let error = match self.log.insert_command(new, LOG_PATIENCE).await {
            Ok(()) => return Ok(()),
            Err(NotLogged::Refused(error)) => error,
            Err(NotLogged::Unknown(error)) => {
                let never = kept_end(End::NotSent(NotSent::NotLogged), 0).response.to_string();
                if !self.unstored.keep(&self.log, &self.running, Entry::Void(new.clone(), never)) {
                    tracing::error!(vm = %new.vm, command = %new.id, "too many commands wait to be noted as never sent");
                }
                error
            }
        };
        Err(error.into())
    }

    /// Waits for the turn, sends, waits for the outcome. Gives also when it was sent, if it was.
    async fn run(
        &self,
        new: &NewCommand,
        command: &GuestCommand,
        deadline: Instant,
        place: &Place,
        cancel: &CancellationToken,
        link: watch::Receiver<LinkState>,
    ) -> (End, Option<SentAt>) {
        let waiting = place.wait(new.id);
        let _turn = match self.turn(new.vm, waiting, link.clone(), deadline, cancel).await {
            Ok(turn) => turn,
            Err(why) => return (End::NotSent(why), None),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let handover = self.links.hand_over(new.vm, new.id, command, left);
        let end = tokio::select! {
            // What came is told, whatever else happens.
            biased;
            told = handover.outcome() => match (End::from(told), link.borrow().ended) {
                // The turn came with the end of the link, which says more.
                (End::NotSent(NotSent::NotConnected), Some(ended)) => End::NotSent(NotSent::LinkEnded(ended)),
                (end, _) => end,
            },
            () = cancel.cancelled() => {
                if handover.withdraw() { End::NotSent(NotSent::Cancelled) } else { End::Detached }
            }
        };
        (end, handover.sent())
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
            let LinkState { open_and_heard, concurrency, ended } = *link.borrow_and_update();
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
                let error = match self.log.finish_command(id, &end).await {
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
            && self.unstored.keep(&self.log, &self.running, Entry::End(id, end))
        {
            tracing::warn!(%vm, command = %id, %error, "a command's outcome waits for the database");
            return;
        }
        tracing::error!(
            %vm, command = %id, ?status, error = &error as &dyn std::error::Error,
            "a command's outcome could not be noted; it will be marked as lost"
        );
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

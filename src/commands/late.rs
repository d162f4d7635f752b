//! Answers that came after their commands had ended otherwise.
//!
//! They change no outcome; they are noted beside it. What guests send unasked must not keep this
//! busy for ever: each answer has a few tries, and one that may be made up has one; then it is
//! dropped and counted.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Commands, record::kept_answer};
use crate::{
    agents::LateAnswer,
    store::{LateNote, StoreError},
    vm::{CommandOutcome, VmEvent, chain},
};

/// Waits between attempts to note one.
const WAITS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(5)];

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often commands are looked for that are pending for longer than any command can be: a
/// database that lost its last moments to a power cut may have forgotten their outcomes.
const SWEEP: Duration = Duration::from_secs(600);

impl Commands {
    /// Notes late answers, and marks as lost what the database forgot the outcome of, until `stop`.
    pub async fn tend(self, mut late: mpsc::Receiver<LateAnswer>, stop: CancellationToken) {
        let mut sweeps = interval_at(Instant::now() + SWEEP, SWEEP);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // Before the answers, of which guests may send as many as they like.
                _ = sweeps.tick() => self.sweep_forgotten().await,
                Some(answer) = late.recv() => {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = self.note_late(answer) => {}
                    }
                }
            }
        }
    }

    async fn note_late(&self, answer: LateAnswer) {
        let LateAnswer { vm, id, known, mut outcome, received_at } = answer;
        self.hide_secrets(&mut outcome);
        // Anything else is no answer.
        let CommandOutcome::Answered { success, .. } = outcome else { return };
        let response = kept_answer(outcome, self.max_output()).response.to_string();
        let mut waits = if known { &WAITS[..] } else { &[] }.iter();
        let result = loop {
            let noted = timeout(PATIENCE, self.log.note_late_answer(vm, id, &response, received_at)).await;
            match noted.unwrap_or(Err(StoreError::NoAnswer { limit: PATIENCE })) {
                Ok(LateNote::Noted) => {
                    self.events.publish(VmEvent::Command { vm, command: id, success, at: received_at });
                    break "noted";
                }
                Ok(LateNote::Unwanted) => break "unwanted",
                Ok(LateNote::Pending) => {}
                Err(error) => {
                    tracing::warn!(%vm, command = %id, error = chain(&error), "a late answer could not be noted");
                }
            }
            let Some(wait) = waits.next() else { break "dropped" };
            sleep(*wait).await;
        };
        metrics::counter!("infinibay_late_answers_total", "result" => result).increment(1);
    }

    async fn sweep_forgotten(&self) {
        // Asked for first: what ends meanwhile is either among these or waits to be written.
        let oldest = self.registry.oldest();
        // What still waits to be written is not forgotten.
        if !self.unstored.is_idle() {
            return;
        }
        let longest = TimeDelta::from_std(self.config.max_timeout).unwrap_or(TimeDelta::days(7));
        let before = self.clock.now() - longest - TimeDelta::minutes(5);
        // Nor is what is under way, however old it looks where the clock was set ahead.
        let before = oldest.map_or(before, |oldest| before.min(oldest - TimeDelta::microseconds(1)));
        let swept = timeout(PATIENCE, self.log.lose_pending_commands(before)).await;
        match swept.unwrap_or(Err(StoreError::NoAnswer { limit: PATIENCE })) {
            Ok(0) => {}
            Ok(lost) => tracing::warn!(lost, "commands whose outcome was forgotten are marked as lost"),
            Err(error) => tracing::warn!(error = chain(&error), "pending commands could not be looked for"),
        }
    }
}

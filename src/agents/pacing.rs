//! When a line may be written, so that the agents in the field read it.
//!
//! An agent that never announced concurrent commands polls every 500 ms with a fresh buffer and
//! keeps the first line only: of two lines that wait together, the second is lost in silence.
//! So a line that is no command (an answer to `keep_alive`, a request for metrics) waits until a
//! command before it was surely read, and a command waits until such a line was.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than the agents' polling interval, with room for a slow guest.
const GAP: Duration = Duration::from_millis(750);

/// What was written when, as far as it matters to the next line.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// The agent announced that it reads line by line: nothing waits.
    announced: bool,
    /// When a command may be written.
    commands_from: Option<Instant>,
    /// When another line may be written.
    others_from: Option<Instant>,
    /// Another line went out while a command was being worked on: it is read after the answer.
    unread_behind_command: bool,
}

impl Pacing {
    /// The agent said whether it takes several commands at once.
    pub(super) fn set_announced(&mut self, announced: bool) {
        self.announced = announced;
    }

    /// `None`: at once.
    pub(super) fn command_wait(&self, now: Instant) -> Option<Instant> {
        self.later(self.commands_from, now)
    }

    /// `None`: at once.
    pub(super) fn other_wait(&self, now: Instant) -> Option<Instant> {
        self.later(self.others_from, now)
    }

    fn later(&self, from: Option<Instant>, now: Instant) -> Option<Instant> {
        from.filter(|&from| !self.announced && from > now)
    }

    /// A command's line was handed over whole.
    pub(super) fn command_written(&mut self, now: Instant) {
        self.others_from = Some(now + GAP);
    }

    /// Another line was handed over whole, while `in_flight` commands were unanswered.
    pub(super) fn other_written(&mut self, now: Instant, in_flight: usize) {
        self.commands_from = Some(now + GAP);
        // Later than commands, so that a guest that asks for such lines without end does not
        // keep its own commands waiting without end.
        self.others_from = Some(now + 2 * GAP);
        self.unread_behind_command = in_flight > 0;
    }

    /// An answer came: the agent reads again from here on.
    pub(super) fn answered(&mut self, now: Instant) {
        if std::mem::take(&mut self.unread_behind_command) {
            self.commands_from = Some(now + GAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lines_wait_together_for_an_agent_that_announced_nothing() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pacing = Pacing::default();
        assert_eq!((pacing.command_wait(start), pacing.other_wait(start)), (None, None));

        pacing.command_written(start);
        assert_eq!(pacing.other_wait(at(1)), Some(start + GAP), "behind an unread command");
        assert_eq!(pacing.other_wait(at(750)), None, "the command was read");

        // It is read only after the running command ended, however long that takes.
        pacing.other_written(at(800), 1);
        pacing.answered(at(60_000));
        assert_eq!(pacing.command_wait(at(60_001)), Some(at(60_000) + GAP));
        assert_eq!(pacing.command_wait(at(60_750)), None);

        pacing.command_written(at(61_000));
        pacing.answered(at(61_500));
        assert_eq!(pacing.command_wait(at(61_500)), None, "an answered command was read");

        pacing.other_written(at(70_000), 0);
        assert_eq!(pacing.command_wait(at(70_001)), Some(at(70_000) + GAP));
        assert!(pacing.other_wait(at(70_751)) > Some(at(70_751)), "commands have their turn first");
    }

    #[test]
    fn an_agent_that_announced_more_is_never_made_to_wait() {
        let start = Instant::now();
        let mut pacing = Pacing::default();
        pacing.set_announced(true);
        pacing.command_written(start);
        pacing.other_written(start, 1);
        pacing.answered(start);
        assert_eq!((pacing.command_wait(start), pacing.other_wait(start)), (None, None));
    }
}

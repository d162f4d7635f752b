//! Commands that were sent and not answered yet.
//!
//! Each ends in exactly one way. Its place is a thing of its own: after a timeout it stays taken
//! until the late answer comes or a grace passes, because an agent that is still at work with one
//! command may lose the next.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::LinkError;
use crate::vm::{CommandId, CommandOutcome, LinkEnd};

/// How long after its deadline a command that was sent is still waited for. The agent is told the
/// time that is left, in whole seconds, and ends the command when it is over: it asks it to end,
/// gives it two seconds, and only then can answer with what was written until then.
pub(super) const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// How long an unanswered command keeps its place after it is no longer waited for. By then the
/// agent, which was told an earlier deadline, has given up, or never understood the command.
const GRACE: Duration = Duration::from_secs(5);

/// Who waits for an outcome.
pub(super) type Reply = oneshot::Sender<Result<CommandOutcome, LinkError>>;

/// One command that was sent.
#[derive(Debug)]
struct Entry {
    reply: Option<Reply>,
    free_at: Instant,
}

/// What an answer belonged to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Settled {
    /// A command somebody waits for.
    InTime,
    /// A command of ours that is no longer waited for.
    Late(CommandId, CommandOutcome),
    /// No command in flight.
    Unsolicited,
}

/// The commands in flight over one connection. However it is dropped, whoever waits is told.
#[derive(Debug)]
pub(super) struct Flight {
    capacity: usize,
    /// What those are told who wait when it is dropped.
    end: LinkEnd,
    entries: HashMap<CommandId, Entry>,
}

impl Flight {
    pub(super) fn new() -> Self {
        Self { capacity: 1, end: LinkEnd::ChannelClosed, entries: HashMap::new() }
    }

    /// What ends those that are unanswered when this is dropped.
    pub(super) fn set_end(&mut self, end: LinkEnd) {
        self.end = end;
    }

    /// The agent said how many it takes at once.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < self.capacity
    }

    /// From now on the command counts as sent; its answer is waited for until then.
    pub(super) fn launch(&mut self, id: CommandId, reply: Reply, until: Instant) {
        self.entries.insert(id, Entry { reply: Some(reply), free_at: until + GRACE });
    }

    /// Matches an answer. `id` is the guest's text.
    pub(super) fn settle(&mut self, id: &str, outcome: CommandOutcome) -> Settled {
        let Ok(id) = id.parse::<CommandId>() else { return Settled::Unsolicited };
        let Some(mut entry) = self.entries.remove(&id) else { return Settled::Unsolicited };
        let Some(reply) = entry.reply.take() else { return Settled::Late(id, outcome) };
        match reply.send(Ok(outcome)) {
            Err(Ok(outcome)) => Settled::Late(id, outcome),
            Ok(()) | Err(Err(_)) => Settled::InTime,
        }
    }

    /// Gives up places whose grace has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        self.entries.retain(|_, entry| entry.free_at > now);
    }

    /// When [`Flight::expire`] next has something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.free_at).min()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        for reply in self.entries.drain().filter_map(|(_, entry)| entry.reply) {
            // Nobody may be waiting any more; then the deadline was told already.
            let _ = reply.send(Ok(CommandOutcome::Disconnected(self.end)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered() -> CommandOutcome {
        CommandOutcome::Answered {
            success: true,
            exit_code: Some(0),
            stdout: String::new(),
            stderr: String::new(),
            data: None,
            execution_ms: None,
        }
    }

    #[test]
    fn each_command_ends_once_and_frees_its_place() {
        let now = Instant::now();
        let (id, other) = (CommandId::generate(), CommandId::generate());
        let mut flight = Flight::new();
        let (reply, mut outcome) = oneshot::channel();
        flight.launch(id, reply, now);
        assert!(!flight.has_room());
        assert_eq!(flight.settle(&other.to_string(), answered()), Settled::Unsolicited);
        assert_eq!(flight.settle("../../etc", answered()), Settled::Unsolicited);
        assert_eq!(flight.settle(&id.to_string(), answered()), Settled::InTime);
        assert_eq!(flight.settle(&id.to_string(), answered()), Settled::Unsolicited, "answered twice");
        assert!(flight.has_room());
        assert_eq!(outcome.try_recv().unwrap(), Ok(answered()));
    }

    #[test]
    fn a_place_stays_taken_after_the_deadline_until_the_grace_passes() {
        let now = Instant::now();
        let mut flight = Flight::new();
        let (reply, outcome) = oneshot::channel();
        flight.launch(CommandId::generate(), reply, now);
        drop(outcome);
        flight.expire(now + GRACE / 2);
        assert!(!flight.has_room());
        assert_eq!(flight.next_expiry(), Some(now + GRACE));
        flight.expire(now + GRACE);
        assert!(flight.has_room());
    }

    #[test]
    fn a_late_answer_is_known_and_frees_the_place() {
        let mut flight = Flight::new();
        let id = CommandId::generate();
        let (reply, outcome) = oneshot::channel();
        flight.launch(id, reply, Instant::now());
        drop(outcome);
        assert_eq!(flight.settle(&id.to_string(), answered()), Settled::Late(id, answered()));
        assert!(flight.has_room());
    }

    #[test]
    fn whatever_happens_to_the_connection_nobody_waits_for_ever() {
        let mut flight = Flight::new();
        let (reply, mut outcome) = oneshot::channel();
        flight.launch(CommandId::generate(), reply, Instant::now());
        drop(flight);
        assert_eq!(outcome.try_recv().unwrap(), Ok(CommandOutcome::Disconnected(LinkEnd::ChannelClosed)));
    }
}

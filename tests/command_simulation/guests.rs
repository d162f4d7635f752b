//! The simulated guests: each runs what reaches it, whichever controller lives, and answers as its mood
//! has it.

use std::{sync::Arc, time::Duration};

use infinibay::{
    agents::LateAnswer,
    vm::{CommandId, CommandOutcome, LinkEnd, VmId},
};
use tokio::time::Instant;

use super::world::{State, World};

/// A guest.
#[derive(Debug)]
pub struct Guest {
    /// Whether the loop wants a link to it.
    pub is_wanted: bool,
    /// How many commands it says it takes at once.
    pub concurrency: usize,
    /// The most that it ever said.
    pub most: usize,
    /// How many commands have their turn with it, in the present life.
    pub at_work: usize,
    /// By which its commands were first asked for, for answers to the wrong ones.
    pub known: Vec<CommandId>,
}

/// What a guest does with a command.
#[derive(Debug, Clone, Copy)]
struct Mood {
    takes: Duration,
    answers: u32,
    /// Another's id, for its answer.
    confused_with: Option<CommandId>,
    hangs_up: bool,
    success: bool,
}

/// A guest keeps an answer that it cannot send for so long.
const KEEPS: Duration = Duration::from_secs(300);

impl State {
    fn draw_mood(&mut self, vm: VmId, deadline: Instant) -> Mood {
        let faults = self.faults.clone();
        let quick = self.chance.millis(1, 60);
        let left = deadline.saturating_duration_since(Instant::now());
        let takes = if self.chance.one_in(faults.late) {
            left + self.chance.millis(0, 12_000)
        } else if self.chance.one_in(faults.lazy) {
            self.chance.seconds(1, 90)
        } else {
            quick
        };
        let confused = self.chance.one_in(faults.confused);
        let made_up = CommandId(self.chance.uuid());
        let known = self.guests.get(&vm).map(|guest| guest.known.clone()).unwrap_or_default();
        let another =
            if known.is_empty() || self.chance.one_in(4) { made_up } else { self.chance.pick(&known) };
        Mood {
            takes,
            answers: if self.chance.one_in(faults.mute) {
                0
            } else {
                1 + u32::from(self.chance.one_in(faults.doubled))
            },
            confused_with: confused.then_some(another),
            hangs_up: self.chance.one_in(faults.broken),
            success: !self.chance.one_in(5),
        }
    }

    /// Whether there is somebody to send an answer to.
    fn is_connected(&self, vm: VmId) -> bool {
        self.links.get(&vm).is_some_and(|link| link.connection.is_some())
    }

    /// An answer comes over the link.
    fn take_answer(&mut self, vm: VmId, id: CommandId, success: bool) {
        let label = self.label(id);
        self.note(format_args!("an answer to {label} comes"));
        if let Some(facts) = self.facts.get_mut(&id) {
            facts.answered = true;
        }
        let received_at = self.look_at_clock();
        let outcome = CommandOutcome::Answered {
            success,
            exit_code: Some(i32::from(!success)),
            stdout: format!("{id} ran"),
            stderr: String::new(),
            data: None,
            execution_ms: Some(1),
        };
        let connection = self.links.get_mut(&vm).and_then(|link| link.connection.as_mut());
        let waiting = connection.and_then(|connection| connection.in_flight.remove(&id));
        let known = waiting.is_some();
        let outcome = match waiting {
            None => outcome,
            Some(flying) => match flying.reply.send(Ok(outcome)) {
                Err(Ok(outcome)) => outcome,
                Ok(()) | Err(Err(_)) => return,
            },
        };
        if let Some(late) = &self.late {
            // One that finds no room is dropped, as the links do.
            drop(late.try_send(LateAnswer { vm, id, known, outcome, received_at }));
        }
    }
}

impl World {
    /// A guest has the whole of a command, which it was told to end by then.
    pub fn run_in_guest(self: &Arc<Self>, state: &mut State, vm: VmId, id: CommandId, deadline: Instant) {
        state.begin(id);
        let mood = state.draw_mood(vm, deadline);
        if mood.hangs_up {
            state.disconnect(vm, LinkEnd::ChannelClosed);
            self.reconnect(vm, state);
        }
        let world = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(mood.takes).await;
            let forgets = Instant::now() + KEEPS;
            while !world.state().is_connected(vm) {
                if Instant::now() >= forgets {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            for _ in 0..mood.answers {
                world.state().take_answer(vm, mood.confused_with.unwrap_or(id), mood.success);
            }
        });
    }
}

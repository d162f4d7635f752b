//! Commands of the host: read, admitted within a bound, run on a thread each, always answered.

mod answer;
mod health;
mod machine;
mod packages;
mod process;
mod processes;
mod safe;
mod services;
mod shell;

use std::{sync::mpsc::Sender, thread, time::Instant};

use agent_protocol::{CommandType, HostMessage, SealError};
use serde_json::{Map, Value};

use crate::{agent::Event, log::note, seal::Refusal, wake::Bell};
use answer::{Failure, Outcome};
pub(crate) use safe::OFFERED;

/// A command thread's stack: a shallow call tree and one 16 KiB buffer.
const STACK_BYTES: usize = 256 << 10;

/// What a line from the host asks of the loop.
#[derive(Debug)]
pub(crate) enum Request {
    /// Nothing, or it is being worked on.
    Nothing,
    /// Send this at once.
    Answer(Vec<u8>),
    /// Take a reading.
    Metrics,
}

/// Admits and starts commands.
#[derive(Debug)]
pub(crate) struct Commands {
    limit: usize,
    running: usize,
    /// Answers have to fit into an envelope.
    sealed: bool,
    /// Lines that were no message.
    rubbish: u64,
    events: Sender<Event>,
    bell: Bell,
}

impl Commands {
    /// At most `limit` at once. `sealed`: answers may have to go out in an envelope, which takes room.
    pub(crate) fn new(limit: usize, sealed: bool, events: Sender<Event>, bell: Bell) -> Self {
        Self { limit, running: 0, sealed, rubbish: 0, events, bell }
    }

    /// A thread has ended.
    pub(crate) fn released(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// A line was no message. Said less and less often: the guest's log is not the host's to fill.
    pub(crate) fn complain(&mut self, what: &dyn std::error::Error) {
        self.rubbish += 1;
        if self.rubbish.is_power_of_two() {
            note(format_args!("from the host, bad line {}: {what}", self.rubbish));
        }
    }

    /// Refuses one line; a command among them is told so.
    pub(crate) fn refuse(&mut self, line: &[u8], why: Refusal) -> Request {
        self.complain(&why);
        // Whose word a broken envelope is, is not known; and a replayed command was answered once.
        if matches!(why, Refusal::Seal(SealError::BadSeal | SealError::Replayed)) {
            return Request::Nothing;
        }
        match salvage(line) {
            Some(Unread { id, kind, .. }) => {
                Request::Answer(answer::refuse(&id, kind, Failure::refused(why)))
            }
            None => Request::Nothing,
        }
    }

    /// Takes one line.
    pub(crate) fn take(&mut self, line: &[u8]) -> Request {
        match serde_json::from_slice(line) {
            Ok(HostMessage::Metrics) => Request::Metrics,
            // Only in an envelope does it mean anything, and there it never comes here.
            Ok(HostMessage::KeepAliveResponse { .. } | HostMessage::Seal { .. }) => Request::Nothing,
            Ok(HostMessage::SafeCommand { id, command_type, timeout, .. }) => {
                self.start(id, CommandType::Safe, move || safe::run(&command_type, timeout))
            }
            Ok(HostMessage::UnsafeCommand { id, raw_command, shell, timeout, working_dir, env_vars }) => {
                let line = shell::Line { raw_command, shell, timeout, working_dir, env_vars };
                self.start(id, CommandType::Unsafe, move || shell::run(&line))
            }
            Err(e) => match salvage(line) {
                Some(Unread { id, kind, action }) => {
                    let failure = match action {
                        Some(action) if !OFFERED.contains(&action.as_str()) => safe::unsupported(&action),
                        _ => Failure::undecodable(&e),
                    };
                    Request::Answer(answer::refuse(&id, kind, failure))
                }
                None => {
                    self.complain(&e);
                    Request::Nothing
                }
            },
        }
    }

    fn start(
        &mut self,
        id: String,
        kind: CommandType,
        work: impl FnOnce() -> Result<Outcome, Failure> + Send + 'static,
    ) -> Request {
        if self.running >= self.limit {
            return Request::Answer(answer::refuse(&id, Some(kind), Failure::too_many(self.limit)));
        }
        let (events, bell) = (self.events.clone(), self.bell.clone());
        // The id moves into the thread; a refusal needs one too.
        let refused = id.clone();
        let sealed = self.sealed;
        let body = move || {
            let begun = Instant::now();
            let (line, remains) = answer::encode(&id, kind, begun, sealed, work());
            deliver(&events, &bell, Event::Answer(line));
            // A process that cannot be ended keeps its place, so that such ones stay few.
            if let Some(mut child) = remains
                && let Err(e) = child.wait()
            {
                note(format_args!("wait for process {}: {e}", child.id()));
            }
            deliver(&events, &bell, Event::Released);
        };
        match thread::Builder::new().name("command".to_owned()).stack_size(STACK_BYTES).spawn(body) {
            Ok(_detached) => {
                self.running += 1;
                Request::Nothing
            }
            Err(e) => Request::Answer(answer::refuse(&refused, Some(kind), Failure::spawn("a thread", &e))),
        }
    }
}

fn deliver(events: &Sender<Event>, bell: &Bell, event: Event) {
    // The loop holds the receiver for as long as the process lives.
    let _process_ends = events.send(event);
    bell.ring();
}

/// What can be told of a line that is no command we know.
struct Unread {
    id: String,
    kind: Option<CommandType>,
    /// The name of a safe command's action.
    action: Option<String>,
}

/// The id of such a line, so that its sender need not wait in vain, and what it may have meant.
fn salvage(line: &[u8]) -> Option<Unread> {
    let object: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let id = match object.get("id")? {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let kind = match object.get("type").and_then(Value::as_str) {
        Some("SafeCommand") => Some(CommandType::Safe),
        Some("UnsafeCommand") => Some(CommandType::Unsafe),
        _ => None,
    };
    let action = object.get("command_type").and_then(|command| command.get("action")?.as_str());
    let action = action.filter(|_| kind == Some(CommandType::Safe)).map(str::to_owned);
    Some(Unread { id, kind, action })
}

//! What is so of each command, and what must hold of what is said of it. Looked at whenever either
//! changes.

use infinibay::{
    commands::CommandError,
    store::{CommandRecord, CommandStatus},
    vm::{CommandId, VmId},
};

use super::world::State;

/// What is so of a command.
#[derive(Debug)]
pub struct Facts {
    pub vm: VmId,
    /// Each time that somebody asked for it to be run.
    pub attempts: Vec<Attempt>,
    /// What was told to those who cancelled it or asked for it.
    told: Vec<CommandRecord>,
    /// How often a link began to write it.
    pub handed: u32,
    /// How often a guest began it.
    pub ran: u32,
    /// A guest sent an answer under its id.
    pub answered: bool,
}

/// Somebody asked for a command to be run.
#[derive(Debug)]
pub struct Attempt {
    pub life: u32,
    /// He does not wait any more, or is told nothing because the controller died.
    pub gone: bool,
    told: Option<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ran,
    /// The id has a command already; nothing is said of that.
    Taken,
    Refused,
}

impl Facts {
    pub fn new(vm: VmId) -> Self {
        Self { vm, attempts: Vec::new(), told: Vec::new(), handed: 0, ran: 0, answered: false }
    }
}

impl Attempt {
    pub fn new(life: u32) -> Self {
        Self { life, gone: false, told: None }
    }

    pub fn is_open(&self) -> bool {
        !self.gone && self.told.is_none()
    }
}

fn says_it_did_not_run(record: &CommandRecord) -> bool {
    record.response.as_ref().is_some_and(|response| response.as_str().contains("did not run"))
}

/// Whether both say the same; a late answer comes later.
fn agree(one: &CommandRecord, other: &CommandRecord) -> bool {
    let parts = |it: &CommandRecord| {
        (
            (it.id, it.vm, it.kind.clone(), it.command.clone(), it.requested_by, it.created_at),
            (it.status, it.success, it.response.clone()),
            (it.sent_at, it.queue_ms, it.run_ms, it.execution_ms),
        )
    };
    parts(one) == parts(other)
}

fn status_name(status: CommandStatus) -> &'static str {
    match status {
        CommandStatus::Pending => "Pending",
        CommandStatus::Answered => "Answered",
        CommandStatus::TimedOut => "TimedOut",
        CommandStatus::Disconnected => "Disconnected",
        CommandStatus::Lost => "Lost",
        CommandStatus::Cancelled => "Cancelled",
    }
}

impl State {
    fn facts(&mut self, id: CommandId) -> &mut Facts {
        self.facts.get_mut(&id).expect("a command that somebody asked for")
    }

    pub fn count(&mut self, end: &'static str) {
        *self.ends.entry(end).or_default() += 1;
    }

    /// A caller is told what became of his command.
    pub fn tell(&mut self, id: CommandId, attempt: usize, told: Result<CommandRecord, CommandError>) {
        let label = self.label(id);
        let verdict = match told {
            Ok(record) => {
                self.note(format_args!("{label} is told as {:?}: {:?}", record.status, record.response));
                self.count(status_name(record.status));
                if record.status == CommandStatus::Pending {
                    self.violate(format_args!("who asked for {label} is told that it is pending"));
                }
                if self.facts(id).attempts.iter().any(|attempt| attempt.told == Some(Verdict::Ran)) {
                    self.violate(format_args!("two are told that they ran {label}"));
                }
                self.facts(id).told.push(record);
                Verdict::Ran
            }
            Err(error) => {
                self.note(format_args!("{label} is refused: {error:?}"));
                self.count(error.code());
                match error {
                    CommandError::IdTaken => Verdict::Taken,
                    CommandError::Task(_) | CommandError::Invalid { .. } | CommandError::NotFound => {
                        self.violate(format_args!("{label} is refused without reason: {error}"));
                        Verdict::Refused
                    }
                    _ => Verdict::Refused,
                }
            }
        };
        self.facts(id).attempts[attempt].told = Some(verdict);
        self.judge(id);
    }

    /// Somebody who cancelled a command is told how it stands.
    pub fn tell_canceller(&mut self, id: CommandId, told: Result<CommandRecord, CommandError>) {
        let label = self.label(id);
        match told {
            Ok(record) => {
                self.note(format_args!("{label} is cancelled: {:?}", record.status));
                self.count("cancel");
                if record.status != CommandStatus::Pending {
                    self.facts(id).told.push(record);
                }
                self.judge(id);
            }
            Err(error) => self.note(format_args!("{label} is not cancelled: {error:?}")),
        }
    }

    /// A link begins to write a command.
    pub fn hand(&mut self, id: CommandId) {
        let label = self.label(id);
        self.note(format_args!("{label} is handed to the guest"));
        if !self.rows.contains_key(&id) {
            self.violate(format_args!("{label} is handed to a guest and not in the log"));
        }
        self.facts(id).handed += 1;
        self.judge(id);
    }

    /// A guest begins a command.
    pub fn begin(&mut self, id: CommandId) {
        let label = self.label(id);
        self.note(format_args!("{label} runs"));
        self.facts(id).ran += 1;
        self.judge(id);
    }

    /// Compares what is said of a command with what is so.
    pub fn judge(&mut self, id: CommandId) {
        let label = self.label(id);
        let Some(facts) = self.facts.get(&id) else { return };
        let row = self.rows.get(&id);
        let mut wrong = Vec::new();
        if facts.handed > 1 || facts.ran > 1 {
            wrong.push(format!("{label} was handed over {} times and ran {} times", facts.handed, facts.ran));
        }
        for said in facts.told.iter().chain(row.map(|row| &row.record)) {
            let status = said.status;
            if says_it_did_not_run(said) && facts.handed > 0 {
                wrong.push(format!("{label} is told not to have run, and was handed over"));
            }
            if (status == CommandStatus::Answered || said.late_response.is_some()) && !facts.answered {
                wrong.push(format!("{label} is told to have answered, and did not"));
            }
            let is_told = !matches!(status, CommandStatus::Pending | CommandStatus::Lost);
            if is_told && said.sent_at.is_some() != (facts.handed > 0) {
                wrong.push(format!("{label} was handed over {} times, and {said:?} is told", facts.handed));
            }
            if said.vm != facts.vm {
                wrong.push(format!("{label} is told to be another VM's"));
            }
        }
        if facts.handed > 0 && facts.attempts.iter().all(|attempt| attempt.told == Some(Verdict::Refused)) {
            wrong.push(format!("{label} is refused, and was handed over"));
        }
        if let Some(row) = row
            && row.record.status != CommandStatus::Pending
        {
            // What a controller told just before it died may not have been written by then.
            let died = row.record.status == CommandStatus::Lost && !self.is_alive(row.life);
            if let Some(told) = facts.told.iter().find(|told| !agree(told, &row.record) && !died) {
                wrong.push(format!("{label} is told as {told:?}, and logged as {:?}", row.record));
            }
        }
        for what in wrong {
            self.violate(format_args!("{what}"));
        }
    }

    /// Callers of the present controller who were told nothing yet.
    pub fn open_attempts(&self) -> Vec<CommandId> {
        let open = |facts: &Facts| {
            facts.attempts.iter().any(|attempt| attempt.life == self.life && attempt.is_open())
        };
        self.order.iter().copied().filter(|id| open(&self.facts[id])).collect()
    }

    /// What is pending in the log and was logged by the present controller, or by whatever one.
    pub fn pending(&self, of_this_life: bool) -> Vec<String> {
        let pending = self.rows.iter().filter(|(_, row)| row.record.status == CommandStatus::Pending);
        let meant = pending.filter(|(_, row)| !of_this_life || row.life == self.life);
        meant.map(|(id, _)| self.label(*id)).collect()
    }
}

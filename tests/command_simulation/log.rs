//! The simulated log: a database over a connection that may fail before or after it was written, or
//! say nothing, or take its time. What was sent to it may be carried out whoever still waits.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use infinibay::{
    commands::CommandLog,
    store::{CommandEnd, CommandRecord, CommandStatus, LateNote, NewCommand, NotLogged, StoreError},
    vm::{CommandId, FrameText, UserId, VmId},
};
use tokio::sync::oneshot;

use super::{
    controller::Ports,
    world::{Row, State},
};

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Good,
    /// Written in a while, and told then.
    Slow(Duration),
    Fails {
        surely: bool,
    },
    Lies,
    Silent {
        commits: Option<Duration>,
    },
}

/// A call that was not told to have succeeded.
enum Failed {
    /// It certainly did nothing.
    Surely(StoreError),
    Perhaps(StoreError),
}

impl Failed {
    fn error(self) -> StoreError {
        match self {
            Self::Surely(error) | Self::Perhaps(error) => error,
        }
    }
}

fn away(operation: &'static str) -> StoreError {
    StoreError::Database { operation, source: sqlx::Error::PoolTimedOut }
}

impl State {
    fn draw_fate(&mut self) -> Fate {
        let faults = self.faults.clone();
        if self.is_away {
            return Fate::Fails { surely: true };
        }
        if self.chance.one_in(faults.fail) {
            Fate::Fails { surely: self.chance.one_in(2) }
        } else if self.chance.one_in(faults.lie) {
            Fate::Lies
        } else if self.chance.one_in(faults.silent) {
            let commits = self.chance.millis(0, 20_000);
            Fate::Silent { commits: self.chance.one_in(2).then_some(commits) }
        } else if self.chance.one_in(faults.slow) {
            Fate::Slow(self.chance.millis(50, 3000))
        } else {
            Fate::Good
        }
    }

    fn insert(&mut self, life: u32, new: &NewCommand) -> Result<(), StoreError> {
        let label = self.label(new.id);
        if self.rows.contains_key(&new.id) {
            self.note(format_args!("{label} is in the log already"));
            return Err(StoreError::IdTaken);
        }
        self.note(format_args!("{label} is logged"));
        self.rows.insert(new.id, Row { record: record(new), life });
        self.judge(new.id);
        Ok(())
    }

    fn void(&mut self, life: u32, new: &NewCommand, response: &str) -> Result<(), StoreError> {
        let label = self.label(new.id);
        let row = self.rows.entry(new.id).or_insert_with(|| Row { record: record(new), life });
        let it = &mut row.record;
        let is_it = it.vm == new.vm && it.requested_by == new.requested_by && it.created_at == new.created_at;
        if is_it && it.status == CommandStatus::Pending {
            it.status = CommandStatus::Cancelled;
            it.success = Some(false);
            it.response = Some(FrameText::new(response));
            self.note(format_args!("{label} is noted as never logged"));
        }
        self.judge(new.id);
        Ok(())
    }

    fn finish(&mut self, id: CommandId, end: &CommandEnd) -> Result<(), StoreError> {
        let label = self.label(id);
        let Some(row) = self.rows.get_mut(&id) else { return Err(StoreError::NotFound) };
        if row.record.status == CommandStatus::Pending {
            let it = &mut row.record;
            it.status = end.status;
            it.success = Some(end.success);
            it.response = end.response.clone().map(FrameText::new);
            it.execution_ms = Some(end.execution_ms);
            (it.sent_at, it.queue_ms, it.run_ms) = (end.sent_at, end.queue_ms, end.run_ms);
            self.note(format_args!("{label} ends as {:?}", end.status));
        }
        self.judge(id);
        Ok(())
    }

    fn note_late(&mut self, vm: VmId, id: CommandId, response: &str, at: DateTime<Utc>) -> LateNote {
        let label = self.label(id);
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.record.vm == vm) else {
            return LateNote::Unwanted;
        };
        let it = &mut row.record;
        let told = match it.status {
            CommandStatus::Pending => LateNote::Pending,
            CommandStatus::Answered => LateNote::Unwanted,
            _ if it.late_at.is_some() => LateNote::Unwanted,
            _ => {
                it.late_response = Some(FrameText::new(response));
                it.late_at = Some(at);
                LateNote::Noted
            }
        };
        self.note(format_args!("{label} has a late answer: {told:?}"));
        if told == LateNote::Noted {
            self.count("late answer");
        }
        self.judge(id);
        told
    }

    fn lose(&mut self, before: DateTime<Utc>, there: &BTreeSet<CommandId>) -> u64 {
        let mut lost = Vec::new();
        for (id, row) in self.rows.iter_mut().filter(|(id, _)| there.contains(id)) {
            if row.record.status == CommandStatus::Pending && row.record.created_at <= before {
                row.record.status = CommandStatus::Lost;
                row.record.success = Some(false);
                lost.push((*id, row.life));
            }
        }
        for (id, life) in &lost {
            let label = self.label(*id);
            self.note(format_args!("{label} is lost"));
            self.count("Lost");
            if self.is_alive(*life) {
                self.violate(format_args!("{label} is lost while its controller lives"));
            }
            self.judge(*id);
        }
        lost.len() as u64
    }
}

fn record(new: &NewCommand) -> CommandRecord {
    CommandRecord {
        id: new.id,
        vm: new.vm,
        kind: new.kind.to_owned(),
        command: new.command.clone(),
        response: None,
        status: CommandStatus::Pending,
        success: None,
        execution_ms: None,
        sent_at: None,
        queue_ms: None,
        run_ms: None,
        late_response: None,
        late_at: None,
        requested_by: new.requested_by,
        created_at: new.created_at,
    }
}

impl Ports {
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failed> {
        self.world.point(self.life, &format!("before {name}")).await;
        let (fate, takes) = {
            let mut state = self.world.state();
            let (fate, takes) = (state.draw_fate(), state.chance.millis(1, 10));
            if !matches!(fate, Fate::Good) {
                state.note(format_args!("{name}: {fate:?}"));
            }
            (fate, takes)
        };
        let outcome = match fate {
            Fate::Good => {
                tokio::time::sleep(takes).await;
                work(&mut self.world.state()).map_err(Failed::Surely)
            }
            Fate::Slow(takes) => {
                let (tell, told) = oneshot::channel();
                // Whoever asked may not wait any more.
                self.world.later(takes, move |world| drop(tell.send(work(&mut world.state()))));
                told.await.expect("written").map_err(Failed::Surely)
            }
            Fate::Fails { surely } => {
                tokio::time::sleep(takes).await;
                Err(if surely { Failed::Surely(away(name)) } else { Failed::Perhaps(away(name)) })
            }
            Fate::Lies => {
                tokio::time::sleep(takes).await;
                drop(work(&mut self.world.state()));
                Err(Failed::Perhaps(away(name)))
            }
            Fate::Silent { commits } => {
                if let Some(commits) = commits {
                    self.world.later(commits, move |world| drop(work(&mut world.state())));
                }
                std::future::pending().await
            }
        };
        self.world.point(self.life, &format!("after {name}")).await;
        outcome
    }
}

#[async_trait]
impl CommandLog for Ports {
    async fn insert_command(&self, command: &NewCommand, limit: Duration) -> Result<(), NotLogged> {
        let (life, new) = (self.life, command.clone());
        let inserted = self.call("logging", move |state| state.insert(life, &new));
        match tokio::time::timeout(limit, inserted).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Failed::Surely(error))) => Err(NotLogged::Refused(error)),
            Ok(Err(Failed::Perhaps(error))) => Err(NotLogged::Unknown(error)),
            Err(_) => Err(NotLogged::Unknown(StoreError::NoAnswer { limit })),
        }
    }

    async fn void_command(&self, command: &NewCommand, response: &str) -> Result<(), StoreError> {
        let (life, new, response) = (self.life, command.clone(), response.to_owned());
        self.call("voiding", move |state| state.void(life, &new, &response)).await.map_err(Failed::error)
    }

    async fn finish_command(&self, id: CommandId, end: &CommandEnd) -> Result<(), StoreError> {
        let end = end.clone();
        self.call("finishing", move |state| state.finish(id, &end)).await.map_err(Failed::error)
    }

    async fn audit_cancel(&self, _user: UserId, _vm: VmId, id: CommandId) -> Result<(), StoreError> {
        let audit = move |state: &mut State| {
            let label = state.label(id);
            state.note(format_args!("that {label} is cancelled is written down"));
            Ok(())
        };
        self.call("auditing", audit).await.map_err(Failed::error)
    }

    async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError> {
        let read = move |state: &mut State| Ok(state.rows.get(&id).map(|row| row.record.clone()));
        self.call("reading", read).await.map_err(Failed::error)
    }

    async fn note_late_answer(
        &self,
        vm: VmId,
        id: CommandId,
        response: &str,
        at: DateTime<Utc>,
    ) -> Result<LateNote, StoreError> {
        let response = response.to_owned();
        let note = move |state: &mut State| Ok(state.note_late(vm, id, &response, at));
        self.call("noting a late answer", note).await.map_err(Failed::error)
    }

    async fn lose_pending_commands(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        // One statement sees what was there when it began, however late it ends.
        let there = self.world.state().rows.keys().copied().collect();
        self.call("losing what is pending", move |state| Ok(state.lose(before, &there)))
            .await
            .map_err(Failed::error)
    }
}

//! The real log, links and clock behind the journey's traits.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::ports::{Clock, CommandLinks, CommandLog, Handover};
use crate::{
    agents::{LinkError, LinkState, Links, Sending, SentAt},
    store::{CommandEnd, CommandRecord, LateNote, NewCommand, NotLogged, Store, StoreError},
    vm::{CommandId, CommandOutcome, GuestCommand, LinkObservation, UserId, VmId},
};

#[async_trait]
impl CommandLog for Store {
    async fn insert_command(&self, command: &NewCommand, limit: Duration) -> Result<(), NotLogged> {
        Self::insert_command(self, command, limit).await
    }

    async fn void_command(&self, command: &NewCommand, response: &str) -> Result<(), StoreError> {
        Self::void_command(self, command, response).await
    }

    async fn finish_command(&self, id: CommandId, end: &CommandEnd) -> Result<(), StoreError> {
        Self::finish_command(self, id, end).await
    }

    async fn audit_cancel(&self, user: UserId, vm: VmId, id: CommandId) -> Result<(), StoreError> {
        Self::audit_cancel(self, user, vm, id).await
    }

    async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError> {
        Self::command(self, id).await
    }

    async fn note_late_answer(
        &self,
        vm: VmId,
        id: CommandId,
        response: &str,
        at: DateTime<Utc>,
    ) -> Result<LateNote, StoreError> {
        Self::note_late_answer(self, vm, id, response, at).await
    }

    async fn lose_pending_commands(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        Self::lose_pending_commands(self, before).await
    }
}

impl CommandLinks for Links {
    fn watch(&self, vm: VmId) -> Option<watch::Receiver<LinkState>> {
        Self::watch(self, vm)
    }

    fn observe(&self, vm: VmId) -> LinkObservation {
        Self::observe(self, vm)
    }

    fn hand_over<'a>(
        &'a self,
        vm: VmId,
        id: CommandId,
        command: &'a GuestCommand,
        timeout: Duration,
    ) -> Box<dyn Handover + 'a> {
        Box::new(OverLink { links: self, vm, id, command, timeout, sending: Sending::default() })
    }
}

/// A command on its way over a real link.
struct OverLink<'a> {
    links: &'a Links,
    vm: VmId,
    id: CommandId,
    command: &'a GuestCommand,
    timeout: Duration,
    sending: Sending,
}

#[async_trait]
impl Handover for OverLink<'_> {
    async fn outcome(&self) -> Result<CommandOutcome, LinkError> {
        self.links.execute_noting(self.vm, self.id, self.command, self.timeout, &self.sending).await
    }

    fn withdraw(&self) -> bool {
        self.sending.withdraw()
    }

    fn sent(&self) -> Option<SentAt> {
        self.sending.sent()
    }
}

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

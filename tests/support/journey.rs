//! Commands from a caller to a fake guest and back, with a log.
#![allow(dead_code)] // each story uses a part of it

use std::{path::Path, time::Duration};

use infinibay::{
    access::{Actor, Role},
    agents::Links,
    commands::{CommandError, Commands},
    config::{AgentsConfig, CommandsConfig},
    events::{EventBus, Subscription},
    store::{CommandRecord, CommandSearch, Page, Store},
    vm::{CommandId, GuestCommand, Redactor, UnsafeCommand, UserId, VmId},
};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    database::TestDatabase,
    guest::{FakeGuest, eventually, well_behaved},
};

/// Commands over a fake guest.
pub(crate) struct Journey {
    pub(crate) guest: FakeGuest,
    pub(crate) links: Links,
    pub(crate) store: Store,
    pub(crate) commands: Commands,
    pub(crate) told: Subscription,
    pub(crate) actor: Actor,
    _tended: DropGuard,
    dir: TempDir,
}

impl Journey {
    pub(crate) async fn start(
        db: &TestDatabase,
        config: CommandsConfig,
        guest: impl FnOnce(&TempDir) -> FakeGuest,
    ) -> Self {
        Self::over(db.store().await, config, guest).await
    }

    /// The same over a store of one's choice.
    pub(crate) async fn over(
        store: Store,
        config: CommandsConfig,
        guest: impl FnOnce(&TempDir) -> FakeGuest,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let guest = guest(&dir);
        let (links, inbox) = Links::new(AgentsConfig::default());
        links.open(guest.vm, guest.path.clone());
        eventually("the agent is heard", || {
            links.observe(guest.vm).open().and_then(|open| open.last_message_at)
        })
        .await;
        let events = EventBus::default();
        let told = events.subscribe();
        let commands = Commands::new(config, Redactor::default(), store.clone(), links.clone(), events);
        let stop = CancellationToken::new();
        tokio::spawn(commands.clone().tend(inbox.late, stop.clone()));
        Self { guest, links, store, commands, told, actor: somebody(), _tended: stop.drop_guard(), dir }
    }

    pub(crate) async fn run(&self, command: GuestCommand) -> Result<CommandRecord, CommandError> {
        self.commands.execute(&self.actor, self.guest.vm, command, Duration::from_secs(15)).await
    }

    /// Runs a shell line for somebody under an id of his choice, in the background.
    pub(crate) fn begin(
        &self,
        id: CommandId,
        actor: &Actor,
        line: &str,
    ) -> tokio::task::JoinHandle<Result<CommandRecord, CommandError>> {
        let (commands, actor, vm, command) =
            (self.commands.clone(), actor.clone(), self.guest.vm, shell(line));
        tokio::spawn(
            async move { commands.execute_as(id, &actor, vm, command, Duration::from_secs(30)).await },
        )
    }

    /// The lines that reached the guest, in their order.
    pub(crate) fn lines(&self) -> Vec<String> {
        let sent = self.guest.received_of("UnsafeCommand");
        sent.iter().map(|sent| sent["raw_command"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until so many commands are in the log.
    pub(crate) async fn logged(&self, count: usize) {
        let start = tokio::time::Instant::now();
        while self.log().await.len() < count {
            assert!(start.elapsed() < super::guest::DEADLINE, "{count} are not logged in time");
        }
    }

    /// Another guest in the same directory, heard over the same links.
    pub(crate) async fn another(&self) -> FakeGuest {
        let guest = well(self.dir.path());
        self.links.open(guest.vm, guest.path.clone());
        self.heard(guest.vm).await;
        guest
    }

    pub(crate) async fn heard(&self, vm: VmId) {
        eventually("the agent is heard", || self.links.watch(vm).filter(|link| link.borrow().open_and_heard))
            .await;
    }

    pub(crate) async fn log(&self) -> Vec<CommandRecord> {
        self.store
            .command_log(self.guest.vm, &CommandSearch::default(), Page { first: 100, after: None })
            .await
            .expect("the log")
            .nodes
    }
}

pub(crate) fn somebody() -> Actor {
    Actor::new(UserId::generate(), "ana".to_owned(), Role::Member, [].into())
}

pub(crate) fn one_at_a_time(dir: &TempDir) -> FakeGuest {
    well(dir.path())
}

fn well(dir: &Path) -> FakeGuest {
    FakeGuest::listen(dir, VmId::generate(), |s, r| well_behaved(s, r, 1, Vec::new()))
}

pub(crate) fn shell(line: &str) -> GuestCommand {
    GuestCommand::Unsafe(UnsafeCommand {
        raw_command: line.to_owned(),
        shell: None,
        working_dir: None,
        env_vars: [("TOKEN".to_owned(), "hunter2".to_owned())].into(),
    })
}

//! Commands under faults drawn from a seed, with nothing simulated: a command runs at most once, and
//! nobody is told what is not so.
//!
//! What `tests/command_simulation.rs` puts in their place is the real thing here: the log over a real
//! database, the links over real sockets, to a fake guest. So a seed chooses what happens and not its
//! exact order, and a few of them are enough. `SIM_FIRST` and `SIM_COUNT` choose others.
#![allow(clippy::unwrap_used, reason = "a story fails where it stands")]

#[path = "simulation/chance.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod chance;
#[path = "simulation/panics.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod panics;
#[path = "simulation/seeds.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod seeds;
#[macro_use]
mod support;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chance::Chance;
use infinibay::{
    access::Actor,
    agents::Links,
    commands::{CommandError, Commands},
    config::{AgentsConfig, CommandsConfig},
    events::EventBus,
    store::{CommandRecord, CommandStatus, Store},
    vm::{CommandId, LinkEnd, Redactor, VmId},
};
use serde_json::Value;
use support::{
    guest::{FakeGuest, Received, answer_line, handshake_line, metrics_line},
    journey::{shell, somebody},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

const SEEDS: u64 = 20;
/// Runs at once: they mostly wait.
const AT_ONCE: usize = 12;
/// The shortest that a command may have.
const TIMEOUT: Duration = Duration::from_secs(1);

type Told = Result<CommandRecord, CommandError>;

/// An agent that answers at once, late, twice or never, and hangs up before or after it ran a command.
async fn moody(stream: UnixStream, received: Received, moods: Arc<Mutex<Chance>>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    writer.write_all(handshake_line(2).as_bytes()).await?;
    writer.write_all(metrics_line(1.0).as_bytes()).await?;
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let message: Value = serde_json::from_str(&line)?;
        let (mood, wait) = {
            let mut moods = moods.lock().unwrap();
            (moods.below(12), moods.millis(1, 60))
        };
        if message["type"] != "UnsafeCommand" {
            received.lock().unwrap().push(message);
            continue;
        }
        if mood == 0 {
            return Ok(());
        }
        // From here on it ran.
        received.lock().unwrap().push(message.clone());
        let answer = answer_line(&message["id"], "done");
        match mood {
            1 => return Ok(()),
            2 => {}
            3 => {
                tokio::time::sleep(TIMEOUT + wait).await;
                writer.write_all(answer.as_bytes()).await?;
            }
            4 | 5 => writer.write_all([answer.as_bytes(), answer.as_bytes()].concat().as_slice()).await?,
            6 => {
                let half = answer.len() / 2;
                writer.write_all(&answer.as_bytes()[..half]).await?;
                return Ok(());
            }
            _ => {
                tokio::time::sleep(wait).await;
                writer.write_all(answer.as_bytes()).await?;
            }
        }
    }
    Ok(())
}

/// A controller's part, on threads of its own, so that it can die in the middle of anything.
struct Life {
    runtime: Runtime,
    commands: Commands,
    links: Links,
    store: Store,
}

impl Life {
    async fn begin(url: String, vm: VmId, socket: &Path) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let opened = runtime.spawn(async move {
            let store = Store::open(&url, 4, Duration::from_secs(20)).await.unwrap();
            let (links, inbox) = Links::new(AgentsConfig::default());
            let config = CommandsConfig::default();
            let events = EventBus::default();
            let commands = Commands::new(config, Redactor::default(), store.clone(), links.clone(), events);
            // As a controller does at its start.
            commands.sweep().await.unwrap();
            tokio::spawn(commands.clone().tend(inbox.late, CancellationToken::new()));
            (store, links, commands)
        });
        let (store, links, commands) = opened.await.unwrap();
        let life = Self { runtime, commands, links, store };
        life.open(vm, socket);
        life
    }

    fn open(&self, vm: VmId, socket: &Path) {
        let _inside = self.runtime.enter();
        self.links.open(vm, socket.to_owned());
    }

    fn ask(&self, id: CommandId, actor: &Actor, vm: VmId) -> JoinHandle<Told> {
        let (commands, actor) = (self.commands.clone(), actor.clone());
        self.runtime.spawn(async move { commands.execute_as(id, &actor, vm, shell("run"), TIMEOUT).await })
    }

    fn die(self) {
        self.runtime.shutdown_background();
    }
}

fn says_it_did_not_run(record: &CommandRecord) -> bool {
    let response = record.response.as_ref().map(|response| response.tree().to_string());
    response.is_some_and(|response| response.contains("did not run"))
}

/// One seed; how many commands ran, or what was wrong.
async fn run(seed: u64, template: &Path) -> Result<usize, String> {
    let mut chance = Chance::new(seed, 1);
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(template, dir.path().join("test.db")).unwrap();
    let url = format!("sqlite:{}", dir.path().join("test.db").display());
    let moods = Arc::new(Mutex::new(Chance::new(seed, 2)));
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), move |stream, received| {
        moody(stream, received, Arc::clone(&moods))
    });
    let actors = [somebody(), somebody()];
    let mut life = Life::begin(url.clone(), guest.vm, &guest.path).await;
    let mut asked: Vec<(CommandId, JoinHandle<Told>)> = Vec::new();
    for _ in 0..6 + chance.below(14) {
        tokio::time::sleep(chance.millis(0, 120)).await;
        let actor = &actors[usize::try_from(chance.below(2)).unwrap()];
        match chance.below(14) {
            0 => {
                life.die();
                tokio::time::sleep(chance.millis(0, 50)).await;
                life = Life::begin(url.clone(), guest.vm, &guest.path).await;
            }
            1 => {
                life.links.close(guest.vm, LinkEnd::VmStopped);
                tokio::time::sleep(chance.millis(0, 50)).await;
                life.open(guest.vm, &guest.path);
            }
            // The same again, as a client does that got no answer.
            2 | 3 if !asked.is_empty() => {
                let again = asked[usize::try_from(chance.below(asked.len() as u64)).unwrap()].0;
                asked.push((again, life.ask(again, actor, guest.vm)));
            }
            4 if !asked.is_empty() => {
                let (id, _) = asked[usize::try_from(chance.below(asked.len() as u64)).unwrap()];
                let (commands, actor, vm) = (life.commands.clone(), actor.clone(), guest.vm);
                drop(life.runtime.spawn(async move { commands.cancel(&actor, vm, id).await }));
            }
            _ => {
                let id = CommandId(chance.uuid());
                asked.push((id, life.ask(id, actor, guest.vm)));
            }
        }
    }
    let mut told: BTreeMap<CommandId, Vec<Option<Told>>> = BTreeMap::new();
    for (id, task) in asked {
        let answer = tokio::time::timeout(Duration::from_secs(30), task).await;
        // A caller whose controller died is told nothing.
        told.entry(id).or_default().push(answer.map_err(|_| format!("{id} never ended"))?.ok());
    }
    let (commands, ended) = (life.commands.clone(), Duration::from_secs(30));
    let drained = life.runtime.spawn(async move { commands.drain(ended).await }).await;
    if !drained.unwrap_or(false) {
        return Err("the outcomes are not all in the log".to_owned());
    }
    let store = life.store.clone();
    let ids: Vec<CommandId> = told.keys().copied().collect();
    let log = life.runtime.spawn(async move {
        let mut log = BTreeMap::new();
        for id in ids {
            if let Some(record) = store.command(id).await.unwrap() {
                log.insert(id, record);
            }
        }
        log
    });
    let log = log.await.unwrap();
    life.die();
    judge(&told, &log, &guest)?;
    Ok(guest.received_of("UnsafeCommand").len())
}

fn judge(
    told: &BTreeMap<CommandId, Vec<Option<Told>>>,
    log: &BTreeMap<CommandId, CommandRecord>,
    guest: &FakeGuest,
) -> Result<(), String> {
    let received = guest.received_of("UnsafeCommand");
    for (id, answers) in told {
        let runs = received.iter().filter(|message| message["id"] == id.to_string()).count();
        let known = log.get(id);
        let words = format!("{id} ran {runs} times; told {answers:?}; logged {known:?}");
        let fault = |what: &str| Err(format!("{what}: {words}"));
        if runs > 1 {
            return fault("a command ran twice");
        }
        if runs == 1 && known.is_none() {
            return fault("a command ran that nobody logged");
        }
        for record in answers.iter().flatten().flatten().chain(known) {
            if record.status == CommandStatus::Answered && runs == 0 {
                return fault("an answer to what did not run");
            }
            if says_it_did_not_run(record) && runs > 0 {
                return fault("it is told not to have run");
            }
        }
        if known.is_some_and(|record| record.status == CommandStatus::Pending) {
            return fault("it is pending for ever");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_at_most_once_over_real_links() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("template.db");
    let store = Store::open(&format!("sqlite:{}", template.display()), 1, TIMEOUT * 20).await.unwrap();
    store.migrate().await.unwrap();
    store.close().await;
    let (first, count) = (seeds::number("SIM_FIRST", 0), seeds::number("SIM_COUNT", SEEDS));
    let (turns, ran) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(AtomicU64::new(0)));
    let mut runs = JoinSet::new();
    for seed in first..first + count {
        let (turns, ran, template) = (turns.clone(), ran.clone(), template.clone());
        runs.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            let outcome = run(seed, &template).await;
            let count = outcome.map_err(|why| format!("seed {seed} failed: {why}"))?;
            ran.fetch_add(count as u64, Ordering::Relaxed);
            Ok::<(), String>(())
        });
    }
    while let Some(ended) = runs.join_next().await {
        if let Err(why) = ended.unwrap() {
            panic!("{why}");
        }
    }
    let ran = ran.load(Ordering::Relaxed);
    assert!(ran > count, "only {ran} commands ran in {count} seeds: the guest is deaf");
}

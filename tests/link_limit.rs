//! More links than places: a new one takes the place of the one heard least recently, which says
//! so and waits; links that work are neither rotated nor taken from their commands.

mod support;

use std::{io, path::Path, time::Duration};

use infinibay::{
    agents::{LinkState, Links},
    config::AgentsConfig,
    vm::{CommandId, CommandOutcome, GuestCommand, LinkEnd, LinkObservation, UnsafeCommand, VmId},
};
use support::guest::{DEADLINE, FakeGuest, Received, eventually, handshake_line, well_behaved};
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

fn guest(dir: &Path) -> FakeGuest {
    FakeGuest::listen(dir, VmId::generate(), |s, r| well_behaved(s, r, 1, Vec::new()))
}

async fn heard(links: &Links, vm: VmId) {
    eventually("the agent is heard", || links.observe(vm).open().and_then(|open| open.last_message_at)).await;
}

/// Why the VM has no place.
fn turned_away(links: &Links, vm: VmId) -> String {
    match links.observe(vm) {
        LinkObservation::Connecting { last_error: Some(why), .. } => why,
        other => panic!("it does not wait: {other:?}"),
    }
}

#[tokio::test]
async fn a_new_link_takes_the_place_of_the_one_heard_least_recently() {
    let dir = tempfile::tempdir().unwrap();
    let guests: [FakeGuest; 3] = std::array::from_fn(|_| guest(dir.path()));
    let [first, second, newcomer] = &guests;
    let (links, _inbox) = Links::new(AgentsConfig { max_links: 2, ..AgentsConfig::default() });
    for guest in [first, second] {
        links.open(guest.vm, guest.path.clone());
        heard(&links, guest.vm).await;
    }
    // The first speaks again, so that the second was heard least recently.
    let before = links.observe(first.vm).counters().frames;
    links.request_metrics(first.vm);
    eventually("a reading", || (links.observe(first.vm).counters().frames > before).then_some(())).await;
    let counted = links.observe(second.vm).counters();
    let state = links.watch(second.vm).expect("it has a place");

    links.open(newcomer.vm, newcomer.path.clone());
    let why = turned_away(&links, second.vm);
    assert!(why.contains("evicted for another VM's link") && why.contains("raise agents.max_links"), "{why}");
    assert_eq!(links.observe(second.vm).counters(), counted, "what came before is not forgotten");
    assert_eq!(*state.borrow(), LinkState { ended: Some(LinkEnd::Evicted), ..LinkState::default() });
    assert!(links.watch(second.vm).is_none());
    heard(&links, newcomer.vm).await;
    assert_eq!((first.connections(), links.observe_all().len()), (1, 3));

    // A place comes free.
    links.close(first.vm, LinkEnd::VmStopped);
    heard(&links, second.vm).await;
    assert!(links.observe(second.vm).counters().frames > counted.frames);
}

#[tokio::test]
async fn commands_are_spared_and_the_newcomer_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (busy, newcomer, later) = (guest(dir.path()), guest(dir.path()), guest(dir.path()));
    let (links, _inbox) = Links::new(AgentsConfig { max_links: 1, ..AgentsConfig::default() });
    links.open(busy.vm, busy.path.clone());
    heard(&links, busy.vm).await;
    let command = GuestCommand::Unsafe(UnsafeCommand {
        raw_command: "sleep 1000".to_owned(),
        shell: None,
        working_dir: None,
        env_vars: [].into(),
    });
    let runs = links.execute(busy.vm, CommandId::generate(), &command, DEADLINE);
    let asks = async {
        eventually("the command is sent", || busy.received_of("UnsafeCommand").pop()).await;
        links.open(newcomer.vm, newcomer.path.clone());
        let why = turned_away(&links, newcomer.vm);
        assert!(why.contains("1 links exist already; raise agents.max_links"), "{why}");
    };
    let (outcome, ()) = tokio::join!(runs, asks);
    assert!(matches!(outcome, Ok(CommandOutcome::Answered { success: true, .. })), "{outcome:?}");

    // Idle now. One that waits takes no place from a link that works, a new one does.
    links.open(newcomer.vm, newcomer.path.clone());
    turned_away(&links, newcomer.vm);
    links.open(later.vm, later.path.clone());
    heard(&links, later.vm).await;
    assert!(turned_away(&links, busy.vm).contains("evicted"));
    assert_eq!(newcomer.connections(), 0);
}

/// Greets, and gives a sign of life again and again.
async fn talks(mut stream: UnixStream, _received: Received) -> io::Result<()> {
    stream.write_all(handshake_line(1).as_bytes()).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(b"{\"type\":\"ping\"}\n").await?;
    }
}

#[tokio::test]
async fn one_that_waits_takes_a_silent_links_place_but_never_that_of_one_that_works() {
    let dir = tempfile::tempdir().unwrap();
    let (silent, waiting) = (guest(dir.path()), guest(dir.path()));
    let working = FakeGuest::listen(dir.path(), VmId::generate(), talks);
    let patience = Duration::from_secs(2);
    let config = AgentsConfig { max_links: 2, offline_after: patience / 2, ..AgentsConfig::default() };
    let (links, _inbox) = Links::new(config);
    for guest in [&silent, &working] {
        links.open(guest.vm, guest.path.clone());
        heard(&links, guest.vm).await;
    }
    // Takes the silent one's place, being new, and says no more than its greeting.
    links.open(waiting.vm, waiting.path.clone());
    heard(&links, waiting.vm).await;
    let turned_away_at = tokio::time::Instant::now();
    assert!(turned_away(&links, silent.vm).contains("evicted"));

    // Each scan asks again for all of them.
    eventually("the one that waits takes its turn", || {
        for guest in [&silent, &waiting, &working] {
            links.open(guest.vm, guest.path.clone());
        }
        (silent.connections() > 1).then_some(())
    })
    .await;
    assert!(turned_away_at.elapsed() >= patience, "it came too early");
    assert!(turned_away(&links, waiting.vm).contains("evicted"));
    assert_eq!((working.connections(), waiting.connections()), (1, 1), "who works stays");
}

//! Every pending command ends: when the guest hangs up, when the link is no longer wanted, when
//! the controller stops, and when a guest does not read what it is sent.

mod support;

use std::time::Duration;

use infinibay::{
    agents::{LinkError, LinkState, Links},
    config::AgentsConfig,
    vm::{CommandId, CommandOutcome, GuestCommand, LinkEnd, LinkObservation, UnsafeCommand, VmId},
};
use support::guest::{DEADLINE, FakeGuest, deaf, eventually, hangs_up, well_behaved};

/// Far longer than any story waits: what ends earlier did not end by it.
const LONG: Duration = Duration::from_secs(600);

fn shell(line: impl Into<String>) -> GuestCommand {
    GuestCommand::Unsafe(UnsafeCommand {
        raw_command: line.into(),
        shell: None,
        working_dir: None,
        env_vars: [].into(),
    })
}

async fn heard(links: &Links, vm: VmId) {
    eventually("the agent is heard", || links.observe(vm).open().and_then(|open| open.last_message_at)).await;
}

/// Runs a command that never ends and gives its outcome, which has to come all the same.
fn endless(links: &Links, vm: VmId) -> tokio::task::JoinHandle<Result<CommandOutcome, LinkError>> {
    let links = links.clone();
    tokio::spawn(async move { links.execute(vm, CommandId::generate(), &shell("sleep 600000"), LONG).await })
}

async fn ends<T>(what: &str, task: tokio::task::JoinHandle<T>) -> T {
    tokio::time::timeout(DEADLINE, task)
        .await
        .unwrap_or_else(|_| panic!("still pending after {DEADLINE:?}: {what}"))
        .expect("the task does not panic")
}

#[tokio::test]
async fn when_the_guest_hangs_up() {
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), hangs_up);
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    heard(&links, guest.vm).await;
    let mut state = links.watch(guest.vm).expect("the link is live");
    let open = LinkState { open_and_heard: true, concurrency: 4, ended: None };
    assert_eq!(*state.borrow_and_update(), open);
    // Six for four places: two of them are never sent.
    let tasks: Vec<_> = (0..6).map(|_| endless(&links, guest.vm)).collect();
    tokio::time::timeout(DEADLINE, state.changed()).await.expect("told in time").expect("the link lives");
    let closed = LinkState { ended: Some(LinkEnd::ChannelClosed), ..LinkState::default() };
    assert_eq!(*state.borrow_and_update(), closed);
    for task in tasks {
        let ended = ends("the command", task).await;
        assert!(
            matches!(
                ended,
                Ok(CommandOutcome::Disconnected(LinkEnd::ChannelClosed))
                    | Err(LinkError::Ended(LinkEnd::ChannelClosed) | LinkError::NotConnected)
            ),
            "{ended:?}"
        );
    }
    // The link goes on, and says so as soon as the agent is heard again.
    let back = tokio::time::timeout(DEADLINE, state.wait_for(|state| *state == open)).await;
    back.expect("heard again in time").expect("the link lives");
}

#[tokio::test]
async fn when_the_link_is_closed_also_those_that_were_not_sent_yet() {
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| well_behaved(s, r, 1, Vec::new()));
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    heard(&links, guest.vm).await;
    let sent = endless(&links, guest.vm);
    eventually("the first is sent", || guest.received_of("UnsafeCommand").pop()).await;
    let waiting: Vec<_> = (0..40).map(|_| endless(&links, guest.vm)).collect();
    // They wait for a place, not for a connection: none of them may have ended yet.
    tokio::task::yield_now().await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    let mut state = links.watch(guest.vm).expect("the link is live");
    links.close(guest.vm, LinkEnd::VmStopped);
    links.close(guest.vm, LinkEnd::VmDeleted);
    let ended = LinkState { ended: Some(LinkEnd::VmStopped), ..LinkState::default() };
    assert_eq!(*state.borrow_and_update(), ended, "told before anybody has done anything");
    assert!(links.watch(guest.vm).is_none());
    assert_eq!(links.observe(guest.vm), LinkObservation::None);
    assert_eq!(ends("the sent one", sent).await, Ok(CommandOutcome::Disconnected(LinkEnd::VmStopped)));
    for task in waiting {
        assert_eq!(ends("one that waits", task).await, Err(LinkError::Ended(LinkEnd::VmStopped)));
    }
    assert_eq!(guest.received_of("UnsafeCommand").len(), 1, "nothing more was sent");
    let gone = tokio::time::timeout(DEADLINE, state.changed()).await.expect("told in time");
    assert!(gone.is_err(), "there is nothing left to watch");
}

#[tokio::test]
async fn when_the_controller_stops() {
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| well_behaved(s, r, 1, Vec::new()));
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    heard(&links, guest.vm).await;
    let sent = endless(&links, guest.vm);
    eventually("the command is sent", || guest.received_of("UnsafeCommand").pop()).await;
    let waiting = endless(&links, guest.vm);
    tokio::task::yield_now().await;
    tokio::time::timeout(DEADLINE, links.shutdown(LONG)).await.expect("the links close in time");
    assert_eq!(
        ends("the command", sent).await,
        Ok(CommandOutcome::Disconnected(LinkEnd::ControllerStopping))
    );
    assert_eq!(ends("the unsent one", waiting).await, Err(LinkError::Ended(LinkEnd::ControllerStopping)));
    links.open(guest.vm, guest.path.clone());
    assert_eq!(links.observe(guest.vm), LinkObservation::None, "nothing opens after the stop");
}

#[tokio::test]
async fn when_the_guest_does_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), deaf);
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    heard(&links, guest.vm).await;
    // More than a socket buffers.
    let big = shell("x".repeat(700_000));
    let outcome = tokio::time::timeout(DEADLINE, links.execute(guest.vm, CommandId::generate(), &big, LONG))
        .await
        .expect("the link gives up");
    assert_eq!(outcome, Ok(CommandOutcome::Disconnected(LinkEnd::ChannelClosed)));
    let why = eventually("the link says why", || match links.observe(guest.vm) {
        LinkObservation::Connecting { last_error, .. } => last_error,
        _ => None,
    })
    .await;
    assert!(why.contains("does not read"), "{why}");
}

#[tokio::test]
async fn an_agent_that_announced_more_gets_as_many_at_once_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| well_behaved(s, r, 3, Vec::new()));
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    eventually("the greeting is heard", || (links.concurrency(guest.vm) == 3).then_some(())).await;
    let tasks: Vec<_> = (0..5).map(|_| endless(&links, guest.vm)).collect();
    eventually("three are sent", || (guest.received_of("UnsafeCommand").len() == 3).then_some(())).await;
    let brief =
        links.execute(guest.vm, CommandId::generate(), &shell("echo"), Duration::from_millis(300)).await;
    assert_eq!(brief, Err(LinkError::NoPlace), "no place came free");
    assert_eq!(guest.received_of("UnsafeCommand").len(), 3);
    links.close(guest.vm, LinkEnd::VmStopped);
    for task in tasks {
        let ended = ends("a command", task).await;
        assert!(matches!(
            ended,
            Ok(CommandOutcome::Disconnected(LinkEnd::VmStopped)) | Err(LinkError::Ended(LinkEnd::VmStopped))
        ));
    }
}

//! A connection proves nothing: a channel that another program holds, or behind which nobody
//! speaks, is silent, not online.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use infinibay::{
    agents::{LinkError, LinkState, Links},
    config::AgentsConfig,
    vm::{CommandId, CommandOutcome, GuestCommand, LinkObservation, SafeAction, VmId},
};
use support::guest::{DEADLINE, FakeGuest, eventually, well_behaved};
use tokio::{io::AsyncReadExt as _, net::UnixStream, time::Instant};

#[tokio::test]
async fn a_channel_that_another_program_holds_is_silent_until_that_one_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| well_behaved(s, r, 2, Vec::new()));
    let mut other = UnixStream::connect(&guest.path).await.unwrap();
    // It is served: the agent's words go there.
    tokio::time::timeout(DEADLINE, other.read_u8()).await.expect("served in time").unwrap();

    let (links, inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    let open = eventually("the link connects", || links.observe(guest.vm).open().cloned()).await;
    assert_eq!((open.last_message_at, open.skew, open.counters.bytes), (None, None, 0));
    let state = links.watch(guest.vm).expect("it has a place");
    assert_eq!(*state.borrow(), LinkState { open_and_heard: false, concurrency: 1, ended: None });
    let command = GuestCommand::Safe(SafeAction::OsInfo);
    let refused = links.execute(guest.vm, CommandId::generate(), &command, DEADLINE).await;
    assert_eq!(refused, Err(LinkError::NotConnected));
    assert_eq!((guest.connections(), inbox.frames.len()), (1, 0));

    drop(other);
    eventually("the agent is heard", || links.observe(guest.vm).open()?.last_message_at).await;
    assert_eq!(*state.borrow(), LinkState { open_and_heard: true, concurrency: 2, ended: None });
    let outcome = links.execute(guest.vm, CommandId::generate(), &command, DEADLINE).await;
    assert!(matches!(outcome, Ok(CommandOutcome::Answered { success: true, .. })), "{outcome:?}");
    assert_eq!(guest.received_of("SafeCommand").len(), 1, "nothing was written before it was heard");
}

#[tokio::test]
async fn a_channel_that_closes_unheard_is_tried_more_and_more_seldom() {
    let base = Duration::from_millis(40);
    let dir = tempfile::tempdir().unwrap();
    let times = Arc::new(Mutex::new(Vec::new()));
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), {
        let times = Arc::clone(&times);
        move |_stream, _received| {
            times.lock().unwrap().push(Instant::now());
            std::future::ready(Ok(()))
        }
    });
    let (links, _inbox) = Links::new(AgentsConfig { reconnect_base: base, ..AgentsConfig::default() });
    let asked = Instant::now();
    links.open(guest.vm, guest.path.clone());
    // As the loop does, which looks at a VM whenever something happens to it.
    let asking = tokio::spawn({
        let (links, vm, path) = (links.clone(), guest.vm, guest.path.clone());
        async move {
            loop {
                tokio::time::sleep(base / 4).await;
                links.open(vm, path.clone());
            }
        }
    });
    let times = eventually("seven attempts", || {
        let times = times.lock().unwrap();
        (times.len() >= 7).then(|| times.clone())
    })
    .await;
    assert!(times[0] - asked < Duration::from_secs(2), "the first one is made at once");
    for (n, pair) in (0u32..).zip(times.windows(2)) {
        let least = base * 2u32.pow(n);
        // A timer may be a millisecond early by the clock of the other side.
        let waited = pair[1] - pair[0] + Duration::from_millis(2);
        assert!(waited >= least, "attempt {} came after {waited:?}, not {least:?}", n + 2);
    }
    let LinkObservation::Connecting { last_error: Some(why), .. } = links.observe(guest.vm) else {
        panic!("it is open")
    };
    assert!(why.contains("closed the channel"), "{why}");

    // Another socket is news: what failed before says nothing of it.
    let (vm, dir) = (guest.vm, dir.path());
    drop(guest);
    let again = FakeGuest::listen(dir, vm, |s, r| well_behaved(s, r, 1, Vec::new()));
    eventually("the new socket is tried", || (again.connections() == 1).then_some(())).await;
    let waited = times[6].elapsed();
    assert!(waited < base * 2u32.pow(6), "the new socket was tried after {waited:?} only");
    eventually("the agent is heard", || links.observe(vm).open()?.last_message_at).await;
    asking.abort();
}

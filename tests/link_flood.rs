//! A guest that sends without end slows itself down and nobody else; its own commands are still
//! answered. The same when nobody takes the frames.

mod support;

use std::time::Duration;

use infinibay::{
    agents::Links,
    config::AgentsConfig,
    vm::{CommandId, CommandOutcome, GuestCommand, LinkCounters, SafeAction, VmId},
};
use support::guest::{DEADLINE, FakeGuest, eventually, flooding, metrics_line, well_behaved};

async fn runs(links: &Links, vm: VmId) -> Duration {
    let start = tokio::time::Instant::now();
    let command = GuestCommand::Safe(SafeAction::OsInfo);
    let outcome = links.execute(vm, CommandId::generate(), &command, DEADLINE).await.expect("connected");
    assert!(matches!(outcome, CommandOutcome::Answered { success: true, .. }), "{outcome:?}");
    start.elapsed()
}

fn counters(links: &Links, vm: VmId) -> Option<LinkCounters> {
    links.observe(vm).open().map(|open| open.counters)
}

async fn survives(flood: Vec<u8>, what: &str, is_over: fn(&LinkCounters) -> bool) {
    let dir = tempfile::tempdir().expect("a directory");
    let loud = FakeGuest::listen(dir.path(), VmId::generate(), move |s, r| flooding(s, r, flood.clone()));
    let quiet = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| well_behaved(s, r, 1, Vec::new()));
    // Nobody takes frames from this inbox: the links must not care.
    let (links, inbox) = Links::new(AgentsConfig::default());
    for guest in [&loud, &quiet] {
        links.open(guest.vm, guest.path.clone());
    }
    eventually(what, || counters(&links, loud.vm).filter(is_over)).await;
    for _ in 0..3 {
        runs(&links, loud.vm).await;
        let waited = runs(&links, quiet.vm).await;
        assert!(waited < Duration::from_secs(2), "{what}: the neighbour waited {waited:?}");
    }
    assert_eq!(loud.connections(), 1, "{what}");
    assert!(inbox.frames.len() <= 256, "{what}");
}

#[tokio::test]
async fn of_readings() {
    survives(metrics_line(3.0).into_bytes(), "readings are dropped", |c| c.dropped > 1000).await;
}

#[tokio::test]
async fn of_garbage() {
    survives(b"x\n".repeat(10_000), "garbage is counted", |c| c.malformed + c.dropped > 20_000).await;
}

#[tokio::test]
async fn of_lines_that_would_have_to_be_read_again_and_again() {
    let line = [b"{\"type\":".repeat(100_000), b"\n".to_vec()].concat();
    survives(line, "spoilt lines are counted", |c| c.oversized + c.malformed + c.dropped > 5).await;
}

#[tokio::test]
async fn over_the_rate_nothing_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let flood = b"nonsense\n".repeat(1000);
    let loud = FakeGuest::listen(dir.path(), VmId::generate(), move |s, r| flooding(s, r, flood.clone()));
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(loud.vm, loud.path.clone());
    let is_over = |c: &LinkCounters| c.dropped > 5000;
    let seen = eventually("the flood is dropped", || counters(&links, loud.vm).filter(is_over)).await;
    // A burst, and what the rate allows meanwhile.
    assert!(seen.malformed < 1000, "{seen:?}");
}

#[tokio::test]
async fn of_overlong_lines() {
    let line = [vec![b'x'; 3 << 20], b"\n".to_vec()].concat();
    survives(line, "an overlong line is counted", |c| c.oversized > 0).await;
}

#[tokio::test]
async fn of_signs_of_life() {
    let keep_alive = b"{\"type\":\"keep_alive\",\"sequence_number\":7,\"timestamp\":1790000000}\n";
    survives(keep_alive.repeat(100), "keep_alives are counted", |c| c.frames + c.dropped > 5000).await;
}

#[tokio::test]
async fn answers_that_were_asked_for_cost_a_guest_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| well_behaved(s, r, 1, Vec::new()));
    // A line a second and two at once: the greeting and the first reading take these.
    let config = AgentsConfig { max_frames_per_second: 1, ..AgentsConfig::default() };
    let (links, _inbox) = Links::new(config);
    links.open(guest.vm, guest.path.clone());
    eventually("the guest is heard", || links.observe(guest.vm).open()?.last_message_at).await;
    // At the rate of what nobody asked for each would rest for a tenth of a second, all of them for
    // longer than the deadline.
    let all = async {
        for _ in 0..300 {
            runs(&links, guest.vm).await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("answers are not held up");
    assert_eq!(links.counters(guest.vm).dropped, 0);
}

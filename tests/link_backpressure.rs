//! A receiver that is slower than the guests makes them wait and loses nothing; one that is stuck
//! stops neither reading nor the answers of commands.

mod support;

use std::{collections::HashMap, time::Duration};

use infinibay::{
    agents::{GuestFrame, Links},
    config::AgentsConfig,
    vm::{CommandId, CommandOutcome, GuestCommand, SafeAction, VmId},
};
use serde_json::Value;
use support::guest::{DEADLINE, FakeGuest, eventually, metrics_line, well_behaved};

/// Frames that wait in the channel to the receiver.
const CHANNEL: usize = 256;

fn offering(dir: &std::path::Path, readings: u32) -> FakeGuest {
    let opening: String = (0..readings).map(|n| metrics_line(f64::from(n) / 100.0)).collect();
    FakeGuest::listen(dir, VmId::generate(), move |s, r| well_behaved(s, r, 1, opening.clone().into_bytes()))
}

fn unlimited() -> AgentsConfig {
    AgentsConfig { max_frames_per_second: 10_000, ..AgentsConfig::default() }
}

fn number(frame: &GuestFrame) -> (VmId, u64) {
    let GuestFrame::Metrics { vm, system, .. } = frame else { panic!("{frame:?}") };
    let system: Value = serde_json::from_str(&system.text).expect("JSON");
    let hundredths = system["cpu"]["usage_percent"].as_f64().expect("a number") * 100.0;
    (*vm, format!("{hundredths:.0}").parse().expect("a whole number"))
}

#[tokio::test]
async fn a_slow_receiver_gets_everything_from_everybody_in_order() {
    const LINKS: usize = 40;
    const READINGS: u32 = 60;
    let dir = tempfile::tempdir().unwrap();
    let guests: Vec<FakeGuest> = (0..LINKS).map(|_| offering(dir.path(), READINGS)).collect();
    let (links, mut inbox) = Links::new(unlimited());
    for guest in &guests {
        links.open(guest.vm, guest.path.clone());
    }
    eventually("the channel is full", || (inbox.frames.len() == CHANNEL).then_some(())).await;
    let mut got: HashMap<VmId, Vec<u64>> = HashMap::new();
    // Each has one reading besides, of 5 %, before these.
    for n in 0..LINKS * (READINGS as usize + 1) {
        let frame = tokio::time::timeout(DEADLINE, inbox.frames.recv()).await.expect("a frame in time");
        let (vm, number) = number(&frame.expect("the links live"));
        got.entry(vm).or_default().push(number);
        if n % 32 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let expected: Vec<u64> = std::iter::once(500).chain(0..u64::from(READINGS)).collect();
    for guest in &guests {
        assert_eq!(got[&guest.vm], expected);
        let counters = links.observe(guest.vm).counters();
        assert_eq!((counters.dropped, guest.connections()), (0, 1), "{counters:?}");
    }
}

#[tokio::test]
async fn a_stuck_receiver_holds_an_answer_for_no_more_than_a_second_or_so() {
    let dir = tempfile::tempdir().unwrap();
    let guest = offering(dir.path(), 600);
    let (links, inbox) = Links::new(unlimited());
    links.open(guest.vm, guest.path.clone());
    eventually("the channel is full", || (inbox.frames.len() == CHANNEL).then_some(())).await;
    let asked = tokio::time::Instant::now();
    let command = GuestCommand::Safe(SafeAction::OsInfo);
    let outcome = links.execute(guest.vm, CommandId::generate(), &command, DEADLINE).await;
    assert!(matches!(outcome, Ok(CommandOutcome::Answered { success: true, .. })), "{outcome:?}");
    // Without a command reading would have been held for five seconds.
    assert!(asked.elapsed() < Duration::from_secs(4), "the answer took {:?}", asked.elapsed());
    assert!(links.observe(guest.vm).counters().dropped > 0, "the answer was behind more than can be kept");
}

#[tokio::test]
async fn a_stuck_receiver_costs_readings_only_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let guest = offering(dir.path(), 600);
    let (links, inbox) = Links::new(unlimited());
    links.open(guest.vm, guest.path.clone());
    eventually("the channel is full", || (inbox.frames.len() == CHANNEL).then_some(())).await;
    let full = tokio::time::Instant::now();
    eventually("the link reads on", || (links.observe(guest.vm).counters().dropped > 200).then_some(()))
        .await;
    assert!(full.elapsed() > Duration::from_secs(4), "nothing is dropped before its time");
    assert_eq!(inbox.frames.len(), CHANNEL);
}

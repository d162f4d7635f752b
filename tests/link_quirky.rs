//! The agent in the field loses the second of two lines that wait together, answers without a
//! type and does not answer what it does not know. Callers must not notice the first two, and
//! must not wait for ever for the third.

mod support;

use std::time::Duration;

use infinibay::{
    agents::Links,
    config::AgentsConfig,
    vm::{CommandId, CommandOutcome, GuestCommand, SafeAction, UnsafeCommand, VmId},
};
use support::guest::{DEADLINE, FakeGuest, eventually, quirky};

fn shell(line: &str) -> GuestCommand {
    GuestCommand::Unsafe(UnsafeCommand {
        raw_command: line.to_owned(),
        shell: None,
        working_dir: None,
        env_vars: [].into(),
    })
}

fn output(outcome: CommandOutcome) -> String {
    match outcome {
        CommandOutcome::Answered { success: true, stdout, .. } => stdout,
        other => panic!("no answer: {other:?}"),
    }
}

async fn heard(links: &Links, vm: VmId) {
    eventually("the agent is heard", || links.observe(vm).open().and_then(|open| open.last_message_at)).await;
}

#[tokio::test]
async fn commands_at_once_all_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| quirky(s, r, Vec::new()));
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    heard(&links, guest.vm).await;
    assert_eq!(links.concurrency(guest.vm), 1);

    let lines = ["echo one", "echo two", "echo three"];
    let ran = futures_util::future::join_all(lines.map(|line| {
        let links = links.clone();
        async move {
            let outcome = links.execute(guest.vm, CommandId::generate(), &shell(line), DEADLINE).await;
            output(outcome.expect("connected"))
        }
    }))
    .await;
    for (line, stdout) in lines.iter().zip(ran) {
        assert!(stdout.contains(line), "{line} was answered with {stdout}");
    }
}

#[tokio::test]
async fn answers_to_keep_alive_and_requests_for_readings_cost_no_command() {
    let dir = tempfile::tempdir().unwrap();
    let keep_alive = b"{\"type\":\"keep_alive\",\"sequence_number\":7,\"timestamp\":1790000000}\n".to_vec();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), move |s, r| quirky(s, r, keep_alive.clone()));
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    heard(&links, guest.vm).await;
    for n in 0..3 {
        links.request_metrics(guest.vm);
        let command = shell(&format!("echo {n}"));
        let outcome = links.execute(guest.vm, CommandId::generate(), &command, DEADLINE).await.unwrap();
        assert!(output(outcome).contains(&format!("echo {n}")));
    }
    eventually("the keep_alive is answered", || {
        guest.received_of("keep_alive_response").iter().find(|m| m["sequence_number"] == 7).cloned()
    })
    .await;
    eventually("a request for a reading arrives", || guest.received_of("Metrics").pop()).await;
}

#[tokio::test]
async fn an_action_it_does_not_know_ends_by_its_deadline_and_the_next_command_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| quirky(s, r, Vec::new()));
    let (links, _inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    heard(&links, guest.vm).await;
    let unknown = GuestCommand::Safe(SafeAction::ServiceList);
    let outcome =
        links.execute(guest.vm, CommandId::generate(), &unknown, Duration::from_secs(1)).await.unwrap();
    assert_eq!(outcome, CommandOutcome::TimedOut);
    let next = links.execute(guest.vm, CommandId::generate(), &shell("echo on"), DEADLINE).await.unwrap();
    assert!(output(next).contains("echo on"));
}

#[tokio::test]
async fn a_late_answer_is_known_as_such_and_frees_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |s, r| quirky(s, r, Vec::new()));
    let (links, mut inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    heard(&links, guest.vm).await;
    // Longer than its timeout and what its answer is waited for beyond that.
    let slow = shell("sleep 8000");
    let id = CommandId::generate();
    let outcome = links.execute(guest.vm, id, &slow, Duration::from_secs(1)).await.unwrap();
    assert_eq!(outcome, CommandOutcome::TimedOut);
    // Sent only after the late answer: two lines waiting together would cost this one.
    let next = links.execute(guest.vm, CommandId::generate(), &shell("echo on"), DEADLINE).await.unwrap();
    assert!(output(next).contains("echo on"));
    let counters = links.observe(guest.vm).open().expect("open").counters;
    assert_eq!((counters.late, counters.unsolicited), (1, 0));
    let late = inbox.late.try_recv().expect("the late answer is passed on");
    assert_eq!((late.vm, late.id), (guest.vm, id));
    assert!(output(late.outcome).contains("sleep 8000"));
}

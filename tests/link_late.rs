//! Answers that nobody waits for any more are passed on to those who may know their commands,
//! within bounds.

mod support;

use infinibay::{
    agents::Links,
    config::AgentsConfig,
    vm::{CommandId, CommandOutcome, GuestCommand, LinkEnd, SafeAction, VmId},
};
use serde_json::{Value, json};
use support::guest::{DEADLINE, FakeGuest, answer_line, eventually, handshake_line, well_behaved};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

async fn heard(links: &Links, vm: VmId) {
    eventually("the agent is heard", || links.observe(vm).open().and_then(|open| open.last_message_at)).await;
}

#[tokio::test]
async fn an_answer_that_comes_over_the_next_connection_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    // Hangs up upon its first command, and answers it when the host is back.
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), |stream: UnixStream, received| async move {
        let (reader, mut writer) = stream.into_split();
        writer.write_all(handshake_line(1).as_bytes()).await?;
        let open = received.lock().expect("received").first().cloned();
        if let Some(command) = open {
            writer.write_all(answer_line(&command["id"], "done meanwhile").as_bytes()).await?;
            std::future::pending::<()>().await;
        }
        let line = BufReader::new(reader).lines().next_line().await?.unwrap_or_default();
        received.lock().expect("received").push(serde_json::from_str(&line)?);
        Ok(())
    });
    let (links, mut inbox) = Links::new(AgentsConfig::default());
    links.open(guest.vm, guest.path.clone());
    heard(&links, guest.vm).await;
    let id = CommandId::generate();
    let command = GuestCommand::Safe(SafeAction::OsInfo);
    let outcome = links.execute(guest.vm, id, &command, DEADLINE).await;
    assert_eq!(outcome, Ok(CommandOutcome::Disconnected(LinkEnd::ChannelClosed)));

    let asked = chrono::Utc::now();
    let late =
        tokio::time::timeout(DEADLINE, inbox.late.recv()).await.expect("in time").expect("the links live");
    assert_eq!((late.vm, late.id), (guest.vm, id));
    assert!((late.received_at - asked).abs() < chrono::TimeDelta::seconds(60), "{}", late.received_at);
    let CommandOutcome::Answered { success: true, stdout, .. } = late.outcome else { panic!("{late:?}") };
    assert_eq!(stdout, "done meanwhile");
    let counters = eventually("it counts", || {
        Some(links.observe(guest.vm).counters()).filter(|counters| counters.unsolicited > 0)
    })
    .await;
    assert_eq!((counters.unsolicited, counters.late), (1, 0), "this connection did not know the command");
}

#[tokio::test]
async fn made_up_answers_are_counted_and_few_of_them_passed_on() {
    const STRAYS: u64 = 80;
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(200 << 10);
    let mut lines = answer_line(&json!(CommandId::generate().to_string()), &long);
    for _ in 2..STRAYS {
        lines += &answer_line(&json!(CommandId::generate().to_string()), "x");
    }
    lines += &answer_line(&json!("no id of ours"), "x");
    let guest = FakeGuest::listen(dir.path(), VmId::generate(), move |s, r| {
        well_behaved(s, r, 1, lines.clone().into_bytes())
    });
    let (links, mut inbox) = Links::new(AgentsConfig::default());
    let started = tokio::time::Instant::now();
    links.open(guest.vm, guest.path.clone());
    let counted = || links.observe(guest.vm).counters();
    eventually("all are counted", || (counted().unsolicited == STRAYS).then_some(())).await;
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    let passed: Vec<_> = std::iter::from_fn(|| inbox.late.try_recv().ok()).collect();
    assert!((16..=16 + seconds).contains(&passed.len()), "{} in {seconds} s", passed.len());
    let CommandOutcome::Answered { stdout, data, .. } = &passed[0].outcome else { panic!("{passed:?}") };
    assert!(stdout.len() < 70 << 10 && stdout.ends_with("[cut: the answer came late and was long]"));
    assert_eq!(data, &None::<Value>);
    assert_eq!(counted().dropped, 0);
    // They cost no command of ours.
    let command = GuestCommand::Safe(SafeAction::OsInfo);
    let outcome = links.execute(guest.vm, CommandId::generate(), &command, DEADLINE).await;
    assert!(matches!(outcome, Ok(CommandOutcome::Answered { success: true, .. })), "{outcome:?}");
}

#[tokio::test]
async fn those_that_nobody_takes_are_bounded_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let guests: Vec<FakeGuest> = (0..20)
        .map(|_| {
            let lines: String =
                (0..16).map(|_| answer_line(&json!(CommandId::generate().to_string()), "x")).collect();
            FakeGuest::listen(dir.path(), VmId::generate(), move |s, r| {
                well_behaved(s, r, 1, lines.clone().into_bytes())
            })
        })
        .collect();
    let (links, inbox) = Links::new(AgentsConfig::default());
    for guest in &guests {
        links.open(guest.vm, guest.path.clone());
    }
    let sum = || {
        let all = links.observe_all();
        all.values().map(|link| link.counters().dropped).sum::<u64>()
    };
    eventually("those without room are counted", || (sum() == 20 * 16 - 128).then_some(())).await;
    assert_eq!(inbox.late.len(), 128, "half of the room is left to what links know");
}

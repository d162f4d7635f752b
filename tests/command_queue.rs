//! Commands that wait: bounded, in turns, ended with a reason by whatever ends them first, and
//! cancelled by whoever may.
#![allow(clippy::unwrap_used, reason = "a story fails where it stands")]

#[macro_use]
mod support;

use std::{collections::HashMap, time::Duration};

use infinibay::{
    commands::CommandError,
    config::CommandsConfig,
    store::{CommandRecord, CommandStatus},
    vm::{CommandId, LinkEnd, VmId},
};
use support::{
    guest::{DEADLINE, eventually},
    journey::{Journey, one_at_a_time, shell, somebody},
};

fn why(record: &CommandRecord) -> String {
    let response = record.response.as_ref().expect("a response").tree();
    response["error"].as_str().expect("a reason").to_owned()
}

async fn one_is_sent(journey: &Journey) {
    eventually("the first is sent", || journey.guest.received_of("UnsafeCommand").pop()).await;
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

on_both! {
    async fn one_who_floods_keeps_himself_waiting(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        let (ana, bob) = (somebody(), somebody());
        let mut asked = vec![journey.begin(CommandId::generate(), &ana, "sleep 1500")];
        one_is_sent(&journey).await;
        for (index, (actor, line)) in
            [(&ana, "ana 1"), (&ana, "ana 2"), (&ana, "ana 3"), (&ana, "ana 4"), (&bob, "bob 1"), (&bob, "bob 2")]
                .into_iter()
                .enumerate()
        {
            asked.push(journey.begin(CommandId::generate(), actor, line));
            journey.logged(index + 2).await;
        }
        for task in asked {
            assert_eq!(task.await.unwrap().unwrap().status, CommandStatus::Answered);
        }
        assert_eq!(journey.lines(), ["sleep 1500", "ana 1", "bob 1", "ana 2", "bob 2", "ana 3", "ana 4"]);
        let log: HashMap<_, _> = journey.log().await.into_iter().map(|record| (record.id, record)).collect();
        assert_eq!(log.len(), 7);
        for record in log.values() {
            let (queue, run, all) = (record.queue_ms.unwrap(), record.run_ms.unwrap(), record.execution_ms.unwrap());
            assert!((0..=1).contains(&(all - queue - run)), "{record:?}");
            assert!(record.sent_at.is_some_and(|at| at >= record.created_at));
        }
    }

    async fn a_hundred_thousand_are_refused_beyond_the_bound_and_cost_nothing(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        let (actor, bob, mut waiting, mut refused) = (somebody(), somebody(), Vec::new(), 0);
        let (before, start) = (resident(), std::time::Instant::now());
        for _ in 0..100_000 {
            let mut asked = Box::pin(journey.commands.execute(
                &actor, journey.guest.vm, shell("sleep 600000"), Duration::from_secs(600),
            ));
            match futures_util::poll!(&mut asked) {
                std::task::Poll::Pending => waiting.push(asked),
                std::task::Poll::Ready(told) => {
                    assert!(matches!(told, Err(CommandError::ShareFull { limit: 24 })), "{told:?}");
                    let refusal = told.unwrap_err();
                    assert_eq!(refusal.code(), "QUEUE_FULL");
                    assert!(refusal.to_string().contains("24 commands of yours"), "{refusal}");
                    refused += 1;
                }
            }
        }
        assert_eq!((waiting.len(), refused), (24, 99_976));
        let grown = resident().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes more");
        assert!(start.elapsed() < DEADLINE, "it took {:?}", start.elapsed());
        // The rest of the places is for others.
        for _ in 0..8 {
            let asked = journey.commands.execute(
                &bob, journey.guest.vm, shell("sleep 600000"), Duration::from_secs(600),
            );
            let mut asked = Box::pin(asked);
            assert!(futures_util::poll!(&mut asked).is_pending(), "one who floods keeps others out");
            waiting.push(asked);
        }
        let told = journey.commands.execute(&bob, journey.guest.vm, shell("true"), Duration::from_secs(5)).await;
        assert!(matches!(told, Err(CommandError::QueueFull { limit: 32 })), "{told:?}");
        journey.logged(32).await;
        one_is_sent(&journey).await;

        // Whatever waits ends with the link, and says whether it ran.
        journey.links.close(journey.guest.vm, LinkEnd::VmStopped);
        let mut never_sent = 0;
        for task in waiting {
            let record = tokio::time::timeout(DEADLINE, task).await.expect("it ends at once").unwrap();
            assert_eq!(record.status, CommandStatus::Disconnected);
            assert!(why(&record).contains("the VM stopped"), "{}", why(&record));
            assert_eq!(record.sent_at.is_none(), why(&record).contains("was not sent and did not run"));
            never_sent += usize::from(record.sent_at.is_none());
        }
        assert_eq!((never_sent, journey.log().await.len()), (31, 32));
        assert_eq!(journey.lines().len(), 1);
    }

    async fn all_vms_together_have_a_bound_too(db: TestDatabase) {
        let config = CommandsConfig { queue_total: 3, ..CommandsConfig::default() };
        let journey = Journey::start(&db, config, one_at_a_time).await;
        let other = journey.another().await;
        let busy: Vec<_> =
            (0..3).map(|_| journey.begin(CommandId::generate(), &journey.actor, "sleep 1000")).collect();
        journey.logged(3).await;
        let refused = journey
            .commands
            .execute(&journey.actor, other.vm, shell("true"), Duration::from_secs(5))
            .await;
        assert!(matches!(refused, Err(CommandError::QueuesFull { limit: 3 })), "{refused:?}");
        assert!(journey.commands.has_room().is_err());
        for task in busy {
            assert_eq!(task.await.unwrap().unwrap().status, CommandStatus::Answered);
        }
        assert!(journey.commands.has_room().is_ok());
        assert!(other.received_of("UnsafeCommand").is_empty());
    }

    async fn the_reason_is_the_links(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        for (end, words) in [
            (LinkEnd::VmDeleted, "the VM was deleted"),
            (LinkEnd::Evicted, "to make room for another VM's"),
            (LinkEnd::ChannelClosed, "the link to the agent closed"),
        ] {
            let logged = journey.log().await.len();
            let sent = journey.lines().len();
            let first = journey.begin(CommandId::generate(), &journey.actor, "sleep 600000");
            eventually("it is sent", || (journey.lines().len() == sent + 1).then_some(())).await;
            let second = journey.begin(CommandId::generate(), &journey.actor, "waits");
            journey.logged(logged + 2).await;
            journey.links.close(journey.guest.vm, end);
            for (task, ran) in [(first, true), (second, false)] {
                let record = tokio::time::timeout(DEADLINE, task).await.expect("at once").unwrap().unwrap();
                assert_eq!(record.status, CommandStatus::Disconnected);
                let why = why(&record);
                assert!(why.contains(words) && why.contains("did not run") != ran, "{why}");
            }
            journey.links.open(journey.guest.vm, journey.guest.path.clone());
            journey.heard(journey.guest.vm).await;
        }
        assert!(!journey.lines().contains(&"waits".to_owned()));
    }

    async fn a_cancelled_command_is_not_sent_or_not_waited_for(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        let (vm, actor) = (journey.guest.vm, &journey.actor);
        let [first, second, third] = [CommandId::generate(), CommandId::generate(), CommandId::generate()];
        let sent = journey.begin(first, actor, "sleep 2000");
        one_is_sent(&journey).await;
        let queued = journey.begin(second, actor, "queued");
        journey.logged(2).await;
        // The id is taken as long as it is under way, and for ever after.
        let twice = journey.begin(second, actor, "queued").await.unwrap();
        assert!(matches!(twice, Err(CommandError::IdTaken)), "{twice:?}");

        let told = journey.commands.cancel(actor, vm, second).await.unwrap();
        assert_eq!((told.status, told.success, told.sent_at, told.queue_ms), (CommandStatus::Cancelled, Some(false), None, None));
        assert!(why(&told).contains("was not sent and did not run"), "{}", why(&told));
        assert_eq!(queued.await.unwrap().unwrap().response, told.response);

        let told = journey.commands.cancel(actor, vm, first).await.unwrap();
        assert_eq!((told.status, told.success), (CommandStatus::Cancelled, Some(false)));
        assert!(told.sent_at.is_some() && why(&told).contains("may still run"), "{}", why(&told));
        assert_eq!(sent.await.unwrap().unwrap().status, CommandStatus::Cancelled);
        // Its place stays taken until its answer, which is noted.
        let after = journey.begin(third, actor, "after").await.unwrap().unwrap();
        assert_eq!(after.status, CommandStatus::Answered);
        let start = tokio::time::Instant::now();
        let noted = loop {
            let noted = journey.store.command(first).await.unwrap().unwrap();
            if noted.late_at.is_some() {
                break noted;
            }
            assert!(start.elapsed() < DEADLINE, "the late answer is not noted");
        };
        assert_eq!(noted.status, CommandStatus::Cancelled);
        assert!(noted.late_response.unwrap().tree()["stdout"].as_str().unwrap().contains("sleep 2000"));
        assert!(after.sent_at >= noted.late_at, "{after:?}");

        let again = journey.commands.cancel(actor, vm, first).await.unwrap();
        assert_eq!((again.status, again.late_at), (CommandStatus::Cancelled, noted.late_at));
        let ended = journey.commands.cancel(actor, vm, third).await.unwrap();
        assert_eq!((ended.status, ended.response), (CommandStatus::Answered, after.response));
        for (vm, id) in [(vm, CommandId::generate()), (VmId::generate(), first)] {
            let unknown = journey.commands.cancel(actor, vm, id).await;
            assert!(matches!(unknown, Err(CommandError::NotFound)), "{unknown:?}");
        }
        let taken = journey.begin(first, actor, "again").await.unwrap();
        assert!(matches!(taken, Err(CommandError::IdTaken)), "{taken:?}");
        assert_eq!(journey.lines(), ["sleep 2000", "after"]);
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'vm.command.cancel'").await, 2);
    }

    async fn an_answer_after_its_time_is_noted_beside_the_outcome(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        let slow = shell("sleep 7500");
        let second = Duration::from_secs(1);
        let record = journey.commands.execute(&journey.actor, journey.guest.vm, slow, second).await.unwrap();
        assert_eq!((record.status, record.late_at), (CommandStatus::TimedOut, None));
        let start = tokio::time::Instant::now();
        let noted = loop {
            let noted = journey.store.command(record.id).await.unwrap().unwrap();
            if noted.late_at.is_some() {
                break noted;
            }
            assert!(start.elapsed() < DEADLINE, "the late answer is not noted");
        };
        assert_eq!((noted.status, noted.success, noted.response), (CommandStatus::TimedOut, Some(false), record.response));
        assert!(noted.late_response.unwrap().tree()["stdout"].as_str().unwrap().contains("sleep 7500"));
    }
}

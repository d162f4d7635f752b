//! A command's journey from a caller to a guest and back, with its log.
#![allow(clippy::unwrap_used, reason = "a story fails where it stands")]

#[macro_use]
mod support;

use std::{sync::Arc, time::Duration};

use infinibay::{
    commands::CommandError,
    config::CommandsConfig,
    events::Notice,
    store::{CommandStatus, NewCommand},
    vm::{CommandId, GuestCommand, LinkEnd, SafeAction, VmEvent, VmId},
};
use serde_json::json;
use support::{
    guest::{DEADLINE, FakeGuest, LONG_LIST, ends_commands, eventually, hangs_up, lists_packages},
    journey::{Journey, one_at_a_time, shell},
    sample,
};

on_both! {
    async fn a_command_is_answered_logged_and_told_and_its_secrets_are_not_kept(db: TestDatabase) {
        let mut journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        let record = journey.run(shell("deploy --password hunter2")).await.unwrap();
        assert_eq!((record.status, record.success), (CommandStatus::Answered, Some(true)));
        assert_eq!(record.requested_by, journey.actor.user);

        let sent = journey.guest.received_of("UnsafeCommand").pop().expect("it was sent");
        assert_eq!(sent["id"], json!(record.id.to_string()));
        assert_eq!((&sent["raw_command"], &sent["env_vars"]["TOKEN"]), (&json!("deploy --password hunter2"), &json!("hunter2")));
        assert_eq!(sent["timeout"], json!(15), "seconds");

        let kept = journey.store.command(record.id).await.unwrap().expect("it is logged");
        assert_eq!(kept.command["raw_command"], json!("deploy --password ***"));
        assert_eq!(kept.command["env_vars"], json!({"TOKEN": "***"}));
        assert_eq!(kept.response, record.response);
        assert_eq!((kept.status, kept.success, kept.execution_ms), (record.status, record.success, record.execution_ms));
        assert_eq!(kept.created_at, record.created_at);

        let told = tokio::time::timeout(DEADLINE, journey.told.next()).await.expect("told in time");
        let Some(Notice::Event(VmEvent::Command { command, success: true, .. })) = told else { panic!("{told:?}") };
        assert_eq!(command, record.id);
    }

    async fn a_long_output_is_cut_in_the_log(db: TestDatabase) {
        let config = CommandsConfig { max_output_bytes: 1024, ..CommandsConfig::default() };
        let journey = Journey::start(&db, config, one_at_a_time).await;
        let record = journey.run(shell(&"x".repeat(5000))).await.unwrap();
        let kept = journey.store.command(record.id).await.unwrap().unwrap().response.expect("a response").tree();
        assert_eq!(kept["stdout"].as_str().map(str::len), Some(1024));
        assert_eq!(kept["truncated"], json!(["stdout"]));
    }

    async fn what_is_not_accepted_is_not_logged_and_not_sent(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        let refused = journey.run(shell("")).await;
        assert!(matches!(refused, Err(CommandError::Invalid { .. })), "{refused:?}");
        journey.links.close(journey.guest.vm, LinkEnd::VmStopped);
        let refused = journey.run(shell("uptime")).await;
        assert!(matches!(refused, Err(CommandError::NotConnected)), "{refused:?}");
        assert!(journey.log().await.is_empty());
        assert!(journey.guest.received_of("UnsafeCommand").is_empty());
    }

    async fn more_than_may_wait_are_refused(db: TestDatabase) {
        let config = CommandsConfig { queue_per_vm: 3, ..CommandsConfig::default() };
        let journey = Arc::new(Journey::start(&db, config, one_at_a_time).await);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let journey = Arc::clone(&journey);
                tokio::spawn(async move { journey.run(shell("sleep 300")).await })
            })
            .collect();
        eventually("a command is sent", || journey.guest.received_of("UnsafeCommand").pop()).await;
        // Spawned before this one, but each takes its place only when it first runs.
        let refused = loop {
            match journey.run(shell("one more")).await {
                Err(error) => break error,
                Ok(_) if waiting.iter().all(tokio::task::JoinHandle::is_finished) => panic!("none was refused"),
                Ok(_) => {}
            }
        };
        assert!(matches!(refused, CommandError::QueueFull { limit: 3 }), "{refused:?}");
        for task in waiting {
            assert_eq!(task.await.unwrap().unwrap().status, CommandStatus::Answered);
        }
        assert!(journey.run(shell("again")).await.is_ok(), "places are given back");
    }

    async fn a_caller_that_leaves_loses_nothing(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        let gone = tokio::time::timeout(Duration::from_millis(100), journey.run(shell("sleep 500"))).await;
        assert!(gone.is_err(), "it was to leave before the answer");
        assert!(journey.commands.drain(DEADLINE).await);
        let log = journey.log().await;
        assert_eq!(log.len(), 1);
        assert_eq!((log[0].status, log[0].success), (CommandStatus::Answered, Some(true)));
    }

    async fn a_link_that_closes_is_an_outcome(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), |dir| {
            FakeGuest::listen(dir.path(), VmId::generate(), hangs_up)
        })
        .await;
        let record = journey.run(GuestCommand::Safe(SafeAction::OsInfo)).await.unwrap();
        assert_eq!((record.status, record.success), (CommandStatus::Disconnected, Some(false)));
        let kept = journey.store.command(record.id).await.unwrap().unwrap();
        assert_eq!(kept.status, CommandStatus::Disconnected);
        assert!(kept.response.is_some_and(|response| response.tree()["error"].is_string()));
    }

    async fn no_answer_in_time_is_an_outcome(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        let second = Duration::from_secs(1);
        let slow = shell("sleep 60000");
        let record = journey.commands.execute(&journey.actor, journey.guest.vm, slow, second).await.unwrap();
        assert_eq!(record.status, CommandStatus::TimedOut);
        // One that was sent is waited for a little longer than the agent was told.
        assert!(record.execution_ms.is_some_and(|ms| (6000..12_000).contains(&ms)), "{:?}", record.execution_ms);
        let said = record.response.expect("a response").tree()["error"].to_string();
        assert!(said.contains("may still run"), "{said}");
    }

    async fn a_command_that_the_agent_had_to_end_keeps_its_output(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), |dir| {
            FakeGuest::listen(dir.path(), VmId::generate(), ends_commands)
        })
        .await;
        let second = Duration::from_secs(1);
        let endless = shell("endless");
        let record = journey.commands.execute(&journey.actor, journey.guest.vm, endless, second).await.unwrap();
        assert_eq!((record.status, record.success), (CommandStatus::TimedOut, Some(false)));
        assert_eq!(journey.guest.received_of("UnsafeCommand")[0]["timeout"], 1, "the agent is told what was asked");
        let kept = journey.store.command(record.id).await.unwrap().unwrap();
        assert_eq!((kept.status, &kept.response), (CommandStatus::TimedOut, &record.response));
        let response = kept.response.expect("a response").tree();
        assert_eq!((&response["stdout"], &response["data"]["timed_out"]), (&json!("half"), &json!(true)));
    }

    async fn a_command_that_found_no_place_was_not_sent_and_says_so(db: TestDatabase) {
        let journey = Arc::new(Journey::start(&db, CommandsConfig::default(), one_at_a_time).await);
        let first = tokio::spawn({
            let journey = Arc::clone(&journey);
            async move { journey.run(shell("sleep 3000")).await }
        });
        eventually("the first is sent", || journey.guest.received_of("UnsafeCommand").pop()).await;
        let second = Duration::from_secs(1);
        let late = shell("late");
        let record = journey.commands.execute(&journey.actor, journey.guest.vm, late, second).await.unwrap();
        assert_eq!((record.status, record.success), (CommandStatus::TimedOut, Some(false)));
        // What was never sent has no answer to be waited for.
        assert!(record.execution_ms.is_some_and(|ms| (1000..3000).contains(&ms)), "{:?}", record.execution_ms);
        let said = record.response.expect("a response").tree()["error"].to_string();
        assert!(said.contains("was not sent and did not run"), "{said}");
        assert_eq!(first.await.unwrap().unwrap().status, CommandStatus::Answered);
        journey.run(shell("after")).await.unwrap();
        assert_eq!(journey.guest.received_of("UnsafeCommand").len(), 2, "it was sent after all");
    }

    async fn a_long_list_is_kept_whole(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), |dir| {
            FakeGuest::listen(dir.path(), VmId::generate(), lists_packages)
        })
        .await;
        let record = journey.run(GuestCommand::Safe(SafeAction::PackageList)).await.unwrap();
        let kept = journey.store.command(record.id).await.unwrap().unwrap().response.expect("a response").tree();
        assert_eq!(kept["data"]["packages"].as_array().map(Vec::len), Some(LONG_LIST));
        assert_eq!(kept["truncated"], json!([]));
    }

    async fn an_outcome_is_noted_when_the_database_is_back(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        db.tamper(
            "CREATE TRIGGER away BEFORE UPDATE ON command_log BEGIN SELECT RAISE(ABORT, 'away'); END",
            "ALTER TABLE command_log ADD CONSTRAINT away CHECK (status = 'pending')",
        )
        .await;
        // Its caller is told what came of it, after all attempts.
        let record = journey.run(shell("true")).await.unwrap();
        assert_eq!(record.status, CommandStatus::Answered);
        assert_eq!(journey.log().await[0].status, CommandStatus::Pending);
        db.tamper("DROP TRIGGER away", "ALTER TABLE command_log DROP CONSTRAINT away").await;
        assert!(journey.commands.drain(DEADLINE).await, "the outcome waits on");
        let kept = journey.store.command(record.id).await.unwrap().unwrap();
        assert_eq!((kept.status, kept.success), (CommandStatus::Answered, Some(true)));
        assert_eq!((kept.response, kept.execution_ms), (record.response, record.execution_ms));
    }

    async fn what_a_dead_controller_left_pending_is_lost_and_not_sent_again(db: TestDatabase) {
        let journey = Journey::start(&db, CommandsConfig::default(), one_at_a_time).await;
        let left = NewCommand {
            id: CommandId::generate(),
            vm: journey.guest.vm,
            kind: "safe",
            command: json!({"action": "OsInfo"}),
            requested_by: journey.actor.user,
            created_at: sample::now(),
        };
        journey.store.insert_command(&left, DEADLINE).await.unwrap();
        assert_eq!(journey.commands.sweep().await.unwrap(), 1);
        assert_eq!(journey.store.command(left.id).await.unwrap().unwrap().status, CommandStatus::Lost);
        assert_eq!(journey.commands.sweep().await.unwrap(), 0);
        journey.run(shell("after")).await.unwrap();
        assert!(journey.guest.received_of("SafeCommand").is_empty());
    }
}

//! Every command that was logged ends in exactly one outcome, and what guests report is kept.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::time::Duration;

use chrono::TimeDelta;
use infinibay::{
    store::{
        CommandEnd, CommandSearch, CommandStatus, LateNote, NewCommand, NotLogged, Page, Store, StoreError,
        VmErrorRecord,
    },
    vm::{CommandId, HostId, UserId, VmId},
};
use serde_json::{Value, json};
use support::sample::{create, new_vm, now};
use uuid::Uuid;

async fn log(store: &Store, vm: VmId) -> NewCommand {
    let command = NewCommand {
        id: CommandId::generate(),
        vm,
        kind: "safe",
        command: json!({ "action": "ServiceControl", "service": "nginx" }),
        requested_by: UserId::generate(),
        created_at: now(),
    };
    store.insert_command(&command, LIMIT).await.expect("logging a command");
    command
}

/// Longer than any test's database takes.
const LIMIT: Duration = Duration::from_secs(30);

fn end(status: CommandStatus, success: bool, response: Option<&Value>, execution_ms: i64) -> CommandEnd {
    let response = response.map(ToString::to_string);
    CommandEnd {
        status,
        success,
        response,
        sent_at: Some(now()),
        queue_ms: Some(1),
        run_ms: Some(2),
        execution_ms,
    }
}

on_both! {
    async fn the_first_outcome_stands(db: TestDatabase) {
        let store = db.store().await;
        let asked = log(&store, VmId::generate()).await;
        let pending = store.command(asked.id).await.unwrap().unwrap();
        assert_eq!(pending.status, CommandStatus::Pending);
        assert_eq!((pending.success, pending.execution_ms, pending.response), (None, None, None));
        assert_eq!((pending.vm, pending.kind.as_str()), (asked.vm, "safe"));
        assert_eq!((pending.command, pending.created_at), (asked.command, asked.created_at));
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'vm.command'").await, 1);

        let answer = json!({ "stdout": "a\u{0}b", "n": 1 });
        let outcomes = [
            (CommandStatus::Answered, true, Some(&answer), 12),
            (CommandStatus::TimedOut, false, None, 9000),
        ];
        for (status, success, response, ms) in outcomes {
            store.finish_command(asked.id, &end(status, success, response, ms)).await.unwrap();
            let ended = store.command(asked.id).await.unwrap().unwrap();
            assert_eq!(ended.status, CommandStatus::Answered);
            assert_eq!((ended.success, ended.execution_ms), (Some(true), Some(12)));
            assert_eq!(ended.response.map(|text| text.tree()), Some(answer.clone()));
        }

        let nobody = CommandId::generate();
        let refused = store.finish_command(nobody, &end(CommandStatus::Answered, true, None, 1)).await;
        assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
        assert!(store.command(nobody).await.unwrap().is_none());
        let open = log(&store, asked.vm).await;
        let refused = store.finish_command(open.id, &end(CommandStatus::Pending, true, None, 1)).await;
        assert!(refused.is_err(), "pending is no outcome: {refused:?}");
    }

    async fn an_answer_that_comes_late_is_noted_once_beside_the_outcome(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        let words = json!({ "stdout": "late" }).to_string();
        let note = async |vm, id| store.note_late_answer(vm, id, &words, now()).await.unwrap();
        for status in
            [CommandStatus::TimedOut, CommandStatus::Cancelled, CommandStatus::Disconnected, CommandStatus::Lost]
        {
            let command = log(&store, vm).await;
            assert_eq!(note(vm, command.id).await, LateNote::Pending);
            store.finish_command(command.id, &end(status, false, None, 1)).await.unwrap();
            assert_eq!(note(VmId::generate(), command.id).await, LateNote::Unwanted, "another VM's");
            assert_eq!(note(vm, command.id).await, LateNote::Noted);
            assert_eq!(note(vm, command.id).await, LateNote::Unwanted, "noted twice");
            let noted = store.command(command.id).await.unwrap().unwrap();
            assert_eq!((noted.status, noted.success), (status, Some(false)));
            assert_eq!(noted.late_response.map(|text| text.tree()), Some(json!({ "stdout": "late" })));
            assert!(noted.late_at.is_some());
        }
        let answered = log(&store, vm).await;
        store.finish_command(answered.id, &end(CommandStatus::Answered, true, None, 1)).await.unwrap();
        assert_eq!(note(vm, answered.id).await, LateNote::Unwanted);
        assert_eq!(note(vm, CommandId::generate()).await, LateNote::Unwanted);
    }

    async fn an_id_is_one_commands_and_what_was_given_up_is_never_pending(db: TestDatabase) {
        let store = db.store().await;
        let command = log(&store, VmId::generate()).await;
        let again = store.insert_command(&command, LIMIT).await;
        assert!(matches!(again, Err(NotLogged::Refused(StoreError::IdTaken))), "{again:?}");
        assert_eq!(db.number("SELECT count(*) FROM audit_log").await, 1);
        // Its row was written, or is still on its way: either way it ends.
        let response = json!({ "error": "never sent" }).to_string();
        store.void_command(&command, &response).await.unwrap();
        let slow = NewCommand { id: CommandId::generate(), ..command.clone() };
        store.void_command(&slow, &response).await.unwrap();
        assert!(store.insert_command(&slow, LIMIT).await.is_err(), "written after all");
        for id in [command.id, slow.id] {
            let ended = store.command(id).await.unwrap().unwrap();
            assert_eq!((ended.status, ended.sent_at), (CommandStatus::Cancelled, None));
            assert_eq!(ended.response.map(|text| text.tree()), Some(json!({ "error": "never sent" })));
        }
        // A second attempt under the id that the first gave up ran, and is not what is voided.
        let second = log(&store, command.vm).await;
        let other = UserId::generate();
        for first in [
            NewCommand { created_at: second.created_at - TimeDelta::microseconds(1), ..second.clone() },
            NewCommand { requested_by: other, ..second.clone() },
        ] {
            store.void_command(&first, &response).await.unwrap();
            assert_eq!(store.command(second.id).await.unwrap().unwrap().status, CommandStatus::Pending);
        }
        let done = log(&store, command.vm).await;
        store.finish_command(done.id, &end(CommandStatus::Answered, true, None, 1)).await.unwrap();
        store.void_command(&done, &response).await.unwrap();
        assert_eq!(store.command(done.id).await.unwrap().unwrap().status, CommandStatus::Answered);
    }

    async fn every_outcome_comes_back(db: TestDatabase) {
        let store = db.store().await;
        for status in [
            CommandStatus::Answered,
            CommandStatus::TimedOut,
            CommandStatus::Disconnected,
            CommandStatus::Lost,
            CommandStatus::Cancelled,
        ] {
            let command = log(&store, VmId::generate()).await;
            store.finish_command(command.id, &end(status, false, None, 1)).await.unwrap();
            assert_eq!(store.command(command.id).await.unwrap().unwrap().status, status);
        }
    }

    async fn a_command_is_logged_with_its_audit_row_or_not_at_all(db: TestDatabase) {
        let store = db.store().await;
        db.tamper(
            "CREATE TRIGGER broken BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'broken'); END",
            "ALTER TABLE audit_log ADD CONSTRAINT broken CHECK (FALSE)",
        )
        .await;
        let command = NewCommand {
            id: CommandId::generate(),
            vm: VmId::generate(),
            kind: "unsafe",
            command: json!({}),
            requested_by: UserId::generate(),
            created_at: now(),
        };
        assert!(store.insert_command(&command, LIMIT).await.is_err());
        assert!(store.command(command.id).await.unwrap().is_none());
    }

    async fn what_a_dead_controller_left_is_lost(db: TestDatabase) {
        let store = db.store().await;
        let (host, owner) = (HostId::generate(), UserId::generate());
        let (ours, theirs) = (new_vm(host, owner, "a"), new_vm(HostId::generate(), owner, "a"));
        create(&store, &ours).await;
        create(&store, &theirs).await;
        let answered = log(&store, ours.id).await;
        store.finish_command(answered.id, &end(CommandStatus::Answered, true, None, 3)).await.unwrap();
        let pending = [log(&store, ours.id).await, log(&store, VmId::generate()).await];
        let elsewhere = log(&store, theirs.id).await;
        store.close().await;

        // The next controller of this host.
        let store = db.store().await;
        let _lock = store.lock(host).await.unwrap();
        assert_eq!(store.lose_pending_commands(now()).await.unwrap(), 2);
        assert_eq!(store.lose_pending_commands(now()).await.unwrap(), 0);
        for command in &pending {
            let lost = store.command(command.id).await.unwrap().unwrap();
            assert_eq!(lost.status, CommandStatus::Lost);
            assert_eq!((lost.success, lost.execution_ms), (Some(false), None));
        }
        let status = async |id| store.command(id).await.unwrap().unwrap().status;
        assert_eq!(status(answered.id).await, CommandStatus::Answered);
        assert_eq!(status(elsewhere.id).await, CommandStatus::Pending, "its controller may be alive");

        // An answer that comes after all changes nothing.
        store.finish_command(pending[0].id, &end(CommandStatus::Answered, true, None, 1)).await.unwrap();
        assert_eq!(status(pending[0].id).await, CommandStatus::Lost);
    }

    async fn the_log_comes_in_pages_newest_first(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        let start = now();
        let mut ids = Vec::new();
        for n in 0..7 {
            log(&store, VmId::generate()).await;
            let mut command = log(&store, vm).await;
            // Two of each moment: the id decides between them.
            command.id = CommandId::generate();
            command.created_at = start + TimeDelta::seconds(10 + n / 2);
            store.insert_command(&command, LIMIT).await.unwrap();
            ids.push(command.id);
        }
        let total = 14;
        let newest: Vec<_> = ids.into_iter().rev().collect();
        for first in [1, 3, 14, 20] {
            let mut seen = Vec::new();
            let mut after = None;
            loop {
                let page = store.command_log(vm, &CommandSearch::default(), Page { first, after }).await.unwrap();
                seen.extend(page.nodes.iter().map(|command| command.id));
                after = seen.last().map(|id| id.uuid());
                if !page.has_next {
                    break;
                }
                assert_eq!(page.nodes.len(), first as usize);
            }
            assert_eq!(seen.len(), total, "by {first}");
            assert_eq!(seen[..newest.len()], newest, "by {first}");
        }
        let foreign = log(&store, VmId::generate()).await;
        let page = Page { first: 5, after: Some(foreign.id.uuid()) };
        assert!(store.command_log(vm, &CommandSearch::default(), page).await.unwrap().nodes.is_empty(), "another VM's row is no place here");
    }

    async fn a_page_of_long_answers_ends_early_and_says_so(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        // A few hundred KiB of text, and a dozen MiB in memory.
        let bomb = json!(vec![json!({ "a": 0 }); 9000]);
        for _ in 0..5 {
            let command = log(&store, vm).await;
            store.finish_command(command.id, &end(CommandStatus::Answered, true, Some(&bomb), 1)).await.unwrap();
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.command_log(vm, &CommandSearch::default(), Page { first: 50, after }).await.unwrap();
            assert!((1..=3).contains(&page.nodes.len()), "{}", page.nodes.len());
            seen.extend(page.nodes.iter().map(|command| command.id));
            after = seen.last().map(|id| id.uuid());
            if !page.has_next {
                break;
            }
        }
        assert_eq!(seen.len(), 5);
    }

    async fn a_guests_errors_are_kept_once(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        let error = |n: i64| VmErrorRecord {
            id: Uuid::now_v7(),
            vm,
            error: format!("error {n} \0"),
            details: json!({ "n": n, "nul": "\u{0}" }),
            timestamp: chrono::DateTime::<chrono::Utc>::MAX_UTC,
            created_at: now() + TimeDelta::seconds(n),
        };
        let errors: Vec<_> = (0..5).map(error).collect();
        for error in errors.iter().chain(&errors) {
            store.insert_vm_error(error).await.unwrap();
        }
        let page = store.vm_errors(vm, Page { first: 3, after: None }).await.unwrap();
        assert!(page.has_next);
        let after = page.nodes.last().map(|error| error.id);
        let rest = store.vm_errors(vm, Page { first: 3, after }).await.unwrap();
        assert!(!rest.has_next);
        let got: Vec<_> = page.nodes.iter().chain(&rest.nodes).collect();
        assert_eq!(got.iter().map(|e| e.id).collect::<Vec<_>>(), errors.iter().rev().map(|e| e.id).collect::<Vec<_>>());
        assert_eq!(got[0].details, errors[4].details);
        assert_eq!(got[0].error, "error 4 \u{fffd}");
        assert_eq!(got[0].created_at, errors[4].created_at);
    }
}

//! How a command and its answer are kept: without secrets, and bounded.

use serde_json::{Map, Value, json};

use crate::{
    agents::cut,
    store::CommandStatus,
    vm::{CommandOutcome, GuestCommand, redact_command_line},
};

/// `safe` or `unsafe`.
pub(super) fn kind(command: &GuestCommand) -> &'static str {
    match command {
        GuestCommand::Safe(_) => "safe",
        GuestCommand::Unsafe(_) => "unsafe",
    }
}

/// The command as it may be kept: no value of an environment variable, and no secret that can
/// be told as such in the line.
pub(super) fn kept_command(command: &GuestCommand) -> Value {
    match command {
        GuestCommand::Safe(action) => json!(action),
        GuestCommand::Unsafe(command) => {
            let env: Map<String, Value> =
                command.env_vars.keys().map(|key| (key.clone(), json!("***"))).collect();
            json!({
                "raw_command": redact_command_line(&command.raw_command),
                "shell": command.shell,
                "working_dir": command.working_dir,
                "env_vars": env,
            })
        }
    }
}

/// An outcome as the log keeps it.
#[derive(Debug, PartialEq)]
pub(super) struct Kept {
    pub(super) status: CommandStatus,
    pub(super) success: bool,
    /// `{exit_code, stdout, stderr, data, execution_ms, truncated: [fields], error}`.
    pub(super) response: Value,
}

/// Why a command has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It was never sent.
    NotSent,
}

/// The outcome, each stream cut to `max` bytes; a `data` that is larger as JSON is left out.
pub(super) fn kept_outcome(outcome: Result<CommandOutcome, Unanswered>, max: usize) -> Kept {
    let unanswered =
        |status, error: &str| Kept { status, success: false, response: json!({ "error": error }) };
    match outcome {
        Ok(CommandOutcome::Answered {
            success,
            exit_code,
            mut stdout,
            mut stderr,
            mut data,
            execution_ms,
        }) => {
            let mut truncated = Vec::new();
            if cut(&mut stdout, max) {
                truncated.push("stdout");
            }
            if cut(&mut stderr, max) {
                truncated.push("stderr");
            }
            if data.as_ref().is_some_and(|data| data.to_string().len() > max) {
                data = None;
                truncated.push("data");
            }
            let response = json!({
                "exit_code": exit_code,
                "stdout": stdout,
                "stderr": stderr,
                "data": data,
                "execution_ms": execution_ms,
                "truncated": truncated,
                "error": null,
            });
            Kept { status: CommandStatus::Answered, success, response }
        }
        Ok(CommandOutcome::TimedOut) => {
            unanswered(CommandStatus::TimedOut, "the agent did not answer in time; the command may still run")
        }
        Ok(CommandOutcome::Disconnected) => unanswered(
            CommandStatus::Disconnected,
            "the link to the agent closed before it answered; the command may have run",
        ),
        Err(Unanswered::NotSent) => unanswered(
            CommandStatus::Disconnected,
            "the agent was not connected any more; the command was not sent",
        ),
        Ok(CommandOutcome::Lost) => unanswered(
            CommandStatus::Lost,
            "the controller ended before the answer; the command may have run",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{SafeAction, UnsafeCommand};

    #[test]
    fn no_secret_is_kept() {
        let command = GuestCommand::Unsafe(UnsafeCommand {
            raw_command: "mysql -phunter2; DB_PASSWORD=hunter2 run".to_owned(),
            shell: None,
            working_dir: Some("/srv".to_owned()),
            env_vars: [("TOKEN".to_owned(), "hunter2".to_owned()), ("LANG".to_owned(), "C".to_owned())]
                .into(),
        });
        let kept = kept_command(&command);
        assert_eq!(
            kept,
            json!({
                "raw_command": "mysql -p***; DB_PASSWORD=*** run",
                "shell": null,
                "working_dir": "/srv",
                "env_vars": {"TOKEN": "***", "LANG": "***"},
            })
        );
    }

    #[test]
    fn a_safe_action_is_kept_as_on_the_wire() {
        let command = GuestCommand::Safe(SafeAction::PackageInstall { package: "vim".to_owned() });
        assert_eq!(kept_command(&command), json!({"action": "PackageInstall", "package": "vim"}));
        assert_eq!(kind(&command), "safe");
    }

    #[test]
    fn answers_are_bounded_and_say_what_was_left_out() {
        let answered = |stdout: &str, stderr: &str, data: Option<Value>| CommandOutcome::Answered {
            success: true,
            exit_code: Some(0),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            data,
            execution_ms: Some(3),
        };
        let kept = kept_outcome(Ok(answered("abcdä", "1234", Some(json!([1, 2])))), 5);
        assert_eq!((kept.status, kept.success), (CommandStatus::Answered, true));
        assert_eq!(
            kept.response,
            json!({
                "exit_code": 0, "stdout": "abcd", "stderr": "1234", "data": [1, 2],
                "execution_ms": 3, "truncated": ["stdout"], "error": null,
            })
        );
        let kept = kept_outcome(Ok(answered("", "123456", Some(json!("12345")))), 5);
        assert_eq!(kept.response["truncated"], json!(["stderr", "data"]));
        assert_eq!(kept.response["data"], Value::Null);
    }

    #[test]
    fn a_command_without_an_answer_says_why() {
        for (outcome, status) in [
            (Ok(CommandOutcome::TimedOut), CommandStatus::TimedOut),
            (Ok(CommandOutcome::Disconnected), CommandStatus::Disconnected),
            (Err(Unanswered::NotSent), CommandStatus::Disconnected),
            (Ok(CommandOutcome::Lost), CommandStatus::Lost),
        ] {
            let kept = kept_outcome(outcome, 10);
            assert_eq!((kept.status, kept.success), (status, false));
            assert!(kept.response["error"].as_str().is_some_and(|why| !why.is_empty()));
        }
    }
}

//! How a command and its answer are kept: without secrets, and bounded.

use agent_protocol::tree_fits;
use serde_json::{Map, Value, json};

use crate::{
    agents::{LinkError, cut},
    store::CommandStatus,
    vm::{CommandOutcome, GuestCommand, LinkEnd, Redactor},
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
pub(super) fn kept_command(redactor: &Redactor, command: &GuestCommand) -> Value {
    match command {
        GuestCommand::Safe(action) => {
            let mut kept = json!(action);
            redactor.hide_parameters(&mut kept);
            kept
        }
        GuestCommand::Unsafe(command) => {
            let env: Map<String, Value> =
                command.env_vars.keys().map(|key| (key.clone(), json!("***"))).collect();
            json!({
                "raw_command": redactor.hide(&command.raw_command),
                "shell": command.shell.as_deref().map(|shell| redactor.hide(shell)),
                "working_dir": command.working_dir.as_deref().map(|dir| redactor.hide(dir)),
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

/// The longest `data` that is kept, as JSON: as much as a frame can bring. Half a list is no list
/// any more, so a longer one is left out whole, and named in `truncated`.
const MAX_DATA_BYTES: usize = agent_protocol::MAX_FRAME_BYTES;

/// What that `data` may take in memory for whoever reads it: a list of some eight thousand packages.
/// Text alone bounds nothing, see [`agent_protocol::tree_bytes`].
const MAX_DATA_TREE: usize = 12 << 20;

/// What is said of a command that the agent ended because its time was over.
const ENDED_BY_AGENT: &str =
    "the command's time was over and the agent ended it; stdout and stderr are what it wrote until then";

/// How a command's journey ended.
#[derive(Debug)]
pub(super) enum End {
    /// It was sent, and this became of it.
    Outcome(CommandOutcome),
    /// It was sent, and nobody waits for its answer any more.
    Detached,
    /// It certainly did not run.
    NotSent(NotSent),
}

/// Why a command was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotSent {
    TimeOver,
    Cancelled,
    NotConnected,
    LinkEnded(LinkEnd),
    /// The log did not say whether it took it.
    NotLogged,
}

impl From<Result<CommandOutcome, LinkError>> for End {
    fn from(told: Result<CommandOutcome, LinkError>) -> Self {
        match told {
            Ok(outcome) => Self::Outcome(outcome),
            Err(LinkError::NotConnected) => Self::NotSent(NotSent::NotConnected),
            Err(LinkError::NoPlace) => Self::NotSent(NotSent::TimeOver),
            Err(LinkError::Ended(end)) => Self::NotSent(NotSent::LinkEnded(end)),
        }
    }
}

/// The end as the log keeps it, each stream cut to `max` bytes.
pub(super) fn kept_end(end: End, max: usize) -> Kept {
    let unanswered =
        |status, error: &str| Kept { status, success: false, response: json!({ "error": error }) };
    match end {
        End::Outcome(CommandOutcome::TimedOut) => {
            unanswered(CommandStatus::TimedOut, "the agent did not answer in time; the command may still run")
        }
        End::Outcome(CommandOutcome::Disconnected(end)) => unanswered(
            CommandStatus::Disconnected,
            &format!("{} before its agent answered; the command may have run", ended(end)),
        ),
        End::Outcome(CommandOutcome::Lost) => unanswered(
            CommandStatus::Lost,
            "the controller ended before the answer; the command may have run",
        ),
        End::Outcome(answered @ CommandOutcome::Answered { .. }) => kept_answer(answered, max),
        End::Detached => unanswered(
            CommandStatus::Cancelled,
            "it was cancelled after it had been sent; the command may still run",
        ),
        End::NotSent(why) => {
            let (status, words) = not_sent(why);
            unanswered(status, &format!("{words}; the command was not sent and did not run"))
        }
    }
}

/// An answer, whenever it came.
pub(super) fn kept_answer(answer: CommandOutcome, max: usize) -> Kept {
    let CommandOutcome::Answered { success, exit_code, mut stdout, mut stderr, mut data, execution_ms } =
        answer
    else {
        return kept_end(End::Outcome(answer), max);
    };
    let mut truncated = Vec::new();
    if cut(&mut stdout, max) {
        truncated.push("stdout");
    }
    if cut(&mut stderr, max) {
        truncated.push("stderr");
    }
    let ended_by_agent = !success && data.as_ref().is_some_and(|data| data["timed_out"] == json!(true));
    if data.as_ref().is_some_and(|data| !fits(&data.to_string())) {
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
        "error": ended_by_agent.then_some(ENDED_BY_AGENT),
    });
    let status = if ended_by_agent { CommandStatus::TimedOut } else { CommandStatus::Answered };
    Kept { status, success, response }
}

fn fits(data: &str) -> bool {
    data.len() <= MAX_DATA_BYTES && tree_fits(data.as_bytes(), MAX_DATA_TREE)
}

fn not_sent(why: NotSent) -> (CommandStatus, &'static str) {
    match why {
        NotSent::TimeOver => {
            (CommandStatus::TimedOut, "its time was over before the agent had a place for it")
        }
        NotSent::Cancelled => (CommandStatus::Cancelled, "it was cancelled"),
        NotSent::NotConnected => (CommandStatus::Disconnected, "the agent was not connected any more"),
        NotSent::LinkEnded(end) => (CommandStatus::Disconnected, ended(end)),
        NotSent::NotLogged => (CommandStatus::Cancelled, "the database did not log it in time"),
    }
}

fn ended(end: LinkEnd) -> &'static str {
    match end {
        LinkEnd::ChannelClosed => "the link to the agent closed",
        LinkEnd::VmStopped => "the VM stopped",
        LinkEnd::VmDeleted => "the VM was deleted",
        LinkEnd::Evicted => "the link was closed to make room for another VM's",
        LinkEnd::Unsealed => "the agent spoke without the seal that is required of it",
        LinkEnd::ControllerStopping => "the controller stopped",
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
        let kept = kept_command(&Redactor::default(), &command);
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
        assert_eq!(
            kept_command(&Redactor::default(), &command),
            json!({"action": "PackageInstall", "package": "vim"})
        );
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
        let kept = kept_answer(answered("abcdä", "1234", Some(json!([1, 2]))), 5);
        assert_eq!((kept.status, kept.success), (CommandStatus::Answered, true));
        assert_eq!(
            kept.response,
            json!({
                "exit_code": 0, "stdout": "abcd", "stderr": "1234", "data": [1, 2],
                "execution_ms": 3, "truncated": ["stdout"], "error": null,
            })
        );
        let kept = kept_answer(answered("", "123456", Some(json!("12345"))), 5);
        assert_eq!(kept.response["truncated"], json!(["stderr"]));
        assert_eq!(kept.response["data"], json!("12345"), "data has a bound of its own");
        // What an agent of ours sends at most, and more than any frame can bring.
        let largest = json!("x".repeat(700 << 10));
        let kept = kept_answer(answered("", "", Some(largest.clone())), 5);
        assert_eq!((&kept.response["data"], &kept.response["truncated"]), (&largest, &json!([])));
        let kept = kept_answer(answered("", "", Some(json!("x".repeat(MAX_DATA_BYTES)))), 5);
        assert_eq!((&kept.response["data"], &kept.response["truncated"]), (&Value::Null, &json!(["data"])));
        // Short as text, and long in memory.
        let bomb = json!(vec![json!({"a": 0}); 30_000]);
        assert!(bomb.to_string().len() < MAX_DATA_BYTES / 3);
        let kept = kept_answer(answered("", "", Some(bomb)), 5);
        assert_eq!((&kept.response["data"], &kept.response["truncated"]), (&Value::Null, &json!(["data"])));
    }

    #[test]
    fn a_command_that_the_agent_ended_timed_out_and_its_output_is_kept() {
        let answered = |success, timed_out| CommandOutcome::Answered {
            success,
            exit_code: None,
            stdout: "half".to_owned(),
            stderr: "TIMEOUT: ended".to_owned(),
            data: Some(json!({ "timed_out": timed_out })),
            execution_ms: Some(1000),
        };
        let kept = kept_answer(answered(false, true), 100);
        assert_eq!((kept.status, kept.success), (CommandStatus::TimedOut, false));
        assert_eq!(
            (&kept.response["stdout"], &kept.response["error"]),
            (&json!("half"), &json!(ENDED_BY_AGENT))
        );
        for (success, timed_out) in [(true, true), (false, false)] {
            let kept = kept_answer(answered(success, timed_out), 100);
            assert_eq!((kept.status, kept.success), (CommandStatus::Answered, success));
        }
    }

    #[test]
    fn known_patterns_in_the_parameters_of_an_action_are_hidden_too() {
        let search = SafeAction::PackageSearch { query: "curl -u ana:hunter2 password=hunter2".to_owned() };
        let kept = kept_command(&Redactor::default(), &GuestCommand::Safe(search)).to_string();
        assert!(kept.contains("PackageSearch") && !kept.contains("hunter2"), "{kept}");
    }

    #[test]
    fn a_command_without_an_answer_says_why() {
        use CommandStatus::{Cancelled, Disconnected, Lost, TimedOut};
        for (end, status, sent) in [
            (End::Outcome(CommandOutcome::TimedOut), TimedOut, true),
            (End::Outcome(CommandOutcome::Disconnected(LinkEnd::VmStopped)), Disconnected, true),
            (End::Outcome(CommandOutcome::Lost), Lost, true),
            (End::Detached, Cancelled, true),
            (End::from(Err(LinkError::NotConnected)), Disconnected, false),
            (End::from(Err(LinkError::NoPlace)), TimedOut, false),
            (End::from(Err(LinkError::Ended(LinkEnd::VmDeleted))), Disconnected, false),
            (End::NotSent(NotSent::Cancelled), Cancelled, false),
            (End::NotSent(NotSent::NotLogged), Cancelled, false),
        ] {
            let words = format!("{end:?}");
            let kept = kept_end(end, 10);
            assert_eq!((kept.status, kept.success), (status, false), "{words}");
            let why = kept.response["error"].as_str().expect("words");
            assert_eq!(why.contains("was not sent and did not run"), !sent, "{why}");
            assert_eq!(why.contains("may"), sent, "{why}");
        }
    }
}

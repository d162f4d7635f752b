//! `exec`: a shell line in a guest, whose output and exit status become ours.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{args::Exec, context::Context, documents, failure::Failure, vms};

/// How much longer than the command the answer is waited for: an agent that has to end it says so
/// late.
const SLACK: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Debug, Deserialize)]
struct Outcome {
    status: String,
    success: Option<bool>,
    #[serde(default)]
    response: Option<Response>,
}

#[derive(Debug, Default, Deserialize)]
struct Response {
    #[serde(default)]
    exit_code: Option<i64>,
    #[serde(default)]
    stdout: Option<String>,
    #[serde(default)]
    stderr: Option<String>,
    #[serde(default)]
    truncated: Option<Vec<String>>,
    #[serde(default)]
    error: Option<String>,
}

pub(super) async fn exec(context: &Context, args: Exec) -> Result<u8, Failure> {
    let client = context.client()?;
    let vm = context.until_interrupted(vms::find(client, &args.vm)).await?;
    let id = Uuid::new_v4();
    let variables = vec_of(&args.env);
    let command = json!({
        "rawCommand": args.line.join(" "), "shell": args.shell, "workingDir": args.workdir, "envVars": variables,
    });
    let limit = Duration::from_secs(u64::from(args.timeout.unsigned_abs())) + SLACK;
    let variables = json!({ "vm": vm.id, "id": id, "command": command, "timeout": args.timeout });
    let asked = client.ask_within(limit, &documents::EXECUTE_VM_COMMAND, variables);
    let answer = match context.until_interrupted(asked).await {
        Err(Failure::Interrupted(_)) => {
            let cancelled = client.ask(&documents::CANCEL_VM_COMMAND, json!({ "vm": vm.id, "id": id }));
            let words = match context.until_interrupted(cancelled).await {
                Ok(_) => {
                    "the command was cancelled; where it had begun it may still run in the guest".to_owned()
                }
                Err(failure) => format!("the command was not cancelled: {failure}"),
            };
            return Err(Failure::Interrupted(Some(words)));
        }
        done => done?,
    };
    if context.screen.json {
        context.screen.value(&answer)?;
        return status(&vms::shaped(&answer)?);
    }
    let outcome: Outcome = vms::shaped(&answer)?;
    if let Some(response) = &outcome.response {
        context.screen.guest_output(response.stdout.as_deref().unwrap_or_default())?;
        context.screen.guest_error(response.stderr.as_deref().unwrap_or_default())?;
        for part in response.truncated.iter().flatten() {
            context.screen.note(&format!("infinibay: {part} is not whole: it was too long"));
        }
    }
    status(&outcome)
}

fn vec_of(env: &[(String, String)]) -> Vec<Value> {
    env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

/// The status to end with.
fn status(outcome: &Outcome) -> Result<u8, Failure> {
    let response = outcome.response.as_ref();
    let error = response.and_then(|response| response.error.clone());
    match (&*outcome.status, response.and_then(|response| response.exit_code)) {
        ("ANSWERED", Some(code)) => Ok(passed_on(code)),
        // An agent that says nothing of a status still says whether it went well.
        ("ANSWERED", None) if outcome.success == Some(true) => Ok(0),
        ("ANSWERED", None) => Err(Failure::CutOff {
            status: "NOT_RUN".into(),
            message: error.unwrap_or_else(|| "the agent did not run it, and gave no reason".into()),
        }),
        ("TIMED_OUT", _) => Err(Failure::TimedOut(error.unwrap_or_else(|| "its time was over".into()))),
        (status, _) => Err(Failure::CutOff {
            status: status.into(),
            message: error.unwrap_or_else(|| "it may or may not have run".into()),
        }),
    }
}

/// The guest's exit status as one of ours: its low eight bits, and never success where it was none.
fn passed_on(code: i64) -> u8 {
    let low = u8::try_from(code & 0xff).unwrap_or(1);
    if low == 0 && code != 0 { 1 } else { low }
}

#[cfg(test)]
mod tests {
    use super::passed_on;

    #[test]
    fn a_failure_never_becomes_a_success() {
        for (code, status) in [(0, 0), (1, 1), (255, 255), (256, 1), (-1, 255), (0x8000_0000, 1), (259, 3)] {
            assert_eq!(passed_on(code), status, "{code}");
        }
    }
}

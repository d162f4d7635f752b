//! What takes time: followed until it ends, with a bar where a person watches.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{clean, client::Client, context::Context, documents, failure::Failure, vms};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(400);
/// How long a daemon that is away is waited for: it may be starting anew, and goes on then.
const AWAY: Duration = Duration::from_secs(60);

/// How an operation stands.
#[derive(Debug, Deserialize)]
struct Operation {
    status: String,
    progress: u64,
    stage: String,
    error: Option<OperationError>,
}

#[derive(Debug, Deserialize)]
struct OperationError {
    code: String,
    message: String,
}

/// How an operation is shown while it goes on.
enum Shown {
    /// A bar that is drawn over.
    Bar(ProgressBar),
    /// A line for each stage, for logs.
    Lines { title: String, last: String },
    /// Not at all.
    Nothing,
}

impl Shown {
    fn new(context: &Context, title: &str) -> Self {
        if context.screen.json {
            return Self::Nothing;
        }
        let title = clean::line(title);
        if !context.screen.error {
            return Self::Lines { title, last: String::new() };
        }
        let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
        // A terminal that cannot be drawn over, as TERM=dumb says.
        if bar.is_hidden() {
            return Self::Lines { title, last: String::new() };
        }
        if let Ok(style) =
            ProgressStyle::with_template("{prefix} [{bar:24}] {pos:>3} %  {wide_msg}  {elapsed}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(title);
        Self::Bar(bar)
    }

    fn show(&mut self, progress: u64, stage: &str) {
        let stage = clean::line(stage);
        match self {
            Self::Bar(bar) => {
                bar.set_message(stage);
                bar.set_position(progress.min(100));
                bar.tick();
            }
            Self::Lines { title, last } => {
                let line = format!("{title}: {stage} ({progress} %)");
                if line != *last {
                    // Nobody is left to tell where standard error is closed.
                    let _ = writeln!(std::io::stderr(), "{line}");
                    *last = line;
                }
            }
            Self::Nothing => {}
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            // What came of it is said in words, in its place.
            bar.finish_and_clear();
        }
    }
}

/// Follows an operation to its end; gives it as the API does.
///
/// # Errors
/// Where it fails, or the daemon stays away.
pub async fn follow(context: &Context, title: &str, id: &str) -> Result<Value, Failure> {
    let _going_on = context.goes_on(format!("the operation {id} goes on"));
    let mut shown = Shown::new(context, title);
    let mut away: Option<Instant> = None;
    loop {
        let answer = match context.client()?.ask(&documents::OPERATION, json!({ "id": id })).await {
            Ok(answer) => {
                away = None;
                answer
            }
            Err(failure) if failure.passes() && away.is_none_or(|since| since.elapsed() < AWAY) => {
                away.get_or_insert_with(Instant::now);
                shown.show(0, &format!("waiting: {failure}"));
                tokio::time::sleep(LOOK * 4).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        if answer.is_null() {
            return Err(Failure::Answer(format!("the operation {id} is not known any more")));
        }
        let now: Operation = vms::shaped(&answer)?;
        shown.show(now.progress, &now.stage);
        match (&*now.status, now.error) {
            ("PENDING" | "RUNNING", _) => tokio::time::sleep(LOOK).await,
            ("SUCCEEDED", _) => return Ok(answer),
            (_, Some(OperationError { code, message })) => {
                return Err(Failure::Operation { id: id.into(), code, message });
            }
            (status, None) => {
                let message = match status {
                    "SUPERSEDED" => "another request took its place".to_owned(),
                    other => format!("it ended as {other}"),
                };
                return Err(Failure::Operation { id: id.into(), code: status.into(), message });
            }
        }
    }
}

/// Asks for a change and follows it, unless the person does not want to wait. Gives the VM's name
/// and the operation.
///
/// # Errors
/// Where it is refused, or fails.
pub async fn change(
    context: &Context,
    client: &Client,
    document: &documents::Document,
    variables: Value,
    title: &str,
    wait: bool,
) -> Result<Changed, Failure> {
    let payload = client.ask(document, variables).await?;
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let (Some(vm), Some(name), Some(id)) =
        (word(&payload["vm"]["id"]), word(&payload["vm"]["name"]), word(&payload["operation"]["id"]))
    else {
        return Err(Failure::Answer("the daemon answers without an operation".into()));
    };
    if !wait {
        let operation = client.ask(&documents::OPERATION, json!({ "id": id })).await?;
        return Ok(Changed { vm, name, operation });
    }
    let operation = follow(context, &format!("{title} {name}"), &id).await?;
    Ok(Changed { vm, name, operation })
}

/// A change that was accepted, or is done.
#[derive(Debug)]
pub struct Changed {
    /// The VM's id.
    pub vm: String,
    /// Its name.
    pub name: String,
    /// As the API gives it.
    pub operation: Value,
}

impl Changed {
    /// For `--json`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "vm": { "id": self.vm, "name": self.name }, "operation": self.operation })
    }

    /// Says what came of it.
    ///
    /// # Errors
    /// Where standard output does not take it.
    pub fn say(&self, context: &Context, done: &str) -> Result<(), Failure> {
        if context.screen.json {
            return context.screen.value_line(&self.to_json());
        }
        let name = clean::line(&self.name);
        let word = |field: &str| clean::line(self.operation[field].as_str().unwrap_or_default());
        if self.operation["status"] != "SUCCEEDED" {
            return context.screen.line(&format!("{name}: accepted as operation {}", word("id")));
        }
        let stage = word("stage");
        let forced = if stage.starts_with("forced") { format!(" ({stage})") } else { String::new() };
        context.screen.line(&format!("{name}: {done}{forced}"))
    }
}

//! `events`: what is kept of what happened to VMs; what happens from now on is told by its neighbour.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{follow, show::word};
use crate::{
    args::Events,
    clean,
    context::Context,
    documents::{self, Document},
    failure::Failure,
    vms,
};

/// The most of each kind that is shown of the past.
const KEPT: i32 = 100;

pub(super) async fn events(context: &Context, args: &Events) -> Result<(), Failure> {
    let names = names(context, &args.vms).await?;
    if args.follow {
        return follow::follow(context, &names).await;
    }
    past(context, &names, args).await
}

/// What VMs are called, by their ids.
pub(super) type Names = BTreeMap<Uuid, String>;

/// The VMs that are meant, and what they are called.
async fn names(context: &Context, called: &[String]) -> Result<Names, Failure> {
    let client = context.client()?;
    if !called.is_empty() {
        let found = vms::find_all(client, called).await?;
        return Ok(found.into_iter().map(|vm| (vm.id, vm.called)).collect());
    }
    Ok(vms::names(client).await?.into_iter().map(|vm| (vm.id, vm.name)).collect())
}

/// One thing that is kept.
struct Kept {
    at: String,
    vm: String,
    what: String,
    words: String,
}

/// What one kind's question gives of one VM.
type OfVm<'a> = (&'a Uuid, &'a str, Value);

/// Each VM is a question: only those that were named are asked about.
async fn of_each<'a>(
    context: &Context,
    names: &'a Names,
    args: &Events,
    document: &Document,
) -> Result<Vec<OfVm<'a>>, Failure> {
    let mut all = Vec::new();
    if args.vms.is_empty() {
        return Ok(all);
    }
    for (id, name) in names {
        let mut told = context.client()?.ask(document, json!({ "id": id, "first": KEPT })).await?;
        all.push((id, &**name, told["nodes"].take()));
    }
    Ok(all)
}

/// Alerts; of VMs that were named, guests' errors and commands; who asked for what, where that was asked
/// for. Oldest first.
async fn past(context: &Context, names: &Names, args: &Events) -> Result<(), Failure> {
    let client = context.client()?;
    let everything = args.vms.is_empty();
    let about = |it: &Value| {
        let id = it["vmId"].as_str().and_then(|id| id.parse::<Uuid>().ok());
        everything || id.is_some_and(|id| names.contains_key(&id))
    };
    let mut alerts = nodes(client.ask(&documents::ALERTS, json!({ "first": KEPT })).await?);
    alerts.retain(about);
    let errors = of_each(context, names, args, &documents::VM_ERRORS).await?;
    let commands = of_each(context, names, args, &documents::COMMAND_LOG).await?;
    let audit = if args.audit { Some(asked_for(context, names, everything).await?) } else { None };
    if context.screen.json {
        let by_vm = |all: &[OfVm<'_>], field: &str| -> Value {
            all.iter().map(|(id, _, nodes)| json!({ "vmId": id, field: nodes })).collect()
        };
        let mut told = json!({
            "alerts": alerts,
            "guestErrors": by_vm(&errors, "errors"),
            "commands": by_vm(&commands, "commands"),
        });
        if let Some(audit) = audit {
            told["audit"] = Value::Array(audit);
        }
        return context.screen.value(&told);
    }
    let called = |id: &Value| {
        let Some(id) = id.as_str() else { return "host".to_owned() };
        id.parse().ok().and_then(|id: Uuid| names.get(&id)).map_or(id, String::as_str).to_owned()
    };
    let mut kept = Vec::new();
    for alert in &alerts {
        let state = if alert["resolvedAt"].is_null() { "open" } else { "ended" };
        let what = format!("{} alert, {state}", word(&alert["severity"]).to_lowercase());
        let (vm, at) = (called(&alert["vmId"]), word(&alert["lastAt"]));
        kept.push(Kept { at, vm, what, words: word(&alert["summary"]) });
    }
    for (_, name, nodes) in &errors {
        for error in nodes.as_array().into_iter().flatten() {
            let (vm, at) = ((*name).to_owned(), word(&error["createdAt"]));
            kept.push(Kept { at, vm, what: "guest error".into(), words: word(&error["error"]) });
        }
    }
    for (_, name, nodes) in &commands {
        for command in nodes.as_array().into_iter().flatten() {
            let what = format!("command, {}", word(&command["status"]).to_lowercase());
            let (vm, at) = ((*name).to_owned(), word(&command["createdAt"]));
            kept.push(Kept { at, vm, what, words: line_of(&command["command"]) });
        }
    }
    for row in audit.iter().flatten() {
        let outcome = word(&row["outcome"]).to_lowercase();
        let code = row["code"].as_str().map(|code| format!(" ({code})")).unwrap_or_default();
        let who = row["userId"].as_str().unwrap_or("the host's operator, or nobody known");
        let words = format!("{} by {who} from {}", word(&row["action"]), word(&row["address"]));
        let (vm, at) = (called(&row["vmId"]), word(&row["at"]));
        kept.push(Kept { at, vm, what: format!("asked for, {outcome}{code}"), words });
    }
    kept.sort_by(|one, other| one.at.cmp(&other.at));
    if kept.is_empty() {
        context.screen.note("nothing is kept; --follow shows what happens from now on");
        return Ok(());
    }
    for Kept { at, vm, what, words } in kept {
        context.screen.line(&clean::line(&format!("{at}  {vm}  {what}: {words}")))?;
    }
    Ok(())
}

/// The audit log: of each VM that was named, else of everything.
async fn asked_for(context: &Context, names: &Names, everything: bool) -> Result<Vec<Value>, Failure> {
    let client = context.client()?;
    if everything {
        return Ok(nodes(client.ask(&documents::AUDIT_LOG, json!({ "first": KEPT })).await?));
    }
    let mut rows = Vec::new();
    for id in names.keys() {
        let variables = json!({ "first": KEPT, "filter": { "vmId": id } });
        rows.extend(nodes(client.ask(&documents::AUDIT_LOG, variables).await?));
    }
    Ok(rows)
}

fn nodes(mut page: Value) -> Vec<Value> {
    match page["nodes"].take() {
        Value::Array(nodes) => nodes,
        _ => Vec::new(),
    }
}

/// A command in few words: the shell's line, else all that is kept of it.
fn line_of(command: &Value) -> String {
    let line = command["raw_command"].as_str().or_else(|| command["action"].as_str());
    line.map_or_else(|| word(command), str::to_owned)
}

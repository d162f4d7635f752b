//! `events`: what happens to VMs, as it happens, or what is kept of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::show::word;
use crate::{
    args::Events,
    clean,
    context::Context,
    documents,
    failure::Failure,
    socket::{Said, Socket},
    vms,
};

/// The most of each kind that is shown of the past.
const KEPT: i32 = 100;
/// The most VMs that are followed at once; the daemon bounds a connection's subscriptions.
const MANY: usize = 64;

pub(super) async fn events(context: &Context, args: &Events) -> Result<(), Failure> {
    let names = names(context, &args.vms).await?;
    if !args.follow {
        return past(context, &names, args.vms.is_empty()).await;
    }
    if names.is_empty() {
        context.screen.note("there are no VMs");
        return Ok(());
    }
    if names.len() > MANY {
        let words = format!("{} VMs are too many to follow at once; name up to {MANY}", names.len());
        return Err(Failure::Usage(words));
    }
    let mut socket = Socket::connect(context.client()?).await?;
    for id in names.keys() {
        socket.begin(&id.to_string(), &documents::VM_EVENTS, &json!({ "id": id })).await?;
    }
    let mut open = names.len();
    while open > 0 {
        let (id, said) = socket.next().await?;
        match said {
            Said::Next(data) => event(context, &names, &data[documents::VM_EVENTS.field])?,
            Said::Complete => {
                open -= 1;
                let name = id.parse().ok().and_then(|id: Uuid| names.get(&id));
                context.screen.note(&format!("{}: nothing more is told of it", name.unwrap_or(&id)));
            }
        }
    }
    Ok(())
}

/// The VMs that are meant, and what they are called.
async fn names(context: &Context, called: &[String]) -> Result<BTreeMap<Uuid, String>, Failure> {
    let client = context.client()?;
    if !called.is_empty() {
        let found = vms::find_all(client, called).await?;
        return Ok(found.into_iter().map(|vm| (vm.id, vm.called)).collect());
    }
    Ok(vms::names(client).await?.into_iter().map(|vm| (vm.id, vm.name)).collect())
}

fn event(context: &Context, names: &BTreeMap<Uuid, String>, event: &Value) -> Result<(), Failure> {
    if context.screen.json {
        return context.screen.value_line(event);
    }
    let id = word(&event["vmId"]);
    let name = id.parse().ok().and_then(|id: Uuid| names.get(&id)).unwrap_or(&id);
    let payload = match &event["payload"] {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields.map(|(key, value)| format!("{key}={}", word(value))).collect::<Vec<_>>().join(" ")
        }
        other => word(other),
    };
    let line = format!("{}  {name}  {}  {payload}", word(&event["at"]), word(&event["type"]));
    context.screen.line(clean::line(&line).trim_end())
}

/// One thing that is kept.
struct Kept {
    at: String,
    vm: String,
    what: String,
    words: String,
}

/// Alerts and guests' errors, oldest first.
async fn past(context: &Context, names: &BTreeMap<Uuid, String>, everything: bool) -> Result<(), Failure> {
    let client = context.client()?;
    let mut alerts = client.ask(&documents::ALERTS, json!({ "first": KEPT })).await?["nodes"].take();
    let about = |alert: &Value| {
        let id = alert["vmId"].as_str().and_then(|id| id.parse::<Uuid>().ok());
        everything || id.is_some_and(|id| names.contains_key(&id))
    };
    if let Some(alerts) = alerts.as_array_mut() {
        alerts.retain(about);
    }
    let mut errors = Vec::new();
    // Each VM is a question: only those that were named are asked about.
    for (id, name) in names.iter().filter(|_| !everything) {
        let mut told = client.ask(&documents::VM_ERRORS, json!({ "id": id, "first": KEPT })).await?;
        errors.push((id, name, told["nodes"].take()));
    }
    if context.screen.json {
        let errors: Vec<Value> =
            errors.iter().map(|(id, _, nodes)| json!({ "vmId": id, "errors": nodes })).collect();
        return context.screen.value(&json!({ "alerts": alerts, "guestErrors": errors }));
    }
    let mut kept = Vec::new();
    for alert in alerts.as_array().into_iter().flatten() {
        let id = alert["vmId"].as_str().unwrap_or("host");
        let vm = id.parse().ok().and_then(|id: Uuid| names.get(&id)).map_or(id, String::as_str).to_owned();
        let state = if alert["resolvedAt"].is_null() { "open" } else { "ended" };
        let what = format!("{} alert, {state}", word(&alert["severity"]).to_lowercase());
        kept.push(Kept { at: word(&alert["lastAt"]), vm, what, words: word(&alert["summary"]) });
    }
    for (_, name, nodes) in &errors {
        for error in nodes.as_array().into_iter().flatten() {
            let words = word(&error["error"]);
            kept.push(Kept {
                at: word(&error["createdAt"]),
                vm: (*name).clone(),
                what: "guest error".into(),
                words,
            });
        }
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

//! `list` and `show`.

use serde_json::{Value, json};

use crate::{
    clean,
    context::Context,
    documents,
    failure::Failure,
    screen,
    vms::{self, Row},
};

/// All VMs that may be seen, in the API's order.
pub(super) async fn list(context: &Context) -> Result<(), Failure> {
    let listed = vms::all(context.client()?).await?;
    if context.screen.json {
        return context.screen.value(&Value::Array(listed));
    }
    let mut rows = Vec::with_capacity(listed.len());
    for vm in &listed {
        let Row { id, name, phase, vcpus, memory_mib, ip_addresses, agent } = vms::shaped(vm)?;
        let address = match &*ip_addresses {
            [] => "-".to_owned(),
            [one] => one.clone(),
            [first, more @ ..] => format!("{first} +{}", more.len()),
        };
        rows.push(vec![
            name,
            phase.to_lowercase(),
            agent.connectivity.to_lowercase(),
            vcpus.to_string(),
            format!("{memory_mib} MiB"),
            address,
            id.to_string(),
        ]);
    }
    if rows.is_empty() {
        context.screen.note("there are no VMs");
        return Ok(());
    }
    context.screen.line(&screen::table(&["NAME", "PHASE", "AGENT", "CPUS", "MEMORY", "ADDRESS", "ID"], rows))
}

/// Everything about one.
pub(super) async fn show(context: &Context, called: &str) -> Result<(), Failure> {
    let client = context.client()?;
    let found = vms::find(client, called).await?;
    let vm = client.ask(&documents::VM, json!({ "id": found.id })).await?;
    if vm.is_null() {
        return Err(vms::missing(called));
    }
    if context.screen.json {
        return context.screen.value(&vm);
    }
    context.screen.line(&screen::table(&[], facts(&vm)))?;
    let troubles = conditions(&vm);
    if !troubles.is_empty() {
        context.screen.line("")?;
        context.screen.line(&screen::table(&["CONDITION", "STATUS", "REASON", "MESSAGE"], troubles))?;
    }
    Ok(())
}

/// A value as a person reads it; null is a dash.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        other => other.to_string(),
    }
}

fn facts(vm: &Value) -> Vec<Vec<String>> {
    let lower = |value: &Value| word(value).to_lowercase();
    let mut rows = vec![
        vec!["name".into(), word(&vm["name"])],
        vec!["id".into(), word(&vm["id"])],
        vec!["phase".into(), format!("{} (asked for: {})", lower(&vm["phase"]), lower(&vm["power"]))],
        vec!["agent".into(), agent(&vm["agent"])],
        vec![
            "size".into(),
            format!("{} processors, {} MiB memory", word(&vm["vcpus"]), word(&vm["memoryMib"])),
        ],
    ];
    let origin = match &vm["medium"] {
        Value::Null => format!("image {}", word(&vm["image"])),
        medium => format!("installed from {}", word(medium)),
    };
    rows.push(vec!["made of".into(), origin]);
    rows.push(vec!["firmware".into(), lower(&vm["firmware"])]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for disk in list(&vm["disks"]) {
        let size = disk["bytes"]
            .as_str()
            .and_then(|bytes| bytes.parse().ok())
            .map_or("-".into(), crate::spark::bytes);
        rows.push(vec![
            "disk".into(),
            format!("{} {size} in {}", word(&disk["target"]), word(&disk["pool"])),
        ]);
    }
    for card in list(&vm["interfaces"]) {
        let plug = if card["network"].is_null() { &card["bridge"] } else { &card["network"] };
        rows.push(vec!["card".into(), format!("{} on {}", word(&card["mac"]), word(plug))]);
    }
    let addresses: Vec<_> = list(&vm["ipAddresses"]).iter().map(word).collect();
    if !addresses.is_empty() {
        rows.push(vec!["addresses".into(), addresses.join(" ")]);
    }
    rows.push(vec!["autostart".into(), word(&vm["autostart"])]);
    rows.push(vec!["owner".into(), word(&vm["ownerId"])]);
    rows.push(vec!["made at".into(), word(&vm["createdAt"])]);
    rows
}

fn agent(agent: &Value) -> String {
    let mut words = word(&agent["connectivity"]).to_lowercase();
    if let Some(version) = agent["version"].as_str() {
        words += &format!(", version {version}");
    }
    if let Some(heard) = agent["lastSeenAt"].as_str() {
        words += &format!(", heard {heard}");
    }
    clean::line(&words)
}

fn conditions(vm: &Value) -> Vec<Vec<String>> {
    let all = vm["conditions"].as_array().cloned().unwrap_or_default();
    let row = |it: &Value| ["type", "status", "reason", "message"].map(|field| word(&it[field])).to_vec();
    all.iter().map(row).collect()
}

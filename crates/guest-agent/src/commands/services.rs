//! Services, by systemd's own tool.

use std::{collections::BTreeMap, path::Path, time::Duration};

use agent_protocol::ServiceOperation;
use serde_json::{Value, json};

use super::{
    answer::{Failure, Outcome, bounded},
    process::{self, Finished, Job, KEEP_BYTES},
};

const TOOL: &str = "systemctl";
/// A list is longer than what people read.
const KEEP_LIST: usize = 2 << 20;
const PROPERTIES: &str = "--property=Id,LoadState,ActiveState,SubState,UnitFileState,Description";

fn systemctl(arguments: &[&str], limit: Duration, keep: usize) -> Result<Finished, Failure> {
    // The tool may be there without the system it belongs to, as in a container.
    if !Path::new("/run/systemd/system").exists() {
        return Err(Failure::new("NOT_SUPPORTED", "this system is not managed by systemd"));
    }
    let job = Job { program: TOOL, arguments, directory: None, environment: None, limit, keep };
    process::run(&job).map_err(|e| Failure::spawn(TOOL, &e))
}

/// `{services: [{name, description, load_state, active_state, sub_state, enabled}], truncated}`;
/// `enabled` is systemd's word (`enabled`, `disabled`, `static`, …) or null.
pub(super) fn list(limit: Duration) -> Result<Outcome, Failure> {
    let loaded = systemctl(&["show", "--no-pager", PROPERTIES, "*.service"], limit, KEEP_LIST)?;
    if !loaded.succeeded() {
        return Err(Failure::tool("list services", loaded));
    }
    let installed = ["list-unit-files", "--no-pager", "--no-legend", "--type=service"];
    let installed = systemctl(&installed, limit, KEEP_LIST)?;
    if !installed.succeeded() {
        return Err(Failure::tool("list service files", installed));
    }
    let mut services = parse_show(&loaded.stdout.text());
    for (name, state) in parse_files(&installed.stdout.text()) {
        services.entry(name.clone()).or_insert_with(|| {
            row(&BTreeMap::from([
                ("Id", name.as_str()),
                ("LoadState", "not-loaded"),
                ("ActiveState", "inactive"),
                ("SubState", "dead"),
                ("UnitFileState", state.as_str()),
            ]))
        });
    }
    let (rows, truncated) = bounded(services.into_values());
    Ok(json!({"services": rows, "truncated": truncated}).into())
}

/// The names of units that failed.
pub(super) fn failed(limit: Duration) -> Result<Vec<String>, Failure> {
    let arguments = ["list-units", "--failed", "--plain", "--no-legend", "--no-pager"];
    let done = systemctl(&arguments, limit, KEEP_BYTES)?;
    if !done.succeeded() {
        return Err(Failure::tool("list failed units", done));
    }
    Ok(parse_units(&done.stdout.text()))
}

/// `{service, operation, active_state, sub_state, enabled, load_state}`, the state being that
/// after the operation.
pub(super) fn control(
    service: &str,
    operation: ServiceOperation,
    limit: Duration,
) -> Result<Outcome, Failure> {
    let verb = match operation {
        ServiceOperation::Start => "start",
        ServiceOperation::Stop => "stop",
        ServiceOperation::Restart => "restart",
        ServiceOperation::Enable => "enable",
        ServiceOperation::Disable => "disable",
        ServiceOperation::Status => "status",
    };
    let unit = if service.contains('.') { service.to_owned() } else { format!("{service}.service") };
    let done = systemctl(&[verb, "--no-pager", "--", &unit], limit, KEEP_BYTES)?;
    // `status` fails for a unit that does not run: that is an answer, not a failure.
    if done.timed_out || !(done.succeeded() || operation == ServiceOperation::Status) {
        return Err(Failure::tool(&format!("{verb} {unit}"), done));
    }
    let shown = systemctl(&["show", "--no-pager", PROPERTIES, "--", &unit], limit, KEEP_BYTES)?;
    let mut data = parse_show(&shown.stdout.text()).into_values().next().unwrap_or_else(|| json!({}));
    if data["load_state"] == "not-found" {
        return Err(Failure::new("NO_SUCH_SERVICE", format!("there is no service {unit}")));
    }
    data["service"] = json!(service);
    data["operation"] = json!(verb);
    Ok(Outcome { data: Some(data), process: Some(done) })
}

fn row(properties: &BTreeMap<&str, &str>) -> Value {
    let get = |name: &str| properties.get(name).copied().filter(|v| !v.is_empty());
    json!({
        "name": get("Id"),
        "description": get("Description"),
        "load_state": get("LoadState"),
        "active_state": get("ActiveState"),
        "sub_state": get("SubState"),
        "enabled": get("UnitFileState"),
    })
}

/// `systemctl show`: blocks of `Key=Value`, parted by empty lines.
fn parse_show(text: &str) -> BTreeMap<String, Value> {
    text.split("\n\n")
        .filter_map(|block| {
            let properties: BTreeMap<_, _> = block.lines().filter_map(|l| l.split_once('=')).collect();
            Some(((*properties.get("Id")?).to_owned(), row(&properties)))
        })
        .collect()
}

/// `systemctl list-units`: the name comes first, after a mark in some versions.
fn parse_units(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.split_ascii_whitespace().find(|field| field.contains('.')))
        .map(str::to_owned)
        .collect()
}

/// `systemctl list-unit-files`: name and state; templates are no services yet.
fn parse_files(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        })
        .filter(|(name, _)| !name.contains("@."))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_properties_become_rows() {
        let text = "Id=ssh.service\nDescription=OpenBSD Secure Shell = server\nLoadState=loaded\n\
            ActiveState=active\nSubState=running\nUnitFileState=enabled\n\n\
            Id=x.service\nDescription=\nLoadState=loaded\nActiveState=failed\nSubState=failed\n";
        let rows = parse_show(text);
        assert_eq!(rows["ssh.service"]["description"], "OpenBSD Secure Shell = server");
        assert_eq!(rows["x.service"]["enabled"], Value::Null);
        assert_eq!(rows["x.service"]["active_state"], "failed");
    }

    #[test]
    fn failed_units_are_named_with_and_without_a_mark() {
        let text = "x.service loaded failed failed The X\n● dev-y.mount loaded failed failed Y\n\n";
        assert_eq!(parse_units(text), ["x.service", "dev-y.mount"]);
    }

    #[test]
    fn templates_are_left_out() {
        let files = parse_files("getty@.service enabled enabled\ncron.service  disabled  enabled\n\n");
        assert_eq!(files, [("cron.service".to_owned(), "disabled".to_owned())]);
    }
}

//! The table: every root field with its class, and a request that does no harm where it is let through.
//! It ends in another refusal then, asks about a VM that is on its way out anyway, or only looks.

use serde_json::{Value, json};
use uuid::Uuid;

use super::classes::{
    Absent,
    Class::{self, *},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    Query,
    Mutation,
    Subscription,
}

impl Root {
    pub const ALL: [Self; 3] = [Self::Query, Self::Mutation, Self::Subscription];

    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "Query",
            Self::Mutation => "Mutation",
            Self::Subscription => "Subscription",
        }
    }

    pub fn keyword(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Subscription => "subscription",
        }
    }
}

/// What there is to be asked about.
pub struct Things {
    /// A VM whose agent answers.
    pub live: String,
    /// A safe command that it was sent, and a shell line.
    pub safe: String,
    pub line: String,
    /// A VM that is being deleted, for as long as somebody listens on its socket.
    pub doomed: String,
    /// The operation that deletes it.
    pub operation: String,
}

/// One request.
pub struct Row {
    pub root: Root,
    pub field: &'static str,
    pub class: Class,
    pub variables: Value,
    /// What is asked of the answer, where its type is not enough.
    pub selection: Option<&'static str>,
    /// The argument that names the VM, or what belongs to it.
    pub of: Option<&'static str>,
    /// How somebody is told who is let through, where that has the code of a refusal.
    pub besides: Option<&'static str>,
}

impl Row {
    fn of(mut self, argument: &'static str) -> Self {
        self.of = Some(argument);
        self
    }

    fn asks(mut self, selection: &'static str) -> Self {
        self.selection = Some(selection);
        self
    }

    fn besides(mut self, message: &'static str) -> Self {
        self.besides = Some(message);
        self
    }

    /// The same of something that nobody has.
    pub fn of_nothing(&self, nothing: &str) -> Option<Value> {
        let mut variables = self.variables.clone();
        let place = &mut variables[self.of?];
        *place = if place.is_array() { json!([nothing]) } else { json!(nothing) };
        Some(variables)
    }

    /// What is asked about, as it is written there.
    pub fn subject(&self) -> Option<&str> {
        let place = &self.variables[self.of?];
        place.as_str().or_else(|| place[0].as_str())
    }
}

fn row(root: Root, field: &'static str, class: Class, variables: Value) -> Row {
    Row { root, field, class, variables, selection: None, of: None, besides: None }
}

const NULL: Absent = Absent::Null;
const NO_VM: Absent = Absent::Code("VM_NOT_FOUND");

pub fn rows(things: &Things) -> Vec<Row> {
    let mut all = queries(things);
    all.extend(people());
    all.extend(host());
    all.extend(changes(things));
    all.extend(commands(things));
    all.extend(subscriptions(things));
    all
}

fn nobody() -> String {
    Uuid::new_v4().to_string()
}

fn queries(things: &Things) -> Vec<Row> {
    let query = |field, class, variables| row(Root::Query, field, class, variables);
    let id = || json!({ "id": things.live });
    let vm = || json!({ "vmId": things.live });
    let series = json!({ "vmId": things.live, "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z" });
    vec![
        query("me", AnyAccount, json!({})).asks("id name role permissions"),
        query("vms", Reads, json!({})).asks("nodes { id name conditions { type } latestMetrics { id } }"),
        query("host", Reads, json!({})).asks("pools { name }"),
        query("images", Reads, json!({})).asks("nodes { name }"),
        query("media", Reads, json!({})).asks("nodes { name }"),
        query("medium", Reads, json!({ "name": "no-such" })),
        query("alerts", Reads, json!({})).asks("nodes { vmId vmName summary }"),
        query("vm", Sees(NULL), id()).of("id").asks("id name agent { connectivity }"),
        query("operation", Sees(NULL), json!({ "id": things.operation })).of("id"),
        query("vmSnapshots", Sees(NO_VM), vm()).of("vmId"),
        query("vmConsoleLog", Sees(NO_VM), id()).of("id"),
        query("getVmMetrics", Sees(NO_VM), vm()).of("vmId"),
        query("vmMetricsSeries", Sees(NO_VM), series).of("vmId"),
        query("commandLog", Sees(NO_VM), vm()).of("vmId").asks("nodes { id command }"),
        query("vmErrors", Sees(NO_VM), vm()).of("vmId"),
        query("vmShares", Owns, vm()).of("vmId"),
        query("apiTokens", OwnAccount, json!({})),
        query("users", Admins, json!({})),
        query("user", Admins, json!({ "id": nobody() })),
        query("auditLog", Admins, json!({})),
        query("unmanagedDomains", Admins, json!({})),
    ]
}

fn people() -> Vec<Row> {
    let mutation = |field, class, variables| row(Root::Mutation, field, class, variables);
    vec![
        mutation("createUser", AdminsWithAll, json!({ "input": { "name": "no name" } })),
        mutation("updateUser", AdminsWithAll, json!({ "id": nobody(), "input": { "disabled": true } })),
        mutation("deleteUser", AdminsWithAll, json!({ "id": nobody() })),
        mutation("changePassword", OwnAccount, json!({ "current": "none", "new": "none" }))
            .besides("password"),
        mutation("createApiToken", OwnAccount, json!({ "label": "x", "scopes": ["READ"], "days": 0 })),
        mutation("revokeApiToken", OwnAccount, json!({ "id": nobody() })),
    ]
}

fn host() -> Vec<Row> {
    let mutation = |field, class, variables| row(Root::Mutation, field, class, variables);
    let nowhere = json!({ "input": { "name": "x", "kind": "INSTALLATION", "path": "/etc/shadow" } });
    vec![
        mutation("createVm", Makes, json!({ "input": { "name": "x", "vcpus": 1, "memoryMib": 0 } })),
        mutation("importMedium", Admins, nowhere),
        mutation("cancelMediumImport", Admins, json!({ "name": "no-such" })),
        mutation("deleteMedium", Admins, json!({ "name": "no-such" })),
        mutation("adoptDomain", Admins, json!({ "uuid": nobody() })),
    ]
}

/// A VM on its way out takes nothing, and says so to those who might have asked.
fn changes(things: &Things) -> Vec<Row> {
    let doomed = &things.doomed;
    let of = |field, class, more: Value| {
        let mut variables = json!({ "id": doomed });
        variables.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row(Root::Mutation, field, class, variables).of("id")
    };
    let part = |field, more: Value| {
        let mut variables = json!({ "vmId": doomed, "userId": nobody() });
        variables.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row(Root::Mutation, field, Owns, variables).of("vmId")
    };
    vec![
        of("startVm", Controls, json!({})),
        of("stopVm", Controls, json!({ "force": true })),
        of("suspendVm", Controls, json!({})),
        of("resumeVm", Controls, json!({})),
        of("saveVm", Controls, json!({})),
        of("rebootVm", Controls, json!({ "force": true })),
        of("resetVm", Controls, json!({})),
        of("renameVm", Controls, json!({ "name": "other" })),
        of("setVmAutostart", Controls, json!({ "autostart": true })),
        of("setVmPolicy", Controls, json!({ "onPowerOff": "FOLLOW", "onCrash": "STAY" })),
        of("resizeVm", Controls, json!({ "vcpus": 2 })),
        of("growVmDisk", Controls, json!({ "bytes": "1073741824" })),
        of("attachVmDisk", Controls, json!({ "bytes": "1048576" })),
        of("detachVmDisk", Controls, json!({ "target": "vdb" })),
        of("insertVmMedium", Controls, json!({ "medium": "no-such" })),
        of("ejectVmMedium", Controls, json!({ "target": "sda" })),
        of("attachVmInterface", Controls, json!({ "network": "default" })),
        of("attachVmInterface", AdminsOfIt, json!({ "bridge": "no-such-br" })),
        of("detachVmInterface", Controls, json!({ "mac": "52:54:00:00:00:01" })),
        of("createVmSnapshot", Controls, json!({ "name": "new" })),
        of("revertVmSnapshot", Controls, json!({ "name": "no-such" })),
        of("deleteVmSnapshot", Controls, json!({ "name": "no-such" })),
        of("cloneVm", Copies, json!({ "input": { "name": "copy" } })),
        of("resync", ControlsAndSees, json!({})),
        of("deleteVm", Owns, json!({})),
        of("releaseDomain", AdminsOfIt, json!({})),
        part("shareVm", json!({ "share": "VIEW" })),
        part("unshareVm", json!({})),
    ]
}

fn commands(things: &Things) -> Vec<Row> {
    const EACH: &str = "vmId error { code message } command { status }";
    let live = &things.live;
    let mutation = |field, class, variables| row(Root::Mutation, field, class, variables);
    let safe = json!({ "safe": { "action": "OS_INFO" } });
    let line = json!({ "unsafe": { "rawCommand": "true" } });
    let mut all = Vec::new();
    for (class, command, sent) in [(SafeCommand, safe, &things.safe), (UnsafeCommand, line, &things.line)] {
        let one = json!({ "vmId": live, "command": command, "timeoutSeconds": 5 });
        let many = json!({ "vmIds": [live], "command": command, "timeoutSeconds": 5 });
        let cancel = json!({ "vmId": live, "commandId": sent });
        all.push(mutation("executeVmCommand", class, one).of("vmId").asks("status"));
        all.push(mutation("executeVmCommands", class, many).of("vmIds").asks(EACH));
        all.push(mutation("cancelVmCommand", class, cancel).of("vmId"));
    }
    all
}

fn subscriptions(things: &Things) -> Vec<Row> {
    let vm = || json!({ "vmId": things.live });
    let subscription = |field, class, variables| row(Root::Subscription, field, class, variables);
    let gone = Absent::Code("OPERATION_NOT_FOUND");
    vec![
        subscription("vmEvents", Sees(NO_VM), vm()).of("vmId"),
        subscription("vmMetrics", Sees(NO_VM), vm()).of("vmId"),
        subscription("vmConsole", Sees(NO_VM), vm()).of("vmId"),
        subscription("operationProgress", Sees(gone), json!({ "id": things.operation })).of("id"),
    ]
}

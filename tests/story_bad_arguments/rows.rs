//! The table: for each mutation a request that is accepted, in an order in which all of them can be,
//! and for each of its arguments what it means. What it means says what is refused (`cases`).

use serde_json::{Value, json};

use super::cases::{
    INVALID, Judge,
    Means::{Choice, Group, NewId, Number, Other, Positive, Vm, Words},
    Row,
    Text::{Empty, Escape, Huge, Line, Path, Zero},
    row,
};

/// What there is to be asked about.
pub struct Things {
    /// A VM that runs and hears commands.
    pub on: String,
    /// A command that it heard.
    pub command: String,
    /// A VM that is off, with a disk, a disc, a network card and a snapshot.
    pub off: String,
    /// Its network card.
    pub mac: String,
    /// A domain that others made.
    pub domain: String,
    /// Who asks.
    pub me: String,
    /// Somebody who has nothing.
    pub user: String,
    /// A token of who asks, which nobody uses.
    pub token: String,
    /// Below a directory from which media are imported.
    pub file: String,
    /// What never ends.
    pub url: String,
}

/// How a request ends that nothing is wrong about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// It is accepted.
    Accepted,
    /// This host has not what it is about.
    Refused(&'static str),
}

/// A request, and what is wrong if one of its arguments is.
pub struct Request {
    pub mutation: &'static str,
    pub variables: Value,
    pub rows: Vec<Row>,
    pub ends: Ends,
    /// Whether it is refused to everybody else, whatever it names.
    pub for_admins: bool,
}

fn request(mutation: &'static str, variables: Value, rows: Vec<Row>) -> Request {
    Request { mutation, variables, rows, ends: Ends::Accepted, for_admins: false }
}

impl Request {
    fn for_admins(mut self) -> Self {
        self.for_admins = true;
        self
    }

    fn ends(mut self, code: &'static str) -> Self {
        self.ends = Ends::Refused(code);
        self
    }
}

/// None of them is a word of what it should be.
const NONE: Judge = |_| Some(INVALID);
/// What names something is not checked beyond that: nothing is called so.
const NO_MEDIUM: Judge = |_| Some("MEDIUM_NOT_FOUND");
/// Lines that a guest's shell or an account is given as they are.
const LINES: Judge = |text| matches!(text, Empty | Zero | Huge).then_some(INVALID);

fn vm(path: &'static str) -> Row {
    row(path, Vm)
}

/// The name of something of the host; the code where nothing has it.
fn name(path: &'static str, absent: &'static str) -> Row {
    row(path, Words(NONE)).and(json!("no-such"), absent)
}

pub fn requests(things: &Things) -> Vec<Request> {
    let mut all = commands(things);
    all.extend(people(things));
    all.extend(media(things));
    all.extend(creations(things));
    all.extend(changes(things));
    all.extend(powers(things));
    all
}

fn people(things: &Things) -> Vec<Request> {
    const NO_USER: &str = "USER_NOT_FOUND";
    let (user, on) = (&things.user, &things.on);
    // Long enough, and anything: what a password is made of, people choose.
    let password: Judge =
        |text| matches!(text, Empty | Zero | Escape | Line | Path | Huge).then_some(INVALID);
    let label: Judge = |text| matches!(text, Zero | Escape | Line | Huge).then_some(INVALID);
    let wrong: Judge = |_| Some("FORBIDDEN");
    vec![
        request(
            "createUser",
            json!({ "input": { "name": "fresh", "email": "fresh@example.org", "password": "correct horse",
                "role": "OPERATOR", "permissions": ["UNSAFE_COMMANDS"] } }),
            vec![
                row("input", Group),
                row("input.name", Words(NONE)).and(json!("dora"), "USER_EXISTS"),
                row("input.email", Words(NONE)).and(json!("dora"), INVALID),
                row("input.password", Words(password)),
                row("input.role", Choice),
                row("input.permissions", Choice),
            ],
        )
        .for_admins(),
        request(
            "updateUser",
            json!({ "id": user, "input": { "email": "dora@example.org", "password": "correct horse",
                "role": "READ_ONLY", "permissions": [], "disabled": true } }),
            vec![
                row("id", Other(NO_USER)),
                row("input", Group),
                row("input.email", Words(NONE)).and(json!("dora@"), INVALID),
                row("input.password", Words(password)),
                row("input.role", Choice),
                row("input.permissions", Choice),
                row("input.disabled", Choice),
            ],
        )
        .for_admins(),
        request(
            "changePassword",
            json!({ "current": "I have none yet", "new": "correct horse" }),
            vec![row("current", Words(wrong)), row("new", Words(wrong))],
        )
        .ends("FORBIDDEN"),
        request(
            "createApiToken",
            json!({ "label": "test", "scopes": ["READ"], "days": 1 }),
            vec![
                row("label", Words(label)),
                row("scopes", Choice).and(json!([]), INVALID),
                row("days", Number).and(json!(40_000), INVALID),
            ],
        ),
        request(
            "revokeApiToken",
            json!({ "id": things.token }),
            vec![row("id", Other("TOKEN_NOT_FOUND")).strangers(json!(things.token), "TOKEN_NOT_FOUND")],
        ),
        request(
            "shareVm",
            json!({ "vmId": on, "userId": user, "share": "VIEW" }),
            vec![
                vm("vmId"),
                row("userId", Other(NO_USER)).and(json!(things.me), INVALID),
                row("share", Choice),
            ],
        ),
        request(
            "unshareVm",
            json!({ "vmId": on, "userId": user }),
            vec![vm("vmId"), row("userId", Other(NO_USER)).and(json!(things.me), INVALID)],
        ),
        request(
            "deleteUser",
            json!({ "id": user }),
            vec![row("id", Other(NO_USER)).and(json!(things.me), "USER_OWNS_VMS")],
        )
        .for_admins(),
    ]
}

fn media(things: &Things) -> Vec<Request> {
    let path: Judge = |text| match text {
        Zero | Escape | Line | Huge => Some(INVALID),
        _ => Some("PATH_NOT_ALLOWED"),
    };
    let one_line: Judge = |text| matches!(text, Zero | Escape | Line | Huge).then_some(INVALID);
    vec![
        request(
            "importMedium",
            json!({ "input": { "name": "fresh", "kind": "INSTALLATION", "path": things.file } }),
            vec![
                row("input", Group),
                row("input.name", Words(NONE)).and(json!("disc"), "NAME_TAKEN"),
                row("input.kind", Choice),
                row("input.path", Words(path))
                    .and(json!("/etc/shadow"), "PATH_NOT_ALLOWED")
                    .and(json!(format!("{}/../../../etc/shadow", things.file)), "PATH_NOT_ALLOWED"),
                row("input.sha256", Words(NONE)).and(json!("ab".repeat(31)), INVALID),
            ],
        )
        .for_admins(),
        request(
            "importMedium",
            json!({ "input": { "name": "endless", "kind": "INSTALLATION", "url": things.url } }),
            vec![
                row("input.url", Words(NONE))
                    .and(json!("file:///etc/shadow"), INVALID)
                    .and(json!("http://user:word@example.org/"), INVALID),
            ],
        )
        .for_admins(),
        request(
            "importMedium",
            json!({ "input": { "name": "disk", "kind": "DISK_IMAGE", "path": things.file, "osFamily": "LINUX",
                "provisioning": "NONE" } }),
            vec![
                row("input.description", Words(one_line)),
                row("input.osFamily", Choice).and(json!(null), INVALID),
                row("input.provisioning", Choice).and(json!(null), INVALID),
                row("input.format", Choice),
            ],
        )
        .for_admins(),
        request(
            "cancelMediumImport",
            json!({ "name": "endless" }),
            vec![
                row("name", Words(NO_MEDIUM))
                    .and(json!("no-such"), "MEDIUM_NOT_FOUND")
                    .and(json!("disc"), "WRONG_STATE"),
            ],
        )
        .for_admins(),
        request(
            "deleteMedium",
            json!({ "name": "spare" }),
            vec![
                row("name", Words(NO_MEDIUM))
                    .and(json!("no-such"), "MEDIUM_NOT_FOUND")
                    .and(json!("disc"), "MEDIUM_IN_USE"),
            ],
        )
        .for_admins(),
    ]
}

fn creations(things: &Things) -> Vec<Request> {
    let base = json!({ "name": "made", "image": "blank", "vcpus": 1, "memoryMib": 128, "pool": "default-pool",
        "network": "none" });
    let with = |more: Value| {
        let mut input = base.clone();
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "input": input })
    };
    let password: Judge = |text| matches!(text, Empty | Zero | Escape | Line | Huge).then_some(INVALID);
    let edition = password;
    vec![
        request(
            "createVm",
            with(json!({})),
            vec![
                row("input", Group),
                row("input.id", NewId)
                    .and(json!(things.on), "ID_TAKEN")
                    .and(json!(things.domain), "ID_TAKEN")
                    .strangers(json!(things.on), "ID_TAKEN"),
                row("input.name", Words(NONE))
                    .and(json!("on"), "NAME_TAKEN")
                    .and(json!("test"), "NAME_TAKEN"),
                name("input.image", "IMAGE_NOT_FOUND").and(json!(null), INVALID),
                row("input.vcpus", Number),
                row("input.memoryMib", Number),
                row("input.diskGib", Number),
                name("input.pool", "POOL_NOT_FOUND"),
                name("input.network", "NETWORK_NOT_FOUND").and(json!("user"), INVALID),
                row("input.firmware", Choice).and(json!("UEFI"), "NOT_SUPPORTED"),
                row("input.tpm", Choice).and(json!(true), "NOT_SUPPORTED"),
            ],
        ),
        request(
            "createVm",
            with(json!({ "name": "told", "image": "cloudy",
                "unattended": { "user": "ada", "password": "correct horse" } })),
            vec![
                row("input.unattended", Group),
                row("input.unattended.user", Words(NONE)).and(json!("root"), INVALID),
                row("input.unattended.password", Words(password)),
                row("input.unattended.sshKeys", Words(NONE)),
                row("input.unattended.hostname", Words(NONE)),
                row("input.unattended.timezone", Words(NONE)),
                row("input.unattended.locale", Words(NONE)),
                row("input.unattended.keyboard", Words(NONE)),
                row("input.unattended.packages", Words(NONE)).and(json!(["-o"]), INVALID),
                row("input.unattended.firstBootCommands", Words(LINES)),
            ],
        ),
        request(
            "createVm",
            with(json!({ "name": "installed", "image": null, "diskGib": 8, "memoryMib": 512,
                "install": { "medium": "disc", "agent": false } })),
            vec![
                row("input.install", Group),
                name("input.install.medium", "MEDIUM_NOT_FOUND"),
                row("input.install.mirror", Words(NONE)).and(json!("file:///etc"), INVALID),
                row("input.install.agent", Choice).and(json!(true), "AGENT_BINARY_MISSING"),
            ],
        ),
        request(
            "createVm",
            with(json!({ "name": "panes", "image": null, "diskGib": 64, "memoryMib": 4096,
                "install": { "medium": "win10", "agent": false },
                "unattended": { "user": "ada", "password": "correct horse" } })),
            vec![
                row("input.unattended.productKey", Words(NONE)),
                row("input.install.edition", Words(edition)),
                row("input.install.mediumLanguage", Words(NONE)),
                name("input.install.drivers", "MEDIUM_NOT_FOUND"),
            ],
        ),
        request(
            "cloneVm",
            json!({ "id": things.off, "input": { "name": "copy" } }),
            vec![
                vm("id"),
                row("input", Group),
                row("input.id", NewId)
                    .and(json!(things.on), "ID_TAKEN")
                    .and(json!(things.domain), "ID_TAKEN"),
                row("input.name", Words(NONE))
                    .and(json!("on"), "NAME_TAKEN")
                    .and(json!("test"), "NAME_TAKEN"),
                name("input.network", "NETWORK_NOT_FOUND"),
                row("input.hostname", Words(NONE)),
                row("input.start", Choice),
            ],
        ),
    ]
}

fn changes(things: &Things) -> Vec<Request> {
    let (off, on) = (&things.off, &things.on);
    let description: Judge = |text| matches!(text, Zero | Escape | Huge).then_some(INVALID);
    vec![
        request(
            "renameVm",
            json!({ "id": off, "name": "renamed" }),
            vec![
                vm("id"),
                row("name", Words(NONE)).and(json!("on"), "NAME_TAKEN").and(json!("test"), "NAME_TAKEN"),
            ],
        ),
        request(
            "setVmAutostart",
            json!({ "id": off, "autostart": true }),
            vec![vm("id"), row("autostart", Choice)],
        ),
        request(
            "setVmPolicy",
            json!({ "id": off, "onPowerOff": "CORRECT", "onCrash": "STAY" }),
            vec![vm("id"), row("onPowerOff", Choice), row("onCrash", Choice)],
        ),
        request(
            "resizeVm",
            json!({ "id": off, "vcpus": 2, "memoryMib": 256 }),
            vec![vm("id"), row("vcpus", Number), row("memoryMib", Number).and(json!(1), INVALID)],
        ),
        request(
            "growVmDisk",
            json!({ "id": off, "target": "vdb", "bytes": "1073741824" }),
            vec![
                vm("id"),
                row("target", Words(NONE))
                    .and(json!("sda"), INVALID)
                    .and(json!("vdz"), "DEVICE_NOT_FOUND")
                    .strangers(json!("vdb"), "DEVICE_NOT_FOUND"),
                row("bytes", Number).and(json!("1048576"), INVALID),
            ],
        ),
        request(
            "attachVmDisk",
            json!({ "id": off, "pool": "default-pool", "bytes": "1048576" }),
            vec![vm("id"), name("pool", "POOL_NOT_FOUND"), row("bytes", Number)],
        ),
        request(
            "detachVmDisk",
            json!({ "id": off, "target": "vdb", "deleteVolume": true }),
            vec![
                vm("id"),
                row("target", Words(NONE))
                    .and(json!("vda"), INVALID)
                    .and(json!("vdz"), "DEVICE_NOT_FOUND")
                    .strangers(json!("vdb"), "DEVICE_NOT_FOUND"),
                row("deleteVolume", Choice),
            ],
        ),
        request(
            "insertVmMedium",
            json!({ "id": off, "medium": "disc", "target": "sdb" }),
            vec![
                vm("id"),
                row("medium", Words(NO_MEDIUM))
                    .and(json!("no-such"), "MEDIUM_NOT_FOUND")
                    .and(json!(null), INVALID)
                    .strangers(json!("waiting"), "MEDIUM_NOT_FOUND"),
                row("target", Words(NONE)).and(json!("vda"), INVALID),
            ],
        ),
        request(
            "insertVmMedium",
            json!({ "id": off, "pool": "default-pool", "volume": "no-such.iso" }),
            vec![
                name("pool", "POOL_NOT_FOUND"),
                row("volume", Words(NONE)).and(json!(format!("infinibay-{on}.qcow2")), INVALID),
            ],
        )
        .ends("MEDIUM_NOT_FOUND"),
        request(
            "ejectVmMedium",
            json!({ "id": off, "target": "sda" }),
            vec![
                vm("id"),
                row("target", Words(NONE))
                    .and(json!("vda"), INVALID)
                    .and(json!("sdz"), "DEVICE_NOT_FOUND")
                    .strangers(json!("sda"), "DEVICE_NOT_FOUND"),
            ],
        ),
        request(
            "attachVmInterface",
            json!({ "id": off, "network": "default" }),
            vec![vm("id"), name("network", "NETWORK_NOT_FOUND").and(json!(null), INVALID)],
        ),
        request(
            "attachVmInterface",
            json!({ "id": off, "bridge": "no-such-br" }),
            vec![
                row("bridge", Words(NONE))
                    .and(json!("no-such-br"), INVALID)
                    // An interface, but no bridge.
                    .and(json!("lo"), INVALID)
                    .strangers(json!("br0"), "FORBIDDEN"),
            ],
        )
        .ends(INVALID),
        request(
            "detachVmInterface",
            json!({ "id": off, "mac": things.mac }),
            vec![
                vm("id"),
                row("mac", Words(NONE))
                    .and(json!("52:54:00:00:00:01"), "DEVICE_NOT_FOUND")
                    .strangers(json!(things.mac), "DEVICE_NOT_FOUND"),
            ],
        ),
        request(
            "createVmSnapshot",
            json!({ "id": off, "name": "new", "description": "for a while", "memory": false, "quiesce": "NEVER" }),
            vec![
                vm("id"),
                row("name", Words(NONE)).and(json!("there"), "SNAPSHOT_EXISTS"),
                row("description", Words(description)),
                row("memory", Choice).and(json!(true), "WRONG_STATE"),
                row("quiesce", Choice),
            ],
        ),
        request(
            "revertVmSnapshot",
            json!({ "id": off, "name": "there" }),
            vec![
                vm("id"),
                name("name", "SNAPSHOT_NOT_FOUND").strangers(json!("there"), "SNAPSHOT_NOT_FOUND"),
            ],
        ),
        request(
            "deleteVmSnapshot",
            json!({ "id": off, "name": "there", "children": true }),
            vec![
                vm("id"),
                name("name", "SNAPSHOT_NOT_FOUND").strangers(json!("there"), "SNAPSHOT_NOT_FOUND"),
                row("children", Choice),
            ],
        ),
    ]
}

fn powers(things: &Things) -> Vec<Request> {
    let id = || json!({ "id": things.off });
    let plain = |mutation| request(mutation, id(), vec![vm("id")]);
    vec![
        request(
            "startVm",
            json!({ "id": things.off, "discardSaved": true }),
            vec![vm("id"), row("discardSaved", Choice)],
        ),
        plain("suspendVm"),
        plain("resumeVm"),
        plain("resetVm"),
        request("rebootVm", json!({ "id": things.off, "force": true }), vec![vm("id"), row("force", Choice)]),
        plain("saveVm"),
        plain("resync"),
        request("stopVm", json!({ "id": things.off, "force": true }), vec![vm("id"), row("force", Choice)]),
        plain("deleteVm"),
        request(
            "adoptDomain",
            json!({ "uuid": things.domain, "ownerId": things.me }),
            vec![
                row("uuid", Other("DOMAIN_NOT_FOUND")).and(json!(things.on), "ID_TAKEN"),
                row("ownerId", Other(INVALID)).and(json!(things.on), INVALID),
            ],
        )
        .for_admins(),
        request(
            "releaseDomain",
            json!({ "id": things.domain }),
            vec![vm("id").and(json!(things.on), "WRONG_STATE")],
        ),
    ]
}

/// Both ways to send a command take the same.
fn commands(things: &Things) -> Vec<Request> {
    let mut all = Vec::new();
    for (mutation, vms) in [
        ("executeVmCommand", json!({ "vmId": things.on })),
        ("executeVmCommands", json!({ "vmIds": [things.on] })),
    ] {
        let with = |command: Value| {
            let mut variables = vms.clone();
            variables["command"] = command;
            variables
        };
        let own = match mutation {
            "executeVmCommand" => {
                [vm("vmId"), row("commandId", NewId).and(json!(things.command), "ID_TAKEN")]
            }
            _ => {
                let (twice, none) = (json!([things.on, things.on]), json!([]));
                [vm("vmIds").and(twice, INVALID).and(none, INVALID), row("parallelism", Number)]
            }
        };
        let value: Judge = |text| matches!(text, Zero | Huge).then_some(INVALID);
        let mut rows = vec![
            row("command", Group),
            row("command.unsafe", Group),
            row("command.unsafe.rawCommand", Words(LINES)).and(json!(" \n\t"), INVALID),
            row("command.unsafe.shell", Words(LINES)),
            row("command.unsafe.workingDir", Words(LINES)),
            row("command.unsafe.envVars", Group),
            row("command.unsafe.envVars.0.name", Words(NONE)),
            row("command.unsafe.envVars.0.value", Words(value)),
            row("timeoutSeconds", Number),
        ];
        rows.extend(own);
        let line = json!({ "unsafe": { "rawCommand": "true", "envVars": [{ "name": "A", "value": "b" }] } });
        all.push(request(mutation, with(line), rows));
        for (command, rows) in safe() {
            let windows =
                matches!(command["action"].as_str(), Some("GET_UPDATE_HISTORY" | "GET_APPLICATION_DETAILS"));
            let request = request(mutation, with(json!({ "safe": command })), rows);
            // The guest says that it is none.
            all.push(if windows { request.ends("ACTION_UNSUPPORTED") } else { request });
        }
    }
    all.push(request(
        "cancelVmCommand",
        json!({ "vmId": things.on, "commandId": things.command }),
        vec![
            vm("vmId"),
            row("commandId", Other("COMMAND_NOT_FOUND"))
                .strangers(json!(things.command), "COMMAND_NOT_FOUND"),
        ],
    ));
    all
}

/// Each parameter with an action that takes it.
fn safe() -> Vec<(Value, Vec<Row>)> {
    let missing = |path, means| row(path, means).and(json!(null), INVALID);
    vec![
        (
            json!({ "action": "SERVICE_CONTROL", "service": "ssh", "operation": "STATUS" }),
            vec![
                row("command.safe", Group),
                row("command.safe.action", Choice),
                missing("command.safe.service", Words(NONE)),
                missing("command.safe.operation", Choice),
            ],
        ),
        (
            json!({ "action": "PACKAGE_INSTALL", "package": "vim" }),
            vec![missing("command.safe.package", Words(NONE)).and(json!("-y"), INVALID)],
        ),
        (
            json!({ "action": "PACKAGE_SEARCH", "query": "vim" }),
            vec![missing("command.safe.query", Words(NONE))],
        ),
        (
            json!({ "action": "PROCESS_TOP", "limit": 5 }),
            vec![row("command.safe.limit", Number), row("command.safe.sortBy", Choice)],
        ),
        (
            json!({ "action": "PROCESS_KILL", "pid": 4000 }),
            vec![
                missing("command.safe.pid", Positive).and(json!(1), INVALID),
                row("command.safe.force", Choice),
            ],
        ),
        (
            json!({ "action": "CHECK_DISK_SPACE" }),
            vec![row("command.safe.warningThreshold", Number), row("command.safe.criticalThreshold", Number)],
        ),
        (
            json!({ "action": "CHECK_RESOURCE_OPTIMIZATION" }),
            vec![row("command.safe.evaluationWindowDays", Number)],
        ),
        (
            json!({ "action": "RUN_HEALTH_CHECK", "checkName": "load" }),
            vec![missing("command.safe.checkName", Words(NONE))],
        ),
        (
            json!({ "action": "DISK_CLEANUP", "drive": "/tmp", "targets": ["old"] }),
            vec![
                missing("command.safe.drive", Words(NONE)),
                missing("command.safe.targets", Words(NONE)).and(json!([]), INVALID),
            ],
        ),
        (json!({ "action": "GET_UPDATE_HISTORY" }), vec![row("command.safe.days", Number)]),
        (
            json!({ "action": "GET_APPLICATION_DETAILS", "appId": "a" }),
            vec![missing("command.safe.appId", Words(NONE))],
        ),
    ]
}

use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema};
use serde_json::json;

use super::*;

struct Query(SafeActionResult);

#[Object]
impl Query {
    async fn result(&self) -> SafeActionResult {
        self.0.clone()
    }
}

/// What a client gets who asks for these fields.
async fn told(action: &str, data: Value, fields: &str) -> Option<Value> {
    let result = SafeActionResult::of(action, &data)?;
    let schema = Schema::new(Query(result), EmptyMutation, EmptySubscription);
    let answer = schema.execute(format!("{{ result {{ __typename {fields} }} }}")).await;
    assert!(answer.errors.is_empty(), "{:?}", answer.errors);
    Some(answer.data.into_json().unwrap()["result"].take())
}

#[tokio::test]
async fn what_our_agent_sends_is_typed() {
    for (action, data, fields, expected) in [
        (
            "ServiceList",
            json!({"services": [{"name": "ssh.service", "description": "SSH", "load_state": "loaded",
                "active_state": "active", "sub_state": "running", "enabled": null}], "truncated": false}),
            "... on Services { services { name description loadState activeState subState enabled } truncated }",
            json!({"__typename": "Services", "services": [{"name": "ssh.service", "description": "SSH",
                "loadState": "loaded", "activeState": "active", "subState": "running", "enabled": null}],
                "truncated": false}),
        ),
        (
            "ServiceControl",
            json!({"service": "ssh", "operation": "status", "name": "ssh.service", "active_state": "inactive",
                "sub_state": "dead", "enabled": "enabled", "load_state": "loaded", "description": "SSH"}),
            "... on ServiceState { service operation activeState enabled }",
            json!({"__typename": "ServiceState", "service": "ssh", "operation": "status",
                "activeState": "inactive", "enabled": "enabled"}),
        ),
        (
            "PackageList",
            json!({"packages": [{"name": "vim", "version": "2:9", "architecture": "amd64"}], "truncated": true}),
            "... on InstalledPackages { packages { name version architecture } truncated }",
            json!({"__typename": "InstalledPackages",
                "packages": [{"name": "vim", "version": "2:9", "architecture": "amd64"}], "truncated": true}),
        ),
        (
            "PackageSearch",
            json!({"packages": [{"name": "vim", "description": "Vi"}], "truncated": false}),
            "... on FoundPackages { packages { name description } truncated }",
            json!({"__typename": "FoundPackages", "packages": [{"name": "vim", "description": "Vi"}],
                "truncated": false}),
        ),
        (
            "ProcessTop",
            json!({"processes": [{"id": 7, "parent_id": null, "name": "x", "executable_path": "/x",
                "command_line": "x -y", "cpu_usage_percent": 1207.5, "memory_usage_kb": 8_589_934_592_i64,
                "status": "running", "start_time": 0}], "total": 90, "truncated": true}),
            "... on Processes { total processes { pid parentPid name executablePath commandLine cpuUsagePercent
                memoryUsageKb status startTime } }",
            json!({"__typename": "Processes", "total": 90, "processes": [{"pid": 7, "parentPid": null, "name": "x",
                "executablePath": "/x", "commandLine": "x -y", "cpuUsagePercent": 1207.5,
                "memoryUsageKb": "8589934592", "status": "running", "startTime": "1970-01-01T00:00:00+00:00"}]}),
        ),
        (
            "ProcessKill",
            json!({"pid": 7, "signal": "SIGTERM"}),
            "... on EndedProcess { pid signal }",
            json!({"__typename": "EndedProcess", "pid": 7, "signal": "SIGTERM"}),
        ),
        (
            "SystemInfo",
            json!({"hostname": "h", "uptime_seconds": 5, "load_average": {"load_1min": 0.5, "load_5min": 1,
                "load_15min": null}, "cpu": {"model": "m", "logical_cores": 2}, "memory": {"total_kb": 3,
                "used_kb": 1, "available_kb": 2, "swap_total_kb": 0, "swap_used_kb": 0}}),
            "... on SystemInfo { hostname uptimeSeconds loadAverage { oneMinute fiveMinutes fifteenMinutes }
                cpuModel logicalCores memory { totalKb usedKb availableKb swapTotalKb swapUsedKb } }",
            json!({"__typename": "SystemInfo", "hostname": "h", "uptimeSeconds": "5", "loadAverage":
                {"oneMinute": 0.5, "fiveMinutes": 1.0, "fifteenMinutes": null}, "cpuModel": "m",
                "logicalCores": 2, "memory": {"totalKb": "3", "usedKb": "1", "availableKb": "2",
                "swapTotalKb": "0", "swapUsedKb": "0"}}),
        ),
        (
            "OsInfo",
            json!({"name": "Debian GNU/Linux", "id": "debian", "version": "12", "pretty_name": "Debian 12",
                "kernel_version": "6.1", "architecture": "x86_64"}),
            "... on OsInfo { name id version prettyName kernelVersion architecture }",
            json!({"__typename": "OsInfo", "name": "Debian GNU/Linux", "id": "debian", "version": "12",
                "prettyName": "Debian 12", "kernelVersion": "6.1", "architecture": "x86_64"}),
        ),
        (
            "CheckDiskSpace",
            json!({"status": "warning", "warning_threshold": 80.0, "critical_threshold": 95.0, "disks": [
                {"mount_point": "/", "total_gb": 10, "used_gb": 9.0, "available_gb": 1.0, "filesystem": "ext4",
                "usage_percent": 90.0, "status": "warning"}]}),
            "... on DiskSpace { status warningThreshold criticalThreshold
                disks { mountPoint filesystem totalGb usedGb availableGb usagePercent status } }",
            json!({"__typename": "DiskSpace", "status": "warning", "warningThreshold": 80.0,
                "criticalThreshold": 95.0, "disks": [{"mountPoint": "/", "filesystem": "ext4", "totalGb": 10.0,
                "usedGb": 9.0, "availableGb": 1.0, "usagePercent": 90.0, "status": "warning"}]}),
        ),
        (
            "RunAllHealthChecks",
            json!({"status": "ok", "checks": [{"name": "load", "status": "ok", "message": "calm", "value": 0.1},
                {"name": "disk_space", "status": "unknown", "message": "?", "value": null}]}),
            "... on HealthReport { status checks { name status message value } }",
            json!({"__typename": "HealthReport", "status": "ok", "checks": [
                {"name": "load", "status": "ok", "message": "calm", "value": 0.1},
                {"name": "disk_space", "status": "unknown", "message": "?", "value": null}]}),
        ),
    ] {
        assert_eq!(told(action, data, fields).await, Some(expected), "{action}");
    }
}

const TYPED: [&str; 13] = [
    "ServiceList",
    "ServiceControl",
    "PackageList",
    "PackageSearch",
    "ProcessList",
    "ProcessTop",
    "ProcessKill",
    "SystemInfo",
    "OsInfo",
    "CheckDiskSpace",
    "RunHealthCheck",
    "RunAllHealthChecks",
    "PackageInstall",
];

#[test]
fn what_does_not_fit_at_all_is_no_result() {
    for action in TYPED {
        for data in [
            json!(null),
            json!([]),
            json!([{"name": "x"}]),
            json!("text"),
            json!(5),
            json!({}),
            json!({"timed_out": false, "signal_number": null}),
            json!({"services": {}, "packages": "x", "processes": 5, "disks": null, "checks": true}),
        ] {
            assert_eq!(SafeActionResult::of(action, &data), None, "{action} {data}");
        }
    }
    let fits = json!({"services": [], "packages": []});
    assert_eq!(SafeActionResult::of("CheckWindowsUpdates", &fits), None);
    assert_eq!(SafeActionResult::of("", &fits), None);
    assert!(SafeActionResult::of("PackageList", &fits).is_some());
}

#[tokio::test]
async fn a_field_of_the_wrong_kind_is_null_and_the_rest_stands() {
    let hostile = json!({"processes": [
        {"id": 4_294_967_296_i64, "parent_id": -1, "name": ["x"], "command_line": "a\u{1b}[31m\u{202e}b\n",
         "cpu_usage_percent": "many", "memory_usage_kb": 1.5, "start_time": i64::MAX, "status": {"a": 1}},
        "no row", null, [1], {},
    ], "total": "all", "truncated": 1});
    let fields =
        "... on Processes { total truncated processes { pid parentPid name commandLine cpuUsagePercent
        memoryUsageKb startTime status } }";
    let nothing = json!({"pid": null, "parentPid": null, "name": null, "commandLine": null,
        "cpuUsagePercent": null, "memoryUsageKb": null, "startTime": null, "status": null});
    let mut first = nothing.clone();
    first["parentPid"] = json!(-1);
    first["commandLine"] = json!("a[31mb");
    assert_eq!(
        told("ProcessList", hostile, fields).await.unwrap(),
        json!({"__typename": "Processes", "total": null, "truncated": null, "processes": [first, nothing]})
    );
    let long = json!({"name": "x".repeat(100_000), "id": u64::MAX, "version": {"x": "y"}});
    let os = told("OsInfo", long, "... on OsInfo { name id version }").await.unwrap();
    assert_eq!(os, json!({"__typename": "OsInfo", "name": "x".repeat(4096), "id": null, "version": null}));
    let odd = json!({"hostname": 5, "cpu": "fast", "memory": [], "uptime_seconds": -1.5, "load_average": 1});
    let info =
        told("SystemInfo", odd, "... on SystemInfo { hostname cpuModel uptimeSeconds memory { totalKb } }");
    let nothing = json!({"__typename": "SystemInfo", "hostname": null, "cpuModel": null,
        "uptimeSeconds": null, "memory": null});
    assert_eq!(info.await, Some(nothing));
}

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Every action, with every parameter, and as it stands on the wire.
fn all() -> Vec<(SafeAction, Value)> {
    let package = || "libc6:amd64".to_owned();
    let app_id = || "{90160000-008C-0000-1000-0000000FF1CE}".to_owned();
    vec![
        (SafeAction::ServiceList, json!({"action": "ServiceList"})),
        (
            SafeAction::ServiceControl { service: "ssh".into(), operation: ServiceOperation::Restart },
            json!({"action": "ServiceControl", "service": "ssh", "operation": "restart"}),
        ),
        (SafeAction::PackageList, json!({"action": "PackageList"})),
        (
            SafeAction::PackageInstall { package: package() },
            json!({"action": "PackageInstall", "package": "libc6:amd64"}),
        ),
        (
            SafeAction::PackageRemove { package: package() },
            json!({"action": "PackageRemove", "package": "libc6:amd64"}),
        ),
        (
            SafeAction::PackageUpdate { package: package() },
            json!({"action": "PackageUpdate", "package": "libc6:amd64"}),
        ),
        (
            SafeAction::PackageSearch { query: "editor".into() },
            json!({"action": "PackageSearch", "query": "editor"}),
        ),
        (SafeAction::ProcessList { limit: Some(5) }, json!({"action": "ProcessList", "limit": 5})),
        (
            SafeAction::ProcessKill { pid: 42, force: Some(true) },
            json!({"action": "ProcessKill", "pid": 42, "force": true}),
        ),
        (
            SafeAction::ProcessTop { limit: Some(3), sort_by: Some(SortBy::Memory) },
            json!({"action": "ProcessTop", "limit": 3, "sort_by": "memory"}),
        ),
        (SafeAction::SystemInfo, json!({"action": "SystemInfo"})),
        (SafeAction::OsInfo, json!({"action": "OsInfo"})),
        (
            SafeAction::CheckDiskSpace(DiskThresholds {
                warning_threshold: Some(80.5),
                critical_threshold: Some(95.0),
            }),
            json!({"action": "CheckDiskSpace", "warning_threshold": 80.5, "critical_threshold": 95.0}),
        ),
        (
            SafeAction::CheckResourceOptimization { evaluation_window_days: Some(7) },
            json!({"action": "CheckResourceOptimization", "evaluation_window_days": 7}),
        ),
        (
            SafeAction::RunHealthCheck { check_name: "disk_space".into() },
            json!({"action": "RunHealthCheck", "check_name": "disk_space"}),
        ),
        (SafeAction::RunAllHealthChecks, json!({"action": "RunAllHealthChecks"})),
        (
            SafeAction::DiskCleanup {
                drive: "C:".into(),
                targets: vec!["temp_files".into(), "cache".into()],
            },
            json!({"action": "DiskCleanup", "drive": "C:", "targets": ["temp_files", "cache"]}),
        ),
        (SafeAction::CheckWindowsUpdates, json!({"action": "CheckWindowsUpdates"})),
        (SafeAction::GetUpdateHistory { days: Some(30) }, json!({"action": "GetUpdateHistory", "days": 30})),
        (SafeAction::GetPendingUpdates, json!({"action": "GetPendingUpdates"})),
        (SafeAction::CheckWindowsDefender, json!({"action": "CheckWindowsDefender"})),
        (SafeAction::GetDefenderStatus, json!({"action": "GetDefenderStatus"})),
        (SafeAction::RunDefenderQuickScan, json!({"action": "RunDefenderQuickScan"})),
        (SafeAction::GetThreatHistory, json!({"action": "GetThreatHistory"})),
        (SafeAction::GetInstalledApplicationsWmi, json!({"action": "GetInstalledApplicationsWMI"})),
        (SafeAction::CheckApplicationUpdates, json!({"action": "CheckApplicationUpdates"})),
        (
            SafeAction::GetApplicationDetails { app_id: app_id() },
            json!({"action": "GetApplicationDetails", "app_id": app_id()}),
        ),
        (
            SafeAction::CheckSpecificAppUpdates { app_id: app_id() },
            json!({"action": "CheckSpecificAppUpdates", "app_id": app_id()}),
        ),
        (
            SafeAction::EstimateUpdateSize { app_id: app_id() },
            json!({"action": "EstimateUpdateSize", "app_id": app_id()}),
        ),
        (SafeAction::GetAvailableUpdates, json!({"action": "GetAvailableUpdates"})),
        (SafeAction::GetSecurityUpdates, json!({"action": "GetSecurityUpdates"})),
    ]
}

#[test]
fn every_action_is_one_flat_object() {
    for (action, wire) in all() {
        assert_eq!(json!(action), wire);
        assert_eq!(json!(action.name()), wire["action"]);
        assert_eq!(serde_json::from_value::<SafeAction>(wire).unwrap(), action);
        assert_eq!(action.check(), Ok(()), "{action:?}");
    }
}

#[test]
fn what_is_optional_is_left_out() {
    for wire in [
        json!({"action": "ProcessList"}),
        json!({"action": "ProcessTop"}),
        json!({"action": "ProcessKill", "pid": 2}),
        json!({"action": "CheckDiskSpace"}),
        json!({"action": "CheckResourceOptimization"}),
        json!({"action": "GetUpdateHistory"}),
    ] {
        let action: SafeAction = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(action.check(), Ok(()));
        assert_eq!(json!(action), wire);
    }
}

#[test]
fn what_is_missing_or_nested_is_no_action() {
    for wire in [
        json!({"action": "ServiceControl", "service": "ssh"}),
        json!({"action": "PackageInstall", "package": {"name": "vim"}}),
        json!({"action": {"ServiceControl": {"service": "ssh", "operation": "start"}}}),
        json!({"action": "RunHealthCheck"}),
        json!({"action": "DiskCleanup", "drive": "C:", "targets": "temp"}),
        json!({"action": "GetApplicationDetails", "app_id": 5}),
        json!({"action": "Fly"}),
        json!({}),
    ] {
        assert!(serde_json::from_value::<SafeAction>(wire.clone()).is_err(), "{wire}");
    }
}

#[test]
fn platforms_part_what_windows_has_alone() {
    let windows_only: Vec<_> =
        all().into_iter().filter(|(a, _)| a.platforms() == WINDOWS).map(|(a, _)| a.name()).collect();
    assert_eq!(windows_only.len(), 14);
    assert!(windows_only.contains(&"GetInstalledApplicationsWMI"));
    assert!(all().iter().all(|(a, _)| a.platforms().contains(&Platform::Windows)));
    for (word, platform) in
        [("linux", Some(Platform::Linux)), ("Windows", Some(Platform::Windows)), ("beos", None), ("", None)]
    {
        assert_eq!(Platform::of(word), platform);
    }
}

/// The field that a check refuses.
fn refused(action: &SafeAction) -> Option<&'static str> {
    action.check().err().map(|error| error.field)
}

#[test]
fn texts_keep_their_rules() {
    let long = "a".repeat(300);
    for bad in ["", "-y", "a b", "a;b", "$(x)", "../x", "a\nb", "ä", &long] {
        let bad = || bad.to_owned();
        for (action, field) in [
            (SafeAction::PackageInstall { package: bad() }, "package"),
            (SafeAction::PackageRemove { package: bad() }, "package"),
            (SafeAction::PackageUpdate { package: bad() }, "package"),
            (SafeAction::PackageSearch { query: bad() }, "query"),
            (SafeAction::ServiceControl { service: bad(), operation: ServiceOperation::Status }, "service"),
            (SafeAction::RunHealthCheck { check_name: bad() }, "check_name"),
            (SafeAction::DiskCleanup { drive: bad(), targets: vec!["x".into()] }, "drive"),
            (SafeAction::DiskCleanup { drive: "/".into(), targets: vec![bad()] }, "targets"),
            (SafeAction::GetApplicationDetails { app_id: bad() }, "app_id"),
            (SafeAction::CheckSpecificAppUpdates { app_id: bad() }, "app_id"),
            (SafeAction::EstimateUpdateSize { app_id: bad() }, "app_id"),
        ] {
            assert_eq!(refused(&action), Some(field), "{action:?}");
        }
    }
}

#[test]
fn drives_are_letters_or_mount_points() {
    let cleanup =
        |drive: &str| refused(&SafeAction::DiskCleanup { drive: drive.into(), targets: vec!["x".into()] });
    for good in ["C", "C:", "z:", "/", "/var/lib", "/mnt/data-1", "/home/a@b"] {
        assert_eq!(cleanup(good), None, "{good}");
    }
    for bad in ["CD:", "C::", ":", "1:", "C:\\", "var", "//", "/a/", "/a/../b", "/.", "/a b", "/$x", "/-x"] {
        assert_eq!(cleanup(bad), Some("drive"), "{bad}");
    }
}

#[test]
fn applications_are_named_without_tricks() {
    let details = |id: &str| refused(&SafeAction::GetApplicationDetails { app_id: id.into() });
    for good in ["Microsoft.VisualStudioCode", "Notepad++.Notepad++", "{A-1}", "7zip_x64"] {
        assert_eq!(details(good), None, "{good}");
    }
    for bad in ["..", ".hidden", "a..b", "a/b", "a\\b", "a%b", "a'b", "a\"b", "a&b", "a|b", "C:x"] {
        assert_eq!(details(bad), Some("app_id"), "{bad}");
    }
}

#[test]
fn numbers_and_lists_are_bounded() {
    let targets = |count: usize| SafeAction::DiskCleanup {
        drive: "C".into(),
        targets: (0..count).map(|n| format!("t{n}")).collect(),
    };
    let disk = |percent| {
        SafeAction::CheckDiskSpace(DiskThresholds { warning_threshold: percent, critical_threshold: None })
    };
    let window = |days| SafeAction::CheckResourceOptimization { evaluation_window_days: Some(days) };
    let history = |days| SafeAction::GetUpdateHistory { days: Some(days) };
    for (action, expected) in [
        (targets(0), Some("targets")),
        (targets(32), None),
        (targets(33), Some("targets")),
        (disk(Some(100.0)), None),
        (disk(Some(100.1)), Some("warning_threshold")),
        (disk(Some(-1.0)), Some("warning_threshold")),
        (disk(Some(f64::NAN)), Some("warning_threshold")),
        (window(0), Some("evaluation_window_days")),
        (window(365), None),
        (window(366), Some("evaluation_window_days")),
        (history(0), Some("days")),
        (history(3650), None),
        (history(3651), Some("days")),
        (SafeAction::ProcessKill { pid: 1, force: None }, Some("pid")),
        (SafeAction::ProcessKill { pid: u32::MAX, force: None }, Some("pid")),
        (SafeAction::ProcessList { limit: Some(0) }, Some("limit")),
        (SafeAction::ProcessTop { limit: Some(10_001), sort_by: None }, Some("limit")),
    ] {
        assert_eq!(refused(&action), expected, "{action:?}");
    }
}

fn any_action() -> impl Strategy<Value = SafeAction> {
    let text = || any::<String>();
    let number = || any::<Option<u32>>();
    // JSON has neither infinities nor NaN, and reads back exactly what has few digits.
    let percent = || prop::option::of((0u8..=200).prop_map(|n| f64::from(n) / 2.0));
    prop_oneof![
        prop::sample::select(all()).prop_map(|(action, _)| action),
        text()
            .prop_map(|service| SafeAction::ServiceControl { service, operation: ServiceOperation::Disable }),
        text().prop_map(|package| SafeAction::PackageInstall { package }),
        text().prop_map(|query| SafeAction::PackageSearch { query }),
        number().prop_map(|limit| SafeAction::ProcessTop { limit, sort_by: None }),
        (any::<u32>(), any::<Option<bool>>()).prop_map(|(pid, force)| SafeAction::ProcessKill { pid, force }),
        (percent(), percent()).prop_map(|(warning_threshold, critical_threshold)| {
            SafeAction::CheckDiskSpace(DiskThresholds { warning_threshold, critical_threshold })
        }),
        number().prop_map(|days| SafeAction::CheckResourceOptimization { evaluation_window_days: days }),
        number().prop_map(|days| SafeAction::GetUpdateHistory { days }),
        text().prop_map(|check_name| SafeAction::RunHealthCheck { check_name }),
        (text(), prop::collection::vec(text(), 0..5))
            .prop_map(|(drive, targets)| SafeAction::DiskCleanup { drive, targets }),
        text().prop_map(|app_id| SafeAction::EstimateUpdateSize { app_id }),
    ]
}

proptest! {
    #[test]
    fn any_action_survives_the_wire(action in any_action()) {
        let line = serde_json::to_vec(&action).unwrap();
        prop_assert_eq!(serde_json::from_slice::<SafeAction>(&line).unwrap(), action);
    }

    #[test]
    fn whatever_passes_is_one_harmless_word(action in any_action()) {
        if action.check().is_ok() {
            for (_, value) in json!(action).as_object().unwrap() {
                let words = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
                for word in words.iter().filter_map(Value::as_str) {
                    prop_assert!(!word.is_empty() && !word.starts_with('-') && !word.contains(".."));
                    prop_assert!(word.chars().all(|c| c.is_ascii_graphic() && !"$`'\"\\;|&<>()*?!#%".contains(c)));
                }
            }
        }
    }
}

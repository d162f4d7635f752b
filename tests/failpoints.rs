//! The failpoints in the code are those of the list, each in one place, and what is shipped has none.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use infinibay::{
    failpoint::OPERATIONS,
    vm::{DeviceChange, GuestChange, IdentityChange, SettingChange, SizeChange, SnapshotChange, VmChange},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each point in the code, as often as it stands there.
fn in_the_code() -> Vec<String> {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut points = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for after in text.split("failpoint!(").skip(1) {
            let name = after.strip_prefix('"').and_then(|name| name.split_once("\")"));
            let (name, _) = name.unwrap_or_else(|| panic!("{}: a point without a name", file.display()));
            points.push(name.to_owned());
        }
    }
    points
}

#[test]
fn the_code_has_the_points_of_the_list_and_no_others() {
    let listed: BTreeSet<_> = OPERATIONS.iter().flat_map(|(_, points)| *points).copied().collect();
    let points = in_the_code();
    let found: BTreeSet<_> = points.iter().map(String::as_str).collect();
    assert_eq!(found, listed, "what no operation lists is never reached by a story");
    assert_eq!(points.len(), found.len(), "one name for two places: {points:?}");
}

#[test]
fn names_are_step_and_moment() {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let mut operations = BTreeSet::new();
    for (operation, points) in OPERATIONS {
        assert!(operations.insert(operation), "{operation} is listed twice");
        assert_eq!(points.iter().collect::<BTreeSet<_>>().len(), points.len(), "{operation}: {points:?}");
        for point in *points {
            let regular =
                point.split_once('.').is_some_and(|(step, moment)| is_word(step) && is_word(moment));
            assert!(regular, "{point} of {operation}");
        }
    }
}

/// Each change with its operation of the list. It is one table for the compiler, which misses a new
/// change in it, and for the test, which looks the operations up. (Steps have theirs beside them.)
macro_rules! changes {
    ($($change:pat => $operation:literal;)*) => {
        fn is_told(change: &VmChange) -> bool {
            match change { $($change => true),* }
        }
        const TOLD: &[&str] = &[$($operation),*];
    };
}

changes! {
    VmChange::Guest(GuestChange::Reset) => "reset";
    VmChange::Guest(GuestChange::Reboot { .. }) => "reboot";
    VmChange::Setting(SettingChange::Autostart(_)) => "set-autostart";
    VmChange::Setting(SettingChange::Rename(_)) => "rename";
    VmChange::Setting(SettingChange::Policy { .. }) => "set-policy";
    VmChange::Size(SizeChange::Resize { .. }) => "resize";
    VmChange::Size(SizeChange::GrowDisk { .. }) => "grow-disk";
    VmChange::Device(DeviceChange::AttachDisk { .. }) => "attach-disk";
    VmChange::Device(DeviceChange::DetachDisk { .. }) => "detach-disk";
    VmChange::Device(DeviceChange::InsertMedium { .. }) => "insert-medium";
    VmChange::Device(DeviceChange::EjectMedium { .. }) => "eject-medium";
    VmChange::Device(DeviceChange::AttachInterface { .. }) => "attach-interface";
    VmChange::Device(DeviceChange::DetachInterface { .. }) => "detach-interface";
    VmChange::Snapshot(SnapshotChange::Create(_)) => "create-snapshot";
    VmChange::Snapshot(SnapshotChange::Revert { .. }) => "revert-snapshot";
    VmChange::Snapshot(SnapshotChange::Delete { .. }) => "delete-snapshot";
    VmChange::Identity(IdentityChange::Adopt) => "adopt";
    VmChange::Identity(IdentityChange::Release) => "release";
    VmChange::Lend(_) => "clone";
}

#[test]
fn on_the_way_of_every_change_lie_failpoints() {
    assert!(is_told(&VmChange::Guest(GuestChange::Reset)));
    assert_eq!(TOLD.iter().collect::<BTreeSet<_>>().len(), TOLD.len(), "{TOLD:?}");
    for change in TOLD {
        let listed = OPERATIONS.iter().find(|(name, _)| name == change);
        assert!(listed.is_some_and(|(_, points)| !points.is_empty()), "{change} has no points");
    }
}

/// What is built for use has no points: the crate's feature comes with the tests alone.
#[test]
fn an_ordinary_build_has_none() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap().parse::<toml::Table>().unwrap();
    let manifest = read("Cargo.toml");
    // With an older one, the tests' features would be everybody's.
    assert_eq!(manifest["workspace"]["resolver"].as_str(), Some("3"));
    let plain = manifest["dependencies"]["fail"].as_str();
    assert!(plain.is_some(), "without features, and without a way to give it some");
    let tests = manifest["dev-dependencies"]["fail"]["features"].as_array().unwrap();
    assert_eq!(tests.iter().map(|feature| feature.as_str().unwrap()).collect::<Vec<_>>(), ["failpoints"]);
    assert!(!manifest.contains_key("features"), "no feature of ours may bring them in");
    let lock = read("Cargo.lock");
    let uses = |package: &&toml::Value| {
        let dependencies = package.get("dependencies").and_then(toml::Value::as_array);
        dependencies.is_some_and(|all| all.iter().any(|other| other.as_str() == Some("fail")))
    };
    let users = lock["package"].as_array().unwrap().iter().filter(uses);
    let users: Vec<_> = users.map(|package| package["name"].as_str().unwrap()).collect();
    assert_eq!(users, ["infinibay"], "nobody else may give the crate its feature");
    // This is a test's build. One that is optimised has none all the same.
    assert_eq!(infinibay::failpoint::COMPILED_IN, cfg!(debug_assertions));
}

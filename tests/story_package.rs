//! The Debian package: made of what was built, installed on a copy of this host, used, removed and
//! purged (`tests/package/install.sh` says each promise). And what an operator is given besides.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use support::{host, people};

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_package_is_installed_used_removed_and_purged() {
    // Beside the daemon that is packed; says so where it is not built.
    people::infinibay();
    let dir = tempfile::tempdir().unwrap();
    let deb = dir.path().join("infinibay.deb");
    let mut build = Command::new(checkout("packaging/build-deb"));
    build
        .args(["--no-build", "--profile", "dev", "--base"])
        .arg(host::test_base_dir())
        .arg("--output")
        .arg(&deb);
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", said(&built));

    let mut install = Command::new("timeout");
    install.args(["--signal=KILL", "120", "unshare", "--mount", "--pid", "--fork", "--kill-child"]);
    let installed = install.arg(checkout("tests/package/install.sh")).arg(&deb).output().unwrap();
    assert!(installed.status.success(), "{}", said(&installed));
    let promises = String::from_utf8(installed.stdout).unwrap();
    assert_eq!(promises.lines().filter(|line| line.starts_with("OK ")).count(), 13, "{promises}");
    assert_eq!(promises.lines().last(), Some("DONE"), "{promises}");
}

#[test]
fn the_dashboard_shows_figures_that_there_are() {
    let mut known = BTreeSet::new();
    for file in fs::read_dir(checkout("src/api/prometheus")).unwrap() {
        let source = fs::read_to_string(file.unwrap().path()).unwrap();
        known.extend(words(&source));
    }
    let dashboard = fs::read_to_string(checkout("packaging/grafana/infinibay.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "two panels have the id of {}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let figures = words(expression);
            assert!(!figures.is_empty(), "{expression} shows nothing of ours");
            for figure in figures {
                let figure = figure.strip_suffix("_bucket").unwrap_or(&figure);
                assert!(known.contains(figure), "{figure} of {} is not told", panel["title"]);
            }
        }
    }
}

/// The names of figures in a text.
fn words(text: &str) -> BTreeSet<String> {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let ours = |word: &&str| word.starts_with("infinibay_") || word.starts_with("process_");
    text.split(|c| !name(c)).filter(ours).map(str::to_owned).collect()
}

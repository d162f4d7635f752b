//! Packages where dnf is the system's manager: what it is asked, and what is made of its words.
//! The tools are stand-ins that say what dnf 4.14 and rpm 4.18 said of a repository with a few
//! packages.
#![allow(clippy::unwrap_used, reason = "a story fails where it stands")]

#[path = "support/host.rs"]
mod host;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use agent_protocol::Answer;
use host::{Agent, Host, code};
use serde_json::{Value, json};

/// `greet` is installed, `greet-doc` is not, and the repository of `broken` cannot be reached.
const RPM: &str = r#"#!/bin/sh
for word; do printf '<%s>' "$word"; done >> "${0%/*}/asked"
printf '\n' >> "${0%/*}/asked"
case "$*" in
    '-q -- greet') printf 'greet-1.0-1.noarch\n' ;;
    '-q -- '*) printf 'package %s is not installed\n' "$3"; exit 1 ;;
    '-qa --qf '*) printf 'greet\t1.0-1\tnoarch\nother\t1.0-1\tnoarch\n' ;;
    *) exit 64 ;;
esac
"#;

const DNF: &str = r#"#!/bin/sh
printf 'dnf' >> "${0%/*}/asked"
for word; do printf '<%s>' "$word"; done >> "${0%/*}/asked"
printf '\n' >> "${0%/*}/asked"
said() { printf '\n%s:\n  %-78s\n\n' "$1" "$2"; }
case "$*" in
    *repoquery*--latest-limit=1*) printf 'greet\tSays hello\n\ngreet-doc\tWhat greet can say: a - b\n\n' ;;
    *repoquery*greet-doc) printf 'greet-doc\n\n' ;;
    *repoquery*broken)
        printf '%s%s\n' "Error: Failed to download metadata for repo 'local': Cannot download repomd.xml: " \
            'Cannot download repodata/repomd.xml: All mirrors were tried' >&2
        exit 1 ;;
    *repoquery*) ;;
    '-y -q install greet-doc') said Installed greet-doc-1.0-1.noarch ;;
    '-y -q upgrade greet') said Upgraded greet-2.0-1.noarch ;;
    '-y -q remove greet') said Removed greet-1.0-1.noarch ;;
    *) exit 64 ;;
esac
"#;

fn tool(directory: &Path, name: &str, script: &str) {
    let path = directory.join(name);
    fs::write(&path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An agent that finds these tools and no others.
fn agent_with(tools: &[(&str, &str)]) -> (Agent, Host, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    for (name, script) in tools {
        tool(directory.path(), name, script);
    }
    let agent = Agent::on_socket(&[("PATH", directory.path().to_str().unwrap())]);
    let host = agent.host();
    (agent, host, directory)
}

/// Asks for an action and gives the answer, with what the tools were asked for it.
fn ask(host: &mut Host, tools: &Path, action: &Value) -> (Answer, String) {
    let asked = tools.join("asked");
    fs::write(&asked, "").unwrap();
    host.send(
        &json!({"type": "SafeCommand", "id": action.to_string(), "command_type": action, "timeout": 20}),
    );
    (host.answer(&action.to_string()), fs::read_to_string(asked).unwrap())
}

#[test]
fn dnf_is_asked_for_packages_and_understood() {
    let (_agent, mut host, tools) = agent_with(&[("dnf", DNF), ("rpm", RPM)]);
    let tools = tools.path();

    let (answer, asked) = ask(&mut host, tools, &json!({"action": "PackageList"}));
    assert_eq!(asked, "<-qa><--qf><%{NAME}\t%{VERSION}-%{RELEASE}\t%{ARCH}\n>\n");
    let row = |name: &str| json!({"name": name, "version": "1.0-1", "architecture": "noarch"});
    let rows = json!({"packages": [row("greet"), row("other")], "truncated": false});
    assert_eq!((answer.success, answer.data), (true, Some(rows)));

    let (answer, asked) = ask(&mut host, tools, &json!({"action": "PackageSearch", "query": "greet"}));
    let format = "--queryformat=%{name}\t%{summary}\n";
    assert_eq!(asked, format!("dnf<-q><repoquery><--latest-limit=1><{format}><*greet*>\n"));
    let row = |name: &str, words: &str| json!({"name": name, "description": words});
    let rows = [row("greet", "Says hello"), row("greet-doc", "What greet can say: a - b")];
    assert_eq!(answer.data, Some(json!({"packages": rows, "truncated": false})));

    let known = |name: &str| format!("dnf<-q><repoquery><--queryformat=%{{name}}\n><{name}>\n");
    for (action, package, expected, said) in [
        (
            "PackageInstall",
            "greet-doc",
            format!("<-q><--><greet-doc>\n{}dnf<-y><-q><install><greet-doc>\n", known("greet-doc")),
            "Installed:\n  greet-doc-1.0-1.noarch",
        ),
        (
            "PackageUpdate",
            "greet",
            "<-q><--><greet>\ndnf<-y><-q><upgrade><greet>\n".to_owned(),
            "Upgraded:\n  greet-2.0-1.noarch",
        ),
        (
            "PackageRemove",
            "greet",
            "<-q><--><greet>\ndnf<-y><-q><remove><greet>\n".to_owned(),
            "Removed:\n  greet-1.0-1.noarch",
        ),
    ] {
        let (answer, asked) = ask(&mut host, tools, &json!({"action": action, "package": package}));
        assert_eq!(asked, expected, "{action}");
        assert_eq!((answer.success, answer.exit_code), (true, Some(0)), "{answer:?}");
        assert!(answer.stdout.contains(said), "{action}: {}", answer.stdout);
    }
}

#[test]
fn what_dnf_would_take_for_done_or_for_something_else_is_refused() {
    let (_agent, mut host, tools) = agent_with(&[("dnf", DNF), ("rpm", RPM)]);
    for (action, package, expected) in [
        ("PackageInstall", "nosuch", "NO_SUCH_PACKAGE"),
        ("PackageUpdate", "greet-doc", "NOT_INSTALLED"),
        ("PackageRemove", "nosuch", "NOT_INSTALLED"),
        // Not "there is no such package": that is not known.
        ("PackageInstall", "broken", "COMMAND_FAILED"),
    ] {
        let (answer, asked) = ask(&mut host, tools.path(), &json!({"action": action, "package": package}));
        assert_eq!(code(&answer), expected, "{action} {package}: {answer:?}");
        assert!(!asked.contains("<-y>"), "{action} {package}: {asked}");
    }
}

#[test]
fn yum_without_dnf_is_not_supported_and_says_so() {
    for (tools, word) in [(&[("yum", DNF), ("rpm", RPM)][..], "yum"), (&[][..], "neither")] {
        let (_agent, mut host, directory) = agent_with(tools);
        let (answer, asked) = ask(&mut host, directory.path(), &json!({"action": "PackageList"}));
        assert_eq!(code(&answer), "NOT_SUPPORTED");
        let error = answer.error.and_then(|error| error.message).unwrap_or_default();
        assert!(error.contains(word) && asked.is_empty(), "{error}: {asked}");
    }
}

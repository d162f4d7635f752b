//! An operator's own templates: those that are broken keep the daemon from starting, with the file and
//! the line to look at; put right, it serves.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{fs, path::Path};

use support::daemon::{Home, Setup};

const DOMAIN: &str = include_str!("../domain-templates/linux.xml");
const WINDOWS: &str = include_str!("../domain-templates/windows.xml");
const PRESEED: &str = include_str!("../domain-templates/unattended/debian.preseed");
const KICKSTART: &str = include_str!("../domain-templates/unattended/fedora.ks");
const AUTOINSTALL: &str = include_str!("../domain-templates/unattended/ubuntu.yaml");
const AUTOUNATTEND: &str = include_str!("../domain-templates/unattended/windows.xml");

const CHANNEL: &str = "<target type='virtio' name='{{ channel_name }}'/>";

/// A home whose daemons look for templates in the directory beside it.
fn home(templates: &Path) -> Home {
    Home::new(Setup {
        uri: "test:///default".into(),
        database_url: None,
        images_dir: "/nonexistent/images".into(),
        base_dir: "/nonexistent/base".into(),
        env: vec![("INFINIBAY__PATHS__TEMPLATES_DIR".into(), templates.display().to_string())],
    })
}

/// The line of a text that holds this, counted from 1.
fn line_of(text: &str, part: &str) -> usize {
    1 + text.lines().position(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part} in {text}"))
}

/// `text` with `from` replaced once, and the line where that happened.
fn broken(text: &str, from: &str, to: &str) -> (String, usize) {
    (text.replacen(from, to, 1), line_of(text, from))
}

#[test]
fn a_broken_template_is_refused_with_file_and_line_and_a_good_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("unattended")).unwrap();
    let home = home(dir.path());
    let refused = |name: &str, (text, line): (String, usize), says: &str| {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        let (code, words) = home.start_refused();
        fs::remove_file(&file).unwrap();
        assert_eq!(code, Some(1), "{name}: {words}");
        let last = words.lines().last().unwrap_or_default();
        assert!(last.starts_with("infinibayd: "), "{name}: {words}");
        let place = format!("{}:{line}", file.display());
        assert!(
            last.contains(&format!("{place} ")) || last.contains(&format!("{place}: ")),
            "{place}: {words}"
        );
        assert!(last.contains(says), "{name} does not say {says:?}: {words}");
        assert!(!home.state_dir().join("infinibay.db").exists(), "{name}: a database was made all the same");
    };

    // No template.
    refused("linux.xml", broken(DOMAIN, "{{ memory_mib }}", "{{ memory_mib "), "syntax error");
    refused("windows.xml", broken(WINDOWS, "{%- if tpm %}", "{%- if %}"), "syntax error");
    refused("unattended/debian.preseed", broken(PRESEED, "{{ timezone }}", "{{ timezone }"), "syntax error");
    refused("unattended/ubuntu.yaml", broken(AUTOINSTALL, "{{ network }}", "{{ | }}"), "syntax error");
    // Values that there are not; in the branch of one kind of VM, too.
    refused("linux.xml", broken(DOMAIN, "{{ vcpus }}", "{{ processors }}"), "undefined value");
    refused(
        "windows.xml",
        broken(WINDOWS, "<smm state='on'/>", "<smm state='{{ smm }}'/>"),
        "undefined value",
    );
    refused("unattended/fedora.ks", broken(KICKSTART, "{{ timezone }}", "{{ zone }}"), "undefined value");
    refused(
        "unattended/windows.xml",
        broken(AUTOUNATTEND, "{{ edition }}", "{{ flavour }}"),
        "undefined value",
    );
    // What does not give what is needed.
    let gone = broken(DOMAIN, CHANNEL, "<target type='virtio' name='org.example'/>");
    refused("linux.xml", (gone.0, line_of(DOMAIN, "{{ socket }}")), "agent channel");
    let text =
        [&DOMAIN[..DOMAIN.rfind("<channel").unwrap()], &DOMAIN[DOMAIN.find("<graphics").unwrap()..]].concat();
    let devices = line_of(DOMAIN, "<channel type='unix'>");
    refused("linux.xml", (text, devices), "agent channel");
    let element = "<infinibay:vm xmlns:infinibay='{{ metadata_namespace }}' id='{{ id }}' schema='{{ metadata_schema }}'/>";
    let (text, line) = broken(WINDOWS, element, "");
    refused("windows.xml", (text, line - 1), "metadata element");
    refused("linux.xml", broken(DOMAIN, "</metadata>", "</meta>"), "does not give a domain");
    refused("linux.xml", (String::new(), 1), "does not give a domain");
    refused(
        "unattended/debian.preseed",
        broken(PRESEED, "d-i mirror/country string manual", "mirror by hand"),
        "",
    );
    let (text, _) = broken(KICKSTART, "%onerror", "%include /etc/shadow\n%onerror");
    refused("unattended/fedora.ks", (text, line_of(KICKSTART, "%onerror")), "reads another file");
    refused("unattended/windows.xml", broken(AUTOUNATTEND, "</unattend>", "</answers>"), "installer reads");
    // No file that is read.
    fs::create_dir(dir.path().join("linux.xml")).unwrap();
    let (code, words) = home.start_refused();
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains(&dir.path().join("linux.xml").display().to_string()), "{words}");
    fs::remove_dir(dir.path().join("linux.xml")).unwrap();

    // Put right.
    for (name, text) in [
        ("linux.xml", DOMAIN),
        ("windows.xml", WINDOWS),
        ("unattended/debian.preseed", PRESEED),
        ("unattended/fedora.ks", KICKSTART),
        ("unattended/ubuntu.yaml", AUTOINSTALL),
        ("unattended/windows.xml", AUTOUNATTEND),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    home.start().stop();
}

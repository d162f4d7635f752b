//! Discs as their makers label them.

use super::*;

/// Distribution, version, variant, arch.
type Told<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<&'a str>);

fn told(facts: &MediumFacts) -> Told<'_> {
    (facts.distribution.as_deref(), facts.version.as_deref(), facts.variant.as_deref(), facts.arch.as_deref())
}

#[test]
fn debian_and_ubuntu_are_known_by_their_info() {
    for (label, info, expected) in [
        (
            "Ubuntu-Server 24.04.2 LTS amd64",
            "Ubuntu-Server 24.04.2 LTS \"Noble Numbat\" - Release amd64 (20250217.1)",
            ("ubuntu", "24.04.2", "server", "amd64"),
        ),
        (
            "Ubuntu 24.10 amd64",
            "Ubuntu 24.10 \"Oracular Oriole\" - Release amd64 (20241009.3)\n",
            ("ubuntu", "24.10", "desktop", "amd64"),
        ),
        (
            "Debian 12.5.0 amd64 n",
            "Debian GNU/Linux 12.5.0 \"Bookworm\" - Official amd64 NETINST with firmware 20240210-11:27",
            ("debian", "12.5.0", "netinst", "amd64"),
        ),
        (
            "Debian 13.1.0 arm64 1",
            "Debian GNU/Linux 13.1.0 \"Trixie\" - Official arm64 DVD Binary-1 with firmware 20250906-10:24",
            ("debian", "13.1.0", "dvd", "arm64"),
        ),
    ] {
        let (distribution, version, variant, arch) = expected;
        let traces =
            Traces { label: label.to_owned(), disk_info: Some(info.to_owned()), ..Traces::default() };
        let facts = detect(&traces);
        assert_eq!(told(&facts), (Some(distribution), Some(version), Some(variant), Some(arch)), "{label}");
        assert_eq!((facts.os_family, facts.label.as_deref()), (Some(OsFamily::Linux), Some(label)));
    }
}

#[test]
fn fedora_and_its_relatives_are_known_by_their_tree() {
    let tree = |family: &str, short: &str, version: &str, variant: &str| {
        format!(
            "[header]\nversion = 1.2\ntype = productmd.treeinfo\n\n[release]\nname = {family}\nshort = {short}\n\
             version = {version}\n\n[tree]\narch = x86_64\n\n[general]\n; WARNING\narch = x86_64\nfamily = {family}\n\
             name = {family} {version}\nvariant = {variant}\nversion = {version}\n"
        )
    };
    for (family, short, version, variant, distribution) in [
        ("Fedora", "Fedora", "41", "Server", "fedora"),
        ("Red Hat Enterprise Linux", "RHEL", "9.4", "BaseOS", "rhel"),
        ("Rocky Linux", "Rocky", "9.4", "BaseOS", "rocky"),
        ("AlmaLinux", "AlmaLinux", "10.0", "BaseOS", "almalinux"),
        ("CentOS Stream", "CentOS-Stream", "9", "BaseOS", "centos"),
    ] {
        let traces = Traces { treeinfo: Some(tree(family, short, version, variant)), ..Traces::default() };
        let expected = (Some(distribution), Some(version), Some(variant), Some("x86_64"));
        assert_eq!(told(&detect(&traces)), expected, "{family}");
    }
}

#[test]
fn windows_is_known_by_its_image() {
    for (name, build, installation, expected) in [
        ("Windows 11 Pro", 22631, "Client", ("windows", "11", "Pro")),
        ("Windows 10 Enterprise LTSC", 19044, "Client", ("windows", "10", "Enterprise LTSC")),
        (
            "Windows Server 2022 SERVERSTANDARDCORE",
            20348,
            "Server Core",
            ("windows-server", "2022", "SERVERSTANDARDCORE"),
        ),
        ("Windows Server 2025 Standard", 26100, "Server", ("windows-server", "2025", "Standard")),
        ("Windows Server 2019 Standard", 17763, "Server", ("windows-server", "2019", "Standard")),
    ] {
        let image = WindowsImage {
            name: Some(name.to_owned()),
            build: Some(build),
            installation: Some(installation.to_owned()),
            arch: Some(9),
        };
        let traces = Traces { label: "CCCOMA_X64FRE".to_owned(), windows: Some(image), ..Traces::default() };
        let facts = detect(&traces);
        let (distribution, version, variant) = expected;
        assert_eq!(told(&facts), (Some(distribution), Some(version), Some(variant), Some("amd64")), "{name}");
        assert_eq!(facts.os_family, Some(OsFamily::Windows));
    }
    let boot_files = ["sources/boot.wim", "sources/install.esd"].map(str::to_owned).to_vec();
    let facts = detect(&Traces { boot_files, ..Traces::default() });
    assert_eq!(told(&facts), (Some("windows"), None, None, None));
}

#[test]
fn a_label_is_enough_where_there_is_no_more() {
    for (label, expected) in [
        ("Fedora-S-dvd-x86_64-41", ("fedora", Some("41"), Some("x86_64"))),
        ("RHEL-9-4-0-BaseOS-x86_64", ("rhel", Some("9.4"), Some("x86_64"))),
        ("Rocky-9-4-x86_64-dvd", ("rocky", Some("9.4"), Some("x86_64"))),
        ("AlmaLinux-9-4-x86_64-dvd", ("almalinux", Some("9.4"), Some("x86_64"))),
        ("CentOS-Stream-9-BaseOS-x86_64", ("centos", Some("9"), Some("x86_64"))),
        ("Debian 12.5.0 amd64 n", ("debian", Some("12.5.0"), Some("amd64"))),
    ] {
        let facts = detect(&Traces { label: label.to_owned(), ..Traces::default() });
        let (distribution, version, arch) = expected;
        assert_eq!(told(&facts), (Some(distribution), version, None, arch), "{label}");
    }
}

#[test]
fn what_is_not_known_is_not_guessed() {
    for label in ["", "HOLIDAYS 2019", "cidata", "Fed"] {
        let facts = detect(&Traces { label: label.to_owned(), ..Traces::default() });
        assert_eq!(told(&facts), (None, None, None, None), "{label}");
        assert_eq!(facts.os_family, None);
    }
    let facts = detect(&Traces {
        treeinfo: Some("[general]\nfamily = Beos\n".to_owned()),
        disk_info: Some("\u{1b}[2J".repeat(1000)),
        label: "a\u{7}b".to_owned(),
        ..Traces::default()
    });
    assert_eq!((told(&facts), facts.label.as_deref()), ((None, None, None, None), Some("ab")));
}

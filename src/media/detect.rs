//! From what a disc says of itself to what it is. Pure.

use super::disc::{Traces, WindowsImage};
use crate::vm::{MediumFacts, OsFamily};

/// Longest text that is kept, characters.
const MAX_TEXT: usize = 128;

/// What is known of a distribution.
#[derive(Default)]
struct Found {
    distribution: Option<&'static str>,
    version: Option<String>,
    variant: Option<String>,
    arch: Option<String>,
}

/// What the disc is; only what it says clearly.
pub(super) fn detect(traces: &Traces) -> MediumFacts {
    let found = traces
        .windows
        .as_ref()
        .map(windows)
        .or_else(|| traces.treeinfo.as_deref().and_then(treeinfo))
        .or_else(|| traces.disk_info.as_deref().and_then(disk_info))
        .or_else(|| by_label(&traces.label))
        .or_else(|| without_description(traces))
        .unwrap_or_default();
    let kept = |text: String| {
        let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
        (!text.is_empty()).then_some(text)
    };
    let os_family = found.distribution.map(|name| match name {
        "windows" | "windows-server" => OsFamily::Windows,
        _ => OsFamily::Linux,
    });
    MediumFacts {
        label: kept(traces.label.clone()),
        os_family,
        distribution: found.distribution.map(str::to_owned),
        version: found.version.and_then(kept),
        variant: found.variant.and_then(kept),
        arch: found.arch.and_then(kept),
        bootable: traces.bootable,
        boot_files: traces.boot_files.clone(),
    }
}

fn windows(image: &WindowsImage) -> Found {
    let name = image.name.as_deref().unwrap_or_default();
    let server =
        name.contains("Server") || image.installation.as_deref().is_some_and(|kind| kind.contains("Server"));
    let version = match (server, image.build) {
        (true, Some(26100..)) => Some("2025"),
        (true, Some(20348..)) => Some("2022"),
        (true, Some(17763..)) => Some("2019"),
        (true, Some(14393..)) => Some("2016"),
        (false, Some(22000..)) => Some("11"),
        (false, Some(10240..)) => Some("10"),
        _ => None,
    };
    let arch = image.arch.and_then(|arch| match arch {
        0 => Some("x86"),
        9 => Some("amd64"),
        12 => Some("arm64"),
        _ => None,
    });
    let prefix =
        format!("{} {} ", if server { "Windows Server" } else { "Windows" }, version.unwrap_or_default());
    Found {
        distribution: Some(if server { "windows-server" } else { "windows" }),
        version: version.map(str::to_owned),
        variant: image.name.as_ref().map(|name| name.strip_prefix(&prefix).unwrap_or(name).to_owned()),
        arch: arch.map(str::to_owned),
    }
}

/// Windows' discs whose image is not described: they have its loader and its images.
fn without_description(traces: &Traces) -> Option<Found> {
    let has = |path: &str| traces.boot_files.iter().any(|file| file == path);
    let installs = has("sources/install.wim") || has("sources/install.esd") || has("sources/install.swm");
    (installs && has("sources/boot.wim")).then(|| Found { distribution: Some("windows"), ..Found::default() })
}

/// An INI file: `[section]` and `key = value`.
fn treeinfo(text: &str) -> Option<Found> {
    let mut section = "";
    let (mut family, mut short, mut found) = (None, None, Found::default());
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim();
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        match (section, key.trim()) {
            ("general", "family") => family = Some(value),
            ("release", "short") => short = Some(value),
            ("general", "version") => found.version = Some(value.to_owned()),
            ("general", "variant") => found.variant = Some(value.to_owned()).filter(|name| !name.is_empty()),
            ("general", "arch") => found.arch = Some(value.to_owned()),
            _ => {}
        }
    }
    found.distribution = Some(match (family?, short.unwrap_or_default()) {
        ("Fedora", _) => "fedora",
        ("Red Hat Enterprise Linux", _) | (_, "RHEL") => "rhel",
        ("Rocky Linux" | "Rocky", _) | (_, "Rocky") => "rocky",
        ("AlmaLinux", _) | (_, "AlmaLinux") => "almalinux",
        (family, _) if family.starts_with("CentOS") => "centos",
        _ => return None,
    });
    Some(found)
}

/// As in `Ubuntu-Server 24.04.2 LTS "Noble Numbat" - Release amd64 (20250217.1)` and
/// `Debian GNU/Linux 12.5.0 "Bookworm" - Official amd64 NETINST with firmware 20240210-11:27`.
fn disk_info(text: &str) -> Option<Found> {
    let line = text.lines().next().unwrap_or_default().trim();
    let (name, rest) = line.split_once(" - ").unwrap_or((line, ""));
    let words: Vec<_> = rest.split_whitespace().collect();
    let arch = words.iter().find(|word| is_arch(word)).map(|&word| word.to_owned());
    let version = name.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let version = version.map(str::to_owned);
    let lower = rest.to_ascii_lowercase();
    if let Some(flavour) = name.strip_prefix("Ubuntu") {
        let flavour = flavour.strip_prefix('-').and_then(|rest| rest.split_whitespace().next());
        let variant = flavour.unwrap_or("Desktop").to_ascii_lowercase();
        return Some(Found { distribution: Some("ubuntu"), version, variant: Some(variant), arch });
    }
    if name.starts_with("Debian GNU/Linux") {
        let variant = ["netinst", "live", "dvd", "cd", "bd"]
            .into_iter()
            .find(|kind| lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *kind));
        let variant = variant.map(str::to_owned);
        return Some(Found { distribution: Some("debian"), version, variant, arch });
    }
    None
}

fn is_arch(word: &str) -> bool {
    matches!(
        word,
        "amd64" | "arm64" | "i386" | "ppc64el" | "s390x" | "riscv64" | "armhf" | "x86_64" | "aarch64"
    )
}

/// Where the label is all there is: minimal discs and old ones.
fn by_label(label: &str) -> Option<Found> {
    // The one architecture that would fall apart at its `_`, and whose number is no version.
    let plain = label.replace("x86_64", "amd64");
    let words: Vec<_> = plain.split(['-', ' ', '_']).collect();
    let distribution = match *words.first()? {
        "Fedora" => "fedora",
        "RHEL" => "rhel",
        "Rocky" => "rocky",
        "AlmaLinux" => "almalinux",
        "CentOS" => "centos",
        "Ubuntu" => "ubuntu",
        "Debian" => "debian",
        _ => return None,
    };
    let numbers: Vec<_> = words
        .iter()
        .skip(1)
        .skip_while(|word| !word.starts_with(|c: char| c.is_ascii_digit()))
        .take_while(|word| word.chars().all(|c| c.is_ascii_digit() || c == '.') && !word.is_empty())
        .copied()
        .collect();
    let version = match (distribution, numbers[..].first()) {
        (_, None) => None,
        // `RHEL-9-4-0-BaseOS`, `Rocky-9-4-x86_64`.
        ("rhel" | "rocky" | "almalinux", Some(major)) => {
            Some(numbers.get(1).map_or_else(|| (*major).to_owned(), |minor| format!("{major}.{minor}")))
        }
        (_, Some(version)) => Some((*version).to_owned()),
    };
    let arch = if label.contains("x86_64") {
        Some("x86_64")
    } else {
        words.iter().copied().find(|word| is_arch(word))
    };
    Some(Found { distribution: Some(distribution), version, variant: None, arch: arch.map(str::to_owned) })
}

#[cfg(test)]
mod tests;

//! Debian and its children.
//!
//! `apt-get` reads more into a name than a name: `x-` means "remove x", `x+` "install x", and a
//! name that does not exist is taken for a regular expression. So a name is looked up first and
//! goes to `apt-get` only if it is exactly a package's.

use std::time::{Duration, Instant};

use super::{Finished, KEEP_LIST, Outcome, change, must, not_installed, rows, tool, unknown};
use crate::commands::answer::Failure;

/// No questions; configuration files that the owner changed stay; wait a minute for the lock.
const OPTIONS: [&str; 8] = [
    "-y",
    "-q",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "DPkg::Lock::Timeout=60",
];

pub(super) fn list(limit: Duration) -> Result<Finished, Failure> {
    let format = "-f=${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n";
    let mut done = must("dpkg-query", &["-W", format], limit, KEEP_LIST)?;
    let installed = done.stdout.text();
    let installed: String =
        installed.split_inclusive('\n').filter_map(|line| line.strip_prefix("ii \t")).collect();
    done.stdout.replace(installed.into_bytes());
    Ok(done)
}

pub(super) fn search(query: &str, limit: Duration) -> Result<String, Failure> {
    let done = must("apt-cache", &["search", "--", &literal(query)], limit, KEEP_LIST)?;
    Ok(done
        .stdout
        .text()
        .lines()
        .filter_map(|l| l.split_once(" - "))
        .map(|(n, d)| format!("{n}\t{d}\n"))
        .collect())
}

/// `apt-cache search` takes regular expressions; of the characters a query may have, these mean
/// something there.
fn literal(query: &str) -> String {
    query.replace('.', "\\.").replace('+', "\\+")
}

pub(super) fn install(package: &str, limit: Duration) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    if !is_known(package, limit)? {
        // A fresh image has no index yet.
        refresh(limit)?;
        if !is_known(package, limit)? {
            return Err(unknown(package));
        }
    }
    run("install", &[], package, remaining(limit, begun))
}

pub(super) fn remove(package: &str, limit: Duration) -> Result<Outcome, Failure> {
    if !is_installed(package, limit)? {
        return Err(not_installed(package));
    }
    run("remove", &[], package, limit)
}

pub(super) fn update(package: &str, limit: Duration) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    if !is_installed(package, limit)? {
        return Err(not_installed(package));
    }
    refresh(limit)?;
    run("install", &["--only-upgrade"], package, remaining(limit, begun))
}

fn remaining(limit: Duration, begun: Instant) -> Duration {
    limit.saturating_sub(begun.elapsed()).max(Duration::from_secs(1))
}

fn refresh(limit: Duration) -> Result<(), Failure> {
    must("apt-get", &["update", "-q"], limit, KEEP_LIST).map(|_| ())
}

fn run(verb: &str, more: &[&str], package: &str, limit: Duration) -> Result<Outcome, Failure> {
    let mut arguments = vec![verb];
    arguments.extend(OPTIONS);
    arguments.extend(more);
    arguments.extend(["--", package]);
    change("apt-get", &arguments, limit)
}

/// Without the architecture that may follow a colon.
fn bare(package: &str) -> &str {
    package.split(':').next().unwrap_or(package)
}

fn is_known(package: &str, limit: Duration) -> Result<bool, Failure> {
    let name = bare(package);
    let done = must("apt-cache", &["pkgnames", "--", name], limit, KEEP_LIST)?;
    Ok(done.stdout.text().lines().any(|line| line == name))
}

fn is_installed(package: &str, limit: Duration) -> Result<bool, Failure> {
    let format = "-f=${db:Status-Abbrev}\t${Package}\t\n";
    let done = tool("dpkg-query", &["-W", format, "--", package], limit, KEEP_LIST)?;
    let names = rows(&done.stdout.text(), ["status", "name"]);
    Ok(done.succeeded()
        && names.iter().any(|row| {
            let name = row["name"].as_str().unwrap_or_default();
            row["status"] == "ii " && name.trim_end() == bare(package)
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_query_is_taken_literally() {
        assert_eq!(literal("g++-12.1"), "g\\+\\+-12\\.1");
    }

    #[test]
    fn only_exact_names_reach_the_tool() {
        if !std::path::Path::new("/usr/bin/apt-get").exists() {
            panic!("this test needs apt; run it on Debian");
        }
        assert!(is_installed("dpkg", LIMIT).unwrap());
        assert!(is_known("dpkg", LIMIT).unwrap());
        for name in ["dpkg-", "dpkg+", "dpk.", "dpk", "nosuchpackageatall"] {
            assert!(!is_installed(name, LIMIT).unwrap(), "{name}");
            assert!(!is_known(name, LIMIT).unwrap(), "{name}");
            assert_eq!(remove(name, LIMIT).unwrap_err().code, "NOT_INSTALLED");
        }
    }

    #[test]
    fn installed_packages_are_listed() {
        let text = list(LIMIT).unwrap().stdout.text();
        assert!(text.lines().any(|l| l.starts_with("dpkg\t") && l.split('\t').count() == 3), "{text:.300}");
    }
}

//! Packages, by the system's own manager.

mod apt;
mod dnf;

use std::{collections::BTreeMap, env, time::Duration};

use serde_json::{Value, json};

use super::{
    answer::{Failure, Outcome, bounded},
    process::{self, Finished, Job, KEEP_BYTES},
};

/// Lists are longer than what people read: 10 000 packages are about 1 MiB.
const KEEP_LIST: usize = 4 << 20;
const MAX_FOUND: usize = 500;

/// What this system installs packages with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
}

fn manager() -> Result<Manager, Failure> {
    // Where the tools are looked for when they are run.
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let has = |tool: &str| env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    if has("apt-get") {
        Ok(Manager::Apt)
    } else if has("dnf") {
        Ok(Manager::Dnf)
    } else if has("yum") {
        // It cannot be asked what a repository has: no `repoquery` without dnf.
        Err(Failure::new("NOT_SUPPORTED", "this system has yum without dnf, which is not supported"))
    } else {
        Err(Failure::new("NOT_SUPPORTED", "neither apt nor dnf is on this system"))
    }
}

/// `{packages: [{name, version, architecture}], truncated}`
pub(super) fn list(limit: Duration) -> Result<Outcome, Failure> {
    let done = match manager()? {
        Manager::Apt => apt::list(limit)?,
        Manager::Dnf => dnf::list(limit)?,
    };
    let rows = rows(&done.stdout.text(), ["name", "version", "architecture"]);
    let (rows, truncated) = bounded(rows);
    Ok(json!({"packages": rows, "truncated": truncated}).into())
}

/// `{packages: [{name, description}], truncated}`
pub(super) fn search(query: &str, limit: Duration) -> Result<Outcome, Failure> {
    let text = match manager()? {
        Manager::Apt => apt::search(query, limit)?,
        Manager::Dnf => dnf::search(query, limit)?,
    };
    let rows = rows(&text, ["name", "description"]);
    let found = rows.len();
    let (rows, cut) = bounded(rows.into_iter().take(MAX_FOUND));
    Ok(json!({"packages": rows, "truncated": cut || found > MAX_FOUND}).into())
}

/// Installs it; `data` as for any process.
pub(super) fn install(package: &str, limit: Duration) -> Result<Outcome, Failure> {
    named(package)?;
    match manager()? {
        Manager::Apt => apt::install(package, limit),
        Manager::Dnf => dnf::change("install", package, limit),
    }
}

/// Removes it, its configuration stays.
pub(super) fn remove(package: &str, limit: Duration) -> Result<Outcome, Failure> {
    named(package)?;
    match manager()? {
        Manager::Apt => apt::remove(package, limit),
        Manager::Dnf => dnf::change("remove", package, limit),
    }
}

/// Brings it up to date; a package that is not installed is refused.
pub(super) fn update(package: &str, limit: Duration) -> Result<Outcome, Failure> {
    named(package)?;
    match manager()? {
        Manager::Apt => apt::update(package, limit),
        Manager::Dnf => dnf::change("upgrade", package, limit),
    }
}

/// A package's name begins with a letter or digit in every system; what does not may be a group.
fn named(package: &str) -> Result<(), Failure> {
    if package.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(Failure::new("BAD_PARAMETERS", "package must begin with a letter or digit"))
}

fn unknown(package: &str) -> Failure {
    Failure::new("NO_SUCH_PACKAGE", format!("there is no package {package}"))
}

fn not_installed(package: &str) -> Failure {
    Failure::new("NOT_INSTALLED", format!("the package {package} is not installed"))
}

/// Runs a tool in the plain locale, without questions. Only its status is left to look at.
fn tool(program: &str, arguments: &[&str], limit: Duration, keep: usize) -> Result<Finished, Failure> {
    let environment = [("LC_ALL", "C"), ("DEBIAN_FRONTEND", "noninteractive"), ("NEEDRESTART_MODE", "l")];
    let environment: BTreeMap<_, _> =
        environment.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let job = Job { program, arguments, directory: None, environment: Some(&environment), limit, keep };
    let done = process::run(&job).map_err(|e| Failure::spawn(program, &e))?;
    if done.timed_out { Err(Failure::timeout(done)) } else { Ok(done) }
}

/// The same for a tool whose failure is the action's failure.
fn must(program: &str, arguments: &[&str], limit: Duration, keep: usize) -> Result<Finished, Failure> {
    let done = tool(program, arguments, limit, keep)?;
    if done.succeeded() { Ok(done) } else { Err(Failure::tool(program, done)) }
}

/// A tool that changes something: its output is the answer.
fn change(program: &str, arguments: &[&str], limit: Duration) -> Result<Outcome, Failure> {
    must(program, arguments, limit, KEEP_BYTES).map(|done| Outcome { data: None, process: Some(done) })
}

/// Lines of fields parted by tabs; a last line that was cut off is dropped with its newline.
fn rows<const N: usize>(text: &str, names: [&str; N]) -> Vec<Value> {
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .filter(|line| !line.trim().is_empty())
        .filter_map(|line| {
            let mut fields = line.splitn(N, '\t');
            names.iter().map(|name| Some(((*name).to_owned(), json!(fields.next()?)))).collect::<Option<_>>()
        })
        .map(Value::Object)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_need_all_their_fields() {
        let rows = rows("a\t1\tamd64\nb\t2\n\nc\t3\tall\ncut\t4\tam", ["name", "version", "architecture"]);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1], json!({"name": "c", "version": "3", "architecture": "all"}));
    }

    #[test]
    fn groups_are_no_packages() {
        assert!(named("@core").is_err() && named("-x").is_err() && named("").is_err());
        assert!(named("g++").is_ok());
    }
}

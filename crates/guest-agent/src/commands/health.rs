//! Health checks: few, fixed, and each a look at what the system counts anyway.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    answer::{Failure, Outcome},
    machine::{CRITICAL, STATUS, WARNING, rank},
    services,
};
use crate::metrics::{cpu, disk, memory::Memory, system};

/// Of what a check says, the longest list.
const MAX_NAMED: usize = 20;

/// What a check found: a place in [`STATUS`], or nothing where it could not look.
struct Found {
    rank: Option<usize>,
    message: String,
    /// What was measured.
    value: Value,
}

type Look = fn(Duration) -> Found;

const CHECKS: [(&str, Look); 4] =
    [("disk_space", disk_space), ("memory", memory), ("load", load), ("failed_services", failed_services)];

/// One check, in the shape of [`all`].
pub(super) fn one(name: &str, limit: Duration) -> Result<Outcome, Failure> {
    let Some((name, look)) = CHECKS.iter().find(|(known, _)| *known == name) else {
        let known = CHECKS.map(|(name, _)| name).join(", ");
        return Err(Failure::new("NO_SUCH_CHECK", format!("there is no check {name}; there are: {known}")));
    };
    Ok(report(vec![(*name, look(limit))]).into())
}

/// `{status, checks: [{name, status, message, value}]}`; a status is `ok`, `warning`, `critical`,
/// or `unknown` where the system does not tell, the outer one is the worst of those that are known.
pub(super) fn all(limit: Duration) -> Value {
    report(CHECKS.iter().map(|(name, look)| (*name, look(limit))).collect())
}

fn report(found: Vec<(&str, Found)>) -> Value {
    let status = |rank: Option<usize>| rank.map_or("unknown", |rank| STATUS[rank]);
    let worst = found.iter().filter_map(|(_, found)| found.rank).max();
    let rows: Vec<Value> = found
        .into_iter()
        .map(|(name, Found { rank, message, value })| {
            json!({"name": name, "status": status(rank), "message": message, "value": value})
        })
        .collect();
    json!({"status": status(worst), "checks": rows})
}

/// Per cent of the fullest file system.
fn disk_space(_: Duration) -> Found {
    let fullest = disk::usage().into_iter().max_by(|a, b| a.percent().total_cmp(&b.percent()));
    match fullest {
        Some(usage) => {
            let percent = usage.percent();
            let message = format!("{} is the fullest, {percent} % used", usage.mount_point);
            Found { rank: Some(rank(percent, WARNING, CRITICAL)), message, value: json!(percent) }
        }
        None => unknown("no file system of this machine can be looked at"),
    }
}

/// Per cent that cannot be had without taking it away from something.
fn memory(_: Duration) -> Found {
    match Memory::read() {
        Ok(memory) if memory.total > 0 => {
            let used = memory.total - memory.available;
            let percent = (used as f64 * 1000.0 / memory.total as f64).round() / 10.0;
            let message = format!("{percent} % used, {} MiB are available", memory.available / 1024);
            Found { rank: Some(rank(percent, 90.0, 97.0)), message, value: json!(percent) }
        }
        _ => unknown("the memory cannot be read"),
    }
}

/// The load of fifteen minutes by processor: one that lasts, not one that passes.
fn load(_: Duration) -> Found {
    let (cores, _) = cpu::describe();
    match system::load_average()["load_15min"].as_f64() {
        Some(load) => {
            let each = load / cores.max(1) as f64;
            let message = format!("{load} over fifteen minutes, on {cores} processors");
            Found { rank: Some(rank(each, 1.5, 4.0)), message, value: json!(load) }
        }
        None => unknown("the load cannot be read"),
    }
}

/// How many units failed.
fn failed_services(limit: Duration) -> Found {
    match services::failed(limit) {
        Ok(failed) if failed.is_empty() => {
            Found { rank: Some(0), message: "nothing has failed".to_owned(), value: json!(0) }
        }
        Ok(failed) => {
            let named = failed.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("{} failed: {named}", failed.len());
            Found { rank: Some(1), message, value: json!(failed.len()) }
        }
        Err(failure) => unknown(&failure.message),
    }
}

fn unknown(why: &str) -> Found {
    Found { rank: None, message: why.to_owned(), value: Value::Null }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn the_worst_that_is_known_decides() {
        let found = |rank| Found { rank, message: String::new(), value: Value::Null };
        for (ranks, status) in [
            (vec![Some(0), Some(2), Some(1)], "critical"),
            (vec![Some(0), None], "ok"),
            (vec![None], "unknown"),
        ] {
            let report = report(ranks.into_iter().map(|rank| ("x", found(rank))).collect());
            assert_eq!(report["status"], status);
        }
    }

    #[test]
    fn every_check_looks() {
        let all = all(LIMIT);
        let names: Vec<_> = all["checks"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
        assert_eq!(names, ["disk_space", "memory", "load", "failed_services"]);
        let memory = one("memory", LIMIT).unwrap().data.unwrap();
        assert!((0.0..=100.0).contains(&memory["checks"][0]["value"].as_f64().unwrap()), "{memory}");
        assert_eq!(one("luck", LIMIT).unwrap_err().code, "NO_SUCH_CHECK");
    }
}

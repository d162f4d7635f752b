//! Processes, from `/proc/<pid>/stat`; command line and path only of those that are shown.

use std::{collections::HashMap, fs};

use serde_json::{Value, json};

use crate::{metrics::round, read};

/// Processes looked at. A fork bomb must not take the agent along.
const MAX_PROCESSES: usize = 32_768;
const MAX_COMMAND_LINE: usize = 1024;

/// One process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    parent: u32,
    name: String,
    state: char,
    /// Ticks on a processor.
    ticks: u64,
    /// Ticks after boot. With the pid it tells one process from another.
    started: u64,
    pub(crate) memory_kb: u64,
}

impl Process {
    fn parse(pid: u32, stat: &str, page_kb: u64) -> Option<Self> {
        // The name stands in brackets and may hold brackets and spaces itself.
        let (head, tail) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        let number = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok());
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            name: read::printable(name, 64),
            state: fields.first()?.chars().next()?,
            ticks: number(11)?.saturating_add(number(12)?),
            started: number(19)?,
            memory_kb: number(21)?.saturating_mul(page_kb),
        })
    }

    /// `{id, parent_id|null, name, executable_path|null, command_line|null, cpu_usage_percent,
    /// memory_usage_kb, status, start_time|null}`; `start_time` in Unix seconds.
    pub(crate) fn describe(&self, cpu: f64) -> Value {
        let directory = format!("/proc/{}", self.pid);
        let path = fs::read_link(format!("{directory}/exe")).ok();
        json!({
            "id": self.pid,
            "parent_id": (self.parent != 0).then_some(self.parent),
            "name": self.name,
            "executable_path": path.map(|p| read::printable(&p.to_string_lossy(), 512)),
            "command_line": command_line(&format!("{directory}/cmdline")),
            "cpu_usage_percent": round(cpu),
            "memory_usage_kb": self.memory_kb,
            "status": status(self.state),
            "start_time": boot_time().map(|boot| boot + self.started / hertz()),
        })
    }
}

fn status(state: char) -> &'static str {
    match state {
        'R' => "running",
        'S' => "sleeping",
        'D' => "disk_sleep",
        'I' => "idle",
        'Z' => "zombie",
        'T' | 't' => "stopped",
        'X' | 'x' => "dead",
        _ => "unknown",
    }
}

fn command_line(path: &str) -> Option<String> {
    let raw = read::bytes(path, MAX_COMMAND_LINE).ok()?;
    let text = String::from_utf8_lossy(&raw);
    let text = text.trim_end_matches('\0');
    // Arguments are separated by NUL, which is a control character like others here.
    (!text.is_empty()).then(|| read::printable(text, MAX_COMMAND_LINE))
}

fn hertz() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

fn boot_time() -> Option<u64> {
    let now = u64::try_from(chrono::Utc::now().timestamp()).ok()?;
    Some(now.saturating_sub(super::system::uptime_seconds()))
}

/// All processes, within a bound.
pub(crate) fn scan() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let page_kb = (rustix::param::page_size() / 1024) as u64;
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .take(MAX_PROCESSES)
        .filter_map(|pid| Process::parse(pid, &read::text(format!("/proc/{pid}/stat"), 1024).ok()?, page_kb))
        .collect()
}

/// Busiest first: by processor use between the two looks, then by memory. The value is per cent
/// of one processor, so a process of many threads may have more than 100.
pub(crate) fn rank<'a>(now: &'a [Process], then: &[Process], seconds: f64) -> Vec<(&'a Process, f64)> {
    let before: HashMap<(u32, u64), u64> = then.iter().map(|p| ((p.pid, p.started), p.ticks)).collect();
    let mut ranked: Vec<(&Process, f64)> = now
        .iter()
        .map(|process| {
            // A process that was not there before has done all its work since.
            let ticks = before.get(&(process.pid, process.started)).copied().unwrap_or(0);
            let ticks = process.ticks.saturating_sub(ticks);
            (process, ticks as f64 * 100.0 / (hertz() as f64 * seconds))
        })
        .collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.0.memory_kb.cmp(&a.0.memory_kb)));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, ticks: u64, memory_kb: u64) -> Process {
        Process { pid, parent: 1, name: "x".into(), state: 'S', ticks, started: 5, memory_kb }
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat =
            "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 7 3 0 0 20 0 1 0 999 1000 50 18446744073709551615";
        let process = Process::parse(42, stat, 4).unwrap();
        assert_eq!((process.name.as_str(), process.parent, process.state), ("a) b (c)", 1, 'S'));
        assert_eq!((process.ticks, process.started, process.memory_kb), (10, 999, 200));
        for rubbish in ["", "42", "42 (x", "42 (x) S", "x) y ("] {
            assert_eq!(Process::parse(42, rubbish, 4), None, "{rubbish}");
        }
    }

    #[test]
    fn the_busiest_come_first_then_the_largest() {
        let then = [process(1, 100, 1), process(2, 100, 1), process(3, 100, 1)];
        let now = [process(1, 100, 1), process(2, 150, 1), process(3, 100, 9)];
        let ranked = rank(&now, &then, 1.0);
        assert_eq!(ranked.iter().map(|(p, _)| p.pid).collect::<Vec<_>>(), [2, 3, 1]);
        assert!(ranked[0].1 > 0.0 && ranked[1].1 == 0.0);
    }

    #[test]
    fn a_pid_taken_over_is_another_process() {
        let then = [Process { started: 1, ..process(1, 1_000_000, 1) }];
        assert!(rank(&[process(1, 50, 1)], &then, 1.0)[0].1 > 0.0);
    }

    #[test]
    fn this_process_is_found() {
        let me = scan().into_iter().find(|p| p.pid == std::process::id()).expect("listed");
        let shown = me.describe(0.0);
        assert!(shown["command_line"].is_string() && shown["start_time"].as_u64().unwrap() > 0);
    }
}

//! Actions on processes.

use std::{path::Path, time::Duration, time::Instant};

use agent_protocol::SortBy;
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use serde_json::json;

use super::answer::{Failure, Outcome, bounded};
use crate::{
    metrics::processes::{rank, scan},
    wake::pause,
};

const DEFAULT_LIMIT: u32 = 1000;
const DEFAULT_TOP: u32 = 10;
/// Between the two looks that processor use needs.
const GAP: Duration = Duration::from_millis(200);

/// `{processes: [as in a reading], total, truncated}`
pub(super) fn list(limit: Option<u32>, order: Option<SortBy>) -> Result<Outcome, Failure> {
    let (then, at) = (scan(), Instant::now());
    pause(GAP);
    let now = scan();
    let mut ranked = rank(&now, &then, at.elapsed().as_secs_f64().max(0.001));
    match order {
        Some(SortBy::Cpu) => {}
        Some(SortBy::Memory) => ranked.sort_by_key(|(process, _)| std::cmp::Reverse(process.memory_kb)),
        None => ranked.sort_by_key(|(process, _)| process.pid),
    }
    let limit = limit.unwrap_or(DEFAULT_LIMIT) as usize;
    let (rows, cut) = bounded(ranked.iter().take(limit).map(|(process, cpu)| process.describe(*cpu)));
    let truncated = cut || ranked.len() > limit;
    Ok(json!({"processes": rows, "total": ranked.len(), "truncated": truncated}).into())
}

/// As [`list`], busiest first.
pub(super) fn top(limit: Option<u32>, sort_by: Option<SortBy>) -> Result<Outcome, Failure> {
    list(Some(limit.unwrap_or(DEFAULT_TOP)), Some(sort_by.unwrap_or(SortBy::Cpu)))
}

/// `{pid, signal}`
pub(super) fn kill(pid: u32, force: bool) -> Result<Outcome, Failure> {
    let refused = |message: &str| Err(Failure::new("REFUSED", message));
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return refused("no process can have this number");
    };
    if pid == 1 {
        return refused("process 1 is the system");
    }
    // The number of one of our threads stands for the whole process too.
    if Path::new("/proc/self/task").join(pid.to_string()).exists() {
        return refused("this process is the agent");
    }
    let (signal, name) = if force { (Signal::KILL, "SIGKILL") } else { (Signal::TERM, "SIGTERM") };
    match kill_process(target, signal) {
        Ok(()) => Ok(json!({"pid": pid, "signal": name}).into()),
        Err(Errno::SRCH) => Err(Failure::new("NO_SUCH_PROCESS", format!("there is no process {pid}"))),
        Err(e) => Err(Failure::new("COMMAND_FAILED", format!("signal process {pid}: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_and_say_so() {
        let data = list(Some(1), None).unwrap().data.unwrap();
        assert_eq!(data["processes"].as_array().unwrap().len(), 1);
        assert_eq!(data["truncated"], data["total"].as_u64().unwrap() > 1);
        let data = top(None, Some(SortBy::Memory)).unwrap().data.unwrap();
        let sizes: Vec<u64> = data["processes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["memory_usage_kb"].as_u64().unwrap())
            .collect();
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    }

    #[test]
    fn the_agent_and_the_system_are_spared() {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let threads = threads.map(|t| t.unwrap().file_name().to_str().unwrap().parse().unwrap());
        for pid in threads.chain([1, u32::MAX]) {
            assert_eq!(kill(pid, true).unwrap_err().code, "REFUSED", "{pid}");
        }
    }

    #[test]
    fn a_process_is_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(kill(child.id(), false).unwrap().data.unwrap()["signal"], "SIGTERM");
        assert!(!child.wait().unwrap().success());
        assert_eq!(kill(child.id(), false).unwrap_err().code, "NO_SUCH_PROCESS");
    }
}

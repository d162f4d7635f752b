//! What a process used, as `/proc` tells.

use std::time::Duration;

/// What Linux tells programs, whatever its own clock does.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time of all its threads, in user and kernel mode.
pub(crate) fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("stat").1.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("ticks");
    // utime and stime are fields 14 and 15, counted from 1; the state is 3.
    Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND)
}

/// Resident memory, bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

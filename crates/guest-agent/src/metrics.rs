//! Readings of the machine, in the shape that the host knows: `{cpu, memory, disk, network,
//! system, processes, ports}`. Everything comes from `/proc`, `/sys`, `statvfs` and one netlink
//! question; a source that is missing gives an empty list or null, never a missing reading.

mod address;
pub(crate) mod cpu;
pub(crate) mod disk;
pub(crate) mod memory;
mod network;
mod ports;
pub(crate) mod processes;
pub(crate) mod system;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::wake::pause;

/// Rates need two looks; less than this between them says little.
const MIN_GAP: Duration = Duration::from_millis(200);
/// An average over more than this is no news: look twice again.
const MAX_GAP: Duration = Duration::from_secs(120);
/// Busiest processes in a reading.
const TOP: usize = 20;

/// What only makes sense as a difference.
#[derive(Debug)]
struct Look {
    at: Instant,
    cpu: cpu::Times,
    disk: disk::Counters,
    processes: Vec<processes::Process>,
}

impl Look {
    fn take() -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu::Times::read(),
            disk: disk::Counters::read(),
            processes: processes::scan(),
        }
    }
}

/// Takes readings and remembers the last look.
#[derive(Debug)]
pub(crate) struct Sampler {
    last: Look,
}

impl Sampler {
    /// Takes the first look.
    pub(crate) fn new() -> Self {
        Self { last: Look::take() }
    }

    /// One reading: the content of `data.system`. Waits a moment if the last look was just now.
    pub(crate) fn sample(&mut self) -> Value {
        if self.last.at.elapsed() > MAX_GAP {
            self.last = Look::take();
        }
        pause(MIN_GAP.saturating_sub(self.last.at.elapsed()));
        let look = Look::take();
        let seconds = look.at.duration_since(self.last.at).as_secs_f64().max(0.001);
        let usage = look.cpu.usage_since(&self.last.cpu);
        let ranked = processes::rank(&look.processes, &self.last.processes, seconds);
        let top: Vec<Value> = ranked.iter().take(TOP).map(|(process, cpu)| process.describe(*cpu)).collect();
        let reading = json!({
            "cpu": {"usage_percent": usage.total, "cores_usage": usage.cores, "temperature": null},
            "memory": memory::Memory::read().unwrap_or_default().describe(),
            "disk": {
                "usage_stats": disk::usage().iter().map(disk::Usage::describe).collect::<Vec<_>>(),
                "io_stats": look.disk.rates_since(&self.last.disk, seconds),
            },
            "network": {"interfaces": network::interfaces()},
            "system": system::describe(),
            "processes": top,
            "ports": ports::listening(),
        });
        self.last = look;
        reading
    }
}

/// To two decimals: more would be noise on the wire.
pub(crate) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_has_the_documented_shape() {
        let reading = Sampler::new().sample();
        let usage = reading["cpu"]["usage_percent"].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&usage));
        assert!(!reading["cpu"]["cores_usage"].as_array().unwrap().is_empty());
        let memory = &reading["memory"];
        assert!(memory["used_kb"].as_u64().unwrap() <= memory["total_kb"].as_u64().unwrap());
        assert!(reading["disk"]["usage_stats"].is_array());
        assert!(reading["disk"]["io_stats"]["read_bytes_per_sec"].is_number());
        let loopback =
            reading["network"]["interfaces"].as_array().unwrap().iter().find(|i| i["name"] == "lo");
        assert!(loopback.is_none_or(|i| i["is_up"].is_boolean() && i["ip_addresses"].is_array()));
        assert!(reading["system"]["uptime_seconds"].as_u64().unwrap() > 0);
        let processes = reading["processes"].as_array().unwrap();
        assert!((1..=TOP).contains(&processes.len()));
        assert!(reading["ports"].is_array());
    }
}

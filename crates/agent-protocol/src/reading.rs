//! What one frame of metrics tells of a guest, read as far as it is charted and kept whole as
//! text.

use serde_json::Value;

/// `data.system` of a metrics frame. A field that is missing or of the wrong kind is `None`: what
/// must be there is for the receiver to judge.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemReading {
    /// The whole of it, as JSON.
    pub text: Box<str>,
    /// `cpu.usage_percent`.
    pub cpu_usage: Option<f64>,
    /// `memory.used_kb`.
    pub memory_used: Option<f64>,
    /// `memory.total_kb`.
    pub memory_total: Option<f64>,
    /// `disk.io_stats.read_bytes_per_sec`.
    pub disk_read: Option<f64>,
    /// `disk.io_stats.write_bytes_per_sec`.
    pub disk_written: Option<f64>,
    /// `bytes_received` of all `network.interfaces` but `lo`, since the guest's start.
    pub network_received: Option<u64>,
    /// `bytes_sent` of the same.
    pub network_sent: Option<u64>,
}

impl SystemReading {
    /// Out of a tree.
    #[must_use]
    pub fn of(system: &Value) -> Self {
        let number = |pointer| system.pointer(pointer).and_then(Value::as_f64);
        let interfaces = system.pointer("/network/interfaces").and_then(Value::as_array);
        let total = |field| {
            let counters = interfaces?.iter().filter(|interface| interface["name"] != "lo");
            counters.map(|interface| interface[field].as_u64()).try_fold(0_u64, |sum, n| sum.checked_add(n?))
        };
        Self {
            cpu_usage: number("/cpu/usage_percent"),
            memory_used: number("/memory/used_kb"),
            memory_total: number("/memory/total_kb"),
            disk_read: number("/disk/io_stats/read_bytes_per_sec"),
            disk_written: number("/disk/io_stats/write_bytes_per_sec"),
            network_received: total("bytes_received"),
            network_sent: total("bytes_sent"),
            text: system.to_string().into(),
        }
    }
}

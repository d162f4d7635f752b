//! Actions that describe the machine.

use agent_protocol::DiskThresholds;
use serde_json::{Value, json};

use crate::metrics::{cpu, disk, memory::Memory, system};

/// Per cent.
pub(super) const WARNING: f64 = 80.0;
/// Per cent.
pub(super) const CRITICAL: f64 = 95.0;

/// `{hostname, uptime_seconds, load_average, cpu: {model, logical_cores}, memory}`
pub(super) fn system_info() -> Value {
    let (cores, model) = cpu::describe();
    json!({
        "hostname": system::hostname(),
        "uptime_seconds": system::uptime_seconds(),
        "load_average": system::load_average(),
        "cpu": {"model": model, "logical_cores": cores},
        "memory": Memory::read().unwrap_or_default().describe(),
    })
}

/// `{name, id, version, pretty_name, kernel_version, architecture}`
pub(super) fn os_info() -> Value {
    let release = system::os_release();
    json!({
        "name": release.get("NAME").map_or("Linux", String::as_str),
        "id": release.get("ID"),
        "version": release.get("VERSION_ID"),
        "pretty_name": release.get("PRETTY_NAME"),
        "kernel_version": system::kernel_version(),
        "architecture": std::env::consts::ARCH,
    })
}

/// `{status, warning_threshold, critical_threshold, disks: [{mount_point, total_gb, used_gb,
/// available_gb, filesystem, usage_percent, status}]}`; a status is `ok`, `warning` or
/// `critical`, the outer one is the worst.
pub(super) fn disk_space(thresholds: &DiskThresholds) -> Value {
    let warning = thresholds.warning_threshold.unwrap_or(WARNING);
    let critical = thresholds.critical_threshold.unwrap_or(CRITICAL);
    let mut worst = 0;
    let disks: Vec<Value> = disk::usage()
        .iter()
        .map(|usage| {
            let rank = rank(usage.percent(), warning, critical);
            worst = worst.max(rank);
            let mut row = usage.describe();
            row["usage_percent"] = json!(usage.percent());
            row["status"] = json!(STATUS[rank]);
            row
        })
        .collect();
    json!({
        "status": STATUS[worst],
        "warning_threshold": warning,
        "critical_threshold": critical,
        "disks": disks,
    })
}

pub(super) const STATUS: [&str; 3] = ["ok", "warning", "critical"];

pub(super) fn rank(percent: f64, warning: f64, critical: f64) -> usize {
    if percent >= critical { 2 } else { usize::from(percent >= warning) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_decide() {
        assert_eq!([rank(79.9, 80.0, 95.0), rank(80.0, 80.0, 95.0), rank(95.0, 80.0, 95.0)], [0, 1, 2]);
        let all =
            disk_space(&DiskThresholds { warning_threshold: Some(0.0), critical_threshold: Some(100.0) });
        for disk in all["disks"].as_array().unwrap() {
            assert_ne!(disk["status"], "ok", "{disk}");
        }
    }

    #[test]
    fn the_machine_is_described() {
        assert!(system_info()["cpu"]["logical_cores"].as_u64().unwrap() > 0);
        assert_eq!(os_info()["architecture"], std::env::consts::ARCH);
    }
}

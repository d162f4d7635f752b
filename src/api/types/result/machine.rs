//! The machine, its system, its disks and its health.

use async_graphql::SimpleObject;

use super::read::Fields;
use crate::api::scalars::BigInt;

/// The machine as its guest sees it.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct SystemInfo {
    /// Its name for itself.
    hostname: Option<String>,
    /// Seconds since it was started.
    uptime_seconds: Option<BigInt>,
    /// Processes that want to run.
    load_average: Option<LoadAverage>,
    /// As the processor names itself.
    cpu_model: Option<String>,
    /// Processors that the guest has.
    logical_cores: Option<i32>,
    /// Memory.
    memory: Option<MemoryInfo>,
}

/// Processes that want to run, on average.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct LoadAverage {
    /// Over a minute.
    one_minute: Option<f64>,
    /// Over five.
    five_minutes: Option<f64>,
    /// Over fifteen.
    fifteen_minutes: Option<f64>,
}

/// Memory, in KiB.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct MemoryInfo {
    /// All of it.
    total_kb: Option<BigInt>,
    /// What cannot be had.
    used_kb: Option<BigInt>,
    /// What can be had without taking it away from something.
    available_kb: Option<BigInt>,
    /// All swap.
    swap_total_kb: Option<BigInt>,
    /// Swap in use.
    swap_used_kb: Option<BigInt>,
}

/// The guest's operating system.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct OsInfo {
    /// As in `Debian GNU/Linux`.
    name: Option<String>,
    /// As in `debian`.
    id: Option<String>,
    /// As in `12`.
    version: Option<String>,
    /// Name and version for people.
    pretty_name: Option<String>,
    /// As the kernel says it.
    kernel_version: Option<String>,
    /// As in `x86_64`.
    architecture: Option<String>,
}

/// How full the file systems are.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct DiskSpace {
    /// The worst of the disks': `ok`, `warning` or `critical`.
    status: Option<String>,
    /// Per cent.
    warning_threshold: Option<f64>,
    /// Per cent.
    critical_threshold: Option<f64>,
    /// Each file system once.
    disks: Vec<DiskUsage>,
}

/// How full a file system is.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "GuestDiskUsage")]
pub(crate) struct DiskUsage {
    /// Where it is mounted, or its letter.
    mount_point: Option<String>,
    /// Its kind, as in `ext4`.
    filesystem: Option<String>,
    /// GiB.
    total_gb: Option<f64>,
    /// GiB.
    used_gb: Option<f64>,
    /// GiB.
    available_gb: Option<f64>,
    /// Per cent.
    usage_percent: Option<f64>,
    /// `ok`, `warning` or `critical`.
    status: Option<String>,
}

/// What health checks found.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct HealthReport {
    /// The worst that is known: `ok`, `warning` or `critical`; `unknown` where nothing is.
    status: Option<String>,
    /// Those that were made.
    checks: Vec<HealthCheck>,
}

/// What one health check found.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct HealthCheck {
    /// Its name.
    name: Option<String>,
    /// `ok`, `warning`, `critical` or `unknown`.
    status: Option<String>,
    /// For people.
    message: Option<String>,
    /// What was measured; the check's name says of what.
    value: Option<f64>,
}

impl SystemInfo {
    pub(super) fn of(data: Fields<'_>) -> Option<Self> {
        let data = data.with_any(&["hostname", "uptime_seconds", "cpu", "memory"])?;
        let cpu = data.object("cpu");
        Some(Self {
            hostname: data.text("hostname"),
            uptime_seconds: data.big("uptime_seconds"),
            load_average: data.object("load_average").map(|load| LoadAverage {
                one_minute: load.number("load_1min"),
                five_minutes: load.number("load_5min"),
                fifteen_minutes: load.number("load_15min"),
            }),
            cpu_model: cpu.and_then(|cpu| cpu.text("model")),
            logical_cores: cpu.and_then(|cpu| cpu.int("logical_cores")),
            memory: data.object("memory").map(|memory| MemoryInfo {
                total_kb: memory.big("total_kb"),
                used_kb: memory.big("used_kb"),
                available_kb: memory.big("available_kb"),
                swap_total_kb: memory.big("swap_total_kb"),
                swap_used_kb: memory.big("swap_used_kb"),
            }),
        })
    }
}

impl OsInfo {
    pub(super) fn of(data: Fields<'_>) -> Option<Self> {
        let data = data.with_any(&["name", "id", "version", "pretty_name", "kernel_version"])?;
        Some(Self {
            name: data.text("name"),
            id: data.text("id"),
            version: data.text("version"),
            pretty_name: data.text("pretty_name"),
            kernel_version: data.text("kernel_version"),
            architecture: data.text("architecture"),
        })
    }
}

impl DiskSpace {
    pub(super) fn of(data: Fields<'_>) -> Option<Self> {
        let disks = data.rows("disks", |row| DiskUsage {
            mount_point: row.text("mount_point"),
            filesystem: row.text("filesystem"),
            total_gb: row.number("total_gb"),
            used_gb: row.number("used_gb"),
            available_gb: row.number("available_gb"),
            usage_percent: row.number("usage_percent"),
            status: row.text("status"),
        })?;
        Some(Self {
            status: data.text("status"),
            warning_threshold: data.number("warning_threshold"),
            critical_threshold: data.number("critical_threshold"),
            disks,
        })
    }
}

impl HealthReport {
    pub(super) fn of(data: Fields<'_>) -> Option<Self> {
        let checks = data.rows("checks", |row| HealthCheck {
            name: row.text("name"),
            status: row.text("status"),
            message: row.text("message"),
            value: row.number("value"),
        })?;
        Some(Self { status: data.text("status"), checks })
    }
}

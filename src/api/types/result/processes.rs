//! Processes.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};

use super::read::Fields;
use crate::api::scalars::BigInt;

/// The processes of a guest.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct Processes {
    /// By id, or busiest first, as was asked for.
    processes: Vec<Process>,
    /// How many there were.
    total: Option<i32>,
    /// Whether some are left out.
    truncated: Option<bool>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "GuestProcess")]
pub(crate) struct Process {
    /// Its id.
    pid: Option<i32>,
    /// That of its parent.
    parent_pid: Option<i32>,
    /// Its name.
    name: Option<String>,
    /// The file that it runs.
    executable_path: Option<String>,
    /// Its command line, without secrets.
    command_line: Option<String>,
    /// Per cent of one processor.
    cpu_usage_percent: Option<f64>,
    /// KiB.
    memory_usage_kb: Option<BigInt>,
    /// `running`, `sleeping`, `zombie`, ….
    status: Option<String>,
    /// When it was started.
    start_time: Option<DateTime<Utc>>,
}

/// A process that was told to end.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct EndedProcess {
    /// Its id.
    pid: Option<i32>,
    /// `SIGTERM`, or `SIGKILL` where it was forced.
    signal: Option<String>,
}

impl Processes {
    pub(super) fn of(data: Fields<'_>) -> Option<Self> {
        let processes = data.rows("processes", |row| Process {
            pid: row.int("id"),
            parent_pid: row.int("parent_id"),
            name: row.text("name"),
            executable_path: row.text("executable_path"),
            command_line: row.text("command_line"),
            cpu_usage_percent: row.number("cpu_usage_percent"),
            memory_usage_kb: row.big("memory_usage_kb"),
            status: row.text("status"),
            start_time: row.time("start_time"),
        })?;
        Some(Self { processes, total: data.int("total"), truncated: data.flag("truncated") })
    }
}

impl EndedProcess {
    pub(super) fn of(data: Fields<'_>) -> Option<Self> {
        let data = data.with_any(&["pid", "signal"])?;
        Some(Self { pid: data.int("pid"), signal: data.text("signal") })
    }
}

//! The specification's table, taken at its word: what is measured against.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use serde_json::Value;
use uuid::Uuid;

use super::frames::GuestLines;

/// Numbers as numbers and what it calls `Json` as JSONB, compressed as PostgreSQL does by default.
/// Ids are no text, there is no foreign key, and JSON is stored as itself.
pub(crate) const CREATE: &str = r#"CREATE TABLE literal (
    id uuid PRIMARY KEY,
    "vmId" uuid NOT NULL,
    timestamp timestamptz NOT NULL,
    "cpuUsage" double precision NOT NULL,
    "memoryUsed" bigint NOT NULL,
    "memoryTotal" bigint NOT NULL,
    "diskUsage" jsonb NOT NULL,
    "networkStats" jsonb NOT NULL,
    processes jsonb,
    ports jsonb,
    raw jsonb NOT NULL,
    "createdAt" timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON literal ("vmId", timestamp)"#;

/// What [`write()`] writes, as `\copy` names it.
pub(crate) const COLUMNS: &str = r#"literal (id, "vmId", timestamp, "cpuUsage", "memoryUsed", "memoryTotal", "diskUsage", "networkStats", processes, ports, raw)"#;

/// Writes the frames as rows of that table, for `\copy`; `raw` is the whole of `data.system`.
pub(crate) fn write(frames: &[GuestLines], to: &Path) {
    let mut out = BufWriter::new(File::create(to).unwrap());
    for guest in frames {
        for line in &guest.lines {
            let frame: Value = serde_json::from_slice(line).unwrap();
            let system = &frame["data"]["system"];
            // In COPY's text a backslash stands for more than itself; JSON has no raw tab or newline.
            let column = |value: &Value| value.to_string().replace('\\', "\\\\");
            write!(out, "{}\t{}\t{}", Uuid::now_v7(), guest.vm, frame["timestamp"].as_str().unwrap())
                .unwrap();
            for value in [
                &system["cpu"]["usage_percent"],
                &system["memory"]["used_kb"],
                &system["memory"]["total_kb"],
                &system["disk"],
                &system["network"],
                &system["processes"],
                &system["ports"],
                system,
            ] {
                write!(out, "\t{}", column(value)).unwrap();
            }
            out.write_all(b"\n").unwrap();
        }
    }
    out.flush().unwrap();
}

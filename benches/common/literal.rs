//! The specification's table, taken at its word: what is measured against.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use serde_json::Value;
use uuid::Uuid;

use super::frames::GuestLines;

/// JSONB throughout, compressed as PostgreSQL does by default.
pub(crate) const CREATE: &str = r#"CREATE TABLE literal (
    id uuid PRIMARY KEY,
    vm_id uuid NOT NULL,
    timestamp timestamptz NOT NULL,
    "cpuUsage" jsonb NOT NULL,
    "memoryUsed" jsonb NOT NULL,
    "memoryTotal" jsonb NOT NULL,
    "diskUsage" jsonb NOT NULL,
    "networkStats" jsonb NOT NULL,
    processes jsonb,
    ports jsonb,
    raw jsonb NOT NULL
);
CREATE INDEX ON literal (vm_id, timestamp)"#;

/// Writes the frames as rows of that table, for `\copy`.
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
                &frame,
            ] {
                write!(out, "\t{}", column(value)).unwrap();
            }
            out.write_all(b"\n").unwrap();
        }
    }
    out.flush().unwrap();
}

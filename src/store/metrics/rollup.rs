//! Readings folded into what is kept of five minutes and of an hour.
//!
//! PostgreSQL folds in the very statement that inserts; SQLite, whose statements change one table
//! each, is given what this file folds. Both add to the row that is there: minima, sums and maxima
//! know no order, so a reading that comes late finds its place.

use std::{collections::BTreeMap, sync::LazyLock};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::PackedSample;
use crate::{
    store::column::storable,
    vm::{Resolution, SeriesField},
};

/// The widths that are kept.
pub(in crate::store) const WIDTHS: [Resolution; 2] = [Resolution::FiveMinutes, Resolution::Hour];

/// Where a field stands.
pub(in crate::store) struct Line {
    /// Of a reading.
    pub(in crate::store) column: &'static str,
    /// Of a roll-up: `…_min`, `…_sum`, `…_max`.
    pub(in crate::store) stem: &'static str,
    /// Of a roll-up: how many readings told it.
    pub(in crate::store) count: &'static str,
}

/// Every field, in the order in which roll-ups are written.
const FIELDS: [SeriesField; 7] = [
    SeriesField::CpuUsage,
    SeriesField::MemoryUsed,
    SeriesField::MemoryTotal,
    SeriesField::DiskRead,
    SeriesField::DiskWritten,
    SeriesField::NetworkReceived,
    SeriesField::NetworkSent,
];

impl Line {
    pub(in crate::store) fn of(field: SeriesField) -> Self {
        let (column, stem, count) = match field {
            SeriesField::CpuUsage => ("cpu_usage", "cpu", "count"),
            SeriesField::MemoryUsed => ("memory_used", "memory_used", "count"),
            SeriesField::MemoryTotal => ("memory_total", "memory_total", "count"),
            SeriesField::DiskRead => ("disk_read", "disk_read", "disk_count"),
            SeriesField::DiskWritten => ("disk_written", "disk_written", "disk_count"),
            SeriesField::NetworkReceived => ("network_received", "network_received", "network_count"),
            SeriesField::NetworkSent => ("network_sent", "network_sent", "network_count"),
        };
        Self { column, stem, count }
    }
}

fn each_line(separator: &str, text: impl Fn(Line) -> String) -> String {
    FIELDS.map(|field| text(Line::of(field))).join(separator)
}

/// `INSERT INTO … (…)`, in the order of [`Rollup`]'s fields.
pub(super) static INSERT: LazyLock<String> = LazyLock::new(|| {
    let columns = each_line(", ", |Line { stem, .. }| format!("{stem}_min, {stem}_sum, {stem}_max"));
    format!(
        "INSERT INTO vm_metrics_rollups AS r
             (vm_id, width_seconds, at, count, disk_count, network_count, {columns}) "
    )
});

/// Adds to what is there; one text for both databases, of which one knows no `LEAST`.
pub(super) static ADD: LazyLock<String> = LazyLock::new(|| {
    let lines = each_line(", ", |Line { stem, .. }| {
        let better = |end: &str, than: &str| {
            let (new, old) = (format!("EXCLUDED.{stem}_{end}"), format!("r.{stem}_{end}"));
            format!("{stem}_{end} = CASE WHEN {old} IS NULL OR {new} {than} {old} THEN {new} ELSE {old} END")
        };
        let (low, high) = (better("min", "<"), better("max", ">"));
        let sum = format!(
            "{stem}_sum = coalesce(r.{stem}_sum + EXCLUDED.{stem}_sum, r.{stem}_sum, EXCLUDED.{stem}_sum)"
        );
        format!("{low}, {sum}, {high}")
    });
    format!(
        " ON CONFLICT (vm_id, width_seconds, at) DO UPDATE SET
             count = r.count + EXCLUDED.count,
             disk_count = r.disk_count + EXCLUDED.disk_count,
             network_count = r.network_count + EXCLUDED.network_count,
             {lines}"
    )
});

/// PostgreSQL's fold of the rows in `new`. Every origin that is a whole day before all readings
/// gives the same times; in one order, so that two folds at once wait for each other instead of
/// both for ever.
pub(super) static FOLD: LazyLock<String> = LazyLock::new(|| {
    let lines = each_line(", ", |Line { column, .. }| {
        format!("min({column})::float8, sum({column}::float8), max({column})::float8")
    });
    let widths: Vec<_> = WIDTHS.iter().map(|width| format!("({})", seconds(*width))).collect();
    format!(
        "SELECT vm_id, width,
                date_bin(width * interval '1 second', timestamp, '0001-01-01 00:00:00+00'),
                count(*), count(disk_read), count(network_received), {lines}
         FROM new CROSS JOIN (VALUES {}) AS widths (width)
         GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        widths.join(", ")
    )
});

/// As `width_seconds`; single readings have none.
pub(in crate::store) fn seconds(width: Resolution) -> i64 {
    width.width().map_or(0, |width| width.num_seconds())
}

/// The beginning of the time that a reading falls into.
fn beginning(at: DateTime<Utc>, width: i64) -> DateTime<Utc> {
    let seconds = at.timestamp();
    DateTime::from_timestamp(seconds - seconds.rem_euclid(width), 0).map_or(at, storable)
}

/// Whose, how wide, when.
pub(super) type Key = (Uuid, i64, DateTime<Utc>);

/// What is added to one row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rollup {
    pub(super) count: i64,
    pub(super) disk_count: i64,
    pub(super) network_count: i64,
    /// In the order of the fields.
    pub(super) lines: [Option<Span>; FIELDS.len()],
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) min: f64,
    pub(super) sum: f64,
    pub(super) max: f64,
}

/// What these readings add, each counted.
pub(super) fn fold<'a>(samples: impl Iterator<Item = &'a PackedSample>) -> BTreeMap<Key, Rollup> {
    let mut rollups: BTreeMap<Key, Rollup> = BTreeMap::new();
    for sample in samples {
        for width in WIDTHS.map(seconds) {
            let key = (sample.vm.uuid(), width, beginning(sample.timestamp, width));
            rollups.entry(key).or_default().add(sample);
        }
    }
    rollups
}

impl Rollup {
    fn add(&mut self, sample: &PackedSample) {
        let readings = &sample.readings;
        self.count += 1;
        self.disk_count += i64::from(readings.disk.is_some());
        self.network_count += i64::from(readings.network.is_some());
        for (line, field) in self.lines.iter_mut().zip(FIELDS) {
            let Some(value) = field.of(readings) else { continue };
            let span = line.get_or_insert(Span { min: value, sum: 0.0, max: value });
            *span = Span { min: span.min.min(value), sum: span.sum + value, max: span.max.max(value) };
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_reading_falls_into_the_time_that_began_before_it() {
        for (at, five, hour) in [
            ("2026-02-03T04:05:00Z", "2026-02-03T04:05:00Z", "2026-02-03T04:00:00Z"),
            ("2026-02-03T04:09:59.999999Z", "2026-02-03T04:05:00Z", "2026-02-03T04:00:00Z"),
            ("2026-02-03T23:59:59Z", "2026-02-03T23:55:00Z", "2026-02-03T23:00:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:55:00Z", "1969-12-31T23:00:00Z"),
            ("0001-01-01T00:00:01Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            let at: DateTime<Utc> = at.parse().unwrap();
            let began = WIDTHS.map(|width| beginning(at, seconds(width)));
            assert_eq!(began, [five.parse::<DateTime<Utc>>().unwrap(), hour.parse().unwrap()], "{at}");
            assert!(began.iter().all(|began| at - *began < TimeDelta::hours(1)));
        }
    }
}

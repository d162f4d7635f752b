//! One reading of a guest, once decoded, and what charts ask of many.

use std::{fmt, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::VmId;

/// A valid metrics frame. What is charted stands in typed fields; the frame itself goes along
/// once, as text, so that nothing a newer agent says is lost.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsSample {
    /// Unique, made on receipt: a flush that is tried again stores it once.
    pub id: Uuid,
    /// The VM, by its socket; never by what the message claims.
    pub vm: VmId,
    /// The guest's clock.
    pub timestamp: DateTime<Utc>,
    /// Our clock, on receipt.
    pub received_at: DateTime<Utc>,
    /// What is charted.
    pub readings: Readings,
    /// `data.system` of the frame, secrets hidden.
    pub frame: FrameText,
}

/// The typed part of a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Readings {
    /// Per cent, 0 to 100.
    pub cpu_usage: f64,
    /// KiB.
    pub memory_used: i64,
    /// KiB.
    pub memory_total: i64,
    /// Of all disks together, where the guest tells.
    pub disk: Option<DiskRates>,
    /// Of all interfaces but loopback, where two frames in a row tell.
    pub network: Option<NetworkRates>,
}

/// Bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiskRates {
    /// Read.
    pub read: f64,
    /// Written.
    pub written: f64,
}

/// Bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NetworkRates {
    /// Towards the guest.
    pub received: f64,
    /// From the guest.
    pub sent: f64,
}

/// A JSON object as text: what waits and travels as text takes what it says; as a tree it would
/// take many times that. Clones share it.
#[derive(Clone, PartialEq, Eq)]
pub struct FrameText(Arc<str>);

impl FrameText {
    /// Takes what a reader of JSON has passed.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Read; null where it cannot be, which a row that somebody else wrote may bring about.
    #[must_use]
    pub fn tree(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<&Value> for FrameText {
    fn from(tree: &Value) -> Self {
        Self::new(tree.to_string())
    }
}

impl fmt::Debug for FrameText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A guest's words do not belong in a log.
        write!(f, "FrameText({} bytes)", self.0.len())
    }
}

/// One line of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeriesField {
    /// Per cent.
    CpuUsage,
    /// KiB.
    MemoryUsed,
    /// KiB.
    MemoryTotal,
    /// Bytes per second.
    DiskRead,
    /// Bytes per second.
    DiskWritten,
    /// Bytes per second.
    NetworkReceived,
    /// Bytes per second.
    NetworkSent,
}

impl SeriesField {
    /// What a reading tells of it.
    #[must_use]
    pub fn of(self, readings: &Readings) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "for charts; exact up to 2^53")]
        let kib = |kib: i64| Some(kib as f64);
        match self {
            Self::CpuUsage => Some(readings.cpu_usage),
            Self::MemoryUsed => kib(readings.memory_used),
            Self::MemoryTotal => kib(readings.memory_total),
            Self::DiskRead => readings.disk.map(|disk| disk.read),
            Self::DiskWritten => readings.disk.map(|disk| disk.written),
            Self::NetworkReceived => readings.network.map(|network| network.received),
            Self::NetworkSent => readings.network.map(|network| network.sent),
        }
    }
}

/// How often a guest tells how it fares.
const USUAL_INTERVAL: TimeDelta = TimeDelta::seconds(30);

/// How far apart a chart's points are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resolution {
    /// Each reading.
    Raw,
    /// Five minutes.
    FiveMinutes,
    /// An hour.
    Hour,
}

impl Resolution {
    /// The width of one point's time; `None` for single readings.
    #[must_use]
    pub fn width(self) -> Option<TimeDelta> {
        match self {
            Self::Raw => None,
            Self::FiveMinutes => Some(TimeDelta::minutes(5)),
            Self::Hour => Some(TimeDelta::hours(1)),
        }
    }

    /// The finest that is still kept for `from` and makes no more than `max_points` of a span;
    /// where none does, the coarsest. Single readings are taken to come every 30 s, and to be kept
    /// for `raw_days`; roll-ups of five minutes for `five_minutes_days`.
    #[must_use]
    pub fn for_span(
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        now: DateTime<Utc>,
        raw_days: u32,
        five_minutes_days: u32,
        max_points: u32,
    ) -> Self {
        let fits = |width: TimeDelta, days: u32| {
            // A span may begin anywhere in its first point's time.
            let points = (to - from).num_seconds().max(0) / width.num_seconds() + 1;
            points <= i64::from(max_points) && now - from <= TimeDelta::days(i64::from(days))
        };
        if fits(USUAL_INTERVAL, raw_days) {
            Self::Raw
        } else if fits(TimeDelta::minutes(5), five_minutes_days) {
            Self::FiveMinutes
        } else {
            Self::Hour
        }
    }
}

/// What a chart asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesRequest {
    /// Whose.
    pub vm: VmId,
    /// Not older.
    pub from: DateTime<Utc>,
    /// Older than this.
    pub to: DateTime<Utc>,
    /// At which resolution.
    pub resolution: Resolution,
    /// Which lines, in this order.
    pub fields: Vec<SeriesField>,
}

/// What a field was during a point's time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aggregate {
    /// Lowest.
    pub min: f64,
    /// Mean.
    pub avg: f64,
    /// Highest.
    pub max: f64,
}

/// One point of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesPoint {
    /// Its time, or the beginning of it.
    pub at: DateTime<Utc>,
    /// Readings in it.
    pub count: i64,
    /// One per requested field; `None`: no reading told it.
    pub values: Vec<Option<Aggregate>>,
}

/// A chart, oldest point first.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// At most as many as were asked for.
    pub points: Vec<SeriesPoint>,
    /// There are more, newer ones.
    pub truncated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_gets_the_finest_resolution_that_is_kept_and_fits() {
        use Resolution::{FiveMinutes, Hour, Raw};
        let now: DateTime<Utc> = "2026-06-01T12:00:00Z".parse().unwrap();
        // Beginning and end in minutes before now.
        for (from, to, max_points, expected) in [
            (60, 0, 1000, Raw),
            (60, 0, 121, Raw),
            (60, 0, 120, FiveMinutes),
            (60, 0, 13, FiveMinutes),
            (60, 0, 12, Hour),
            (60, 0, 1, Hour),
            (24 * 60, 0, 2881, Raw),
            (24 * 60, 0, 1000, FiveMinutes),
            (7 * 24 * 60, 0, 1000, Hour),
            // A short span of long ago: as fine as it is kept.
            (30 * 24 * 60, 30 * 24 * 60 - 60, 1000, Raw),
            (30 * 24 * 60 + 1, 30 * 24 * 60 - 60, 1000, FiveMinutes),
            (90 * 24 * 60 + 1, 90 * 24 * 60 - 60, 1000, Hour),
            (3000 * 24 * 60, 0, 10, Hour),
            // Nothing, and the future.
            (0, 60, 1000, Raw),
            (-60, -120, 1000, Raw),
        ] {
            let at = |minutes: i64| now - TimeDelta::minutes(minutes);
            let got = Resolution::for_span(at(from), at(to), now, 30, 90, max_points);
            assert_eq!(got, expected, "{from} to {to} minutes ago in {max_points} points");
        }
        let (first, last) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
        assert_eq!(Resolution::for_span(first, last, now, 30, 90, u32::MAX), Hour);
        assert_eq!(Resolution::for_span(last, first, now, 30, 90, 0), Hour, "no points at all");
    }
}

//! Charts: parallel lists instead of an object per point, which would be ten times as long.

use std::borrow::Cow;

use async_graphql::{
    ContextSelectionSet, Enum, InputType, OutputType, Positioned, ServerResult, SimpleObject, Value,
    parser::types::Field, registry::Registry,
};
use chrono::{DateTime, Utc};

use crate::vm::{Aggregate, Resolution, Series, SeriesField, SeriesPoint, SeriesRequest};

/// A line of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "SeriesField")]
pub(crate) enum MetricsField {
    /// Per cent, 0 to 100.
    CpuUsage,
    /// KiB.
    MemoryUsed,
    /// KiB.
    MemoryTotal,
    /// Of all disks together, bytes per second.
    DiskRead,
    /// Of all disks together, bytes per second.
    DiskWritten,
    /// Of all interfaces but loopback, bytes per second.
    NetworkReceived,
    /// Of all interfaces but loopback, bytes per second.
    NetworkSent,
}

impl MetricsField {
    /// What a chart shows unless told otherwise.
    pub(crate) fn usual() -> Vec<Self> {
        vec![Self::CpuUsage, Self::MemoryUsed, Self::MemoryTotal]
    }

    fn unit(self) -> MetricsUnit {
        match self {
            Self::CpuUsage => MetricsUnit::Percent,
            Self::MemoryUsed | Self::MemoryTotal => MetricsUnit::Kibibytes,
            Self::DiskRead | Self::DiskWritten | Self::NetworkReceived | Self::NetworkSent => {
                MetricsUnit::BytesPerSecond
            }
        }
    }
}

/// How far apart a chart's points are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Resolution")]
pub(crate) enum MetricsResolution {
    /// Each reading, kept for `metrics.retention_days`.
    Raw,
    /// Five minutes, kept for `metrics.five_minutes_days`.
    FiveMinutes,
    /// An hour, kept for `metrics.hours_days`.
    Hour,
}

/// What a line's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum MetricsUnit {
    /// 0 to 100.
    Percent,
    /// 1024 bytes.
    Kibibytes,
    /// Bytes per second.
    BytesPerSecond,
}

/// A chart of one VM. Its lists have one entry per point and the same length.
#[derive(SimpleObject)]
pub(crate) struct MetricsSeries {
    /// As asked for, or chosen.
    resolution: MetricsResolution,
    /// As asked for.
    from: DateTime<Utc>,
    /// As asked for.
    to: DateTime<Utc>,
    /// There are more, newer points than `maxPoints`: ask again from the last one on, or more
    /// coarsely.
    truncated: bool,
    /// Each point's time, or the beginning of it; oldest first. A time without a reading has no
    /// point.
    at: Column<DateTime<Utc>>,
    /// Readings in each point.
    counts: Column<i32>,
    /// One per field, in the order asked for.
    fields: Vec<MetricsLine>,
}

/// One line of a chart. Null where no reading of the point's time told it.
#[derive(SimpleObject)]
pub(crate) struct MetricsLine {
    /// Which.
    field: MetricsField,
    /// What its numbers are.
    unit: MetricsUnit,
    /// Lowest.
    min: Column<Option<f64>>,
    /// Mean.
    avg: Column<Option<f64>>,
    /// Highest.
    max: Column<Option<f64>>,
}

impl MetricsSeries {
    pub(crate) fn new(request: &SeriesRequest, series: &Series) -> Self {
        let points = &series.points;
        let fields = request.fields.iter().enumerate();
        Self {
            resolution: request.resolution.into(),
            from: request.from,
            to: request.to,
            truncated: series.truncated,
            at: Column(points.iter().map(|point| point.at).collect()),
            counts: Column(points.iter().map(|p| i32::try_from(p.count).unwrap_or(i32::MAX)).collect()),
            fields: fields.map(|(place, &field)| MetricsLine::new(field.into(), place, points)).collect(),
        }
    }
}

impl MetricsLine {
    fn new(field: MetricsField, place: usize, points: &[SeriesPoint]) -> Self {
        let column = |of: fn(Aggregate) -> f64| {
            Column(points.iter().map(|point| point.values.get(place).copied().flatten().map(of)).collect())
        };
        Self {
            field,
            unit: field.unit(),
            min: column(|value| value.min),
            avg: column(|value| value.avg),
            max: column(|value| value.max),
        }
    }
}

/// A list that goes into the answer as it stands. A list of GraphQL's own resolves each entry by a
/// future of its own, of which a long chart would have two hundred thousand at once.
struct Column<T>(Vec<T>);

impl<T: InputType + OutputType> OutputType for Column<T> {
    fn type_name() -> Cow<'static, str> {
        <Vec<T> as OutputType>::type_name()
    }

    fn qualified_type_name() -> String {
        <Vec<T> as OutputType>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <Vec<T> as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        Ok(Value::List(self.0.iter().map(InputType::to_value).collect()))
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema};
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;
    use crate::vm::VmId;

    struct Chart(DateTime<Utc>);

    #[Object]
    impl Chart {
        async fn chart(&self) -> MetricsSeries {
            let request = SeriesRequest {
                vm: VmId::generate(),
                from: self.0,
                to: self.0 + TimeDelta::hours(1),
                resolution: Resolution::FiveMinutes,
                fields: vec![SeriesField::DiskRead, SeriesField::CpuUsage],
            };
            let value = |min, avg, max| Some(Aggregate { min, avg, max });
            let point = |minutes, count, values| SeriesPoint {
                at: self.0 + TimeDelta::minutes(minutes),
                count,
                values,
            };
            let points = vec![
                point(0, 10, vec![None, value(1.0, 2.0, 3.0)]),
                point(5, i64::MAX, vec![value(0.0, 0.5, 4096.0), value(4.0, 5.0, 6.0)]),
            ];
            MetricsSeries::new(&request, &Series { points, truncated: true })
        }
    }

    #[tokio::test]
    async fn a_chart_is_parallel_lists_in_the_order_asked_for() {
        let begin = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let schema = Schema::new(Chart(begin), EmptyMutation, EmptySubscription);
        let query = "{ chart { resolution truncated at counts fields { field unit min avg max } } }";
        let answer = schema.execute(query).await.into_result().expect("a chart");
        let expected = json!({
            "resolution": "FIVE_MINUTES", "truncated": true,
            "at": ["2023-11-14T22:13:20+00:00", "2023-11-14T22:18:20+00:00"],
            "counts": [10, i32::MAX],
            "fields": [
                { "field": "DISK_READ", "unit": "BYTES_PER_SECOND",
                  "min": [null, 0.0], "avg": [null, 0.5], "max": [null, 4096.0] },
                { "field": "CPU_USAGE", "unit": "PERCENT", "min": [1.0, 4.0], "avg": [2.0, 5.0], "max": [3.0, 6.0] },
            ],
        });
        assert_eq!(answer.data.into_json().expect("JSON")["chart"], expected);
        let sdl = schema.sdl();
        for line in ["min: [Float]!", "at: [DateTime!]!", "counts: [Int!]!"] {
            assert!(sdl.contains(line), "{line} is not in {sdl}");
        }
    }
}

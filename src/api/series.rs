//! What may be asked of a chart, and what that costs.
//!
//! A chart is one bounded answer: the caller says how many points he can draw, and gets the finest
//! resolution that fits, or the one he names and is told that it was cut.

use chrono::{DateTime, TimeDelta, Utc};

use super::error::ApiError;
use crate::{
    config::MetricsConfig,
    vm::{Resolution, SeriesField, SeriesRequest, VmId},
};

/// Longest span: two years, one of them a leap year.
const MAX_SPAN: TimeDelta = TimeDelta::days(731);
/// Most points of one answer.
pub(super) const MAX_POINTS: i32 = 10_000;
/// Points of a field that cost as much as one field of a query.
const POINTS_PER_COST: usize = 50;

/// What a caller wants, unchecked.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) vm: VmId,
    pub(super) from: DateTime<Utc>,
    pub(super) to: DateTime<Utc>,
    /// `None`: chosen by span and age.
    pub(super) resolution: Option<Resolution>,
    pub(super) fields: Vec<SeriesField>,
    pub(super) max_points: i32,
}

impl Wanted {
    /// What to ask of the store, and for how many points at most.
    ///
    /// # Errors
    /// `INVALID_INPUT`, with the field.
    pub(super) fn checked(
        self,
        kept: &MetricsConfig,
        now: DateTime<Utc>,
    ) -> Result<(SeriesRequest, u32), ApiError> {
        let Self { vm, from, to, resolution, fields, max_points } = self;
        if from >= to {
            return Err(ApiError::invalid("from", "must be before `to`"));
        }
        if to - from > MAX_SPAN {
            return Err(ApiError::invalid("from", "must be at most two years before `to`"));
        }
        if fields.is_empty() {
            return Err(ApiError::invalid("fields", "must name at least one"));
        }
        if fields.iter().enumerate().any(|(n, field)| fields[..n].contains(field)) {
            return Err(ApiError::invalid("fields", "must name each one once"));
        }
        if !(1..=MAX_POINTS).contains(&max_points) {
            return Err(ApiError::invalid("maxPoints", format!("must be between 1 and {MAX_POINTS}")));
        }
        let max_points = max_points.unsigned_abs();
        let resolution = resolution.unwrap_or_else(|| {
            Resolution::for_span(from, to, now, kept.retention_days, kept.five_minutes_days, max_points)
        });
        Ok((SeriesRequest { vm, from, to, resolution, fields }, max_points))
    }
}

/// What a chart costs: a search, and a share of each point. The longest answer with every field
/// fits into one query, twice does not.
pub(super) fn complexity(max_points: i32, fields: usize, child: usize) -> usize {
    let points = usize::try_from(max_points.clamp(1, MAX_POINTS)).unwrap_or(1);
    points.saturating_mul(fields).div_ceil(POINTS_PER_COST).saturating_add(child).saturating_add(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [SeriesField; 7] = [
        SeriesField::CpuUsage,
        SeriesField::MemoryUsed,
        SeriesField::MemoryTotal,
        SeriesField::DiskRead,
        SeriesField::DiskWritten,
        SeriesField::NetworkReceived,
        SeriesField::NetworkSent,
    ];

    fn kept() -> MetricsConfig {
        MetricsConfig::default()
    }

    fn of_the_last(span: TimeDelta, now: DateTime<Utc>) -> Wanted {
        let vm = VmId::generate();
        Wanted { vm, from: now - span, to: now, resolution: None, fields: ALL.into(), max_points: 1000 }
    }

    #[test]
    fn the_resolution_is_chosen_by_span_and_age_unless_it_is_named() {
        let now = Utc::now();
        for (span, max_points, expected) in [
            (TimeDelta::hours(1), 1000, Resolution::Raw),
            (TimeDelta::hours(8), 1000, Resolution::Raw),
            (TimeDelta::days(1), 1000, Resolution::FiveMinutes),
            (TimeDelta::days(1), 10_000, Resolution::Raw),
            (TimeDelta::days(30), 1000, Resolution::Hour),
            (TimeDelta::days(30), 10_000, Resolution::FiveMinutes),
            (TimeDelta::days(731), 1000, Resolution::Hour),
        ] {
            let wanted = Wanted { max_points, ..of_the_last(span, now) };
            let (request, limit) = wanted.clone().checked(&kept(), now).expect("a sane request");
            assert_eq!((request.resolution, limit), (expected, max_points.unsigned_abs()), "{span}");
            let named = Wanted { resolution: Some(Resolution::FiveMinutes), ..wanted };
            let (request, _) = named.checked(&kept(), now).expect("a sane request");
            assert_eq!(request.resolution, Resolution::FiveMinutes, "{span}");
        }
    }

    #[test]
    fn what_makes_no_chart_is_refused_by_name() {
        let now = Utc::now();
        let sane = of_the_last(TimeDelta::hours(1), now);
        let with = |change: fn(&mut Wanted)| {
            let mut wanted = sane.clone();
            change(&mut wanted);
            wanted.checked(&kept(), now).err().map(|error| {
                assert_eq!(error.code(), "INVALID_INPUT");
                error.message().split(':').next().unwrap_or_default().to_owned()
            })
        };
        assert_eq!(with(|_| ()), None);
        assert_eq!(with(|wanted| wanted.from = wanted.to).as_deref(), Some("from"));
        assert_eq!(with(|wanted| wanted.from = wanted.to + TimeDelta::days(1)).as_deref(), Some("from"));
        assert_eq!(with(|wanted| wanted.from = wanted.to - TimeDelta::days(731)), None);
        assert_eq!(with(|wanted| wanted.from = wanted.to - TimeDelta::days(732)).as_deref(), Some("from"));
        let ends = |wanted: &mut Wanted| {
            (wanted.from, wanted.to) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
        };
        assert_eq!(with(ends).as_deref(), Some("from"));
        assert_eq!(with(|wanted| wanted.fields.clear()).as_deref(), Some("fields"));
        let twice = |wanted: &mut Wanted| wanted.fields.push(SeriesField::CpuUsage);
        assert_eq!(with(twice).as_deref(), Some("fields"));
        for points in [0, -1, MAX_POINTS + 1, i32::MIN, i32::MAX] {
            let wanted = Wanted { max_points: points, ..sane.clone() };
            let refused = wanted.checked(&kept(), now).expect_err("too many or too few points");
            assert!(refused.message().starts_with("maxPoints"), "{points}: {}", refused.message());
        }
        assert_eq!(with(|wanted| wanted.max_points = 1), None);
        assert_eq!(with(|wanted| wanted.max_points = MAX_POINTS), None);
    }

    #[test]
    fn the_longest_chart_fits_into_one_query_and_two_do_not() {
        const BOUND: usize = 2000;
        const CHILD: usize = 12;
        for (points, fields, cost) in [
            (1, 1, 113),
            (1000, 3, 172),
            (1000, 7, 252),
            (10_000, 7, 1512),
            (i32::MAX, 7, 1512),
            (i32::MIN, 7, 113),
        ] {
            assert_eq!(complexity(points, fields, CHILD), cost, "{points} points of {fields} fields");
        }
        let longest = complexity(MAX_POINTS, ALL.len(), CHILD);
        assert!(longest <= BOUND && 2 * longest > BOUND, "{longest}");
        assert_eq!(complexity(MAX_POINTS, usize::MAX, CHILD), usize::MAX / POINTS_PER_COST + 1 + CHILD + 100);
    }
}

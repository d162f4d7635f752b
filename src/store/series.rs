//! Charts: readings or their roll-ups, a bounded number of points.
//!
//! One seek in one index and no frame is read, so that a month of a VM costs as little as its
//! points are few.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, ColumnIndex, Decode, Row, Type};

use super::{
    Store, StoreError,
    column::storable,
    db::on_pool,
    failed,
    metrics::rollup::{Line, seconds},
};
use crate::vm::{Aggregate, Resolution, Series, SeriesField, SeriesPoint, SeriesRequest};

impl Store {
    /// A chart of at most `limit` points, oldest first: those whose time, or its beginning, is not
    /// before `from` and before `to`.
    ///
    /// # Errors
    /// `Database`.
    pub async fn series(&self, request: &SeriesRequest, limit: u32) -> Result<Series, StoreError> {
        const OPERATION: &str = "reading a chart";
        let sql = query(request.resolution, &request.fields);
        let fields = request.fields.len();
        // One more than asked for tells whether there are more.
        let mut points: Vec<SeriesPoint> = on_pool!(self, db => sqlx::query(AssertSqlSafe(sql))
            .bind(request.vm.uuid())
            .bind(storable(request.from))
            .bind(storable(request.to))
            .bind(i64::from(limit) + 1)
            .bind(seconds(request.resolution))
            .try_map(|row| point(&row, fields))
            .fetch_all(db)
            .await)
        .map_err(failed(OPERATION))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let truncated = points.len() > limit;
        points.truncate(limit);
        Ok(Series { points, truncated })
    }
}

/// A point's time, how many readings it is made of, and four numbers for each field: the lowest,
/// the sum, the highest, and how many told it. Only words of ours stand in it. Nothing is divided
/// here: `PostgreSQL` refuses a quotient too small for a number that is not zero.
fn query(resolution: Resolution, fields: &[SeriesField]) -> String {
    use std::fmt::Write as _;

    let raw = resolution == Resolution::Raw;
    let mut columns = String::new();
    for field in fields {
        let Line { column, stem, count } = Line::of(*field);
        let written = if raw {
            let value = format!("CAST({column} AS DOUBLE PRECISION)");
            write!(columns, ", {value}, {value}, {value}, CAST(1 AS BIGINT)")
        } else {
            write!(columns, ", {stem}_min, {stem}_sum, {stem}_max, {count}")
        };
        // Writing into a string does not fail.
        debug_assert!(written.is_ok());
    }
    if raw {
        format!(
            "SELECT timestamp, CAST(1 AS BIGINT){columns} FROM vm_metrics
             WHERE vm_id = $1 AND timestamp >= $2 AND timestamp < $3 AND $5 = 0
             ORDER BY timestamp, id LIMIT $4"
        )
    } else {
        format!(
            "SELECT at, count{columns} FROM vm_metrics_rollups
             WHERE vm_id = $1 AND width_seconds = $5 AND at >= $2 AND at < $3
             ORDER BY at LIMIT $4"
        )
    }
}

fn point<R: Row>(row: &R, fields: usize) -> Result<SeriesPoint, sqlx::Error>
where
    usize: ColumnIndex<R>,
    for<'r> DateTime<Utc>: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> f64: Decode<'r, R::Database> + Type<R::Database>,
{
    let aggregate = |field: usize| {
        let first = 2 + 4 * field;
        let number = |nth| row.try_get::<Option<f64>, _>(first + nth);
        let told: i64 = row.try_get(first + 3)?;
        Ok(match (number(0)?, number(1)?, number(2)?) {
            (Some(min), Some(sum), Some(max)) if told > 0 => {
                Some(Aggregate { min, avg: mean(sum, told), max })
            }
            _ => None,
        })
    };
    Ok(SeriesPoint {
        at: row.try_get(0)?,
        count: row.try_get(1)?,
        values: (0..fields).map(aggregate).collect::<Result<_, sqlx::Error>>()?,
    })
}

#[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 readings")]
fn mean(sum: f64, count: i64) -> f64 {
    sum / count as f64
}

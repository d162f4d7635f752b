//! A table per day on PostgreSQL, so that a day's readings go by dropping it. SQLite has none.
//!
//! Days are made ahead of time; what a batch needs besides (readings that waited on disk, clocks
//! that are off) is made before it is stored. Which days are there is remembered, and forgotten
//! when the database says otherwise.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::store::{Store, StoreError, db::Db, failed};

/// Days made ahead of time, so that a database that is away for a long weekend is ready after it.
const AHEAD: u64 = 3;

/// One at a time makes days: `CREATE TABLE IF NOT EXISTS` of two at once may fail for one of them.
const LOCK: i64 = 0x0049_4e46_4441_5953;

/// The days that have a partition, as far as is known.
#[derive(Debug, Default)]
pub(in crate::store) struct KnownDays(Mutex<BTreeSet<NaiveDate>>);

impl KnownDays {
    fn days(&self) -> MutexGuard<'_, BTreeSet<NaiveDate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn know(&self, days: &BTreeSet<NaiveDate>) -> bool {
        days.is_subset(&self.days())
    }

    fn are(&self, days: BTreeSet<NaiveDate>) {
        *self.days() = days;
    }

    /// They have to be looked for anew.
    pub(super) fn forget(&self) {
        self.days().clear();
    }
}

impl Store {
    /// Makes room for the readings of yesterday to three days ahead of `now`. Nothing on SQLite.
    ///
    /// # Errors
    /// `Database`.
    pub async fn prepare_metrics(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let Db::Postgres(pool) = &self.db else { return Ok(()) };
        let first = now.date_naive() - Days::new(1);
        let days = first.iter_days().take(usize::try_from(AHEAD + 2).unwrap_or_default()).collect();
        self.make_days(pool, &days).await.map_err(failed("making room for readings"))
    }

    /// Makes those days that are not known to be there.
    pub(super) async fn make_days(
        &self,
        pool: &PgPool,
        days: &BTreeSet<NaiveDate>,
    ) -> Result<(), sqlx::Error> {
        if self.days.know(days) {
            return Ok(());
        }
        let mut tx = pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
        // Looked for first: asking for a day locks all of them, against readers, too.
        let mut there = existing(&mut tx).await?;
        for day in days.difference(&there.clone()) {
            // A row with its frame stays on one page: faster to write and to read than two.
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {} PARTITION OF vm_metrics
                 FOR VALUES FROM ('{}') TO ('{}') WITH (toast_tuple_target = 8160)",
                name(*day),
                bound(*day),
                bound(*day + Days::new(1)),
            );
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await?;
            there.insert(*day);
        }
        tx.commit().await?;
        self.days.are(there);
        Ok(())
    }

    /// Drops the days that were over by `before`; gives how many.
    pub(in crate::store) async fn drop_days(
        &self,
        pool: &PgPool,
        before: DateTime<Utc>,
    ) -> Result<u64, sqlx::Error> {
        let there = existing(&mut *pool.acquire().await?).await?;
        let mut dropped = 0;
        for day in there.into_iter().filter(|day| is_over(*day, before)) {
            // Forgotten first, so that nobody counts on it meanwhile.
            self.days.forget();
            let sql = format!("DROP TABLE IF EXISTS {}", name(day));
            sqlx::query(AssertSqlSafe(sql)).persistent(false).execute(pool).await?;
            dropped += 1;
        }
        self.days.forget();
        Ok(dropped)
    }
}

/// Whether every reading of the day is older.
fn is_over(day: NaiveDate, before: DateTime<Utc>) -> bool {
    day < before.date_naive()
}

async fn existing(connection: &mut PgConnection) -> Result<BTreeSet<NaiveDate>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'vm_metrics'::regclass",
    )
    .fetch_all(connection)
    .await?;
    Ok(names.iter().filter_map(|name| day(name)).collect())
}

const PREFIX: &str = "vm_metrics_";

fn name(day: NaiveDate) -> String {
    format!("{PREFIX}{:04}{:02}{:02}", day.year(), day.month(), day.day())
}

fn day(name: &str) -> Option<NaiveDate> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 8)?;
    let digits: u32 = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    NaiveDate::from_ymd_opt(i32::try_from(digits / 10_000).ok()?, digits / 100 % 100, digits % 100)
}

/// The day's first moment.
fn bound(day: NaiveDate) -> String {
    let at = day.and_time(NaiveTime::MIN);
    // Not as chrono writes it, which puts a sign before the year 10000.
    format!("{:04}-{}", day.year(), at.format("%m-%d 00:00:00+00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_found_by_its_name() {
        for (text, table) in [("2026-02-03", "vm_metrics_20260203"), ("0001-01-01", "vm_metrics_00010101")] {
            let date: NaiveDate = text.parse().unwrap();
            assert_eq!(name(date), table);
            assert_eq!(day(table), Some(date));
            assert_eq!(bound(date), format!("{text} 00:00:00+00"));
        }
        let last: NaiveDate = "9999-12-31".parse().unwrap();
        assert_eq!(bound(last + Days::new(1)), "10000-01-01 00:00:00+00");
        for other in
            ["vm_metrics_rollups", "vm_metrics_20261301", "vm_metrics_2026023", "vm_metrics_+0260203"]
        {
            assert_eq!(day(other), None, "{other}");
        }
    }

    #[test]
    fn a_day_is_over_when_the_next_has_begun() {
        let day: NaiveDate = "2026-02-03".parse().unwrap();
        for (before, over) in
            [("2026-02-03T23:59:59Z", false), ("2026-02-04T00:00:00Z", true), ("2026-02-02T12:00:00Z", false)]
        {
            assert_eq!(is_over(day, before.parse().unwrap()), over, "{before}");
        }
    }
}

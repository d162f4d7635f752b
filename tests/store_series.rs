//! Charts: what was asked for, oldest first, within a bound.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use chrono::{DateTime, TimeDelta, Utc};
use infinibay::vm::{Aggregate, NetworkRates, Resolution, Series, SeriesField, SeriesRequest, VmId};
use support::{
    database::{Backend, TestDatabase},
    sample::sample,
};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn minutes(series: &Series, start: DateTime<Utc>) -> Vec<i64> {
    series.points.iter().map(|point| (point.at - start).num_minutes()).collect()
}

on_both! {
    async fn a_chart_of_readings_and_of_roll_ups(db: TestDatabase) {
        let store = db.store().await;
        let (vm, other) = (VmId::generate(), VmId::generate());
        let start = at("2026-02-03T04:00:00Z");
        let mut samples = Vec::new();
        for minute in 0..120 {
            let mut one = sample(vm, start + TimeDelta::minutes(minute), f64::from(u8::try_from(minute % 5).unwrap()));
            if minute == 7 {
                one.readings.network = Some(NetworkRates { received: 8.0, sent: 2.0 });
            }
            samples.push(one);
            samples.push(sample(other, start + TimeDelta::minutes(minute), 99.0));
        }
        store.insert_metrics(&samples).await.unwrap();
        let request = |from: i64, to: i64, resolution| SeriesRequest {
            vm,
            from: start + TimeDelta::minutes(from),
            to: start + TimeDelta::minutes(to),
            resolution,
            fields: vec![SeriesField::NetworkSent, SeriesField::CpuUsage],
        };
        let aggregate = |min, avg, max| Some(Aggregate { min, avg, max });

        let raw = store.series(&request(5, 10, Resolution::Raw), 100).await.unwrap();
        assert_eq!(minutes(&raw, start), [5, 6, 7, 8, 9], "from is in it, to is not");
        assert!(raw.points.iter().all(|point| point.count == 1) && !raw.truncated);
        assert_eq!(raw.points[2].values, [aggregate(2.0, 2.0, 2.0), aggregate(2.0, 2.0, 2.0)]);
        assert_eq!(raw.points[3].values, [None, aggregate(3.0, 3.0, 3.0)]);

        let five = store.series(&request(0, 15, Resolution::FiveMinutes), 100).await.unwrap();
        assert_eq!(minutes(&five, start), [0, 5, 10]);
        assert!(five.points.iter().all(|point| point.count == 5));
        assert_eq!(five.points[0].values, [None, aggregate(0.0, 2.0, 4.0)]);
        // One of five told of the network: the mean is of that one.
        assert_eq!(five.points[1].values, [aggregate(2.0, 2.0, 2.0), aggregate(0.0, 2.0, 4.0)]);

        let hours = store.series(&request(0, 120, Resolution::Hour), 100).await.unwrap();
        assert_eq!(minutes(&hours, start), [0, 60]);
        assert_eq!(hours.points[1].count, 60);

        for (limit, count, truncated) in [(0, 0, true), (119, 119, true), (120, 120, false), (u32::MAX, 120, false)] {
            let some = store.series(&request(0, 120, Resolution::Raw), limit).await.unwrap();
            assert_eq!((some.points.len(), some.truncated), (count, truncated), "{limit}");
            assert!(some.points.is_sorted_by_key(|point| point.at));
        }
        let nothing = store.series(&request(10, 5, Resolution::Hour), 10).await.unwrap();
        assert_eq!(nothing, Series { points: vec![], truncated: false });
        let mut bare = request(0, 2, Resolution::Raw);
        bare.fields.clear();
        let bare = store.series(&bare, 10).await.unwrap();
        assert_eq!(bare.points.len(), 2);
        assert!(bare.points.iter().all(|point| point.values.is_empty()));
    }

    async fn numbers_next_to_nothing_can_be_charted(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        let start = at("2026-02-03T04:00:00Z");
        let tiny = f64::from_bits(1);
        let samples: Vec<_> = [tiny, 0.0, 0.0]
            .into_iter()
            .zip(0..)
            .map(|(cpu, minute)| sample(vm, start + TimeDelta::minutes(minute), cpu))
            .collect();
        store.insert_metrics(&samples).await.unwrap();
        let request = |resolution| SeriesRequest {
            vm,
            from: start,
            to: start + TimeDelta::hours(1),
            resolution,
            fields: vec![SeriesField::CpuUsage],
        };
        let nothing = Some(Aggregate { min: 0.0, avg: 0.0, max: 0.0 });
        for resolution in [Resolution::Raw, Resolution::FiveMinutes, Resolution::Hour] {
            let series = store.series(&request(resolution), 10).await.unwrap();
            assert!(series.points.iter().all(|point| point.values == [nothing]), "{resolution:?}: {series:?}");
        }
        // As it was stored before.
        let stored = "UPDATE vm_metrics_rollups SET cpu_sum = 5e-324, cpu_max = 5e-324";
        db.tamper(stored, stored).await;
        let series = store.series(&request(Resolution::Hour), 10).await.unwrap();
        assert_eq!(series.points[0].values, [Some(Aggregate { min: 0.0, avg: 0.0, max: tiny })]);
    }

    async fn every_field_can_be_charted_at_every_resolution(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        let start = at("2026-02-03T04:00:00Z");
        let mut one = sample(vm, start, 1.0);
        one.readings.memory_used = 2;
        one.readings.memory_total = 3;
        one.readings.disk = Some(infinibay::vm::DiskRates { read: 4.0, written: 5.0 });
        one.readings.network = Some(NetworkRates { received: 6.0, sent: 7.0 });
        store.insert_metrics(&[one]).await.unwrap();
        let fields = vec![
            SeriesField::CpuUsage,
            SeriesField::MemoryUsed,
            SeriesField::MemoryTotal,
            SeriesField::DiskRead,
            SeriesField::DiskWritten,
            SeriesField::NetworkReceived,
            SeriesField::NetworkSent,
        ];
        for resolution in [Resolution::Raw, Resolution::FiveMinutes, Resolution::Hour] {
            let request = SeriesRequest { vm, from: start, to: start + TimeDelta::hours(1), resolution, fields: fields.clone() };
            let series = store.series(&request, 10).await.unwrap();
            let means: Vec<_> = series.points[0].values.iter().map(|value| value.unwrap().avg).collect();
            assert_eq!(means, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "{resolution:?}");
        }
    }
}

#[tokio::test]
async fn a_month_of_one_vm_by_the_hour_is_one_seek() {
    let db = TestDatabase::new(Backend::Postgres).await;
    // Thirty days of a hundred VMs, as the hourly roll-ups hold them.
    db.tamper(
        "",
        "INSERT INTO vm_metrics_rollups
         SELECT ('00000000-0000-4000-8000-' || lpad(vm::text, 12, '0'))::uuid, 3600,
                '2026-01-01T00:00:00Z'::timestamptz + hour * interval '1 hour', 120,
                1, 240, 3, 1, 240, 3, 1, 240, 3, 0, NULL, NULL, NULL, NULL, NULL, NULL,
                0, NULL, NULL, NULL, NULL, NULL, NULL
         FROM generate_series(1, 100) AS vm, generate_series(0, 719) AS hour;
         ANALYZE vm_metrics_rollups",
    )
    .await;
    let store = db.store().await;
    let request = SeriesRequest {
        vm: "00000000-0000-4000-8000-000000000042".parse().unwrap(),
        from: at("2026-01-01T00:00:00Z"),
        to: at("2026-01-31T00:00:00Z"),
        resolution: Resolution::Hour,
        fields: vec![SeriesField::CpuUsage],
    };
    let series = store.series(&request, 1000).await.unwrap();
    assert_eq!((series.points.len(), series.truncated), (720, false));
    assert_eq!(series.points[719].values, [Some(Aggregate { min: 1.0, avg: 2.0, max: 3.0 })]);
    let scans = db.number(
        "SELECT CAST(sum(seq_scan) AS BIGINT) FROM pg_stat_user_tables WHERE relname = 'vm_metrics_rollups'",
    );
    store.close().await;
    assert_eq!(scans.await, 0, "the table was read from end to end");
}

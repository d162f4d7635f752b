//! A chart through the API: parallel lists, oldest first, within the bounds that were asked for.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use infinibay::vm::{DiskRates, MetricsSample, VmId};
use serde_json::{Value, json};
use support::{
    sample::{now, sample},
    trial::Trial,
};

const CHART: &str = "query($vm: UUID!, $from: DateTime!, $to: DateTime!, $resolution: MetricsResolution,
        $fields: [MetricsField!]! = [CPU_USAGE, MEMORY_USED, MEMORY_TOTAL], $points: Int! = 1000) {
    vmMetricsSeries(vmId: $vm, from: $from, to: $to, resolution: $resolution, fields: $fields, maxPoints: $points) {
        resolution from to truncated at counts fields { field unit min avg max } } }";

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn variables(vm: &str, from: DateTime<Utc>, to: DateTime<Utc>, more: &Value) -> Value {
    let mut variables = json!({ "vm": vm, "from": text(from), "to": text(to) });
    variables.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    variables
}

async fn chart(trial: &Trial, vm: &str, from: DateTime<Utc>, to: DateTime<Utc>, more: Value) -> Value {
    let mut chart = trial.client.ask(CHART, variables(vm, from, to, &more)).await["vmMetricsSeries"].take();
    assert_eq!(chart["from"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap(), from);
    assert_eq!(chart["to"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap(), to);
    let points = times(&chart).len();
    assert_eq!(chart["counts"].as_array().unwrap().len(), points);
    for line in chart["fields"].as_array().unwrap() {
        for list in ["min", "avg", "max"] {
            assert_eq!(line[list].as_array().unwrap().len(), points, "{list} of {}", line["field"]);
        }
    }
    chart.take()
}

fn times(chart: &Value) -> Vec<DateTime<Utc>> {
    chart["at"].as_array().unwrap().iter().map(|at| at.as_str().unwrap().parse().unwrap()).collect()
}

on_both! {
    async fn single_readings_are_charted_oldest_first(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("charted")).await;
        let id: VmId = vm.parse().unwrap();
        let store = db.store().await;
        let begin = now() - TimeDelta::minutes(30);
        let samples: Vec<MetricsSample> = (0..40_i32).map(|n| {
            let mut reading = sample(id, begin + TimeDelta::seconds(30 * i64::from(n)), f64::from(n));
            reading.readings.disk = (n >= 20).then(|| DiskRates { read: f64::from(n) * 1024.0, written: 0.5 });
            reading
        }).collect();
        store.insert_metrics(&samples).await.unwrap();
        store.insert_metrics(&[sample(VmId::generate(), begin, 99.0)]).await.unwrap();

        let end = begin + TimeDelta::minutes(20);
        let usual = chart(&trial, &vm, begin, end, json!({})).await;
        assert_eq!((&usual["resolution"], &usual["truncated"]), (&json!("RAW"), &json!(false)));
        let expected: Vec<_> = samples.iter().map(|sample| sample.timestamp).collect();
        assert_eq!(times(&usual), expected);
        assert_eq!(usual["counts"], json!(vec![1; 40]));
        let names: Vec<_> = usual["fields"].as_array().unwrap().iter().map(|line| (&line["field"], &line["unit"])).collect();
        let (percent, kib) = (json!("PERCENT"), json!("KIBIBYTES"));
        let (cpu, used, total) = (json!("CPU_USAGE"), json!("MEMORY_USED"), json!("MEMORY_TOTAL"));
        assert_eq!(names, [(&cpu, &percent), (&used, &kib), (&total, &kib)]);
        let values: Vec<_> = (0..40).map(f64::from).collect();
        for list in ["min", "avg", "max"] {
            assert_eq!(usual["fields"][0][list], json!(values), "{list}");
            assert_eq!(usual["fields"][2][list], json!(vec![1_000_000.0; 40]), "{list}");
        }

        // What was not told is null, and the fields come in the order asked for.
        let disks = chart(&trial, &vm, begin, end, json!({ "fields": ["NETWORK_SENT", "DISK_READ", "CPU_USAGE"] })).await;
        assert_eq!(disks["fields"][0]["avg"], json!(vec![Value::Null; 40]));
        assert_eq!(disks["fields"][1]["unit"], "BYTES_PER_SECOND");
        assert_eq!((&disks["fields"][1]["max"][19], &disks["fields"][1]["max"][20]), (&Value::Null, &json!(20_480.0)));
        assert_eq!(disks["fields"][2]["field"], "CPU_USAGE");
        let newest = trial.client.ask(
            "query($vm: UUID!) { getVmMetrics(vmId: $vm, hours: 1) { cpuUsage diskRead diskWritten networkReceived networkSent } }",
            json!({ "vm": vm }),
        ).await;
        let expected = json!({ "cpuUsage": 39.0, "diskRead": 39.0 * 1024.0, "diskWritten": 0.5,
            "networkReceived": null, "networkSent": null });
        assert_eq!(newest["getVmMetrics"][0], expected);

        // The beginning belongs to it, the end does not.
        let some = chart(&trial, &vm, begin + TimeDelta::seconds(30), begin + TimeDelta::seconds(90), json!({})).await;
        assert_eq!(some["fields"][0]["avg"], json!([1.0, 2.0]));

        // Too many points: the oldest, and a word that there are more.
        let cut = chart(&trial, &vm, begin, end, json!({ "resolution": "RAW", "points": 10 })).await;
        assert_eq!((&cut["truncated"], times(&cut).len()), (&json!(true), 10));
        let after = times(&cut)[9] + TimeDelta::microseconds(1);
        let rest = chart(&trial, &vm, after, end, json!({ "resolution": "RAW", "points": 30 })).await;
        assert_eq!((&rest["truncated"], times(&rest).len()), (&json!(false), 30), "exactly as many as were asked for");
        assert_eq!(times(&rest).first(), Some(&samples[10].timestamp));

        let later = end + TimeDelta::days(365);
        let nothing = chart(&trial, &vm, end, later, json!({})).await;
        assert_eq!((times(&nothing).len(), &nothing["truncated"]), (0, &json!(false)));
        store.close().await;
    }

    async fn long_spans_are_charted_coarsely(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("month")).await;
        let to = now();
        for (days, points, expected) in [
            (1, 1000, "FIVE_MINUTES"),
            (1, 10_000, "RAW"),
            (29, 1000, "HOUR"),
            (29, 10_000, "FIVE_MINUTES"),
            (100, 10_000, "HOUR"),
            (731, 1, "HOUR"),
        ] {
            let chart = chart(&trial, &vm, to - TimeDelta::days(days), to, json!({ "points": points })).await;
            assert_eq!(chart["resolution"], expected, "{days} days in {points} points");
        }
    }

    async fn what_makes_no_chart_is_refused(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("bounded")).await;
        let to = now();
        let hour = TimeDelta::hours(1);
        for (from, to, more) in [
            (to, to, json!({})),
            (to, to - hour, json!({})),
            (to - TimeDelta::days(732), to, json!({})),
            (to - hour, to, json!({ "fields": [] })),
            (to - hour, to, json!({ "fields": ["CPU_USAGE", "MEMORY_USED", "CPU_USAGE"] })),
            (to - hour, to, json!({ "points": 0 })),
            (to - hour, to, json!({ "points": -1 })),
            (to - hour, to, json!({ "points": 10_001 })),
        ] {
            let code = trial.client.refused(CHART, variables(&vm, from, to, &more)).await;
            assert_eq!(code, "INVALID_INPUT", "{from} to {to} with {more}");
        }
        let unknown = json!({ "fields": ["LOAD"] });
        assert_eq!(trial.client.refused(CHART, variables(&vm, to - hour, to, &unknown)).await, "INVALID_QUERY");
        let longest = format!("vmMetricsSeries(vmId: \"{vm}\", from: \"{}\", to: \"{}\", maxPoints: 10000,
            fields: [CPU_USAGE, MEMORY_USED, MEMORY_TOTAL, DISK_READ, DISK_WRITTEN, NETWORK_RECEIVED, NETWORK_SENT])
            {{ at counts fields {{ field min avg max }} }}", text(to - hour), text(to));
        let twice = format!("{{ a: {longest} b: {longest} }}");
        assert_eq!(trial.client.refused(&twice, json!({})).await, "INVALID_QUERY");
        trial.client.ask(&format!("{{ {longest} }}"), json!({})).await;

        // Another's VM cannot be told from none.
        let somebody = trial.home.between(&mut trial.daemon, |home| home.user("somebody", &[]));
        let stranger = trial.daemon.client(&somebody);
        for vm in [vm, VmId::generate().to_string()] {
            assert_eq!(stranger.refused(CHART, variables(&vm, to - hour, to, &json!({}))).await, "VM_NOT_FOUND");
        }
    }
}

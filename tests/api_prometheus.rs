//! What Prometheus reads: strictly in its format, for admins only, and never more than is bounded,
//! whatever a guest sends.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    guest::{FakeGuest, well_behaved},
    scrape::Scrape,
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(20);

/// Each figure there may be, with its labels. One that is not here has no place in the documents
/// either, or has a label whose words nobody bounded.
const KNOWN: [(&str, &[&str]); 40] = [
    ("infinibay_agents", &["connectivity"]),
    ("infinibay_alert_deliveries_total", &["outcome"]),
    ("infinibay_alerts_open", &["kind"]),
    ("infinibay_audit_left_out_total", &["reason"]),
    ("infinibay_build_info", &["version"]),
    ("infinibay_command_seconds", &["le"]),
    ("infinibay_commands_queued", &[]),
    ("infinibay_commands_refused_total", &["reason"]),
    ("infinibay_commands_total", &["status"]),
    ("infinibay_database_up", &[]),
    ("infinibay_flush_rows_total", &[]),
    ("infinibay_flush_seconds", &["le"]),
    ("infinibay_guest_errors_lost_total", &["reason"]),
    ("infinibay_late_answers_total", &["result"]),
    ("infinibay_link_bytes_total", &[]),
    ("infinibay_link_frames_total", &[]),
    ("infinibay_link_lines_refused_total", &["reason"]),
    ("infinibay_libvirt_call_seconds", &["le"]),
    ("infinibay_links_evicted_total", &[]),
    ("infinibay_links_open", &[]),
    ("infinibay_pass_seconds", &["le"]),
    ("infinibay_readings_lost_total", &["reason"]),
    ("infinibay_readings_refused_total", &["reason"]),
    ("infinibay_readings_total", &[]),
    ("infinibay_readings_waiting", &[]),
    ("infinibay_refusals_total", &["code"]),
    ("infinibay_requests_refused_total", &["reason"]),
    ("infinibay_socketio_cut_total", &["reason"]),
    ("infinibay_socketio_events_total", &[]),
    ("infinibay_socketio_sockets", &[]),
    ("infinibay_spool_bytes", &[]),
    ("infinibay_spool_damaged_total", &["kind"]),
    ("infinibay_vm_frames_refused_total", &["vm", "reason"]),
    ("infinibay_vms", &["phase"]),
    ("process_cpu_seconds_total", &[]),
    ("process_max_fds", &[]),
    ("process_open_fds", &[]),
    ("process_resident_memory_bytes", &[]),
    ("process_start_time_seconds", &[]),
    ("process_virtual_memory_bytes", &[]),
];

const PER_VM: &str = "infinibay_vm_frames_refused_total";

/// What a guest says that is refused, and how it is counted: in Prometheus, and in the API.
const REFUSED: [(&str, &str, f64); 6] = [
    ("malformed", "malformed", 3.0),
    ("unknown_type", "unknownType", 2.0),
    ("wrong_shape", "wrongShape", 1.0),
    ("reading_shape", "refusedShape", 1.0),
    ("reading_range", "refusedRange", 2.0),
    ("reading_skew", "refusedSkew", 1.0),
];

fn rubbish() -> Vec<u8> {
    let reading = |timestamp: &str, system: Value| {
        json!({ "type": "metrics", "timestamp": timestamp, "data": { "system": system } }).to_string()
    };
    let now = support::guest::now();
    let memory = json!({ "total_kb": 1000, "used_kb": 400, "available_kb": 600 });
    let lines = [
        "no JSON".to_owned(),
        "[1]".to_owned(),
        "{]".to_owned(),
        // What a guest calls itself or its messages must not become a label.
        r#"{"type":"evil\"} 1\ninjected{x=\"y"}"#.to_owned(),
        r#"{"type":"later"}"#.to_owned(),
        r#"{"type":"metrics"}"#.to_owned(),
        reading(&now, json!({ "cpu": { "usage_percent": 5.0 } })),
        reading(&now, json!({ "cpu": { "usage_percent": 150.0 }, "memory": memory })),
        reading(
            &now,
            json!({ "cpu": { "usage_percent": 5.0 }, "memory": { "total_kb": 1000, "used_kb": 4000 } }),
        ),
        reading("2020-01-01T00:00:00Z", json!({ "cpu": { "usage_percent": 5.0 }, "memory": memory })),
    ];
    format!("{}\n", lines.join("\n")).into_bytes()
}

struct Door {
    http: reqwest::Client,
    url: String,
}

impl Door {
    fn of(trial: &Trial) -> Self {
        Self { http: reqwest::Client::new(), url: format!("{}/metrics", trial.daemon.url) }
    }

    async fn get(&self, authorization: Option<&str>) -> reqwest::Response {
        let mut request = self.http.get(&self.url);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        request.send().await.unwrap()
    }

    async fn refused(&self, authorization: Option<&str>) -> (u16, String) {
        let answer = self.get(authorization).await;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        (status, body["errors"][0]["extensions"]["code"].as_str().unwrap_or_default().to_owned())
    }

    async fn scrape(&self, token: &str) -> Scrape {
        let answer = self.get(Some(&format!("Bearer {token}"))).await;
        assert_eq!(answer.status().as_u16(), 200);
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(header("cache-control"), "no-store");
        Scrape::read(&answer.text().await.unwrap())
    }

    /// Scrapes until it shows what is waited for.
    async fn until(&self, token: &str, what: &str, seen: impl Fn(&Scrape) -> bool) -> Scrape {
        let deadline = Instant::now() + SOON;
        loop {
            let scrape = self.scrape(token).await;
            if seen(&scrape) {
                return scrape;
            }
            assert!(Instant::now() < deadline, "not within {SOON:?}: {what}: {scrape:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn vms_with_lines(scrape: &Scrape) -> BTreeSet<&str> {
    let family = scrape.0.get(PER_VM).into_iter();
    family.flat_map(|family| &family.samples).map(|sample| sample.labels["vm"].as_str()).collect()
}

on_both! {
    async fn only_admins_may_scrape(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let somebody = trial.home.between(&mut trial.daemon, |home| home.user("somebody", &["--permission", "unsafe_commands"]));
        let door = Door::of(&trial);
        let unknown = format!("Bearer ibt_{}", "0".repeat(64));
        let basic = format!("Basic {}", trial.token);
        for stranger in [None, Some(""), Some("Bearer nonsense"), Some(&*unknown), Some(&*basic)] {
            assert_eq!(door.refused(stranger).await, (401, "UNAUTHENTICATED".to_owned()), "{stranger:?}");
        }
        let answer = door.get(None).await;
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        let known = format!("Bearer {somebody}");
        assert_eq!(door.refused(Some(&known)).await, (403, "FORBIDDEN".to_owned()));
        door.scrape(&trial.token).await;
    }

    async fn what_a_guest_sends_is_counted_and_bounded(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (client, door) = (&trial.client, Door::of(&trial));
        let (good, bad) = (VmId::generate(), VmId::generate());
        let dir = trial.home.socket_dir();
        let _good_guest = FakeGuest::listen(&dir, good, |s, r| well_behaved(s, r, 1, Vec::new()));
        let bad_guest = FakeGuest::listen(&dir, bad, |s, r| well_behaved(s, r, 1, rubbish()));
        for (id, name) in [(good, "good"), (bad, "bad")] {
            let mut request = trial.request(name);
            request["id"] = json!(id.to_string());
            let (_, operation) = client.create(request).await;
            client.succeeded(&operation, SOON).await;
            client.agent_is(&id.to_string(), "ONLINE", SOON).await;
        }
        let bad_vm = bad.to_string();
        let scrape = door.until(&trial.token, "everything is counted", |scrape| {
            REFUSED.iter().all(|(reason, _, count)| {
                scrape.value(PER_VM, &[("vm", &bad_vm), ("reason", reason)]).is_some_and(|told| told >= *count)
            }) && scrape.value("infinibay_agents", &[("connectivity", "ONLINE")]) == Some(2.0)
        }).await;

        // The guest with the rubbish has its lines, the other has none, and nothing of what was
        // said stands in any label.
        assert_eq!(vms_with_lines(&scrape), BTreeSet::from([bad_vm.as_str()]));
        let reasons: BTreeSet<_> = scrape.0[PER_VM].samples.iter().map(|sample| sample.labels["reason"].as_str()).collect();
        assert_eq!(reasons, REFUSED.iter().map(|(reason, ..)| *reason).collect::<BTreeSet<_>>());
        let query = "query($id: UUID!) { vm(id: $id) { agent { counters {
            malformed unknownType wrongShape refusedShape refusedRange refusedSkew } } } }";
        let data = client.ask(query, json!({ "id": bad_vm })).await;
        for (reason, field, count) in REFUSED {
            let told = scrape.value(PER_VM, &[("vm", &bad_vm), ("reason", reason)]);
            assert_eq!(told, Some(count), "{reason}");
            assert_eq!(data["vm"]["agent"]["counters"][field], format!("{count}"), "{field}: {data}");
        }

        assert_eq!(scrape.value("infinibay_vms", &[("phase", "RUNNING")]), Some(2.0));
        assert_eq!(scrape.value("infinibay_vms", &[("phase", "FAILED")]), Some(0.0));
        assert_eq!(scrape.value("infinibay_database_up", &[]), Some(1.0));
        assert_eq!(scrape.value("infinibay_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
        assert!(scrape.value("process_resident_memory_bytes", &[]).unwrap() > 1e6);
        assert!(scrape.value("process_open_fds", &[]).unwrap() > 3.0);
        let started = scrape.value("process_start_time_seconds", &[]).unwrap();
        #[expect(clippy::cast_precision_loss, reason = "seconds fit into a float")]
        let age = chrono::Utc::now().timestamp() as f64 - started;
        assert!((0.0..300.0).contains(&age), "{age}");

        // Bounded: known figures, known labels, some words each.
        for (name, family) in &scrape.0 {
            let known = KNOWN.iter().find(|(known, _)| known == name);
            let (_, labels) = known.unwrap_or_else(|| panic!("{name} is not known"));
            for label in family.samples.iter().flat_map(|sample| sample.labels.keys()) {
                assert!(labels.contains(&label.as_str()), "{name} has the label {label}");
            }
        }
        assert!(scrape.series() < 200, "{} series", scrape.series());

        // A guest that went away and comes back is still the same one.
        drop(bad_guest);
        client.agent_is(&bad_vm, "OFFLINE", SOON).await;
        let scrape = door.scrape(&trial.token).await;
        assert_eq!(scrape.value(PER_VM, &[("vm", &bad_vm), ("reason", "malformed")]), Some(3.0));

        let delete = client.change("deleteVm", &bad_vm).await;
        client.succeeded(&delete, SOON).await;
        let scrape = door.until(&trial.token, "nothing is left of the deleted VM", |scrape| vms_with_lines(scrape).is_empty()
            && scrape.value("infinibay_vms", &[("phase", "RUNNING")]) == Some(1.0)).await;
        assert!(!scrape.0.contains_key(PER_VM), "a figure without a line");
    }
}

//! Alerts reach their receiver: signed, again when they must, not oftener than they may, whatever
//! the receiver does.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use infinibay::{
    access::Audience,
    alerts::{Alerts, Timing},
    config::AlertsConfig,
    events::EventBus,
    store::{AlertChanges, AlertSearch, NewAlert, NewVm, Page, Store, Told, VmErrorRecord},
    vm::{
        AgentConnectivity, Alert, AlertKind, AlertSeverity, DeliveryState, HostId, LossCounts, LossReason,
        OperationId, UserId, VmEvent, VmId, VmPhase, VmStatus,
    },
};
use serde_json::{Value, json};
use support::{
    database::TestDatabase,
    guest::{DEADLINE, eventually},
    sample::{create, new_vm, now},
    webhook::{Mood, Receiver, SECRET, quiet_address},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A host with its store; alerts are told between `begin` and `stop`.
struct Host {
    id: HostId,
    store: Store,
    events: EventBus,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

/// Everything soon, but for repetitions.
fn config(url: &str) -> AlertsConfig {
    AlertsConfig {
        webhook_url: Some(url.into()),
        webhook_secret: Some(SECRET.into()),
        webhook_timeout: Duration::from_secs(5),
        max_per_minute: 6000,
        repeat_after: Duration::from_secs(3600),
        give_up_after: Duration::from_secs(3600),
        offline_for: Duration::from_millis(100),
    }
}

fn timing() -> Timing {
    Timing {
        look: Duration::from_millis(50),
        look_soon: Duration::from_millis(10),
        poll: Duration::from_millis(20),
        retry_base: Duration::from_millis(50),
        retry_max: Duration::from_millis(200),
    }
}

impl Host {
    async fn new(db: &TestDatabase) -> Self {
        Self { id: HostId::generate(), store: db.store().await, events: EventBus::default(), running: None }
    }

    fn begin(&mut self, config: AlertsConfig) {
        self.begin_timed(config, timing(), LossCounts::default());
    }

    fn begin_timed(&mut self, config: AlertsConfig, timing: Timing, lost: LossCounts) {
        let (store, events) = (self.store.clone(), self.events.clone());
        let alerts = Alerts::new(self.id, config, store, events, Arc::new(move || lost)).unwrap();
        let stop = CancellationToken::new();
        self.running = Some((stop.clone(), tokio::spawn(alerts.timed(timing).run(stop))));
    }

    async fn stop(&mut self) {
        let (stop, task) = self.running.take().expect("it runs");
        stop.cancel();
        tokio::time::timeout(DEADLINE, task).await.expect("it stops in time").expect("without panic");
    }

    async fn vm(&self, name: &str) -> NewVm {
        let vm = new_vm(self.id, UserId::generate(), name);
        create(&self.store, &vm).await;
        vm
    }

    /// As the loop would: stored, then told.
    async fn is(&self, vm: VmId, phase: VmPhase, agent: AgentConnectivity) {
        let status = VmStatus { phase, agent, last_seen: None, agent_version: None, conditions: Vec::new() };
        self.store.save_status(vm, &status).await.unwrap();
        self.events.publish(VmEvent::Status { vm, status: Arc::new(status), at: Utc::now() });
    }

    async fn error(&self, vm: VmId, error: &str) {
        let record = VmErrorRecord {
            id: Uuid::now_v7(),
            vm,
            error: error.to_owned(),
            details: json!({ "component": "disk" }),
            timestamp: now(),
            created_at: now(),
        };
        self.store.insert_vm_error(&record).await.unwrap();
        // A flush that is tried again stores and counts it once.
        self.store.insert_vm_error(&record).await.unwrap();
    }

    /// Oldest first.
    async fn alerts(&self) -> Vec<Alert> {
        let mut alerts = self
            .store
            .alerts(Audience::Everybody, &AlertSearch::default(), Page { first: 1000, after: None })
            .await
            .unwrap()
            .nodes;
        alerts.reverse();
        alerts
    }

    async fn until(&self, what: &str, mut fits: impl FnMut(&[Alert]) -> bool) -> Vec<Alert> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let alerts = self.alerts().await;
            if fits(&alerts) {
                return alerts;
            }
            assert!(tokio::time::Instant::now() < deadline, "not within {DEADLINE:?}: {what}: {alerts:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn told(message: &str, kind: &str, count: u64) -> (String, String, u64) {
    (format!("alert.{message}"), kind.to_owned(), count)
}

on_both! {
    async fn a_condition_is_told_when_it_begins_goes_on_and_ends(db: TestDatabase) {
        let (mut host, receiver) = (Host::new(&db).await, Receiver::new().await);
        let vm = host.vm("web").await;
        host.begin(AlertsConfig { repeat_after: Duration::from_millis(300), ..config(&receiver.url()) });
        host.is(vm.id, VmPhase::Crashed, AgentConnectivity::Offline).await;
        let fired = receiver.receives("alert.firing", "vm_offline").await;
        let data = &fired["data"];
        assert_eq!(data["vm"], json!({ "id": vm.id.to_string(), "name": "web" }));
        assert_eq!((&data["severity"], &data["host"]), (&json!("critical"), &json!(host.id.to_string())));
        assert_eq!((&data["summary"], &data["resolvedAt"]), (&json!("web crashed."), &Value::Null));
        assert_eq!(data["details"]["phase"], "CRASHED");
        receiver.receives("alert.repeated", "vm_offline").await;

        host.is(vm.id, VmPhase::Running, AgentConnectivity::Online).await;
        let ended = receiver.receives("alert.resolved", "vm_offline").await;
        assert!(ended["data"]["resolvedAt"].is_string(), "{ended}");
        let told = receiver.told();
        let (first, last) = (&told.first().unwrap().0, &told.last().unwrap().0);
        assert_eq!((first.as_str(), last.as_str()), ("alert.firing", "alert.resolved"));
        let alerts = host.until("all is told", |alerts| alerts[0].delivery.next_attempt_at.is_none()).await;
        assert_eq!((alerts.len(), alerts[0].delivery.state), (1, DeliveryState::Delivered));
        assert_eq!(usize::try_from(alerts[0].delivery.notified).unwrap(), told.len());
        host.stop().await;
    }

    async fn what_a_receiver_missed_arrives_when_it_is_back_in_order(db: TestDatabase) {
        let mut host = Host::new(&db).await;
        let vm = host.vm("web").await;
        let address = quiet_address().await;
        host.begin(config(&format!("http://{address}/hook?token=hunter2")));
        host.is(vm.id, VmPhase::Missing, AgentConnectivity::Offline).await;
        let alerts = host.until("three attempts", |alerts| {
            alerts.first().is_some_and(|alert| alert.delivery.attempts >= 3)
        }).await;
        let error = alerts[0].delivery.last_error.as_deref().unwrap();
        assert_eq!(error, "connect", "nothing of the URL");
        // It is over before anybody was told that it began.
        host.is(vm.id, VmPhase::Stopped, AgentConnectivity::Offline).await;
        host.until("the end", |alerts| alerts[0].resolved_at.is_some()).await;

        let receiver = Receiver::on(address).await;
        receiver.receives("alert.resolved", "vm_offline").await;
        assert_eq!(receiver.told(), [told("firing", "vm_offline", 1), told("resolved", "vm_offline", 1)]);
        host.stop().await;
    }

    async fn a_message_keeps_its_id_until_it_is_taken(db: TestDatabase) {
        let (mut host, receiver) = (Host::new(&db).await, Receiver::new().await);
        let vm = host.vm("web").await;
        receiver.mood(Mood::Answers(500));
        host.error(vm.id, "disk full").await;
        host.begin(config(&receiver.url()));
        eventually("some attempts", || (receiver.deliveries().len() >= 3).then_some(())).await;
        receiver.mood(Mood::Redirects);
        let before = receiver.deliveries().len();
        eventually("a redirect", || (receiver.deliveries().len() > before + 1).then_some(())).await;
        receiver.mood(Mood::Answers(200));
        host.until("the delivery", |alerts| alerts[0].delivery.state == DeliveryState::Delivered).await;
        assert_eq!(receiver.told(), [told("firing", "guest_error", 1)]);
        host.stop().await;
    }

    async fn the_same_error_many_times_is_one_message_with_a_count(db: TestDatabase) {
        let (mut host, receiver) = (Host::new(&db).await, Receiver::new().await);
        let vm = host.vm("web").await;
        for n in 0..500 {
            host.error(vm.id, &format!("block {n} of sda is unreadable")).await;
        }
        host.begin(config(&receiver.url()));
        receiver.receives("alert.firing", "guest_error").await;
        for n in 0..7 {
            host.error(vm.id, &format!("block {n} of sda is unreadable")).await;
        }
        host.error(vm.id, "another").await;
        eventually("the other", || (receiver.told().len() > 1).then_some(())).await;
        assert_eq!(receiver.told(), [told("firing", "guest_error", 500), told("firing", "guest_error", 1)]);
        host.stop().await;

        // Those after the first message are told when it may be repeated; then quiet closes both.
        host.begin(AlertsConfig { repeat_after: Duration::from_millis(1), ..config(&receiver.url()) });
        db.tamper(
            "UPDATE alerts SET next_attempt_at = last_at",
            "UPDATE alerts SET next_attempt_at = last_at",
        ).await;
        receiver.receives("alert.repeated", "guest_error").await;
        host.until("quiet", |alerts| alerts.iter().all(|alert| alert.resolved_at.is_some())).await;
        assert_eq!(receiver.told()[2..], [told("repeated", "guest_error", 507)]);

        host.error(vm.id, "another").await;
        eventually("the next", || (receiver.told().len() > 3).then_some(())).await;
        assert_eq!(receiver.told()[3..], [told("firing", "guest_error", 1)], "after quiet, it is news");
        host.stop().await;
    }

    async fn a_flood_of_different_errors_stays_within_bounds_and_delays_nobody(db: TestDatabase) {
        let (mut host, receiver) = (Host::new(&db).await, Receiver::new().await);
        let (loud, calm) = (host.vm("loud").await, host.vm("calm").await);
        let letters = |n: u32| n.to_string().chars().map(|c| char::from(b'a' + u8::try_from(c).unwrap() - b'0')).collect::<String>();
        for n in 0..300 {
            host.error(loud.id, &format!("{} \u{1b}[31m{}", letters(n), "x".repeat(3000))).await;
        }
        host.error(calm.id, "disk full").await;
        host.begin(AlertsConfig { max_per_minute: 2, ..config(&receiver.url()) });
        eventually("two messages", || (receiver.deliveries().len() == 2).then_some(())).await;
        let mut names: Vec<_> = receiver.deliveries().iter().map(|m| m["data"]["vm"]["name"].clone()).collect();
        names.sort_by_key(ToString::to_string);
        assert_eq!(names, ["calm", "loud"]);

        let alerts = host.alerts().await;
        let of_loud: Vec<_> = alerts.iter().filter(|alert| alert.vm == Some(loud.id)).collect();
        assert_eq!(of_loud.len(), 21);
        assert_eq!(of_loud.iter().map(|alert| alert.count).sum::<i64>(), 300);
        assert_eq!(of_loud.last().unwrap().count, 280, "the others are counted together");
        assert!(of_loud.iter().all(|alert| alert.summary.len() < 1000 && !alert.summary.contains('\u{1b}')));
        assert!(of_loud.iter().all(|alert| alert.severity == AlertSeverity::Warning));
        host.stop().await;
    }

    async fn more_than_allowed_waits_in_the_table(db: TestDatabase) {
        let (mut host, receiver) = (Host::new(&db).await, Receiver::new().await);
        for n in 0..8 {
            let vm = host.vm(&format!("vm-{n}")).await;
            host.error(vm.id, "disk full").await;
        }
        host.begin(AlertsConfig { max_per_minute: 3, ..config(&receiver.url()) });
        let state = |alerts: &[Alert], state| alerts.iter().filter(|a| a.delivery.state == state).count();
        host.until("three", |alerts| state(alerts, DeliveryState::Delivered) == 3).await;
        // Twenty looks into the outbox later, the others still wait.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let alerts = host.alerts().await;
        assert_eq!(
            (state(&alerts, DeliveryState::Delivered), state(&alerts, DeliveryState::Pending)),
            (3, 5)
        );
        assert_eq!(receiver.deliveries().len(), 3);
        host.stop().await;
    }

    async fn a_slow_receiver_holds_up_no_look_and_gets_four_at_once(db: TestDatabase) {
        let (mut host, receiver) = (Host::new(&db).await, Receiver::new().await);
        receiver.mood(Mood::Slow(Duration::from_secs(60)));
        for n in 0..6 {
            let vm = host.vm(&format!("vm-{n}")).await;
            host.error(vm.id, "disk full").await;
        }
        let late = host.vm("late").await;
        host.begin(AlertsConfig { webhook_timeout: Duration::from_secs(60), ..config(&receiver.url()) });
        eventually("four under way", || (receiver.most_under_way() == 4).then_some(())).await;
        host.is(late.id, VmPhase::Crashed, AgentConnectivity::Offline).await;
        host.until("the late one", |alerts| alerts.iter().any(|a| a.kind == AlertKind::VmOffline)).await;
        assert_eq!(receiver.most_under_way(), 4);
        // What is under way does not hold up the stop, and is sent again, with its id.
        host.stop().await;
        receiver.mood(Mood::Answers(200));
        host.begin(config(&receiver.url()));
        host.until("all", |alerts| alerts.iter().all(|a| a.delivery.state == DeliveryState::Delivered)).await;
        assert_eq!((receiver.told().len(), receiver.deliveries().len()), (7, 11));
        host.stop().await;
    }

    async fn a_receiver_that_is_gone_or_busy_is_left_alone(db: TestDatabase) {
        let (mut host, receiver) = (Host::new(&db).await, Receiver::new().await);
        let vm = host.vm("web").await;
        receiver.mood(Mood::Busy(600));
        host.error(vm.id, "disk full").await;
        host.begin_timed(
            config(&receiver.url()),
            Timing { retry_max: Duration::from_secs(30), ..timing() },
            LossCounts::default(),
        );
        let alerts = host.until("an attempt", |alerts| alerts[0].delivery.attempts == 1).await;
        let wait = (alerts[0].delivery.next_attempt_at.unwrap() - Utc::now()).num_seconds();
        assert!((25..=30).contains(&wait), "{wait} s are not what it asked for, within our bound");

        receiver.mood(Mood::Answers(410));
        host.error(vm.id, "another").await;
        let alerts = host.until("410", |alerts| alerts[1].delivery.state == DeliveryState::Failed).await;
        assert_eq!(alerts[1].delivery.attempts, 1);
        assert_eq!(receiver.deliveries().len(), 2);
        host.stop().await;
    }

    async fn what_fails_for_too_long_is_given_up(db: TestDatabase) {
        let (mut host, receiver) = (Host::new(&db).await, Receiver::new().await);
        let vm = host.vm("web").await;
        receiver.mood(Mood::Answers(500));
        host.error(vm.id, "disk full").await;
        host.begin(AlertsConfig { give_up_after: Duration::from_millis(400), ..config(&receiver.url()) });
        let alerts = host.until("the end", |alerts| alerts[0].delivery.state == DeliveryState::Failed).await;
        let delivery = &alerts[0].delivery;
        assert!(delivery.attempts > 1, "{delivery:?}");
        assert!(delivery.last_error.as_deref() == Some("status 500"), "{delivery:?}");
        // It may go on, and then somebody should know.
        assert!(delivery.next_attempt_at.unwrap() > Utc::now());
        host.stop().await;
    }

    async fn what_got_worse_while_it_was_told_is_told_again_at_once(db: TestDatabase) {
        let host = Host::new(&db).await;
        let vm = host.vm("web").await;
        let is = |severity| NewAlert {
            kind: AlertKind::ClockSkew,
            vm: Some((vm.id, "web".to_owned())),
            severity,
            summary: "the clock is off".to_owned(),
            details: json!({}),
        };
        let change = async |changes: AlertChanges| {
            host.store.change_alerts(host.id, &changes, now()).await.unwrap();
        };
        let again = async |id, severity| {
            change(AlertChanges { again: vec![(id, is(severity))], ..AlertChanges::default() }).await;
        };
        let arrived = async |alert: &Alert| {
            let hour = Duration::from_secs(3600);
            host.store.note_told(alert, &Told::Delivered, now(), hour).await.unwrap();
            host.store.due_alerts(host.id, now()).await.unwrap().len()
        };
        change(AlertChanges { opened: vec![is(AlertSeverity::Warning)], ..AlertChanges::default() }).await;
        let under_way = host.alerts().await.remove(0);
        again(under_way.id, AlertSeverity::Critical).await;
        assert_eq!(arrived(&under_way).await, 1, "only the warning was told");
        let under_way = host.alerts().await.remove(0);
        assert_eq!(under_way.severity, AlertSeverity::Critical);
        again(under_way.id, AlertSeverity::Critical).await;
        assert_eq!(arrived(&under_way).await, 0, "it is as it was told");
    }

    async fn what_was_stored_and_not_told_before_a_crash_is_told_after_it(db: TestDatabase) {
        let (host, receiver) = (Host::new(&db).await, Receiver::new().await);
        let vm = host.vm("web").await;
        host.error(vm.id, "disk full").await;
        // Nothing is left but the database.
        let id = host.id;
        drop(host);
        let mut host = Host { id, ..Host::new(&db).await };
        host.begin(config(&receiver.url()));
        let fired = receiver.receives("alert.firing", "guest_error").await;
        assert_eq!((&fired["data"]["summary"], &fired["data"]["details"]["details"]["component"]), (&json!("disk full"), &json!("disk")));
        host.stop().await;
    }

    async fn lost_readings_are_the_hosts_alert_and_without_a_receiver_it_is_kept(db: TestDatabase) {
        let mut host = Host::new(&db).await;
        let nobody = AlertsConfig { webhook_url: None, ..config("http://unused") };
        let mut lost = LossCounts::default();
        lost.add(LossReason::SpoolDamaged, 42);
        host.begin_timed(nobody, timing(), lost);
        let alerts = host.until("it is over", |alerts| alerts.iter().any(|a| {
            a.resolved_at.is_some() && a.delivery.next_attempt_at.is_none()
        })).await;
        let [alert] = alerts.as_slice() else { panic!("{alerts:?}") };
        assert_eq!((alert.kind, alert.vm, alert.delivery.state), (AlertKind::ReadingsLost, None, DeliveryState::Suppressed));
        assert!(alert.summary.contains("42 (damaged on disk)"), "{alert:?}");
        assert_eq!(alert.details["byReason"], json!({ "spool_damaged": 42 }));
        assert_eq!(alert.delivery.notified, 2, "the log has its beginning and its end");
        assert_eq!(host.store.alerts(Audience::Of(UserId::generate()), &AlertSearch::default(), Page { first: 9, after: None }).await.unwrap().nodes.len(), 0);
        host.stop().await;
    }

    async fn old_alerts_expire_and_open_conditions_do_not(db: TestDatabase) {
        let mut host = Host::new(&db).await;
        let (vm, gone) = (host.vm("web").await, host.vm("gone").await);
        host.error(vm.id, "disk full").await;
        host.begin(AlertsConfig { webhook_url: None, ..config("http://unused") });
        host.is(vm.id, VmPhase::Crashed, AgentConnectivity::Offline).await;
        host.is(gone.id, VmPhase::Crashed, AgentConnectivity::Offline).await;
        host.until("three alerts", |alerts| alerts.len() == 3).await;
        host.store.request_delete(gone.id, OperationId::generate(), gone.owner, now()).await.unwrap();
        host.store.finish_delete(gone.id, now()).await.unwrap();
        host.until("of a VM that is gone nothing is open", |alerts| {
            alerts.iter().any(|a| a.vm == Some(gone.id) && a.resolved_at.is_some())
        }).await;
        host.stop().await;
        for (owner, theirs) in [(vm.owner, 2), (gone.owner, 1), (UserId::generate(), 0)] {
            let seen = host.store.alerts(Audience::Of(owner), &AlertSearch::default(), Page { first: 9, after: None }).await.unwrap();
            assert_eq!(seen.nodes.len(), theirs, "an owner sees what is his, also of a VM that is gone");
        }
        let open = host.store.alerts(Audience::Everybody, &AlertSearch { open: Some(true), ..AlertSearch::default() }, Page { first: 1, after: None }).await.unwrap();
        assert_eq!((open.nodes.len(), open.has_next), (1, true));
        let next = Page { first: 9, after: Some(open.nodes[0].id) };
        assert_eq!(host.store.alerts(Audience::Everybody, &AlertSearch { open: Some(true), ..AlertSearch::default() }, next).await.unwrap().nodes.len(), 1);
        host.store.expire_history(now()).await.unwrap();
        let left: Vec<_> = host.alerts().await.iter().map(|alert| (alert.vm, alert.kind)).collect();
        assert_eq!(left, [(Some(vm.id), AlertKind::VmOffline)]);
    }
}

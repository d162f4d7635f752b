//! What one look at every VM costs when nothing has changed: the loop's whole pass, against the same
//! listing, statistics and SELECTs done bare on the same connection and the same database; and
//! whether the number of libvirt calls grows with the VMs.
//!
//! In one process, because the domains of libvirt's test driver live in it.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{path::Path, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use common::figures::{Figures, say};
use infinibay::{
    config::{AgentsConfig, HypervisorConfig, InstallsConfig, ReconcileConfig},
    domain_xml::{DomainInputs, DomainKind, Templates, render},
    events::EventBus,
    hypervisor::libvirt::LibvirtHypervisor,
    install::Recipes,
    reconcile::{
        HostFiles, HostStore, LoopLinks, Parts, Reconciler, Settings, SystemClock, SystemRandomness,
    },
    store::{NewVm, Store},
    vm::{
        FirstBoot, HostId, LinkCounters, LinkEnd, LinkObservation, LinkSeal, OpenLink, SealKey, UserId, VmId,
    },
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sqlx::{Row as _, SqlitePool};
use support::sample::spec;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use virt::{connect::Connect, domain::Domain};

const SIZES: [usize; 2] = [1_000, 10_000];
const ROUNDS: usize = 15;
const BOUND: f64 = 2.0;
const PATIENCE: Duration = Duration::from_secs(600);

/// Agents that were all heard when the bench began, and say nothing new.
struct Heard(DateTime<Utc>);

impl LoopLinks for Heard {
    fn open(&self, _vm: VmId, _path: &Path, _seal: Option<&SealKey>) {}

    fn close(&self, _vm: VmId, _end: LinkEnd) {}

    fn observe(&self, _vm: VmId) -> LinkObservation {
        LinkObservation::Open(OpenLink {
            since: self.0,
            last_message_at: Some(self.0),
            greeted_at: Some(self.0),
            version: Some("1.0.0".to_owned()),
            platform: Some("linux".to_owned()),
            capabilities: Vec::new(),
            reported_state: None,
            actions: None,
            skew: None,
            first_boot: FirstBoot::Finished { errors: Vec::new() },
            seal: LinkSeal::Unused,
            counters: LinkCounters::default(),
        })
    }

    fn request_metrics(&self, _vm: VmId) {}
}

#[tokio::main]
async fn main() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let passes = Passes { handle: recorder.handle() };
    metrics::set_global_recorder(recorder).unwrap();
    let mut figures = Figures::of("pass");
    let mut calls = Vec::new();
    for size in SIZES {
        calls.push(at(size, &passes, &mut figures).await);
    }
    let note = format!("{} calls at {} VMs, {} at {}", calls[0], SIZES[0], calls[1], SIZES[1]);
    #[expect(clippy::cast_precision_loss, reason = "some dozens")]
    let grown = calls[1] as f64 - calls[0] as f64;
    figures.at_most("pass_calls_grown", grown, "calls", 0.0, note);
    figures.tell();
}

/// Measures with so many VMs; gives the libvirt calls of one pass.
async fn at(size: usize, passes: &Passes, figures: &mut Figures) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bench.db");
    let host = HostId::generate();
    let store = Store::open(&format!("sqlite:{}", file.display()), 4, Duration::from_secs(10)).await.unwrap();
    store.migrate().await.unwrap();
    let pool = SqlitePool::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    // The test driver forgets its domains with its last connection.
    let conn = Connect::open(Some("test:///default")).unwrap();
    let domains = people(&store, &pool, &conn, host, dir.path(), size).await;

    let config = HypervisorConfig { uri: "test:///default".to_owned(), ..HypervisorConfig::default() };
    let hypervisor = Arc::new(LibvirtHypervisor::start(config));
    hypervisor.connected(Duration::from_secs(10)).await.unwrap();
    let (_links, link_hints) = mpsc::channel(1);
    let (_sockets, socket_hints) = mpsc::channel(1);
    let quiet = Duration::from_secs(3600);
    let (reconciler, waker) = Reconciler::new(Parts {
        hypervisor: hypervisor.clone(),
        store: Arc::new(HostStore::new(store.clone(), host)),
        links: Arc::new(Heard(infinibay::vm::truncate_to_micros(Utc::now()))),
        files: Arc::new(HostFiles::new(dir.path().to_owned(), None, "root", Recipes::load(None).unwrap())),
        clock: Arc::new(SystemClock),
        randomness: Arc::new(SystemRandomness),
        events: EventBus::default(),
        settings: Settings {
            seeds_dir: dir.path().to_owned(),
            discs_dir: dir.path().to_owned(),
            console_dir: dir.path().to_owned(),
            socket_dir: dir.path().to_owned(),
            templates: Templates::load(None).unwrap(),
        },
        config: ReconcileConfig {
            scan_interval: quiet,
            storage_interval: quiet,
            ..ReconcileConfig::default()
        },
        agents: AgentsConfig { liveness_interval: quiet, offline_after: quiet, ..AgentsConfig::default() },
        installs: InstallsConfig::default(),
        install_reports: false,
        link_hints,
        socket_hints,
    });
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let mut done = passes.done();
    let task = tokio::spawn(reconciler.run(stop.clone()));
    // The first passes read every XML and note what there is to note.
    passes.after(&mut done).await;
    passes.rest(&mut done).await;
    waker.wake_all();
    passes.after(&mut done).await;
    passes.rest(&mut done).await;
    say(format!("{size} VMs are known after {:.1?}", begun.elapsed()));

    let (mut bare, mut whole, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(look_bare(&conn, &pool, host, size).await);
        let before = hypervisor.libvirt_calls();
        waker.wake_all();
        whole.push(passes.after(&mut done).await);
        calls.push(hypervisor.libvirt_calls() - before);
    }
    let running = sqlx::query("SELECT count(*) FROM vms WHERE status LIKE '%RUNNING%ONLINE%'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(running.get::<i64, _>(0), i64::try_from(size).unwrap(), "not every VM is as it was made");
    say(format!("calls {calls:?}, passes {whole:.0?}"));
    let (bare, whole) = (common::quantile(&mut bare, 0.5), common::quantile(&mut whole, 0.5));
    let note = format!(
        "{whole:.1} ms against {bare:.1} ms bare, medians of {ROUNDS} in turns; {:.1} µs per VM; SQLite",
        whole * 1e3 / f64::from(u32::try_from(size).unwrap())
    );
    figures.at_most(
        if size == SIZES[0] { "pass_1000" } else { "pass_10000" },
        whole / bare,
        "x",
        BOUND,
        note,
    );
    stop.cancel();
    task.await.unwrap();
    store.close().await;
    pool.close().await;
    for domain in domains {
        domain.destroy().unwrap();
        domain.undefine().unwrap();
    }
    *calls.iter().max().unwrap()
}

/// VMs that run and of which nothing is asked, in the store and at libvirt.
async fn people(
    store: &Store,
    pool: &SqlitePool,
    conn: &Connect,
    host: HostId,
    dir: &Path,
    size: usize,
) -> Vec<Domain> {
    let (templates, owner) = (Templates::load(None).unwrap(), UserId::generate());
    let mut domains = Vec::with_capacity(size);
    for index in 0..size {
        let vm = NewVm { id: VmId::generate(), host, owner, spec: spec(&format!("bench-{index}")) };
        support::sample::create(store, &vm).await;
        let inputs = DomainInputs {
            id: vm.id,
            spec: &vm.spec,
            kind: DomainKind::Test,
            disk_path: Path::new("/pool/disk.qcow2"),
            seed_path: None,
            socket_path: &dir.join(vm.id.socket_name()),
            console_log: None,
            installer: None,
        };
        let domain = conn.define_domain_xml(&render(&templates, &inputs).unwrap()).unwrap();
        domain.create().unwrap();
        domains.push(domain);
    }
    // What the loop would note one by one.
    for sql in [
        "UPDATE vms SET satisfied = 1, disk_created_at = created_at, seed_written_at = created_at,
             defined_at = created_at, first_started_at = created_at, first_seen_at = created_at,
             installed_at = created_at, seed_scrubbed_at = created_at",
        "UPDATE operations SET status = 'succeeded', finished_at = created_at",
    ] {
        sqlx::query(sql).execute(pool).await.unwrap();
    }
    domains
}

/// The same listing, statistics and SELECTs, and nothing made of them.
async fn look_bare(conn: &Connect, pool: &SqlitePool, host: HostId, size: usize) -> Duration {
    let begun = Instant::now();
    let conn = conn.clone();
    let seen = tokio::task::spawn_blocking(move || {
        let all = conn.list_all_domains(0).unwrap().len();
        let stats = conn.all_domain_stats(virt::sys::VIR_DOMAIN_STATS_STATE, 0).unwrap().len();
        let persistent = conn.list_all_domains(virt::sys::VIR_CONNECT_LIST_DOMAINS_PERSISTENT).unwrap().len();
        all.min(stats).min(persistent)
    })
    .await
    .unwrap();
    assert!(seen >= size, "only {seen} domains were listed");
    let mut rows = 0;
    for sql in [
        "SELECT * FROM vms WHERE host_id = $1",
        "SELECT * FROM operations WHERE finished_at IS NULL AND vm_id IN (SELECT id FROM vms WHERE host_id = $1)",
        "SELECT * FROM resources WHERE vm_id IN (SELECT id FROM vms WHERE host_id = $1)",
    ] {
        rows += sqlx::query(sql).bind(host.uuid()).fetch_all(pool).await.unwrap().len();
    }
    assert!(rows >= size, "only {rows} rows were read");
    begun.elapsed()
}

/// How the loop counts its passes.
struct Passes {
    handle: PrometheusHandle,
}

impl Passes {
    /// How many were made, and how long they took together.
    fn done(&self) -> (f64, f64) {
        let page = self.handle.render();
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name));
            line.map_or(0.0, |number| number.trim().parse().unwrap())
        };
        (value("infinibay_pass_seconds_count "), value("infinibay_pass_seconds_sum "))
    }

    /// Waits until no further one comes to its end for a while.
    async fn rest(&self, done: &mut (f64, f64)) {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = self.done();
            if now == *done {
                return;
            }
            *done = now;
        }
    }

    /// Waits for one more; gives how long it took.
    async fn after(&self, done: &mut (f64, f64)) -> Duration {
        let begun = Instant::now();
        loop {
            let now = self.done();
            if now.0 > done.0 {
                assert!(now.0 - done.0 < 1.5, "two passes were made at once");
                let took = now.1 - done.1;
                *done = now;
                return Duration::from_secs_f64(took);
            }
            assert!(begun.elapsed() < PATIENCE, "no pass comes to its end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

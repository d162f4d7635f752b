//! From a request to a running domain on real QEMU, against what a person does with virsh: make the
//! overlay, define and start the same domain. One at a time, and many at once.
//!
//! The guests have an empty disk: they halt where the firmware finds nothing to boot.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc, time::Duration};

use common::{
    figures::{Figures, say},
    quantile, sized,
};
use serde_json::json;
use support::{
    daemon::{Client, Home, Setup},
    host::{Pool, virsh},
    trial::{Blank, image},
};
use tokio::{process::Command, sync::Semaphore, task::JoinSet, time::Instant};
use uuid::Uuid;
use virt::connect::Connect;

const ROUNDS: usize = 9;
const ONE_BOUND: f64 = 1.3;
const MANY_BOUND: f64 = 0.7;
/// The daemon's own default for calls to libvirt at once.
const PARALLEL: usize = 8;
const PATIENCE: Duration = Duration::from_secs(900);

struct Ground {
    client: Client,
    pool: Pool,
    disk: PathBuf,
    /// The XML of a domain of ours, with words to be replaced for its name, UUID, disk and files.
    pattern: String,
    conn: Connect,
}

#[tokio::main]
async fn main() {
    let library = tempfile::tempdir().unwrap();
    std::fs::set_permissions(library.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    image(&library.path().join("blank"), &Blank::default());
    let home = Home::new(Setup {
        uri: "qemu:///system".into(),
        database_url: None,
        images_dir: library.path().to_owned(),
        base_dir: library.path().join("base"),
        env: vec![("INFINIBAY__LOG__FILTER".into(), "info".into())],
    });
    let pool = Pool::new(home.path());
    let token = home.admin();
    let daemon = home.start();
    let mut ground = Ground {
        client: daemon.client(&token),
        pool,
        disk: library.path().join("blank/disk.qcow2"),
        pattern: String::new(),
        conn: Connect::open(Some("qemu:///system")).unwrap(),
    };
    ground.pattern = learn(&ground).await;
    let ground = Arc::new(ground);
    let mut figures = Figures::of("creation");
    one(&ground, &mut figures).await;
    many(&ground, &mut figures).await;
    figures.tell();
}

/// Makes a VM, and takes its XML for what virsh will define.
async fn learn(ground: &Ground) -> String {
    let id = Uuid::now_v7();
    ours(&ground.client, id, &ground.pool.name).await;
    running(&ground.conn, &[id]).await;
    let xml = virsh(&["dumpxml", "--inactive", &id.to_string()]);
    let operation = ground.client.change("deleteVm", &id.to_string()).await;
    ground.client.succeeded(&operation, PATIENCE).await;
    xml.replace(&name(id), "@NAME@").replace(&id.to_string(), "@UUID@")
}

async fn one(ground: &Arc<Ground>, figures: &mut Figures) {
    let (mut ours_took, mut virsh_took) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let id = Uuid::now_v7();
        let begun = Instant::now();
        ours(&ground.client, id, &ground.pool.name).await;
        running(&ground.conn, &[id]).await;
        ours_took.push(begun.elapsed());
        gone(ground, &[id]).await;

        let id = Uuid::now_v7();
        let begun = Instant::now();
        by_virsh(ground, id).await;
        running(&ground.conn, &[id]).await;
        virsh_took.push(begun.elapsed());
        undone(ground, &[id]).await;
    }
    let (ours, virsh) = (quantile(&mut ours_took, 0.5), quantile(&mut virsh_took, 0.5));
    let note = format!(
        "{ours:.0} ms from request to running against {virsh:.0} ms, medians of {ROUNDS} in turns; SQLite"
    );
    figures.at_most("create_vs_virsh", ours / virsh, "x", ONE_BOUND, note);
}

async fn many(ground: &Arc<Ground>, figures: &mut Figures) {
    let count = sized("INFINIBAY_BENCH_CREATIONS", 100);
    let ids = || (0..count).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    let begun = Instant::now();
    let made = ids();
    at_once(ground, &made, |ground, id| async move { ours(&ground.client, id, &ground.pool.name).await })
        .await;
    running(&ground.conn, &made).await;
    let ours_took = begun.elapsed();
    gone(ground, &made).await;

    let begun = Instant::now();
    let made = ids();
    at_once(ground, &made, |ground, id| async move { by_virsh(&ground, id).await }).await;
    running(&ground.conn, &made).await;
    let virsh_took = begun.elapsed();
    undone(ground, &made).await;
    let note = format!(
        "{count} VMs of 64 MiB, {PARALLEL} at once: {ours_took:.1?} against {virsh_took:.1?} by virsh; SQLite"
    );
    let ratio = virsh_took.as_secs_f64() / ours_took.as_secs_f64();
    figures.at_least("create_many_vs_virsh", ratio, "x", MANY_BOUND, note);
}

async fn at_once<F: Future<Output = ()> + Send + 'static>(
    ground: &Arc<Ground>,
    ids: &[Uuid],
    make: impl Fn(Arc<Ground>, Uuid) -> F,
) {
    let turns = Arc::new(Semaphore::new(PARALLEL));
    let mut tasks = JoinSet::new();
    for &id in ids {
        let (turns, work) = (Arc::clone(&turns), make(Arc::clone(ground), id));
        tasks.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            work.await;
        });
    }
    tasks.join_all().await;
}

fn name(id: Uuid) -> String {
    format!("bench-{}", id.simple())
}

async fn ours(client: &Client, id: Uuid, pool: &str) {
    let request = json!({ "id": id, "name": name(id), "image": "blank", "vcpus": 1, "memoryMib": 64,
        "pool": pool, "network": "none" });
    client.create(request).await;
}

/// What a person does: overlay, domain, start.
async fn by_virsh(ground: &Ground, id: Uuid) {
    let volume = format!("infinibay-{id}.qcow2");
    let disk = format!(
        "<volume><name>{volume}</name><capacity>67108864</capacity><target><format type='qcow2'/></target>\
         <backingStore><path>{}</path><format type='qcow2'/></backingStore></volume>",
        ground.disk.display()
    );
    let xml = ground.pattern.replace("@NAME@", &name(id)).replace("@UUID@", &id.to_string());
    let dir = tempfile::tempdir().unwrap();
    let (disk_file, domain_file) = (dir.path().join("volume.xml"), dir.path().join("domain.xml"));
    std::fs::write(&disk_file, disk).unwrap();
    std::fs::write(&domain_file, xml).unwrap();
    run(&["vol-create", &ground.pool.name, disk_file.to_str().unwrap()]).await;
    run(&["define", domain_file.to_str().unwrap()]).await;
    run(&["start", &name(id)]).await;
}

async fn run(args: &[&str]) {
    let output =
        Command::new("virsh").args(["-q", "-c", "qemu:///system"]).args(args).output().await.unwrap();
    assert!(output.status.success(), "virsh {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until each of them runs, as libvirt sees it.
async fn running(conn: &Connect, ids: &[Uuid]) {
    let begun = Instant::now();
    for &id in ids {
        loop {
            let conn = conn.clone();
            let look = move || {
                conn.lookup_domain_by_uuid(id).is_ok_and(|domain| domain.is_active().unwrap_or(false))
            };
            if tokio::task::spawn_blocking(look).await.unwrap() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{id} does not run");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Deletes what we made and waits until nothing is left of it.
async fn gone(ground: &Arc<Ground>, ids: &[Uuid]) {
    let begun = Instant::now();
    let delete = |ground: Arc<Ground>, id: Uuid| async move {
        let operation = ground.client.change("deleteVm", &id.to_string()).await;
        ground.client.succeeded(&operation, PATIENCE).await;
    };
    at_once(ground, ids, delete).await;
    assert!(ground.pool.volumes().is_empty(), "left: {:?}", ground.pool.volumes());
    say(format!("{} VMs are deleted after {:.1?}", ids.len(), begun.elapsed()));
}

/// The same by virsh.
async fn undone(ground: &Arc<Ground>, ids: &[Uuid]) {
    at_once(ground, ids, |ground, id| async move {
        run(&["destroy", &name(id)]).await;
        run(&["undefine", &name(id)]).await;
        run(&["vol-delete", &format!("infinibay-{id}.qcow2"), "--pool", &ground.pool.name]).await;
    })
    .await;
}

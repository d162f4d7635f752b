//! A real daemon on libvirt's test driver and PostgreSQL, with VMs whose agents are a fleet.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

use super::{cluster::Cluster, figures::say};
use crate::support::{
    daemon::{Client, Daemon, Home, Setup},
    scrape::Scrape,
    trial::{Blank, image},
};

/// How long all VMs may take to be made and heard.
const PATIENCE: Duration = Duration::from_secs(900);

/// Requests at once while VMs are made.
const CALLERS: usize = 8;

/// Dropped from the top: the daemon goes before its home and its database.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) client: Client,
    pub(crate) token: String,
    pub(crate) home: Home,
    _library: tempfile::TempDir,
    pub(crate) cluster: Cluster,
}

impl Stage {
    /// Without a VM yet.
    pub(crate) async fn set(env: &[(&str, &str)]) -> Self {
        let cluster = Cluster::start();
        let url = cluster.database("infinibay").await;
        let library = tempfile::tempdir().unwrap();
        std::fs::set_permissions(library.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        image(&library.path().join("blank"), &Blank::default());
        let mut env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        env.push(("INFINIBAY__LOG__FILTER".to_owned(), "info".to_owned()));
        let home = Home::new(Setup {
            uri: "test:///default".into(),
            database_url: Some(url),
            images_dir: library.path().to_owned(),
            base_dir: library.path().join("base"),
            env,
        });
        let token = home.admin();
        let daemon = home.start();
        let client = daemon.client(&token);
        Self { daemon, client, token, home, _library: library, cluster }
    }

    /// Makes a VM of each id; their sockets should be there already.
    pub(crate) async fn create(&self, ids: &[Uuid]) {
        let begun = Instant::now();
        let ids = std::sync::Arc::new(ids.to_vec());
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (client, ids) = (self.client.clone(), std::sync::Arc::clone(&ids));
            callers.spawn(async move {
                for vm in ids.iter().skip(caller).step_by(CALLERS) {
                    let request = json!({ "id": vm, "name": format!("bench-{}", vm.simple()), "image": "blank", "vcpus": 1,
                        "memoryMib": 64, "pool": "default-pool", "network": "none" });
                    client.create(request).await;
                }
            });
        }
        callers.join_all().await;
        say(format!("{} VMs were asked for in {:.0?}", ids.len(), begun.elapsed()));
    }

    /// Waits until so many agents are online.
    pub(crate) async fn online(&self, count: usize) {
        let begun = Instant::now();
        loop {
            let online = self.connectivities().await.iter().filter(|c| *c == "ONLINE").count();
            if online >= count {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "only {online} of {count} agents are online");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        say(format!("{count} agents are online after {:.0?}", begun.elapsed()));
    }

    /// Waits until so many VMs run for the first time.
    pub(crate) async fn started(&self, count: usize) {
        let (begun, http) = (Instant::now(), reqwest::Client::new());
        loop {
            let request = http.get(format!("{}/metrics", self.daemon.url)).bearer_auth(&self.token).send();
            let page = Scrape::read(&request.await.unwrap().text().await.unwrap());
            let running = page.value("infinibay_vms", &[("phase", "INSTALLING")]).unwrap_or(0.0);
            #[expect(clippy::cast_precision_loss, reason = "some thousands")]
            if running >= count as f64 {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "only {running} of {count} VMs run");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        say(format!("{count} VMs run after {:.0?}", begun.elapsed()));
    }

    /// Waits until only so many connections to guests stand and no reading waits to be stored.
    pub(crate) async fn settled(&self, links: u32) {
        const PATIENCE: Duration = Duration::from_secs(120);
        let (begun, http) = (Instant::now(), reqwest::Client::new());
        loop {
            let request = http.get(format!("{}/metrics", self.daemon.url)).bearer_auth(&self.token).send();
            let page = Scrape::read(&request.await.unwrap().text().await.unwrap());
            // What nothing was ever measured of is not there yet.
            let gauge = |name| page.value(name, &[]).unwrap_or(0.0);
            let (open, waiting) = (gauge("infinibay_links_open"), gauge("infinibay_readings_waiting"));
            if open <= f64::from(links) && waiting <= 0.0 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{open} links are open, {waiting} readings wait");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn connectivities(&self) -> Vec<Value> {
        const PAGE: &str = "query($after: String) { vms(first: 100, after: $after) {
            nodes { agent { connectivity } } pageInfo { hasNextPage endCursor } } }";
        let (mut all, mut after) = (Vec::new(), Value::Null);
        loop {
            let mut page = self.client.ask(PAGE, json!({ "after": after })).await["vms"].take();
            let nodes = page["nodes"].as_array_mut().expect("a list");
            all.extend(nodes.iter_mut().map(|vm| vm["agent"]["connectivity"].take()));
            if page["pageInfo"]["hasNextPage"] != true {
                return all;
            }
            after = page["pageInfo"]["endCursor"].take();
        }
    }

    /// Runs an action in a VM through the API and gives how long that took; it must go well.
    pub(crate) async fn command(&self, vm: Uuid) -> Duration {
        const RUN: &str = "mutation($vm: UUID!) { executeVmCommand(vmId: $vm,
            command: { safe: { action: OS_INFO } }) { success } }";
        let begun = Instant::now();
        let answer = self.client.ask(RUN, json!({ "vm": vm })).await;
        let took = begun.elapsed();
        assert_eq!(answer["executeVmCommand"]["success"], true, "{answer}");
        took
    }
}

/// Ids for so many VMs, the same in every run.
pub(crate) fn ids(count: usize, seed: u64) -> Vec<Uuid> {
    let plan = fleet::Plan::of(fleet::Kind::WellBehaved, count, Duration::ZERO, seed);
    plan.guests.into_iter().map(|guest| guest.vm).collect()
}

//! A disk goes behind the controller's back: told with its name, told as over when it is put back; and
//! a VM without its disk can still be deleted. In this process, because the pools of libvirt's test
//! driver live in it.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use infinibay::{
    access::Role,
    config::{AgentsConfig, HypervisorConfig, InstallsConfig, ReconcileConfig},
    domain_xml::Templates,
    events::EventBus,
    hypervisor::libvirt::LibvirtHypervisor,
    install::Recipes,
    reconcile::{
        HostFiles, HostStore, LoopLinks, Parts, Reconciler, Settings, SystemClock, SystemRandomness, Waker,
    },
    store::{NewVm, Store, UserRecord},
    vm::{
        Condition, ConditionKind, ConditionStatus, HostId, LinkEnd, LinkObservation, OperationId,
        Provisioning, SealKey, Unattended, UserId, VmId, VmPhase, VmSpec,
    },
};
use support::sample;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use virt::{connect::Connect, storage_pool::StoragePool, storage_vol::StorageVol};

const SOON: Duration = Duration::from_secs(60);
const POOL: &str = "default-pool";

/// Nobody is heard.
struct Silence;

impl LoopLinks for Silence {
    fn open(&self, _vm: VmId, _path: &Path, _seal: Option<&SealKey>) {}

    fn close(&self, _vm: VmId, _end: LinkEnd) {}

    fn observe(&self, _vm: VmId) -> LinkObservation {
        LinkObservation::None
    }

    fn request_metrics(&self, _vm: VmId) {}
}

/// The loop on a store and the test driver, and a VM that runs.
struct Stage {
    store: Store,
    waker: Waker,
    vm: VmId,
    owner: UserId,
    pool: StoragePool,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    // Whatever has a connection keeps the driver's host.
    _conn: Connect,
    _ends: (mpsc::Sender<VmId>, mpsc::Sender<Option<VmId>>),
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn set(url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let conn = Connect::open(Some("test:///default")).unwrap();
        let pool = conn.lookup_storage_pool_by_name(POOL).unwrap();
        let store = Store::open(url, 4, Duration::from_secs(10)).await.unwrap();
        store.migrate().await.unwrap();
        let (host, vm) = (HostId::generate(), VmId::generate());
        let owner = UserId::generate();
        let user = UserRecord {
            id: owner,
            name: "ana".to_owned(),
            email: None,
            has_password: false,
            role: Role::Member,
            permissions: Vec::new(),
            disabled: false,
            created_at: sample::now(),
        };
        store.add_user(&user).await.unwrap();
        let mut spec = VmSpec {
            pool: POOL.parse().unwrap(),
            unattended: Unattended::default(),
            ..sample::spec("disks")
        };
        spec.image_mut().unwrap().provisioning = Provisioning::None;
        let new = NewVm { id: vm, host, owner, spec };
        sample::create(&store, &new).await;

        let config = HypervisorConfig { uri: "test:///default".to_owned(), ..HypervisorConfig::default() };
        let hypervisor = Arc::new(LibvirtHypervisor::start(config));
        hypervisor.connected(SOON).await.unwrap();
        let (links, link_hints) = mpsc::channel(1);
        let (sockets, socket_hints) = mpsc::channel(1);
        let at = dir.path().to_owned();
        let (reconciler, waker) = Reconciler::new(Parts {
            hypervisor,
            store: Arc::new(HostStore::new(store.clone(), host)),
            links: Arc::new(Silence),
            files: Arc::new(HostFiles::new(at.clone(), None, "root", Recipes::load(None).unwrap())),
            clock: Arc::new(SystemClock),
            randomness: Arc::new(SystemRandomness),
            events: EventBus::default(),
            settings: Settings {
                seeds_dir: at.clone(),
                discs_dir: at.join("discs"),
                console_dir: at.clone(),
                socket_dir: at,
                templates: Templates::load(None).unwrap(),
            },
            config: ReconcileConfig::default(),
            agents: AgentsConfig::default(),
            installs: InstallsConfig::default(),
            install_reports: false,
            link_hints,
            socket_hints,
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(reconciler.run(stop.clone()));
        let stage = Self {
            store,
            waker,
            vm,
            owner,
            pool,
            stop,
            task,
            _conn: conn,
            _ends: (links, sockets),
            _dir: dir,
        };
        stage.until("the VM to run", |stage| Box::pin(stage.runs())).await;
        stage
    }

    async fn runs(&self) -> bool {
        let view = self.store.vm(self.vm).await.unwrap();
        view.and_then(|view| view.status).is_some_and(|status| status.phase == VmPhase::Installing)
    }

    async fn told(&self) -> Option<Condition> {
        let status = self.store.vm(self.vm).await.unwrap()?.status?;
        status.conditions.into_iter().find(|condition| condition.kind == ConditionKind::DisksPresent)
    }

    async fn until(
        &self,
        what: &str,
        holds: impl for<'a> Fn(&'a Self) -> futures_util::future::BoxFuture<'a, bool>,
    ) {
        let deadline = Instant::now() + SOON;
        while !holds(self).await {
            let told = self.told().await;
            assert!(Instant::now() < deadline, "never came: {what}; told is {told:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_told(&self, status: ConditionStatus, reason: &'static str) -> Condition {
        self.waker.resync(self.vm).await;
        self.until(reason, |stage| {
            Box::pin(async move {
                stage.told().await.is_some_and(|told| told.status == status && told.reason == reason)
            })
        })
        .await;
        self.told().await.unwrap()
    }

    fn volume(&self) -> StorageVol {
        self.pool.lookup_storage_vol_by_name(&format!("infinibay-{}.qcow2", self.vm)).unwrap()
    }

    /// Has the VM deleted, and waits for its end.
    async fn end(self) {
        self.store.request_delete(self.vm, OperationId::generate(), self.owner, sample::now()).await.unwrap();
        self.waker.wake(self.vm);
        self.until("the end of the VM", |stage| {
            Box::pin(async move { stage.store.vm(stage.vm).await.unwrap().is_none() })
        })
        .await;
        self.stop.cancel();
        self.task.await.unwrap();
        let left = self.pool.list_all_volumes(0).unwrap();
        let mine = |volume: &StorageVol| volume.name().unwrap().contains(&self.vm.to_string());
        assert!(!left.iter().any(mine), "a volume is left");
        self.store.close().await;
    }
}

on_both! {
    async fn a_disk_that_somebody_removed_is_told_until_it_is_back(db: TestDatabase) {
        let stage = Stage::set(&db.url).await;
        assert_eq!(stage.told().await, None, "nothing is wrong yet");
        let volume = stage.volume();
        let xml = volume.xml_desc(0).unwrap();

        volume.delete(0).unwrap();
        let told = stage.until_told(ConditionStatus::False, "DiskMissing").await;
        for word in [POOL, &format!("infinibay-{}.qcow2", stage.vm), "resync"] {
            assert!(told.message.contains(word), "{word} is not in {:?}", told.message);
        }
        // A pool that is off knows no volumes, and says nothing of them.
        stage.pool.destroy().unwrap();
        let told = stage.until_told(ConditionStatus::Unknown, "PoolSilent").await;
        assert!(told.message.contains("pool-start"), "{:?}", told.message);
        assert!(!stage.pool.is_active().unwrap(), "a look started a pool");
        stage.pool.create(0).unwrap();

        StorageVol::create_xml(&stage.pool, &xml, 0).unwrap();
        stage.until_told(ConditionStatus::True, "Usable").await;
        stage.end().await;
    }

    async fn a_vm_without_its_disk_is_deleted_like_others(db: TestDatabase) {
        let stage = Stage::set(&db.url).await;
        stage.volume().delete(0).unwrap();
        stage.until_told(ConditionStatus::False, "DiskMissing").await;
        stage.end().await;
    }
}

//! The loop on the system's QEMU with a pretended installer: a kernel and an initial RAM disk out of a
//! disc that is made here. It asks a question that nobody answers, is found to be stuck, goes on all the
//! same and boots anew; then the domain boots from its disk, and nothing of the installer is left.
//! Debian's own installer has a story of its own.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the test")]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use infinibay::{
    agents::Links,
    config::{AgentsConfig, HypervisorConfig, InstallsConfig, ReconcileConfig},
    domain_xml::Templates,
    events::EventBus,
    hypervisor::libvirt::LibvirtHypervisor,
    install::{Recipes, SeedFile, build_medium},
    reconcile::{HostFiles, HostStore, Parts, Reconciler, Settings, SystemClock, SystemRandomness, Waker},
    store::{NewVm, Store, VmBundle},
    vm::{
        Base, ConditionKind, Disc, FirstBootSecret, HostId, InstallFamily, Installation, InstallerKernel,
        NetworkAttachment, Operation, OperationStatus, UserId, VmId, VmPhase, VmSpec,
    },
};
use support::{
    host::{DomainGuard, Pool, files_in, virsh},
    pretended, sample,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// A machine in software beside others: what takes seconds may take minutes.
const PATIENCE: Duration = Duration::from_secs(400);
const STALL: Duration = Duration::from_secs(25);

/// Asks until nobody expects it any more. Every file it needs is in its RAM disk.
const INIT: &str = "#!/bin/busybox sh
[ -e /preseed.cfg ] && echo 'the answers are here'
n=0
while [ $n -lt 90 ]; do
    printf '\\033[2J\\033[5;10HIs anybody there?\\033[7;10H<Yes>\\033[7;30H<No>\\033[24;1H'
    printf '\\033[H[installer][%s]\\033[19B' \"$(/bin/busybox date +%T)\"
    /bin/busybox sleep 1
    n=$((n+1))
done
echo 'going on'
/bin/busybox reboot -f
";

/// A disc with the kernel of the guest of tests, and that.
fn disc(dir: &Path) -> PathBuf {
    let file = |path: &str, contents| SeedFile { path: path.to_owned(), contents };
    let files = [
        file("install/vmlinuz", pretended::kernel()),
        file("install/initrd.gz", pretended::initrd(dir, INIT)),
    ];
    let path = dir.join("disc.iso");
    fs::write(&path, build_medium("PRETENDED", &files).unwrap()).unwrap();
    path
}

struct Bench {
    store: Store,
    host: HostId,
    dir: tempfile::TempDir,
    pool: Pool,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("install-").tempdir().unwrap();
        // QEMU's user passes through, and makes its sockets.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        for (name, mode) in [("seeds", 0o711), ("console", 0o711), ("sockets", 0o777)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let url = format!("sqlite:{}", dir.path().join("test.db").display());
        let store = Store::open(&url, 4, Duration::from_secs(30)).await.unwrap();
        store.migrate().await.unwrap();
        let pool = Pool::new(dir.path());
        Self { store, host: HostId::generate(), dir, pool }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn ask(&self) -> (VmId, Operation) {
        let name = format!("install-{}", std::process::id());
        let installation = Installation {
            disc: Disc { medium: "pretended".parse().unwrap(), path: disc(self.dir.path()) },
            family: InstallFamily::Debian,
            label: None,
            kernel: Some(InstallerKernel {
                kernel: "install/vmlinuz".to_owned(),
                initrd: "install/initrd.gz".to_owned(),
            }),
            drivers: None,
            mirror: None,
            edition: None,
            medium_language: None,
            agent: false,
            token: Some(FirstBootSecret::new("hunter2".to_owned())),
        };
        let spec = VmSpec {
            base: Base::Installation(Box::new(installation)),
            vcpus: 1,
            memory_mib: 256,
            disk_bytes: 64 << 20,
            pool: self.pool.name.parse().unwrap(),
            network: NetworkAttachment::None,
            ..sample::spec(&name)
        };
        sample::medium(&self.store, self.host, "pretended").await;
        let vm = NewVm { id: VmId::generate(), host: self.host, owner: UserId::generate(), spec };
        let (_, operation) = sample::create(&self.store, &vm).await;
        (vm.id, operation)
    }

    /// The loop; no report can come.
    async fn run(&self, stop: CancellationToken) -> Waker {
        let hypervisor = Arc::new(LibvirtHypervisor::start(HypervisorConfig::default()));
        hypervisor.connected(Duration::from_secs(30)).await.unwrap();
        let agents = AgentsConfig { socket_dir: self.at("sockets"), ..AgentsConfig::default() };
        let (links, inbox) = Links::new(agents.clone());
        let (_, socket_hints) = mpsc::channel(1);
        let recipes = Recipes::load(None).unwrap();
        let (reconciler, waker) = Reconciler::new(Parts {
            hypervisor,
            store: Arc::new(HostStore::new(self.store.clone(), self.host)),
            links: Arc::new(links),
            files: Arc::new(HostFiles::new(self.at("base"), None, "libvirt-qemu", recipes)),
            clock: Arc::new(SystemClock),
            randomness: Arc::new(SystemRandomness),
            events: EventBus::default(),
            settings: Settings {
                seeds_dir: self.at("seeds"),
                discs_dir: self.at("discs"),
                console_dir: self.at("console"),
                socket_dir: self.at("sockets"),
                templates: Templates::load(None).unwrap(),
            },
            config: ReconcileConfig { scan_interval: Duration::from_secs(2), ..ReconcileConfig::default() },
            agents,
            installs: InstallsConfig { stall_timeout: STALL, ..InstallsConfig::default() },
            install_reports: false,
            link_hints: inbox.hints,
            socket_hints,
        });
        tokio::spawn(reconciler.run(stop));
        waker
    }

    async fn bundle(&self, vm: VmId) -> Option<VmBundle> {
        self.store.load_vm(vm).await.unwrap()
    }

    async fn until(&self, vm: VmId, what: &str, holds: impl Fn(&VmBundle) -> bool) -> VmBundle {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let bundle = self.bundle(vm).await.expect("the VM is there");
            if holds(&bundle) {
                return bundle;
            }
            let console = fs::read(self.at("console").join(format!("vm-{vm}.log"))).unwrap_or_default();
            let console =
                String::from_utf8_lossy(&console[console.len().saturating_sub(2000)..]).into_owned();
            assert!(Instant::now() < deadline, "never came: {what}\n{bundle:#?}\n{console:?}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

fn progressing(bundle: &VmBundle) -> Option<(&str, &str)> {
    let status = bundle.status.as_ref()?;
    let found = status.conditions.iter().find(|it| it.kind == ConditionKind::InstallProgressing)?;
    Some((&found.reason, &found.message))
}

#[tokio::test]
async fn an_installer_is_booted_found_stuck_followed_and_replaced_by_its_disk() {
    let bench = Bench::new().await;
    let (vm, operation) = bench.ask().await;
    let _guard = DomainGuard(vm.to_string());
    let stop = CancellationToken::new();
    let waker = bench.run(stop.clone()).await;

    let at_work = |it: &VmBundle| it.status.as_ref().is_some_and(|it| it.phase == VmPhase::Installing);
    bench.until(vm, "an installer at work", at_work).await;
    let xml = virsh(&["dumpxml", &vm.to_string()]);
    for part in
        [format!("vm-{vm}.kernel"), "<on_reboot>destroy</on_reboot>".to_owned(), "disc.iso".to_owned()]
    {
        assert!(xml.contains(&part), "{part} is not in {xml}");
    }
    assert_eq!(files_in(&bench.at("seeds")).len(), 2, "a kernel and an initial RAM disk");

    let stuck =
        bench.until(vm, "it is stuck", |it| progressing(it).is_some_and(|it| it.0 == "InstallStuck")).await;
    let (_, message) = progressing(&stuck).unwrap();
    for part in ["Is anybody there?", "<Yes> / <No>"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let ended = bench.store.operation(operation.id).await.unwrap().unwrap();
    let error = ended.error.expect("a reason");
    assert_eq!((ended.status, error.code.as_str()), (OperationStatus::Failed, "INSTALL_STUCK"));
    let console = fs::read_to_string(bench.at("console").join(format!("vm-{vm}.log"))).unwrap();
    assert!(console.contains("the answers are here"), "the RAM disk has no answers: {console}");

    let ready = bench
        .until(vm, "a VM that boots from its disk", |it| {
            let running = it.status.as_ref().is_some_and(|it| it.phase == VmPhase::Running);
            running && it.record.milestones.seed_scrubbed.is_some()
        })
        .await;
    assert_eq!(progressing(&ready).unwrap().0, "Finished");
    assert!(ready.record.spec.installation().unwrap().token.is_none(), "a secret outlived the installation");
    let after = virsh(&["dumpxml", &vm.to_string()]);
    assert!(
        after.contains("<on_reboot>restart</on_reboot>") && after.contains("<boot dev='hd'/>"),
        "{after}"
    );
    for part in ["<kernel>", "cdrom", "disc.iso"] {
        assert!(!after.contains(part), "{part} is still in {after}");
    }
    assert_eq!(files_in(&bench.at("seeds")), Vec::<PathBuf>::new());

    bench
        .store
        .request_delete(vm, infinibay::vm::OperationId::generate(), UserId::generate(), sample::now())
        .await
        .unwrap();
    waker.wake(vm);
    let deadline = Instant::now() + PATIENCE;
    while bench.bundle(vm).await.is_some() {
        assert!(Instant::now() < deadline, "it is never deleted");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(bench.pool.volumes(), Vec::<PathBuf>::new());
    assert_eq!(files_in(&bench.at("console")), Vec::<PathBuf>::new());
    stop.cancel();
}

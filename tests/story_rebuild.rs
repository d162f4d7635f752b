//! The database is lost, and its VMs are restored from what their domains carry.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{collections::BTreeMap, path::Path, time::Duration};

use chrono::Utc;
use clap::Parser;
use infinibay::{
    cli::rebuild::{self, RebuildArgs},
    config::{Config, HypervisorConfig, Sources},
    controller::{host_id, lock::HostLock},
    domain_xml::{Note, extra_mac_address, put_note},
    hypervisor::{BlankVolume, Devices, Hypervisor, Identity, libvirt::LibvirtHypervisor},
    vm::{
        Base, Disc, FirstBootSecret, HostId, InstallFamily, InstallReport, Installation, InstallerKernel,
        NotedResource, OnCrash, ResourceKind, UserId, VmId, VmNote,
    },
};
use serde_json::json;
use support::{
    daemon::{Home, Setup},
    host::{self, DomainGuard, Pool},
};

const READY: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_outlives_its_database() {
    host::need_image("pocket");
    let home = Home::new(Setup {
        uri: "qemu:///system".into(),
        database_url: None,
        images_dir: host::test_images(),
        base_dir: host::test_base_dir(),
        env: vec![],
    });
    let pool = Pool::new(home.path());
    let token = home.admin();
    let name = format!("story-rebuild-{}", std::process::id());
    let _guard = DomainGuard(name.clone());
    let daemon = home.start();
    let client = daemon.client(&token);
    let input = json!({
        "name": name, "image": "pocket", "vcpus": 1, "memoryMib": 192, "pool": pool.name, "network": "none",
    });
    let (vm, create) = client.create(input.clone()).await;
    client.succeeded(&create, READY).await;
    client.agent_is(&vm, "ONLINE", SOON).await;
    let installed = "query($id: UUID!) { vm(id: $id) { installedAt createdAt ownerId image memoryMib } }";
    let before = client.ask(installed, json!({ "id": vm })).await;
    let pid = std::fs::read_to_string(format!("/run/libvirt/qemu/{name}.pid")).unwrap();
    // The last thing that is noted of it is that it is installed.
    let written = before["vm"]["installedAt"].as_str().unwrap()[..19].to_owned();
    let noted = || {
        let text = host::virsh(&["metadata", &name, "--uri", "urn:infinibay:domain"]);
        text.contains(&format!("\"installed_at\":\"{written}")).then_some(())
    };
    support::daemon::wait("the domain to be told that it is installed", SOON, noted);
    daemon.kill();

    for file in ["infinibay.db", "infinibay.db-wal", "infinibay.db-shm"] {
        let _ = std::fs::remove_file(home.state_dir().join(file));
    }
    let mut rebuild = home.command();
    let told = rebuild.args(["db", "rebuild", &name]).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let words = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(words.contains(&format!("{name} ({vm}): restored, VM of admin, 2 thing(s)")), "{words}");
    let again = home.run(&["db", "rebuild", &vm]);
    assert!(again.contains(&format!("{name} ({vm}): is there already")), "{again}");

    // The owner is there again, without a token and without rights.
    let owner = home.run(&["user", "list"]);
    assert!(owner.contains("admin\tmember\t-"), "{owner}");
    let token = home.run(&["user", "token", "admin"]).trim().to_owned();
    let daemon = home.start();
    let client = daemon.client(&token);
    client.agent_is(&vm, "ONLINE", SOON).await;
    client.phase_is(&vm, "RUNNING", SOON).await;
    assert_eq!(client.ask(installed, json!({ "id": vm })).await, before);
    assert_eq!(std::fs::read_to_string(format!("/run/libvirt/qemu/{name}.pid")).unwrap(), pid);
    let delete = client.change("deleteVm", &vm).await;
    client.succeeded(&delete, SOON).await;
    assert!(!host::domain_exists(&vm), "the domain is left");
    for dir in [pool.dir.clone(), home.socket_dir(), home.state_dir().join("console")] {
        assert_eq!(host::files_in(&dir), Vec::<std::path::PathBuf>::new(), "left in {}", dir.display());
    }
    daemon.stop();
}

/// What a domain says of an installation, with all that somebody could write into it.
fn installation() -> Base {
    let disc = |medium: &str| Disc { medium: medium.parse().unwrap(), path: "/etc/shadow".into() };
    Base::Installation(Box::new(Installation {
        disc: disc("debian-13"),
        family: InstallFamily::Debian,
        label: Some("Debian 13".to_owned()),
        kernel: Some(InstallerKernel { kernel: "linux".to_owned(), initrd: "initrd.gz".to_owned() }),
        drivers: Some(disc("virtio-win")),
        mirror: None,
        edition: None,
        medium_language: None,
        agent: true,
        token: Some(FirstBootSecret::new("a-forged-token".to_owned())),
    }))
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: RebuildArgs,
}

fn config(url: &str, state_dir: &Path) -> Config {
    let env = BTreeMap::from([
        ("INFINIBAY__PATHS__STATE_DIR".to_owned(), state_dir.to_str().unwrap().to_owned()),
        ("INFINIBAY__HYPERVISOR__URI".to_owned(), "test:///default".to_owned()),
        ("DATABASE_URL".to_owned(), url.to_owned()),
    ]);
    let file = state_dir.join("infinibay.toml");
    std::fs::write(&file, "").unwrap();
    Config::load(&Sources { file: Some(file), env, ..Sources::default() }).unwrap()
}

async fn run(config: &Config, flags: &[&str]) -> (Result<(), String>, String) {
    let line = Line::try_parse_from(std::iter::once("rebuild").chain(flags.iter().copied())).unwrap();
    let mut out = Vec::new();
    let done = rebuild::run(line.args, config, &mut out).await;
    (done.map_err(|error| format!("{error:#}")), String::from_utf8(out).unwrap())
}

fn note(host: HostId, id: VmId, owner: &str) -> VmNote {
    VmNote {
        host,
        owner: UserId::generate(),
        owner_name: owner.to_owned(),
        spec: support::sample::spec("elsewhere"),
        created_at: Utc::now(),
        installed_at: None,
        seed_scrubbed_at: None,
        resources: vec![NotedResource {
            kind: ResourceKind::Volume,
            place: "default".to_owned(),
            name: format!("infinibay-{id}.qcow2"),
        }],
    }
}

struct Domains(LibvirtHypervisor, HostId);

impl Domains {
    async fn define(&self, id: VmId, name: &str, element: impl FnOnce(String) -> String) {
        let xml = format!(
            "<domain type='test'><name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>64</memory>\
             <vcpu>1</vcpu><os><type arch='i686'>hvm</type></os><devices/></domain>"
        );
        self.0.define(id, element(xml)).await.unwrap();
    }

    async fn noted(&self, name: &str, change: impl FnOnce(VmId, &mut VmNote)) -> VmId {
        let id = VmId::generate();
        let mut noted = note(self.1, id, "ana");
        change(id, &mut noted);
        let note = Note { digest: noted.digest(), text: noted.text() };
        self.define(id, name, |xml| put_note(&xml, id, &note).unwrap()).await;
        id
    }
}

on_both! {
    async fn what_can_be_trusted_is_restored_and_the_rest_is_told(db: TestDatabase) {
        let state = tempfile::tempdir().unwrap();
        let config = config(&db.url, state.path());
        // The test driver's host lives as long as somebody of this process is connected.
        let hypervisor = LibvirtHypervisor::start(HypervisorConfig {
            uri: "test:///default".to_owned(),
            ..HypervisorConfig::default()
        });
        hypervisor.connected(SOON).await.unwrap();
        let host = host_id::load_or_create(state.path()).unwrap();
        let domains = Domains(hypervisor, host);
        let good = domains.noted("good", |_, _| {}).await;
        let nameless = domains.noted("nameless", |_, note| note.owner_name.clear()).await;
        let greedy = domains
            .noted("greedy", |_, note| note.resources[0].name = format!("infinibay-{good}.qcow2"))
            .await;
        let text = Note { digest: String::new(), text: "<no> JSON".to_owned() };
        let broken = VmId::generate();
        domains.define(broken, "broken", |xml| put_note(&xml, broken, &text).unwrap()).await;
        let old = VmId::generate();
        let element = format!("</uuid><metadata><v:vm xmlns:v='urn:infinibay:domain' id='{old}' schema='1'/></metadata>");
        domains.define(old, "old", |xml| xml.replace("</uuid>", &element)).await;
        let original = note(host, good, "ana");
        let copy = Note { digest: original.digest(), text: original.text() };
        domains.define(VmId::generate(), "copy", |xml| put_note(&xml, good, &copy).unwrap()).await;

        let elsewhere = domains.noted("elsewhere", |_, note| note.host = HostId::generate()).await;
        // Whose files lie in that controller's state directory.
        let farther = domains
            .noted("farther", |id, note| {
                note.host = HostId::generate();
                note.resources.push(NotedResource {
                    kind: ResourceKind::ConsoleLog,
                    place: "/elsewhere/console".to_owned(),
                    name: format!("vm-{id}.log"),
                });
            })
            .await;

        let held = HostLock::acquire(state.path()).unwrap();
        let (done, _) = run(&config, &[]).await;
        assert!(done.unwrap_err().contains(&format!("pid {}", std::process::id())), "beside another controller");
        drop(held);

        let (done, words) = run(&config, &[]).await;
        assert!(done.unwrap_err().starts_with("4 domain(s)"), "{words}");
        for (id, name, outcome) in [
            (good, "good", "restored, VM of ana, 1 thing(s)"),
            (nameless, "nameless", "skipped: it names no owner"),
            (greedy, "greedy", "which is not this VM's"),
            (broken, "broken", "skipped: its metadata cannot be read"),
            (elsewhere, "elsewhere", "is another controller's"),
            (farther, "farther", "is another controller's"),
            (old, "old", "skipped: its metadata is of version \"1\""),
        ] {
            let line = words.lines().find(|line| line.starts_with(&format!("{name} ({id}): ")));
            assert!(line.is_some_and(|line| line.contains(outcome)), "{name}: {words}");
        }
        assert!(words.contains("is a copy of another VM"), "{words}");
        assert!(!words.contains("\ntest ("), "a domain without our metadata was told of: {words}");
        assert_eq!(db.number("SELECT count(*) FROM vms").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM vms WHERE name = 'good' AND power = 'stopped'").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM resources").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM users WHERE name = 'ana'").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM tokens").await, 0);

        let (done, _) = run(&config, &["good", "missing"]).await;
        assert!(done.unwrap_err().contains("there is no domain \"missing\""));

        // With an heir there is somebody to give it to; what is there stays as it is.
        let (done, _) = run(&config, &["--owner", "nobody"]).await;
        assert!(done.unwrap_err().contains("there is no user"));
        let (_, words) = run(&config, &["--owner", "ana"]).await;
        assert!(words.contains("nameless") && words.contains("1 restored, 3 could not be"), "{words}");
        assert!(words.contains(&format!("good ({good}): is there already")), "{words}");
        assert_eq!(db.number("SELECT count(*) FROM vms").await, 2);
        assert!(domains.0.describe(greedy).await.unwrap().is_some());

        // Whoever names another controller's VM means it.
        let (done, words) = run(&config, &["elsewhere"]).await;
        assert!(done.is_ok() && words.contains("restored, VM of ana"), "{words}");
        assert_eq!(db.number("SELECT count(*) FROM vms").await, 3);
        let (done, words) = run(&config, &["farther"]).await;
        assert!(done.is_err() && words.contains("which is not this VM's"), "{words}");
    }

    async fn nobodys_volume_becomes_a_vms(db: TestDatabase) {
        let state = tempfile::tempdir().unwrap();
        let config = config(&db.url, state.path());
        let hypervisor = LibvirtHypervisor::start(HypervisorConfig {
            uri: "test:///default".to_owned(),
            ..HypervisorConfig::default()
        });
        hypervisor.connected(SOON).await.unwrap();
        let host = host_id::load_or_create(state.path()).unwrap();
        let domains = Domains(hypervisor, host);
        let (vm, other, homeless) = (VmId::generate(), VmId::generate(), VmId::generate());
        let unique = "0123456789ab";
        let volume = async |name: String| {
            let blank = BlankVolume { pool: "default-pool".to_owned(), name, capacity_bytes: 1 << 20 };
            domains.0.create_blank(vm, blank).await.unwrap().display().to_string()
        };
        let own = volume(format!("infinibay-{vm}-{unique}.qcow2")).await;
        let another = volume(format!("infinibay-{other}-{unique}.qcow2")).await;
        let overlay = volume(format!("infinibay-{vm}.snapshot")).await;
        let odd = volume(format!("infinibay-{vm}-..{unique}.qcow2")).await;
        let disk = |target: &str, kind: &str, path: &str| format!(
            "<disk type='file' device='{kind}'><source file='{path}'/><target dev='{target}'/></disk>"
        );
        let card = |mac: &str| format!(
            "<interface type='network'><mac address='{mac}'/><source network='default'/></interface>"
        );
        let (mac, library) = (extra_mac_address(vm, 1), state.path().join("media"));
        // A disc that is none of the library's, though it is called like one.
        std::fs::create_dir(&library).unwrap();
        std::fs::write(library.join("page.iso"), "<html>").unwrap();
        let page = library.join("page.iso").display().to_string();
        let devices = [
            disk("vda", "disk", &overlay), disk("vdb", "disk", &own), disk("vdc", "disk", &another),
            disk("vdd", "disk", &odd), disk("vde", "disk", "/nowhere/theirs.qcow2"),
            disk("sda", "cdrom", &page), disk("sdb", "cdrom", &another), card(&mac), card("52:54:00:00:00:01"),
        ].concat();
        let lost = disk("vdb", "disk", &format!("/nowhere/infinibay-{homeless}-{unique}.qcow2"));
        for (id, name, devices) in [(vm, "forged", devices), (homeless, "homeless", lost)] {
            let mut noted = note(host, id, "ana");
            noted.spec.keeping.on_crash = OnCrash::Restart;
            let note = Note { digest: noted.digest(), text: noted.text() };
            let filled = format!("<devices>{devices}</devices>");
            domains
                .define(id, name, |xml| put_note(&xml.replace("<devices/>", &filled), id, &note).unwrap())
                .await;
        }
        let (done, words) = run(&config, &[]).await;
        assert!(done.unwrap_err().starts_with("1 domain(s)"), "{words}");
        assert!(words.contains(&format!("forged ({vm}): restored, VM of ana, 2 thing(s)")), "{words}");
        assert!(words.contains("no active pool has its disk vdb"), "{words}");
        assert!(words.contains("disc page: left where it is: it is not an ISO 9660 disc"), "{words}");

        let store = db.store().await;
        let spec = store.vm(vm).await.unwrap().unwrap().record.spec;
        let disks: Vec<_> = spec.devices.disks.iter().map(|disk| (disk.target.as_str(), &disk.volume)).collect();
        assert_eq!(disks, [("vdb", &format!("infinibay-{vm}-{unique}.qcow2"))]);
        assert!(spec.devices.media.is_empty(), "{:?}", spec.devices.media);
        let macs: Vec<_> = spec.devices.interfaces.iter().map(|card| &card.mac).collect();
        assert_eq!(macs, [&mac]);
        assert_eq!(spec.keeping.on_crash, OnCrash::Restart);
        assert_eq!(db.number("SELECT count(*) FROM resources").await, 2);
        assert_eq!(db.number("SELECT count(*) FROM media").await, 0);
        store.close().await;
    }

    async fn what_was_installed_from_a_disc_needs_it_no_more(db: TestDatabase) {
        let state = tempfile::tempdir().unwrap();
        let config = config(&db.url, state.path());
        let hypervisor = LibvirtHypervisor::start(HypervisorConfig {
            uri: "test:///default".to_owned(),
            ..HypervisorConfig::default()
        });
        hypervisor.connected(SOON).await.unwrap();
        let host = host_id::load_or_create(state.path()).unwrap();
        let domains = Domains(hypervisor, host);
        let done = domains
            .noted("done", |_, note| (note.spec.base, note.installed_at) = (installation(), Some(note.created_at)))
            .await;
        let torn = domains
            .noted("torn", |_, note| {
                note.spec.base = installation();
                if let Base::Installation(installation) = &mut note.spec.base {
                    installation.label = Some("two\nlines".to_owned());
                }
            })
            .await;
        let (_, words) = run(&config, &[]).await;
        assert!(words.contains(&format!("done ({done}): restored, VM of ana")), "{words}");
        assert!(words.contains(&format!("torn ({torn}): skipped")), "{words}");

        let store = db.store().await;
        let record = store.vm(done).await.unwrap().unwrap().record;
        let restored = record.spec.installation().unwrap();
        assert_eq!((restored.disc.medium.as_str(), &restored.token), ("debian-13", &None));
        let paths = [&restored.disc.path, &restored.drivers.as_ref().unwrap().path];
        assert_eq!(paths, [&std::path::PathBuf::new(); 2]);
        let milestones = record.milestones;
        assert!(milestones.installed.is_some() && milestones.boot_replaced.is_some(), "{milestones:?}");
        // Nobody may speak for its installer.
        let report = InstallReport::new("started", Utc::now()).unwrap();
        let heard = store.report_install(&Installation::token_sha256("a-forged-token"), &report).await;
        assert_eq!(heard.unwrap(), None);
        assert_eq!(db.number("SELECT count(*) FROM vms WHERE install_token_sha256 IS NOT NULL").await, 0);
    }
}

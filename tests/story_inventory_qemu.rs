//! Of no kind of VM is anything left: an inventory of the host taken before a VM is made equals the one
//! after it is deleted, whatever was done with it between, on real QEMU.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    daemon::{Client, Daemon, Home, Setup, wait},
    host::{self, DomainGuard, Pool, files_in, virsh},
    inventory::{Inventory, Survey},
    pretended,
    trial::{Blank, image},
};

/// Software emulation takes its time over firmware.
const READY: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(120);
const SNAPSHOT: &str = "mutation($id: UUID!, $name: String!, $memory: Boolean) {
    createVmSnapshot(id: $id, name: $name, memory: $memory) { operation { id } } }";
const DISK: &str = "mutation($id: UUID!) { attachVmDisk(id: $id, bytes: 1048576) { operation { id } } }";
const CARD: &str = "mutation($id: UUID!, $network: String!) {
    attachVmInterface(id: $id, network: $network) { operation { id } } }";
const MEDIUM: &str = "mutation($id: UUID!, $pool: String!) {
    insertVmMedium(id: $id, pool: $pool, volume: \"one.iso\") { operation { id } } }";
const CLONE: &str = "mutation($id: UUID!, $input: CloneVmInput!) {
    cloneVm(id: $id, input: $input) { operation { id } } }";

/// What becomes of a VM between its making and its end.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    /// It runs, with its agent heard.
    Runs,
    /// It is given a disk, a medium and a card, and started with them.
    HasDevices,
    /// Two snapshots, one of them with memory.
    HasSnapshots,
    IsSaved,
    /// A copy of it runs and is deleted first.
    IsCopied,
    /// Nothing on its disk boots.
    IsEmpty,
    /// It is installed from a disc, by an installer that ends.
    IsInstalled,
    /// Its installer is at work.
    IsBeingInstalled,
    /// Its deletion is asked for as soon as this is there.
    IsBrokenOff(Part),
}

/// What there is of a VM that is being made.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Part {
    Request,
    Volume,
    Domain,
}

struct Kind {
    what: &'static str,
    input: Value,
    life: Life,
    /// What an inventory taken meanwhile shows, to be sure that it would show what is left.
    sees: &'static [&'static str],
}

fn kinds() -> Vec<Kind> {
    use Life::*;
    let kind = |what, input, life, sees| Kind { what, input, life, sees };
    let uefi = json!({ "firmware": "UEFI", "memoryMib": 256 });
    let secure = json!({ "firmware": "UEFI_SECURE_BOOT", "tpm": true, "memoryMib": 256 });
    let install = |medium, disk| json!({ "image": null, "diskGib": disk, "memoryMib": 256, "install": { "medium": medium, "agent": false } });
    let mut windows = install("windows-10", 64);
    windows["unattended"] = json!({ "user": "ada", "password": "correct horse" });
    let mut windows_11 = install("windows-11", 64);
    windows_11["unattended"] = windows["unattended"].clone();
    windows_11["firmware"] = json!("UEFI_SECURE_BOOT");
    windows_11["tpm"] = json!(true);
    vec![
        kind("with snapshots", json!({ "network": "none" }), HasSnapshots, &["snapshot ", "/qemu/snapshot/"]),
        kind(
            "with a seed and a TPM",
            json!({ "image": "told", "tpm": true }),
            Runs,
            &["/state/seeds/", "/state/console/", "process swtpm", "/lib/libvirt/swtpm/"],
        ),
        kind("UEFI, saved", uefi, IsSaved, &["_VARS.fd", "/qemu/save/"]),
        kind("with devices", json!({}), HasDevices, &["/run/libvirt/network/", "one.iso"]),
        kind("copied", json!({}), IsCopied, &["domain ", "volume ", "process qemu", "socket "]),
        kind("secure boot and TPM, copied", secure, IsCopied, &["_VARS.fd", "process swtpm"]),
        kind("Windows", json!({ "image": "panes" }), IsEmpty, &["process qemu", "volume "]),
        kind("Debian, installed", install("debian", 4), IsInstalled, &["/state/console/"]),
        kind("Debian, being installed", install("debian-slow", 4), IsBeingInstalled, &[".initrd", ".kernel"]),
        kind("Windows, installed", windows, IsInstalled, &["process qemu"]),
        kind("Windows 11, being installed", windows_11, IsBeingInstalled, &["/state/seeds/", "_VARS.fd"]),
        kind("only asked for", json!({ "tpm": true }), IsBrokenOff(Part::Request), &[]),
        kind("broken off with a volume", json!({ "tpm": true }), IsBrokenOff(Part::Volume), &["volume "]),
        kind("broken off with a domain", json!({ "tpm": true }), IsBrokenOff(Part::Domain), &["domain "]),
    ]
}

/// A network of the story's own, without addresses.
struct Network(String);

impl Network {
    fn new(home: &Path) -> Self {
        let name = format!("in{}", std::process::id());
        let file = home.join("network.xml");
        fs::write(&file, format!("<network><name>{name}</name><bridge name='{name}'/></network>")).unwrap();
        virsh(&["net-create", file.to_str().unwrap()]);
        Self(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("virsh").args(["-q", "-c", "qemu:///system", "net-destroy", &self.0]).status();
    }
}

struct Scene {
    // Ended, and its log read, before its home is removed.
    _daemon: Daemon,
    home: Home,
    pool: Pool,
    network: Network,
    client: Client,
    _dirs: [tempfile::TempDir; 2],
}

fn home(images_dir: PathBuf, env: Vec<(String, String)>) -> Home {
    let (uri, base_dir) = ("qemu:///system".into(), host::test_base_dir());
    Home::new(Setup { uri, database_url: None, images_dir, base_dir, env })
}

fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("infinibay-story-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// The guest of tests, the same as one that is told at its first boot who it is, and an empty Windows.
fn library() -> tempfile::TempDir {
    host::need_image("pocket");
    let library = open_dir();
    for name in ["pocket", "told"] {
        let folder = library.path().join(name);
        fs::create_dir(&folder).unwrap();
        for file in files_in(&host::test_images().join("pocket")) {
            fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
    }
    let manifest = library.path().join("told/manifest.toml");
    let pocket = fs::read_to_string(&manifest).unwrap();
    let told = pocket.replace("provisioning = \"none\"", "provisioning = \"cloud-init\"");
    assert_ne!(pocket, told);
    fs::write(manifest, told).unwrap();
    image(&library.path().join("panes"), &Blank { os_family: "windows", ..Blank::default() });
    library
}

impl Scene {
    async fn set() -> Self {
        let (library, discs) = (library(), open_dir());
        let dirs = ("INFINIBAY__MEDIA__IMPORT_DIRS".to_owned(), discs.path().display().to_string());
        let home = home(library.path().to_owned(), vec![dirs]);
        let pool = Pool::new(home.path());
        let network = Network::new(home.path());
        let mut disc = vec![0; 64 << 10];
        disc[0x8001..0x8006].copy_from_slice(b"CD001");
        fs::write(pool.dir.join("one.iso"), disc).unwrap();
        virsh(&["pool-refresh", &pool.name]);
        let token = home.admin();
        let daemon = home.start();
        let client = daemon.client(&token);
        let told = client.ask("{ host { firmware tpm } }", json!({})).await;
        let all = json!({ "firmware": ["BIOS", "UEFI", "UEFI_SECURE_BOOT"], "tpm": true });
        assert_eq!(told["host"], all, "ovmf, swtpm and swtpm-tools are needed; scripts/test installs them");
        for (name, made) in [
            ("debian", pretended::debian(discs.path(), "debian", pretended::DONE_AT_ONCE)),
            ("debian-slow", pretended::debian(discs.path(), "debian-slow", pretended::NEVER_DONE)),
            ("windows-10", pretended::windows(discs.path(), "windows-10", "19045")),
            ("windows-11", pretended::windows(discs.path(), "windows-11", "22631")),
        ] {
            pretended::import(&client, name, &made).await;
        }
        Self { home, pool, network, client, _daemon: daemon, _dirs: [library, discs] }
    }

    fn take(&self, vms: &[(&str, &str)]) -> Inventory {
        let survey = Survey::of(&self.home, &self.pool);
        vms.iter().fold(survey, |survey, (id, name)| survey.with_vm(id, &[name])).take()
    }

    async fn asked(&self, mutation: &str, variables: Value) {
        let operation = self.client.accepted(mutation, variables).await;
        self.client.succeeded(&operation, READY).await;
    }

    async fn change(&self, mutation: &str, vm: &str) {
        let operation = self.client.change(mutation, vm).await;
        self.client.succeeded(&operation, READY).await;
    }

    async fn runs(&self, vm: &str) {
        self.change("startVm", vm).await;
        self.client.agent_is(vm, "ONLINE", READY).await;
    }

    async fn lives_and_leaves_nothing(&self, kind: &Kind) {
        let id = uuid::Uuid::new_v4().to_string();
        let name = format!("inventory-{}", &id[..8]);
        let _guard = DomainGuard(name.clone());
        let mut input = json!({
            "id": id, "name": name, "image": "pocket", "vcpus": 1, "memoryMib": 192,
            "pool": self.pool.name, "network": self.network.0,
        });
        let given = kind.input.as_object().unwrap().clone();
        input.as_object_mut().unwrap().extend(given);
        let vm = [(id.as_str(), name.as_str())];
        let begun = Instant::now();
        let before = self.take(&vm);
        let (_, create) = self.client.create(input).await;

        if let Life::IsBrokenOff(part) = kind.life {
            wait(&format!("{part:?}"), SOON, || self.has(part, &id).then_some(()));
            self.shows(kind, &vm);
        } else {
            self.lives(kind, &vm, &create).await;
        }
        self.change("deleteVm", &id).await;
        assert_eq!(self.take(&vm), before, "left of a VM: {}", kind.what);
        println!("{}: {:?}", kind.what, begun.elapsed());
    }

    fn has(&self, part: Part, vm: &str) -> bool {
        match part {
            Part::Request => true,
            Part::Volume => self.pool.volumes().len() > 1,
            Part::Domain => host::domain_exists(vm),
        }
    }

    async fn lives(&self, kind: &Kind, vm: &[(&str, &str); 1], create: &str) {
        let (client, [(id, name)]) = (&self.client, vm);
        match kind.life {
            Life::IsEmpty => client.phase_is(id, "INSTALLING", SOON).await,
            Life::IsBeingInstalled => client.phase_is(id, "INSTALLING", SOON).await,
            _ => client.succeeded(create, READY).await,
        }
        match kind.life {
            Life::IsEmpty | Life::IsBeingInstalled | Life::IsBrokenOff(_) => {}
            Life::IsInstalled => {
                client.phase_is(id, "RUNNING", SOON).await;
                let xml = virsh(&["dumpxml", id]);
                assert!(!xml.contains(".iso"), "something of the installer is left: {xml}");
            }
            Life::Runs => client.agent_is(id, "ONLINE", READY).await,
            Life::HasDevices => {
                self.change("stopVm", id).await;
                self.asked(DISK, json!({ "id": id })).await;
                self.asked(CARD, json!({ "id": id, "network": self.network.0 })).await;
                self.asked(MEDIUM, json!({ "id": id, "pool": self.pool.name })).await;
                self.runs(id).await;
            }
            Life::HasSnapshots => {
                self.asked(SNAPSHOT, json!({ "id": id, "name": "memory", "memory": true })).await;
                self.asked(SNAPSHOT, json!({ "id": id, "name": "disk", "memory": false })).await;
            }
            Life::IsSaved => self.change("saveVm", id).await,
            Life::IsCopied => self.is_copied(kind, id, name).await,
        }
        if kind.life != Life::IsCopied {
            self.shows(kind, vm);
        }
    }

    /// A copy of a VM with two disks, which is made, started and deleted.
    async fn is_copied(&self, kind: &Kind, id: &str, name: &str) {
        self.change("stopVm", id).await;
        self.asked(DISK, json!({ "id": id })).await;
        self.client.phase_is(id, "STOPPED", SOON).await;
        let copy = uuid::Uuid::new_v4().to_string();
        let copy_name = format!("{name}-copy");
        let _guard = DomainGuard(copy_name.clone());
        let (both, of_copy) = ([(id, name), (&copy, &copy_name)], [(copy.as_str(), copy_name.as_str())]);
        let before = self.take(&both);
        let input = json!({ "id": copy, "name": copy_name, "start": true });
        self.asked(CLONE, json!({ "id": id, "input": input })).await;
        self.client.agent_is(&copy, "ONLINE", READY).await;
        self.shows(kind, &of_copy);
        self.change("deleteVm", &copy).await;
        assert_eq!(self.take(&both), before, "left of a copy: {}", kind.what);
    }

    fn shows(&self, kind: &Kind, vm: &[(&str, &str)]) {
        let seen = self.take(vm);
        for part in kind.sees {
            let shown = seen.iter().any(|line| line.contains(part));
            assert!(shown, "{}: no {part:?} in {seen:#?}", kind.what);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_no_kind_of_vm_is_anything_left() {
    let scene = Scene::set().await;
    for kind in kinds() {
        scene.lives_and_leaves_nothing(&kind).await;
    }
}

/// What is under another name than the VM's is seen, too; otherwise the story above would say nothing.
#[test]
fn what_hides_under_another_name_is_seen() {
    let home = home(host::test_images(), vec![]);
    let pool = Pool::new(home.path());
    let id = uuid::Uuid::new_v4().to_string();
    let survey = Survey::of(&home, &pool).with_vm(&id, &[&format!("hidden-{}", &id[..8])]);
    let before = survey.take();
    assert!(before.iter().all(|line| !line.contains(&id)), "{before:#?}");
    let appears = |part: &str| {
        let now = survey.take();
        let new: Vec<_> = now.difference(&before).cloned().collect();
        assert!(new.iter().any(|line| line.contains(part)), "no {part} in {new:#?}");
    };

    // A volume in the story's pool, and one elsewhere.
    let strange = format!("strange-{}", uuid::Uuid::new_v4());
    virsh(&["vol-create-as", &pool.name, &strange, "1M"]);
    appears(&strange);
    virsh(&["vol-delete", "--pool", &pool.name, &strange]);

    // A pool and a network that nobody named after the VM.
    let dir = pool.dir.display().to_string();
    let file = home.path().join("strange.xml");
    let defined = |xml: String, define: &str, undefine: &str, part: &str| {
        fs::write(&file, xml).unwrap();
        virsh(&[define, file.to_str().unwrap()]);
        fs::remove_file(&file).unwrap();
        appears(part);
        virsh(&[undefine, &strange]);
    };
    let xml = format!("<pool type='dir'><name>{strange}</name><target><path>{dir}/x</path></target></pool>");
    defined(xml, "pool-define", "pool-undefine", &format!("pool {strange}"));
    let network = format!("<network><name>{strange}</name><domain name='{id}'/></network>");
    defined(network, "net-define", "net-undefine", &format!("network {strange}"));
    let domain = format!(
        "<domain type='qemu'><name>{strange}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os>\
         <devices><disk type='file' device='disk'><source file='{dir}/y'/><target dev='vda'/></disk></devices></domain>"
    );
    defined(domain, "define", "undefine", &format!("domain {strange}"));

    // A file of libvirt's that names nobody, one that is held open after it was removed, and a program.
    let libvirts = Path::new("/var/lib/libvirt/qemu").join(&strange);
    fs::write(&libvirts, format!("of {id}")).unwrap();
    appears(&strange);
    fs::remove_file(&libvirts).unwrap();
    let held = pool.dir.join("held");
    let open = fs::File::create(&held).unwrap();
    let mut tail = Command::new("tail").args(["-f", "/dev/null"]).stdin(open).spawn().unwrap();
    fs::remove_file(&held).unwrap();
    appears("held by tail");
    tail.kill().unwrap();
    tail.wait().unwrap();

    let after = survey.take();
    assert_eq!(after, before);
}

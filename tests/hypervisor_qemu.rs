//! The hypervisor against QEMU, by the system's libvirtd: real processes, real disks, real
//! sockets.

#[path = "hypervisor/support.rs"]
mod support;

use std::{
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::Path,
    process::Command,
};

use infinibay::{
    domain_xml::inject_channel,
    hypervisor::{
        BlankVolume, Copied, Copies, Copying, Devices, DomainType, GuestControls, Hypervisor,
        HypervisorError, OverlayVolume, Storage, VolumeCopy,
        libvirt::{ConfigChange, LiveChange},
    },
    vm::{DomainObservation, DomainState, VmId},
};
use support::{Domain, about, connect, domain_xml, event, present, state, until};
use virt::connect::Connect;

const URI: &str = "qemu:///system";

#[tokio::test]
async fn a_domain_lives_and_leaves_nothing_behind() {
    let hypervisor = connect(URI).await;
    assert!(matches!(hypervisor.domain_type().await.unwrap(), DomainType::Qemu | DomainType::Kvm));
    let domain = Domain::new(URI);
    let id = domain.id;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join(id.socket_name());
    let mut events = hypervisor.events();

    for _ in 0..2 {
        let xml = domain_xml("qemu", id, &domain.name, Some(&socket));
        hypervisor.define(id, xml).await.unwrap();
    }
    event("defined", &mut events, about(id)).await;
    for _ in 0..2 {
        hypervisor.start(id).await.unwrap();
    }
    event("started", &mut events, about(id)).await;
    assert!(std::fs::symlink_metadata(&socket).unwrap().file_type().is_socket());

    let listed = hypervisor.observe_all().await.unwrap().domains.remove(&id).expect("the scan has it");
    assert_eq!((listed.state, listed.persistent), (DomainState::Running, true));
    let channel = listed.channel.clone().expect("it has our channel");
    assert_eq!((channel.path, channel.guest_connected), (socket.clone(), Some(false)));
    assert_eq!(present(&hypervisor, id).await, listed, "scan and look agree");

    domain.with(virt::domain::Domain::suspend);
    until("the pause to be seen by a scan", async || {
        let seen = hypervisor.observe_all().await.unwrap();
        (seen.domains[&id].state == DomainState::Paused).then_some(())
    })
    .await;
    hypervisor.resume(id).await.unwrap();
    // The firmware does not listen; the request itself must go through and return.
    hypervisor.request_shutdown(id).await.unwrap();
    for _ in 0..2 {
        hypervisor.destroy(id).await.unwrap();
        assert_eq!(state(&hypervisor, id).await, DomainState::Shutoff);
    }
    for _ in 0..2 {
        hypervisor.undefine(id).await.unwrap();
        assert_eq!(hypervisor.observe(id).await.unwrap(), DomainObservation::Absent);
    }
    assert!(!hypervisor.observe_all().await.unwrap().domains.contains_key(&id));
}

#[tokio::test]
async fn a_running_installers_media_are_taken_out_and_its_disk_is_booted_next() {
    let hypervisor = connect(URI).await;
    let domain = Domain::new(URI);
    let id = domain.id;
    let directory = tempfile::tempdir().unwrap();
    // QEMU's user passes through.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let media: Vec<_> = ["a & b.iso", "c.iso"].iter().map(|name| directory.path().join(name)).collect();
    let mut drives = String::new();
    for (path, target) in media.iter().zip(["sda", "sdb"]) {
        std::fs::write(path, vec![0; 1 << 20]).unwrap();
        let file = path.display().to_string().replace('&', "&amp;");
        drives += &format!(
            "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{file}'/>\
             <target dev='{target}' bus='sata'/><readonly/></disk>"
        );
    }
    let xml =
        domain_xml("qemu", id, &domain.name, None).replace("</devices>", &format!("{drives}</devices>"));
    hypervisor.define(id, xml).await.unwrap();
    hypervisor.start(id).await.unwrap();
    hypervisor.press_enter(id).await.unwrap();
    for _ in 0..2 {
        hypervisor.boot_from_disk(id, media[..1].to_vec()).await.unwrap();
        let hardware = hypervisor.hardware(id).await.unwrap();
        let live = hardware.live.expect("it runs");
        assert!(live.disk("sda").is_some_and(|drive| drive.source.is_none()), "{live:?}");
        assert_eq!(live.disk("sdb").and_then(|drive| drive.source.as_ref()), Some(&media[1]));
        assert!(hardware.config.disk("sda").is_none() && hardware.config.disk("sdb").is_some());
    }
    hypervisor.destroy(id).await.unwrap();
    hypervisor.undefine(id).await.unwrap();
}

#[tokio::test]
async fn undefining_takes_saved_state_along() {
    let hypervisor = connect(URI).await;
    let domain = Domain::new(URI);
    let id = domain.id;
    hypervisor.define(id, domain_xml("qemu", id, &domain.name, None)).await.unwrap();
    hypervisor.start(id).await.unwrap();
    domain.with(|domain| domain.managed_save(0));
    assert!(domain.with(|domain| domain.has_managed_save(0)));
    hypervisor.undefine(id).await.unwrap();
    assert_eq!(hypervisor.observe(id).await.unwrap(), DomainObservation::Absent);
}

#[tokio::test]
async fn undefining_takes_nvram_saved_state_and_snapshots_along() {
    let hypervisor = connect(URI).await;
    let domain = Domain::new(URI);
    let id = domain.id;
    let directory = tempfile::tempdir().unwrap();
    // QEMU runs as a user of its own.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // What the flash holds does not matter here: no guest is to boot from it.
    let (code, nvram) = (directory.path().join("code.fd"), directory.path().join("vars.fd"));
    std::fs::write(&code, vec![0; 256 << 10]).unwrap();
    std::fs::write(&nvram, vec![0; 64 << 10]).unwrap();
    let os = format!(
        "<os><type arch='x86_64' machine='q35'>hvm</type><loader readonly='yes' type='pflash'>{}</loader>\
         <nvram>{}</nvram></os>",
        code.display(),
        nvram.display()
    );
    let xml = domain_xml("qemu", id, &domain.name, None)
        .replace("<os><type arch='x86_64'>hvm</type></os>", &os)
        .replace("<devices>", "<features><acpi/></features><devices>");
    assert!(xml.contains("<nvram>"), "{xml}");
    hypervisor.define(id, xml).await.unwrap();

    let inactive = domain.with(|domain| domain.xml_desc(virt::sys::VIR_DOMAIN_XML_INACTIVE));
    let snapshot = format!(
        "<domainsnapshot><name>kept</name><state>shutoff</state><creationTime>1</creationTime>\
         <disks/>{inactive}</domainsnapshot>"
    );
    // Only written down, as after a migration: there is no disk to take one of.
    domain
        .with(|domain| domain.create_snapshot_xml(&snapshot, virt::sys::VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE));
    hypervisor.start(id).await.unwrap();
    domain.with(|domain| domain.managed_save(0));
    assert!(domain.with(|domain| domain.has_managed_save(0)));
    assert_eq!(domain.with(|domain| domain.num_snapshots(0)), 1);
    let left = [
        nvram,
        format!("/var/lib/libvirt/qemu/save/{}.save", domain.name).into(),
        format!("/var/lib/libvirt/qemu/snapshot/{}/kept.xml", domain.name).into(),
    ];
    for path in &left {
        assert!(path.exists(), "{} (this test has to run as root)", path.display());
    }
    domain.with(|domain| {
        assert!(domain.undefine().is_err(), "without flags libvirt refuses");
        Ok(())
    });

    hypervisor.undefine(id).await.unwrap();
    assert_eq!(hypervisor.observe(id).await.unwrap(), DomainObservation::Absent);
    for path in &left {
        assert!(!path.exists(), "left behind: {}", path.display());
    }
    assert!(code.exists(), "the firmware is everybody's");
}

#[tokio::test]
async fn a_killed_process_is_seen_as_crashed() {
    let hypervisor = connect(URI).await;
    let domain = Domain::new(URI);
    let id = domain.id;
    hypervisor.define(id, domain_xml("qemu", id, &domain.name, None)).await.unwrap();
    hypervisor.start(id).await.unwrap();
    let mut events = hypervisor.events();
    let pid = std::fs::read_to_string(format!("/run/libvirt/qemu/{}.pid", domain.name))
        .expect("libvirt's note of QEMU's process id (this test has to run as root)");
    let killed = Command::new("kill").args(["-9", pid.trim()]).status().expect("run kill");
    assert!(killed.success());
    event("crashed", &mut events, about(id)).await;
    let facts = until("the crash to be seen", async || {
        let facts = present(&hypervisor, id).await;
        (!facts.state.is_active()).then_some(facts)
    })
    .await;
    // Off, by a crash (VIR_DOMAIN_SHUTOFF_CRASHED): there is nothing left to destroy.
    assert_eq!((facts.state, facts.reason), (DomainState::Shutoff, 3));
    let seen = hypervisor.observe_all().await.unwrap();
    assert_eq!((seen.domains[&id].state, seen.domains[&id].reason), (DomainState::Shutoff, 3));
    hypervisor.start(id).await.unwrap();
    assert_eq!(state(&hypervisor, id).await, DomainState::Running, "it can be started again");
}

/// A directory pool that goes with the test, its directory too.
struct Pool {
    name: String,
    directory: tempfile::TempDir,
}

impl Pool {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let name = format!("hyper-{}", VmId::generate());
        let xml = format!(
            "<pool type='dir'><name>{name}</name><target><path>{}</path></target></pool>",
            directory.path().display()
        );
        let connection = Connect::open(Some(URI)).expect("open libvirt");
        // Defined, not started: starting it is the hypervisor's business.
        connection.define_storage_pool_xml(&xml, 0).expect("define the test's pool");
        Self { name, directory }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Ok(connection) = Connect::open(Some(URI)) else { return };
        let Ok(pool) = connection.lookup_storage_pool_by_name(&self.name) else { return };
        let _ = pool.destroy();
        let _ = pool.undefine();
    }
}

#[tokio::test]
async fn a_pool_is_looked_through_and_never_started() {
    let hypervisor = connect(URI).await;
    let pool = Pool::new();
    let refused = hypervisor.pool(&pool.name).await.unwrap_err();
    assert!(matches!(refused, HypervisorError::Invalid { .. }), "{refused:?}");
    assert!(matches!(hypervisor.pool("nowhere").await.unwrap_err(), HypervisorError::NotFound { .. }));

    let connection = Connect::open(Some(URI)).expect("open libvirt");
    let found = connection.lookup_storage_pool_by_name(&pool.name).unwrap();
    assert!(!found.is_active().unwrap(), "a look started it");
    found.create(0).unwrap();
    let name = "infinibay-disk.img";
    let disk = pool.directory.path().join(name);
    std::fs::write(&disk, [0; 4096]).unwrap();
    let seen = hypervisor.pool(&pool.name).await.unwrap();
    assert_eq!(seen.volumes.into_iter().collect::<Vec<_>>(), [name], "libvirt did not make it");
    assert!(0 < seen.available_bytes && seen.available_bytes <= seen.capacity_bytes);
    assert!(found.lookup_storage_vol_by_name(name).is_ok(), "what is there can be used and removed");
    // libvirt is not told, and remembers it.
    std::fs::remove_file(&disk).unwrap();
    assert!(hypervisor.pool(&pool.name).await.unwrap().volumes.is_empty());
    assert!(found.lookup_storage_vol_by_name(name).is_ok(), "it was not refreshed for a look");
}

#[tokio::test]
async fn a_look_at_a_pool_whose_storage_is_away_does_not_stop_it() {
    let hypervisor = connect(URI).await;
    let pool = Pool::new();
    let connection = Connect::open(Some(URI)).expect("open libvirt");
    let found = connection.lookup_storage_pool_by_name(&pool.name).unwrap();
    found.create(0).unwrap();
    let (id, directory) = (VmId::generate(), pool.directory.path());
    let away = directory.with_extension("away");
    std::fs::rename(directory, &away).unwrap();
    let seen = hypervisor.pool(&pool.name).await;
    let medium = hypervisor.volume(id, &pool.name, "a.iso").await;
    std::fs::rename(&away, directory).unwrap();
    assert!(matches!(seen, Err(HypervisorError::Invalid { .. })), "{seen:?}");
    assert!(medium.unwrap().is_none(), "a volume that nobody made");
    assert!(found.is_active().unwrap(), "a look stopped it");
    assert!(hypervisor.pool(&pool.name).await.unwrap().volumes.is_empty());
}

/// A volume whose copies hang for as long as the listener is there.
fn endless(pool: &Pool, name: &str) -> UnixListener {
    let socket = pool.directory.path().join("nbd");
    let listener = UnixListener::bind(&socket).expect("a socket in the pool");
    let backing = format!("nbd+unix:///x?socket={}", socket.display());
    let disk = pool.directory.path().join(name);
    // Not opened: nobody answers.
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-u",
        "-F",
        "raw",
        "-b",
        &backing,
        disk.to_str().expect("a path of UTF-8"),
        "1M",
    ]);
    listener
}

#[tokio::test]
async fn a_copy_that_waits_is_taken_back_and_what_is_made_beside_one_waits() {
    let hypervisor = connect(URI).await;
    let pool = Pool::new();
    let images = tempfile::tempdir().unwrap();
    let base = images.path().join("base.raw");
    qemu_img(&["create", "-q", "-f", "raw", base.to_str().unwrap(), "1M"]);
    let listener = endless(&pool, "endless.qcow2");
    let (id, copies) = (VmId::generate(), [(); 3].map(|()| VmId::generate()));
    let overlay = OverlayVolume {
        pool: pool.name.clone(),
        name: format!("{id}.qcow2"),
        capacity_bytes: 1 << 20,
        backing_path: base,
        backing_format: "raw".to_owned(),
    };
    let made = hypervisor.create_overlay(id, overlay.clone()).await.unwrap();
    let copy = |id: VmId| VolumeCopy {
        from_pool: pool.name.clone(),
        from_name: "endless.qcow2".to_owned(),
        pool: pool.name.clone(),
        name: format!("{id}.qcow2"),
        capacity_bytes: 1 << 20,
    };
    for id in copies {
        assert_eq!(hypervisor.copy_volume(id, copy(id)).await.unwrap(), Copied::UnderWay);
    }
    let connection = Connect::open(Some(URI)).expect("open libvirt");
    let found = connection.lookup_storage_pool_by_name(&pool.name).unwrap();
    let is_begun = |id: &VmId| found.lookup_storage_vol_by_name(&copy(*id).name).is_ok();
    let begun = until("two copies", async || {
        let begun: Vec<_> = copies.into_iter().filter(is_begun).collect();
        (begun.len() == 2).then_some(begun)
    })
    .await;
    let waiting = copies.into_iter().find(|id| !begun.contains(id)).unwrap();

    // What stands there cannot be told from what is half made: not now, and nobody's fault.
    let late = hypervisor.create_overlay(id, overlay.clone()).await.unwrap_err();
    assert!(matches!(late, HypervisorError::Deadline { .. }), "{late:?}");
    assert!(!hypervisor.is_busy(id));
    let blank = BlankVolume { pool: pool.name.clone(), name: overlay.name.clone(), capacity_bytes: 1 << 20 };
    let late = hypervisor.create_blank(id, blank).await.unwrap_err();
    assert!(matches!(late, HypervisorError::Deadline { .. }), "{late:?}");
    assert!(hypervisor.pool(&pool.name).await.unwrap().volumes.contains(&overlay.name));

    for id in copies {
        hypervisor.withdraw_copy(id).await;
        let nothing = hypervisor.copying(id).await == Copying::Nothing;
        assert_eq!(nothing, id == waiting, "only what waits can be taken back");
    }
    drop(listener);
    for id in begun {
        until("the end of a copy", async || (hypervisor.copying(id).await == Copying::Nothing).then_some(()))
            .await;
        assert!(hypervisor.copy_volume(id, copy(id)).await.is_err(), "its end is told");
    }
    assert!(!is_begun(&waiting), "what was taken back is made");
    assert_eq!(hypervisor.create_overlay(id, overlay.clone()).await.unwrap(), made);
    hypervisor.delete_volume(id, &pool.name, &overlay.name).await.unwrap();
}

fn qemu_img(arguments: &[&str]) -> String {
    let output = Command::new("qemu-img").args(arguments).output().expect("these tests need qemu-img");
    assert!(output.status.success(), "qemu-img {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8 from qemu-img")
}

#[tokio::test]
async fn overlays_are_made_once_and_removed_for_good() {
    let hypervisor = connect(URI).await;
    let pool = Pool::new();
    let id = VmId::generate();
    let images = tempfile::tempdir().unwrap();
    let base = images.path().join("base & <co>.raw");
    qemu_img(&["create", "-q", "-f", "raw", base.to_str().unwrap(), "1M"]);
    let overlay = OverlayVolume {
        pool: pool.name.clone(),
        name: format!("{id}.qcow2"),
        capacity_bytes: 8 << 20,
        backing_path: base.clone(),
        backing_format: "raw".to_owned(),
    };
    let path = hypervisor.create_overlay(id, overlay.clone()).await.unwrap();
    assert_eq!(path, pool.directory.path().join(&overlay.name));
    let info: serde_json::Value =
        serde_json::from_str(&qemu_img(&["info", "--output=json", path.to_str().unwrap()])).unwrap();
    assert_eq!(info["format"], "qcow2");
    assert_eq!(info["virtual-size"], 8 << 20);
    assert_eq!(info["full-backing-filename"], base.to_str().unwrap());
    assert_eq!(info["backing-filename-format"], "raw", "never to be probed");

    assert_eq!(hypervisor.create_overlay(id, overlay.clone()).await.unwrap(), path, "twice is once");
    assert_eq!(hypervisor.volume_path(id, &pool.name, &overlay.name).await.unwrap(), Some(path.clone()));

    // As a crash may leave it: the file is there, and the pool does not know it.
    let stray = OverlayVolume { name: format!("{}.qcow2", VmId::generate()), ..overlay.clone() };
    std::fs::copy(&path, pool.directory.path().join(&stray.name)).unwrap();
    let found = hypervisor.create_overlay(id, stray.clone()).await.unwrap();
    assert_eq!(found, pool.directory.path().join(&stray.name));

    for _ in 0..2 {
        hypervisor.delete_volume(id, &pool.name, &overlay.name).await.unwrap();
        assert_eq!(hypervisor.volume_path(id, &pool.name, &overlay.name).await.unwrap(), None);
        assert!(!path.exists());
    }
    hypervisor.delete_volume(id, &pool.name, &stray.name).await.unwrap();
    assert!(base.exists(), "the image underneath is not ours to remove");

    let missing = OverlayVolume { backing_path: images.path().join("gone.raw"), ..overlay };
    let refused = hypervisor.create_overlay(id, missing.clone()).await.unwrap_err();
    assert!(matches!(refused, HypervisorError::Refused { .. }), "{refused:?}");
    assert_eq!(hypervisor.volume_path(id, &pool.name, &missing.name).await.unwrap(), None);
}

#[tokio::test]
async fn a_volume_that_was_not_finished_is_made_anew() {
    let hypervisor = connect(URI).await;
    let pool = Pool::new();
    let id = VmId::generate();
    let images = tempfile::tempdir().unwrap();
    let base = images.path().join("base.raw");
    qemu_img(&["create", "-q", "-f", "raw", base.to_str().unwrap(), "1M"]);
    let overlay = OverlayVolume {
        pool: pool.name.clone(),
        name: format!("{id}.qcow2"),
        capacity_bytes: 8 << 20,
        backing_path: base.clone(),
        backing_format: "raw".to_owned(),
    };
    let path = hypervisor.create_overlay(id, overlay.clone()).await.unwrap();
    let whole = |what: &str| {
        let info: serde_json::Value =
            serde_json::from_str(&qemu_img(&["info", "--output=json", path.to_str().unwrap()])).unwrap();
        assert_eq!(
            (&info["format"], &info["virtual-size"], &info["full-backing-filename"]),
            (&"qcow2".into(), &(8 << 20).into(), &base.to_str().unwrap().into()),
            "{what}: {info}"
        );
    };

    // The pool knows the volume, and its file is not what it was.
    std::fs::write(&path, b"").unwrap();
    assert_eq!(hypervisor.create_overlay(id, overlay.clone()).await.unwrap(), path);
    whole("an empty file");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(hypervisor.create_overlay(id, overlay.clone()).await.unwrap(), path);
    whole("a file that is gone");
    qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "8M"]);
    assert_eq!(hypervisor.create_overlay(id, overlay.clone()).await.unwrap(), path);
    whole("a disk that stands on nothing");

    // The pool does not know it.
    hypervisor.delete_volume(id, &pool.name, &overlay.name).await.unwrap();
    std::fs::write(&path, b"").unwrap();
    assert_eq!(hypervisor.volume_path(id, &pool.name, &overlay.name).await.unwrap(), None);
    assert_eq!(hypervisor.create_overlay(id, overlay.clone()).await.unwrap(), path);
    whole("an empty file unknown to the pool");

    // What is whole is kept, with what was written to it.
    let before = std::fs::metadata(&path).unwrap().ino();
    assert_eq!(hypervisor.create_overlay(id, overlay).await.unwrap(), path);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), before, "twice is once");
}

#[tokio::test]
async fn a_running_domain_gets_the_channel_and_loses_it_again() {
    let hypervisor = connect(URI).await;
    let domain = Domain::new(URI);
    let id = domain.id;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join(id.socket_name());
    hypervisor.define(id, with_serial_controller(id, &domain.name)).await.unwrap();
    hypervisor.start(id).await.unwrap();
    hypervisor.observe_all().await.unwrap();

    let change = hypervisor.add_channel(id, socket.clone()).await.unwrap();
    assert_eq!(change.config, ConfigChange::Changed);
    assert!(matches!(change.live, LiveChange::Changed), "{change:?}");
    assert!(std::fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    until("the next scan to see the channel", async || {
        let seen = hypervisor.observe_all().await.unwrap();
        seen.domains[&id].channel.as_ref().is_some_and(|channel| channel.path == socket).then_some(())
    })
    .await;
    let inactive = domain.with(|domain| domain.xml_desc(virt::sys::VIR_DOMAIN_XML_INACTIVE));
    assert!(!inject_channel(&inactive, id, &socket).unwrap().changed, "the configuration has it");

    let change = hypervisor.add_channel(id, socket.clone()).await.unwrap();
    assert_eq!(change.config, ConfigChange::Unchanged);
    assert!(matches!(change.live, LiveChange::Unchanged), "twice is once: {change:?}");

    let change = hypervisor.remove_channel(id).await.unwrap();
    assert_eq!(change.config, ConfigChange::Changed);
    assert!(matches!(change.live, LiveChange::Changed | LiveChange::Pending), "{change:?}");
    until("the channel to be gone", async || present(&hypervisor, id).await.channel.is_none().then_some(()))
        .await;
    let change = hypervisor.remove_channel(id).await.unwrap();
    assert_eq!(change.config, ConfigChange::Unchanged);
    assert!(matches!(change.live, LiveChange::Unchanged), "{change:?}");
}

#[tokio::test]
async fn a_channel_that_cannot_be_attached_waits_for_the_next_start() {
    let hypervisor = connect(URI).await;
    let domain = Domain::new(URI);
    let id = domain.id;
    let directory = tempfile::tempdir().unwrap();
    let (socket, other) = (directory.path().join("a.sock"), directory.path().join("b.sock"));
    hypervisor.define(id, domain_xml("qemu", id, &domain.name, None)).await.unwrap();
    hypervisor.start(id).await.unwrap();

    // Without a virtio-serial controller there is nowhere to plug a port in, and QEMU's
    // controllers cannot be added while it runs.
    let change = hypervisor.add_channel(id, socket.clone()).await.unwrap();
    assert_eq!(change.config, ConfigChange::Changed);
    assert!(matches!(change.live, LiveChange::Refused(_)), "{change:?}");
    assert_eq!(present(&hypervisor, id).await.channel, None);
    hypervisor.destroy(id).await.unwrap();
    hypervisor.start(id).await.unwrap();
    assert_eq!(present(&hypervisor, id).await.channel.unwrap().path, socket);

    let change = hypervisor.add_channel(id, other.clone()).await.unwrap();
    assert_eq!(change.config, ConfigChange::Changed);
    assert!(matches!(&change.live, LiveChange::OtherPath(path) if *path == socket), "{change:?}");
    assert_eq!(present(&hypervisor, id).await.channel.unwrap().path, socket, "until the next start");
    hypervisor.destroy(id).await.unwrap();
    assert_eq!(present(&hypervisor, id).await.channel.unwrap().path, other);

    let relative = hypervisor.add_channel(id, Path::new("relative.sock").to_owned()).await.unwrap_err();
    assert!(matches!(relative, HypervisorError::Invalid { .. }), "{relative:?}");
}

fn with_serial_controller(id: VmId, name: &str) -> String {
    domain_xml("qemu", id, name, None)
        .replace("<devices>", "<devices><controller type='virtio-serial' index='0'/>")
}

#[tokio::test]
async fn leases_of_a_network_come_in_one_call() {
    let hypervisor = connect(URI).await;
    let name = format!("hyp{}", &VmId::generate().uuid().simple().to_string()[24..]);
    let network = Network::new(&name);
    assert_eq!(hypervisor.leases(&network.name).await.unwrap(), [], "nobody lives in it");
    let missing = hypervisor.leases("hyper-no-such-network").await.unwrap_err();
    assert!(matches!(missing, HypervisorError::NotFound { .. }), "{missing:?}");
    let host = hypervisor.host().await.unwrap();
    assert!(host.networks.iter().any(|network| network.name == name && !network.active), "{host:?}");

    let domain = Domain::new(URI);
    let xml = domain_xml("qemu", domain.id, &domain.name, None).replace(
        "<devices>",
        &format!("<devices><interface type='network'><source network='{name}'/></interface>"),
    );
    hypervisor.define(domain.id, xml).await.unwrap();
    let refused = hypervisor.start(domain.id).await.unwrap_err();
    let words = std::error::Error::source(&refused).expect("libvirt's words").to_string();
    assert!(words.contains("is not active"), "an inactive network is named as the reason: {words}");
    let facts = present(&hypervisor, domain.id).await;
    assert_eq!(facts.interfaces[0].network.as_deref(), Some(name.as_str()));
}

/// A defined, inactive network.
struct Network {
    name: String,
}

impl Network {
    fn new(name: &str) -> Self {
        let connection = Connect::open(Some(URI)).expect("open libvirt");
        let xml = format!("<network><name>{name}</name><bridge name='{name}'/></network>");
        connection.define_network_xml(&xml).expect("define the test's network");
        Self { name: name.to_owned() }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let Ok(connection) = Connect::open(Some(URI)) else { return };
        let Ok(network) = connection.lookup_network_by_name(&self.name) else { return };
        let _ = network.destroy();
        let _ = network.undefine();
    }
}

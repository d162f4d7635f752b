//! What the domain XML room writes, judged by libvirt itself: its schema, its test driver and the
//! QEMU driver of this host.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "support/guests.rs"]
mod guests;
#[path = "support/wait.rs"]
mod wait;

use std::{
    io::Write,
    path::Path,
    process::{Command, Output},
};

use infinibay::{
    domain_xml::{
        DomainInputs, DomainKind, Templates, boot_from_disk, inject_channel, mac_address, read_facts,
        remove_channel, render,
    },
    vm::{
        Base, Disc, Firmware, Image, ImageFormat, InstallFamily, Installation, InstallerBoot, KernelBoot,
        NetworkAttachment, OsFamily, PowerKeeping, Provisioning, Unattended, VmId, VmSpec, WindowsRelease,
    },
};

const SOCKET: &str = "/run/infinibay/agents/domxml-test.sock";

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program} cannot be run ({e}); it is needed for this test"))
}

fn succeed(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?} failed: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn file_with(xml: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().prefix("domxml-").suffix(".xml").tempfile().unwrap();
    file.write_all(xml.as_bytes()).unwrap();
    file
}

fn path_of(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

/// Undefines a domain of the QEMU driver however the test ends.
struct Undefine(VmId);

impl Drop for Undefine {
    fn drop(&mut self) {
        let id = self.0.to_string();
        // Usually it does not run, and this fails; what counts is that it is gone in the end.
        run("virsh", &["-q", "-c", "qemu:///system", "destroy", &id]);
        let output = run("virsh", &["-q", "-c", "qemu:///system", "undefine", "--nvram", &id]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("undefine {id}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Defines on the host's QEMU driver and gives back what libvirt made of it.
fn define_on_qemu(id: VmId, xml: &str) -> (Undefine, String) {
    let file = file_with(xml);
    succeed("virsh", &["-q", "-c", "qemu:///system", "define", "--validate", path_of(&file)]);
    let guard = Undefine(id);
    let dumped = succeed("virsh", &["-c", "qemu:///system", "dumpxml", "--inactive", &id.to_string()]);
    (guard, dumped)
}

fn spec(name: &str) -> VmSpec {
    VmSpec {
        name: name.parse().unwrap(),
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "debian".parse().unwrap(),
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::CloudInit,
            disk: "/images/disk.qcow2".into(),
            format: ImageFormat::Qcow2,
            virtual_bytes: 1 << 30,
            sha256: String::new(),
            kernel: None,
        }),
        vcpus: 2,
        memory_mib: 128,
        disk_bytes: 1 << 30,
        pool: "default".parse().unwrap(),
        network: NetworkAttachment::Network("default".parse().unwrap()),
        unattended: Unattended::default(),
        keeping: PowerKeeping::default(),
        devices: Default::default(),
        origin: infinibay::vm::Origin::Created,
    }
}

fn kernel() -> KernelBoot {
    KernelBoot {
        kernel: "/images/it's <a> kernel & \"more\"".into(),
        initrd: Some("/images/initrd".into()),
        cmdline: "root=LABEL=root rw console=ttyS0".to_owned(),
    }
}

/// Windows, installed with its drivers for virtio or without.
fn windows(virtio: bool) -> Base {
    let disc = || Disc { medium: "disc".parse().unwrap(), path: "/media/disc.iso".into() };
    Base::Installation(Box::new(Installation {
        disc: disc(),
        family: InstallFamily::Windows(WindowsRelease::Windows11),
        label: None,
        kernel: None,
        drivers: virtio.then(disc),
        mirror: None,
        edition: None,
        medium_language: None,
        agent: true,
        token: None,
    }))
}

/// Every shape that a domain can take: with and without kernel, seed, console log, network; of each
/// family, with every firmware, with and without a TPM.
fn shapes(kind: DomainKind, name: &str) -> Vec<(VmId, String)> {
    let templates = Templates::load(None).unwrap();
    let image = |of: fn(&mut Image)| {
        let mut image = spec(name).image().unwrap().clone();
        of(&mut image);
        Base::Image(image)
    };
    let full = VmSpec { base: image(|image| image.kernel = Some(kernel())), ..spec(name) };
    let bare = VmSpec { network: NetworkAttachment::None, ..spec(name) };
    let user = VmSpec { network: NetworkAttachment::User, ..spec(name) };
    let panes = VmSpec { base: image(|image| image.os_family = OsFamily::Windows), ..user.clone() };
    let installed = VmSpec { base: windows(false), ..bare.clone() };
    let with_drivers = VmSpec { base: windows(true), ..spec(name) };
    let kinds = [
        (Firmware::Bios, false),
        (Firmware::Bios, true),
        (Firmware::Uefi, false),
        (Firmware::Uefi, true),
        (Firmware::UefiSecureBoot, false),
        (Firmware::UefiSecureBoot, true),
    ];
    [(full, true), (user, true), (bare, false), (panes, true), (installed, false), (with_drivers, true)]
        .iter()
        .flat_map(|(spec, all)| kinds.map(|(firmware, tpm)| (VmSpec { firmware, tpm, ..spec.clone() }, *all)))
        .map(|(spec, all)| {
            let spec = &spec;
            let id = VmId::generate();
            let inputs = DomainInputs {
                id,
                spec,
                kind,
                disk_path: Path::new("/disks/it's <a> disk.qcow2"),
                seed_path: all.then_some(Path::new("/seeds/a & b.iso")),
                socket_path: Path::new(SOCKET),
                console_log: all.then_some(Path::new("/var/log/domxml-\"x\".log")),
                installer: None,
            };
            (id, render(&templates, &inputs).unwrap())
        })
        .collect()
}

/// A domain that boots an installer, with its discs.
fn installer(kind: DomainKind, name: &str) -> (VmId, String) {
    let spec = VmSpec { network: NetworkAttachment::User, ..spec(name) };
    let discs = vec!["/media/it's <a> disc.iso".into(), "/seeds/a & b.iso".into()];
    let boot = InstallerBoot { kernel: Some(kernel()), discs };
    installing(kind, &spec, &boot, Path::new("/disks/disk.qcow2"))
}

/// One whose firmware boots Windows' disc, with the drivers for virtio beside it or without.
fn windows_installer(kind: DomainKind, name: &str, virtio: bool, dir: &Path) -> (VmId, String) {
    let spec = VmSpec {
        network: NetworkAttachment::User,
        base: windows(virtio),
        firmware: Firmware::UefiSecureBoot,
        tpm: true,
        ..spec(name)
    };
    let discs = windows_discs(virtio).iter().map(|disc| dir.join(disc)).collect();
    installing(kind, &spec, &InstallerBoot { kernel: None, discs }, &dir.join("disk.qcow2"))
}

fn windows_discs(virtio: bool) -> &'static [&'static str] {
    if virtio { &["windows.iso", "answers.iso", "drivers.iso"] } else { &["windows.iso", "answers.iso"] }
}

fn installing(kind: DomainKind, spec: &VmSpec, boot: &InstallerBoot, disk: &Path) -> (VmId, String) {
    let id = VmId::generate();
    let inputs = DomainInputs {
        id,
        spec,
        kind,
        disk_path: disk,
        seed_path: None,
        socket_path: Path::new(SOCKET),
        console_log: boot.kernel.is_some().then_some(Path::new("/var/log/domxml.log")),
        installer: Some(boot),
    };
    (id, render(&Templates::load(None).unwrap(), &inputs).unwrap())
}

/// Every domain that boots an installer.
fn installers(kind: DomainKind, name: &str) -> Vec<(VmId, String)> {
    let windows = [false, true].map(|virtio| windows_installer(kind, name, virtio, Path::new("/media")));
    std::iter::once(installer(kind, name)).chain(windows).collect()
}

#[test]
fn an_installers_boot_is_replaced_by_the_disks_and_nothing_else_changes() {
    for kind in [DomainKind::Kvm, DomainKind::Qemu, DomainKind::Test] {
        for (_, xml) in installers(kind, "domxml-installer") {
            succeed("virt-xml-validate", &[path_of(&file_with(&xml)), "domain"]);
        }
    }
    let (id, xml) = installer(DomainKind::Qemu, "domxml-installer");
    let (_guard, dumped) = define_on_qemu(id, &xml);
    for part in ["<on_reboot>destroy</on_reboot>", "<kernel>", "<initrd>", "console=ttyS0"] {
        assert!(dumped.contains(part), "{part} is not in {dumped}");
    }
    let media = ["/media/it's <a> disc.iso".into(), "/seeds/a & b.iso".into()];
    let from_disk = boot_from_disk(&dumped, &media).unwrap();
    succeed("virt-xml-validate", &[path_of(&file_with(&from_disk.xml)), "domain"]);
    let file = file_with(&from_disk.xml);
    succeed("virsh", &["-q", "-c", "qemu:///system", "define", "--validate", path_of(&file)]);
    let after = succeed("virsh", &["-c", "qemu:///system", "dumpxml", "--inactive", &id.to_string()]);
    assert_eq!(read_facts(&after).unwrap(), read_facts(&dumped).unwrap());
    assert!(
        after.contains("<on_reboot>restart</on_reboot>") && after.contains("<boot dev='hd'/>"),
        "{after}"
    );
    assert!(!after.contains("cdrom") && !after.contains("<kernel>"), "{after}");
    assert!(!boot_from_disk(&after, &media).unwrap().changed, "{after}");
}

#[test]
fn rendered_domains_pass_libvirts_schema() {
    for kind in [DomainKind::Kvm, DomainKind::Qemu, DomainKind::Test] {
        for (_, xml) in shapes(kind, "domxml-schema") {
            succeed("virt-xml-validate", &[path_of(&file_with(&xml)), "domain"]);
        }
    }
}

#[test]
fn the_test_driver_defines_and_starts_rendered_domains() {
    let installers = installers(DomainKind::Test, "domxml-testdriver");
    for (id, xml) in shapes(DomainKind::Test, "domxml-testdriver").into_iter().chain(installers) {
        let file = file_with(&xml);
        let script = format!("define {0}; start {id}; dumpxml {id}", path_of(&file));
        let told = succeed("virsh", &["-q", "-c", "test:///default", &script]);
        let dumped = &told[told.find("<domain").unwrap_or_else(|| panic!("no XML in {told}"))..];
        let facts = read_facts(dumped.trim()).unwrap();
        assert_eq!(facts.id, id);
        assert_eq!(facts.channel.expect("the channel was kept").path, Path::new(SOCKET));
        assert!(facts.managed, "the metadata was not kept");
    }
}

#[test]
fn the_qemu_driver_defines_rendered_domains() {
    for (id, xml) in shapes(DomainKind::Qemu, "domxml-qemu") {
        let (_guard, dumped) = define_on_qemu(id, &xml);
        let (facts, asked) = (read_facts(&dumped).unwrap(), read_facts(&xml).unwrap());
        assert_eq!(facts, asked, "libvirt changed what we rely on: {dumped}");
        if let Some(card) = facts.interfaces.first() {
            assert_eq!(card.mac, mac_address(id));
        }
        let free = dumped.matches("model='pcie-root-port'").count();
        let used = dumped.matches("slot='0x00' function='0x0'/>").count();
        assert!(free >= used + 8, "{free} root ports, {used} used; 8 are to be left: {dumped}");
        // Nothing to do on what we rendered.
        assert!(!inject_channel(&dumped, id, Path::new(SOCKET)).unwrap().changed);
    }
}

#[test]
fn the_channel_enters_and_leaves_a_domain_of_libvirts_own_making() {
    let original = succeed("virsh", &["-c", "test:///default", "dumpxml", "test"]);
    let id = read_facts(&original).unwrap().id;
    let injected = inject_channel(&original, id, Path::new(SOCKET)).unwrap();
    assert!(injected.changed);
    succeed("virt-xml-validate", &[path_of(&file_with(&injected.xml)), "domain"]);
    assert_eq!(remove_channel(&injected.xml).unwrap().xml, original, "taking it out gives the original");
    let file = file_with(&injected.xml);
    let script = format!("define {}; dumpxml --inactive test", path_of(&file));
    let told = succeed("virsh", &["-q", "-c", "test:///default", &script]);
    let kept = read_facts(told[told.find("<domain").unwrap()..].trim()).unwrap();
    assert_eq!(kept.channel.unwrap().path, Path::new(SOCKET));
}

#[test]
fn libvirt_adds_the_controllers_that_an_injected_channel_needs() {
    let minimal = |id: VmId, devices: &str| {
        format!(
            "<domain type='qemu'><name>domxml-{id}</name><uuid>{id}</uuid><memory unit='MiB'>64</memory>\
             <vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>{devices}</domain>"
        )
    };
    // No controller; one without a free port; a channel to be repaired at an address of its own.
    let table = [
        ("<devices/>", "index='0'"),
        ("", "index='0'"),
        (
            "<devices><controller type='virtio-serial' index='0' ports='1'/></devices>",
            "controller type='virtio-serial' index='1'",
        ),
        (
            "<devices><channel type='pty'><target type='virtio' name='org.infinibay.agent'/>\
             <address type='virtio-serial' controller='2' bus='0' port='5'/></channel></devices>",
            "controller type='virtio-serial' index='2'",
        ),
    ];
    for (devices, expected) in table {
        let id = VmId::generate();
        let injected = inject_channel(&minimal(id, devices), id, Path::new(SOCKET)).unwrap();
        assert!(injected.changed && !injected.xml.contains(expected));
        let (_guard, dumped) = define_on_qemu(id, &injected.xml);
        assert!(dumped.contains("<controller type='virtio-serial'") && dumped.contains(expected), "{dumped}");
        assert_eq!(read_facts(&dumped).unwrap().channel.unwrap().path, Path::new(SOCKET));
    }
}

#[test]
fn whatever_is_accepted_libxml2_accepts_too() {
    use proptest::{
        prelude::*,
        test_runner::{Config, TestRunner},
    };
    let original = succeed("virsh", &["-c", "test:///default", "dumpxml", "test"]);
    let id = read_facts(&original).unwrap().id;
    let mut runner = TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() });
    let noise = "[<>/'\"&;=!?\\[\\]a-z0-9:. \\n-]{0,3}";
    let mutation = (0..original.len(), 0_usize..4, noise);
    let accepted = std::cell::Cell::new(0_u32);
    runner
        .run(&prop::collection::vec(mutation, 1..3), |mutations| {
            let mut xml = original.clone();
            for (at, length, new) in mutations {
                let at = at.min(xml.len());
                let end = (at + length).min(xml.len());
                xml.replace_range(at..end, &new);
            }
            if let Ok(injection) = inject_channel(&xml, id, Path::new(SOCKET)) {
                accepted.set(accepted.get() + 1);
                let file = file_with(&injection.xml);
                let output = run("xmllint", &["--noout", path_of(&file)]);
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                // Undeclared prefixes are no fault of form, and libvirt takes them.
                let form = said.contains("parser error");
                prop_assert!(!form, "{said}\n{}", injection.xml);
            }
            Ok(())
        })
        .unwrap();
    let accepted = accepted.get();
    assert!(accepted > 20, "only {accepted} mutations were accepted; the test says nothing");
}

#[test]
fn a_rendered_domain_starts_and_qemu_binds_the_agents_socket() {
    let _place = guests::Places::take(1);
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let dir = tempfile::Builder::new().prefix("domxml-").tempdir().unwrap();
    // QEMU runs as a user of its own, and makes the socket in here.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let at = |name: &str| dir.path().join(name);
    succeed("qemu-img", &["create", "-q", "-f", "qcow2", at("disk.qcow2").to_str().unwrap(), "8M"]);
    std::fs::write(at("seed.iso"), vec![0; 4096]).unwrap();
    let id = VmId::generate();
    let spec = VmSpec { network: NetworkAttachment::User, ..spec(&format!("domxml-{id}")) };
    let inputs = DomainInputs {
        id,
        spec: &spec,
        kind: DomainKind::Qemu,
        disk_path: &at("disk.qcow2"),
        seed_path: Some(&at("seed.iso")),
        socket_path: &at("agent.sock"),
        console_log: Some(&at("console.log")),
        installer: None,
    };
    let xml = render(&Templates::load(None).unwrap(), &inputs).unwrap();
    let (_guard, _) = define_on_qemu(id, &xml);
    succeed("virsh", &["-q", "-c", "qemu:///system", "start", &id.to_string()]);
    let live = succeed("virsh", &["-c", "qemu:///system", "dumpxml", &id.to_string()]);
    let socket = std::fs::symlink_metadata(at("agent.sock"));
    let console = std::fs::metadata(at("console.log"));
    succeed("virsh", &["-q", "-c", "qemu:///system", "destroy", &id.to_string()]);
    let facts = read_facts(&live).unwrap();
    assert_eq!(facts.channel.expect("the live XML has the channel").guest_connected, Some(false));
    assert!(socket.expect("the socket is there").file_type().is_socket());
    assert!(console.is_ok(), "the console is not logged");
    assert!(live.contains("<graphics type='vnc' socket="), "VNC is on the network: {live}");
}

#[test]
fn windows_starts_with_all_that_it_wants() {
    let _place = guests::Places::take(1);
    let dir = tempfile::Builder::new().prefix("domxml-").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let at = |name: &str| dir.path().join(name);
    succeed("qemu-img", &["create", "-q", "-f", "qcow2", at("disk.qcow2").to_str().unwrap(), "8M"]);
    for (virtio, bus, card) in [(false, "bus='sata'", "e1000e"), (true, "bus='virtio'", "virtio")] {
        let id = VmId::generate();
        let spec = VmSpec {
            network: NetworkAttachment::User,
            base: windows(virtio),
            firmware: Firmware::UefiSecureBoot,
            tpm: true,
            ..spec(&format!("domxml-{id}"))
        };
        let inputs = DomainInputs {
            id,
            spec: &spec,
            kind: DomainKind::Qemu,
            disk_path: &at("disk.qcow2"),
            seed_path: None,
            socket_path: &at("agent.sock"),
            console_log: None,
            installer: None,
        };
        let xml = render(&Templates::load(None).unwrap(), &inputs).unwrap();
        let (_guard, _) = define_on_qemu(id, &xml);
        succeed("virsh", &["-q", "-c", "qemu:///system", "start", &id.to_string()]);
        let live = succeed("virsh", &["-c", "qemu:///system", "dumpxml", &id.to_string()]);
        for part in [bus, card, "secure='yes'", "<smm state='on'/>", "model='tpm-crb'", "machine='pc-q35-"] {
            assert!(live.contains(part), "{part} is not in {live}");
        }
        let variables = format!("/infinibay-{id}_VARS.fd</nvram>");
        assert!(live.contains(&variables), "the variables' file is not named by the id: {live}");
    }
}

/// Windows' set-up at work: its discs lie on SATA beside its disk, firmware tries the disk first, and when
/// it is done they leave the running domain and its configuration.
#[test]
fn windows_is_installed_from_drives_that_it_can_read() {
    let _place = guests::Places::take(1);
    let dir = tempfile::Builder::new().prefix("domxml-").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let at = |name: &str| dir.path().join(name);
    succeed("qemu-img", &["create", "-q", "-f", "qcow2", at("disk.qcow2").to_str().unwrap(), "8M"]);
    for disc in windows_discs(true) {
        std::fs::write(at(disc), vec![0; 4096]).unwrap();
    }
    for virtio in [false, true] {
        let name = format!("domxml-{}", VmId::generate());
        let (id, xml) = windows_installer(DomainKind::Qemu, &name, virtio, dir.path());
        let xml = xml.replace(SOCKET, at("agent.sock").to_str().unwrap());
        let (_guard, defined) = define_on_qemu(id, &xml);
        assert_eq!(read_facts(&defined).unwrap(), read_facts(&xml).unwrap(), "{defined}");
        succeed("virsh", &["-q", "-c", "qemu:///system", "start", &id.to_string()]);
        let live = succeed("virsh", &["-c", "qemu:///system", "dumpxml", &id.to_string()]);
        let order = (live.find("<boot dev='hd'/>"), live.find("<boot dev='cdrom'/>"));
        assert!(matches!(order, (Some(disk), Some(disc)) if disk < disc), "{live}");
        assert!(live.contains("<on_reboot>restart</on_reboot>"), "{live}");
        let drives = live.matches("device='cdrom'").count();
        assert_eq!(drives, windows_discs(virtio).len(), "{live}");
        let sata = live.matches("bus='sata'").count();
        assert_eq!(sata, drives + usize::from(!virtio), "{live}");

        let media: Vec<_> = windows_discs(virtio).iter().map(|disc| at(disc)).collect();
        let from_disk = boot_from_disk(&defined, &media).unwrap();
        let file = file_with(&from_disk.xml);
        succeed("virsh", &["-q", "-c", "qemu:///system", "define", "--validate", path_of(&file)]);
        let after = succeed("virsh", &["-c", "qemu:///system", "dumpxml", "--inactive", &id.to_string()]);
        assert!(!after.contains("cdrom") && after.contains("<boot dev='hd'/>"), "{after}");
        assert!(after.contains("<on_reboot>restart</on_reboot>"), "{after}");
    }
}

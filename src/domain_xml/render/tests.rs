use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{DomainInputs, DomainKind, RenderError, Templates, render};
use crate::{
    domain_xml::{document::Document, mac_address, read_facts},
    vm::{
        Base, Disc, Firmware, Image, ImageFormat, InstallFamily, Installation, InstallerBoot, KernelBoot,
        NetworkAttachment, OsFamily, PowerKeeping, Provisioning, Unattended, VmId, VmSpec, WindowsRelease,
    },
};

fn spec() -> VmSpec {
    VmSpec {
        name: "web-1".parse().unwrap(),
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "debian".parse().unwrap(),
            description: "d".to_owned(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::CloudInit,
            disk: "/images/debian/disk.qcow2".into(),
            format: ImageFormat::Qcow2,
            virtual_bytes: 1 << 30,
            sha256: String::new(),
            kernel: None,
        }),
        vcpus: 2,
        memory_mib: 512,
        disk_bytes: 1 << 30,
        pool: "default".parse().unwrap(),
        network: NetworkAttachment::Network("default".parse().unwrap()),
        unattended: Unattended::default(),
        keeping: PowerKeeping::default(),
        devices: Default::default(),
        origin: crate::vm::Origin::Created,
    }
}

fn inputs(spec: &VmSpec) -> DomainInputs<'_> {
    DomainInputs {
        id: VmId::generate(),
        spec,
        kind: DomainKind::Qemu,
        disk_path: Path::new("/disks/a.qcow2"),
        seed_path: None,
        socket_path: Path::new("/run/a.sock"),
        console_log: None,
        installer: None,
    }
}

fn value_at(xml: &str, path: &[&str], attribute: &str) -> Option<String> {
    let document = Document::parse(xml).unwrap();
    let mut elements = vec![document.root()];
    for name in path {
        elements = elements.into_iter().flat_map(|e| document.children(e, name)).collect();
    }
    elements.into_iter().find_map(|e| match attribute {
        "" => Some(document.text_of(e).unwrap()),
        _ => e.value(attribute).map(str::to_owned),
    })
}

#[test]
fn a_domain_has_what_its_specification_says() {
    let templates = Templates::load(None).unwrap();
    let mut spec = spec();
    spec.image_mut().unwrap().kernel = Some(KernelBoot {
        kernel: "/images/vmlinuz".into(),
        initrd: Some("/images/initrd".into()),
        cmdline: "root=LABEL=root rw".to_owned(),
    });
    let mut inputs = inputs(&spec);
    inputs.seed_path = Some(Path::new("/seeds/a.iso"));
    inputs.console_log = Some(Path::new("/logs/a.log"));
    let xml = render(&templates, &inputs).unwrap();
    let at = |path: &[&str], attribute| value_at(&xml, path, attribute);
    let expect = |path: &[&str], attribute, value: &str| {
        assert_eq!(at(path, attribute).as_deref(), Some(value), "{path:?} {attribute} in {xml}");
    };
    expect(&[], "type", "qemu");
    expect(&["memory"], "", "512");
    expect(&["memory"], "unit", "MiB");
    expect(&["vcpu"], "", "2");
    expect(&["os", "kernel"], "", "/images/vmlinuz");
    expect(&["os", "initrd"], "", "/images/initrd");
    expect(&["os", "cmdline"], "", "root=LABEL=root rw");
    expect(&["devices", "disk", "source"], "file", "/disks/a.qcow2");
    expect(&["devices", "serial", "log"], "file", "/logs/a.log");
    expect(&["devices", "serial", "log"], "append", "on");
    assert!(xml.contains("<source file='/seeds/a.iso'/>"), "{xml}");
    let facts = read_facts(&xml).unwrap();
    assert_eq!(facts.interfaces.len(), 1);
    assert_eq!(facts.interfaces[0].mac, mac_address(inputs.id));
    assert_eq!(facts.interfaces[0].network.as_deref(), Some("default"));
    assert_eq!(facts.channel.unwrap().path, Path::new("/run/a.sock"));
    assert!(facts.managed);
}

#[test]
fn what_is_not_there_leaves_no_element() {
    let templates = Templates::load(None).unwrap();
    let mut spec = spec();
    for (network, kind) in [(NetworkAttachment::User, Some("user")), (NetworkAttachment::None, None)] {
        spec.network = network;
        let xml = render(&templates, &inputs(&spec)).unwrap();
        assert_eq!(value_at(&xml, &["devices", "interface"], "type").as_deref(), kind);
        for absent in [&["os", "kernel"][..], &["devices", "serial", "log"]] {
            assert_eq!(value_at(&xml, absent, ""), None, "{absent:?}");
        }
        assert!(!xml.contains("cdrom") && !xml.contains("{#"), "{xml}");
    }
}

#[test]
fn an_installers_domain_boots_it_and_ends_when_the_guest_boots_anew() {
    let templates = Templates::load(None).unwrap();
    let spec = spec();
    let kernel = KernelBoot { kernel: "/s/k".into(), initrd: Some("/s/i".into()), cmdline: "a b".to_owned() };
    let installer = InstallerBoot { kernel: Some(kernel), discs: vec!["/m/a.iso".into(), "/s/b.iso".into()] };
    let inputs_of = |installer| {
        let console_log = Some(Path::new("/logs/a.log"));
        DomainInputs { installer: Some(installer), console_log, ..inputs(&spec) }
    };
    let xml = render(&templates, &inputs_of(&installer)).unwrap();
    let log = value_at(&xml, &["devices", "serial", "log"], "append");
    assert_eq!(log.as_deref(), Some("off"), "what an attempt wrote is none of the next one's");
    let at = |path: &[&str], attribute: &str| value_at(&xml, path, attribute);
    assert_eq!(at(&["os", "cmdline"], "").as_deref(), Some("a b"));
    assert_eq!(at(&["on_reboot"], "").as_deref(), Some("destroy"));
    assert_eq!(crate::domain_xml::drives_with(&xml, &installer.discs).unwrap(), ["sda", "sdb"]);
    assert!(xml.contains("bus='sata'") && !xml.contains("virtio-scsi"), "{xml}");
    let firmware = InstallerBoot { kernel: None, ..installer };
    let xml = render(&templates, &DomainInputs { installer: Some(&firmware), ..inputs(&spec) }).unwrap();
    assert!(xml.find("<boot dev='hd'/>").unwrap() < xml.find("<boot dev='cdrom'/>").unwrap(), "{xml}");
    let xml = render(&templates, &inputs(&spec)).unwrap();
    assert_eq!(value_at(&xml, &["on_reboot"], "").as_deref(), Some("restart"));
}

#[test]
fn an_operators_template_is_used_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec();
    let inputs = inputs(&spec);
    let try_with = |template: &str| {
        std::fs::write(dir.path().join("linux.xml"), template).unwrap();
        render(&Templates::load(Some(dir.path()))?, &inputs)
    };
    let good = "<domain><name>{{ name|safe }}</name><uuid>{{ id }}</uuid><metadata>\
        <i:vm xmlns:i='{{ metadata_namespace }}' id='{{ id }}'/></metadata><devices><channel type='unix'>\
        <source mode='bind' path='{{ socket }}'/><target type='virtio' name='{{ channel_name }}'/></channel>\
        </devices></domain>";
    assert!(try_with(good).unwrap().starts_with("<domain><name>web-1</name>"));
    for (part, from, to) in [
        ("id", "<uuid>{{ id }}", "<uuid>018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d"),
        ("name", "{{ name|safe }}", "x{{ name }}"),
        ("agent channel", "{{ channel_name }}", "org.example"),
        ("agent channel", "{{ socket }}", "/tmp/{{ id }}"),
        ("metadata element", "{{ metadata_namespace }}", "urn:x"),
    ] {
        let result = try_with(&good.replace(from, to));
        assert!(
            matches!(result, Err(RenderError::Missing { part: p, .. }) if p == part),
            "{part}: {result:?}"
        );
    }
    // One that knows of no installers installs nothing.
    std::fs::write(dir.path().join("linux.xml"), good).unwrap();
    let installer = InstallerBoot { kernel: None, discs: vec!["/m/a.iso".into()] };
    let blind = render(
        &Templates::load(Some(dir.path())).unwrap(),
        &DomainInputs { installer: Some(&installer), ..inputs },
    );
    assert!(matches!(blind, Err(RenderError::Missing { part: "installer's discs", .. })), "{blind:?}");
    for (broken, why) in
        [("<domain>{{ id", "syntax"), ("<domain>{{ nonsense }}</domain>", "unknown"), ("{{ seed }}", "unset")]
    {
        assert!(matches!(try_with(broken), Err(RenderError::Template { .. })), "{why}");
    }
    for broken in ["", "<domain>", "<network/>", "{{ good }}</domain>".trim_start_matches("{{ good }}")] {
        assert!(matches!(try_with(broken), Err(RenderError::NotADomain { .. })), "{broken:?}");
    }
    std::fs::remove_file(dir.path().join("linux.xml")).unwrap();
    std::fs::create_dir(dir.path().join("linux.xml")).unwrap();
    assert!(matches!(Templates::load(Some(dir.path())), Err(RenderError::Read { .. })));
    assert!(Templates::load(Some(Path::new("/nowhere"))).is_ok(), "a missing directory has no templates");
}

#[test]
fn every_family_has_a_template() {
    let templates = Templates::load(None).unwrap();
    for family in OsFamily::ALL {
        assert!(templates.has(family), "{family}");
    }
}

#[test]
fn firmware_and_tpm_are_those_that_were_asked_for() {
    let templates = Templates::load(None).unwrap();
    for family in OsFamily::ALL {
        for (firmware, tpm, secure) in [
            (Firmware::Bios, false, None),
            (Firmware::Uefi, true, Some("no")),
            (Firmware::UefiSecureBoot, true, Some("yes")),
        ] {
            let mut spec = VmSpec { firmware, tpm, ..spec() };
            spec.image_mut().unwrap().os_family = family;
            let inputs = inputs(&spec);
            let xml = render(&templates, &inputs).unwrap();
            let at = |path: &[&str], attribute| value_at(&xml, path, attribute);
            assert_eq!(at(&["os"], "firmware").as_deref(), firmware.is_uefi().then_some("efi"));
            let features = xml.matches("<feature enabled=").count();
            assert_eq!(features, if firmware.is_uefi() { 2 } else { 0 }, "{xml}");
            assert_eq!(at(&["os", "firmware", "feature"], "enabled").as_deref(), secure);
            let smm = at(&["features", "smm"], "state");
            assert_eq!(smm.is_some(), firmware == Firmware::UefiSecureBoot, "{xml}");
            let variables = at(&["os", "nvram"], "");
            assert_eq!(variables.is_some(), firmware.is_uefi());
            assert!(variables.is_none_or(|path| path.contains(&inputs.id.to_string())), "{xml}");
            let backend = at(&["devices", "tpm", "backend"], "version");
            assert_eq!(backend.as_deref(), tpm.then_some("2.0"));
        }
    }
}

#[test]
fn windows_is_given_virtio_only_with_its_drivers() {
    let templates = Templates::load(None).unwrap();
    let disc = || Disc { medium: "windows".parse().unwrap(), path: "/media/a.iso".into() };
    let windows = |drivers| Installation {
        disc: disc(),
        family: InstallFamily::Windows(WindowsRelease::Windows10),
        label: None,
        kernel: None,
        drivers,
        mirror: None,
        edition: None,
        medium_language: None,
        agent: true,
        token: None,
    };
    for (drivers, disk, card) in [(None, "sata", "e1000e"), (Some(disc()), "virtio", "virtio")] {
        let spec = VmSpec { base: Base::Installation(Box::new(windows(drivers))), ..spec() };
        let xml = render(&templates, &inputs(&spec)).unwrap();
        let at = |path: &[&str], attribute| value_at(&xml, path, attribute);
        assert_eq!(at(&["devices", "disk", "target"], "bus").as_deref(), Some(disk), "{xml}");
        assert_eq!(at(&["devices", "disk", "target"], "dev").as_deref(), Some("vda"), "{xml}");
        assert_eq!(at(&["devices", "interface", "model"], "type").as_deref(), Some(card), "{xml}");
        // As its answers say.
        assert_eq!(at(&["clock"], "offset").as_deref(), Some("utc"));
    }
    let mut spec = spec();
    spec.image_mut().unwrap().os_family = OsFamily::Windows;
    let xml = render(&templates, &inputs(&spec)).unwrap();
    assert_eq!(value_at(&xml, &["clock"], "offset").as_deref(), Some("localtime"));
    assert_eq!(value_at(&xml, &["devices", "disk", "target"], "bus").as_deref(), Some("sata"));
}

#[test]
fn paths_that_xml_cannot_carry_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let templates = Templates::load(None).unwrap();
    let spec = spec();
    let bytes = PathBuf::from(std::ffi::OsString::from_vec(b"/a\xff".to_vec()));
    for bad in [bytes.as_path(), Path::new("relative")] {
        let refused = render(&templates, &DomainInputs { disk_path: bad, ..inputs(&spec) });
        assert!(matches!(refused, Err(RenderError::Path(_))), "{refused:?}");
    }
    let control = DomainInputs { disk_path: Path::new("/a\u{1}"), ..inputs(&spec) };
    assert!(matches!(render(&templates, &control), Err(RenderError::Template { .. })));
}

proptest! {
    #[test]
    fn every_text_comes_back_as_it_was(path in "/[ -~\\t\\n\\rä€𝄞]{0,40}", cmdline in "[ -~ä€]{0,60}") {
        let mut spec = spec();
        spec.image_mut().unwrap().kernel =
            Some(KernelBoot { kernel: "/k".into(), initrd: None, cmdline: cmdline.clone() });
        let inputs = DomainInputs { disk_path: Path::new(&path), ..inputs(&spec) };
        let xml = render(&Templates::load(None).unwrap(), &inputs).unwrap();
        prop_assert_eq!(value_at(&xml, &["devices", "disk", "source"], "file"), Some(path));
        prop_assert_eq!(value_at(&xml, &["os", "cmdline"], ""), Some(cmdline));
    }
}

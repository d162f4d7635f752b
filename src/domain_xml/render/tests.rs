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

/// What a template must have, and nothing else.
const LEAST: &str = "{# <uuid> and {{ channel_name }}\nare told of below #}
<domain>
  <name>{{ name|safe }}</name>
  <uuid>{{ id }}</uuid>
  <metadata>
    <i:vm xmlns:i='{{ metadata_namespace }}' id='{{ id }}'/>
  </metadata>
  <os>
    {%- if kernel %}
    <kernel>{{ kernel.kernel }}</kernel>
    {%- endif %}
  </os>
  <devices>
    {%- for disc in discs %}
    <disk device='cdrom'><source file='{{ disc.file }}'/><target dev='{{ disc.target }}'/></disk>
    {%- endfor %}
    <channel type='unix'>
      <source mode='bind' path='{{ socket }}'/>
      <target type='virtio' name='{{ channel_name }}'/>
    </channel>
  </devices>
</domain>
";

/// An operator's directory with this template for both families.
fn with(template: &str) -> (tempfile::TempDir, Result<Templates, RenderError>) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["linux.xml", "windows.xml"] {
        std::fs::write(dir.path().join(name), template).unwrap();
    }
    let loaded = Templates::load(Some(dir.path()));
    (dir, loaded)
}

#[test]
fn an_operators_template_is_used_and_checked() {
    let spec = spec();
    let (_dir, loaded) = with(LEAST);
    let xml = render(&loaded.unwrap(), &inputs(&spec)).unwrap();
    assert!(xml.contains("\n<domain>\n  <name>web-1</name>"), "{xml}");
    for (part, line, from, to) in [
        ("id", 5, "<uuid>{{ id }}", "<uuid>018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d"),
        ("name", 4, "{{ name|safe }}", "x{{ name }}"),
        ("agent channel", 19, "{{ channel_name }}'", "org.example'"),
        ("agent channel", 20, "{{ socket }}", "/tmp/{{ id }}"),
        ("agent channel", 20, "<channel type='unix'>", "<channel type='pty'>"),
        ("metadata element", 6, "{{ metadata_namespace }}", "urn:x"),
        // One that knows of no installers installs nothing.
        ("installer's discs", 15, "in discs", "in discs[1:]"),
        ("installer's discs", 14, "in discs", "in []"),
        ("installer's kernel", 11, "{%- if kernel %}\n", "{%- if false %}\n"),
        // Not every VM meets its branch.
        (
            "agent channel",
            19,
            "{{ channel_name }}'",
            "{{ 'x' if firmware.secure_boot and tpm else channel_name }}'",
        ),
    ] {
        let (dir, loaded) = with(&LEAST.replace(from, to));
        let error = loaded.unwrap_err();
        assert!(matches!(error, RenderError::Missing { part: p, .. } if p == part), "{part}: {error}");
        assert_at(&error, dir.path(), line);
    }
}

#[track_caller]
fn assert_at(error: &RenderError, dir: &Path, line: usize) {
    let place = format!("{}:{line} ", dir.join("linux.xml").display());
    assert!(format!("{error} ").contains(&place), "not {place}: {error}");
}

#[test]
fn a_broken_template_is_refused_with_its_file_and_line() {
    for (broken, line, why) in [
        ("<domain>\n{{ id", 2, "syntax"),
        ("<domain>\n\n{% if %}</domain>", 3, "syntax"),
        ("<domain>\n{{ nonsense }}</domain>", 2, "unknown"),
        ("<domain>\n\n{{ kernel.nonsense }}</domain>", 3, "unknown in what is unset"),
        ("<domain/>\n{{ seed }}", 2, "unset"),
        ("{% if network.kind == 'user' and kind == 'kvm' %}\n{{ nonsense }}{% endif %}", 2, "a branch"),
    ] {
        let whole = if why == "a branch" { format!("{broken}{LEAST}") } else { broken.to_owned() };
        let (dir, loaded) = with(&whole);
        let error = loaded.unwrap_err();
        assert!(matches!(error, RenderError::Template { .. }), "{why}: {error}");
        assert_at(&error, dir.path(), line);
    }
    for (broken, line) in [
        ("", 1),
        ("\n<domain>", 2),
        ("\n<network/>", 2),
        ("{# a #}</domain>", 1),
        ("<domain>\n<a name='{{ name }}'>\n</b>\n</domain>", 3),
        ("<domain>\n{% if tpm %}\n<a b=c/>\n{% endif %}\n</domain>", 1),
        ("<domain>\n<uuid>{{ id }}</uuid>\n<a b={{ name }}/>\n</domain>", 3),
    ] {
        let (dir, loaded) = with(broken);
        let error = loaded.unwrap_err();
        assert!(matches!(error, RenderError::NotADomain { .. }), "{broken:?}: {error}");
        assert_at(&error, dir.path(), line);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("linux.xml")).unwrap();
    let unread = Templates::load(Some(dir.path())).unwrap_err();
    assert!(matches!(unread, RenderError::Read(_)), "{unread}");
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

/// Windows' set-up boots the machine anew by itself and goes on from the disk, with its disc still in the
/// drive; and it finds nothing without a driver but what is on SATA.
#[test]
fn windows_set_up_runs_on_and_finds_its_discs() {
    let templates = Templates::load(None).unwrap();
    let disc = || Disc { medium: "windows".parse().unwrap(), path: "/media/a.iso".into() };
    for drivers in [None, Some(disc())] {
        let mut discs: Vec<PathBuf> = vec!["/media/a.iso".into(), "/seeds/answers.iso".into()];
        discs.extend(drivers.is_some().then(|| "/media/drivers.iso".into()));
        let installation = Installation {
            disc: disc(),
            family: InstallFamily::Windows(WindowsRelease::Windows11),
            label: None,
            kernel: None,
            drivers,
            mirror: None,
            edition: None,
            medium_language: None,
            agent: false,
            token: None,
        };
        let spec = VmSpec { base: Base::Installation(Box::new(installation)), ..spec() };
        let boot = InstallerBoot { kernel: None, discs: discs.clone() };
        let xml = render(&templates, &DomainInputs { installer: Some(&boot), ..inputs(&spec) }).unwrap();
        let document = &Document::parse(&xml).unwrap();
        let in_its = |group: &'static str, name: &'static str| {
            let groups = document.children(document.root(), group);
            groups.flat_map(move |group| document.children(group, name).collect::<Vec<_>>())
        };
        assert_eq!(value_at(&xml, &["on_reboot"], "").as_deref(), Some("restart"));
        let order: Vec<_> = in_its("os", "boot").map(|boot| boot.value("dev").unwrap()).collect();
        assert_eq!(order, ["hd", "cdrom"]);

        let (mut places, mut in_drives) = (std::collections::BTreeSet::new(), Vec::new());
        for disk in in_its("devices", "disk") {
            let first = |name| document.children(disk, name).next();
            let target = first("target").unwrap();
            let (name, bus) = (target.value("dev").unwrap(), target.value("bus").unwrap());
            // Where libvirt puts what is given no address: by the letter of its name, six a controller.
            let letter = u64::from(name.as_bytes()[2] - b'a');
            let place =
                first("address").map_or(letter, |address| address.value("unit").unwrap().parse().unwrap());
            if disk.value("device") == Some("cdrom") {
                assert_eq!(bus, "sata", "{xml}");
                in_drives.push(PathBuf::from(first("source").unwrap().value("file").unwrap()));
            }
            if bus == "sata" {
                assert!(place < 6 && places.insert(place), "{name} collides at {place}: {xml}");
            }
        }
        assert_eq!(in_drives, discs);
    }
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

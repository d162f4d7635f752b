use proptest::prelude::*;

use super::{
    super::hardware::{Card, DiskKind, read_hardware},
    *,
};

const XML: &str = "<!-- by hand -->\n<domain type='qemu'>\n  <memory unit='MiB'>512</memory>\n  \
    <currentMemory>524288</currentMemory>\n  <vcpu placement='static'>2</vcpu>\n  <devices>\n    \
    <disk type='file' device='disk'>\n      <source file='/p/a'/>\n      <target dev='vda' bus='virtio'/>\n    </disk>\n    \
    <disk type='file' device='cdrom'>\n      <target dev='sda' bus='scsi'/>\n    </disk>\n    <!-- kept -->\n    \
    <serial type='pty'/>\n  </devices>\n</domain>\n";

#[test]
fn a_size_changes_numbers_and_nothing_else() {
    let edited = set_size(XML, 4, 1024).unwrap();
    let expected = XML
        .replace("<memory unit='MiB'>512<", "<memory unit='KiB'>1048576<")
        .replace("<currentMemory>524288<", "<currentMemory>1048576<")
        .replace(">2</vcpu>", ">4</vcpu>");
    assert_eq!(edited, Injection { xml: expected.clone(), changed: true });
    assert_eq!(set_size(&expected, 4, 1024).unwrap(), Injection { xml: expected, changed: false });
    assert!(!set_size(XML, 2, 512).unwrap().changed);
}

#[test]
fn room_to_grow_stays_and_what_is_laid_out_is_refused() {
    let roomy = XML.replace("'static'>2<", "'static' current='2'>8<");
    let edited = set_size(&roomy, 4, 512).unwrap().xml;
    assert_eq!(edited, roomy.replace("current='2'", "current='4'"));
    let edited = set_size(&roomy, 16, 512).unwrap().xml;
    assert_eq!(edited, roomy.replace("current='2'>8", "current='16'>16"));
    let roomy = XML.replace("<memory unit='MiB'>512<", "<memory unit='MiB'>768<");
    let edited = set_size(&roomy, 2, 640).unwrap().xml;
    assert_eq!(edited, roomy.replace("<currentMemory>524288<", "<currentMemory>655360<"));
    let edited = set_size(&roomy, 2, 1024).unwrap().xml;
    assert_eq!(edited.matches(">1048576<").count(), 2, "{edited}");
    for (laid_out, vcpus, memory, fits) in [
        ("<vcpus><vcpu id='0'/></vcpus>", 3, 512, false),
        ("<cpu><topology sockets='2'/></cpu>", 3, 512, false),
        ("<cpu><topology sockets='2'/></cpu>", 2, 513, true),
        ("<cpu><numa/></cpu>", 2, 513, false),
        ("<cpu><numa/></cpu>", 2, 512, true),
    ] {
        let xml = XML.replace("  <devices>", &format!("  {laid_out}\n  <devices>"));
        assert_eq!(set_size(&xml, vcpus, memory).is_ok(), fits, "{laid_out} with {vcpus} and {memory}");
    }
}

#[test]
fn devices_come_and_go_without_a_trace() {
    for device in [
        NewDevice::Disk { target: "vdb".into(), path: "/p/b".into() },
        NewDevice::Drive { target: "sdb".into(), scsi: true, medium: Some("/p/m.iso".into()) },
        NewDevice::Drive { target: "sdb".into(), scsi: false, medium: None },
    ] {
        let added = add_device(XML, &device).unwrap();
        assert!(added.changed);
        assert_eq!(read_hardware(&added.xml).unwrap().disks.len(), 3, "{}", added.xml);
        assert!(!add_device(&added.xml, &device).unwrap().changed, "twice is once");
        let element = device_element(&added.xml, &device.name()).unwrap().unwrap();
        assert!(added.xml.contains(&element));
        assert_eq!(
            remove_device(&added.xml, &device.name()).unwrap(),
            Injection { xml: XML.to_owned(), changed: true }
        );
    }
    let nic = NewDevice::Interface {
        mac: "52:54:00:00:00:01".into(),
        source: InterfaceSource::Bridge("br0".into()),
    };
    let added = add_device(XML, &nic).unwrap().xml;
    let source = Some(InterfaceSource::Bridge("br0".into()));
    assert_eq!(read_hardware(&added).unwrap().cards, [Card { mac: "52:54:00:00:00:01".into(), source }]);
    assert_eq!(remove_device(&added, &nic.name()).unwrap().xml, XML);
    assert!(!remove_device(XML, &nic.name()).unwrap().changed);
}

#[test]
fn media_come_and_go_without_a_trace() {
    let medium = Path::new("/p/it's a <medium> & more.iso");
    let inserted = set_medium(XML, "sda", Some(medium)).unwrap().xml;
    let hardware = read_hardware(&inserted).unwrap();
    assert_eq!(hardware.disk("sda").unwrap().source.as_deref(), Some(medium));
    assert_eq!(hardware.disk("sda").unwrap().kind, DiskKind::Drive);
    assert!(!set_medium(&inserted, "sda", Some(medium)).unwrap().changed);
    let other = set_medium(&inserted, "sda", Some(Path::new("/p/o.iso"))).unwrap().xml;
    assert_eq!(set_medium(&other, "sda", None).unwrap().xml, XML);
    for no_drive in ["vda", "sdb"] {
        assert_eq!(set_medium(XML, no_drive, None), Err(HardwareError::NoDrive(no_drive.to_owned())));
    }
}

proptest! {
    /// Whatever a name holds, it arrives as that name, and taken out it leaves what was there.
    #[test]
    fn values_stay_values(path in "/[ -~]{0,40}", name in "[ -~]{1,20}") {
        let disk = NewDevice::Disk { target: "vdb".to_owned(), path: PathBuf::from(&path) };
        let added = add_device(XML, &disk).unwrap().xml;
        let hardware = read_hardware(&added).unwrap();
        prop_assert_eq!(hardware.disk("vdb").unwrap().source.as_deref(), Some(Path::new(&path)));
        prop_assert_eq!(remove_device(&added, &disk.name()).unwrap().xml, XML);
        let nic = NewDevice::Interface {
            mac: "52:54:00:00:00:01".to_owned(),
            source: InterfaceSource::Network(name.clone()),
        };
        let added = add_device(XML, &nic).unwrap().xml;
        let source = Some(InterfaceSource::Network(name));
        prop_assert_eq!(read_hardware(&added).unwrap().cards, [Card { mac: "52:54:00:00:00:01".into(), source }]);
        prop_assert_eq!(remove_device(&added, &nic.name()).unwrap().xml, XML);
    }
}

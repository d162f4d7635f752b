//! How large a domain is and what is plugged into it, as its XML says: what changes of size and
//! devices are decided on, and how a running domain differs from its configuration.

use std::path::PathBuf;

use super::{
    document::{Document, Element},
    facts::FactsError,
};

/// What kind of disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// A disk.
    Disk,
    /// A drive for media.
    Drive,
    /// A floppy, a LUN.
    Other,
}

/// One disk or drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFacts {
    /// `vda`, `sda`, …
    pub target: String,
    /// What it is.
    pub kind: DiskKind,
    /// The file behind it, where it is one.
    pub source: Option<PathBuf>,
    /// Whether there is anything behind it.
    pub is_empty: bool,
}

/// What a network card is plugged into, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceSource {
    /// A libvirt network.
    Network(String),
    /// A bridge of the host.
    Bridge(String),
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Lower-case, colon separated.
    pub mac: String,
    /// `None`: into something else.
    pub source: Option<InterfaceSource>,
}

/// Size and devices of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hardware {
    /// Processors that it has.
    pub vcpus: u32,
    /// Processors that it can have without a new start.
    pub max_vcpus: u32,
    /// Memory that it has, MiB.
    pub memory_mib: u64,
    /// Memory that it can have without a new start, MiB.
    pub max_memory_mib: u64,
    /// Disks and drives.
    pub disks: Vec<DiskFacts>,
    /// Its network cards.
    pub cards: Vec<Card>,
    /// Whether it has a virtio-scsi controller, on which drives can be plugged in while it runs.
    pub has_virtio_scsi: bool,
}

impl Hardware {
    /// The disk or drive of this name.
    #[must_use]
    pub fn disk(&self, target: &str) -> Option<&DiskFacts> {
        self.disks.iter().find(|disk| disk.target == target)
    }

    /// Whether it has a network card of this address.
    #[must_use]
    pub fn has_card(&self, mac: &str) -> bool {
        self.cards.iter().any(|card| card.mac == mac)
    }
}

/// Reads a domain's XML (live or inactive).
///
/// # Errors
/// A text that is no whole, well-formed `<domain>` document with memory.
pub fn read_hardware(xml: &str) -> Result<Hardware, FactsError> {
    let document = Document::parse(xml)?;
    let domain = document.root();
    if domain.name != "domain" || domain.namespace.is_some() {
        return Err(FactsError(format!("the root element is <{}>, not <domain>", domain.name)));
    }
    let child = |name: &'static str| document.children(domain, name).next();
    let (vcpus, max_vcpus) = match child("vcpu") {
        Some(vcpu) => read_vcpus(&document, vcpu)?,
        None => (1, 1),
    };
    let memory = child("memory").ok_or_else(|| FactsError("there is no <memory>".to_owned()))?;
    let max_memory_mib = read_mib(&document, memory)?;
    let memory_mib = child("currentMemory").map_or(Ok(max_memory_mib), |it| read_mib(&document, it))?;
    let devices = |name: &'static str| {
        let all = document.children(domain, "devices");
        all.flat_map(|devices| document.children(devices, name)).collect::<Vec<_>>()
    };
    let disks = devices("disk").into_iter().filter_map(|disk| read_disk(&document, disk)).collect();
    let cards = devices("interface").into_iter().filter_map(|nic| read_card(&document, nic)).collect();
    let has_virtio_scsi = devices("controller").into_iter().any(|controller| {
        controller.value("type") == Some("scsi") && controller.value("model") == Some("virtio-scsi")
    });
    Ok(Hardware { vcpus, max_vcpus, memory_mib, max_memory_mib, disks, cards, has_virtio_scsi })
}

/// What is configured and not so in the running domain, each in a few words.
#[must_use]
pub fn waiting(live: &Hardware, config: &Hardware) -> Vec<String> {
    let mut waiting = Vec::new();
    if live.vcpus != config.vcpus {
        waiting.push(format!("{} virtual processors (now {})", config.vcpus, live.vcpus));
    }
    if live.memory_mib != config.memory_mib {
        waiting.push(format!("{} MiB of memory (now {})", config.memory_mib, live.memory_mib));
    }
    for disk in &config.disks {
        match live.disk(&disk.target) {
            None => waiting.push(format!("disk or drive {} comes", disk.target)),
            Some(now) if disk.kind == DiskKind::Drive && now.source != disk.source => {
                waiting.push(format!("another medium in drive {}", disk.target));
            }
            Some(_) => {}
        }
    }
    let gone = live.disks.iter().filter(|disk| config.disk(&disk.target).is_none());
    waiting.extend(gone.map(|disk| format!("disk or drive {} goes", disk.target)));
    let coming = config.cards.iter().filter(|card| !live.has_card(&card.mac));
    waiting.extend(coming.map(|card| format!("network card {} comes", card.mac)));
    let going = live.cards.iter().filter(|card| !config.has_card(&card.mac));
    waiting.extend(going.map(|card| format!("network card {} goes", card.mac)));
    waiting
}

/// Processors that there are, and that there can be.
pub(super) fn read_vcpus(document: &Document<'_>, vcpu: &Element<'_>) -> Result<(u32, u32), FactsError> {
    let text = document.text_of(vcpu)?;
    let number =
        |text: &str| text.trim().parse::<u32>().map_err(|_| FactsError(format!("<vcpu> holds {text:.40?}")));
    let max = number(&text)?;
    Ok((vcpu.value("current").map_or(Ok(max), number)?, max))
}

/// An amount of memory, MiB, rounded up: drivers round up to whole MiB when they start a domain.
pub(super) fn read_mib(document: &Document<'_>, element: &Element<'_>) -> Result<u64, FactsError> {
    let text = document.text_of(element)?;
    let odd =
        || FactsError(format!("<{}> holds {text:.40?} of a unit {:?}", element.name, element.value("unit")));
    let amount: u64 = text.trim().parse().map_err(|_| odd())?;
    let unit: u64 = match element.value("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "K" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return Err(odd()),
    };
    Ok(amount.checked_mul(unit).ok_or_else(odd)?.div_ceil(1 << 20))
}

fn read_disk(document: &Document<'_>, disk: &Element<'_>) -> Option<DiskFacts> {
    let target = target_of(document, disk)?.to_owned();
    let kind = match disk.value("device") {
        None | Some("disk") => DiskKind::Disk,
        Some("cdrom") => DiskKind::Drive,
        Some(_) => DiskKind::Other,
    };
    let source = document.children(disk, "source").next();
    let file = source.and_then(|source| source.value("file"));
    Some(DiskFacts { target, kind, source: file.map(PathBuf::from), is_empty: source.is_none() })
}

fn read_card(document: &Document<'_>, interface: &Element<'_>) -> Option<Card> {
    let source = document.children(interface, "source").next();
    let named = |key| source.and_then(|source| source.value(key)).map(str::to_owned);
    let source = match interface.value("type") {
        Some("network") => named("network").map(InterfaceSource::Network),
        Some("bridge") => named("bridge").map(InterfaceSource::Bridge),
        _ => None,
    };
    Some(Card { mac: mac_of(document, interface)?, source })
}

/// `target@dev` of a disk.
pub(super) fn target_of<'d>(document: &'d Document<'d>, disk: &'d Element<'d>) -> Option<&'d str> {
    document.children(disk, "target").next()?.value("dev")
}

/// `mac@address` of a network card, lower-case.
pub(super) fn mac_of(document: &Document<'_>, interface: &Element<'_>) -> Option<String> {
    document.children(interface, "mac").next()?.value("address").map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain type='qemu'><memory unit='MiB'>512</memory>\
        <currentMemory unit='KiB'>262143</currentMemory><vcpu placement='static' current='2'>4</vcpu>\
        <devices><disk type='file' device='disk'><source file='/p/a &amp; b'/><target dev='vda'/></disk>\
        <disk device='cdrom'><target dev='sda'/></disk><disk><source dev='/dev/x'/><target dev='vdb'/></disk>\
        <controller type='scsi' model='virtio-scsi'/><interface type='network'><mac address='52:54:00:AA:00:01'/>\
        <source network='lan' bridge='virbr0'/></interface>\
        </devices><metadata><disk xmlns='urn:x'><target dev='vdc'/></disk></metadata></domain>";

    #[test]
    fn sizes_and_devices_are_read() {
        let hardware = read_hardware(XML).unwrap();
        assert_eq!((hardware.vcpus, hardware.max_vcpus), (2, 4));
        assert_eq!((hardware.memory_mib, hardware.max_memory_mib), (256, 512));
        let disks: Vec<_> =
            hardware.disks.iter().map(|disk| (disk.target.as_str(), disk.kind, disk.is_empty)).collect();
        let expected =
            [("vda", DiskKind::Disk, false), ("sda", DiskKind::Drive, true), ("vdb", DiskKind::Disk, false)];
        assert_eq!(disks, expected);
        assert_eq!(hardware.disks[0].source.as_deref(), Some("/p/a & b".as_ref()));
        let network = Some(InterfaceSource::Network("lan".to_owned()));
        assert_eq!(hardware.cards, [Card { mac: "52:54:00:aa:00:01".to_owned(), source: network }]);
        assert!(hardware.has_virtio_scsi);
        assert_eq!(waiting(&hardware, &hardware), Vec::<String>::new());
        for broken in [
            "<domain/>",
            "<volume/>",
            "<domain><memory>x</memory></domain>",
            "<domain><memory unit='ell'>1</memory></domain>",
            "<domain><memory unit='TiB'>99999999999999</memory></domain>",
            "<domain><memory>1</memory><vcpu>-1</vcpu></domain>",
        ] {
            read_hardware(broken).unwrap_err();
        }
    }

    #[test]
    fn every_difference_is_named() {
        let live = read_hardware(XML).unwrap();
        let config = XML
            .replace("current='2'", "current='3'")
            .replace("262143", "524288")
            .replace("dev='vdb'", "dev='vdd'")
            .replace("<target dev='sda'/>", "<source file='/p/m.iso'/><target dev='sda'/>")
            .replace("AA:00:01", "AA:00:02");
        let words = waiting(&live, &read_hardware(&config).unwrap());
        let expected = [
            "3 virtual processors (now 2)",
            "512 MiB of memory (now 256)",
            "another medium in drive sda",
            "disk or drive vdd comes",
            "disk or drive vdb goes",
            "network card 52:54:00:aa:00:02 comes",
            "network card 52:54:00:aa:00:01 goes",
        ];
        assert_eq!(words, expected);
    }
}

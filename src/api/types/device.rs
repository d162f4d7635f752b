//! What a VM is made of, as people see it.

use async_graphql::SimpleObject;

use crate::{
    api::scalars::BigInt,
    domain_xml::mac_address,
    vm::{DiscSource, DiskTarget, NetworkAttachment, NicSource, ResourceName, VmRecord},
};

/// A disk of a VM.
#[derive(Debug, SimpleObject)]
pub(crate) struct VmDisk {
    /// `vda` is the one that the VM was made with.
    target: String,
    /// Its size.
    bytes: BigInt,
    /// The storage pool of its volume.
    pool: String,
}

/// A medium in a drive of a VM.
#[derive(Debug, SimpleObject)]
pub(crate) struct VmMedium {
    /// The drive.
    target: String,
    /// The disc of the library, by name, where it is one.
    medium: Option<String>,
    /// Its storage pool, where it is a volume.
    pool: Option<String>,
    /// The volume, where it is one.
    volume: Option<String>,
}

/// A network card of a VM.
#[derive(Debug, SimpleObject)]
pub(crate) struct VmInterface {
    /// Its hardware address.
    mac: String,
    /// The libvirt network, or `user`; absent where it is on a bridge.
    network: Option<String>,
    /// The bridge of the host, where it is on one.
    bridge: Option<String>,
}

pub(crate) fn disks(record: &VmRecord) -> Vec<VmDisk> {
    let spec = &record.spec;
    let root = VmDisk {
        target: DiskTarget::root().to_string(),
        bytes: spec.disk_bytes.into(),
        pool: spec.pool.to_string(),
    };
    let plugged = spec.devices.disks.iter().map(|disk| VmDisk {
        target: disk.target.to_string(),
        bytes: disk.bytes.into(),
        pool: disk.pool.to_string(),
    });
    [root].into_iter().chain(plugged).collect()
}

pub(crate) fn media(record: &VmRecord) -> Vec<VmMedium> {
    let media = record.spec.devices.media.iter().map(|plugged| {
        let (medium, pool, volume) = match &plugged.source {
            DiscSource::Library { medium } => (Some(medium), None, None),
            DiscSource::Volume { pool, volume } => (None, Some(pool), Some(volume)),
        };
        let text = |name: Option<&ResourceName>| name.map(ToString::to_string);
        let target = plugged.target.to_string();
        VmMedium { target, medium: text(medium), pool: text(pool), volume: text(volume) }
    });
    media.collect()
}

pub(crate) fn interfaces(record: &VmRecord) -> Vec<VmInterface> {
    let network = match &record.spec.network {
        NetworkAttachment::Network(name) => Some(name.to_string()),
        NetworkAttachment::User => Some("user".to_owned()),
        NetworkAttachment::None => None,
    };
    let first = network.map(|network| VmInterface {
        mac: mac_address(record.id),
        network: Some(network),
        bridge: None,
    });
    let plugged = record.spec.devices.interfaces.iter().map(|card| {
        let (network, bridge) = match &card.source {
            NicSource::Network(name) => (Some(name.to_string()), None),
            NicSource::Bridge(name) => (None, Some(name.to_string())),
        };
        VmInterface { mac: card.mac.clone(), network, bridge }
    });
    first.into_iter().chain(plugged).collect()
}

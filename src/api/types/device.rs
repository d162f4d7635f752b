//! What a VM is made of, as people see it.

use async_graphql::SimpleObject;

use crate::{
    api::scalars::BigInt,
    domain_xml::mac_address,
    vm::{DiskTarget, NetworkAttachment, NicSource, VmRecord},
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
    /// The medium's storage pool.
    pool: String,
    /// The medium's volume.
    volume: String,
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
    let media = record.spec.devices.media.iter().map(|medium| VmMedium {
        target: medium.target.to_string(),
        pool: medium.pool.to_string(),
        volume: medium.volume.to_string(),
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

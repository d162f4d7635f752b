//! The host and its image library.

use async_graphql::{Enum, SimpleObject};

use crate::{
    api::scalars::BigInt,
    config::HypervisorConfig,
    hypervisor::{DomainType, HostFacts},
    images::BrokenImage,
    vm::{Firmware, HostId, Image, OsFamily, Provisioning, VmSpec},
};

/// How new VMs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "DomainType", name = "DomainType")]
pub(crate) enum DomainTypeName {
    /// Hardware virtualisation.
    Kvm,
    /// Software emulation.
    Qemu,
    /// libvirt's test driver.
    Test,
}

/// What a VM boots with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Firmware", name = "Firmware")]
pub(crate) enum FirmwareName {
    /// The old one.
    Bios,
    /// UEFI.
    Uefi,
    /// UEFI that boots only what is signed by Microsoft or by whom Microsoft trusts.
    UefiSecureBoot,
}

/// A storage pool.
#[derive(Debug, SimpleObject)]
pub(crate) struct StoragePool {
    /// Its name.
    name: String,
    /// Whether it is active.
    active: bool,
    /// Bytes.
    capacity_bytes: BigInt,
    /// Bytes.
    available_bytes: BigInt,
}

/// A network.
#[derive(Debug, SimpleObject)]
pub(crate) struct Network {
    /// Its name.
    name: String,
    /// Whether it is active.
    active: bool,
}

/// What a VM may be at most, and at least.
#[derive(Debug, SimpleObject)]
pub(crate) struct VmLimits {
    /// Virtual processors.
    max_vcpus: u32,
    /// MiB.
    min_memory_mib: BigInt,
    /// MiB.
    max_memory_mib: BigInt,
    /// Bytes.
    max_disk_bytes: BigInt,
}

/// The hypervisor host.
#[derive(Debug, SimpleObject)]
#[graphql(name = "Host")]
pub(crate) struct HostObject {
    /// Its id, for ever.
    id: uuid::Uuid,
    /// Its own name.
    hostname: String,
    /// The libvirt URI.
    uri: String,
    /// `11.3.0`.
    libvirt_version: String,
    /// The hypervisor's version, where it has one.
    hypervisor_version: Option<String>,
    /// CPU architecture.
    arch: String,
    /// Logical processors.
    cpus: u32,
    /// Bytes.
    memory_bytes: BigInt,
    /// Bytes.
    free_memory_bytes: BigInt,
    /// How new VMs run.
    domain_type: DomainTypeName,
    /// Storage pools.
    pools: Vec<StoragePool>,
    /// Networks.
    networks: Vec<Network>,
    /// What new VMs can boot with.
    firmware: Vec<FirmwareName>,
    /// Whether new VMs can have a TPM 2.0.
    tpm: bool,
    /// The pool of a request that names none.
    default_pool: String,
    /// The network of a request that names none.
    default_network: String,
    /// Whether requests may name the network `user`.
    user_network: bool,
    /// What VMs may be.
    limits: VmLimits,
}

impl HostObject {
    pub(crate) fn new(
        id: HostId,
        facts: HostFacts,
        domain_type: DomainType,
        config: &HypervisorConfig,
    ) -> Self {
        let pools = facts.pools.into_iter().map(|pool| StoragePool {
            name: pool.name,
            active: pool.active,
            capacity_bytes: pool.capacity_bytes.into(),
            available_bytes: pool.available_bytes.into(),
        });
        let networks =
            facts.networks.into_iter().map(|network| Network { name: network.name, active: network.active });
        Self {
            id: id.uuid(),
            hostname: facts.hostname,
            uri: facts.uri,
            libvirt_version: facts.libvirt_version,
            hypervisor_version: facts.hypervisor_version,
            arch: facts.arch,
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes.into(),
            free_memory_bytes: facts.free_memory_bytes.into(),
            domain_type: domain_type.into(),
            pools: pools.collect(),
            networks: networks.collect(),
            firmware: facts.machine.firmware().map(Into::into).collect(),
            tpm: facts.machine.tpm,
            default_pool: config.default_pool.clone(),
            default_network: config.default_network.clone(),
            user_network: config.allow_user_network,
            limits: VmLimits {
                max_vcpus: VmSpec::MAX_VCPUS,
                min_memory_mib: VmSpec::MIN_MEMORY_MIB.into(),
                max_memory_mib: VmSpec::MAX_MEMORY_MIB.into(),
                max_disk_bytes: VmSpec::MAX_DISK_BYTES.into(),
            },
        }
    }
}

/// A family of operating systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "OsFamily", name = "OsFamily")]
pub(crate) enum OsFamilyName {
    /// Any Linux distribution.
    Linux,
    /// Windows 10, 11 and Server.
    Windows,
}

/// How the first boot is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Provisioning", name = "Provisioning")]
pub(crate) enum ProvisioningName {
    /// cloud-init.
    CloudInit,
    /// The image carries everything.
    None,
}

/// An image of the library.
#[derive(Debug, SimpleObject)]
#[graphql(name = "Image")]
pub(crate) struct ImageObject {
    /// What requests name.
    name: String,
    /// For people.
    description: String,
    /// Whether VMs can be made from it.
    usable: bool,
    /// Why not.
    problem: Option<String>,
    /// Null where the image is not usable.
    os_family: Option<OsFamilyName>,
    /// Null where the image is not usable.
    provisioning: Option<ProvisioningName>,
    /// The size a guest sees, bytes. Null where the image is not usable.
    virtual_bytes: Option<BigInt>,
    /// SHA-256 of the disk. Null where the image is not usable.
    sha256: Option<String>,
}

impl ImageObject {
    /// Its place in the list, which is in the order of names.
    pub(crate) fn cursor(&self) -> &str {
        &self.name
    }
}

impl From<Image> for ImageObject {
    fn from(image: Image) -> Self {
        Self {
            name: image.name.to_string(),
            description: image.description,
            usable: true,
            problem: None,
            os_family: Some(image.os_family.into()),
            provisioning: Some(image.provisioning.into()),
            virtual_bytes: Some(image.virtual_bytes.into()),
            sha256: Some(image.sha256),
        }
    }
}

impl From<BrokenImage> for ImageObject {
    fn from(image: BrokenImage) -> Self {
        Self {
            name: image.name,
            description: String::new(),
            usable: false,
            problem: Some(image.reason),
            os_family: None,
            provisioning: None,
            virtual_bytes: None,
            sha256: None,
        }
    }
}

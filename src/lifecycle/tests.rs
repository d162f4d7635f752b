use std::path::PathBuf;

use super::*;
use crate::{
    hypervisor::{NetworkFacts, PoolFacts},
    vm::{Image, ImageFormat, OsFamily, Provisioning, Unattended},
};

fn host() -> HostFacts {
    let pool =
        |name: &str| PoolFacts { name: name.into(), active: false, capacity_bytes: 1, available_bytes: 1 };
    let network = |name: &str, active| NetworkFacts { name: name.into(), active };
    HostFacts {
        pools: vec![pool("default"), pool("fast")],
        networks: vec![network("default", true), network("lab", false)],
        ..HostFacts::default()
    }
}

fn spec(pool: &str, network: NetworkAttachment) -> VmSpec {
    VmSpec {
        name: "web".parse().unwrap(),
        image: Image {
            name: "debian".parse().unwrap(),
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::None,
            disk: PathBuf::from("/images/debian.qcow2"),
            format: ImageFormat::Qcow2,
            virtual_bytes: 1 << 30,
            sha256: "0".repeat(64),
            kernel: None,
        },
        vcpus: 1,
        memory_mib: 512,
        disk_bytes: 1 << 30,
        pool: pool.parse().unwrap(),
        network,
        unattended: Unattended::default(),
        origin: crate::vm::Origin::Created,
    }
}

#[test]
fn pool_and_network_have_to_be_there() {
    let named = |name: &str| NetworkAttachment::Network(name.parse().unwrap());
    let check = |pool, network| check_places(&host(), &spec(pool, network));
    check("default", named("default")).unwrap();
    check("fast", NetworkAttachment::None).unwrap();
    check("fast", NetworkAttachment::User).unwrap();
    assert!(
        matches!(check("slow", named("default")), Err(LifecycleError::PoolNotFound(name)) if name == "slow")
    );
    assert!(
        matches!(check("fast", named("none")), Err(LifecycleError::NetworkNotFound(name)) if name == "none")
    );
    assert!(matches!(check("fast", named("lab")), Err(LifecycleError::Invalid { field: "network", .. })));
}

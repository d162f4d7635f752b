use std::path::PathBuf;

use super::*;
use crate::{
    hypervisor::{NetworkFacts, PoolFacts},
    vm::{Base, Firmware, Image, ImageFormat, OsFamily, PowerKeeping, Provisioning, Unattended},
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
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "debian".parse().unwrap(),
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::None,
            disk: PathBuf::from("/images/debian.qcow2"),
            format: ImageFormat::Qcow2,
            virtual_bytes: 1 << 30,
            sha256: "0".repeat(64),
            kernel: None,
        }),
        vcpus: 1,
        memory_mib: 512,
        disk_bytes: 1 << 30,
        pool: pool.parse().unwrap(),
        network,
        unattended: Unattended::default(),
        keeping: PowerKeeping::default(),
        devices: Default::default(),
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

#[tokio::test]
async fn a_password_stays_plain_only_for_windows_and_a_product_key_is_its_alone() {
    let request = |key: Option<&str>| {
        Some(UnattendedRequest {
            user: Some("ada".to_owned()),
            password: Some("pässword 4711".into()),
            locale: Some("es_ES.UTF-8".to_owned()),
            keyboard: Some("es".to_owned()),
            product_key: key.map(Into::into),
            ..UnattendedRequest::default()
        })
    };
    let key = "W269N-WFGWX-YVC9B-4J6C9-T83GX";
    let linux = request::unattended(request(None), OsFamily::Linux).await.unwrap();
    assert!(linux.password.is_none() && linux.password_hash.unwrap().starts_with("$6$"));
    assert_eq!((linux.locale.as_deref(), linux.keyboard.as_deref()), (Some("es_ES.UTF-8"), Some("es")));
    let windows = request::unattended(request(Some(key)), OsFamily::Windows).await.unwrap();
    assert!(windows.password_hash.is_none());
    assert_eq!(windows.password.as_ref().unwrap().expose(), "pässword 4711");
    assert_eq!(windows.product_key.as_ref().unwrap().expose(), key);
    let kept = windows.without_secrets();
    assert!(kept.password.is_none() && kept.product_key.is_none());

    let refused = request::unattended(request(Some(key)), OsFamily::Linux).await;
    assert!(matches!(refused, Err(LifecycleError::Invalid { field: "unattended.productKey", .. })));
    for (bad, field) in [(None, "unattended.password"), (Some("x"), "unattended.productKey")] {
        let mut wrong = request(bad).unwrap();
        wrong.password = Some("a\nb".into());
        let refused = request::unattended(Some(wrong), OsFamily::Windows).await.unwrap_err();
        assert!(
            matches!(refused, LifecycleError::Invalid { field: named, .. } if named == field),
            "{refused}"
        );
        assert!(!format!("{refused:?}").contains("a\\nb"));
    }
}

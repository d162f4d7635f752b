//! The hypervisor against libvirt's own in-memory driver: every verb and its repetition, events,
//! and the number of calls a scan makes.

#[path = "hypervisor/support.rs"]
mod support;

use std::{collections::HashSet, error::Error, io::Write, time::Duration};

use infinibay::{
    hypervisor::{
        Devices, DomainType, GuestControls, Hypervisor, HypervisorError, OverlayVolume, Reboots,
        libvirt::LibvirtHypervisor,
    },
    vm::{DomainObservation, DomainState, VmId},
};
use support::{Domain, about, config, connect, domain_xml, event, present, state};

const URI: &str = "test:///default";

#[tokio::test]
async fn every_verb_can_be_said_twice() {
    let hypervisor = connect(URI).await;
    let domain = Domain::new(URI);
    let id = domain.id;
    let socket = std::path::PathBuf::from(format!("/run/test/{}", id.socket_name()));
    assert_eq!(hypervisor.observe(id).await.unwrap(), DomainObservation::Absent);

    for _ in 0..2 {
        let xml = domain_xml("test", id, &domain.name, Some(&socket));
        hypervisor.define(id, xml).await.unwrap();
    }
    let facts = present(&hypervisor, id).await;
    assert_eq!(
        (facts.name.as_str(), facts.state, facts.persistent),
        (&*domain.name, DomainState::Shutoff, true)
    );
    assert_eq!(facts.channel.map(|channel| channel.path), Some(socket));
    assert_eq!(hypervisor.domain_named(&domain.name).await.unwrap(), Some(id));

    for _ in 0..2 {
        hypervisor.start(id).await.unwrap();
        assert_eq!(state(&hypervisor, id).await, DomainState::Running);
    }
    for _ in 0..2 {
        hypervisor.request_shutdown(id).await.unwrap();
        assert_eq!(
            state(&hypervisor, id).await,
            DomainState::Shutoff,
            "the test driver's guests obey at once"
        );
    }
    hypervisor.start(id).await.unwrap();
    domain.with(virt::domain::Domain::suspend);
    assert_eq!(state(&hypervisor, id).await, DomainState::Paused);
    for _ in 0..2 {
        hypervisor.resume(id).await.unwrap();
        assert_eq!(state(&hypervisor, id).await, DomainState::Running);
    }
    for _ in 0..2 {
        hypervisor.destroy(id).await.unwrap();
        assert_eq!(state(&hypervisor, id).await, DomainState::Shutoff);
    }
    for _ in 0..2 {
        hypervisor.undefine(id).await.unwrap();
        assert_eq!(hypervisor.observe(id).await.unwrap(), DomainObservation::Absent);
    }
    hypervisor.destroy(id).await.unwrap();
    hypervisor.request_shutdown(id).await.unwrap();
    assert_eq!(hypervisor.domain_named(&domain.name).await.unwrap(), None);
    assert!(!hypervisor.is_busy(id));
}

#[tokio::test]
async fn processors_that_somebody_laid_out_are_his_to_change() {
    let hypervisor = connect(URI).await;
    let domain = Domain::new(URI);
    let laid_out = "<cpu><topology sockets='1' cores='1' threads='1'/></cpu>";
    let xml = domain_xml("test", domain.id, &domain.name, None);
    let (head, tail) = xml.split_at(xml.rfind("</domain>").unwrap());
    hypervisor.define(domain.id, format!("{head}{laid_out}{tail}")).await.unwrap();
    let memory = hypervisor.hardware(domain.id).await.unwrap().config.memory_mib;
    let refused = hypervisor.resize(domain.id, 4, memory).await.unwrap_err();
    let HypervisorError::Unfit { reason, .. } = &refused else { panic!("{refused:?}") };
    assert!(reason.contains("<topology>") && reason.contains("virsh edit"), "{reason}");
    let config = hypervisor.hardware(domain.id).await.unwrap().config;
    assert_eq!((config.vcpus, config.memory_mib), (1, memory));
}

#[tokio::test]
async fn what_cannot_be_done_says_why() {
    let hypervisor = connect(URI).await;
    let domain = Domain::new(URI);
    let absent = hypervisor.start(domain.id).await.unwrap_err();
    assert!(matches!(absent, HypervisorError::NotFound { .. }), "{absent:?}");

    let other = hypervisor
        .define(domain.id, domain_xml("test", VmId::generate(), &domain.name, None))
        .await
        .unwrap_err();
    assert!(matches!(other, HypervisorError::Invalid { .. }), "somebody else's UUID: {other:?}");
    let broken = hypervisor.define(domain.id, "<domain".to_owned()).await.unwrap_err();
    assert!(matches!(broken, HypervisorError::Invalid { .. }), "{broken:?}");

    let wrong_kind = hypervisor
        .define(domain.id, domain_xml("no-such-kind", domain.id, &domain.name, None))
        .await
        .unwrap_err();
    assert!(matches!(wrong_kind, HypervisorError::Refused { .. }), "{wrong_kind:?}");
    assert!(wrong_kind.source().is_some(), "libvirt's own words belong to it");

    // A name that is taken is refused, not taken over.
    let first = Domain::new(URI);
    hypervisor.define(first.id, domain_xml("test", first.id, &first.name, None)).await.unwrap();
    let taken =
        hypervisor.define(domain.id, domain_xml("test", domain.id, &first.name, None)).await.unwrap_err();
    assert!(matches!(taken, HypervisorError::Refused { .. }), "{taken:?}");

    let resumed = hypervisor.resume(first.id).await.unwrap_err();
    assert!(matches!(resumed, HypervisorError::Refused { .. }), "nothing to resume: {resumed:?}");
    let pool = hypervisor.volume_path(domain.id, "hyper-no-such-pool", "x").await.unwrap_err();
    assert!(matches!(pool, HypervisorError::NotFound { .. }), "{pool:?}");
    let pool = hypervisor.delete_volume(domain.id, "hyper-no-such-pool", "x").await.unwrap_err();
    assert!(
        matches!(pool, HypervisorError::NotFound { .. }),
        "no pool is not the same as no volume: {pool:?}"
    );
    let nul = hypervisor.domain_named("a\0b").await.unwrap_err();
    assert!(matches!(nul, HypervisorError::Refused { .. } | HypervisorError::Invalid { .. }), "{nul:?}");
}

#[tokio::test]
async fn whatever_happens_to_a_domain_is_hinted() {
    let hypervisor = connect(URI).await;
    let domain = Domain::new(URI);
    let id = domain.id;
    let mut events = hypervisor.events();
    hypervisor.define(id, domain_xml("test", id, &domain.name, None)).await.unwrap();
    event("defined", &mut events, about(id)).await;
    hypervisor.start(id).await.unwrap();
    event("started", &mut events, about(id)).await;
    domain.with(virt::domain::Domain::suspend);
    event("suspended, by somebody else", &mut events, about(id)).await;
    hypervisor.destroy(id).await.unwrap();
    event("destroyed", &mut events, about(id)).await;
    hypervisor.undefine(id).await.unwrap();
    event("undefined", &mut events, about(id)).await;
}

/// A test driver of its own: what other tests define would be counted too.
async fn private_driver() -> (tempfile::NamedTempFile, LibvirtHypervisor) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(b"<node/>").expect("write the driver's state");
    let uri = format!("test://{}", file.path().display());
    let hypervisor = connect(&uri).await;
    (file, hypervisor)
}

/// libvirt calls made by a scan in which nothing is new, with this many domains about.
async fn calls_of_a_scan(count: usize) -> u64 {
    let (_file, hypervisor) = private_driver().await;
    let ids: HashSet<VmId> = (0..count).map(|_| VmId::generate()).collect();
    for id in &ids {
        hypervisor
            .define(*id, domain_xml("test", *id, &format!("d-{id}"), None))
            .await
            .expect("ask the private driver");
    }
    let first = hypervisor.observe_all().await.expect("ask the private driver");
    assert_eq!(first.domains.keys().copied().collect::<HashSet<_>>(), ids, "a scan is complete");
    assert!(first.domains.values().all(|facts| facts.state == DomainState::Shutoff && facts.persistent));
    // Events of the definitions may still be on their way; they are worth a second look each.
    support::until("the driver to be quiet", async || {
        let before = hypervisor.libvirt_calls();
        hypervisor.observe_all().await.expect("ask the private driver");
        let calls = hypervisor.libvirt_calls() - before;
        (calls <= 4 + 2 * 16).then_some(calls)
    })
    .await
}

#[tokio::test]
async fn a_scan_makes_the_same_number_of_calls_however_many_domains_there_are() {
    let (few, many) = (calls_of_a_scan(20).await, calls_of_a_scan(200).await);
    assert_eq!(few, many, "calls with 20 and with 200 domains");
    assert_eq!(many, 4 + 2 * 16, "four bulk calls, and two for each of the sixteen in rotation");
}

#[tokio::test]
async fn a_domain_is_halted_saved_dropped_and_renamed_and_scan_and_look_agree() {
    let (_file, hypervisor) = private_driver().await;
    let id = VmId::generate();
    hypervisor.define(id, domain_xml("test", id, "before", None)).await.unwrap();
    hypervisor.start(id).await.unwrap();
    let looked = async || {
        let scanned = hypervisor.observe_all().await.unwrap().domains.remove(&id).expect("the scan has it");
        assert_eq!(present(&hypervisor, id).await, scanned);
        (scanned.state, scanned.managed_save, scanned.name)
    };
    for _ in 0..2 {
        hypervisor.suspend(id).await.unwrap();
        assert_eq!(looked().await, (DomainState::Paused, false, "before".to_owned()));
    }
    for _ in 0..2 {
        hypervisor.save(id).await.unwrap();
        assert_eq!(looked().await, (DomainState::Shutoff, true, "before".to_owned()));
    }
    for _ in 0..2 {
        hypervisor.discard_saved(id).await.unwrap();
        assert_eq!(looked().await, (DomainState::Shutoff, false, "before".to_owned()));
    }
    let refused = hypervisor.save(id).await.unwrap_err();
    assert!(matches!(refused, HypervisorError::Refused { .. }), "off, and nothing saved: {refused:?}");
    let refused = hypervisor.suspend(id).await.unwrap_err();
    assert!(matches!(refused, HypervisorError::Refused { .. }), "off: {refused:?}");

    let other = VmId::generate();
    hypervisor.define(other, domain_xml("test", other, "taken", None)).await.unwrap();
    hypervisor.rename(id, &"taken".parse().unwrap()).await.unwrap_err();
    for _ in 0..2 {
        hypervisor.rename(id, &"after".parse().unwrap()).await.unwrap();
        assert_eq!(looked().await, (DomainState::Shutoff, false, "after".to_owned()));
    }
    assert_eq!(hypervisor.domain_named("before").await.unwrap(), None);
    hypervisor.start(id).await.unwrap();
    hypervisor.request_reboot(id).await.unwrap();
    assert_eq!(hypervisor.reboots(id), Reboots::default(), "this driver never tells them");
    hypervisor.save(id).await.unwrap();
    hypervisor.undefine(id).await.unwrap();
    assert_eq!(hypervisor.observe(id).await.unwrap(), DomainObservation::Absent);
}

#[tokio::test]
async fn scans_notice_what_changed() {
    let (_file, hypervisor) = private_driver().await;
    let ids: Vec<VmId> = (0..60).map(|_| VmId::generate()).collect();
    for id in &ids {
        hypervisor.define(*id, domain_xml("test", *id, &format!("d-{id}"), None)).await.unwrap();
    }
    hypervisor.observe_all().await.unwrap();
    let (started, changed, gone) = (ids[0], ids[1], ids[2]);
    hypervisor.start(started).await.unwrap();
    hypervisor.undefine(gone).await.unwrap();
    let socket = std::path::Path::new("/run/test/other.sock");
    let mut events = hypervisor.events();
    let xml = domain_xml("test", changed, &format!("d-{changed}"), Some(socket));
    hypervisor.define(changed, xml).await.unwrap();
    event("redefined", &mut events, about(changed)).await;

    let seen = hypervisor.observe_all().await.unwrap().domains;
    assert_eq!(seen.len(), ids.len() - 1);
    assert!(!seen.contains_key(&gone));
    assert_eq!(seen[&started].state, DomainState::Running);
    let path = seen[&changed].channel.as_ref().map(|channel| channel.path.as_path());
    assert_eq!(path, Some(socket), "the event made the scan read the XML again");
    for (id, facts) in &seen {
        let fresh = present(&hypervisor, *id).await;
        assert_eq!(*facts, fresh, "scan and look agree");
    }
}

#[tokio::test]
async fn the_host_is_described() {
    let hypervisor = connect(URI).await;
    assert_eq!(hypervisor.domain_type().await.unwrap(), DomainType::Test);
    let host = hypervisor.host().await.unwrap();
    assert_eq!(host.uri, URI);
    assert!(host.cpus > 0 && host.memory_bytes > 0, "{host:?}");
    assert_eq!(host.libvirt_version.split('.').count(), 3, "{host:?}");
    assert!(host.networks.iter().any(|network| network.name == "default" && network.active), "{host:?}");
    assert!(host.pools.iter().any(|pool| pool.name == "default-pool" && pool.active), "{host:?}");
}

#[tokio::test]
async fn volumes_come_and_go_in_the_drivers_own_pool() {
    let hypervisor = connect(URI).await;
    let id = VmId::generate();
    let (pool, name) = ("default-pool", format!("{id}.qcow2"));
    assert_eq!(hypervisor.volume_path(id, pool, &name).await.unwrap(), None);
    let overlay = OverlayVolume {
        pool: pool.to_owned(),
        name: name.clone(),
        capacity_bytes: 1 << 20,
        backing_path: "/images/base.qcow2".into(),
        backing_format: "qcow2".to_owned(),
    };
    let path = hypervisor.create_overlay(id, overlay.clone()).await.unwrap();
    assert_eq!(hypervisor.create_overlay(id, overlay).await.unwrap(), path, "twice is once");
    assert_eq!(hypervisor.volume_path(id, pool, &name).await.unwrap(), Some(path));
    for _ in 0..2 {
        hypervisor.delete_volume(id, pool, &name).await.unwrap();
        assert_eq!(hypervisor.volume_path(id, pool, &name).await.unwrap(), None);
    }
}

#[tokio::test]
async fn without_a_connection_nothing_is_known() {
    let missing = tempfile::tempdir().unwrap();
    let socket = missing.path().join("no-such-socket");
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    let hypervisor = LibvirtHypervisor::start(config(&uri));
    support::until("the first attempt to fail", async || {
        let error = hypervisor.connected(Duration::from_millis(1)).await.unwrap_err();
        matches!(error, HypervisorError::Unreachable { source: Some(_), .. }).then_some(())
    })
    .await;
    let error = hypervisor.observe_all().await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unreachable { source: Some(_), .. }), "{error:?}");
    let error = hypervisor.observe(VmId::generate()).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unreachable { .. }), "unknown, not absent: {error:?}");
    assert!(!hypervisor.is_connected());
}

//! VMs that were made long ago, and run: what is asked of them can be asked at once.

use infinibay::{
    domain_xml::{DiskFacts, DiskKind, Hardware},
    vm::{
        DiskTarget, Milestone, Operation, PluggedDisk, Provisioning, Resource, ResourceKind, ResourceState,
        VmId,
    },
};

use super::{
    chance::Chance,
    database::Asked,
    host::{Domain, File, POOL, Volume, socket_path, volume_path},
    script::spec,
    world::State,
};

const GIB: u64 = 1 << 30;

/// Puts one on the host and into the database, with a second disk and a snapshot or without.
pub fn make(state: &mut State, vm: VmId, asked: Asked, chance: &mut Chance) {
    let mut spec = spec(state.database.order.len(), Provisioning::CloudInit);
    spec.unattended = spec.unattended.without_secrets();
    let mut domain = Domain::new(chance);
    domain.name = spec.name.to_string();
    domain.channel = Some(socket_path(vm));
    domain.config = Hardware {
        vcpus: spec.vcpus,
        max_vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        max_memory_mib: spec.memory_mib,
        ..Hardware::default()
    };
    let mut volumes = vec![("vda", format!("infinibay-{vm}.qcow2"))];
    if chance.one_in(2) {
        volumes.push(("vdb", format!("infinibay-{vm}-0.qcow2")));
    }
    let mut rows = vec![
        (ResourceKind::Seed, "/seeds".to_owned(), format!("vm-{vm}.iso")),
        (ResourceKind::ConsoleLog, "/console".to_owned(), format!("vm-{vm}.log")),
    ];
    for (target, name) in volumes {
        let path = volume_path(POOL, &name);
        let (target, source) = (target.to_owned(), Some(path));
        if target != "vda" {
            let target: DiskTarget = target.parse().expect("a disk");
            let pool = POOL.parse().expect("a name");
            spec.devices.disks.push(PluggedDisk { target, pool, volume: name.clone(), bytes: GIB });
        }
        domain.config.disks.push(DiskFacts { target, kind: DiskKind::Disk, source, is_empty: false });
        let volume = Volume {
            vm: Some(vm),
            whole: true,
            installed: true,
            has_system: true,
            spoiled: false,
            bytes: GIB,
        };
        state.host.volumes.insert((POOL.to_owned(), name.clone()), volume);
        rows.push((ResourceKind::Volume, POOL.to_owned(), name));
    }
    if chance.one_in(2) {
        domain.shoot("before".to_owned(), None, asked.at);
    }
    let host = state.host_id;
    state.database.create(vm, host, spec, asked);
    state.host.files.insert(format!("/seeds/vm-{vm}.iso").into(), File::Seed { vm, scrubbed: true });
    state.host.files.insert(format!("/console/vm-{vm}.log").into(), File::Other { vm });
    state.host.once_had_volume.insert(vm);
    state.host.once_had_seed.insert(vm);
    state.host.once_defined.insert(vm);
    state.host.domains.insert(vm, domain);
    state.host.power_on(vm);
    let Some(bundle) = state.database.vms.get_mut(&vm) else { return };
    use Milestone::{Defined, DiskCreated, FirstSeen, FirstStarted, Installed, SeedScrubbed, SeedWritten};
    for milestone in [DiskCreated, SeedWritten, Defined, FirstStarted, FirstSeen, Installed, SeedScrubbed] {
        bundle.record.milestones.pass(milestone, asked.at);
    }
    bundle.record.intent.satisfied = 1;
    bundle.operations.retain(|operation: &Operation| operation.change.is_some());
    let made = ResourceState::Created;
    let row = |(kind, place, name)| Resource { vm, kind, place, name, state: made };
    bundle.resources = rows.into_iter().map(row).collect();
}

//! What people ask to be changed, by what the VM is.

use infinibay::vm::{
    DesiredPower, DeviceChange, DiscSource, DiskTarget, GuestChange, IdentityChange, NewSnapshot, NicSource,
    OnCrash, OnPowerOff, OperationId, Quiesce, SettingChange, SizeChange, SnapshotChange, SnapshotName,
    VmChange, VmId,
};

use super::{
    chance::Chance,
    host::{MEDIA, MEDIUM, POOL},
    world::State,
};

/// Kinds of changes that are asked for in calm.
pub const IN_CALM: u64 = 7;

const GIB: u64 = 1 << 30;

/// Any change that fits the VM more or less; whether it does is for others to say.
pub fn any(state: &State, vm: VmId, chance: &mut Chance) -> Option<VmChange> {
    let spec = &state.database.vms.get(&vm)?.record.spec;
    let domain = state.host.domains.get(&vm)?;
    let devices = &spec.devices;
    Some(match chance.below(20) {
        0 => VmChange::Setting(SettingChange::Autostart(chance.one_in(2))),
        1 => VmChange::Guest(GuestChange::Reset),
        2 => VmChange::Guest(GuestChange::Reboot { force: chance.one_in(4) }),
        3 => VmChange::Setting(SettingChange::Rename(format!("renamed-{}", chance.below(4)).parse().ok()?)),
        4 | 5 => VmChange::Setting(SettingChange::Policy {
            on_power_off: chance.pick(&[OnPowerOff::Follow, OnPowerOff::Correct]),
            on_crash: chance.pick(&[OnCrash::Stay, OnCrash::Restart]),
        }),
        6 => resize(u32::try_from(1 + chance.below(3)).ok()?, chance.pick(&[256, 512, 1024])),
        7 => {
            let mut targets: Vec<DiskTarget> = vec![DiskTarget::root()];
            targets.extend(devices.disks.iter().map(|disk| disk.target.clone()));
            let target = targets.swap_remove(usize::try_from(chance.below(targets.len() as u64)).ok()?);
            VmChange::Size(SizeChange::GrowDisk { target, bytes: (2 + chance.below(3)) * GIB })
        }
        8 => attach(vm, chance.below(1 << 20)),
        9 => VmChange::Device(DeviceChange::DetachDisk {
            disk: devices.disks.first()?.clone(),
            delete_volume: chance.one_in(2),
        }),
        // Nobody is given back with a disc of the library in a drive.
        10 => insert(chance.one_in(2) && !spec.is_adopted()),
        11 => VmChange::Device(DeviceChange::EjectMedium { drive: devices.media.first()?.target.clone() }),
        12 => match devices.interfaces.first() {
            Some(card) if chance.one_in(2) => {
                VmChange::Device(DeviceChange::DetachInterface { mac: card.mac.clone() })
            }
            _ => VmChange::Device(DeviceChange::AttachInterface {
                source: NicSource::Network("default".parse().ok()?),
            }),
        },
        13 | 14 | 17 | 18 => {
            let name = format!("s{}", chance.below(4)).parse().ok()?;
            shoot(
                name,
                chance.pick(&[None, Some(false), Some(false), Some(false), Some(true)]),
                chance.pick(&QUIESCE),
            )
        }
        15 if spec.is_adopted() && chance.one_in(3) => VmChange::Identity(IdentityChange::Release),
        16 if !domain.shots.is_empty() => {
            let index = usize::try_from(chance.below(domain.shots.len() as u64)).ok()?;
            let name: SnapshotName = domain.shots[index].name.parse().ok()?;
            VmChange::Snapshot(SnapshotChange::Delete { name, children: chance.one_in(2) })
        }
        _ => {
            let name: SnapshotName = domain.shots.last()?.name.parse().ok()?;
            VmChange::Snapshot(SnapshotChange::Revert { name, before: None })
        }
    })
}

const QUIESCE: [Quiesce; 4] = [Quiesce::Never, Quiesce::IfPossible, Quiesce::IfPossible, Quiesce::Required];

fn resize(vcpus: u32, memory_mib: u64) -> VmChange {
    VmChange::Size(SizeChange::Resize { vcpus: Some(vcpus), memory_mib: Some(memory_mib) })
}

fn attach(vm: VmId, number: u64) -> VmChange {
    let pool = POOL.parse().expect("a name");
    let volume = format!("infinibay-{vm}-{number:x}.qcow2");
    VmChange::Device(DeviceChange::AttachDisk { pool, volume, bytes: GIB })
}

/// A disc of the library, or one that is a volume.
fn insert(library: bool) -> VmChange {
    let (pool, volume) = (MEDIA.parse().expect("a name"), MEDIUM.parse().expect("a name"));
    let source = match library {
        true => DiscSource::Library { medium: "tools".parse().expect("a name") },
        false => DiscSource::Volume { pool, volume },
    };
    VmChange::Device(DeviceChange::InsertMedium { source, drive: None })
}

fn shoot(name: SnapshotName, memory: Option<bool>, quiesce: Quiesce) -> VmChange {
    let frost = infinibay::vm::Frost::default();
    let new = NewSnapshot { name, description: String::new(), memory, quiesce, frost };
    VmChange::Snapshot(SnapshotChange::Create(new))
}

/// One that has no reason to fail; `None` where it would have one.
pub fn in_calm(state: &State, vm: VmId, which: u64, operation: OperationId) -> Option<VmChange> {
    let bundle = state.database.vms.get(&vm)?;
    let number = u64::try_from(operation.uuid().as_u128() >> 100).ok()?;
    Some(match which {
        0 => VmChange::Setting(SettingChange::Autostart(number % 2 == 0)),
        1 => resize(u32::try_from(1 + number % 3).ok()?, 512),
        2 => attach(vm, number),
        3 => insert(number % 2 == 0 && !bundle.record.spec.is_adopted()),
        4 => {
            let on_power_off = if number % 2 == 0 { OnPowerOff::Correct } else { OnPowerOff::Follow };
            VmChange::Setting(SettingChange::Policy { on_power_off, on_crash: OnCrash::Restart })
        }
        5 if bundle.record.intent.power == DesiredPower::Stopped => {
            VmChange::Setting(SettingChange::Rename(format!("calm-{number}").parse().ok()?))
        }
        // QEMU keeps none of one that runs.
        _ if bundle.record.spec.firmware.is_uefi() => return None,
        _ => shoot(format!("calm-{number}").parse().ok()?, None, Quiesce::IfPossible),
    })
}

//! Every change in every phase: a column for each phase, in the order of the heading.

use std::{collections::BTreeSet, path::PathBuf};

use chrono::Utc;
use uuid::Uuid;

use super::{super::LifecycleError, takes};
use crate::vm::{
    AgentConnectivity, Base, DesiredPower, DeviceChange, DiscSource, Firmware, Frost, GuestChange, HostId,
    IdentityChange, Image, ImageFormat, LendChange, Milestones, NetworkAttachment, NewSnapshot, NicSource,
    OnCrash, OnPowerOff, Origin, OsFamily, Plugged, PluggedDisk, PluggedMedium, PowerKeeping, Provisioning,
    Quiesce, SettingChange, SizeChange, SnapshotChange, Unattended, UserId, VmChange, VmId, VmIntent,
    VmPhase, VmRecord, VmSpec, VmStatus,
};

/// What a VM is, beside its phase.
#[derive(Clone, Copy, Default)]
struct Is {
    uefi: bool,
    cloud: bool,
    unready: bool,
    undefined: bool,
    adopted: bool,
    /// Something of the library is in a drive.
    holds: bool,
    starting: bool,
    deleting: bool,
}

fn record(is: Is) -> VmRecord {
    let at = Utc::now();
    let library = DiscSource::Library { medium: "debian".parse().unwrap() };
    let held = PluggedMedium { target: "sda".parse().unwrap(), source: library };
    let provisioning = if is.cloud { Provisioning::CloudInit } else { Provisioning::None };
    VmRecord {
        id: VmId::generate(),
        host: HostId::generate(),
        owner: UserId::generate(),
        spec: VmSpec {
            name: "web".parse().unwrap(),
            firmware: if is.uefi { Firmware::Uefi } else { Firmware::Bios },
            tpm: false,
            base: Base::Image(Image {
                name: "debian".parse().unwrap(),
                description: String::new(),
                os_family: OsFamily::Linux,
                provisioning,
                disk: PathBuf::from("/images/debian.qcow2"),
                format: ImageFormat::Qcow2,
                virtual_bytes: 1 << 30,
                sha256: "0".repeat(64),
                kernel: None,
            }),
            vcpus: 1,
            memory_mib: 512,
            disk_bytes: 1 << 30,
            pool: "default".parse().unwrap(),
            network: NetworkAttachment::None,
            unattended: Unattended::default(),
            keeping: PowerKeeping::default(),
            devices: Plugged { media: if is.holds { vec![held] } else { Vec::new() }, ..Plugged::default() },
            origin: if is.adopted { Origin::Adopted { macs: Vec::new() } } else { Origin::Created },
        },
        intent: VmIntent {
            power: if is.starting { DesiredPower::Running } else { DesiredPower::Stopped },
            deleting: is.deleting,
            generation: 2,
            satisfied: if is.starting { 1 } else { 2 },
            given_up: 0,
            asked_at: at,
        },
        milestones: Milestones {
            defined: (!is.undefined).then_some(at),
            installed: (!is.unready).then_some(at),
            ..Milestones::default()
        },
        created_at: at,
    }
}

fn status(phase: VmPhase) -> VmStatus {
    VmStatus {
        phase,
        agent: AgentConnectivity::Unknown,
        last_seen: None,
        agent_version: None,
        conditions: Vec::new(),
    }
}

/// How a request for the change ends in each phase, and before anything is known of the VM.
fn row(change: &VmChange, is: Is) -> String {
    let record = record(is);
    let phases = VmPhase::ALL.map(Some).into_iter().chain([None]);
    let ends = phases.map(|phase| {
        let refused = match takes(change, &record, phase.map(status).as_ref()) {
            Ok(()) => return '.',
            Err(refused) => refused,
        };
        let said = refused.to_string();
        assert!(said.len() > 15 && !said.contains('\n'), "{said:?} tells nobody what to do");
        match refused {
            LifecycleError::WrongState(_) => 'W',
            LifecycleError::SnapshotUnsupported(_) => 'U',
            LifecycleError::Deleting(vm) if vm == record.id => 'D',
            other => panic!("{other}"),
        }
    });
    ends.collect()
}

fn guest(change: GuestChange) -> VmChange {
    VmChange::Guest(change)
}

fn setting(change: SettingChange) -> VmChange {
    VmChange::Setting(change)
}

fn device(change: DeviceChange) -> VmChange {
    VmChange::Device(change)
}

fn create(memory: Option<bool>) -> VmChange {
    let (name, description) = ("a".parse().unwrap(), String::new());
    let new = NewSnapshot { name, description, memory, quiesce: Quiesce::Never, frost: Frost::default() };
    VmChange::Snapshot(SnapshotChange::Create(new))
}

fn revert() -> VmChange {
    VmChange::Snapshot(SnapshotChange::Revert { name: "a".parse().unwrap(), before: None })
}

fn lend() -> VmChange {
    VmChange::Lend(LendChange { to: VmId(Uuid::from_u128(7)), still: false })
}

fn disk() -> PluggedDisk {
    let (target, pool) = ("vdb".parse().unwrap(), "default".parse().unwrap());
    PluggedDisk { target, pool, volume: "v".to_owned(), bytes: 1 << 20 }
}

/// Every change there is.
fn changes() -> Vec<(&'static str, VmChange)> {
    let library = || DiscSource::Library { medium: "debian".parse().unwrap() };
    let (pool, bytes) = ("default".parse().unwrap(), 1 << 20);
    let policy = SettingChange::Policy { on_power_off: OnPowerOff::default(), on_crash: OnCrash::default() };
    vec![
        ("reset", guest(GuestChange::Reset)),
        ("reboot", guest(GuestChange::Reboot { force: false })),
        ("reboot by force", guest(GuestChange::Reboot { force: true })),
        ("autostart", setting(SettingChange::Autostart(true))),
        ("policy", setting(policy)),
        ("rename", setting(SettingChange::Rename("other".parse().unwrap()))),
        ("resize", VmChange::Size(SizeChange::Resize { vcpus: Some(2), memory_mib: None })),
        (
            "grow a disk",
            VmChange::Size(SizeChange::GrowDisk { target: "vda".parse().unwrap(), bytes: 2 << 30 }),
        ),
        ("attach a disk", device(DeviceChange::AttachDisk { pool, volume: "v".to_owned(), bytes })),
        ("detach a disk", device(DeviceChange::DetachDisk { disk: disk(), delete_volume: false })),
        ("insert a medium", device(DeviceChange::InsertMedium { source: library(), drive: None })),
        ("eject a medium", device(DeviceChange::EjectMedium { drive: "sda".parse().unwrap() })),
        (
            "attach a card",
            device(DeviceChange::AttachInterface { source: NicSource::Network("default".parse().unwrap()) }),
        ),
        ("detach a card", device(DeviceChange::DetachInterface { mac: "52:54:00:00:00:01".to_owned() })),
        ("snapshot", create(None)),
        ("snapshot with memory", create(Some(true))),
        ("snapshot of disks", create(Some(false))),
        ("revert", revert()),
        (
            "forget a snapshot",
            VmChange::Snapshot(SnapshotChange::Delete { name: "a".parse().unwrap(), children: true }),
        ),
        ("adopt", VmChange::Identity(IdentityChange::Adopt)),
        ("release", VmChange::Identity(IdentityChange::Release)),
        ("lend", lend()),
    ]
}

/// Its number, without a gap and without a wildcard: a new change asks here for its rows.
fn number(change: &VmChange) -> usize {
    match change {
        VmChange::Guest(GuestChange::Reset) => 0,
        VmChange::Guest(GuestChange::Reboot { .. }) => 1,
        VmChange::Setting(SettingChange::Autostart(_)) => 2,
        VmChange::Setting(SettingChange::Rename(_)) => 3,
        VmChange::Setting(SettingChange::Policy { .. }) => 4,
        VmChange::Size(SizeChange::Resize { .. }) => 5,
        VmChange::Size(SizeChange::GrowDisk { .. }) => 6,
        VmChange::Device(DeviceChange::AttachDisk { .. }) => 7,
        VmChange::Device(DeviceChange::DetachDisk { .. }) => 8,
        VmChange::Device(DeviceChange::InsertMedium { .. }) => 9,
        VmChange::Device(DeviceChange::EjectMedium { .. }) => 10,
        VmChange::Device(DeviceChange::AttachInterface { .. }) => 11,
        VmChange::Device(DeviceChange::DetachInterface { .. }) => 12,
        VmChange::Snapshot(SnapshotChange::Create(_)) => 13,
        VmChange::Snapshot(SnapshotChange::Revert { .. }) => 14,
        VmChange::Snapshot(SnapshotChange::Delete { .. }) => 15,
        VmChange::Identity(IdentityChange::Adopt) => 16,
        VmChange::Identity(IdentityChange::Release) => 17,
        VmChange::Lend(_) => LAST,
    }
}

const LAST: usize = 18;

/// `.` accepted, `W` refused with `WRONG_STATE`; of a VM that was made here, with BIOS, and is ready.
#[test]
fn each_phase_takes_what_it_can() {
    // P: PROVISIONING, i: INSTALLING, s: STARTING, R: RUNNING, g: STOPPING, O: STOPPED, V: SAVED,
    // p: PAUSED, C: CRASHED, M: MISSING, U: UNKNOWN, D: DELETING, F: FAILED, -: nothing known yet.
    let table = "
        phase                 PisRgOVpCMUDF-
        reset                 W.W..WWWWWWWWW
        reboot                W.W.WWWWWWWWWW
        reboot by force       W.W.WWWWWWWWWW
        autostart             ..............
        policy                ..............
        rename                WWWWW.WW.WWW.W
        resize                .........W....
        grow a disk           .........W....
        attach a disk         .........W....
        detach a disk         .......W.W....
        insert a medium       .........W....
        eject a medium        .........W....
        attach a card         .........W....
        detach a card         .......W.W....
        snapshot              W.W.W.W..WWWWW
        snapshot with memory  W.W.WWW.WWWWWW
        snapshot of disks     W.W.W.W..WWWWW
        revert                W.....W..WWW.W
        forget a snapshot     W.....W..WWW.W
        adopt                 WWWWWWWWWWWWWW
        release               WWWWWWWWWWWWWW
        lend                  WWWWW.WWWWWWWW";
    let found: Vec<_> =
        changes().iter().map(|(name, change)| format!("{name:<22}{}", row(change, Is::default()))).collect();
    let wanted: Vec<_> = table.lines().skip(2).map(str::trim_start).collect();
    assert_eq!(found, wanted, "\n{found:#?}");
}

/// The same where what the VM is has a say in it, too; `U` is `SNAPSHOT_UNSUPPORTED`.
#[test]
fn what_a_vm_is_forbids_more() {
    let adopted = Is { adopted: true, ..Is::default() };
    let uefi = Is { uefi: true, ..Is::default() };
    let table = [
        ("a running guest's UEFI variables are kept by nobody", create(None), uefi, "WUWUW.WU.WWWWW"),
        ("with its memory", create(Some(true)), uefi, "WUWUWWWUWWWWWW"),
        ("and without", create(Some(false)), uefi, "WUWUW.WU.WWWWW"),
        ("what was taken while it was off is gone back to", revert(), uefi, "W.....W..WWW.W"),
        (
            "a first boot is not finished",
            create(None),
            Is { cloud: true, unready: true, ..Is::default() },
            "WWWWWWWWWWWWWW",
        ),
        (
            "nor with UEFI",
            create(None),
            Is { uefi: true, cloud: true, unready: true, ..Is::default() },
            "WWWWWWWWWWWWWW",
        ),
        ("it was never ready", lend(), Is { unready: true, ..Is::default() }, "WWWWWWWWWWWWWW"),
        ("it is about to be started", lend(), Is { starting: true, ..Is::default() }, "WWWWWWWWWWWWWW"),
        (
            "an adopted one is given back",
            VmChange::Identity(IdentityChange::Release),
            adopted,
            "..............",
        ),
        (
            "unless the library would lose sight of a disc",
            VmChange::Identity(IdentityChange::Release),
            Is { holds: true, ..adopted },
            "WWWWWWWWWWWWWW",
        ),
    ];
    for (why, change, is, wanted) in table {
        assert_eq!(row(&change, is), wanted, "{why}");
    }
}

#[test]
fn what_is_not_made_yet_or_on_its_way_out_takes_nothing() {
    for (name, change) in changes() {
        assert_eq!(row(&change, Is { undefined: true, ..Is::default() }), "W".repeat(14), "{name}");
        for adopted in [false, true] {
            let is = Is { deleting: true, adopted, undefined: adopted, ..Is::default() };
            assert_eq!(row(&change, is), "D".repeat(14), "{name}");
        }
    }
}

#[test]
fn no_change_is_left_out() {
    let numbers: BTreeSet<_> = changes().iter().map(|(_, change)| number(change)).collect();
    assert!(numbers.into_iter().eq(0..=LAST));
}

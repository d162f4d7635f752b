//! The nouns of the house: what a virtual machine is to us, what was asked of it, what was seen
//! of it, and what we tell people about it.
//!
//! Plain data and pure functions. Nothing here performs I/O, waits, or knows another room; the
//! one thing it borrows is the guest channel's vocabulary of commands, so that a safe action is
//! spelled in exactly one place.

mod alert;
mod change;
mod command;
mod condition;
mod device;
mod event;
mod ids;
mod image;
mod installation;
mod intent;
mod loss;
mod machine;
mod medium;
mod metrics;
mod name;
mod note;
mod observation;
mod operation;
mod phase;
mod redact;
mod resource;
mod snapshot;
mod spec;
mod text;

pub use agent_protocol::SealKey;
pub use alert::{
    Alert, AlertKind, AlertMessage, AlertSeverity, Delivery, DeliveryState, alert_details, alert_summary,
    error_fingerprint,
};
pub use change::{
    Before, DeviceChange, Effect, Frost, GuestChange, IdentityChange, LendChange, NewSnapshot, SettingChange,
    SizeChange, SnapshotChange, Unfit, VmChange, WrongState,
};
pub use command::{CommandOutcome, GuestCommand, LinkEnd, UnsafeCommand};
pub use condition::{Condition, ConditionKind, ConditionStatus};
pub use device::{
    BridgeName, DiscSource, DiskTarget, InvalidDevice, NicSource, Plugged, PluggedDisk, PluggedInterface,
    PluggedMedium, parse_mac,
};
pub use event::VmEvent;
pub use ids::{CommandId, HostId, MediumId, OperationId, SessionId, TokenId, UserId, VmId};
pub use image::{Image, ImageFormat, KernelBoot, OsFamily, Provisioning};
pub use installation::{
    Disc, InstallFamily, InstallReport, Installation, InstallerBoot, InstallerKernel, WindowsRelease,
};
pub use intent::{DesiredPower, Milestone, Milestones, VmIntent, VmRecord};
pub use loss::{LossCounts, LossReason};
pub use machine::{Lacking, MachineFacts};
pub use medium::{
    DiskFacts, Medium, MediumFacts, MediumFailure, MediumKind, MediumSource, MediumState, disc_file_name,
};
pub use metrics::{
    Aggregate, DiskRates, FrameText, MetricsSample, NetworkRates, Readings, Resolution, Series, SeriesField,
    SeriesPoint, SeriesRequest,
};
pub use name::{InvalidName, ResourceName, SnapshotName, VmName};
pub use note::{NotedResource, VmNote};
pub use observation::{
    ChannelFacts, DomainAbout, DomainFacts, DomainObservation, DomainState, FirstBoot, InterfaceFacts,
    LinkCounters, LinkObservation, LinkSeal, NoteFacts, OpenLink, SocketObservation, StorageObservation,
};
pub use operation::{FORCED, Operation, OperationError, OperationKind, OperationStatus};
pub use phase::{AgentConnectivity, VmPhase, VmStatus};
pub use redact::{RedactionError, Redactor};
pub use resource::{Resource, ResourceKind, ResourceState};
pub use snapshot::{
    MAX_DESCRIPTION_CHARS, MAX_SNAPSHOTS, Quiesce, Quiesced, Snapshot, SnapshotState, SnapshotTag,
};
pub use spec::{
    Base, Firmware, FirstBootSecret, NetworkAttachment, OnCrash, OnPowerOff, Origin, PowerKeeping, SpecError,
    Unattended, VmSpec,
};

pub use text::chain;

pub use agent_protocol::{Platform, SafeAction, ServiceOperation};

/// The current time, truncated to microseconds: the finest grain that both databases keep, so
/// that a value read back equals the value written.
pub fn truncate_to_micros(at: chrono::DateTime<chrono::Utc>) -> chrono::DateTime<chrono::Utc> {
    use chrono::{Timelike, Utc};
    let nanos = at.nanosecond() % 1_000_000_000 / 1_000 * 1_000;
    at.with_nanosecond(nanos)
        .unwrap_or_else(|| chrono::DateTime::<Utc>::from_timestamp(at.timestamp(), nanos).unwrap_or(at))
}

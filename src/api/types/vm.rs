//! A VM, and what happens to it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use async_graphql::{Context, Enum, Json, Object, SimpleObject};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    OperationObject, VmMetrics,
    agent::Agent,
    device::{self, VmDisk, VmInterface, VmMedium},
    host::FirmwareName,
};
use crate::{
    api::{auth::Call, batch::Batch, error::ApiError, scalars::BigInt},
    domain_xml::mac_address,
    events::Notice,
    store::{MetricsRow, VmView},
    vm::{
        Condition, ConditionKind, ConditionStatus, DesiredPower, NetworkAttachment, OnCrash, OnPowerOff,
        Operation, Origin, VmEvent, VmId, VmPhase,
    },
};

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "VmPhase", name = "VmPhase")]
pub(crate) enum VmPhaseName {
    /// Disk, seed and domain are being made.
    Provisioning,
    /// It runs for the first time and its system is not ready yet.
    Installing,
    /// Asked to run, not running yet.
    Starting,
    /// Running.
    Running,
    /// Asked to stop, not off yet.
    Stopping,
    /// Off.
    Stopped,
    /// Off, with its memory kept on disk; `startVm` goes on from there.
    Saved,
    /// Paused.
    Paused,
    /// Ended by a fault.
    Crashed,
    /// Its domain is gone although nobody asked.
    Missing,
    /// libvirt cannot be asked.
    Unknown,
    /// On its way out.
    Deleting,
    /// A step kept failing; the conditions say which and why. `startVm` tries again.
    Failed,
}

/// The power somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(name = "DesiredPower")]
pub(crate) enum DesiredPowerName {
    /// On.
    Running,
    /// Off, politely first.
    Stopped,
    /// Off, at once.
    ForcedOff,
    /// There, with its processors halted.
    Paused,
    /// Off, with its memory kept on disk.
    Saved,
}

impl From<DesiredPower> for DesiredPowerName {
    fn from(power: DesiredPower) -> Self {
        match power {
            // How it was started is past once it runs.
            DesiredPower::Running | DesiredPower::ColdRunning => Self::Running,
            DesiredPower::Stopped => Self::Stopped,
            DesiredPower::ForcedOff => Self::ForcedOff,
            DesiredPower::Paused => Self::Paused,
            DesiredPower::Saved => Self::Saved,
        }
    }
}

/// What to do with a VM that was asked to run and was powered off, by its guest or outside of this
/// controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "OnPowerOff", name = "OnPowerOff")]
pub(crate) enum OnPowerOffName {
    /// It stays off.
    Follow,
    /// It is started again, 15 s later.
    Correct,
}

/// What to do with a VM that was asked to run and crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "OnCrash", name = "OnCrash")]
pub(crate) enum OnCrashName {
    /// It stays as it is.
    Stay,
    /// It is started again, at most 5 times within 10 minutes.
    Restart,
}

/// How a VM's power is kept when nobody asks for it.
#[derive(Debug, SimpleObject)]
#[graphql(name = "VmPolicy")]
pub(crate) struct VmPolicyObject {
    /// When it was powered off.
    on_power_off: OnPowerOffName,
    /// When it crashed.
    on_crash: OnCrashName,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "ConditionStatus", name = "ConditionStatus")]
pub(crate) enum ConditionStatusName {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It could not be found out.
    Unknown,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "ConditionKind", name = "ConditionType")]
pub(crate) enum ConditionTypeName {
    /// libvirt answers.
    HypervisorReachable,
    /// The domain has the agent channel.
    ChannelPresent,
    /// The agent is heard.
    AgentConnected,
    /// The guest's clock is too far off.
    ClockSkew,
    /// The first boot advances.
    InstallProgressing,
    /// The disks are there and can be used; told once it was otherwise.
    DisksPresent,
    /// There is little room left in a pool that the disks lie in; told once it was so.
    StorageLow,
    /// The domain is not as it was asked for.
    DriftedFromIntent,
    /// A change waits until the VM is powered off and started again; the message names it.
    RestartRequired,
    /// The last step went well.
    Reconciled,
}

/// Something that can be right or wrong with a VM.
#[derive(Debug, SimpleObject)]
#[graphql(name = "Condition")]
pub(crate) struct ConditionObject {
    /// What it is about.
    #[graphql(name = "type")]
    kind: ConditionTypeName,
    /// Whether it holds.
    status: ConditionStatusName,
    /// One word, for programs.
    reason: String,
    /// One sentence, for people.
    message: String,
    /// When `status` last changed.
    since: DateTime<Utc>,
}

impl From<&Condition> for ConditionObject {
    fn from(condition: &Condition) -> Self {
        Self {
            kind: condition.kind.into(),
            status: condition.status.into(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: condition.since,
        }
    }
}

/// A virtual machine.
pub(crate) struct VmObject {
    view: VmView,
    batch: Arc<Batch>,
}

impl VmObject {
    pub(crate) fn one(view: VmView) -> Self {
        let batch = Batch::of(std::slice::from_ref(&view));
        Self { view, batch }
    }

    pub(crate) fn many(views: Vec<VmView>) -> Vec<Self> {
        let batch = Batch::of(&views);
        views.into_iter().map(|view| Self { view, batch: batch.clone() }).collect()
    }

    fn vm(&self) -> VmId {
        self.view.record.id
    }

    fn may_have_addresses(&self) -> bool {
        use VmPhase::{Deleting, Installing, Paused, Running, Starting, Stopping, Unknown};
        let phase = self.view.status.as_ref().map(|status| status.phase);
        matches!(phase, Some(Starting | Installing | Running | Paused | Stopping | Deleting | Unknown))
    }

    fn macs(&self) -> Vec<String> {
        let spec = &self.view.record.spec;
        match &spec.origin {
            Origin::Adopted { macs } => macs.clone(),
            _ if spec.network == NetworkAttachment::None => Vec::new(),
            Origin::Created | Origin::Cloned { .. } => vec![mac_address(self.vm())],
        }
    }

    async fn reading(&self, ctx: &Context<'_>) -> Result<Option<Arc<MetricsRow>>, ApiError> {
        self.batch.reading(Call::of(ctx)?.api, self.vm()).await
    }
}

/// What a field costs that is looked up outside the VM's own row.
const LOOKUP_COMPLEXITY: usize = 10;

/// A virtual machine of this controller.
#[Object(name = "Vm")]
impl VmObject {
    /// Its id, which is also its domain's UUID.
    async fn id(&self) -> Uuid {
        self.vm().uuid()
    }

    /// Its name, which is also its domain's.
    async fn name(&self) -> &str {
        self.view.record.spec.name.as_str()
    }

    /// Where it is in its life.
    async fn phase(&self) -> VmPhaseName {
        self.view.status.as_ref().map_or(VmPhase::Provisioning, |status| status.phase).into()
    }

    /// The power last asked for.
    async fn power(&self) -> DesiredPowerName {
        self.view.record.intent.power.into()
    }

    /// Whether the host starts it when it boots itself, as last asked for by `setVmAutostart`.
    async fn autostart(&self) -> bool {
        self.view.record.spec.keeping.autostart
    }

    /// How its power is kept when nobody asks for it.
    async fn policy(&self) -> VmPolicyObject {
        let keeping = self.view.record.spec.keeping;
        VmPolicyObject { on_power_off: keeping.on_power_off.into(), on_crash: keeping.on_crash.into() }
    }

    /// Who may use it, besides admins.
    async fn owner_id(&self) -> Uuid {
        self.view.record.owner.uuid()
    }

    /// The image it was made from; `(none)` of an adopted VM, and of one that was installed from a
    /// `medium`.
    async fn image(&self) -> &str {
        let spec = &self.view.record.spec;
        let image = spec.image().filter(|_| !spec.is_adopted());
        image.map_or("(none)", |image| image.name.as_str())
    }

    /// The installation medium it was installed from; null of others.
    async fn medium(&self) -> Option<&str> {
        let spec = &self.view.record.spec;
        spec.installation().map(|installation| installation.disc.medium.as_str())
    }

    /// How far its installer last said to be, in a word of its own; null where none spoke.
    async fn install_stage(&self) -> Option<&str> {
        self.view.install_report.as_ref().map(|report| report.stage.as_str())
    }

    /// When its installer last said something new.
    async fn install_reported_at(&self) -> Option<DateTime<Utc>> {
        self.view.install_report.as_ref().map(|report| report.at)
    }

    /// The VM that it was made as a copy of (`cloneVm`). That VM may be gone.
    async fn cloned_from(&self) -> Option<Uuid> {
        self.view.record.spec.cloned_from().map(VmId::uuid)
    }

    /// Whether others made its domain: it is not deleted but given back (`releaseDomain`), and none
    /// of its disks are ours.
    async fn adopted(&self) -> bool {
        self.view.record.spec.is_adopted()
    }

    /// Virtual processors.
    async fn vcpus(&self) -> u32 {
        self.view.record.spec.vcpus
    }

    /// MiB.
    async fn memory_mib(&self) -> BigInt {
        self.view.record.spec.memory_mib.into()
    }

    /// What it boots with, as it was asked for; of an adopted VM nobody knows.
    async fn firmware(&self) -> Option<FirmwareName> {
        let spec = &self.view.record.spec;
        (!spec.is_adopted()).then(|| spec.firmware.into())
    }

    /// Whether it was made with a TPM 2.0; of an adopted VM nobody knows.
    async fn tpm(&self) -> Option<bool> {
        let spec = &self.view.record.spec;
        (!spec.is_adopted()).then_some(spec.tpm)
    }

    /// Of the disk that was made for it, bytes; 0 of an adopted VM.
    async fn disk_bytes(&self) -> BigInt {
        self.view.record.spec.disk_bytes.into()
    }

    /// Its disks: the one it was made with, and those that were plugged in.
    async fn disks(&self) -> Vec<VmDisk> {
        device::disks(&self.view.record)
    }

    /// Media that were put into its drives.
    async fn media(&self) -> Vec<VmMedium> {
        device::media(&self.view.record)
    }

    /// Its network cards.
    async fn interfaces(&self) -> Vec<VmInterface> {
        device::interfaces(&self.view.record)
    }

    /// The storage pool of its disk; of an adopted VM the pool that a new disk would come from.
    async fn pool(&self) -> &str {
        self.view.record.spec.pool.as_str()
    }

    /// The libvirt network, `user` or `none`.
    async fn network(&self) -> &str {
        match &self.view.record.spec.network {
            NetworkAttachment::Network(name) => name.as_str(),
            NetworkAttachment::User => "user",
            NetworkAttachment::None => "none",
        }
    }

    /// The agent inside.
    async fn agent(&self, ctx: &Context<'_>) -> Result<Agent, ApiError> {
        let api = Call::of(ctx)?.api;
        let link = (api.links)(self.vm());
        let counted = (api.counters)(self.vm());
        Ok(Agent::new(self.view.status.as_ref(), &link, counted, api.metrics.rejections(self.vm())))
    }

    /// What is right and what is not.
    async fn conditions(&self) -> Vec<ConditionObject> {
        self.view.status.iter().flat_map(|status| &status.conditions).map(ConditionObject::from).collect()
    }

    /// Addresses, as the agent and the host's DHCP server know them; without loopback and
    /// link-local ones. Empty while the VM is off: what it had may be another's by now.
    #[graphql(complexity = "LOOKUP_COMPLEXITY")]
    async fn ip_addresses(&self, ctx: &Context<'_>) -> Result<Vec<String>, ApiError> {
        if !self.may_have_addresses() {
            return Ok(Vec::new());
        }
        let api = Call::of(ctx)?.api;
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        for mac in self.macs() {
            let leases = self.batch.leases(api, &mac).await;
            addresses.extend(leases.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()));
        }
        if let Some(reading) = self.reading(ctx).await? {
            addresses.extend(reported_addresses(&reading.frame.tree()));
        }
        Ok(addresses.into_iter().map(|address| address.to_string()).collect())
    }

    /// Of its network cards.
    async fn mac_addresses(&self) -> Vec<String> {
        let plugged = self.view.record.spec.devices.interfaces.iter().map(|card| card.mac.clone());
        self.macs().into_iter().chain(plugged).collect()
    }

    /// The newest stored reading.
    #[graphql(complexity = "LOOKUP_COMPLEXITY + child_complexity")]
    async fn latest_metrics(&self, ctx: &Context<'_>) -> Result<Option<VmMetrics>, ApiError> {
        Ok(self.reading(ctx).await?.map(|row| VmMetrics::from((*row).clone())))
    }

    /// When it was asked for.
    async fn created_at(&self) -> DateTime<Utc> {
        self.view.record.created_at
    }

    /// When its first boot was finished.
    async fn installed_at(&self) -> Option<DateTime<Utc>> {
        self.view.record.milestones.installed
    }
}

/// Most addresses taken from a guest's own words.
const MAX_REPORTED: usize = 64;

/// The addresses in a frame, which a guest wrote: parsed, never passed on as text.
fn reported_addresses(system: &Value) -> Vec<IpAddr> {
    let interfaces = system.pointer("/network/interfaces").and_then(Value::as_array);
    let texts = interfaces
        .into_iter()
        .flatten()
        .filter_map(|interface| interface.get("ip_addresses")?.as_array())
        .flatten()
        .filter_map(Value::as_str);
    let addresses = texts.filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok());
    addresses.filter(|address| !is_local(*address)).take(MAX_REPORTED).collect()
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

/// What a mutation that takes time answers.
#[derive(SimpleObject)]
pub(crate) struct VmPayload {
    /// The VM, as asked for.
    vm: VmObject,
    /// To be followed with `operation` or `operationProgress`.
    operation: OperationObject,
}

impl VmPayload {
    pub(crate) fn new(view: VmView, operation: Operation) -> Self {
        Self { vm: VmObject::one(view), operation: operation.into() }
    }
}

/// Something that happened to a VM.
#[derive(Debug, SimpleObject)]
#[graphql(name = "VmEvent")]
pub(crate) struct VmEventNotice {
    /// `vm:online`, `vm:offline`, `vm:metrics`, `vm:command`, `vm:error`, `vm:status`,
    /// `vm:operation`, `vm:deleted`; `snapshot`: how the VM is now, which comes first; or `lagged`:
    /// events were missed, and another snapshot follows.
    #[graphql(name = "type")]
    kind: String,
    /// The VM.
    vm_id: Uuid,
    /// When.
    at: DateTime<Utc>,
    /// What there is to know of it.
    payload: Json<Value>,
}

impl VmEventNotice {
    pub(crate) fn new(vm: VmId, notice: &Notice) -> Self {
        let (kind, at, payload) = match notice {
            Notice::Lagged(missed) => ("lagged", Utc::now(), json!({ "missed": missed })),
            Notice::Event(event) => {
                let (at, payload) = told(event);
                (event.name(), at, payload)
            }
        };
        Self { kind: kind.to_owned(), vm_id: vm.uuid(), at, payload: Json(payload) }
    }

    /// How the VM is: what `vm:status` would tell.
    pub(crate) fn snapshot(view: &VmView) -> Self {
        let status = view.status.as_ref();
        let payload = json!({
            "phase": status.map_or(VmPhase::Provisioning, |status| status.phase),
            "agent": status.map(|status| status.agent),
            "conditions": status.map(|status| &*status.conditions).unwrap_or_default(),
        });
        Self {
            kind: "snapshot".to_owned(),
            vm_id: view.record.id.uuid(),
            at: Utc::now(),
            payload: Json(payload),
        }
    }
}

/// When, and what there is to know of it.
pub(crate) fn told(event: &VmEvent) -> (DateTime<Utc>, Value) {
    match event {
        VmEvent::Online { at, .. } | VmEvent::Deleted { at, .. } => (*at, json!({})),
        VmEvent::Offline { at, reason, .. } => (*at, json!({ "reason": reason })),
        VmEvent::Metrics(sample) => (
            sample.received_at,
            json!({
                "timestamp": sample.timestamp, "cpuUsage": sample.readings.cpu_usage,
                "memoryUsed": sample.readings.memory_used.to_string(), "memoryTotal": sample.readings.memory_total.to_string(),
            }),
        ),
        VmEvent::Command { at, command, success, .. } => {
            (*at, json!({ "commandId": command.uuid(), "success": success }))
        }
        VmEvent::Error { at, error, .. } => (*at, json!({ "error": error })),
        VmEvent::Status { at, status, .. } => {
            (*at, json!({ "phase": status.phase, "agent": status.agent, "conditions": status.conditions }))
        }
        VmEvent::Operation(operation) => (
            operation.finished_at.unwrap_or_else(Utc::now),
            json!({
                "operationId": operation.id.uuid(), "kind": operation.kind, "status": operation.status,
                "progress": operation.progress, "stage": operation.stage,
            }),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_local_ones_left_out() {
        let system = json!({ "network": { "interfaces": [
            { "ip_addresses": ["127.0.0.1", "::1", "fe80::1"] },
            { "ip_addresses": ["192.168.122.5/24", "2001:db8::5", "<script>", 7] },
            { "ip_addresses": "no list" }, 5,
        ] } });
        let found: Vec<_> = reported_addresses(&system).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.168.122.5", "2001:db8::5"]);
        assert!(reported_addresses(&json!({ "network": 5 })).is_empty());
    }
}

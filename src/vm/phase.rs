//! What we tell people. Derived from intent and observation on every pass, never the truth.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Condition, ConditionKind, ConditionStatus};

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VmPhase {
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
    /// Off, with its memory kept on disk; the next start goes on from there.
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
    /// A step keeps failing; the conditions say which and why.
    Failed,
}

impl VmPhase {
    /// Every phase there is.
    pub const ALL: [Self; 13] = [
        Self::Provisioning,
        Self::Installing,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Stopped,
        Self::Saved,
        Self::Paused,
        Self::Crashed,
        Self::Missing,
        Self::Unknown,
        Self::Deleting,
        Self::Failed,
    ];
}

impl fmt::Display for VmPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provisioning => "PROVISIONING",
            Self::Installing => "INSTALLING",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
            Self::Saved => "SAVED",
            Self::Paused => "PAUSED",
            Self::Crashed => "CRASHED",
            Self::Missing => "MISSING",
            Self::Unknown => "UNKNOWN",
            Self::Deleting => "DELETING",
            Self::Failed => "FAILED",
        })
    }
}

/// Whether the agent in the guest can be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AgentConnectivity {
    /// Never heard since the VM was made.
    NeverSeen,
    /// Known from before, not heard since this controller started, or silent while libvirt cannot be
    /// asked.
    Unknown,
    /// Heard, and recently enough.
    Online,
    /// Silent for too long in a running domain, or disconnected.
    Offline,
    /// The domain has no channel.
    Unsupported,
}

impl AgentConnectivity {
    /// Every connectivity there is.
    pub const ALL: [Self; 5] =
        [Self::NeverSeen, Self::Unknown, Self::Online, Self::Offline, Self::Unsupported];
}

impl fmt::Display for AgentConnectivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverSeen => "NEVER_SEEN",
            Self::Unknown => "UNKNOWN",
            Self::Online => "ONLINE",
            Self::Offline => "OFFLINE",
            Self::Unsupported => "UNSUPPORTED",
        })
    }
}

/// The derived state of a VM, as stored for queries and published when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// See [`VmPhase`].
    pub phase: VmPhase,
    /// See [`AgentConnectivity`].
    pub agent: AgentConnectivity,
    /// When the agent was last heard.
    pub last_seen: Option<DateTime<Utc>>,
    /// The agent's version, once it said it.
    pub agent_version: Option<String>,
    /// Everything a person may have to act on.
    pub conditions: Vec<Condition>,
}

impl VmStatus {
    /// What is left of a status after the controller that derived it has ended: what was seen
    /// then may have changed since, and is `Unknown` until it is seen again. What was asked for,
    /// or failed, stands.
    #[must_use]
    pub fn aged(mut self) -> Self {
        if !matches!(self.phase, VmPhase::Provisioning | VmPhase::Deleting | VmPhase::Failed) {
            self.phase = VmPhase::Unknown;
        }
        if matches!(self.agent, AgentConnectivity::Online | AgentConnectivity::Offline) {
            self.agent = AgentConnectivity::Unknown;
        }
        for condition in &mut self.conditions {
            if matches!(condition.kind, ConditionKind::AgentConnected | ConditionKind::HypervisorReachable) {
                condition.status = ConditionStatus::Unknown;
                "NotSeenYet".clone_into(&mut condition.reason);
                "Not seen since the controller started.".clone_into(&mut condition.message);
            }
        }
        self
    }
}

//! Conditions, in the manner of Kubernetes: one row per thing that can be right or wrong.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionKind {
    /// libvirt answers.
    HypervisorReachable,
    /// The domain has our channel, at the path we expect.
    ChannelPresent,
    /// The agent is heard.
    AgentConnected,
    /// The guest's clock is off.
    ClockSkew,
    /// The first boot advances.
    InstallProgressing,
    /// The disks are there and can be used.
    DisksPresent,
    /// There is little room left in a pool that the disks lie in.
    StorageLow,
    /// The domain is not as it was asked for.
    DriftedFromIntent,
    /// The running domain is not configured as it runs: something waits for its next start.
    RestartRequired,
    /// The last step of the loop went well; false says which did not, and why.
    Reconciled,
}

/// Whether it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It could not be found out.
    Unknown,
}

/// One condition of one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One CamelCase word, for programs.
    pub reason: String,
    /// One sentence, for people; says what to do where there is something to do.
    pub message: String,
    /// When `status` last changed.
    pub since: DateTime<Utc>,
}

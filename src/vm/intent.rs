//! What was asked of a VM, and the facts about it that the present cannot show.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{HostId, UserId, VmId, VmSpec};

/// The power state somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredPower {
    /// On.
    Running,
    /// On, from cold: what was saved of the memory is dropped first.
    ColdRunning,
    /// Off, politely first; forced when the grace has passed.
    Stopped,
    /// Off, at once.
    ForcedOff,
    /// There, with its processors halted.
    Paused,
    /// Off, with its memory kept on disk.
    Saved,
}

impl DesiredPower {
    /// Whether the VM is to be on and at work.
    #[must_use]
    pub fn is_on(self) -> bool {
        matches!(self, Self::Running | Self::ColdRunning)
    }

    /// Whether the VM is to be off, whatever becomes of what it was doing.
    #[must_use]
    pub fn is_off(self) -> bool {
        matches!(self, Self::Stopped | Self::ForcedOff)
    }
}

/// What was asked. Every mutation raises `generation`; the loop notes in `satisfied` the last
/// generation whose power it reached, so that a guest which later powers itself off is followed
/// rather than fought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmIntent {
    /// The power asked for.
    pub power: DesiredPower,
    /// Once true, never false again.
    pub deleting: bool,
    /// Counts requests; starts at 1.
    pub generation: i64,
    /// The last generation whose power was reached, or given up; 0 before any.
    pub satisfied: i64,
    /// The last generation that was given up: its steps kept failing. 0: none.
    pub given_up: i64,
    /// When the current generation was asked for: the clock of graces and budgets.
    pub asked_at: DateTime<Utc>,
}

impl VmIntent {
    /// Whether the power of the current generation still has to be reached.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.satisfied < self.generation
    }

    /// Whether the current generation was given up.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.given_up == self.generation
    }
}

/// A fact that happened once and stays true, whatever the present shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Milestone {
    /// The disk volume was made.
    DiskCreated,
    /// The seed medium was written.
    SeedWritten,
    /// The domain was defined. Before this, `Absent` means "not yet"; after it, "gone".
    Defined,
    /// The domain was seen running for the first time.
    FirstStarted,
    /// The installer has put the system on the disk, where one is at work.
    SystemInstalled,
    /// The domain was defined anew to boot from its disk, without the installer and its media.
    BootReplaced,
    /// The agent was heard for the first time.
    FirstSeen,
    /// The installed system's agent said that its first boot is finished.
    Installed,
    /// The seed's secrets are gone.
    SeedScrubbed,
}

/// When each milestone was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Milestones {
    /// See [`Milestone::DiskCreated`].
    pub disk_created: Option<DateTime<Utc>>,
    /// See [`Milestone::SeedWritten`].
    pub seed_written: Option<DateTime<Utc>>,
    /// See [`Milestone::Defined`].
    pub defined: Option<DateTime<Utc>>,
    /// See [`Milestone::FirstStarted`].
    pub first_started: Option<DateTime<Utc>>,
    /// See [`Milestone::SystemInstalled`].
    pub system_installed: Option<DateTime<Utc>>,
    /// See [`Milestone::BootReplaced`].
    pub boot_replaced: Option<DateTime<Utc>>,
    /// See [`Milestone::FirstSeen`].
    pub first_seen: Option<DateTime<Utc>>,
    /// See [`Milestone::Installed`].
    pub installed: Option<DateTime<Utc>>,
    /// See [`Milestone::SeedScrubbed`].
    pub seed_scrubbed: Option<DateTime<Utc>>,
}

impl Milestones {
    /// When `milestone` was passed, if it was.
    #[must_use]
    pub fn at(&self, milestone: Milestone) -> Option<DateTime<Utc>> {
        match milestone {
            Milestone::DiskCreated => self.disk_created,
            Milestone::SeedWritten => self.seed_written,
            Milestone::Defined => self.defined,
            Milestone::FirstStarted => self.first_started,
            Milestone::SystemInstalled => self.system_installed,
            Milestone::BootReplaced => self.boot_replaced,
            Milestone::FirstSeen => self.first_seen,
            Milestone::Installed => self.installed,
            Milestone::SeedScrubbed => self.seed_scrubbed,
        }
    }

    /// Notes that `milestone` was passed; the first time counts.
    pub fn pass(&mut self, milestone: Milestone, now: DateTime<Utc>) {
        let slot = match milestone {
            Milestone::DiskCreated => &mut self.disk_created,
            Milestone::SeedWritten => &mut self.seed_written,
            Milestone::Defined => &mut self.defined,
            Milestone::FirstStarted => &mut self.first_started,
            Milestone::SystemInstalled => &mut self.system_installed,
            Milestone::BootReplaced => &mut self.boot_replaced,
            Milestone::FirstSeen => &mut self.first_seen,
            Milestone::Installed => &mut self.installed,
            Milestone::SeedScrubbed => &mut self.seed_scrubbed,
        };
        slot.get_or_insert(now);
    }
}

/// A VM as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRecord {
    /// The domain's UUID.
    pub id: VmId,
    /// The host whose controller owns it.
    pub host: HostId,
    /// Who may use it, besides admins.
    pub owner: UserId,
    /// What it is made of.
    pub spec: VmSpec,
    /// What was asked.
    pub intent: VmIntent,
    /// What has happened.
    pub milestones: Milestones,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
}

//! A VM's snapshots, as they are asked for and as they are found.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::OperationId;

/// Most snapshots of one VM that we make: each is listed by a call to libvirt of its own, and
/// each makes every later one a little slower.
pub const MAX_SNAPSHOTS: usize = 256;

/// The longest description, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 1024;

/// Whether the guest's file systems are to be brought to rest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quiesce {
    /// Not at all.
    Never,
    /// Where the guest's QEMU agent does it; a snapshot is taken in any case.
    IfPossible,
    /// Without it no snapshot is taken.
    Required,
}

/// What a revert to a snapshot leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotState {
    /// The guest goes on running from there: its memory was kept.
    Running,
    /// The VM is off, as it was then.
    Shutoff,
    /// The VM is off, with its disks as they were while the guest ran.
    Disk,
}

/// What became of the wish to bring the file systems to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiesced {
    /// Nothing was to be brought to rest: the VM was off, or its memory was kept, with what the
    /// guest had not written yet.
    NotNeeded,
    /// They were at rest.
    Yes,
    /// Nobody asked for it.
    NotAsked,
    /// No QEMU agent answers in the guest.
    NoAgent,
    /// The guest's agent could not do it.
    Failed,
    /// They were thawed again before the snapshot was taken, because that took too long.
    Late,
}

impl Quiesced {
    const WORDS: [(Self, &'static str); 6] = [
        (Self::NotNeeded, "not-needed"),
        (Self::Yes, "yes"),
        (Self::NotAsked, "not-asked"),
        (Self::NoAgent, "no-agent"),
        (Self::Failed, "failed"),
        (Self::Late, "late"),
    ];

    /// Whether the snapshot's file systems were at rest; `None` where there was nothing to do.
    #[must_use]
    pub fn answer(self) -> Option<bool> {
        match self {
            Self::NotNeeded => None,
            Self::Yes => Some(true),
            _ => Some(false),
        }
    }

    /// Why not, for people.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::NotNeeded | Self::Yes => None,
            Self::NotAsked => Some("it was not asked for"),
            Self::NoAgent => Some("no QEMU guest agent answers in the guest; install qemu-guest-agent"),
            Self::Failed => Some("the QEMU guest agent could not freeze the file systems"),
            Self::Late => Some("taking it took so long that the file systems were thawed before"),
        }
    }
}

/// What we note in a snapshot that we take, where libvirt keeps it: in its description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotTag {
    /// The operation that took it: a step that is done again knows its own work by it.
    pub operation: OperationId,
    /// Whether the guest's memory belongs to it. libvirt keeps it either way.
    pub memory: bool,
    /// See [`Quiesced`].
    pub quiesced: Quiesced,
}

impl fmt::Display for SnapshotTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = if self.memory { "yes" } else { "no" };
        let quiesced = Quiesced::WORDS.iter().find(|(quiesced, _)| *quiesced == self.quiesced);
        let quiesced = quiesced.map_or("no", |(_, word)| word);
        write!(f, "[infinibay operation={} memory={memory} quiesced={quiesced}]", self.operation)
    }
}

impl FromStr for SnapshotTag {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let inner = text.strip_prefix("[infinibay ").and_then(|rest| rest.strip_suffix(']')).ok_or(())?;
        let mut words = inner.split(' ');
        let mut value = |name: &str| {
            words.next().and_then(|word| word.strip_prefix(name)).and_then(|rest| rest.strip_prefix('='))
        };
        let operation = value("operation").ok_or(())?.parse().map(OperationId).map_err(drop)?;
        let memory = match value("memory").ok_or(())? {
            "yes" => true,
            "no" => false,
            _ => return Err(()),
        };
        let word = value("quiesced").ok_or(())?;
        let quiesced = Quiesced::WORDS.iter().find(|(_, known)| *known == word).ok_or(())?.0;
        if words.next().is_some() { Err(()) } else { Ok(Self { operation, memory, quiesced }) }
    }
}

impl SnapshotTag {
    /// A description with the tag as its last line: whatever people write stands above it, and
    /// cannot pass for one.
    #[must_use]
    pub fn append_to(&self, description: &str) -> String {
        if description.is_empty() { self.to_string() } else { format!("{description}\n{self}") }
    }

    /// The description as people wrote it, and the tag, if it ends in one.
    #[must_use]
    pub fn split(description: &str) -> (&str, Option<Self>) {
        let (above, last) = description.rsplit_once('\n').unwrap_or(("", description));
        match last.parse() {
            Ok(tag) => (above, Some(tag)),
            Err(()) => (description, None),
        }
    }
}

/// A snapshot that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name. One that others made may be called anything.
    pub name: String,
    /// The name of the one that it builds on.
    pub parent: Option<String>,
    /// What people wrote about it.
    pub description: String,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// See [`SnapshotState`].
    pub state: SnapshotState,
    /// Whether the VM's present state builds on it.
    pub current: bool,
    /// `None` for one that others made.
    pub tag: Option<SnapshotTag>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_whatever_people_write_above_it() {
        let forged =
            SnapshotTag { operation: OperationId::generate(), memory: true, quiesced: Quiesced::Yes };
        for (quiesced, _) in Quiesced::WORDS {
            let tag = SnapshotTag { operation: OperationId::generate(), memory: false, quiesced };
            for written in ["", "before the upgrade", "two\nlines", "ends in a line\n", &forged.to_string()] {
                let kept = tag.append_to(written);
                assert_eq!(SnapshotTag::split(&kept), (written, Some(tag)), "{kept:?}");
            }
        }
        for others in ["", "made by hand", "[infinibay operation=7 memory=no quiesced=yes]", "[infinibay ]"] {
            assert_eq!(SnapshotTag::split(others), (others, None));
        }
    }
}

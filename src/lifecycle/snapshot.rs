//! Requests about snapshots: checked against those that are there, so that a name that cannot be
//! meant is refused at once. The loop looks again; between the two the host may change.

use super::{Lifecycle, LifecycleError, change::takes};
use crate::{
    access::{Action, Actor, Target, authorize},
    hypervisor::HypervisorError,
    vm::{
        MAX_DESCRIPTION_CHARS, MAX_SNAPSHOTS, NewSnapshot, Operation, Quiesce, Snapshot, SnapshotChange,
        SnapshotName, VmChange, VmId, VmRecord,
    },
};

impl Lifecycle {
    /// The snapshots of a VM, oldest first. Whether he may know is for the caller to ask.
    ///
    /// # Errors
    /// `Hypervisor`.
    pub async fn snapshots(&self, vm: VmId) -> Result<Vec<Snapshot>, LifecycleError> {
        none_if_gone(self.hypervisor.snapshots(vm).await)
    }

    /// Asks for something to be done about a VM's snapshots.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn change_snapshots(
        &self,
        actor: &Actor,
        vm: VmId,
        change: SnapshotChange,
    ) -> Result<(VmRecord, Operation), LifecycleError> {
        if let SnapshotChange::Create(new) = &change {
            check(new)?;
        }
        let view = self.store.vm(vm).await.map_err(LifecycleError::Store)?;
        let owner = view.as_ref().map(|view| view.record.owner);
        authorize(actor, Action::ControlVm(Target { vm, owner }))
            .map_err(|denied| LifecycleError::denied(denied, vm))?;
        let view = view.ok_or(LifecycleError::NotFound(vm))?;
        let change = VmChange::Snapshot(change);
        takes(&change, &view.record, view.status.as_ref())?;
        if let VmChange::Snapshot(change) = &change {
            fits(change, &none_if_gone(self.hypervisor.snapshot_names(vm).await)?)?;
        }
        self.change(actor, vm, change).await
    }
}

/// A domain that is not made yet, or gone, has none.
fn none_if_gone<T>(outcome: Result<Vec<T>, HypervisorError>) -> Result<Vec<T>, LifecycleError> {
    match outcome {
        Err(HypervisorError::NotFound { .. }) => Ok(Vec::new()),
        outcome => outcome.map_err(LifecycleError::Hypervisor),
    }
}

fn fits(change: &SnapshotChange, there: &[String]) -> Result<(), LifecycleError> {
    let is_there = |name: &SnapshotName| there.iter().any(|other| other == name.as_str());
    match change {
        SnapshotChange::Create(new) if is_there(&new.name) => {
            Err(LifecycleError::SnapshotExists(new.name.to_string()))
        }
        SnapshotChange::Create(_) if there.len() >= MAX_SNAPSHOTS => Err(LifecycleError::TooManySnapshots),
        SnapshotChange::Revert { name, .. } | SnapshotChange::Delete { name, .. } if !is_there(name) => {
            Err(LifecycleError::SnapshotNotFound(name.to_string()))
        }
        _ => Ok(()),
    }
}

/// What makes no sense whatever the VM does.
fn check(new: &NewSnapshot) -> Result<(), LifecycleError> {
    let invalid = |field, reason: String| Err(LifecycleError::Invalid { field, reason });
    let length = new.description.chars().count();
    if length > MAX_DESCRIPTION_CHARS {
        return invalid(
            "description",
            format!("has {length} characters; {MAX_DESCRIPTION_CHARS} are the most"),
        );
    }
    // XML has no other control characters, and none of those that are no characters.
    let odd = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{fffe}' | '\u{ffff}');
    if let Some(c) = new.description.chars().find(|c| odd(*c)) {
        return invalid("description", format!("{c:?} is not allowed there"));
    }
    if new.quiesce == Quiesce::Required && new.memory != Some(false) {
        let words = "only a snapshot without memory has its file systems brought to rest; ask for \
                     `memory: false`, or not for `REQUIRED`";
        return invalid("quiesce", words.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Frost;

    fn new(description: &str, memory: Option<bool>, quiesce: Quiesce) -> NewSnapshot {
        let name = "a".parse().unwrap();
        NewSnapshot { name, description: description.to_owned(), memory, quiesce, frost: Frost::default() }
    }

    fn field(new: &NewSnapshot) -> Option<&'static str> {
        match check(new) {
            Err(LifecycleError::Invalid { field, .. }) => Some(field),
            _ => None,
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_field() {
        let most = "ä".repeat(MAX_DESCRIPTION_CHARS);
        assert_eq!(field(&new(&most, None, Quiesce::IfPossible)), None);
        assert_eq!(field(&new("two\nlines\tand <&> \"'", Some(true), Quiesce::Never)), None);
        for bad in [&format!("{most}a"), "a\0b", "a\u{1b}[2J", "a\rb", "\u{fffe}"] {
            assert_eq!(field(&new(bad, None, Quiesce::IfPossible)), Some("description"), "{bad:?}");
        }
        assert_eq!(field(&new("", None, Quiesce::Required)), Some("quiesce"));
        assert_eq!(field(&new("", Some(true), Quiesce::Required)), Some("quiesce"));
        assert_eq!(field(&new("", Some(false), Quiesce::Required)), None);
    }

    #[test]
    fn a_name_must_be_free_or_there_and_there_is_a_bound() {
        let create = SnapshotChange::Create(new("", None, Quiesce::Never));
        let revert = SnapshotChange::Revert { name: "a".parse().unwrap(), before: None };
        let delete = SnapshotChange::Delete { name: "a".parse().unwrap(), children: true };
        let (with, without) = (["a".to_owned()], ["b".to_owned()]);
        assert!(matches!(fits(&create, &with), Err(LifecycleError::SnapshotExists(_))));
        for change in [&revert, &delete] {
            assert!(fits(change, &with).is_ok());
            assert!(matches!(fits(change, &without), Err(LifecycleError::SnapshotNotFound(_))));
        }
        let many: Vec<_> = (0..MAX_SNAPSHOTS).map(|n| format!("b{n}")).collect();
        assert!(fits(&create, &many[1..]).is_ok());
        assert!(matches!(fits(&create, &many), Err(LifecycleError::TooManySnapshots)));
    }
}

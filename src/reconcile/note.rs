//! What is noted of a VM in its own domain, kept true: a scan shows the digest of what is there, and
//! it is written anew when that differs.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::apply::Hands;
use crate::{
    domain_xml::Note,
    store::{StoreError, VmBundle},
    vm::{DomainFacts, HostId, NoteFacts, Resource, UserId, VmNote, VmRecord, VmSpec},
};

/// The note as it should be, with its owner's name.
pub(super) async fn write<'a>(
    hands: &Hands,
    record: &VmRecord,
    resources: impl IntoIterator<Item = &'a Resource>,
) -> Result<Note, StoreError> {
    let mut note = VmNote::of(record, resources);
    // A name that is not known is no reason to note nothing.
    note.owner_name = hands.store.user_name(record.owner).await?.unwrap_or_default();
    Ok(Note { digest: note.digest(), text: note.text() })
}

/// The digest of a VM's note, kept with what it was made of: to compare that is far cheaper than to
/// write and to hash it, and an unchanged VM is looked at again and again.
#[derive(Debug, Clone, Default)]
pub struct Digested(Option<(Source, String)>);

/// Everything that goes into a note.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    host: HostId,
    owner: UserId,
    spec: VmSpec,
    times: [Option<DateTime<Utc>>; 3],
    resources: Vec<Resource>,
}

fn times(record: &VmRecord) -> [Option<DateTime<Utc>>; 3] {
    [Some(record.created_at), record.milestones.installed, record.milestones.seed_scrubbed]
}

impl Source {
    fn is_of(&self, bundle: &VmBundle) -> bool {
        let record = &bundle.record;
        (self.host, self.owner, self.times) == (record.host, record.owner, times(record))
            && self.spec == record.spec
            && self.resources == bundle.resources
    }
}

impl Digested {
    /// Keeps the digest at hand, where the domain's note will be compared with it.
    pub fn keep(&mut self, bundle: &VmBundle, facts: &DomainFacts) {
        let compared = facts.persistent && matches!(facts.about.note, NoteFacts::Present(_));
        if !compared || self.known(bundle).is_some() {
            return;
        }
        let record = &bundle.record;
        let source = Source {
            host: record.host,
            owner: record.owner,
            spec: record.spec.clone(),
            times: times(record),
            resources: bundle.resources.clone(),
        };
        self.0 = Some((source, digest(bundle)));
    }

    fn known(&self, bundle: &VmBundle) -> Option<&str> {
        let (_, digest) = self.0.as_ref().filter(|(source, _)| source.is_of(bundle))?;
        Some(digest)
    }
}

#[cfg(test)]
thread_local! {
    /// How often on this thread a note was compared, and how often it was digested for that.
    pub(super) static WORK: std::cell::Cell<(u32, u32)> = const { std::cell::Cell::new((0, 0)) };
}

fn digest(bundle: &VmBundle) -> String {
    #[cfg(test)]
    WORK.set((WORK.get().0, WORK.get().1 + 1));
    VmNote::of(&bundle.record, &bundle.resources).digest()
}

/// Whether the domain should be told anew what it is.
pub(super) fn is_stale(bundle: &VmBundle, facts: &DomainFacts, digested: &Digested) -> bool {
    #[cfg(test)]
    WORK.set((WORK.get().0 + 1, WORK.get().1));
    let current = || digested.known(bundle).map_or_else(|| Cow::Owned(digest(bundle)), Cow::Borrowed);
    match &facts.about.note {
        // A transient domain has nowhere to keep it.
        _ if !facts.persistent => false,
        NoteFacts::Unread => false,
        // An adopted one is given its note together with the channel, or not at all.
        NoteFacts::Absent => !bundle.record.spec.is_adopted(),
        NoteFacts::Present(digest) => *digest != current(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::plan::tests::{bundle, domain};
    use crate::vm::{DomainObservation, DomainState, ResourceKind, ResourceState};

    #[test]
    fn a_digest_is_kept_for_what_it_was_made_of_and_for_nothing_else() {
        let bundle = bundle();
        let DomainObservation::Present(mut facts) = domain(DomainState::Running) else { unreachable!() };
        facts.about.note = NoteFacts::Present(digest(&bundle));
        let mut digested = Digested::default();
        assert_eq!(digested.known(&bundle), None);
        assert!(!is_stale(&bundle, &facts, &digested), "it is worked out where it is not kept");
        digested.keep(&bundle, &facts);
        assert_eq!(digested.known(&bundle), Some(digest(&bundle).as_str()));

        let mut others = vec![bundle.clone(); 7];
        others[0].record.spec.vcpus += 1;
        others[1].record.owner = UserId::generate();
        others[2].record.host = HostId::generate();
        others[3].record.created_at += chrono::TimeDelta::seconds(1);
        others[4].record.milestones.installed = Some(bundle.record.created_at);
        others[5].record.milestones.seed_scrubbed = Some(bundle.record.created_at);
        others[6].resources.push(Resource {
            vm: bundle.record.id,
            kind: ResourceKind::Volume,
            place: "default".to_owned(),
            name: "another".to_owned(),
            state: ResourceState::Created,
        });
        for other in &others {
            assert_eq!(digested.known(other), None, "{other:?}");
            assert!(is_stale(other, &facts, &digested), "{other:?}");
        }
        digested.keep(&others[0], &facts);
        assert_eq!(digested.known(&others[0]), Some(digest(&others[0]).as_str()));
        assert_eq!(digested.known(&bundle), None, "only the last one is kept");
    }
}

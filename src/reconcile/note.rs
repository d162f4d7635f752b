//! What is noted of a VM in its own domain, kept true: a scan shows the digest of what is there, and
//! it is written anew when that differs.

use super::apply::Hands;
use crate::{
    domain_xml::Note,
    store::{StoreError, VmBundle},
    vm::{DomainFacts, NoteFacts, Resource, VmNote, VmRecord},
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

/// Whether the domain should be told anew what it is.
pub(super) fn is_stale(bundle: &VmBundle, facts: &DomainFacts) -> bool {
    let current = || VmNote::of(&bundle.record, &bundle.resources).digest();
    match &facts.about.note {
        // A transient domain has nowhere to keep it.
        _ if !facts.persistent => false,
        NoteFacts::Unread => false,
        // An adopted one is given its note together with the channel, or not at all.
        NoteFacts::Absent => !bundle.record.spec.is_adopted(),
        NoteFacts::Present(digest) => *digest != current(),
    }
}

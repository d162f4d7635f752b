//! Who goes when more links are wanted than there are places.
//!
//! A VM that asks for the first time gets the place of the one that was heard least recently. One
//! that waits asks again with every scan of the loop; it gets only a place that is of no use to
//! its holder, so that links that work do not push each other out in turns.

use std::time::Duration;

use crate::vm::VmId;

/// How a VM asks for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// For the first time.
    New,
    /// Again, having waited for so long.
    Waiting(Duration),
}

/// A VM that has a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) vm: VmId,
    /// Commands are in flight over its link, or wait for it.
    pub(super) busy: bool,
    /// Whether anything was ever heard over it.
    pub(super) heard: bool,
    /// Since it was last heard, or, never heard, since it was made.
    pub(super) silence: Duration,
}

/// Whose place the claim takes; `None`: there is none for it. A link without a word for longer
/// than `patience` counts as being of no use.
pub(super) fn who_goes(
    claim: Claim,
    patience: Duration,
    holders: impl IntoIterator<Item = Holder>,
) -> Option<VmId> {
    let may_take_active = match claim {
        Claim::New => true,
        Claim::Waiting(waited) if waited > patience => false,
        Claim::Waiting(_) => return None,
    };
    holders
        .into_iter()
        .filter(|holder| !holder.busy && (may_take_active || holder.silence > patience))
        .max_by_key(|holder| (!holder.heard, holder.silence))
        .map(|holder| holder.vm)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(120);

    /// Busy, heard, seconds of silence.
    type Given = (bool, bool, u64);

    fn goes(claim: Claim, given: &[Given]) -> Option<usize> {
        let holders: Vec<Holder> = given
            .iter()
            .map(|&(busy, heard, silence)| Holder {
                vm: VmId::generate(),
                busy,
                heard,
                silence: Duration::from_secs(silence),
            })
            .collect();
        let vm = who_goes(claim, PATIENCE, holders.iter().copied())?;
        holders.iter().position(|holder| holder.vm == vm)
    }

    #[test]
    fn the_one_heard_least_recently_goes_but_none_with_commands() {
        let long = Claim::Waiting(Duration::from_secs(121));
        let short = Claim::Waiting(Duration::from_secs(120));
        for (claim, given, expected) in [
            (Claim::New, &[(false, true, 5), (false, true, 90), (false, true, 20)][..], Some(1)),
            // Never heard counts as oldest; of several, the one made first.
            (Claim::New, &[(false, true, 900), (false, false, 3), (false, false, 7)], Some(2)),
            (Claim::New, &[(true, false, 900), (true, true, 900), (false, true, 1)], Some(2)),
            (Claim::New, &[(true, true, 900), (true, false, 900)], None),
            (Claim::New, &[], None),
            // One that waits takes no link that works, and none before its own time.
            (long, &[(false, true, 5), (false, true, 120), (false, false, 120)], None),
            (long, &[(false, true, 5), (false, true, 121), (false, true, 300)], Some(2)),
            (long, &[(false, true, 300), (false, false, 121)], Some(1)),
            (long, &[(true, true, 300), (true, false, 300)], None),
            (short, &[(false, true, 3000), (false, false, 3000)], None),
        ] {
            assert_eq!(goes(claim, given), expected, "{claim:?} {given:?}");
        }
    }

    proptest! {
        #[test]
        fn whoever_goes_had_no_commands_and_for_one_that_waits_had_nothing_to_say(
            given in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u64..400), 0..20),
            waited in proptest::option::of(0u64..400),
        ) {
            let claim = waited.map_or(Claim::New, |waited| Claim::Waiting(Duration::from_secs(waited)));
            let gone = goes(claim, &given);
            if let Some(index) = gone {
                prop_assert!(!given[index].0);
                prop_assert!(waited.is_none_or(|waited| waited > 120 && given[index].2 > 120));
            }
            if claim == Claim::New {
                prop_assert_eq!(gone.is_none(), given.iter().all(|(busy, ..)| *busy));
            }
        }
    }
}

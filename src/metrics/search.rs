//! Finds the rows that a database refuses among those it takes, so that one reading cannot hold up
//! all that follow it.

use uuid::Uuid;

use crate::store::PackedSample;

/// Failures in a row, with no success between, after which the search is given up: then it is
/// the database that is at fault.
const MAX_FAILURES: u32 = 16;

/// A database, as far as the search has to know it.
pub(super) trait Takes {
    /// Stores these, all or none; gives whether it did.
    fn takes(&self, samples: &[PackedSample]) -> impl Future<Output = bool> + Send;
}

/// Has all stored that can be, in halves, and gives the rows that the database refuses for
/// themselves. `None`: it may be the database that is at fault.
pub(super) async fn search<T: Takes>(samples: &[PackedSample], database: &T) -> Option<Vec<Uuid>> {
    let mut suspects = Vec::new();
    let mut failures = 0;
    let mut stored = None;
    let mut parts = vec![samples];
    while let Some(part) = parts.pop() {
        if database.takes(part).await {
            (failures, stored) = (0, part.first());
            continue;
        }
        failures += 1;
        if failures > MAX_FAILURES {
            return None;
        }
        match part {
            [one] => suspects.push(one),
            _ => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
    }
    // A suspect may have met a database that was away for a moment. It is at fault only if it
    // fails between two rows that succeed; storing a row again does nothing.
    let proof = std::slice::from_ref(stored?);
    let mut refused = Vec::new();
    for suspect in suspects {
        if !database.takes(proof).await {
            return None;
        }
        if !database.takes(std::slice::from_ref(suspect)).await {
            if !database.takes(proof).await {
                return None;
            }
            refused.push(suspect.id());
        }
    }
    Some(refused)
}

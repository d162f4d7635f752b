//! What is known of the pools that VMs' volumes lie in. Pools are few and slow, VMs are many: every so
//! often each pool is asked once for all its VMs, beside the scans, which do not wait for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::Notify;

use crate::{
    hypervisor::{Hypervisor, HypervisorError, PoolContents},
    store::{StoreError, VmBundle},
    vm::{Resource, ResourceKind, ResourceState, StorageObservation, chain},
};

/// Less room than this is little, bytes.
const LITTLE: u64 = 1 << 30;

/// What one look at one pool came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PoolLook {
    /// It gave no answer, or is not active.
    Silent,
    /// It answered.
    Seen {
        /// Volumes whose rows were there before the look, and which are not.
        missing: HashSet<String>,
        /// There is little room left.
        low: bool,
    },
}

/// What a look at all pools came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looked {
    /// People should be told something else than before.
    pub(super) news: bool,
    /// Nothing could be asked; what was known stands.
    pub(super) in_vain: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct StorageWatch {
    pools: RwLock<Arc<HashMap<String, PoolLook>>>,
    wanted: Notify,
}

impl StorageWatch {
    /// Have the pools looked at soon.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Waits until somebody wants a look. Cancel-safe.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Looks at every pool that holds a volume of these VMs, whose rows were read before: what is
    /// recorded there as made was made before the pools are asked.
    pub(super) async fn look(
        &self,
        bundles: Result<Vec<VmBundle>, StoreError>,
        hypervisor: &dyn Hypervisor,
    ) -> Looked {
        const IN_VAIN: Looked = Looked { news: false, in_vain: true };
        let bundles = match bundles {
            Ok(bundles) => bundles,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the pools are not looked at: the store failed");
                return IN_VAIN;
            }
        };
        let mut pools = HashMap::new();
        for (pool, recorded) in recorded(&bundles) {
            let look = match hypervisor.pool(&pool).await {
                Ok(contents) => seen(recorded, &contents),
                Err(HypervisorError::Unreachable { .. }) if !hypervisor.is_reachable() => return IN_VAIN,
                Err(error) => {
                    // Among them a list that is too long for libvirt's protocol, which libvirt reports as if
                    // the connection had failed.
                    tracing::warn!(pool, error = chain(&error), "a pool could not be looked through");
                    PoolLook::Silent
                }
            };
            pools.insert(pool, look);
        }
        let mut known = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let news = pools.iter().any(|(pool, look)| known.get(pool) != Some(look));
        *known = Arc::new(pools);
        Looked { news, in_vain: false }
    }

    /// What the last look showed of these things.
    pub(super) fn observe(&self, resources: &[Resource]) -> StorageObservation {
        let pools = Arc::clone(&self.pools.read().unwrap_or_else(PoisonError::into_inner));
        let mut observed = StorageObservation::default();
        for Resource { place, name, state, .. } in resources.iter().filter(|it| is_volume(it)) {
            match pools.get(place) {
                None => observed.partial = true,
                Some(PoolLook::Silent) => note(&mut observed.silent, place),
                Some(PoolLook::Seen { missing, low }) => {
                    if *state == ResourceState::Created && missing.contains(name) {
                        observed.missing.push((place.clone(), name.clone()));
                    }
                    if *low {
                        note(&mut observed.low, place);
                    }
                }
            }
        }
        observed
    }
}

fn is_volume(resource: &Resource) -> bool {
    resource.kind == ResourceKind::Volume
}

fn note(pools: &mut Vec<String>, pool: &str) {
    if !pools.iter().any(|noted| noted == pool) {
        pools.push(pool.to_owned());
    }
}

/// The volumes that were made, by pool.
fn recorded(bundles: &[VmBundle]) -> BTreeMap<String, HashSet<&str>> {
    let mut pools: BTreeMap<String, HashSet<&str>> = BTreeMap::new();
    for resource in bundles.iter().flat_map(|bundle| &bundle.resources).filter(|it| is_volume(it)) {
        let pool = match pools.get_mut(&resource.place) {
            Some(pool) => pool,
            None => pools.entry(resource.place.clone()).or_default(),
        };
        if resource.state == ResourceState::Created {
            pool.insert(&resource.name);
        }
    }
    pools
}

fn seen(recorded: HashSet<&str>, contents: &PoolContents) -> PoolLook {
    let missing = recorded.into_iter().filter(|name| !contents.volumes.contains(*name));
    let available = contents.available_bytes;
    PoolLook::Seen {
        missing: missing.map(str::to_owned).collect(),
        low: available < LITTLE || available < contents.capacity_bytes / 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_five_percent_or_a_gigabyte() {
        let gib = 1_u64 << 30;
        for (capacity, available, expected) in [
            (10, 1, false),
            (1, 0, true),
            (100, 5, false),
            (100, 4, true),
            (4096, 204, true),
            (4096, 205, false),
        ] {
            let contents = PoolContents {
                capacity_bytes: capacity * gib,
                available_bytes: available * gib,
                volumes: HashSet::from(["there".to_owned()]),
            };
            let look = seen(HashSet::from(["there", "gone"]), &contents);
            let missing = HashSet::from(["gone".to_owned()]);
            assert_eq!(look, PoolLook::Seen { missing, low: expected }, "{available} of {capacity} GiB");
        }
    }
}

//! Looking at domains: one, or all of them, with what was seen kept in mind.

use std::{collections::HashMap, time::Duration};

use infinibay::{
    hypervisor::{HostObservation, HypervisorError},
    vm::{DomainFacts, DomainObservation, DomainState, VmId},
};

use super::{LIMIT, unreachable};
use crate::simulation::{
    controller::Ports,
    host::strangers_facts,
    watch::{Look, Seen},
};

impl Ports {
    pub(super) async fn look_at(&self, vm: VmId) -> Result<DomainObservation, HypervisorError> {
        let begun = self.world.state().tick;
        let outcome = self
            .read(vm, "observe", move |state| {
                let domain = state.host.domains.get(&vm);
                domain.map_or(DomainObservation::Absent, |domain| DomainObservation::Present(domain.facts()))
            })
            .await;
        let seen = outcome.as_ref().ok().and_then(Seen::of);
        self.world.state().watch.own.insert(vm, Look { begun, seen });
        outcome
    }

    /// What it gives is from when it began; meanwhile the world goes on.
    pub(super) async fn look_at_all(&self) -> Result<HostObservation, HypervisorError> {
        self.world.point(self.life, "before a scan").await;
        let (begun, seen, takes, hangs) = {
            let mut state = self.world.state();
            let (hang, slow, blind) = (state.faults.hang, state.faults.slow, state.faults.blind);
            let hangs = state.chance.one_in(hang);
            let takes = if state.chance.one_in(slow) {
                state.chance.seconds(1, 20)
            } else {
                Duration::from_millis(3)
            };
            let reachable = state.host.reachable && !state.chance.one_in(blind);
            if hangs || !reachable {
                state.watch.frost.hinder(None);
            }
            let mut domains: HashMap<VmId, DomainFacts> = HashMap::new();
            for (vm, domain) in &state.host.domains {
                domains.insert(*vm, domain.facts());
            }
            for (vm, stranger) in &state.host.strangers {
                domains.insert(*vm, strangers_facts(*stranger));
            }
            let known: Vec<VmId> = state.host.domains.keys().copied().collect();
            for vm in known {
                // Too busy to be asked.
                let works = state.host.calls.iter().any(|call| call.vm == vm && call.mutates);
                if works && let Some(facts) = domains.get_mut(&vm) {
                    facts.state = DomainState::Unknown;
                }
            }
            (state.tick, reachable.then_some(domains), takes, hangs)
        };
        tokio::time::sleep(if hangs { LIMIT } else { takes }).await;
        let outcome = match seen {
            _ if hangs => Err(HypervisorError::Deadline { operation: "scan".to_owned(), limit: LIMIT }),
            None => Err(unreachable("scan")),
            Some(domains) => Ok(HostObservation { domains }),
        };
        let mut state = self.world.state();
        for vm in state.database.order.clone() {
            let seen = match &outcome {
                Err(_) => None,
                Ok(host) => match host.domains.get(&vm) {
                    None => Some(Seen::Absent),
                    Some(facts) => Seen::of(&DomainObservation::Present(facts.clone())),
                },
            };
            state.watch.scanned(vm, Look { begun, seen });
        }
        outcome
    }
}

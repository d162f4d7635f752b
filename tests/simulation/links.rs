//! The simulated guest links.

use std::path::Path;

use chrono::{DateTime, Utc};
use infinibay::{
    reconcile::LoopLinks,
    store::VmBundle,
    vm::{DomainState, FirstBoot, LinkCounters, LinkEnd, LinkObservation, LinkSeal, OpenLink, SealKey, VmId},
};

use super::{controller::Ports, host::socket_path, world::State};

/// A link that is wanted.
#[derive(Debug, Clone)]
pub struct Link {
    pub since: DateTime<Utc>,
    pub heard: Option<DateTime<Utc>>,
}

impl State {
    /// Whether the VM's agent speaks, and so is heard by whoever listens.
    pub fn speaks(&self, vm: VmId) -> bool {
        let without = |it: &VmBundle| it.record.spec.installation().is_some_and(|it| !it.agent);
        if self.database.vms.get(&vm).is_some_and(without) {
            return false;
        }
        let up = self.host.domains.get(&vm).is_some_and(|domain| {
            domain.state == DomainState::Running && domain.is_up && domain.channel.is_some()
        });
        up && !self.silent.contains(&vm)
    }
}

impl LoopLinks for Ports {
    fn open(&self, vm: VmId, path: &Path, _: Option<&SealKey>) {
        let mut state = self.world.state();
        if state.life != self.life || state.crashed {
            return;
        }
        if path != socket_path(vm) {
            let label = state.label(vm);
            state.violate(format_args!("the link of {label} was opened to {}", path.display()));
        }
        let since = state.now;
        state.links.entry(vm).or_insert(Link { since, heard: None });
    }

    fn close(&self, vm: VmId, _end: LinkEnd) {
        let mut state = self.world.state();
        if state.life == self.life && !state.crashed {
            state.links.remove(&vm);
        }
    }

    fn observe(&self, vm: VmId) -> LinkObservation {
        let mut state = self.world.state();
        let (now, speaks) = (state.now, state.speaks(vm));
        let runs = state.host.domains.get(&vm).is_some_and(|domain| domain.state.is_active());
        let is_foreign = state.host.domains.get(&vm).is_some_and(|domain| domain.is_foreign);
        let installed = is_foreign || state.host.root(vm).is_some_and(|volume| volume.installed);
        let up_since = state.host.domains.get(&vm).and_then(|domain| domain.up_since);
        let Some(link) = state.links.get_mut(&vm) else { return LinkObservation::None };
        if !runs {
            *link = Link { since: now, heard: None };
            let counters = LinkCounters::default();
            return LinkObservation::Connecting {
                since: now,
                last_error: None,
                seal: LinkSeal::Unused,
                counters,
            };
        }
        if speaks {
            link.heard = Some(now);
        }
        LinkObservation::Open(OpenLink {
            since: link.since,
            last_message_at: link.heard,
            greeted_at: link.heard.and(up_since).map(|at| at.max(link.since)),
            version: link.heard.map(|_| "1".to_owned()),
            platform: None,
            capabilities: Vec::new(),
            reported_state: None,
            actions: None,
            skew: None,
            seal: LinkSeal::Unused,
            first_boot: match (link.heard, installed) {
                (None, _) => FirstBoot::NotReported,
                (Some(_), true) => FirstBoot::Finished { errors: Vec::new() },
                (Some(_), false) => FirstBoot::Running,
            },
            counters: LinkCounters::default(),
        })
    }

    fn request_metrics(&self, _vm: VmId) {}
}

//! What several VMs of one answer need together, asked for once: a list of a hundred VMs costs
//! one statement for their readings and one call per network for their addresses.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::sync::OnceCell;

use super::{ApiContext, error::ApiError};
use crate::{
    store::{MetricsRow, VmView},
    vm::{NetworkAttachment, VmId, chain},
};

/// The VMs of one answer.
pub(super) struct Batch {
    vms: Vec<VmId>,
    networks: BTreeSet<String>,
    readings: OnceCell<HashMap<VmId, Arc<MetricsRow>>>,
    /// Addresses by MAC.
    leases: OnceCell<HashMap<String, Vec<String>>>,
}

impl Batch {
    pub(super) fn of(views: &[VmView]) -> Arc<Self> {
        let network = |view: &VmView| match &view.record.spec.network {
            NetworkAttachment::Network(name) => Some(name.to_string()),
            NetworkAttachment::User | NetworkAttachment::None => None,
        };
        Arc::new(Self {
            vms: views.iter().map(|view| view.record.id).collect(),
            networks: views.iter().filter_map(network).collect(),
            readings: OnceCell::new(),
            leases: OnceCell::new(),
        })
    }

    /// The newest stored reading.
    pub(super) async fn reading(
        &self,
        api: &ApiContext,
        vm: VmId,
    ) -> Result<Option<Arc<MetricsRow>>, ApiError> {
        let readings = self
            .readings
            .get_or_try_init(|| async {
                let rows = api.store.latest_metrics(&self.vms).await?;
                Ok::<_, ApiError>(rows.into_iter().map(|(vm, row)| (vm, Arc::new(row))).collect())
            })
            .await?;
        Ok(readings.get(&vm).cloned())
    }

    /// The addresses that the host's DHCP servers gave to this MAC.
    pub(super) async fn leases(&self, api: &ApiContext, mac: &str) -> Vec<String> {
        let leases = self.leases.get_or_init(|| async {
            let mut by_mac: HashMap<String, Vec<String>> = HashMap::new();
            for network in &self.networks {
                match api.hypervisor.leases(network).await {
                    Ok(leases) => {
                        for lease in leases {
                            by_mac.entry(lease.mac).or_default().push(lease.ip);
                        }
                    }
                    // A network without DHCP has no leases to tell; the agent may know more.
                    Err(error) => {
                        tracing::debug!(network, error = chain(&error), "leases could not be read");
                    }
                }
            }
            by_mac
        });
        leases.await.get(mac).cloned().unwrap_or_default()
    }
}

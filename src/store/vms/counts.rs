//! How many VMs are in which state: one statement, whose answer has as many rows as there are
//! states.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::VmCount;
use crate::{
    store::{Store, StoreError, db::on_pool, failed},
    vm::{AgentConnectivity, HostId, VmPhase},
};

const OPERATION: &str = "counting VMs";

impl Store {
    /// The host's VMs by phase and connectivity. One that the loop has not looked at yet counts
    /// as what people are told of it: provisioning, its agent never seen.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn count_vms(&self, host: HostId) -> Result<Vec<VmCount>, StoreError> {
        let rows = on_pool!(self, db => sqlx::query_as::<_, (Option<String>, Option<String>, i64)>(
            "SELECT status ->> 'phase', status ->> 'agent', COUNT(*) FROM vms WHERE host_id = $1
             GROUP BY status ->> 'phase', status ->> 'agent'",
        )
        .bind(host.uuid())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        let count = |(phase, agent, vms)| {
            let phase = word(phase)?.unwrap_or(VmPhase::Provisioning);
            let agent = word(agent)?.unwrap_or(AgentConnectivity::NeverSeen);
            Ok(VmCount { phase, agent, vms })
        };
        rows.into_iter().map(count).collect()
    }
}

fn word<T: DeserializeOwned>(text: Option<String>) -> Result<Option<T>, StoreError> {
    let read = |text| {
        serde_json::from_value(Value::String(text))
            .map_err(|error| StoreError::Corrupt { operation: OPERATION, reason: error.to_string() })
    };
    text.map(read).transpose()
}

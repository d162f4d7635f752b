//! Reading VMs, always with a constant number of statements.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use uuid::Uuid;

use super::{VmAccess, VmBundle, VmView, row::VmRow};
use crate::{
    store::{
        Store, StoreError,
        column::{Ids, JsonText},
        db::{on_pool, on_tx},
        failed,
        operations::OperationRow,
        resources::ResourceRow,
    },
    vm::{AgentConnectivity, HostId, Operation, Resource, VmId, VmName, VmPhase, chain},
};

/// A VM, its owner, whether it is on its way out, and its status.
type AccessRow = (Uuid, Uuid, bool, Option<JsonText>);

/// What of a VM's status has to be known of many.
// Read here, not by the database: PostgreSQL takes nothing out of a text with an escaped NUL in it.
#[derive(Deserialize)]
struct State {
    phase: VmPhase,
    agent: AgentConnectivity,
}

/// Which VMs to load, for the loop. All three statements take the same one parameter.
struct Selection {
    vms: &'static str,
    operations: &'static str,
    resources: &'static str,
    id: Uuid,
}

impl Store {
    /// One VM.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn vm(&self, vm: VmId) -> Result<Option<VmView>, StoreError> {
        const OPERATION: &str = "reading a VM";
        let sql = "SELECT * FROM vms WHERE id = $1";
        on_pool!(self, db => sqlx::query_as::<_, VmRow>(sql).bind(vm.uuid()).fetch_optional(db).await)
            .map_err(failed(OPERATION))?
            .map(|row| row.view(OPERATION))
            .transpose()
    }

    /// The VM of this host that has this name.
    ///
    /// # Errors
    /// `Database`.
    pub async fn vm_named(&self, host: HostId, name: &VmName) -> Result<Option<VmId>, StoreError> {
        on_pool!(self, db => sqlx::query_scalar::<_, Uuid>("SELECT id FROM vms WHERE host_id = $1 AND name = $2")
            .bind(host.uuid())
            .bind(name.as_str())
            .fetch_optional(db)
            .await)
        .map(|id| id.map(VmId))
        .map_err(failed("looking for a VM by name"))
    }

    /// Several VMs in one statement, in the order of their ids; those that do not exist are left
    /// out.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn vms_by_id(&self, vms: &[VmId]) -> Result<Vec<VmView>, StoreError> {
        const OPERATION: &str = "reading VMs by id";
        if vms.is_empty() {
            return Ok(Vec::new());
        }
        let sql = self.sql(
            "SELECT * FROM vms WHERE id IN (SELECT unhex(value) FROM json_each($1)) ORDER BY id",
            "SELECT * FROM vms WHERE id = ANY($1) ORDER BY id",
        );
        let ids = Ids(vms.iter().map(|vm| vm.uuid()).collect());
        on_pool!(self, db => sqlx::query_as::<_, VmRow>(sql).bind(ids).fetch_all(db).await)
            .map_err(failed(OPERATION))?
            .into_iter()
            .map(|row| row.view(OPERATION))
            .collect()
    }

    /// Whose these VMs are and what they do, in one statement and no particular order; those that
    /// do not exist are left out.
    ///
    /// # Errors
    /// `Database`.
    pub async fn vm_access(&self, vms: &[VmId]) -> Result<Vec<VmAccess>, StoreError> {
        const OPERATION: &str = "reading whose VMs these are";
        if vms.is_empty() {
            return Ok(Vec::new());
        }
        let sql = self.sql(
            "SELECT id, owner_id, deleting, status
             FROM vms WHERE id IN (SELECT unhex(value) FROM json_each($1))",
            "SELECT id, owner_id, deleting, status FROM vms WHERE id = ANY($1)",
        );
        let ids = Ids(vms.iter().map(|vm| vm.uuid()).collect());
        let rows: Vec<AccessRow> = on_pool!(self, db => sqlx::query_as(sql).bind(ids).fetch_all(db).await)
            .map_err(failed(OPERATION))?;
        let access = |(vm, owner, deleting, status): AccessRow| {
            let read = status.map(|status| status.read::<State>(OPERATION, vm)).transpose();
            // One that cannot be read must not keep the others from their owners.
            let state = read.unwrap_or_else(|error| {
                tracing::error!(%vm, error = chain(&error), "what a VM does cannot be read");
                None
            });
            let state = state.map(|state| (state.phase, state.agent));
            VmAccess { vm: vm.into(), owner: owner.into(), deleting, state }
        };
        Ok(rows.into_iter().map(access).collect())
    }

    /// Everything the loop needs of all VMs of a host, in a constant number of statements that
    /// see one state of the database.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn load_host(&self, host: HostId) -> Result<Vec<VmBundle>, StoreError> {
        self.load(
            "reading the VMs of a host",
            &Selection {
                vms: "SELECT v.*, s.key AS seal_key FROM vms v LEFT JOIN vm_seals s ON s.vm_id = v.id
                      WHERE v.host_id = $1",
                operations: "SELECT o.* FROM operations o JOIN vms v ON v.id = o.vm_id
                             WHERE v.host_id = $1 AND o.finished_at IS NULL ORDER BY o.created_at, o.id",
                resources: "SELECT r.* FROM resources r JOIN vms v ON v.id = r.vm_id
                            WHERE v.host_id = $1 ORDER BY r.kind, r.place, r.name",
                id: host.uuid(),
            },
        )
        .await
    }

    /// The same of one VM.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn load_vm(&self, vm: VmId) -> Result<Option<VmBundle>, StoreError> {
        let bundles = self
            .load(
                "reading a VM for the loop",
                &Selection {
                    vms: "SELECT v.*, s.key AS seal_key FROM vms v LEFT JOIN vm_seals s ON s.vm_id = v.id
                          WHERE v.id = $1",
                    operations: "SELECT * FROM operations WHERE vm_id = $1 AND finished_at IS NULL
                                 ORDER BY created_at, id",
                    resources: "SELECT * FROM resources WHERE vm_id = $1 ORDER BY kind, place, name",
                    id: vm.uuid(),
                },
            )
            .await?;
        Ok(bundles.into_iter().next())
    }

    async fn load(&self, operation: &'static str, which: &Selection) -> Result<Vec<VmBundle>, StoreError> {
        let mut tx = self.begin_snapshot(operation).await?;
        let vms = on_tx!(&mut tx, db =>
            sqlx::query_as::<_, VmRow>(which.vms).bind(which.id).fetch_all(db).await)
        .map_err(failed(operation))?;
        let operations = on_tx!(&mut tx, db =>
            sqlx::query_as::<_, OperationRow>(which.operations).bind(which.id).fetch_all(db).await)
        .map_err(failed(operation))?;
        let resources = on_tx!(&mut tx, db =>
            sqlx::query_as::<_, ResourceRow>(which.resources).bind(which.id).fetch_all(db).await)
        .map_err(failed(operation))?;
        tx.commit(operation).await?;

        // A row that cannot be read (a downgrade, a hand's edit) leaves its own VM alone, and no
        // other: acting on half of what is known of a VM would be worse than not acting.
        let mut unreadable: HashSet<VmId> = HashSet::new();
        let mut operations_of: HashMap<VmId, Vec<Operation>> = HashMap::new();
        for row in operations {
            let vm = row.vm();
            match row.read(operation) {
                Ok(row) => operations_of.entry(vm).or_default().push(row),
                Err(error) => skip(&mut unreadable, vm, &error),
            }
        }
        let mut resources_of: HashMap<VmId, Vec<Resource>> = HashMap::new();
        for row in resources {
            let vm = row.vm();
            match row.read(operation) {
                Ok(row) => resources_of.entry(vm).or_default().push(row),
                Err(error) => skip(&mut unreadable, vm, &error),
            }
        }
        let mut bundles = Vec::with_capacity(vms.len());
        for row in vms {
            let vm = VmId(row.id);
            match row.view(operation).and_then(|view| Ok((view, row.seal(operation)?))) {
                Ok(_) if unreadable.contains(&vm) => {}
                Ok((VmView { record, status, install_report }, seal)) => {
                    let operations = operations_of.remove(&vm).unwrap_or_default();
                    let resources = resources_of.remove(&vm).unwrap_or_default();
                    bundles.push(VmBundle { record, status, operations, resources, install_report, seal });
                }
                Err(error) => skip(&mut unreadable, vm, &error),
            }
        }
        Ok(bundles)
    }
}

fn skip(unreadable: &mut HashSet<VmId>, vm: VmId, error: &StoreError) {
    tracing::error!(%vm, error = chain(error), "a VM's rows cannot be read; it is left alone");
    unreadable.insert(vm);
}

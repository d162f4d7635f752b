//! What was made on the host, by VM.

use uuid::Uuid;

use super::{
    Store, StoreError,
    column::{Word, words},
    db::on_pool,
    failed,
};
use crate::vm::{Resource, ResourceKind, ResourceState, VmId};

words!(ResourceKind { Volume => "volume", Seed => "seed", ConsoleLog => "console_log" });
words!(ResourceState { Creating => "creating", Created => "created" });

#[derive(Debug, sqlx::FromRow)]
pub(super) struct ResourceRow {
    vm_id: Uuid,
    kind: String,
    place: String,
    name: String,
    state: String,
}

impl ResourceRow {
    pub(super) fn vm(&self) -> VmId {
        self.vm_id.into()
    }

    pub(super) fn read(self, operation: &'static str) -> Result<Resource, StoreError> {
        Ok(Resource {
            vm: self.vm_id.into(),
            kind: ResourceKind::read(operation, &self.kind)?,
            place: self.place,
            name: self.name,
            state: ResourceState::read(operation, &self.state)?,
        })
    }
}

impl Store {
    /// Writes the row before the thing is made. A row that is there already stays.
    ///
    /// # Errors
    /// `NotFound`: there is no such VM.
    pub async fn reserve_resource(&self, resource: &Resource) -> Result<(), StoreError> {
        let sql = "INSERT INTO resources (vm_id, kind, place, name, state) VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT DO NOTHING";
        self.write_resource("reserving a resource", sql, resource, ResourceState::Creating).await
    }

    /// Notes that the thing was made. Should its row be missing, it is written: what exists must
    /// be found again at deletion.
    ///
    /// # Errors
    /// `NotFound`: there is no such VM.
    pub async fn resource_created(&self, resource: &Resource) -> Result<(), StoreError> {
        let sql = "INSERT INTO resources (vm_id, kind, place, name, state) VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT (vm_id, kind, place, name) DO UPDATE SET state = excluded.state";
        self.write_resource("noting that a resource was made", sql, resource, ResourceState::Created).await
    }

    /// Removes the row after the thing was removed. A missing row is fine.
    ///
    /// # Errors
    /// `Database`.
    pub async fn release_resource(&self, resource: &Resource) -> Result<(), StoreError> {
        on_pool!(self, db => sqlx::query(
            "DELETE FROM resources WHERE vm_id = $1 AND kind = $2 AND place = $3 AND name = $4",
        )
        .bind(resource.vm.uuid())
        .bind(resource.kind.word())
        .bind(resource.place.as_str())
        .bind(resource.name.as_str())
        .execute(db)
        .await
        .map(drop))
        .map_err(failed("releasing a resource"))
    }

    /// Whose a volume is; `None` if it was made for no VM.
    ///
    /// # Errors
    /// `Database`.
    pub async fn volume_owner(&self, pool: &str, volume: &str) -> Result<Option<VmId>, StoreError> {
        let sql = "SELECT vm_id FROM resources WHERE kind = $1 AND place = $2 AND name = $3";
        let owner: Option<(Uuid,)> = on_pool!(self, db => sqlx::query_as(sql)
            .bind(ResourceKind::Volume.word())
            .bind(pool)
            .bind(volume)
            .fetch_optional(db)
            .await)
        .map_err(failed("looking up whose a volume is"))?;
        Ok(owner.map(|(vm,)| vm.into()))
    }

    async fn write_resource(
        &self,
        operation: &'static str,
        sql: &'static str,
        resource: &Resource,
        state: ResourceState,
    ) -> Result<(), StoreError> {
        on_pool!(self, db => sqlx::query(sql)
            .bind(resource.vm.uuid())
            .bind(resource.kind.word())
            .bind(resource.place.as_str())
            .bind(resource.name.as_str())
            .bind(state.word())
            .execute(db)
            .await
            .map(drop))
        .map_err(|error| match error {
            sqlx::Error::Database(error) if error.is_foreign_key_violation() => StoreError::NotFound,
            error => failed(operation)(error),
        })
    }
}

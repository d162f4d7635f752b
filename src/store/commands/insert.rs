//! Logging a command before it is sent: soon, durably, and never in doubt for long.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{CommandStatus, NewCommand};
use crate::store::{
    Store, StoreError,
    audit::{self, AuditRow},
    column::{JsonText, Word, storable},
    db::{Db, Tx, on_pool, on_tx},
    failed,
};

const LOGGING: &str = "logging a command";
const AUDIT_ACTION: &str = "vm.command";

/// Why a command was not logged, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum NotLogged {
    /// It certainly was not.
    #[error(transparent)]
    Refused(StoreError),
    /// The database did not say; it may be in the log, now or in a while.
    #[error(transparent)]
    Unknown(StoreError),
}

impl Store {
    /// Logs a command as pending, and writes its audit row, in one transaction that is durable
    /// when this returns. Waits no longer than `limit`.
    ///
    /// # Errors
    /// Says whether it may have been logged all the same. `IdTaken`, `Database`, `NoAnswer`.
    pub async fn insert_command(&self, command: &NewCommand, limit: Duration) -> Result<(), NotLogged> {
        let until = Instant::now() + limit;
        let late = |_| StoreError::NoAnswer { limit };
        let text = JsonText::write(LOGGING, &command.command).map_err(NotLogged::Refused)?;
        let told = match &self.db {
            Db::Postgres(pool) => {
                let acquired =
                    timeout_at(until, pool.acquire()).await.map_err(|e| NotLogged::Refused(late(e)))?;
                let mut connection = acquired.map_err(|error| NotLogged::Refused(failed(LOGGING)(error)))?;
                timeout_at(until, insert_postgres(&mut connection, command, &text)).await
            }
            Db::Sqlite(_) => {
                // A transaction that is dropped before its commit begins is rolled back.
                let begun =
                    timeout_at(until, self.begin(LOGGING)).await.map_err(|e| NotLogged::Refused(late(e)))?;
                let mut tx = begun.map_err(NotLogged::Refused)?;
                let insert = timeout_at(until, insert_in(&mut tx, command, &text)).await;
                insert.map_err(|e| NotLogged::Refused(late(e)))?.map_err(NotLogged::Refused)?;
                timeout_at(until, tx.commit(LOGGING)).await
            }
        };
        match told {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.is_answer() => Err(NotLogged::Refused(error)),
            Ok(Err(error)) => Err(NotLogged::Unknown(error)),
            Err(elapsed) => Err(NotLogged::Unknown(late(elapsed))),
        }
    }

    /// Notes of a command that its logging was given up: what may have been written of it is ended
    /// by this, and what may still be written is refused then, because the row is there. The row of
    /// another attempt under the same id, which has a moment of its own, is left alone.
    ///
    /// # Errors
    /// `Database`.
    pub async fn void_command(&self, command: &NewCommand, response: &str) -> Result<(), StoreError> {
        const OPERATION: &str = "noting that a command was not sent";
        let text = JsonText::write(OPERATION, &command.command)?;
        let response = JsonText(response.to_owned());
        on_pool!(self.quick, db => sqlx::query(
            "INSERT INTO command_log (id, vm_id, kind, command, status, requested_by, created_at, success, response)
             VALUES ($1, $2, $3, $4, $5, $6, $7, FALSE, $8)
             ON CONFLICT (id) DO UPDATE SET status = excluded.status, success = excluded.success,
                                            response = excluded.response
             WHERE command_log.status = 'pending' AND command_log.vm_id = excluded.vm_id
               AND command_log.requested_by = excluded.requested_by
               AND command_log.created_at = excluded.created_at",
        )
        .bind(command.id.uuid())
        .bind(command.vm.uuid())
        .bind(command.kind)
        .bind(&text)
        .bind(CommandStatus::Cancelled.word())
        .bind(command.requested_by.uuid())
        .bind(storable(command.created_at))
        .bind(&response)
        .execute(db)
        .await
        .map(drop))
        .map_err(failed(OPERATION))
    }
}

/// Both rows in one statement, which is one round trip and one commit.
async fn insert_postgres(
    connection: &mut PgConnection,
    command: &NewCommand,
    text: &JsonText,
) -> Result<(), StoreError> {
    let details = JsonText::write(LOGGING, &audit_details(command))?;
    let origin = audit::origin();
    sqlx::query(
        "WITH logged AS (
             INSERT INTO command_log (id, vm_id, kind, command, status, requested_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7))
         INSERT INTO audit_log (id, at, user_id, action, vm_id, details, address, request_id)
         VALUES ($8, $7, $6, $9, $2, $10, $11, $12)",
    )
    .bind(command.id.uuid())
    .bind(command.vm.uuid())
    .bind(command.kind)
    .bind(text)
    .bind(CommandStatus::Pending.word())
    .bind(command.requested_by.uuid())
    .bind(storable(command.created_at))
    .bind(Uuid::now_v7())
    .bind(AUDIT_ACTION)
    .bind(&details)
    .bind(origin.address.as_deref())
    .bind(origin.request)
    .execute(connection)
    .await
    .map(drop)
    .map_err(logging_failed)
}

async fn insert_in(tx: &mut Tx, command: &NewCommand, text: &JsonText) -> Result<(), StoreError> {
    let created_at = storable(command.created_at);
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO command_log (id, vm_id, kind, command, status, requested_by, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(command.id.uuid())
    .bind(command.vm.uuid())
    .bind(command.kind)
    .bind(text)
    .bind(CommandStatus::Pending.word())
    .bind(command.requested_by.uuid())
    .bind(created_at)
    .execute(db)
    .await
    .map(drop))
    .map_err(logging_failed)?;
    let row = AuditRow {
        at: created_at,
        user: command.requested_by,
        action: AUDIT_ACTION,
        vm: Some(command.vm),
        details: audit_details(command),
    };
    audit::record(tx, &row).await
}

fn audit_details(command: &NewCommand) -> Value {
    json!({ "command": command.id, "kind": command.kind })
}

/// The command's id is the one thing of its row that a client may choose.
fn logging_failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) if error.is_unique_violation() => StoreError::IdTaken,
        error => failed(LOGGING)(error),
    }
}

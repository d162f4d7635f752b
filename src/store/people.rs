//! Changing and removing users. The host never ends up without an admin who can act, and no VM without an
//! owner: what would lead there is rolled back.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    Page, PageOf, Store, StoreError, UserRecord,
    audit::{self, AuditRow},
    column::{Word, storable},
    db::{Tx, on_pool, on_tx},
    failed,
    sessions::end_sessions,
    users::{UserRow, gather},
};
use crate::{
    access::{Permission, Role},
    vm::{UserId, VmId},
};

/// What of a user is to become different.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// What he signs in with, lower case.
    pub email: Option<String>,
    /// The hash of a new password, which signs him out.
    pub password_hash: Option<String>,
    /// What he is to everybody's VMs.
    pub role: Option<Role>,
    /// All of what else he may do.
    pub permissions: Option<Vec<Permission>>,
    /// Whether his tokens and sessions are good for nothing.
    pub disabled: Option<bool>,
}

impl Store {
    /// Users, in the order of their ids.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn list_users(&self, page: Page) -> Result<PageOf<UserRecord>, StoreError> {
        const OPERATION: &str = "listing users";
        let rows = on_pool!(self, db => sqlx::query_as::<_, UserRow>(
            "SELECT u.*, p.permission
             FROM (SELECT * FROM users WHERE $1 IS NULL OR id > $1 ORDER BY id LIMIT $2) u
             LEFT JOIN permissions p ON p.user_id = u.id
             ORDER BY u.id, p.permission",
        )
        .bind(page.after)
        .bind(page.limit())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        page.cut(gather(OPERATION, rows)?, Ok)
    }

    /// Changes a user, with an audit row, in one transaction. Who is disabled, or has another password, is
    /// signed out.
    ///
    /// # Errors
    /// `NotFound`; `UserExists`: the address is another's; `LastAdmin`.
    pub async fn change_user(
        &self,
        user: UserId,
        change: &UserChange,
        by: UserId,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "changing a user";
        let mut tx = self.begin(OPERATION).await?;
        let changed = on_tx!(&mut tx, db => sqlx::query(
            "UPDATE users SET email = coalesce($2, email), role = coalesce($3, role),
                              disabled = coalesce($4, disabled),
                              password_hash = coalesce($5, password_hash)
             WHERE id = $1",
        )
        .bind(user.uuid())
        .bind(change.email.as_deref())
        .bind(change.role.map(Word::word))
        .bind(change.disabled)
        .bind(change.password_hash.as_deref())
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
        .map_err(|error| match error {
            sqlx::Error::Database(error) if error.is_unique_violation() => StoreError::UserExists,
            error => failed(OPERATION)(error),
        })?;
        if changed == 0 {
            return Err(StoreError::NotFound);
        }
        if let Some(permissions) = &change.permissions {
            replace_permissions(&mut tx, OPERATION, user, permissions).await?;
        }
        let signs_out = change.disabled == Some(true) || change.password_hash.is_some();
        let ended = if signs_out { end_sessions(&mut tx, OPERATION, user).await? } else { 0 };
        keep_an_admin(&mut tx, OPERATION).await?;
        let details = json!({
            "user": user, "role": change.role, "permissions": change.permissions, "disabled": change.disabled,
            "email_changed": change.email.is_some(), "password_changed": change.password_hash.is_some(),
            "sessions_ended": ended,
        });
        note(&mut tx, "user.change", by, now, details).await?;
        tx.commit(OPERATION).await
    }

    /// Removes a user with his tokens, sessions and parts in others' VMs, with an audit row, in one
    /// transaction.
    ///
    /// # Errors
    /// `NotFound`; `OwnsVms`; `LastAdmin`.
    pub async fn remove_user(&self, user: UserId, by: UserId, now: DateTime<Utc>) -> Result<(), StoreError> {
        const OPERATION: &str = "removing a user";
        let mut tx = self.begin(OPERATION).await?;
        let vms = on_tx!(&mut tx, db => sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM vms WHERE owner_id = $1",
        )
        .bind(user.uuid())
        .fetch_one(db)
        .await)
        .map_err(failed(OPERATION))?;
        if vms > 0 {
            return Err(StoreError::OwnsVms);
        }
        for sql in ["DELETE FROM tokens WHERE user_id = $1", "DELETE FROM permissions WHERE user_id = $1"] {
            on_tx!(&mut tx, db => sqlx::query(sql).bind(user.uuid()).execute(db).await.map(drop))
                .map_err(failed(OPERATION))?;
        }
        let removed = on_tx!(&mut tx, db => sqlx::query("DELETE FROM users WHERE id = $1")
            .bind(user.uuid())
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        if removed == 0 {
            return Err(StoreError::NotFound);
        }
        keep_an_admin(&mut tx, OPERATION).await?;
        note(&mut tx, "user.remove", by, now, json!({ "user": user })).await?;
        tx.commit(OPERATION).await
    }
}

async fn replace_permissions(
    tx: &mut Tx,
    operation: &'static str,
    user: UserId,
    permissions: &[Permission],
) -> Result<(), StoreError> {
    on_tx!(tx, db => sqlx::query("DELETE FROM permissions WHERE user_id = $1")
        .bind(user.uuid())
        .execute(db)
        .await
        .map(drop))
    .map_err(failed(operation))?;
    // There are no more than `Permission::ALL`.
    for permission in permissions {
        on_tx!(tx, db => sqlx::query(
            "INSERT INTO permissions (user_id, permission) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        )
        .bind(user.uuid())
        .bind(permission.word())
        .execute(db)
        .await
        .map(drop))
        .map_err(failed(operation))?;
    }
    Ok(())
}

/// Two admins who remove each other at the same moment must not both succeed: on PostgreSQL the rows of
/// all admins are locked for the look; on SQLite there is one writer.
async fn keep_an_admin(tx: &mut Tx, operation: &'static str) -> Result<(), StoreError> {
    let left = match tx {
        Tx::Sqlite(tx) => {
            let left = sqlx::query_scalar::<_, i32>(
                "SELECT 1 FROM users WHERE role = 'admin' AND NOT disabled LIMIT 1",
            );
            left.fetch_optional(&mut **tx).await
        }
        Tx::Postgres(tx) => {
            let left = "SELECT 1 FROM users WHERE role = 'admin' AND NOT disabled FOR UPDATE";
            sqlx::query_scalar::<_, i32>(left).fetch_optional(&mut **tx).await
        }
    };
    match left.map_err(failed(operation))? {
        Some(_) => Ok(()),
        None => Err(StoreError::LastAdmin),
    }
}

async fn note(
    tx: &mut Tx,
    action: &'static str,
    by: UserId,
    now: DateTime<Utc>,
    details: Value,
) -> Result<(), StoreError> {
    audit::record(tx, &AuditRow { at: storable(now), user: by, action, vm: None::<VmId>, details }).await
}

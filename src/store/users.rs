//! Users and their permissions.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::{
    Store, StoreError,
    audit::{self, AuditRow, OPERATOR},
    column::{Word, storable, words},
    db::{Tx, on_pool, on_tx},
    failed,
};
use crate::{
    access::{Permission, Role},
    vm::UserId,
};

/// A user.
#[derive(Debug, Clone)]
pub struct UserRecord {
    /// Its id.
    pub id: UserId,
    /// Unique.
    pub name: String,
    /// What he signs in with, lower case and unique; `None`: he does not sign in.
    pub email: Option<String>,
    /// Whether he has a password. What it is, only [`Store::password_of`] tells.
    pub has_password: bool,
    /// What he is to everybody's VMs.
    pub role: Role,
    /// What else he may do.
    pub permissions: Vec<Permission>,
    /// Whether his tokens and sessions are good for nothing.
    pub disabled: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

words!(Permission { UnsafeCommands => "unsafe_commands" });
words!(Role { Member => "member", ReadOnly => "read_only", Operator => "operator", Admin => "admin" });

/// A user with one of his permissions, or with none: one row for each permission.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct UserRow {
    id: Uuid,
    name: String,
    email: Option<String>,
    password_hash: Option<String>,
    role: String,
    disabled: bool,
    created_at: DateTime<Utc>,
    permission: Option<String>,
}

impl Store {
    /// Stores a user with his permissions and an audit row, in one transaction.
    ///
    /// # Errors
    /// `UserExists`.
    pub async fn add_user(&self, user: &UserRecord) -> Result<(), StoreError> {
        const OPERATION: &str = "storing a user";
        let mut tx = self.begin(OPERATION).await?;
        insert(&mut tx, OPERATION, user, None, OPERATOR).await?;
        tx.commit(OPERATION).await
    }

    /// The same on behalf of an admin, and with the hash of a password.
    ///
    /// # Errors
    /// `UserExists`.
    pub async fn add_user_by(
        &self,
        user: &UserRecord,
        password_hash: Option<&str>,
        by: UserId,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "storing a user";
        let mut tx = self.begin(OPERATION).await?;
        insert(&mut tx, OPERATION, user, password_hash, by).await?;
        tx.commit(OPERATION).await
    }

    /// By name.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn user_named(&self, name: &str) -> Result<Option<UserRecord>, StoreError> {
        const OPERATION: &str = "reading a user";
        let rows = on_pool!(self, db => sqlx::query_as::<_, UserRow>(
            "SELECT u.*, p.permission FROM users u LEFT JOIN permissions p ON p.user_id = u.id
             WHERE u.name = $1 ORDER BY p.permission",
        )
        .bind(name)
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        Ok(gather(OPERATION, rows)?.into_iter().next())
    }

    /// By id.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn user(&self, id: UserId) -> Result<Option<UserRecord>, StoreError> {
        const OPERATION: &str = "reading a user";
        let rows = on_pool!(self, db => sqlx::query_as::<_, UserRow>(
            "SELECT u.*, p.permission FROM users u LEFT JOIN permissions p ON p.user_id = u.id
             WHERE u.id = $1 ORDER BY p.permission",
        )
        .bind(id.uuid())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        Ok(gather(OPERATION, rows)?.into_iter().next())
    }

    /// All, by name.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn users(&self) -> Result<Vec<UserRecord>, StoreError> {
        const OPERATION: &str = "reading the users";
        let rows = on_pool!(self, db => sqlx::query_as::<_, UserRow>(
            "SELECT u.*, p.permission FROM users u LEFT JOIN permissions p ON p.user_id = u.id
             ORDER BY u.name, p.permission",
        )
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        gather(OPERATION, rows)
    }
}

/// Stores a user with his permissions and an audit row.
pub(super) async fn insert(
    tx: &mut Tx,
    operation: &'static str,
    user: &UserRecord,
    password_hash: Option<&str>,
    by: UserId,
) -> Result<(), StoreError> {
    let added = on_tx!(tx, db => sqlx::query(
        "INSERT INTO users (id, name, role, email, password_hash, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT DO NOTHING",
    )
    .bind(user.id.uuid())
    .bind(user.name.as_str())
    .bind(user.role.word())
    .bind(user.email.as_deref())
    .bind(password_hash)
    .bind(storable(user.created_at))
    .execute(db)
    .await
    .map(|done| done.rows_affected()))
    .map_err(failed(operation))?;
    if added == 0 {
        return Err(StoreError::UserExists);
    }
    // There are no more permissions than `Permission::ALL`.
    let permissions: BTreeSet<_> = user.permissions.iter().collect();
    for permission in &permissions {
        on_tx!(tx, db => sqlx::query("INSERT INTO permissions (user_id, permission) VALUES ($1, $2)")
            .bind(user.id.uuid())
            .bind(permission.word())
            .execute(db)
            .await
            .map(drop))
        .map_err(failed(operation))?;
    }
    let details =
        json!({ "user": user.id, "name": user.name, "role": user.role, "permissions": permissions });
    let at = storable(user.created_at);
    audit::record(tx, &AuditRow { at, user: by, action: "user.add", vm: None, details }).await
}

/// Joins the rows of each user, which come one after the other.
pub(super) fn gather(operation: &'static str, rows: Vec<UserRow>) -> Result<Vec<UserRecord>, StoreError> {
    let mut users: Vec<UserRecord> = Vec::new();
    for row in rows {
        let permission = row.permission.map(|word| Permission::read(operation, &word)).transpose()?;
        match users.last_mut() {
            Some(user) if user.id.uuid() == row.id => user.permissions.extend(permission),
            _ => users.push(UserRecord {
                id: row.id.into(),
                name: row.name,
                email: row.email,
                has_password: row.password_hash.is_some(),
                role: Role::read(operation, &row.role)?,
                permissions: permission.into_iter().collect(),
                disabled: row.disabled,
                created_at: row.created_at,
            }),
        }
    }
    Ok(users)
}

//! Users, their permissions and tokens.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::{
    Store, StoreError,
    audit::{self, AuditRow, OPERATOR},
    column::{Word, storable, words},
    db::{on_pool, on_tx},
    failed,
};
use crate::{
    access::{Actor, Permission},
    vm::{TokenId, UserId},
};

/// A user.
#[derive(Debug, Clone)]
pub struct UserRecord {
    /// Its id.
    pub id: UserId,
    /// Unique.
    pub name: String,
    /// May see and use everything.
    pub admin: bool,
    /// What else he may do.
    pub permissions: Vec<Permission>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A token, without the token.
#[derive(Debug, Clone)]
pub struct TokenInfo {
    /// Its id.
    pub id: TokenId,
    /// Whose.
    pub user: UserId,
    /// What for, in the user's words.
    pub label: String,
    /// When it was issued.
    pub created_at: DateTime<Utc>,
    /// When it ends; never, when absent.
    pub expires_at: Option<DateTime<Utc>>,
}

words!(Permission { UnsafeCommands => "unsafe_commands" });

/// A user with one of his permissions, or with none: one row for each permission.
#[derive(Debug, sqlx::FromRow)]
struct UserRow {
    id: Uuid,
    name: String,
    admin: bool,
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
        let added = on_tx!(&mut tx, db => sqlx::query(
            "INSERT INTO users (id, name, admin, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
        )
        .bind(user.id.uuid())
        .bind(user.name.as_str())
        .bind(user.admin)
        .bind(storable(user.created_at))
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        if added == 0 {
            return Err(StoreError::UserExists);
        }
        // There are no more permissions than `Permission::ALL`.
        let permissions: BTreeSet<_> = user.permissions.iter().collect();
        for permission in &permissions {
            on_tx!(&mut tx, db => sqlx::query("INSERT INTO permissions (user_id, permission) VALUES ($1, $2)")
                .bind(user.id.uuid())
                .bind(permission.word())
                .execute(db)
                .await
                .map(drop))
            .map_err(failed(OPERATION))?;
        }
        let details =
            json!({ "user": user.id, "name": user.name, "admin": user.admin, "permissions": permissions });
        let at = storable(user.created_at);
        audit::record(&mut tx, &AuditRow { at, user: OPERATOR, action: "user.add", vm: None, details })
            .await?;
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

    /// Stores a token by its SHA-256, and an audit row, in one transaction.
    ///
    /// # Errors
    /// `NotFound`: there is no such user.
    pub async fn add_token(&self, token: &TokenInfo, sha256: &[u8; 32]) -> Result<(), StoreError> {
        const OPERATION: &str = "storing a token";
        let at = storable(token.created_at);
        let expires_at = token.expires_at.map(storable);
        let mut tx = self.begin(OPERATION).await?;
        on_tx!(&mut tx, db => sqlx::query(
            "INSERT INTO tokens (id, user_id, label, sha256, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(token.id.uuid())
        .bind(token.user.uuid())
        .bind(token.label.as_str())
        .bind(sha256.as_slice())
        .bind(at)
        .bind(expires_at)
        .execute(db)
        .await
        .map(drop))
        .map_err(|error| match error {
            sqlx::Error::Database(error) if error.is_foreign_key_violation() => StoreError::NotFound,
            error => failed(OPERATION)(error),
        })?;
        let details = json!({
            "user": token.user,
            "token": token.id,
            "label": token.label,
            "expires_at": expires_at,
        });
        audit::record(&mut tx, &AuditRow { at, user: OPERATOR, action: "token.issue", vm: None, details })
            .await?;
        tx.commit(OPERATION).await
    }

    /// Who holds the token; `None` for an unknown or expired one. One statement.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn actor_by_token(
        &self,
        sha256: &[u8; 32],
        now: DateTime<Utc>,
    ) -> Result<Option<Actor>, StoreError> {
        const OPERATION: &str = "looking a token up";
        let rows = on_pool!(self, db => sqlx::query_as::<_, UserRow>(
            "SELECT u.*, p.permission
             FROM tokens t JOIN users u ON u.id = t.user_id LEFT JOIN permissions p ON p.user_id = u.id
             WHERE t.sha256 = $1 AND (t.expires_at IS NULL OR t.expires_at > $2)",
        )
        .bind(sha256.as_slice())
        .bind(storable(now))
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        Ok(gather(OPERATION, rows)?.into_iter().next().map(|user| Actor {
            user: user.id,
            name: user.name,
            admin: user.admin,
            permissions: user.permissions.into_iter().collect(),
        }))
    }

    /// Ends all tokens of a user, and writes an audit row, in one transaction; gives how many.
    ///
    /// # Errors
    /// `Database`.
    pub async fn revoke_tokens(&self, user: UserId, now: DateTime<Utc>) -> Result<u64, StoreError> {
        const OPERATION: &str = "revoking tokens";
        let mut tx = self.begin(OPERATION).await?;
        let ended = on_tx!(&mut tx, db => sqlx::query("DELETE FROM tokens WHERE user_id = $1")
            .bind(user.uuid())
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        let at = storable(now);
        let details = json!({ "user": user, "tokens": ended });
        audit::record(&mut tx, &AuditRow { at, user: OPERATOR, action: "token.revoke", vm: None, details })
            .await?;
        tx.commit(OPERATION).await?;
        Ok(ended)
    }
}

/// Joins the rows of each user, which come one after the other.
fn gather(operation: &'static str, rows: Vec<UserRow>) -> Result<Vec<UserRecord>, StoreError> {
    let mut users: Vec<UserRecord> = Vec::new();
    for row in rows {
        let permission = row.permission.map(|word| Permission::read(operation, &word)).transpose()?;
        match users.last_mut() {
            Some(user) if user.id.uuid() == row.id => user.permissions.extend(permission),
            _ => users.push(UserRecord {
                id: row.id.into(),
                name: row.name,
                admin: row.admin,
                permissions: permission.into_iter().collect(),
                created_at: row.created_at,
            }),
        }
    }
    Ok(users)
}

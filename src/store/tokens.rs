//! Tokens for the API, which are stored as their SHA-256, and who comes with one.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::{
    Store, StoreError,
    audit::{self, AuditRow, OPERATOR},
    column::{Word, storable, words},
    db::{on_pool, on_tx},
    failed,
    users::{UserRow, gather},
};
use crate::{
    access::{Actor, Role, Scope, Share},
    vm::{TokenId, UserId, VmId},
};

/// Tokens that one user may have.
const MAX_TOKENS: i64 = 100;

/// A token, without the token.
#[derive(Debug, Clone)]
pub struct TokenInfo {
    /// Its id.
    pub id: TokenId,
    /// Whose.
    pub user: UserId,
    /// What for, in the user's words.
    pub label: String,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
    /// When it was issued.
    pub created_at: DateTime<Utc>,
    /// When it ends; never, when absent.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenUse {
    /// A person's or a program's, until it is revoked or expires.
    Api,
    /// A session's, for minutes.
    Access,
}

words!(Share { View => "view", Use => "use" });
words!(Scope {
    Read => "read",
    Control => "control",
    UnsafeCommands => "unsafe_commands",
    Telemetry => "telemetry",
    Admin => "admin",
});

#[derive(Debug, sqlx::FromRow)]
struct ActorRow {
    #[sqlx(flatten)]
    user: UserRow,
    scopes: Option<String>,
    token_until: Option<DateTime<Utc>>,
    session_until: Option<DateTime<Utc>>,
}

impl Store {
    /// Stores a token by its SHA-256, and an audit row, in one transaction. `by` is who issues it; the
    /// host's operator, when absent.
    ///
    /// # Errors
    /// `NotFound`: there is no such user; `TooMany`.
    pub async fn add_token(
        &self,
        token: &TokenInfo,
        sha256: &[u8; 32],
        by: Option<UserId>,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "storing a token";
        let at = storable(token.created_at);
        let expires_at = token.expires_at.map(storable);
        let scopes = token.scopes.iter().map(|scope| scope.word()).collect::<Vec<_>>().join(" ");
        let mut tx = self.begin(OPERATION).await?;
        on_tx!(&mut tx, db => sqlx::query(
            "INSERT INTO tokens (id, user_id, label, sha256, created_at, expires_at, scopes)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(token.id.uuid())
        .bind(token.user.uuid())
        .bind(token.label.as_str())
        .bind(sha256.as_slice())
        .bind(at)
        .bind(expires_at)
        .bind(scopes.as_str())
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
            "scopes": token.scopes,
            "expires_at": expires_at,
        });
        let count = on_tx!(&mut tx, db => sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM tokens WHERE user_id = $1",
        )
        .bind(token.user.uuid())
        .fetch_one(db)
        .await)
        .map_err(failed(OPERATION))?;
        if count > MAX_TOKENS {
            return Err(StoreError::TooMany);
        }
        let user = by.unwrap_or(OPERATOR);
        audit::record(&mut tx, &AuditRow { at, user, action: "token.issue", vm: None, details }).await?;
        tx.commit(OPERATION).await
    }

    /// Who holds the token; `None` for an unknown or expired one, and for a disabled user. One statement,
    /// and another for what was shared with him.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn actor_by_token(
        &self,
        sha256: &[u8; 32],
        stands_for: TokenUse,
        now: DateTime<Utc>,
    ) -> Result<Option<Actor>, StoreError> {
        const OPERATION: &str = "looking a token up";
        let sql = match stands_for {
            TokenUse::Api => {
                "SELECT u.*, p.permission, t.scopes, t.expires_at AS token_until, t.expires_at AS session_until
                 FROM tokens t JOIN users u ON u.id = t.user_id LEFT JOIN permissions p ON p.user_id = u.id
                 WHERE t.sha256 = $1 AND (t.expires_at IS NULL OR t.expires_at > $2) AND NOT u.disabled"
            }
            TokenUse::Access => {
                "SELECT u.*, p.permission, NULL AS scopes, t.expires_at AS token_until,
                        s.expires_at AS session_until
                 FROM session_tokens t JOIN sessions s ON s.id = t.session_id
                 JOIN users u ON u.id = s.user_id LEFT JOIN permissions p ON p.user_id = u.id
                 WHERE t.sha256 = $1 AND t.kind = 'access' AND t.expires_at > $2 AND s.expires_at > $2
                   AND NOT u.disabled"
            }
        };
        let rows = on_pool!(self, db => sqlx::query_as::<_, ActorRow>(sql)
            .bind(sha256.as_slice())
            .bind(storable(now))
            .fetch_all(db)
            .await)
        .map_err(failed(OPERATION))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let scopes = read_scopes(OPERATION, row.scopes.as_deref())?;
        let until = [row.token_until, row.session_until].into_iter().flatten().min();
        let users = gather(OPERATION, rows.into_iter().map(|row| row.user).collect())?;
        let Some(user) = users.into_iter().next() else { return Ok(None) };
        let permissions = user.permissions.into_iter().collect();
        let mut actor = Actor::new(user.id, user.name, user.role, permissions);
        actor.scopes = scopes;
        actor.until = until;
        // What the other roles see, no share adds to.
        if actor.role == Role::Member {
            actor.shares = Arc::new(self.shares_of(user.id).await?);
        }
        Ok(Some(actor))
    }

    /// What is shared with a user.
    async fn shares_of(&self, user: UserId) -> Result<std::collections::BTreeMap<VmId, Share>, StoreError> {
        const OPERATION: &str = "reading what is shared with a user";
        on_pool!(self, db => sqlx::query_as::<_, (Uuid, String)>(
            "SELECT vm_id, share FROM vm_shares WHERE user_id = $1",
        )
        .bind(user.uuid())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?
        .into_iter()
        .map(|(vm, share)| Ok((vm.into(), Share::read(OPERATION, &share)?)))
        .collect()
    }

    /// A user's tokens, newest first; expired ones too.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn tokens(&self, user: UserId) -> Result<Vec<TokenInfo>, StoreError> {
        const OPERATION: &str = "listing a user's tokens";
        type Row = (Uuid, String, String, DateTime<Utc>, Option<DateTime<Utc>>);
        on_pool!(self, db => sqlx::query_as::<_, Row>(
            "SELECT id, label, scopes, created_at, expires_at FROM tokens
             WHERE user_id = $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(user.uuid())
        .bind(MAX_TOKENS)
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?
        .into_iter()
        .map(|(id, label, scopes, created_at, expires_at)| {
            let scopes = read_scopes(OPERATION, Some(&scopes))?;
            Ok(TokenInfo { id: id.into(), user, label, scopes, created_at, expires_at })
        })
        .collect()
    }

    /// Ends one token of a user, with an audit row, in one transaction; `false`: he has no such.
    ///
    /// # Errors
    /// `Database`.
    pub async fn revoke_token(
        &self,
        token: TokenId,
        user: UserId,
        by: UserId,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        const OPERATION: &str = "revoking a token";
        let mut tx = self.begin(OPERATION).await?;
        let ended = on_tx!(&mut tx, db => sqlx::query("DELETE FROM tokens WHERE id = $1 AND user_id = $2")
            .bind(token.uuid())
            .bind(user.uuid())
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        if ended == 0 {
            return Ok(false);
        }
        let details = json!({ "user": user, "token": token });
        let row = AuditRow { at: storable(now), user: by, action: "token.revoke", vm: None, details };
        audit::record(&mut tx, &row).await?;
        tx.commit(OPERATION).await?;
        Ok(true)
    }

    /// Ends the token with this SHA-256, with an audit row, in one transaction; gives whose it was.
    ///
    /// # Errors
    /// `Database`.
    pub async fn end_token(
        &self,
        sha256: &[u8; 32],
        now: DateTime<Utc>,
    ) -> Result<Option<UserId>, StoreError> {
        const OPERATION: &str = "ending a token by its holder";
        let mut tx = self.begin(OPERATION).await?;
        let ended = on_tx!(&mut tx, db => sqlx::query_as::<_, (Uuid, Uuid)>(
            "DELETE FROM tokens WHERE sha256 = $1 RETURNING id, user_id",
        )
        .bind(sha256.as_slice())
        .fetch_optional(db)
        .await)
        .map_err(failed(OPERATION))?;
        let Some((token, user)) = ended else { return Ok(None) };
        let (at, user) = (storable(now), UserId::from(user));
        let details = json!({ "user": user, "token": token });
        audit::record(&mut tx, &AuditRow { at, user, action: "token.revoke", vm: None, details }).await?;
        tx.commit(OPERATION).await?;
        Ok(Some(user))
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

/// The words of a token; a session's stands for all that its user may.
fn read_scopes(operation: &'static str, words: Option<&str>) -> Result<BTreeSet<Scope>, StoreError> {
    match words {
        None => Ok(Scope::ALL.into()),
        Some(words) => words.split_whitespace().map(|word| Scope::read(operation, word)).collect(),
    }
}

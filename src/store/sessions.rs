//! Sign-ins: passwords, sessions and their tokens, and the token that makes the first user.
//!
//! A refresh token is exchanged in one transaction with the making of its successors, so that a death
//! between leaves either the old one or the new ones. One that is presented a second time ends its
//! session: either it or its successor is in the wrong hands.

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::{
    Store, StoreError, UserRecord,
    audit::{self, AuditRow, OPERATOR},
    column::storable,
    db::{Tx, on_pool, on_tx},
    failed, users,
};
use crate::{
    access::Role,
    vm::{SessionId, UserId},
};

/// The sessions that one user may have; the one used least recently gives way.
const MAX_SESSIONS: i64 = 64;

/// A sign-in that lasts.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// When he signed in.
    pub created_at: DateTime<Utc>,
    /// When it was last refreshed.
    pub used_at: DateTime<Utc>,
    /// When it ends, however often it is refreshed.
    pub expires_at: DateTime<Utc>,
    /// Where he signed in from.
    pub address: String,
    /// With what, in the client's own words.
    pub user_agent: String,
}

/// A token as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct StoredToken {
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// The two that a session has at a time.
#[derive(Debug, Clone, Copy)]
pub struct SessionTokens {
    /// For requests.
    pub access: StoredToken,
    /// For the next exchange.
    pub refresh: StoredToken,
}

/// What somebody is asked for who signs in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Who that is.
    pub user: UserId,
    /// Argon2id, in its text form; `None`: no password opens this account.
    pub password_hash: Option<String>,
    /// Whether he may not sign in.
    pub disabled: bool,
}

/// What became of a refresh token.
#[derive(Debug, Clone)]
pub enum Refreshed {
    /// The session goes on.
    Done(SessionInfo),
    /// It had been used before: its session is ended.
    Reused {
        /// Whose it was.
        user: UserId,
    },
    /// No such token, an expired one, or one of somebody who may not sign in.
    Unknown,
}

#[derive(Debug, sqlx::FromRow)]
struct SessionRow {
    id: Uuid,
    user_id: Uuid,
    created_at: DateTime<Utc>,
    used_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    address: String,
    user_agent: String,
}

impl From<SessionRow> for SessionInfo {
    fn from(row: SessionRow) -> Self {
        Self {
            id: row.id.into(),
            user: row.user_id.into(),
            created_at: row.created_at,
            used_at: row.used_at,
            expires_at: row.expires_at,
            address: row.address,
            user_agent: row.user_agent,
        }
    }
}

impl Store {
    /// What whoever signs in with this address (lower case) has to show.
    ///
    /// # Errors
    /// `Database`.
    pub async fn credentials(&self, email: &str) -> Result<Option<Credentials>, StoreError> {
        const OPERATION: &str = "looking a user up who signs in";
        let found = on_pool!(self, db => sqlx::query_as::<_, (Uuid, Option<String>, bool)>(
            "SELECT id, password_hash, disabled FROM users WHERE email = $1",
        )
        .bind(email)
        .fetch_optional(db)
        .await)
        .map_err(failed(OPERATION))?;
        Ok(found.map(|(user, password_hash, disabled)| Credentials {
            user: user.into(),
            password_hash,
            disabled,
        }))
    }

    /// A user's password, as [`Credentials::password_hash`].
    ///
    /// # Errors
    /// `Database`.
    pub async fn password_of(&self, user: UserId) -> Result<Option<String>, StoreError> {
        const OPERATION: &str = "reading a password's hash";
        let found = on_pool!(self, db => sqlx::query_scalar::<_, Option<String>>(
            "SELECT password_hash FROM users WHERE id = $1",
        )
        .bind(user.uuid())
        .fetch_optional(db)
        .await)
        .map_err(failed(OPERATION))?;
        Ok(found.flatten())
    }

    /// Sets a password and ends the user's sessions, in one transaction.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn set_password(
        &self,
        user: UserId,
        hash: &str,
        by: Option<UserId>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "setting a password";
        let mut tx = self.begin(OPERATION).await?;
        let set = on_tx!(&mut tx, db => sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
            .bind(user.uuid())
            .bind(hash)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        if set == 0 {
            return Err(StoreError::NotFound);
        }
        let ended = end_sessions(&mut tx, OPERATION, user).await?;
        let details = json!({ "user": user, "sessions_ended": ended });
        let by = by.unwrap_or(OPERATOR);
        let row = AuditRow { at: storable(now), user: by, action: "user.password", vm: None, details };
        audit::record(&mut tx, &row).await?;
        tx.commit(OPERATION).await
    }

    /// Stores a sign-in, its tokens and an audit row, in one transaction.
    ///
    /// # Errors
    /// `NotFound`: the user is gone, or may not sign in.
    pub async fn open_session(
        &self,
        session: &SessionInfo,
        tokens: &SessionTokens,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "storing a session";
        let now = storable(session.created_at);
        let mut tx = self.begin(OPERATION).await?;
        let made = on_tx!(&mut tx, db => sqlx::query(
            "INSERT INTO sessions (id, user_id, created_at, used_at, expires_at, address, user_agent)
             SELECT $1, id, $3, $3, $4, $5, $6 FROM users WHERE id = $2 AND NOT disabled",
        )
        .bind(session.id.uuid())
        .bind(session.user.uuid())
        .bind(now)
        .bind(storable(session.expires_at))
        .bind(session.address.as_str())
        .bind(session.user_agent.as_str())
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        if made == 0 {
            return Err(StoreError::NotFound);
        }
        add_tokens(&mut tx, OPERATION, session.id, tokens).await?;
        on_tx!(&mut tx, db => sqlx::query(
            "DELETE FROM sessions WHERE user_id = $1 AND id NOT IN (
                 SELECT id FROM sessions WHERE user_id = $1 ORDER BY used_at DESC, id DESC LIMIT $2)",
        )
        .bind(session.user.uuid())
        .bind(MAX_SESSIONS)
        .execute(db)
        .await
        .map(drop))
        .map_err(failed(OPERATION))?;
        let details = json!({ "session": session.id });
        let row = AuditRow { at: now, user: session.user, action: "session.open", vm: None, details };
        audit::record(&mut tx, &row).await?;
        tx.commit(OPERATION).await
    }

    /// Exchanges a refresh token, by its SHA-256, for new tokens; at most once.
    ///
    /// # Errors
    /// `Database`.
    pub async fn refresh_session(
        &self,
        sha256: &[u8; 32],
        tokens: &SessionTokens,
        now: DateTime<Utc>,
    ) -> Result<Refreshed, StoreError> {
        const OPERATION: &str = "refreshing a session";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        let taken = on_tx!(&mut tx, db => sqlx::query_scalar::<_, Uuid>(
            "UPDATE session_tokens SET used_at = $2
             WHERE sha256 = $1 AND kind = 'refresh' AND used_at IS NULL AND expires_at > $2
             RETURNING session_id",
        )
        .bind(sha256.as_slice())
        .bind(now)
        .fetch_optional(db)
        .await)
        .map_err(failed(OPERATION))?;
        let Some(session) = taken else {
            return end_if_reused(tx, OPERATION, sha256, now).await;
        };
        let row = on_tx!(&mut tx, db => sqlx::query_as::<_, SessionRow>(
            "UPDATE sessions SET used_at = $2
             WHERE id = $1 AND expires_at > $2
               AND user_id IN (SELECT id FROM users WHERE NOT disabled)
             RETURNING *",
        )
        .bind(session)
        .bind(now)
        .fetch_optional(db)
        .await)
        .map_err(failed(OPERATION))?;
        let Some(row) = row else { return Ok(Refreshed::Unknown) };
        // Older ones end by themselves within minutes; those that ended go now, so that a session that is
        // refreshed for weeks stays small. Used refresh tokens stay: they tell of theft.
        on_tx!(&mut tx, db => sqlx::query(
            "DELETE FROM session_tokens WHERE session_id = $1 AND expires_at <= $2",
        )
        .bind(session)
        .bind(now)
        .execute(db)
        .await
        .map(drop))
        .map_err(failed(OPERATION))?;
        add_tokens(&mut tx, OPERATION, session.into(), tokens).await?;
        tx.commit(OPERATION).await?;
        Ok(Refreshed::Done(row.into()))
    }

    /// Ends the session that a token, access or refresh, belongs to; gives whose it was.
    ///
    /// # Errors
    /// `Database`.
    pub async fn end_session(
        &self,
        sha256: &[u8; 32],
        now: DateTime<Utc>,
    ) -> Result<Option<UserId>, StoreError> {
        const OPERATION: &str = "ending a session";
        let mut tx = self.begin(OPERATION).await?;
        let ended = on_tx!(&mut tx, db => sqlx::query_as::<_, (Uuid, Uuid)>(
            "DELETE FROM sessions WHERE id IN (SELECT session_id FROM session_tokens WHERE sha256 = $1)
             RETURNING id, user_id",
        )
        .bind(sha256.as_slice())
        .fetch_optional(db)
        .await)
        .map_err(failed(OPERATION))?;
        let Some((session, user)) = ended else { return Ok(None) };
        let (at, user) = (storable(now), UserId::from(user));
        let details = json!({ "session": session });
        audit::record(&mut tx, &AuditRow { at, user, action: "session.end", vm: None, details }).await?;
        tx.commit(OPERATION).await?;
        Ok(Some(user))
    }

    /// Removes sessions and tokens that ended; gives how many sessions.
    ///
    /// # Errors
    /// `Database`.
    pub async fn remove_ended_sessions(&self, now: DateTime<Utc>) -> Result<u64, StoreError> {
        const OPERATION: &str = "removing ended sessions";
        let now = storable(now);
        let mut removed = 0;
        for sql in [
            "DELETE FROM session_tokens WHERE expires_at <= $1",
            "DELETE FROM sessions WHERE expires_at <= $1",
        ] {
            removed = on_pool!(self, db => sqlx::query(sql).bind(now).execute(db).await
                .map(|done| done.rows_affected()))
            .map_err(failed(OPERATION))?;
        }
        Ok(removed)
    }

    /// Stores what makes the first user, in place of what did before; `false` where there are users: then
    /// there is nothing to set up.
    ///
    /// # Errors
    /// `Database`.
    pub async fn offer_set_up(&self, sha256: &[u8; 32], now: DateTime<Utc>) -> Result<bool, StoreError> {
        const OPERATION: &str = "storing a set-up token";
        let stored = on_pool!(self, db => sqlx::query(
            "INSERT INTO setup_token (one, sha256, created_at)
             SELECT 1, $1, $2 WHERE NOT EXISTS (SELECT 1 FROM users)
             ON CONFLICT (one) DO UPDATE SET sha256 = excluded.sha256, created_at = excluded.created_at",
        )
        .bind(sha256.as_slice())
        .bind(storable(now))
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        Ok(stored > 0)
    }

    /// Makes the first user, an admin, for whoever has the set-up token, which is gone then; `false`: it is
    /// not that token, or there are users.
    ///
    /// # Errors
    /// `Database`.
    pub async fn set_up(
        &self,
        sha256: &[u8; 32],
        user: &UserRecord,
        password_hash: &str,
    ) -> Result<bool, StoreError> {
        const OPERATION: &str = "making the first user";
        let mut tx = self.begin(OPERATION).await?;
        let taken = on_tx!(&mut tx, db => sqlx::query(
            "DELETE FROM setup_token WHERE sha256 = $1 AND NOT EXISTS (SELECT 1 FROM users)",
        )
        .bind(sha256.as_slice())
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        if taken == 0 {
            return Ok(false);
        }
        debug_assert_eq!(user.role, Role::Admin, "the first user administers the host");
        users::insert(&mut tx, OPERATION, user, Some(password_hash), user.id).await?;
        tx.commit(OPERATION).await?;
        Ok(true)
    }
}

/// Ends all sessions of a user; gives how many.
pub(super) async fn end_sessions(
    tx: &mut Tx,
    operation: &'static str,
    user: UserId,
) -> Result<u64, StoreError> {
    on_tx!(tx, db => sqlx::query("DELETE FROM sessions WHERE user_id = $1")
        .bind(user.uuid())
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
    .map_err(failed(operation))
}

async fn add_tokens(
    tx: &mut Tx,
    operation: &'static str,
    session: SessionId,
    tokens: &SessionTokens,
) -> Result<(), StoreError> {
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO session_tokens (sha256, session_id, kind, expires_at)
         VALUES ($1, $3, 'access', $4), ($2, $3, 'refresh', $5)",
    )
    .bind(tokens.access.sha256.as_slice())
    .bind(tokens.refresh.sha256.as_slice())
    .bind(session.uuid())
    .bind(storable(tokens.access.expires_at))
    .bind(storable(tokens.refresh.expires_at))
    .execute(db)
    .await
    .map(drop))
    .map_err(failed(operation))
}

async fn end_if_reused(
    mut tx: Tx,
    operation: &'static str,
    sha256: &[u8; 32],
    now: DateTime<Utc>,
) -> Result<Refreshed, StoreError> {
    let ended = on_tx!(&mut tx, db => sqlx::query_as::<_, (Uuid, Uuid)>(
        "DELETE FROM sessions WHERE id IN (
             SELECT session_id FROM session_tokens
             WHERE sha256 = $1 AND kind = 'refresh' AND used_at IS NOT NULL)
         RETURNING id, user_id",
    )
    .bind(sha256.as_slice())
    .fetch_optional(db)
    .await)
    .map_err(failed(operation))?;
    let Some((session, user)) = ended else { return Ok(Refreshed::Unknown) };
    let user = UserId::from(user);
    let details = json!({ "session": session, "reason": "a refresh token came twice" });
    audit::record(&mut tx, &AuditRow { at: now, user, action: "session.revoke", vm: None, details }).await?;
    tx.commit(operation).await?;
    Ok(Refreshed::Reused { user })
}

//! Users, their permissions and tokens.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};
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

impl Store {
    /// # Errors
    /// `UserExists`.
    pub async fn add_user(&self, _user: &UserRecord) -> Result<(), StoreError> {
        todo!()
    }

    /// By name.
    pub async fn user_named(&self, _name: &str) -> Result<Option<UserRecord>, StoreError> {
        todo!()
    }

    /// All, by name.
    pub async fn users(&self) -> Result<Vec<UserRecord>, StoreError> {
        todo!()
    }

    /// Stores a token by its SHA-256.
    pub async fn add_token(&self, _token: &TokenInfo, _sha256: &[u8; 32]) -> Result<(), StoreError> {
        todo!()
    }

    /// Who holds the token; `None` for an unknown or expired one. One statement.
    pub async fn actor_by_token(
        &self,
        _sha256: &[u8; 32],
        _now: DateTime<Utc>,
    ) -> Result<Option<Actor>, StoreError> {
        todo!()
    }

    /// Ends all tokens of a user; gives how many.
    pub async fn revoke_tokens(&self, _user: UserId) -> Result<u64, StoreError> {
        todo!()
    }
}

//! Users and their tokens. A token is shown once, when it is issued; the database keeps its
//! SHA-256 (a token has 256 random bits, so a slow hash would add nothing).

use secrecy::SecretString;

use crate::{
    access::{Actor, Permission},
    store::{Store, StoreError, UserRecord},
};

/// Users and tokens. Clones share the store.
#[derive(Debug, Clone)]
pub struct Accounts {}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Not 1 to 64 characters of the allowed ones.
    #[error("a user's name has 1 to 64 characters: letters, digits, '.', '_', '-', '@'")]
    InvalidName,
    /// No such user.
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
    /// The store failed, or the user exists.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// Accounts in this store.
    #[must_use]
    pub fn new(_store: Store) -> Self {
        todo!()
    }

    /// Makes a user.
    pub async fn add_user(
        &self,
        _name: &str,
        _admin: bool,
        _permissions: &[Permission],
    ) -> Result<UserRecord, AccountError> {
        todo!()
    }

    /// Issues a token (`ibt_` and 64 hexadecimal digits), valid for `days` or for ever.
    pub async fn issue_token(
        &self,
        _user: &str,
        _label: &str,
        _days: Option<u32>,
    ) -> Result<SecretString, AccountError> {
        todo!()
    }

    /// Who presents this token; `None`: nobody we know.
    pub async fn authenticate(&self, _token: &str) -> Result<Option<Actor>, StoreError> {
        todo!()
    }

    /// All users.
    pub async fn users(&self) -> Result<Vec<UserRecord>, AccountError> {
        todo!()
    }

    /// Ends all tokens of a user; gives how many.
    pub async fn revoke_tokens(&self, _user: &str) -> Result<u64, AccountError> {
        todo!()
    }
}

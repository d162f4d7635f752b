//! What users do about users: admins about all of them, each about himself.

use std::time::Instant;

use chrono::Utc;
use secrecy::{ExposeSecret, SecretString};

use super::{AccountError, Accounts, email, expiry, is_label, is_user_name, token};
use crate::{
    access::{Actor, Permission, Role, Scope},
    store::{Page, PageOf, StoreError, TokenInfo, UserChange, UserRecord},
    vm::{TokenId, UserId, truncate_to_micros},
};

/// A user to be made.
#[derive(Debug)]
pub struct NewUser {
    /// Unique.
    pub name: String,
    /// What he signs in with.
    pub email: Option<String>,
    /// What he signs in with, besides.
    pub password: Option<SecretString>,
    /// What he is to everybody's VMs.
    pub role: Role,
    /// What else he may do.
    pub permissions: Vec<Permission>,
}

impl Accounts {
    /// Users, in the order of their ids.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn list(&self, page: Page) -> Result<PageOf<UserRecord>, AccountError> {
        Ok(self.store.list_users(page).await?)
    }

    /// One user.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn user(&self, user: UserId) -> Result<Option<UserRecord>, AccountError> {
        Ok(self.store.user(user).await?)
    }

    /// Makes a user on behalf of an admin.
    ///
    /// # Errors
    /// `InvalidName`, `InvalidEmail`, `InvalidPassword`; `Store` with `UserExists`.
    pub async fn create(&self, by: &Actor, new: NewUser) -> Result<UserRecord, AccountError> {
        if !is_user_name(&new.name) {
            return Err(AccountError::InvalidName);
        }
        let email = new.email.as_deref().map(canonical).transpose()?;
        let hash = match new.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let mut permissions = new.permissions;
        permissions.sort_unstable();
        permissions.dedup();
        let user = UserRecord {
            id: UserId::generate(),
            name: new.name,
            email,
            has_password: hash.is_some(),
            role: new.role,
            permissions,
            disabled: false,
            created_at: truncate_to_micros(Utc::now()),
        };
        self.store.add_user_by(&user, hash.as_deref(), by.user).await?;
        Ok(user)
    }

    /// Changes a user on behalf of an admin; what he has open holds to it within a second.
    ///
    /// # Errors
    /// `UnknownUser`, `InvalidEmail`, `InvalidPassword`; `Store` with `UserExists` or `LastAdmin`.
    pub async fn change(
        &self,
        by: &Actor,
        user: UserId,
        mut change: UserChange,
        password: Option<SecretString>,
    ) -> Result<UserRecord, AccountError> {
        change.email = change.email.as_deref().map(canonical).transpose()?;
        if let Some(password) = password {
            change.password_hash = Some(self.passwords.hash(password).await?);
        }
        let (store, by) = (self.store.clone(), by.user);
        let change = async move { store.change_user(user, &change, by, Utc::now()).await };
        self.change_rights(change).await.map_err(unknown(user))?;
        self.store.user(user).await?.ok_or(AccountError::UnknownUser(user))
    }

    /// Removes a user on behalf of an admin; gives what he was.
    ///
    /// # Errors
    /// `UnknownUser`; `Store` with `OwnsVms` or `LastAdmin`.
    pub async fn remove(&self, by: &Actor, user: UserId) -> Result<UserRecord, AccountError> {
        let known = self.store.user(user).await?.ok_or(AccountError::UnknownUser(user))?;
        let (store, by) = (self.store.clone(), by.user);
        let removal = async move { store.remove_user(user, by, Utc::now()).await };
        self.change_rights(removal).await.map_err(unknown(user))?;
        Ok(known)
    }

    /// Sets one's own password, and signs one out everywhere.
    ///
    /// # Errors
    /// `WrongPassword`, `InvalidPassword`.
    pub async fn change_password(
        &self,
        of: &Actor,
        current: SecretString,
        new: SecretString,
    ) -> Result<(), AccountError> {
        // Whoever found an open session must not try passwords on it.
        let begun = self.attempts.begin_again(of.user, Instant::now());
        begun.map_err(|_| AccountError::WrongPassword)?;
        let known = self.store.password_of(of.user).await?;
        if !self.passwords.fits(current, known).await? {
            return Err(AccountError::WrongPassword);
        }
        self.attempts.succeeded_again(of.user);
        let hash = self.passwords.hash(new).await?;
        let (store, user) = (self.store.clone(), of.user);
        let change = async move { store.set_password(user, &hash, Some(user), Utc::now()).await };
        self.change_rights(change).await.map_err(unknown(user))
    }

    /// One's own tokens, newest first.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn tokens(&self, of: &Actor) -> Result<Vec<TokenInfo>, AccountError> {
        Ok(self.store.tokens(of.user).await?)
    }

    /// Issues a token to oneself.
    ///
    /// # Errors
    /// `InvalidLabel`, `NoScopes`; `Store` with `TooMany`.
    pub async fn issue_own(
        &self,
        of: &Actor,
        label: &str,
        scopes: &[Scope],
        days: Option<u32>,
    ) -> Result<(SecretString, TokenInfo), AccountError> {
        if !is_label(label) {
            return Err(AccountError::InvalidLabel);
        }
        if scopes.is_empty() {
            return Err(AccountError::NoScopes);
        }
        let token = token::generate(token::Kind::Api).await.map_err(AccountError::Randomness)?;
        let now = truncate_to_micros(Utc::now());
        let info = TokenInfo {
            id: TokenId::generate(),
            user: of.user,
            label: label.to_owned(),
            scopes: scopes.iter().copied().collect(),
            created_at: now,
            expires_at: days.map(|days| expiry(now, days)),
        };
        self.store.add_token(&info, &token::digest(token.expose_secret()), Some(of.user)).await?;
        Ok((token, info))
    }

    /// Ends one of one's own tokens; gives what it was.
    ///
    /// # Errors
    /// `UnknownToken`.
    pub async fn revoke_own(&self, of: &Actor, token: TokenId) -> Result<TokenInfo, AccountError> {
        let known = self.store.tokens(of.user).await?.into_iter().find(|known| known.id == token);
        let known = known.ok_or(AccountError::UnknownToken(token))?;
        let (store, user) = (self.store.clone(), of.user);
        let change = async move { store.revoke_token(token, user, user, Utc::now()).await };
        if self.change_rights(change).await? { Ok(known) } else { Err(AccountError::UnknownToken(token)) }
    }
}

fn canonical(text: &str) -> Result<String, AccountError> {
    email::canonical(text).ok_or(AccountError::InvalidEmail)
}

fn unknown(user: UserId) -> impl FnOnce(StoreError) -> AccountError {
    move |error| match error {
        StoreError::NotFound => AccountError::UnknownUser(user),
        other => AccountError::Store(other),
    }
}

//! Users and their tokens. A token is shown once, when it is issued; the database keeps its
//! SHA-256 (a token has 256 random bits, so a slow hash would add nothing).

mod attempts;
mod email;
mod password;
mod people;
mod sign_in;
mod token;

use std::{sync::Arc, time::Instant};

use attempts::Attempts;
use password::Passwords;
pub use people::NewUser;
pub use sign_in::{Origin, SignInError, Signed};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use crate::{
    access::{Actor, Permission, Recent, Role, Scope},
    config::AccountsConfig,
    store::{Store, StoreError, TokenInfo, TokenUse, UserRecord, asked_likewise},
    vm::{TokenId, UserId, truncate_to_micros},
};

/// Users and tokens. Clones share the store.
#[derive(Debug, Clone)]
pub struct Accounts {
    store: Store,
    /// Who presented which token a moment ago, by its SHA-256.
    recent: Arc<Recent<[u8; 32], Actor>>,
    /// Told whenever somebody's rights may have changed.
    rights: Arc<watch::Sender<()>>,
    config: AccountsConfig,
    passwords: Passwords,
    attempts: Arc<Attempts>,
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Not 1 to 64 characters of the allowed ones.
    #[error("a user's name has 1 to 64 characters: letters, digits, '.', '_', '-', '@'")]
    InvalidName,
    /// No such user.
    #[error("there is no user {0}")]
    UnknownUser(UserId),
    /// No such token of his.
    #[error("you have no token {0}")]
    UnknownToken(TokenId),
    /// A token for nothing.
    #[error("a token has at least one scope")]
    NoScopes,
    /// Not the password, or too many that were not.
    #[error("that is not the password; after several wrong ones, wait a quarter of an hour")]
    WrongPassword,
    /// Not an address that an account can have.
    #[error("that is no e-mail address")]
    InvalidEmail,
    /// Not a password that an account can have.
    #[error("a password {0}")]
    InvalidPassword(&'static str),
    /// A password could not be worked on.
    #[error("hashing a password: {0}")]
    Hashing(String),
    /// Longer than 200 characters, or with control characters.
    #[error("a token's label has at most 200 characters, none of them a control character")]
    InvalidLabel,
    /// No such user.
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
    /// The system gives no random numbers.
    #[error("reading random numbers for a token")]
    Randomness(#[source] std::io::Error),
    /// The store failed, or the user exists.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// Accounts in this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            recent: Arc::default(),
            rights: Arc::default(),
            config: AccountsConfig::default(),
            passwords: Passwords::new(),
            attempts: Arc::default(),
        }
    }

    /// The same, with other times.
    #[must_use]
    pub fn with_config(self, config: AccountsConfig) -> Self {
        Self { config, ..self }
    }

    /// Makes a user.
    ///
    /// # Errors
    /// `InvalidName`; `Store` with `UserExists`.
    pub async fn add_user(
        &self,
        name: &str,
        role: Role,
        permissions: &[Permission],
    ) -> Result<UserRecord, AccountError> {
        if !is_user_name(name) {
            return Err(AccountError::InvalidName);
        }
        let mut permissions = permissions.to_vec();
        permissions.sort_unstable();
        permissions.dedup();
        let user = UserRecord {
            id: UserId::generate(),
            name: name.to_owned(),
            email: None,
            has_password: false,
            role,
            permissions,
            disabled: false,
            created_at: truncate_to_micros(Utc::now()),
        };
        self.store.add_user(&user).await?;
        Ok(user)
    }

    /// Issues a token (`ibt_` and 64 hexadecimal digits) for these scopes, valid for `days` or for ever.
    ///
    /// # Errors
    /// `NoSuchUser`, `InvalidLabel`.
    pub async fn issue_token(
        &self,
        user: &str,
        label: &str,
        scopes: &[Scope],
        days: Option<u32>,
    ) -> Result<SecretString, AccountError> {
        if !is_label(label) {
            return Err(AccountError::InvalidLabel);
        }
        let user = self.named(user).await?;
        let token = token::generate(token::Kind::Api).await.map_err(AccountError::Randomness)?;
        let now = Utc::now();
        let info = TokenInfo {
            id: TokenId::generate(),
            user: user.id,
            label: label.to_owned(),
            scopes: scopes.iter().copied().collect(),
            created_at: now,
            expires_at: days.map(|days| expiry(now, days)),
        };
        self.store.add_token(&info, &token::digest(token.expose_secret()), None).await?;
        Ok(token)
    }

    /// Who presents this token, now; `None`: nobody we know.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Actor>, StoreError> {
        // What has not a token's form needs no look into the database.
        let stands_for = match token::Kind::of(token) {
            Some(token::Kind::Api) => TokenUse::Api,
            Some(token::Kind::Access) => TokenUse::Access,
            Some(token::Kind::Refresh | token::Kind::SetUp) | None => return Ok(None),
        };
        let (digest, asked) = (token::digest(token), Instant::now());
        let found = self.store.actor_by_token(&digest, stands_for, Utc::now()).await?;
        match &found {
            Some(actor) => self.recent.put(digest, actor.clone(), asked),
            None => self.recent.forget(&digest),
        }
        Ok(found)
    }

    /// Who presents this token, as of at most a second ago: for those who send one request after
    /// the other. Nobody, from the moment on at which it ends by itself.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn recognise(&self, token: &str) -> Result<Option<Actor>, StoreError> {
        let recent =
            token::Kind::of(token).and_then(|_| self.recent.get(&token::digest(token), Instant::now()));
        match recent {
            Some(actor) => Ok(Some(actor).filter(|actor| !actor.has_lapsed(Utc::now()))),
            None => self.authenticate(token).await,
        }
    }

    /// All users.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn users(&self) -> Result<Vec<UserRecord>, AccountError> {
        Ok(self.store.users().await?)
    }

    /// Ends all tokens of a user; gives how many.
    ///
    /// # Errors
    /// `NoSuchUser`.
    pub async fn revoke_tokens(&self, user: &str) -> Result<u64, AccountError> {
        let user = self.named(user).await?;
        let store = self.store.clone();
        let change = async move { store.revoke_tokens(user.id, Utc::now()).await };
        Ok(self.change_rights(change).await?)
    }

    /// Somebody's rights may have changed: what was looked up is looked up again, and whoever
    /// follows [`Self::rights`] is told.
    pub fn rights_changed(&self) {
        self.recent.clear();
        self.rights.send_replace(());
    }

    /// Makes a change of rights and tells whoever follows them, also where whoever asked for it is
    /// gone before it is made: a change that nobody is told of holds for what is open only after the
    /// next look.
    pub async fn change_rights<T: Send + 'static>(
        &self,
        change: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let accounts = self.clone();
        carried_through(async move {
            let made = change.await;
            // Also after a failure: what is reported as one may have been made.
            accounts.rights_changed();
            made
        })
        .await
    }

    /// What was looked up of this token is looked up again.
    pub fn forget(&self, token: &str) {
        self.recent.forget(&token::digest(token));
    }

    /// Sees every change of rights that this process makes: of tokens, sessions, users and shares.
    /// Others' changes are seen by asking now and then.
    #[must_use]
    pub fn rights(&self) -> watch::Receiver<()> {
        self.rights.subscribe()
    }

    async fn named(&self, name: &str) -> Result<UserRecord, AccountError> {
        let user = if is_user_name(name) { self.store.user_named(name).await? } else { None };
        user.ok_or_else(|| AccountError::NoSuchUser(name.to_owned()))
    }
}

/// Does this also where whoever asked for it is gone before it is done.
async fn carried_through<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(asked_likewise(work)).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(reason) => std::panic::resume_unwind(reason),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

fn is_label(label: &str) -> bool {
    label.chars().count() <= 200 && !label.chars().any(char::is_control)
}

pub(crate) fn is_user_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@'))
}

/// `days` from now, or the end of time.
fn expiry(now: DateTime<Utc>, days: u32) -> DateTime<Utc> {
    now.checked_add_signed(TimeDelta::days(i64::from(days))).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names() {
        for good in ["a", "ana.perez@example.org", "ci_bot-2", &"x".repeat(64)] {
            assert!(is_user_name(good), "{good:?} was refused");
        }
        for bad in ["", " ", "a b", "a/b", "é", "a\n", &"x".repeat(65)] {
            assert!(!is_user_name(bad), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_token_for_very_long_does_not_end_early() {
        assert!(expiry(Utc::now(), u32::MAX) > Utc::now() + TimeDelta::days(365_000));
    }

    #[tokio::test]
    async fn a_change_of_rights_is_told_though_its_asker_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("db").display());
        let store = Store::open(&url, 2, std::time::Duration::from_secs(5)).await.unwrap();
        let accounts = Accounts::new(store);
        let mut rights = accounts.rights();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let mut asked = Box::pin(accounts.change_rights(async move {
            gone.await.unwrap();
        }));
        assert!(futures_util::poll!(&mut asked).is_pending());
        drop(asked);
        go.send(()).unwrap();
        let told = tokio::time::timeout(std::time::Duration::from_secs(10), rights.changed()).await;
        told.expect("nobody was told").unwrap();
    }
}

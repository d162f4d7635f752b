//! Signing in and staying so: a password becomes a session, whose access tokens live for minutes and whose
//! refresh tokens are taken once; and the first user, who needs the token that the controller printed.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};

use super::{AccountError, Accounts, carried_through, email, is_user_name, token};
use crate::{
    access::Role,
    store::{Refreshed, SessionInfo, SessionTokens, StoredToken, UserRecord},
    vm::{SessionId, UserId, truncate_to_micros},
};

/// A client's words about itself that are kept, characters.
const MAX_AGENT: usize = 200;

/// What a session is held with. Shown once; only digests are kept.
#[derive(Debug)]
pub struct Signed {
    /// Whose session it is.
    pub user: UserId,
    /// For requests, as a bearer token.
    pub access: SecretString,
    /// When that ends.
    pub access_expires_at: DateTime<Utc>,
    /// For the next pair.
    pub refresh: SecretString,
    /// When that ends, unless it is used.
    pub refresh_expires_at: DateTime<Utc>,
}

/// Where somebody signs in from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// His address, as far as we see it.
    pub address: IpAddr,
    /// His client, in its own words.
    pub user_agent: String,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// Wrong address or password, an account without one, or a disabled one: which, nobody is told.
    #[error("e-mail and password do not fit")]
    Refused,
    /// Too many failed attempts.
    #[error("too many attempts; wait {} s", .0.as_secs().max(1))]
    TooMany(Duration),
    /// Not a refresh token, or one that ended.
    #[error("sign in again")]
    Ended,
    /// Not the set-up token, or there is nothing to set up.
    #[error("that is not the token this controller printed, or it was used")]
    NotSetUpToken,
    /// Anything else.
    #[error(transparent)]
    Account(#[from] AccountError),
}

impl Accounts {
    /// Opens a session.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn sign_in(
        &self,
        address: &str,
        password: SecretString,
        origin: &Origin,
    ) -> Result<Signed, SignInError> {
        let account = email::canonical(address);
        // What is no address is nobody's account, and an attempt of his all the same.
        let begun = match &account {
            Some(account) => self.attempts.begin(origin.address, account, Instant::now()),
            None => self.attempts.begin_nameless(origin.address, Instant::now()),
        };
        begun.map_err(SignInError::TooMany)?;
        let account = account.ok_or(SignInError::Refused)?;
        let known = self.store.credentials(&account).await.map_err(AccountError::Store)?;
        let (user, hash, disabled) = match known {
            Some(known) => (Some(known.user), known.password_hash, known.disabled),
            None => (None, None, false),
        };
        let fits = self.passwords.fits(password, hash).await?;
        let Some(user) = user.filter(|_| fits && !disabled) else {
            return Err(SignInError::Refused);
        };
        self.attempts.succeeded(origin.address, &account);
        self.open(user, origin).await
    }

    async fn open(&self, user: UserId, origin: &Origin) -> Result<Signed, SignInError> {
        let now = truncate_to_micros(Utc::now());
        let (tokens, signed) = self.issue(user, now).await?;
        let session = SessionInfo {
            id: SessionId::generate(),
            user,
            created_at: now,
            used_at: now,
            expires_at: now + self.config.session_time,
            address: origin.address.to_string(),
            user_agent: origin.user_agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect(),
        };
        match self.store.open_session(&session, &tokens).await {
            Ok(()) => Ok(signed),
            // Disabled or removed this moment.
            Err(crate::store::StoreError::NotFound) => Err(SignInError::Refused),
            Err(error) => Err(AccountError::Store(error).into()),
        }
    }

    /// The next pair of tokens, for the refresh token of the last one. A token that comes a second time
    /// ends its session.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn refresh(&self, refresh: &str) -> Result<Signed, SignInError> {
        if token::Kind::of(refresh) != Some(token::Kind::Refresh) {
            return Err(SignInError::Ended);
        }
        let now = truncate_to_micros(Utc::now());
        // Whose they are is known afterwards only.
        let (tokens, mut signed) = self.issue(UserId(uuid::Uuid::nil()), now).await?;
        let (accounts, digest) = (self.clone(), token::digest(refresh));
        let done = carried_through(async move {
            let done = accounts.store.refresh_session(&digest, &tokens, now).await;
            if matches!(done, Ok(Refreshed::Reused { .. })) {
                accounts.rights_changed();
            }
            done
        });
        match done.await.map_err(AccountError::Store)? {
            Refreshed::Done(session) => {
                signed.user = session.user;
                Ok(signed)
            }
            Refreshed::Reused { user } => {
                tracing::warn!(%user, "a refresh token came twice; its session is ended");
                Err(SignInError::Ended)
            }
            Refreshed::Unknown => Err(SignInError::Ended),
        }
    }

    /// Ends what the token stands for: a session, by either of its tokens, or a program's token itself,
    /// however little that is good for. Saying it twice does no harm.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn sign_out(&self, held: &str) -> Result<(), AccountError> {
        let (accounts, sha256, now) = (self.clone(), token::digest(held), Utc::now());
        let kind = token::Kind::of(held);
        let ended = carried_through(async move {
            let ended = match kind {
                Some(token::Kind::Access | token::Kind::Refresh) => {
                    accounts.store.end_session(&sha256, now).await
                }
                Some(token::Kind::Api) => accounts.store.end_token(&sha256, now).await,
                Some(token::Kind::SetUp) | None => Ok(None),
            };
            if matches!(ended, Ok(Some(_))) {
                accounts.rights_changed();
            }
            ended
        });
        ended.await?;
        Ok(())
    }

    /// A token that makes the first user, where there is none yet; it takes the place of an earlier one.
    ///
    /// # Errors
    /// `Randomness`, `Store`.
    pub async fn offer_set_up(&self) -> Result<Option<SecretString>, AccountError> {
        let made = token::generate(token::Kind::SetUp).await.map_err(AccountError::Randomness)?;
        let stored = self.store.offer_set_up(&token::digest(made.expose_secret()), Utc::now()).await?;
        Ok(stored.then_some(made))
    }

    /// Makes the first user, an admin, and signs him in.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn set_up(
        &self,
        set_up: &str,
        name: &str,
        address: &str,
        password: SecretString,
        origin: &Origin,
    ) -> Result<Signed, SignInError> {
        self.attempts.begin(origin.address, "", Instant::now()).map_err(SignInError::TooMany)?;
        if token::Kind::of(set_up) != Some(token::Kind::SetUp) {
            return Err(SignInError::NotSetUpToken);
        }
        if !is_user_name(name) {
            return Err(AccountError::InvalidName.into());
        }
        let account = email::canonical(address).ok_or(AccountError::InvalidEmail)?;
        let hash = self.passwords.hash(password).await?;
        let user = UserRecord {
            id: UserId::generate(),
            name: name.to_owned(),
            email: Some(account),
            has_password: true,
            role: Role::Admin,
            permissions: Vec::new(),
            disabled: false,
            created_at: truncate_to_micros(Utc::now()),
        };
        let made = self.store.set_up(&token::digest(set_up), &user, &hash).await;
        if !made.map_err(AccountError::Store)? {
            return Err(SignInError::NotSetUpToken);
        }
        self.attempts.succeeded(origin.address, "");
        self.open(user.id, origin).await
    }

    async fn issue(&self, user: UserId, now: DateTime<Utc>) -> Result<(SessionTokens, Signed), AccountError> {
        let make = async |kind| token::generate(kind).await.map_err(AccountError::Randomness);
        let (access, refresh) = (make(token::Kind::Access).await?, make(token::Kind::Refresh).await?);
        let stored = |token: &SecretString, lives: Duration| StoredToken {
            sha256: token::digest(token.expose_secret()),
            expires_at: now + TimeDelta::from_std(lives).unwrap_or(TimeDelta::days(1)),
        };
        let tokens = SessionTokens {
            access: stored(&access, self.config.access_time),
            refresh: stored(&refresh, self.config.refresh_time),
        };
        let signed = Signed {
            user,
            access,
            access_expires_at: tokens.access.expires_at,
            refresh,
            refresh_expires_at: tokens.refresh.expires_at,
        };
        Ok((tokens, signed))
    }
}

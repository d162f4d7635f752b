//! Passwords: Argon2id, hashed off the async threads and few at a time, because each takes 19 MiB and
//! some ten milliseconds of a processor on purpose.

use std::sync::Arc;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use super::AccountError;

/// Hashes that are worked out at the same time.
const AT_ONCE: usize = 2;
/// Fewer characters are guessed.
const MIN_CHARS: usize = 10;
/// More bytes would make hashing slow for whoever wants that.
const MAX_BYTES: usize = 1024;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Passwords {
    places: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Of a password that may be one; in Argon2's own text form, with a salt of its own.
    pub(super) async fn hash(&self, password: SecretString) -> Result<String, AccountError> {
        check(password.expose_secret())?;
        self.work(move || hash(&password)).await?
    }

    /// Whether it is the password of that hash. Of no hash none is, and finding that out takes as long: who
    /// has an account is not for everybody to know.
    pub(super) async fn fits(
        &self,
        password: SecretString,
        known: Option<String>,
    ) -> Result<bool, AccountError> {
        if password.expose_secret().len() > MAX_BYTES {
            return Ok(false);
        }
        self.work(move || match known {
            None => hash(&password).map(|_| false),
            Some(known) => {
                let known =
                    PasswordHash::new(&known).map_err(|error| AccountError::Hashing(error.to_string()))?;
                let password = password.expose_secret().as_bytes();
                Ok(Argon2::default().verify_password(password, &known).is_ok())
            }
        })
        .await?
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AccountError> {
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(|closed| AccountError::Hashing(closed.to_string()))?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        })
        .await
        .map_err(|died| AccountError::Hashing(died.to_string()))
    }
}

fn hash(password: &SecretString) -> Result<String, AccountError> {
    let hash = Argon2::default().hash_password(password.expose_secret().as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| AccountError::Hashing(error.to_string()))
}

/// Length is what counts; which characters, people choose.
fn check(password: &str) -> Result<(), AccountError> {
    if password.chars().count() < MIN_CHARS {
        return Err(AccountError::InvalidPassword("has at least 10 characters"));
    }
    if password.len() > MAX_BYTES {
        return Err(AccountError::InvalidPassword("has at most 1,024 bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse".into()).await.unwrap());
        assert!(passwords.fits("correct horse".into(), Some(hash.clone())).await.unwrap());
        for wrong in ["", "correct hors", "correct horse ", &"x".repeat(5000)] {
            assert!(!passwords.fits(wrong.into(), Some(hash.clone())).await.unwrap(), "{wrong:.20}");
        }
        assert!(!passwords.fits("correct horse".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn what_is_too_short_or_too_long_is_no_password() {
        let passwords = Passwords::new();
        for bad in ["", "nine char", &"x".repeat(1025)] {
            let told = passwords.hash(bad.into()).await;
            assert!(matches!(told, Err(AccountError::InvalidPassword(_))), "{bad:.20}");
        }
        // Characters are counted, not bytes.
        assert!(passwords.hash("пароль-пароль".into()).await.is_ok());
    }

    #[tokio::test]
    async fn two_are_worked_out_at_a_time() {
        let passwords = Passwords::new();
        let places = Arc::clone(&passwords.places);
        let both = places.try_acquire_many(2).unwrap();
        assert!(places.try_acquire().is_err(), "there are more");
        let mut third = std::pin::pin!(passwords.hash("correct horse".into()));
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(both);
        third.await.unwrap();
        assert_eq!(places.available_permits(), 2);
    }

    #[tokio::test]
    async fn nobodys_password_costs_as_much_as_somebodys() {
        let passwords = Passwords::new();
        let known = passwords.hash("correct horse".into()).await.unwrap();
        let quickest = async |known: Option<String>| {
            let mut quickest = std::time::Duration::MAX;
            for _ in 0..3 {
                let began = std::time::Instant::now();
                assert!(!passwords.fits("wrong horse".into(), known.clone()).await.unwrap());
                quickest = quickest.min(began.elapsed());
            }
            quickest
        };
        let (somebody, nobody) = (quickest(Some(known)).await, quickest(None).await);
        // Far from the microseconds of a look that found nothing; this host may be busy.
        assert!(nobody > somebody / 4 && somebody > nobody / 4, "{somebody:?} and {nobody:?}");
    }
}

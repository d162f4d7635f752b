//! Passwords of guests' accounts, in the form that `crypt(3)` reads.

use secrecy::{ExposeSecret, SecretString};
use sha_crypt::{Sha512Params, sha512_simple};

use super::check::{InvalidSetting, invalid};

/// Ten times the default of the C library: each guess costs as much, and a login is still instant.
const ROUNDS: usize = 50_000;
/// Longest password, bytes. The scheme's cost grows with the length, and clients choose it.
const MAX_BYTES: usize = 128;

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The password cannot be used.
    #[error(transparent)]
    Refused(#[from] InvalidSetting),
    /// The hash could not be computed.
    #[error("hashing a password: {0}")]
    Hash(String),
}

/// The SHA-512 `crypt(3)` hash of a password, with a random salt. Takes some tens of
/// milliseconds of processor time: not for an async thread.
///
/// # Errors
/// A password that is empty, longer than 128 bytes or has control characters, which no login
/// prompt takes.
pub fn hash_password(password: &SecretString) -> Result<String, PasswordError> {
    let password = password.expose_secret();
    check_password(password)?;
    let failed = |e: sha_crypt::CryptError| PasswordError::Hash(format!("{e:?}"));
    let params = Sha512Params::new(ROUNDS).map_err(failed)?;
    sha512_simple(password, &params).map_err(failed)
}

/// Whether an account can have this password.
///
/// # Errors
/// A password that is empty, longer than 128 bytes or has control characters.
pub fn check_password(password: &str) -> Result<(), InvalidSetting> {
    let refuse = |reason: &str| Err(invalid("unattended.password", reason));
    if password.is_empty() {
        return refuse("it is empty");
    }
    if password.len() > MAX_BYTES {
        return refuse("it is longer than 128 bytes");
    }
    if password.chars().any(char::is_control) {
        return refuse("it has control characters, which no login prompt takes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{PasswordError, hash_password};
    use crate::{install::check, vm::Unattended};

    #[test]
    fn a_hash_is_salted_and_fits_the_settings() {
        let secret = "pässword: \"quoted\" 'x' $6$".into();
        let (one, two) = (hash_password(&secret).unwrap(), hash_password(&secret).unwrap());
        assert_ne!(one, two, "no salt");
        assert!(one.starts_with("$6$rounds=50000$"), "{one}");
        assert!(sha_crypt::sha512_check("pässword: \"quoted\" 'x' $6$", &one).is_ok());
        assert!(sha_crypt::sha512_check("else", &one).is_err());
        let settings =
            Unattended { user: Some("ada".to_owned()), password_hash: Some(one), ..Unattended::default() };
        check(&settings).unwrap();
    }

    #[test]
    fn passwords_that_cannot_be_typed_are_refused() {
        for bad in ["", "a\nb", "a\0b", &"a".repeat(129)] {
            let refused = hash_password(&bad.into());
            assert!(matches!(refused, Err(PasswordError::Refused(_))), "{bad:?}: {refused:?}");
        }
    }
}

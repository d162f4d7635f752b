//! What a token looks like, and what is kept of it.

use std::fmt::Write;

use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

const PREFIX: &str = "ibt_";
const RANDOM_BYTES: usize = 32;

/// A new token of 256 random bits.
pub(super) async fn generate() -> std::io::Result<SecretString> {
    let mut random = [0; RANDOM_BYTES];
    tokio::fs::File::open("/dev/urandom").await?.read_exact(&mut random).await?;
    let mut token = String::with_capacity(PREFIX.len() + 2 * RANDOM_BYTES);
    token.push_str(PREFIX);
    for byte in random {
        // Writing to a string cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    Ok(SecretString::from(token))
}

/// Whether it has a token's form.
pub(super) fn is_well_formed(token: &str) -> bool {
    token.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == 2 * RANDOM_BYTES && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// What is stored and looked up. An index finds it in a time that depends on the digest alone,
/// which tells nothing about the token.
pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[tokio::test]
    async fn tokens_are_well_formed_and_different() {
        let (one, two) = (generate().await.unwrap(), generate().await.unwrap());
        assert!(is_well_formed(one.expose_secret()));
        assert_ne!(one.expose_secret(), two.expose_secret());
        assert_ne!(digest(one.expose_secret()), digest(two.expose_secret()));
        for bad in ["", "ibt_", &one.expose_secret()[4..], &one.expose_secret().to_uppercase()] {
            assert!(!is_well_formed(bad));
        }
    }
}

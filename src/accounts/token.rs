//! What a token looks like, and what is kept of it.

use std::fmt::Write;

use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

const RANDOM_BYTES: usize = 32;

/// What a token is for; each has its own first letters, so that none is taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// For programs, until it is revoked or expires.
    Api,
    /// A session's, for minutes.
    Access,
    /// A session's, for one exchange.
    Refresh,
    /// For making the first user.
    SetUp,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Api, Self::Access, Self::Refresh, Self::SetUp];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Api => "ibt_",
            Self::Access => "iba_",
            Self::Refresh => "ibr_",
            Self::SetUp => "ibs_",
        }
    }

    /// Of a text that has a token's form.
    pub(super) fn of(token: &str) -> Option<Self> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        Self::ALL.into_iter().find(|kind| {
            token
                .strip_prefix(kind.prefix())
                .is_some_and(|digits| digits.len() == 2 * RANDOM_BYTES && digits.bytes().all(is_digit))
        })
    }
}

/// A new token of 256 random bits.
pub(super) async fn generate(kind: Kind) -> std::io::Result<SecretString> {
    let mut random = [0; RANDOM_BYTES];
    tokio::fs::File::open("/dev/urandom").await?.read_exact(&mut random).await?;
    let mut token = String::with_capacity(kind.prefix().len() + 2 * RANDOM_BYTES);
    token.push_str(kind.prefix());
    for byte in random {
        // Writing to a string cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    Ok(SecretString::from(token))
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
        for kind in Kind::ALL {
            let (one, two) = (generate(kind).await.unwrap(), generate(kind).await.unwrap());
            assert_eq!(Kind::of(one.expose_secret()), Some(kind));
            assert_ne!(one.expose_secret(), two.expose_secret());
            assert_ne!(digest(one.expose_secret()), digest(two.expose_secret()));
            for bad in ["", kind.prefix(), &one.expose_secret()[4..], &one.expose_secret().to_uppercase()] {
                assert_eq!(Kind::of(bad), None);
            }
        }
    }
}

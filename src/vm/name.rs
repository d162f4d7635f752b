//! Names that people give. Validated once, at the door; everything inside may then put them in
//! a domain's XML, a volume's name or a host name without thinking again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing was given.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than the limit of its kind.
    #[error("a name has at most {max} characters; this one has {actual}")]
    TooLong {
        /// The limit, in characters.
        max: usize,
        /// What was given, in characters.
        actual: usize,
    },
    /// A character that the rule does not allow.
    #[error(
        "a name holds letters, digits, '-' , '_' and '.', and begins with a letter or digit; {0:?} is not allowed there"
    )]
    Character(char),
}

fn check(text: &str, max: usize) -> Result<(), InvalidName> {
    let actual = text.chars().count();
    if actual == 0 {
        return Err(InvalidName::Empty);
    }
    if actual > max {
        return Err(InvalidName::TooLong { max, actual });
    }
    for (index, c) in text.chars().enumerate() {
        let ok = c.is_ascii_alphanumeric() || (index > 0 && matches!(c, '-' | '_' | '.'));
        if !ok {
            return Err(InvalidName::Character(c));
        }
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The longest name accepted, in characters.
            pub const MAX_CHARS: usize = $max;

            /// The validated text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check(text, $max)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                check(&text, $max)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// The name of a VM, which is also its libvirt domain's name and its default host name.
    /// At most 63 characters, the length of one DNS label.
    VmName,
    63
);
name!(
    /// The name of something of the host that a client may refer to: an image, a storage pool,
    /// a network. Never a path.
    ResourceName,
    128
);
name!(
    /// The name of a VM's snapshot. Never a path.
    SnapshotName,
    63
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_the_reason() {
        assert_eq!("".parse::<VmName>(), Err(InvalidName::Empty));
        assert_eq!("a".repeat(300).parse::<VmName>(), Err(InvalidName::TooLong { max: 63, actual: 300 }));
        for bad in ["<a>", "a\"b", "a'b", "a\nb", "a b", "../a", "-a", ".a", "a&b", "ä"] {
            assert!(matches!(bad.parse::<VmName>(), Err(InvalidName::Character(_))), "{bad:?} was accepted");
        }
        for good in ["a", "web-1", "db_2.internal", "9lives"] {
            assert_eq!(good.parse::<VmName>().unwrap().as_str(), good);
        }
    }
}

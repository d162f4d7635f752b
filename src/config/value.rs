//! How one value is read from its text, and what to say when it cannot be.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use secrecy::SecretString;

use super::{DomainTypeSetting, LogFormat, SealPolicy};

/// A type that a configuration key may have.
pub trait ConfigValue: Sized {
    /// What people are told to write.
    const EXPECTS: &'static str;

    /// Reads the value; `Err` says what is wrong with it, without repeating it (it may be secret).
    fn parse(text: &str) -> Result<Self, String>;

    /// The number that a range is checked against; seconds for durations.
    fn magnitude(&self) -> Option<u64> {
        None
    }
}

/// Checks a parsed value against its range.
pub fn check<T: ConfigValue>(value: &T, range: &RangeInclusive<u64>) -> Result<(), String> {
    match value.magnitude() {
        Some(n) if !range.contains(&n) => {
            Err(format!("must be between {} and {}", range.start(), range.end()))
        }
        _ => Ok(()),
    }
}

macro_rules! number {
    ($type:ty) => {
        impl ConfigValue for $type {
            const EXPECTS: &'static str = "a whole number";
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| "is not a whole number in range".to_owned())
            }
            fn magnitude(&self) -> Option<u64> {
                Some((*self).into())
            }
        }
    };
}
number!(u16);
number!(u32);

impl ConfigValue for u64 {
    const EXPECTS: &'static str = "a whole number";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is not a whole number in range".to_owned())
    }
    fn magnitude(&self) -> Option<u64> {
        Some(*self)
    }
}

impl ConfigValue for bool {
    const EXPECTS: &'static str = "true or false";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is neither true nor false".to_owned())
    }
}

impl ConfigValue for String {
    const EXPECTS: &'static str = "text";
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
    }
}

impl ConfigValue for PathBuf {
    const EXPECTS: &'static str = "an absolute path";
    fn parse(text: &str) -> Result<Self, String> {
        let path = Self::from(text);
        if path.is_absolute() { Ok(path) } else { Err("is not an absolute path".to_owned()) }
    }
}

impl ConfigValue for SocketAddr {
    const EXPECTS: &'static str = "an address and port, as in 192.168.122.1:4001";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is not an address and port".to_owned())
    }
}

impl ConfigValue for SecretString {
    const EXPECTS: &'static str = "text (kept secret)";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }
}

impl<T: ConfigValue> ConfigValue for Option<T> {
    const EXPECTS: &'static str = T::EXPECTS;
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
}

impl ConfigValue for Duration {
    const EXPECTS: &'static str = "a duration: 30s, 5m, 1h, or a number of seconds";
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("is not {}", Self::EXPECTS);
        let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
            Some(at) => text.split_at(at),
            None => (text, "s"),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        let scale = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        count.checked_mul(scale).map(Self::from_secs).ok_or_else(wrong)
    }
    fn magnitude(&self) -> Option<u64> {
        Some(self.as_secs())
    }
}

macro_rules! choice {
    ($type:ty, $expects:literal, $($text:literal => $value:expr),+) => {
        impl ConfigValue for $type {
            const EXPECTS: &'static str = $expects;
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok($value),)+
                    _ => Err(concat!("is not one of ", $expects).to_owned()),
                }
            }
        }
    };
}
choice!(DomainTypeSetting, "auto, kvm, qemu", "auto" => Self::Auto, "kvm" => Self::Kvm, "qemu" => Self::Qemu);
choice!(
    SealPolicy, "off, accept, require",
    "off" => Self::Off, "accept" => Self::Accept, "require" => Self::Require
);
choice!(LogFormat, "auto, human, json", "auto" => Self::Auto, "human" => Self::Human, "json" => Self::Json);

//! Where alerts are sent and what signs them: read in one place, so that what was checked at
//! start is what is used.

use std::fmt;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use reqwest::Url;
use secrecy::ExposeSecret as _;

use super::AlertsConfig;

/// A receiver of alerts.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    /// http or https. It may carry a password or a token.
    pub url: Url,
    /// Signs each delivery.
    pub key: Vec<u8>,
}

impl fmt::Debug for WebhookTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookTarget { .. }")
    }
}

/// A key of `alerts` that is wrong, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("alerts.{key} {reason}")]
pub struct WebhookMistake {
    /// Of this section.
    pub key: &'static str,
    /// Without the value, which is secret.
    pub reason: &'static str,
}

impl AlertsConfig {
    /// The receiver; `None`: there is none, and alerts go to the log alone.
    ///
    /// # Errors
    /// What is wrong with it. Not for one of a [`super::Config`] that was loaded.
    pub fn webhook(&self) -> Result<Option<WebhookTarget>, WebhookMistake> {
        let url = self.webhook_url.as_ref().map(|text| url(text.expose_secret())).transpose()?;
        let key = self.webhook_secret.as_ref().map(|text| key(text.expose_secret())).transpose()?;
        match (url, key) {
            (None, _) => Ok(None),
            (Some(url), Some(key)) => Ok(Some(WebhookTarget { url, key })),
            (Some(_), None) => Err(WebhookMistake {
                key: "webhook_secret",
                reason: "is needed with alerts.webhook_url; make one with: \
                         echo \"whsec_$(openssl rand -base64 32)\"",
            }),
        }
    }
}

fn url(text: &str) -> Result<Url, WebhookMistake> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or(WebhookMistake { key: "webhook_url", reason: "is not an http or https URL" })
}

fn key(text: &str) -> Result<Vec<u8>, WebhookMistake> {
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    text.strip_prefix("whsec_")
        .and_then(|text| BASE64.decode(text).ok())
        .filter(|key| (24..=64).contains(&key.len()))
        .ok_or(WebhookMistake {
            key: "webhook_secret",
            reason: "is not whsec_ followed by 24 to 64 bytes in base64",
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str, secret: &str) -> Result<Option<WebhookTarget>, WebhookMistake> {
        let some = |text: &str| (!text.is_empty()).then(|| text.into());
        let config =
            AlertsConfig { webhook_url: some(url), webhook_secret: some(secret), ..AlertsConfig::default() };
        config.webhook()
    }

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn receivers() {
        assert_eq!(read("", ""), Ok(None));
        assert_eq!(read("", SECRET), Ok(None), "a secret alone does no harm");
        for url in ["https://example.net/hook?token=x", "http://127.0.0.1:8080", "http://[::1]/"] {
            let target = read(url, SECRET).unwrap().unwrap();
            assert_eq!(target.key.len(), 24);
            assert!(!format!("{target:?}").contains("example"), "the URL shows in Debug");
        }
        // Without padding, and with.
        assert!(read("http://h", &format!("whsec_{}", "A".repeat(43))).is_ok());
        assert!(read("http://h", &format!("whsec_{}=", "A".repeat(43))).is_ok());
    }

    #[test]
    fn mistakes_name_their_key_and_no_value() {
        for (url, secret, key) in [
            ("https://h", "", "webhook_secret"),
            ("https://h", "hunter2", "webhook_secret"),
            ("https://h", "whsec_hunter2", "webhook_secret"),
            ("https://h", "whsec_", "webhook_secret"),
            ("", "hunter2", "webhook_secret"),
            ("ftp://hunter2", SECRET, "webhook_url"),
            ("hunter2", SECRET, "webhook_url"),
            ("http://", SECRET, "webhook_url"),
            ("file:///hunter2", SECRET, "webhook_url"),
        ] {
            let mistake = read(url, secret).unwrap_err();
            assert_eq!(mistake.key, key, "{url} {secret}");
            assert!(!mistake.to_string().contains("hunter2"), "{mistake}");
        }
        assert!(read("http://h", &format!("whsec_{}", "A".repeat(100))).is_err(), "75 bytes");
    }
}

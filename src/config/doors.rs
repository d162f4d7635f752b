//! Sections about the API's listener: who may connect, how much of it, and by which certificate; and the
//! values that only they have.

use std::{path::PathBuf, time::Duration};

use super::{
    media::{Networks, entries},
    section::section,
    value::ConfigValue,
};

section! {
    /// The API's listener: bounds, proxies, and the web pages that may use it.
    HttpConfig "http" {
        /// Origins of web pages that may use the API from elsewhere, as in `https://console.example`,
        /// separated by commas. Pages of the API's own address always may.
        allowed_origins: Origins = "",
        /// Addresses and networks of proxies that are believed when they say whom they ask for.
        trusted_proxies: Networks = "",
        /// The one header they say it in: `x-forwarded-for` or `forwarded`. The proxy has to set it.
        proxy_header: ProxyHeader = "x-forwarded-for",
        /// Connections at once, besides those that `api.max_websockets` allows.
        max_connections: u32 = "512" in 1..=100000,
        /// Connections at once of one address, or of one IPv6 /64; trusted proxies have no such bound.
        max_connections_per_address: u32 = "256" in 1..=100000,
        /// The longest head of a request, bytes: its path and all of its headers.
        max_header_bytes: u32 = "16384" in 8192..=262144,
        /// How long the head of a request may take to arrive, a TLS handshake, and a connection may wait
        /// for its next request.
        header_timeout: Duration = "15s" in 1..=300,
        /// How long the body of a request may take to arrive.
        body_timeout: Duration = "30s" in 1..=3600,
        /// Requests of one token per second, on average; of an address without a token that is known, too.
        requests_per_second: u32 = "100" in 1..=100000,
        /// Requests that a token or an address may make at once.
        request_burst: u32 = "1000" in 1..=1000000,
        /// How long `/readyz` says that the controller stops, while all is served, before it does stop.
        drain_wait: Duration = "0s" in 0..=300,
    }
}

section! {
    /// TLS for the API's listener.
    TlsConfig "tls" {
        /// The certificate and those between it and its authority, PEM; empty: plain HTTP.
        certificate: Option<PathBuf> = "",
        /// Its key, PEM; needed with `tls.certificate`.
        key: Option<PathBuf> = "",
        /// How often the files are looked at; SIGHUP has them looked at now. A pair that cannot be used
        /// leaves the one before in use.
        reload_interval: Duration = "10s" in 1..=3600,
    }
}

impl TlsConfig {
    /// The files, where there are both.
    #[must_use]
    pub fn files(&self) -> Option<(PathBuf, PathBuf)> {
        Some((self.certificate.clone()?, self.key.clone()?))
    }

    /// Which key is missing, where one is.
    pub(super) fn mistake(&self) -> Option<(&'static str, &'static str)> {
        match (&self.certificate, &self.key) {
            (Some(_), None) => Some(("tls.key", "is needed with tls.certificate")),
            (None, Some(_)) => Some(("tls.certificate", "is needed with tls.key")),
            _ => None,
        }
    }
}

/// Origins of web pages, separated by commas, as browsers write them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Whether this one is among them.
    #[must_use]
    pub fn contains(&self, origin: &str) -> bool {
        self.0.iter().any(|known| known == origin)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl ConfigValue for Origins {
    const EXPECTS: &'static str = "origins, separated by commas, as in https://console.example:8443";
    fn parse(text: &str) -> Result<Self, String> {
        let plain = |origin: &str| {
            let place = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))?;
            // A browser writes neither a path nor capitals nor the scheme's own port.
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:[]".contains(c);
            let own = if origin.starts_with("https") { ":443" } else { ":80" };
            let good = !place.is_empty() && place.chars().all(plain) && !place.ends_with(own);
            good.then(|| origin.to_owned())
        };
        let origins: Option<Vec<_>> = entries(text).map(plain).collect();
        origins.map(Self).ok_or_else(|| format!("is not a list of {}", Self::EXPECTS))
    }
}

/// The header in which proxies say whom they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ConfigValue for ProxyHeader {
    const EXPECTS: &'static str = "x-forwarded-for, forwarded";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err(format!("is not one of {}", Self::EXPECTS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        let origins = Origins::parse("https://console.example, http://[::1]:3000,").unwrap();
        assert!(origins.contains("https://console.example") && origins.contains("http://[::1]:3000"));
        assert!(!origins.contains("https://console.example.evil") && !origins.contains("null"));
        assert!(Origins::parse("").unwrap().is_empty());
        for bad in [
            "*",
            "console.example",
            "https://",
            "https://x/",
            "https://X",
            "ftp://x",
            "null",
            "https://x:443",
        ] {
            assert!(Origins::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_certificate_has_a_key() {
        let one = |certificate: &str, key: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
            TlsConfig { certificate: some(certificate), key: some(key), ..TlsConfig::default() }
        };
        assert_eq!(one("/c", "").mistake().map(|(key, _)| key), Some("tls.key"));
        assert_eq!(one("", "/k").mistake().map(|(key, _)| key), Some("tls.certificate"));
        assert!(one("", "").mistake().is_none() && one("", "").files().is_none());
        assert!(one("/c", "/k").mistake().is_none() && one("/c", "/k").files().is_some());
    }
}

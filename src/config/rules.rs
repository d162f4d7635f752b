//! Rules that one value must keep beyond its type and range. What breaks one would otherwise be
//! found only when the value is used: late, or never.
//!
//! Reasons never repeat the value: it may be secret.

use std::{net::SocketAddr, str::FromStr};

use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::{EnvFilter, filter::ParseError};

use super::{LogConfig, RedactionConfig};
use crate::vm::{RedactionError, Redactor};

impl LogConfig {
    /// The filter, read strictly.
    ///
    /// # Errors
    /// It is no such filter. Not for one of a [`super::Config`] that was loaded.
    pub fn env_filter(&self) -> Result<EnvFilter, ParseError> {
        EnvFilter::builder().parse(&self.filter)
    }
}

impl RedactionConfig {
    /// The redactor with these rules.
    ///
    /// # Errors
    /// The first rule that cannot be used. None for one of a [`super::Config`] that was loaded.
    pub fn redactor(&self) -> Result<Redactor, RedactionError> {
        Redactor::new(
            &listed(self.names.as_ref()),
            &listed(self.flags.as_ref()),
            &lines(self.patterns.as_ref()),
        )
    }

    /// What is wrong with each key.
    pub(super) fn mistakes(&self) -> impl Iterator<Item = (&'static str, RedactionError)> {
        let names = Redactor::new(&listed(self.names.as_ref()), &[], &[]);
        let flags = Redactor::new(&[], &listed(self.flags.as_ref()), &[]);
        let patterns = Redactor::new(&[], &[], &lines(self.patterns.as_ref()));
        [("redaction.names", names), ("redaction.flags", flags), ("redaction.patterns", patterns)]
            .into_iter()
            .filter_map(|(key, read)| Some((key, read.err()?)))
    }
}

/// Entries between commas.
fn listed(text: Option<&String>) -> Vec<&str> {
    entries(text, ',')
}

/// Entries on lines of their own. Spaces around one are the file's, not the entry's.
fn lines(text: Option<&String>) -> Vec<&str> {
    entries(text, '\n')
}

fn entries(text: Option<&String>, separator: char) -> Vec<&str> {
    let entries = text.into_iter().flat_map(|text| text.split(separator));
    entries.map(str::trim).filter(|entry| !entry.is_empty()).collect()
}

/// The shape of libvirt's URIs, `driver[+transport]://…`.
pub(super) fn hypervisor_uri(uri: &str) -> Result<(), &'static str> {
    let scheme = uri.split_once("://").map_or("", |(scheme, _)| scheme);
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme || uri.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("is not a libvirt URI, as in qemu:///system");
    }
    Ok(())
}

/// What can be said of the database's URL without asking a database.
pub(super) fn database_url(url: &str) -> Result<(), &'static str> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        let is_path = !path.is_empty()
            && !path.starts_with(':')
            && !path.starts_with("file:")
            && !path.contains(['?', '\0']);
        return if is_path { Ok(()) } else { Err("is not sqlite:PATH, the path of a file, without options") };
    }
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("begins neither with postgres:// nor with sqlite:");
    }
    if PgConnectOptions::from_str(url).is_err() {
        return Err("cannot be read as postgres://USER:PASSWORD@HOST:PORT/DATABASE");
    }
    if !names_database(url) {
        return Err("names no database, as in postgres://USER:PASSWORD@HOST:PORT/DATABASE");
    }
    Ok(())
}

/// Whether a PostgreSQL URL says itself which database is meant, in its path or as `dbname`.
/// What stands in for a missing one (`PGDATABASE`, the user's name) differs between the shell of
/// a person who checks and the service.
fn names_database(url: &str) -> bool {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let path = place.split_once("://").and_then(|(_, place)| place.split_once('/'));
    path.is_some_and(|(_, path)| !path.trim_start_matches('/').is_empty())
        || query.split('&').any(|pair| pair.strip_prefix("dbname=").is_some_and(|name| !name.is_empty()))
}

/// Guests are told this very address to download from.
pub(super) fn guests_listen(address: SocketAddr) -> Result<(), &'static str> {
    if address.ip().to_canonical().is_unspecified() {
        return Err("is every address of this host, but guests are told one to download from: name \
                    this host's address on the guests' network, as in 192.168.122.1:4001");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let filter = |filter: &str| LogConfig { filter: filter.to_owned(), ..LogConfig::default() };
        for good in ["info", "info,infinibay=debug", "infinibay::agents[link{vm=1}]=trace,off"] {
            assert!(filter(good).env_filter().is_ok(), "{good}");
        }
        for bad in ["x=y=z", "info,infinibay=loud", "(", "info,=debug"] {
            assert!(filter(bad).env_filter().is_err(), "{bad}");
        }
    }

    #[test]
    fn redaction() {
        let some = |text: &str| Some(text.to_owned());
        let config = RedactionConfig {
            names: some(" pin, ,access-code,"),
            flags: some("vaultctl -k, vaultctl  --unseal"),
            patterns: some("\n  AKIA[0-9]+, ?x\r\n\n  sk_([a-z]+)\n"),
        };
        assert_eq!(config.mistakes().count(), 0);
        let redactor = config.redactor().unwrap();
        assert_eq!(redactor.hide("x --access-code 1 AKIA1, x sk_live"), "x --access-code *** *** sk_***");
        let wrong = RedactionConfig {
            names: some("pin,p n"),
            flags: some("--unseal"),
            patterns: some("fine\n(s3cret"),
        };
        let mistakes: Vec<_> = wrong.mistakes().map(|(key, error)| (key, error.to_string())).collect();
        assert_eq!(
            mistakes.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
            ["redaction.names", "redaction.flags", "redaction.patterns"]
        );
        assert!(mistakes.iter().all(|(_, words)| !words.contains("s3cret")), "{mistakes:?}");
        assert!(mistakes[0].1.contains("entry 2") && wrong.redactor().is_err());
    }

    #[test]
    fn hypervisor_uris() {
        for good in ["qemu:///system", "test:///default", "qemu+ssh://root@host/system?no_tty=1", "xen://"] {
            assert_eq!(hypervisor_uri(good), Ok(()), "{good}");
        }
        for bad in
            ["nonsense", "", "://", ":///system", "/qemu://x", "1qemu:///system", "qemu:///a b", "q://\0"]
        {
            assert!(hypervisor_uri(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn database_urls() {
        for good in [
            "postgres://u:p%40ss@db:5433/infinibay?sslmode=require",
            "postgresql:///infinibay?host=/run/postgresql",
            "postgres://db?dbname=infinibay",
            "sqlite:here.db",
            "sqlite:///var/lib/x.db",
        ] {
            assert_eq!(database_url(good), Ok(()), "{good}");
        }
        for bad in [
            "postgres://",
            "postgres:///",
            "postgresql://u:p@db",
            "postgres://db//?dbname=#x",
            "postgres://db:port/x",
            "postgres://db/x?sslmode=sometimes",
            "postgres://[::1/x",
            "postgres:db/x",
            "mysql://db/x",
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite:file:x.db",
            "sqlite:x.db?mode=ro",
            "nonsense",
        ] {
            assert!(database_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_for_guests() {
        for good in ["192.168.122.1:4001", "127.0.0.1:4001", "[fd00::1]:4001"] {
            assert_eq!(guests_listen(good.parse().unwrap()), Ok(()), "{good}");
        }
        for bad in ["0.0.0.0:4001", "[::]:4001", "[::ffff:0.0.0.0]:4001"] {
            assert!(guests_listen(bad.parse().unwrap()).is_err(), "{bad}");
        }
    }
}

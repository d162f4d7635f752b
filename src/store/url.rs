//! Where the database is, and how to say so without saying the password.

use std::{path::Path, str::FromStr};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{StoreError, failed};

/// The configured URL; without one, `infinibay.db` in the state directory.
///
/// # Errors
/// `Database`: the state directory's path is not UTF-8.
pub fn database_url(configured: Option<&SecretString>, state_dir: &Path) -> Result<SecretString, StoreError> {
    if let Some(url) = configured {
        return Ok(url.clone());
    }
    let file = state_dir.join("infinibay.db");
    let path = file.to_str().ok_or_else(|| {
        let reason = "the state directory's path is not UTF-8; set database.url";
        failed("choosing the database")(sqlx::Error::Configuration(reason.into()))
    })?;
    Ok(SecretString::from(format!("sqlite:{path}")))
}

/// The URL as it may be shown. Written anew from what was understood of it, rather than by
/// cutting something out: a password may stand in more than one place of a URL.
///
/// # Errors
/// `Database`: it is no such URL.
pub fn without_password(url: &SecretString) -> Result<String, StoreError> {
    let url = url.expose_secret();
    if url.starts_with("sqlite:") {
        return Ok(url.to_owned());
    }
    let options = PgConnectOptions::from_str(url).map_err(failed("reading the database's URL"))?;
    let host = match options.get_socket() {
        Some(directory) => encode(&directory.to_string_lossy()),
        None if options.get_host().contains(':') => {
            format!("[{}]", options.get_host().trim_matches(['[', ']']))
        }
        None => encode(options.get_host()),
    };
    let user = encode(options.get_username());
    let database = options.get_database().map(encode).unwrap_or_default();
    let ssl = match options.get_ssl_mode() {
        PgSslMode::Disable => "?sslmode=disable",
        PgSslMode::Allow => "?sslmode=allow",
        PgSslMode::Prefer => "",
        PgSslMode::Require => "?sslmode=require",
        PgSslMode::VerifyCa => "?sslmode=verify-ca",
        PgSslMode::VerifyFull => "?sslmode=verify-full",
    };
    Ok(format!("postgres://{user}@{host}:{port}/{database}{ssl}", port = options.get_port()))
}

/// Percent-encodes everything that means something in a URL.
fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://me:s3cret@db.example/infinibay", "postgres://me@db.example:5432/infinibay"),
            ("postgres://me:s3%40cret@db:6000/x?sslmode=require", "postgres://me@db:6000/x?sslmode=require"),
            ("postgres://me@db/x?password=s3cret", "postgres://me@db:5432/x"),
            ("postgres://me:s3cret@[::1]/x", "postgres://me@[::1]:5432/x"),
            (
                "postgresql:///x?host=/run/postgresql&user=me&password=s3cret",
                "postgres://me@%2Frun%2Fpostgresql:5432/x",
            ),
            ("sqlite:/var/lib/infinibay.db", "sqlite:/var/lib/infinibay.db"),
        ] {
            assert_eq!(without_password(&SecretString::from(url)).unwrap(), shown);
        }
    }

    #[test]
    fn without_a_url_the_database_is_a_file_of_the_state_directory() {
        let url = database_url(None, Path::new("/var/lib/infinibay")).unwrap();
        assert_eq!(url.expose_secret(), "sqlite:/var/lib/infinibay/infinibay.db");
        let given = SecretString::from("postgres://x/y");
        assert_eq!(database_url(Some(&given), Path::new("/x")).unwrap().expose_secret(), "postgres://x/y");
    }
}

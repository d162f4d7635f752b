//! Whom https believes: the public authorities that are built in, or those that a person names and no other.
//!
//! HTTP and WebSockets are given one and the same configuration, so that neither believes whom the other
//! does not.

use std::{
    error::Error,
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Authorities of one's own: certificates as PEM, at least one, each of which can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Authority(String);

impl From<Authority> for String {
    fn from(authority: Authority) -> Self {
        authority.0
    }
}

impl TryFrom<String> for Authority {
    type Error = String;

    fn try_from(pem: String) -> Result<Self, String> {
        // It is kept beside a token, and may be shown about; a key belongs nowhere near it.
        if pem.contains("PRIVATE KEY") {
            return Err("there is a private key in it; the certificate alone is meant".into());
        }
        roots(&pem)?;
        Ok(Self(pem))
    }
}

impl Authority {
    /// Of a PEM file.
    ///
    /// # Errors
    /// `Authority`: it cannot be read, or is not what is meant.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |reason: String| Failure::Authority(format!("{}: {reason}", path.display()));
        let read = || {
            let mut text = String::new();
            File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|error: io::Error| failed(error.to_string()))?;
        if text.len() as u64 > LONGEST {
            return Err(failed(format!("it is longer than {LONGEST} bytes")));
        }
        Self::try_from(text).map_err(failed)
    }
}

fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|reason| format!("a certificate in it cannot be read: {reason}"))?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it; PEM is meant, as in -----BEGIN CERTIFICATE-----".into());
    }
    Ok(roots)
}

/// How https is spoken: whom to believe is `authority`, and nobody else where there is one.
///
/// # Errors
/// Where TLS cannot be set up.
pub fn config(authority: Option<&Authority>) -> Result<Arc<ClientConfig>, Failure> {
    let roots = match authority {
        Some(Authority(pem)) => roots(pem).map_err(Failure::Authority)?,
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| Failure::Answer(format!("TLS cannot be set up: {error}")))?;
    Ok(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()))
}

/// What is wrong with the daemon's certificate, where that is what an error comes of.
#[must_use]
pub fn disbelief(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(told @ rustls::Error::InvalidCertificate(reason)) = error.downcast_ref() {
            let stranger = matches!(reason, rustls::CertificateError::UnknownIssuer);
            let hint = if stranger { "; an authority of one's own is named with --ca FILE" } else { "" };
            return Some(format!("{told}{hint}"));
        }
        // What an I/O error holds is not its source.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = held.map(|held| held as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn an_authority_is_certificates_and_nothing_else() {
        let (one, key) = certificate();
        let bundle = format!("# ours\n{one}\n{}", certificate().0);
        let authority = Authority::try_from(bundle.clone()).unwrap();
        assert_eq!(roots(&bundle).unwrap().len(), 2);
        config(Some(&authority)).unwrap();
        let cut = one[..one.len() / 2].to_owned();
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
        for (wrong, reason) in [
            (String::new(), "no certificate"),
            ("nonsense".into(), "no certificate"),
            (cut, ""),
            (garbage.clone(), "cannot be read"),
            (one.clone() + &garbage, "cannot be read"),
            (one + &key, "private key"),
        ] {
            let told = Authority::try_from(wrong).unwrap_err();
            assert!(told.contains(reason), "{told}");
        }
    }

    #[test]
    fn a_file_that_is_none_is_told_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none.pem");
        for path in [&*missing, dir.path()] {
            let told = Authority::read(path).unwrap_err();
            assert_eq!((told.code(), told.status()), ("CA", 78));
            assert!(told.to_string().contains(&*path.display().to_string()), "{told}");
        }
    }
}

//! The listener's certificate, which may be renewed while it is in use.
//!
//! The files are read anew every few seconds and compared, not only their times: a renewal may swap links,
//! or put back older files. A pair that cannot be used is told once and leaves the one before in use, for a
//! listener without a certificate serves nobody.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use sha2::{Digest as _, Sha256};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use crate::{config::TlsConfig, vm::chain};

/// Longer files are no certificates.
const MAX_BYTES: u64 = 1 << 20;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} is no PEM file with what is wanted")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: pem::Error,
    },
    /// They do not belong together, or are of no kind that is known.
    #[error("the certificate and the key cannot be used together")]
    Pair(#[source] tokio_rustls::rustls::Error),
}

/// A certificate in use. Clones share it.
#[derive(Debug, Clone)]
pub struct Tls {
    files: (PathBuf, PathBuf),
    current: Arc<Current>,
    /// What the files were when they were looked at last, good or not.
    seen: Arc<Mutex<[u8; 32]>>,
    server: Arc<ServerConfig>,
}

/// What new connections are shown.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// `None`: plain HTTP is what is configured. Reads files: not for an async thread.
    ///
    /// # Errors
    /// The pair cannot be used.
    pub fn load(config: &TlsConfig) -> Result<Option<Self>, TlsError> {
        let Some(files) = config.files() else { return Ok(None) };
        let provider = Arc::new(ring::default_provider());
        let (pair, seen) = read(&files)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(certified(&files, &pair, &provider)?))));
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self { files, current, seen: Arc::new(Mutex::new(seen)), server: Arc::new(server) }))
    }

    /// Looks at the files. What is new and good is shown to new connections from now on. Reads files: not
    /// for an async thread.
    pub fn look_again(&self) {
        match self.renew() {
            Ok(true) => tracing::info!(certificate = %self.files.0.display(), "a new certificate is in use"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "the new certificate cannot be used; the old one stays"
                );
            }
        }
    }

    fn renew(&self) -> Result<bool, TlsError> {
        let (pair, digest) = read(&self.files)?;
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == digest {
                return Ok(false);
            }
            *seen = digest;
        }
        let key = certified(&self.files, &pair, self.server.crypto_provider())?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        Ok(true)
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }
}

type Pair = (Vec<u8>, Vec<u8>);

fn read((certificate, key): &(PathBuf, PathBuf)) -> Result<(Pair, [u8; 32]), TlsError> {
    let bytes = |path: &Path| {
        let fail = |source| TlsError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(fail)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_BYTES), &mut bytes).map_err(fail)?;
        Ok(bytes)
    };
    let pair = (bytes(certificate)?, bytes(key)?);
    let mut digest = Sha256::new();
    digest.update(Sha256::digest(&pair.0));
    digest.update(Sha256::digest(&pair.1));
    Ok((pair, digest.finalize().into()))
}

fn certified(
    (certificate, key): &(PathBuf, PathBuf),
    pair: &Pair,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pair.0).collect();
    let chain = chain.map_err(wrong(certificate))?;
    if chain.is_empty() {
        return Err(wrong(certificate)(pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(&pair.1).map_err(wrong(key))?;
    CertifiedKey::from_der(chain, key, provider).map_err(TlsError::Pair)
}

//! What stands before the doors: who is let in from where, by which certificate, and how much of it there is.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::tls::Tls;
use crate::config::HttpConfig;

/// How the API's listener is set up. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Front {
    /// Its numbers.
    pub http: HttpConfig,
    /// The certificate; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Cancelled once the controller is about to stop: `/readyz` says so from then on.
    pub draining: CancellationToken,
    /// Where the agents' sockets are.
    pub socket_dir: PathBuf,
    /// Where downloads come from.
    pub base_dir: PathBuf,
}

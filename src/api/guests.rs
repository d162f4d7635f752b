//! What guests may fetch: the agent's binary and its installer, nothing secret; and what installers may
//! tell. Nothing else.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    downloads,
    install_report::{self, InstallReports},
    listener::{self, Bounds, WhenFull},
};
use crate::config::Networks;

/// Guests are strangers: few connections each, and none that idle.
fn bounds() -> Bounds {
    Bounds {
        connections: 256,
        when_full: WhenFull::Waits,
        per_peer: 8,
        unbounded: Networks::default(),
        head: Duration::from_secs(15),
        head_bytes: 16 * 1024,
        idle: Duration::from_secs(30),
        stop_limit: Duration::from_secs(2),
    }
}

/// Downloads for guests, out of `base_dir` (`INFINIBAY_BASE_DIR`), and their reports.
fn guest_router(base_dir: &Path, reports: Arc<dyn InstallReports>) -> Router {
    Router::new()
        .merge(downloads::routes(base_dir))
        .route("/healthz", get(|| async { "ok" }))
        .merge(install_report::router(reports))
}

/// Serves guests until `stop`.
///
/// # Errors
/// The listener's.
pub async fn serve_guests(
    listener: TcpListener,
    base_dir: PathBuf,
    reports: Arc<dyn InstallReports>,
    stop: CancellationToken,
) -> io::Result<()> {
    listener::serve(listener, guest_router(&base_dir, reports), bounds(), None, stop).await
}

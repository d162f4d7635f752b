//! What guests may fetch: the agent's binary and its installer, nothing secret; and what installers may
//! tell. Nothing else.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::services::ServeFile;

use super::{
    install_report::{self, InstallReports},
    listener::{self, Bounds},
};

/// Guests are strangers: few connections each, and none that idle.
const BOUNDS: Bounds = Bounds {
    connections: 256,
    per_peer: 8,
    idle: Duration::from_secs(30),
    stop_limit: Duration::from_secs(2),
};

/// The platforms there are; any other path segment is no path.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Platform {
    Linux,
    Windows,
}

impl Platform {
    fn binary(self) -> &'static str {
        match self {
            Self::Linux => "binaries/linux/infiniservice",
            Self::Windows => "binaries/windows/infiniservice.exe",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Self::Linux => "install/install-linux.sh",
            Self::Windows => "install/install-windows.ps1",
        }
    }
}

/// Downloads for guests, out of `base_dir` (`INFINIBAY_BASE_DIR`), and their reports.
fn guest_router(base_dir: PathBuf, reports: Arc<dyn InstallReports>) -> Router {
    Router::new()
        .route("/infiniservice/{platform}/binary", get(binary))
        .route("/infiniservice/{platform}/script", get(script))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(base_dir)
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
    listener::serve(listener, guest_router(base_dir, reports), BOUNDS, stop).await
}

async fn binary(
    State(base): State<PathBuf>,
    platform: Result<Path<Platform>, PathRejection>,
    request: Request,
) -> Response {
    match platform {
        Ok(Path(platform)) => send(base, platform.binary(), "application/octet-stream", request).await,
        Err(_) => no_platform(),
    }
}

async fn script(
    State(base): State<PathBuf>,
    platform: Result<Path<Platform>, PathRejection>,
    request: Request,
) -> Response {
    match platform {
        Ok(Path(platform)) => send(base, platform.script(), "text/plain; charset=utf-8", request).await,
        Err(_) => no_platform(),
    }
}

/// Streams the file; a guest may ask for a part of it, to go on with a download.
async fn send(base: PathBuf, name: &'static str, kind: &'static str, request: Request) -> Response {
    let path = base.join("infiniservice").join(name);
    match ServeFile::new(&path).try_call(request).await {
        Ok(response) if response.status() == StatusCode::NOT_FOUND => no_file(),
        Ok(response) => {
            let mut response = response.map(Body::new);
            if response.status().is_success() {
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            response
        }
        Err(error) if is_missing(&error) => no_file(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a guest's download could not be read");
            (StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n").into_response()
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

fn no_file() -> Response {
    missing("this controller has no such file for this platform")
}

fn no_platform() -> Response {
    missing("there is no such platform; there are: linux, windows")
}

fn missing(words: &'static str) -> Response {
    (StatusCode::NOT_FOUND, format!("{words}\n")).into_response()
}

//! What guests may fetch: the agent's binary and its installer, nothing secret, nothing else.

use std::path::PathBuf;

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio_util::io::ReaderStream;

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

/// Downloads for guests, out of `base_dir` (`INFINIBAY_BASE_DIR`).
pub fn guest_router(base_dir: PathBuf) -> Router {
    Router::new()
        .route("/infiniservice/{platform}/binary", get(binary))
        .route("/infiniservice/{platform}/script", get(script))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(base_dir)
}

async fn binary(State(base): State<PathBuf>, platform: Option<Path<Platform>>) -> Response {
    match platform {
        Some(Path(platform)) => send(base, platform.binary(), "application/octet-stream").await,
        None => missing("there is no such platform; there are: linux, windows"),
    }
}

async fn script(State(base): State<PathBuf>, platform: Option<Path<Platform>>) -> Response {
    match platform {
        Some(Path(platform)) => send(base, platform.script(), "text/plain; charset=utf-8").await,
        None => missing("there is no such platform; there are: linux, windows"),
    }
}

async fn send(base: PathBuf, name: &'static str, kind: &'static str) -> Response {
    let path = base.join("infiniservice").join(name);
    let file = match tokio::fs::File::open(&path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return missing("this controller has no such file for this platform");
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a guest's download could not be read");
            return (StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read").into_response();
        }
    };
    let length = match file.metadata().await {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => return missing("this controller has no such file for this platform"),
    };
    let body = axum::body::Body::from_stream(ReaderStream::new(file));
    let mut response = (StatusCode::OK, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn missing(words: &'static str) -> Response {
    (StatusCode::NOT_FOUND, words).into_response()
}

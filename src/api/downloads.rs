//! What guests download: the agent's binary and its installer, for two platforms. Nothing secret, so
//! nobody is asked who he is; and nothing else, however it is spelt: a path names a platform out of two and
//! a thing out of two, and never becomes part of a file's name.

mod range;
mod shelf;

use std::{
    io::{self, SeekFrom},
    path::Path as FilePath,
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use self::{
    range::{Part, part},
    shelf::{Found, Item, Shelf},
};
use crate::vm::chain;

/// The SHA-256 of the whole file in hexadecimal: what a shell script can compare.
const CHECKSUM: HeaderName = HeaderName::from_static("x-checksum-sha256");
/// The same as the standard has it (RFC 9530).
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// How much of a file is held at a time.
const PIECE: usize = 64 * 1024;

/// The platforms there are; any other path segment is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Platform {
    Linux,
    Windows,
}

/// The downloads' routes, out of `base_dir` (`INFINIBAY_BASE_DIR`).
pub(super) fn routes<S: Clone + Send + Sync + 'static>(base_dir: &FilePath) -> Router<S> {
    Router::new()
        .route("/infiniservice/{platform}/binary", get(binary))
        .route("/infiniservice/{platform}/script", get(script))
        .with_state(Arc::new(Shelf::new(base_dir)))
}

type Asked = Result<Path<Platform>, PathRejection>;

async fn binary(State(shelf): State<Arc<Shelf>>, platform: Asked, headers: HeaderMap) -> Response {
    answer(shelf, platform, Item::Binary, &headers).await
}

async fn script(State(shelf): State<Arc<Shelf>>, platform: Asked, headers: HeaderMap) -> Response {
    answer(shelf, platform, Item::Script, &headers).await
}

async fn answer(
    shelf: Arc<Shelf>,
    platform: Asked,
    item: fn(Platform) -> Item,
    asked: &HeaderMap,
) -> Response {
    let Ok(Path(platform)) = platform else {
        return missing("there is no such platform; there are: linux, windows");
    };
    let item = item(platform);
    let sent = async {
        match shelf.find(item).await? {
            Some(found) => send(item, found, asked).await,
            None => Ok(missing("this controller has no such file for this platform")),
        }
    };
    sent.await.unwrap_or_else(|error: io::Error| {
        tracing::warn!(?item, error = chain(&error), "a download could not be read");
        (StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n").into_response()
    })
}

fn missing(words: &'static str) -> Response {
    (StatusCode::NOT_FOUND, format!("{words}\n")).into_response()
}

/// The file, a part of it, or that the client has it already.
async fn send(item: Item, found: Found, asked: &HeaderMap) -> io::Result<Response> {
    let tag = format!("\"{}\"", found.hex());
    let length = found.length;
    let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_ours = |listed: &str| listed.split(',').map(str::trim).any(|it| it == tag || it == "*");
    let same = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (CHECKSUM, found.hex()),
        (REPR_DIGEST, format!("sha-256=:{}:", STANDARD.encode(found.digest))),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    // A weak tag is ours too, where only sameness is asked for.
    if text(header::IF_NONE_MATCH).is_some_and(|listed| is_ours(&listed.replace("W/", ""))) {
        return Ok((StatusCode::NOT_MODIFIED, same).into_response());
    }
    // What a client has of another file must not be completed with a part of this one.
    let fits = text(header::IF_RANGE).is_none_or(|named| named == tag);
    let wanted = text(header::RANGE).filter(|_| fits);
    let (status, first, count) = match part(wanted, length) {
        Part::Whole => (StatusCode::OK, 0, length),
        Part::Bytes { first, count } => (StatusCode::PARTIAL_CONTENT, first, count),
        Part::None => {
            let whole = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, same, whole).into_response());
        }
    };
    let mut file = found.open().await?;
    file.seek(SeekFrom::Start(first)).await?;
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(count), PIECE));
    let own = [
        (header::CONTENT_TYPE, item.media_type().to_owned()),
        (header::CONTENT_LENGTH, count.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", item.file_name())),
    ];
    let mut response = (status, same, own, body).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let last = first + count - 1;
        let range =
            HeaderValue::try_from(format!("bytes {first}-{last}/{length}")).map_err(io::Error::other)?;
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    Ok(response)
}

//! Opening a channel's socket, but only the hypervisor's.

use std::{io, path::Path, time::Duration};

use tokio::{net::UnixStream, time::timeout};

use super::socket::{SocketOwners, judge};
use crate::vm::SocketObservation;

/// How long one attempt may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("there is no socket")]
    Missing,
    #[error("the socket is not trusted: {0}")]
    Untrusted(String),
    #[error("the socket cannot be looked at")]
    Unreadable,
    #[error("nobody listens on the socket")]
    Stale,
    #[error("connecting: {0}")]
    Connect(#[source] io::Error),
    #[error("asking who listens: {0}")]
    Peer(#[source] io::Error),
    #[error("user {0}, who is none of agents.socket_owners, listens on the socket")]
    Stranger(u32),
    #[error("connecting took longer than {}s", DEADLINE.as_secs())]
    Deadline,
}

/// Connects, after a look at the file and before a word is said a look at who listens.
pub(super) async fn connect(path: &Path, owners: &SocketOwners) -> Result<UnixStream, ConnectError> {
    timeout(DEADLINE, attempt(path, owners)).await.unwrap_or(Err(ConnectError::Deadline))
}

async fn attempt(path: &Path, owners: &SocketOwners) -> Result<UnixStream, ConnectError> {
    match judge(tokio::fs::symlink_metadata(path).await, owners) {
        SocketObservation::Present => {}
        SocketObservation::Missing => return Err(ConnectError::Missing),
        SocketObservation::Untrusted(why) => return Err(ConnectError::Untrusted(why)),
        SocketObservation::Unknown => return Err(ConnectError::Unreadable),
    }
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Stale,
        io::ErrorKind::NotFound => ConnectError::Missing,
        _ => ConnectError::Connect(error),
    })?;
    // The path may have changed hands between the look and the connection.
    let peer = stream.peer_cred().map_err(ConnectError::Peer)?.uid();
    if owners.include(peer) { Ok(stream) } else { Err(ConnectError::Stranger(peer)) }
}

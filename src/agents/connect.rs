//! Opening a channel's socket, but only the hypervisor's.

use std::{io, path::Path, time::Duration};

use tokio::{net::UnixStream, time::timeout};

use super::socket::{FileId, SocketOwners, judge};
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
    #[error("more programs of this host wait for the socket than it serves")]
    Held,
    #[error("connecting: {0}")]
    Connect(#[source] io::Error),
    #[error("asking who listens: {0}")]
    Peer(#[source] io::Error),
    #[error("user {0}, who is none of agents.socket_owners, listens on the socket")]
    Stranger(u32),
    #[error("connecting took longer than {}s", DEADLINE.as_secs())]
    Deadline,
}

/// Connects, after a look at the file and before a word is said a look at who listens. `tried`
/// becomes the file that was tried; `None`: there was none.
pub(super) async fn connect(
    path: &Path,
    owners: &SocketOwners,
    tried: &mut Option<FileId>,
) -> Result<UnixStream, ConnectError> {
    timeout(DEADLINE, attempt(path, owners, tried)).await.unwrap_or(Err(ConnectError::Deadline))
}

async fn attempt(
    path: &Path,
    owners: &SocketOwners,
    tried: &mut Option<FileId>,
) -> Result<UnixStream, ConnectError> {
    let looked = tokio::fs::symlink_metadata(path).await;
    *tried = looked.as_ref().ok().map(FileId::of);
    match judge(looked, owners) {
        SocketObservation::Present => {}
        SocketObservation::Missing => return Err(ConnectError::Missing),
        SocketObservation::Untrusted(why) => return Err(ConnectError::Untrusted(why)),
        SocketObservation::Unknown => return Err(ConnectError::Unreadable),
    }
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Stale,
        io::ErrorKind::NotFound => ConnectError::Missing,
        io::ErrorKind::WouldBlock => ConnectError::Held,
        _ => ConnectError::Connect(error),
    })?;
    // The path may have changed hands between the look and the connection.
    let peer = stream.peer_cred().map_err(ConnectError::Peer)?.uid();
    if owners.include(peer) { Ok(stream) } else { Err(ConnectError::Stranger(peer)) }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Runs as root, as the controller does: only root can give a socket away.
    #[tokio::test]
    async fn whoever_listens_is_looked_at_besides_the_file() {
        let ours = rustix::process::geteuid();
        assert!(ours.is_root(), "this test needs root: it gives a socket away");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        // The file is the named owner's, and we, who are not named here, listen on it.
        let refused = connect(&path, &SocketOwners::of([4711]), &mut None).await;
        assert!(matches!(refused, Err(ConnectError::Stranger(0))), "{refused:?}");
        let refused = connect(&path, &SocketOwners::of([0]), &mut None).await;
        assert!(matches!(refused, Err(ConnectError::Untrusted(_))), "{refused:?}");
        assert!(connect(&path, &SocketOwners::of([0, 4711]), &mut None).await.is_ok());
    }

    #[tokio::test]
    async fn each_obstacle_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let owners = SocketOwners::resolve("");
        let path = dir.path().join("socket");
        assert!(matches!(connect(&path, &owners, &mut None).await, Err(ConnectError::Missing)));
        let below = dir.path().join("socket/below");
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(connect(&path, &owners, &mut None).await, Err(ConnectError::Stale)));
        assert!(matches!(connect(&below, &owners, &mut None).await, Err(ConnectError::Unreadable)));

        std::fs::remove_file(&path).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let _first = connect(&path, &owners, &mut None).await.unwrap();
        let mut refused = connect(&path, &owners, &mut None).await;
        for _ in 0..8 {
            refused = connect(&path, &owners, &mut None).await;
        }
        assert!(matches!(refused, Err(ConnectError::Held)), "{refused:?}");
    }
}

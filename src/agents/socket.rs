//! Whether a socket file may be trusted: it is a socket, not a link to one, and belongs to QEMU,
//! root or ourselves. The directory may be `/tmp`, where anybody can put anything.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use crate::vm::SocketObservation;

/// The largest `/etc/passwd` that is read.
const MAX_PASSWD_BYTES: u64 = 4 << 20;

/// The users that a socket may belong to.
#[derive(Debug, Clone)]
pub struct SocketOwners {
    uids: BTreeSet<u32>,
}

impl SocketOwners {
    /// Root, ourselves, and the names or numbers of the list that this host knows (by its
    /// `/etc/passwd`; a user of another directory is given by number). Reads that file: call it
    /// at start.
    #[must_use]
    pub fn resolve(list: &str) -> Self {
        let passwd = read_passwd().unwrap_or_else(|error| {
            tracing::warn!(%error, "/etc/passwd cannot be read: socket owners given by name are unknown");
            String::new()
        });
        let mut uids: BTreeSet<u32> = named(list, &passwd).collect();
        uids.extend([0, rustix::process::geteuid().as_raw()]);
        Self { uids }
    }

    #[cfg(test)]
    pub(super) fn of(uids: impl IntoIterator<Item = u32>) -> Self {
        Self { uids: uids.into_iter().collect() }
    }

    /// Whether a socket or a peer of this user is trusted.
    pub(super) fn include(&self, uid: u32) -> bool {
        self.uids.contains(&uid)
    }
}

fn read_passwd() -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open("/etc/passwd")?.take(MAX_PASSWD_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The numbers of the list's entries, as far as they are known.
fn named(list: &str, passwd: &str) -> impl Iterator<Item = u32> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).filter_map(|entry| {
        entry.parse().ok().or_else(|| {
            let line = passwd.lines().find(|line| line.split(':').next() == Some(entry))?;
            line.split(':').nth(2)?.parse().ok()
        })
    })
}

/// Which file stands at a path. A socket that was made again, or changed hands, is another one,
/// also where the file system gave it the old one's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    number: u64,
    changed: (i64, i64),
}

impl FileId {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            number: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of the file that stands there now, links not followed; `None`: none that can be looked at.
    pub(super) async fn at(path: &Path) -> Option<Self> {
        Some(Self::of(&tokio::fs::symlink_metadata(path).await.ok()?))
    }
}

/// Looks at a socket's path without following links: is it a socket, and whose. Blocks for one
/// `lstat`.
#[must_use]
pub fn inspect_socket(path: &Path, owners: &SocketOwners) -> SocketObservation {
    judge(std::fs::symlink_metadata(path), owners)
}

pub(super) fn judge(looked: io::Result<std::fs::Metadata>, owners: &SocketOwners) -> SocketObservation {
    let metadata = match looked {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return SocketObservation::Missing,
        Err(_) => return SocketObservation::Unknown,
    };
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return SocketObservation::Untrusted("a symbolic link stands in its place".to_owned());
    }
    if !kind.is_socket() {
        return SocketObservation::Untrusted("what stands in its place is no socket".to_owned());
    }
    if !owners.include(metadata.uid()) {
        return SocketObservation::Untrusted(format!(
            "the socket belongs to user {}, who is none of agents.socket_owners",
            metadata.uid()
        ));
    }
    SocketObservation::Present
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    #[test]
    fn owners_come_by_name_or_number() {
        let passwd = "root:x:0:0::/:/bin/sh\nqemu:x:107:107::/:/bin/false\nbroken\nodd:x:no:1::/:/\n";
        let uids: Vec<u32> = named(" qemu, 4711,nobody-here,odd,broken,,qem", passwd).collect();
        assert_eq!(uids, [107, 4711]);
    }

    #[test]
    fn only_a_real_socket_of_an_owner_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let _listener = UnixListener::bind(at("socket")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        symlink(at("socket"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        let ours = SocketOwners::resolve("");
        let look = |name: &str| inspect_socket(&at(name), &ours);
        assert_eq!(look("socket"), SocketObservation::Present);
        assert_eq!(look("missing"), SocketObservation::Missing);
        assert_eq!(look("file/below"), SocketObservation::Unknown);
        for other in ["file", "dir", "link", "dangling"] {
            assert!(matches!(look(other), SocketObservation::Untrusted(_)), "{other}");
        }
        let nobody = SocketOwners { uids: BTreeSet::new() };
        assert!(matches!(inspect_socket(&at("socket"), &nobody), SocketObservation::Untrusted(_)));
    }
}

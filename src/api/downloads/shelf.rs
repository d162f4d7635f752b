//! The files themselves: out of the operator's tree, by no link out of it, and where he put none, what was
//! built with this controller.
//!
//! A file's checksum is worked out once for each state of the file, one file at a time: whoever may connect
//! may ask a thousand times at once.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Cursor, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncSeek, ReadBuf},
    sync::Mutex,
};

use super::Platform;

const LINUX_SCRIPT: &str = include_str!("../../../crates/guest-agent/install/install-linux.sh");
const WINDOWS_SCRIPT: &str = include_str!("../../../crates/guest-agent/install/install-windows.ps1");

/// What there is to download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Item {
    /// The agent.
    Binary(Platform),
    /// What installs it.
    Script(Platform),
}

impl Item {
    /// Its place in the tree.
    fn place(self) -> &'static str {
        match self {
            Self::Binary(Platform::Linux) => "binaries/linux/infiniservice",
            Self::Binary(Platform::Windows) => "binaries/windows/infiniservice.exe",
            Self::Script(Platform::Linux) => "install/install-linux.sh",
            Self::Script(Platform::Windows) => "install/install-windows.ps1",
        }
    }

    /// What it is called where it is saved.
    pub(super) fn file_name(self) -> &'static str {
        self.place().rsplit('/').next().unwrap_or_default()
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Binary(_) => "application/octet-stream",
            Self::Script(_) => "text/plain; charset=utf-8",
        }
    }

    /// What stands in where the tree has none.
    fn built_in(self) -> Option<&'static str> {
        match self {
            Self::Binary(_) => None,
            Self::Script(Platform::Linux) => Some(LINUX_SCRIPT),
            Self::Script(Platform::Windows) => Some(WINDOWS_SCRIPT),
        }
    }
}

/// Where files come from.
#[derive(Debug)]
pub(super) struct Shelf {
    root: PathBuf,
    /// Where the agent is that was built with this controller.
    built: Vec<PathBuf>,
    digests: Mutex<HashMap<Item, (Stamp, [u8; 32])>>,
}

/// What tells one state of a file from another.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// Something to send.
#[derive(Debug)]
pub(super) struct Found {
    contents: Contents,
    /// Bytes.
    pub(super) length: u64,
    /// SHA-256 of all of it.
    pub(super) digest: [u8; 32],
}

#[derive(Debug)]
enum Contents {
    File(File),
    Text(&'static str),
}

impl Shelf {
    pub(super) fn new(base_dir: &Path) -> Self {
        // Beside the daemon in a build, under `lib` where both were installed.
        let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
        let built = beside.map_or_else(Vec::new, |dir| {
            vec![dir.join("../lib/infinibay/infiniservice"), dir.join("infiniservice")]
        });
        Self::of(base_dir.join("infiniservice"), built)
    }

    fn of(root: PathBuf, built: Vec<PathBuf>) -> Self {
        Self { root, built, digests: Mutex::default() }
    }

    /// `None`: there is none.
    ///
    /// # Errors
    /// The file system's, but for what is not there or leads out of the tree.
    pub(super) async fn find(self: Arc<Self>, item: Item) -> io::Result<Option<Found>> {
        let shelf = Arc::clone(&self);
        let opened = blocking(move || shelf.open(item)).await?;
        let Some((mut file, stamp, length)) = opened else {
            return Ok(item.built_in().map(|text| Found {
                contents: Contents::Text(text),
                length: text.len() as u64,
                digest: Sha256::digest(text).into(),
            }));
        };
        let mut digests = self.digests.lock().await;
        let digest = match digests.get(&item) {
            Some((of, digest)) if *of == stamp => *digest,
            _ => {
                let (read, digest) = blocking(move || digest(&mut file).map(|digest| (file, digest))).await?;
                file = read;
                digests.insert(item, (stamp, digest));
                digest
            }
        };
        Ok(Some(Found { contents: Contents::File(file), length, digest }))
    }

    fn open(&self, item: Item) -> io::Result<Option<(File, Stamp, u64)>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = File::open(&self.root).and_then(|root| {
            Ok(File::from(rustix::fs::openat2(&root, item.place(), flags, Mode::empty(), beneath)?))
        });
        let mut found = regular(opened, item)?;
        if found.is_none() && item == Item::Binary(Platform::Linux) {
            for path in &self.built {
                let opened = rustix::fs::open(path, flags, Mode::empty());
                found = regular(opened.map(File::from).map_err(io::Error::from), item)?;
                if found.is_some() {
                    break;
                }
            }
        }
        Ok(found)
    }
}

/// What was opened, where it is a file that may be handed out.
fn regular(opened: io::Result<File>, item: Item) -> io::Result<Option<(File, Stamp, u64)>> {
    let file = match opened {
        Ok(file) => file,
        Err(error) if leads_nowhere(&error) => return Ok(None),
        // The kernel's words for a link out of the tree, and for one that goes round.
        Err(error) if matches!(error.raw_os_error(), Some(code) if code == rustix::io::Errno::XDEV.raw_os_error() || code == rustix::io::Errno::LOOP.raw_os_error()) =>
        {
            tracing::warn!(
                ?item,
                "what is there to download leads out of its directory, and is not handed out"
            );
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(None);
    }
    let stamp = (
        found.dev(),
        found.ino(),
        found.len(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    );
    Ok(Some((file, stamp, found.len())))
}

fn leads_nowhere(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn digest(file: &mut File) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; super::PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&piece[..count]),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl Found {
    /// The checksum as people write it.
    pub(super) fn hex(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// For reading, wherever it was read before.
    pub(super) async fn open(self) -> io::Result<Reader> {
        Ok(match self.contents {
            Contents::File(file) => Reader::File(tokio::fs::File::from_std(file)),
            Contents::Text(text) => Reader::Text(Cursor::new(text.as_bytes())),
        })
    }
}

/// Reads either.
pub(super) enum Reader {
    File(tokio::fs::File),
    Text(Cursor<&'static [u8]>),
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::File(file) => Pin::new(file).poll_read(cx, buf),
            Self::Text(text) => Pin::new(text).poll_read(cx, buf),
        }
    }
}

impl AsyncSeek for Reader {
    fn start_seek(self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        match self.get_mut() {
            Self::File(file) => Pin::new(file).start_seek(position),
            Self::Text(text) => Pin::new(text).start_seek(position),
        }
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        match self.get_mut() {
            Self::File(file) => Pin::new(file).poll_complete(cx),
            Self::Text(text) => Pin::new(text).poll_complete(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    const LINUX: Item = Item::Binary(Platform::Linux);

    async fn length(shelf: &Arc<Shelf>, item: Item) -> Option<u64> {
        Arc::clone(shelf).find(item).await.unwrap().map(|found| found.length)
    }

    #[tokio::test]
    async fn links_stay_in_the_tree_and_what_was_built_stands_in() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("infiniservice/binaries/linux");
        let (file, built) = (folder.join("infiniservice"), dir.path().join("built"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        let shelf = Arc::new(Shelf::of(dir.path().join("infiniservice"), vec![built.clone()]));
        assert_eq!(length(&shelf, LINUX).await, None);
        for target in ["../../../secret", "/etc/passwd", "infiniservice", "/proc/self/exe", "."] {
            symlink(target, &file).unwrap();
            assert_eq!(length(&shelf, LINUX).await, None, "{target} was handed out");
            fs::remove_file(&file).unwrap();
        }
        fs::write(&built, "built").unwrap();
        assert_eq!(length(&shelf, LINUX).await, Some(5));
        assert_eq!(
            length(&shelf, Item::Binary(Platform::Windows)).await,
            None,
            "a program of another system"
        );
        fs::write(folder.join("infiniservice-2"), "version 2").unwrap();
        symlink("infiniservice-2", &file).unwrap();
        assert_eq!(length(&shelf, LINUX).await, Some(9), "a link within the tree");
    }

    #[tokio::test]
    async fn a_checksum_is_that_of_what_is_there_now() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("infiniservice/binaries/linux");
        fs::create_dir_all(&folder).unwrap();
        let shelf = Arc::new(Shelf::of(dir.path().join("infiniservice"), Vec::new()));
        for text in ["one", "two"] {
            fs::write(folder.join("new"), text).unwrap();
            fs::rename(folder.join("new"), folder.join("infiniservice")).unwrap();
            for _ in 0..2 {
                let found = Arc::clone(&shelf).find(LINUX).await.unwrap().unwrap();
                assert_eq!(found.digest, <[u8; 32]>::from(Sha256::digest(text)));
            }
        }
    }

    #[tokio::test]
    async fn scripts_are_always_there() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Arc::new(Shelf::of(dir.path().join("infiniservice"), Vec::new()));
        for platform in [Platform::Linux, Platform::Windows] {
            assert!(length(&shelf, Item::Script(platform)).await.is_some_and(|length| length > 1000));
        }
    }
}

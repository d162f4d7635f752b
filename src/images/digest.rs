//! Checksums of disks, computed once per change of a file.
//!
//! A disk has gigabytes: lookups at the same time wait for one computation, which goes on when
//! the one who asked first goes away.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};

/// Computations at once. Each keeps one disk and one processor busy.
const PARALLEL: usize = 2;
const CHUNK: usize = 1 << 20;

/// What tells one state of a file from another. The time of change of its attributes is not
/// among them: libvirt changes the owner of a disk whenever a domain starts from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileState {
    /// Bytes.
    pub(super) length: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl FileState {
    /// Of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            length: found.len(),
            device: found.dev(),
            inode: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

type Cell = Arc<OnceCell<String>>;

/// The known checksums, by path. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Digests {
    known: Arc<Mutex<HashMap<PathBuf, (FileState, Cell)>>>,
    turns: Arc<Semaphore>,
    #[cfg(test)]
    computed: Arc<std::sync::atomic::AtomicUsize>,
}

impl Digests {
    /// None known.
    pub(super) fn new() -> Self {
        Self {
            known: Arc::default(),
            turns: Arc::new(Semaphore::new(PARALLEL)),
            #[cfg(test)]
            computed: Arc::default(),
        }
    }

    /// SHA-256 of `file`, lower-case hexadecimal. `file` is `path`, opened, in `state`.
    pub(super) async fn of(&self, path: &Path, file: File, state: FileState) -> io::Result<String> {
        let cell = self.cell(path, state);
        if let Some(digest) = cell.get() {
            return Ok(digest.clone());
        }
        let this = self.clone();
        // A task of its own: were it dropped with the caller, the next one would begin again.
        let task =
            tokio::spawn(async move { cell.get_or_try_init(|| this.compute(file, state)).await.cloned() });
        task.await.map_err(io::Error::other)?
    }

    /// Forgets the files that `keep` does not name.
    pub(super) fn retain(&self, keep: impl Fn(&Path) -> bool) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|path, _| keep(path));
    }

    fn cell(&self, path: &Path, state: FileState) -> Cell {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(path) {
            Some((seen, cell)) if *seen == state => cell.clone(),
            _ => {
                let cell = Cell::default();
                known.insert(path.to_owned(), (state, cell.clone()));
                cell
            }
        }
    }

    async fn compute(&self, file: File, state: FileState) -> io::Result<String> {
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        #[cfg(test)]
        self.computed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        tokio::task::spawn_blocking(move || digest(file, state)).await.map_err(io::Error::other)?
    }
}

fn digest(mut file: File, before: FileState) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => hash.update(&chunk[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    if FileState::of(&file)? != before {
        return Err(io::Error::other("it was changed while it was read"));
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, path::Path, sync::atomic::Ordering};

    use super::{Digests, FileState};

    async fn ask(digests: &Digests, path: &Path) -> String {
        let file = File::open(path).unwrap();
        let state = FileState::of(&file).unwrap();
        digests.of(path, file, state).await.unwrap()
    }

    #[tokio::test]
    async fn many_lookups_are_one_computation_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, "abc").unwrap();
        let digests = Digests::new();
        let asks: Vec<_> = (0..16)
            .map(|_| {
                let (digests, path) = (digests.clone(), path.clone());
                tokio::spawn(async move { ask(&digests, &path).await })
            })
            .collect();
        for asked in asks {
            assert_eq!(
                asked.await.unwrap(),
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            );
        }
        assert_eq!(digests.computed.load(Ordering::SeqCst), 1);
        File::options().append(true).open(&path).unwrap().write_all(b"d").unwrap();
        assert!(ask(&digests, &path).await.starts_with("88d4266f"));
        assert_eq!(digests.computed.load(Ordering::SeqCst), 2);
        digests.retain(|_| false);
        ask(&digests, &path).await;
        assert_eq!(digests.computed.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_does_not_undo_the_work() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![0; 4 << 20]).unwrap();
        let digests = Digests::new();
        {
            let first = ask(&digests, &path);
            tokio::pin!(first);
            // Polled once, which begins the work, then dropped.
            assert!(futures_util::poll!(first.as_mut()).is_pending());
        }
        ask(&digests, &path).await;
        assert_eq!(digests.computed.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_file_that_changes_under_the_reader_has_no_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, "abc").unwrap();
        let file = File::open(&path).unwrap();
        let state = FileState::of(&file).unwrap();
        std::fs::write(&path, "abcd").unwrap();
        let digests = Digests::new();
        assert!(digests.of(&path, file, state).await.is_err());
        assert!(ask(&digests, &path).await.starts_with("88d4266f"), "the failure was remembered");
    }
}

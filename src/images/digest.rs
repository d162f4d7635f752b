//! Checksums of disks, computed once per change of a file.
//!
//! A disk has gigabytes: lookups at the same time wait for one computation, which goes on when
//! the one who asked first goes away, and what it gave is remembered over restarts.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};

use super::{
    MAX_IMAGES,
    memory::{self, Finished},
};
use crate::vm::chain;

/// Computations at once. Each keeps one disk and one processor busy.
const PARALLEL: usize = 2;
const CHUNK: usize = 1 << 20;

/// What tells one state of a file from another. The time of change of its attributes is not
/// among them: libvirt changes the owner of a disk whenever a domain starts from it. Neither is
/// the device: its number may be another one after the host's next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileState {
    /// Bytes.
    pub(super) length: u64,
    inode: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl FileState {
    /// Of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { length: found.len(), inode: found.ino(), modified: (found.mtime(), found.mtime_nsec()) })
    }
}

/// What a computation gave, once it has ended; a failure in words.
type Outcome = Option<Result<String, String>>;

#[derive(Debug, Default)]
struct Known {
    finished: Finished,
    running: HashMap<PathBuf, (FileState, watch::Receiver<Outcome>)>,
}

/// The known checksums, by path. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Digests {
    known: Arc<Mutex<Known>>,
    turns: Arc<Semaphore>,
    /// Where they are remembered; locked while it is written.
    memory: Option<Arc<tokio::sync::Mutex<PathBuf>>>,
    #[cfg(test)]
    computed: Arc<std::sync::atomic::AtomicUsize>,
}

impl Digests {
    /// None known, and none remembered.
    pub(super) fn new() -> Self {
        Self::with(Finished::new(), None)
    }

    /// Those that the file `path` remembers. One that cannot be understood is replaced with the
    /// next checksum. Blocking.
    pub(super) fn remembered(path: PathBuf) -> Self {
        let finished = memory::load(&path).unwrap_or_else(|error| {
            let path = path.display();
            tracing::warn!(%path, error = chain(&error), "remembered checksums are computed anew");
            Finished::new()
        });
        Self::with(finished, Some(path))
    }

    fn with(finished: Finished, memory: Option<PathBuf>) -> Self {
        Self {
            known: Arc::new(Mutex::new(Known { finished, running: HashMap::new() })),
            turns: Arc::new(Semaphore::new(PARALLEL)),
            memory: memory.map(|path| Arc::new(tokio::sync::Mutex::new(path))),
            #[cfg(test)]
            computed: Arc::default(),
        }
    }

    /// SHA-256 of `file`, lower-case hexadecimal. `file` is `path`, opened, in `state`. A
    /// computation that was begun goes on when this is dropped.
    pub(super) async fn of(&self, path: &Path, file: File, state: FileState) -> io::Result<String> {
        let mut running = {
            let mut known = self.known();
            if let Some((seen, digest)) = known.finished.get(path)
                && *seen == state
            {
                return Ok(digest.clone());
            }
            match known.running.get(path) {
                // One whose task died tells nobody anything.
                Some((seen, running)) if *seen == state && running.has_changed().is_ok() => running.clone(),
                _ => {
                    let (tell, running) = watch::channel(None);
                    known.running.insert(path.to_owned(), (state, running.clone()));
                    tokio::spawn(self.clone().run(path.to_owned(), file, state, tell));
                    running
                }
            }
        };
        let outcome = running.wait_for(Option::is_some).await.map_err(io::Error::other)?;
        match outcome.as_ref() {
            Some(Ok(digest)) => Ok(digest.clone()),
            Some(Err(reason)) => Err(io::Error::other(reason.clone())),
            None => Err(io::Error::other("it has not ended")),
        }
    }

    /// Forgets the files that `keep` does not name.
    pub(super) fn retain(&self, keep: impl Fn(&Path) -> bool) {
        self.known().finished.retain(|path, _| keep(path));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self, path: PathBuf, file: File, state: FileState, tell: watch::Sender<Outcome>) {
        let outcome = self.compute(file, state).await.map_err(|error| chain(&error));
        {
            let mut known = self.known();
            // Unless the file was replaced meanwhile, and somebody asked for the new one.
            if known.running.get(&path).is_some_and(|(current, _)| *current == state) {
                known.running.remove(&path);
                if let Ok(digest) = &outcome {
                    known.finish(path, state, digest.clone());
                }
            }
        }
        if outcome.is_ok() {
            self.remember().await;
        }
        // Whoever asked may have gone.
        tell.send_replace(Some(outcome));
    }

    async fn compute(&self, file: File, state: FileState) -> io::Result<String> {
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        #[cfg(test)]
        self.computed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        tokio::task::spawn_blocking(move || digest(file, state)).await.map_err(io::Error::other)?
    }

    /// Writes down what is known. What fails costs a computation after the next start, no more.
    async fn remember(&self) {
        let Some(memory) = self.memory.clone() else { return };
        let path = memory.lock_owned().await;
        let finished = self.known().finished.clone();
        let saved = tokio::task::spawn_blocking(move || {
            memory::save(&path, finished)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        });
        if let Err(error) = saved.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(error = chain(&error), "checksums could not be remembered");
        }
    }
}

impl Known {
    /// An image has one disk: another one in its folder took the place of the one before.
    fn finish(&mut self, path: PathBuf, state: FileState, digest: String) {
        self.finished.retain(|other, _| other.parent() != path.parent());
        if self.finished.len() >= MAX_IMAGES
            && let Some(any) = self.finished.keys().next().cloned()
        {
            self.finished.remove(&any);
        }
        self.finished.insert(path, (state, digest));
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
    async fn a_restart_remembers_and_notices_changes() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("digests.json");
        let disk = |name: &str| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let path = folder.join("disk");
            std::fs::write(&path, name).unwrap();
            path
        };
        let (a, b) = (disk("a"), disk("b"));
        let first = Digests::remembered(memory.clone());
        let before = (ask(&first, &a).await, ask(&first, &b).await);
        std::fs::write(&b, "bb").unwrap();
        let second = Digests::remembered(memory.clone());
        assert_eq!(ask(&second, &a).await, before.0);
        assert_eq!(second.computed.load(Ordering::SeqCst), 0, "an unchanged disk was read again");
        assert_ne!(ask(&second, &b).await, before.1);
        assert_eq!(second.computed.load(Ordering::SeqCst), 1);
        // One disk per folder: the next one takes the place of the one before.
        std::fs::write(a.with_file_name("next"), "next").unwrap();
        ask(&second, &a.with_file_name("next")).await;
        let third = Digests::remembered(memory.clone());
        assert_eq!(third.known().finished.len(), 2);
        std::fs::write(&memory, "{").unwrap();
        let fourth = Digests::remembered(memory.clone());
        assert_eq!(ask(&fourth, &a).await, before.0);
        assert_eq!(fourth.computed.load(Ordering::SeqCst), 1);
        assert_eq!(Digests::remembered(memory).known().finished.len(), 1, "a spoilt memory was kept");
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

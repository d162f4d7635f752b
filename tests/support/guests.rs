//! At most two real guests at once, over all test processes that run: without hardware virtualisation
//! more of them would only be slower together, and miss each other's deadlines.
//!
//! A guest's place is a lock on a file, which the kernel takes back from a process that dies. Places
//! are given in turn, so that a story with two guests is not passed by again and again.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::wait::wait;

const PLACES: usize = 2;
/// For those before us.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Places of a story's guests, given back when dropped.
#[derive(Debug)]
pub struct Places {
    /// Held, never read.
    _held: Vec<File>,
}

impl Places {
    /// Waits, blocking, for places for so many guests. A story asks once: two that held one place
    /// each and wanted another would wait for each other.
    pub fn take(guests: usize) -> Self {
        assert!(guests <= PLACES, "there will never be {guests} places");
        let user = rustix::process::getuid().as_raw();
        let dir = std::env::temp_dir().join(format!("infinibay-test-guests-{user}"));
        DirBuilder::new().recursive(true).mode(0o755).create(&dir).expect("a directory for places");
        let owner = std::fs::symlink_metadata(&dir).expect("the directory for places");
        assert!(owner.is_dir() && owner.uid() == user, "{} is not ours", dir.display());

        let turn = open(&dir.join("turn"));
        wait("the turn to take places for guests", PATIENCE, || try_lock(&turn));
        let mut places = Vec::new();
        let mut free: Vec<File> = (0..PLACES).map(|place| open(&dir.join(place.to_string()))).collect();
        wait("places for guests", PATIENCE, || {
            while places.len() < guests {
                let at = free.iter().position(|place| try_lock(place).is_some())?;
                places.push(free.swap_remove(at));
            }
            Some(())
        });
        Self { _held: places }
    }
}

fn open(path: &Path) -> File {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn try_lock(file: &File) -> Option<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive).ok()
}

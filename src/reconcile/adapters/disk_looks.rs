//! Looks at disks, which lie on storage that may hang: the loop waits for each only so long, and begins
//! no second look at a disk while the first has not returned. So a disk holds one thread, and no turn.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long a look is waited for.
const LIMIT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct DiskLooks {
    under_way: Arc<Mutex<HashSet<PathBuf>>>,
}

/// A look that has not returned.
struct Ticket {
    path: PathBuf,
    looks: DiskLooks,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.looks.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

impl DiskLooks {
    /// What a plain file takes of the host's disk, bytes; `None` where that cannot be seen now.
    pub(super) async fn allocated(&self, path: &Path) -> Option<u64> {
        self.look(path, LIMIT, allocated).await?
    }

    async fn look<T: Send + 'static>(
        &self,
        path: &Path,
        limit: Duration,
        look: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Option<T> {
        let path = path.to_owned();
        if !self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone()) {
            return None;
        }
        let ticket = Ticket { path, looks: self.clone() };
        let looking = tokio::task::spawn_blocking(move || look(&ticket.path));
        match tokio::time::timeout(limit, looking).await {
            Ok(Ok(seen)) => Some(seen),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a look at a disk broke off");
                None
            }
            Err(_) => {
                tracing::warn!("a look at a disk does not return; its storage hangs");
                None
            }
        }
    }
}

fn allocated(path: &Path) -> Option<u64> {
    let found = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    // In units of 512, whatever the file system's own are.
    Some(found.blocks().saturating_mul(512))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_look_that_hangs_is_neither_waited_for_nor_begun_again() {
        let looks = DiskLooks::default();
        let (release, hangs) = mpsc::channel::<()>();
        let soon = Duration::from_millis(50);
        let hanging = move |_: &Path| {
            // Ends also when the test is gone.
            let _ = hangs.recv_timeout(Duration::from_secs(20));
        };
        let (disk, other) = (Path::new("/pool/a"), Path::new("/pool/b"));
        assert_eq!(looks.look(disk, soon, hanging).await, None);
        let begun = looks.look(disk, soon, |_| panic!("a second look was begun")).await;
        assert_eq!(begun, None::<()>);
        assert_eq!(looks.look(other, LIMIT, |_| 7).await, Some(7), "another disk is looked at");
        release.send(()).unwrap();
        let again = async {
            while looks.look(disk, LIMIT, |_| ()).await.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), again).await.expect("it is looked at again");
    }

    #[tokio::test]
    async fn what_is_no_plain_file_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, link) = (dir.path().join("disk"), dir.path().join("link"));
        fs::write(&disk, [1; 8192]).unwrap();
        std::os::unix::fs::symlink(&disk, &link).unwrap();
        let looks = DiskLooks::default();
        assert!(looks.allocated(&disk).await.is_some_and(|bytes| bytes >= 8192));
        for none in [&link, &dir.path().join("gone"), &dir.path().to_owned()] {
            assert_eq!(looks.allocated(none).await, None, "{}", none.display());
        }
    }
}

//! Hints from the socket directory. Events get lost in many ways (an overflow, a directory that
//! was removed and made again), so every doubt becomes "look at all", and the loop's scan remains
//! the truth.

use std::{
    ffi::OsStr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, event::ModifyKind};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::vm::VmId;

/// Hints waiting for the loop.
const HINTS: usize = 256;

/// How often the directory itself is looked at: whether it is still the one being watched.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Watches the socket directory. Events are hints; the loop's scan is the truth.
#[derive(Debug)]
pub struct SocketWatch {
    _stop: DropGuard,
}

impl SocketWatch {
    /// Watches `dir`, also when it is missing now or is removed and made again. The receiver gets
    /// the VM of each socket that came or went, or `None`: look at all. Ends when dropped. Needs
    /// a runtime.
    pub fn start(dir: PathBuf) -> (Self, mpsc::Receiver<Option<VmId>>) {
        let (hints, receiver) = mpsc::channel(HINTS);
        let stop = CancellationToken::new();
        tokio::spawn(keep_watching(dir, Hints::new(hints), stop.clone()));
        (Self { _stop: stop.drop_guard() }, receiver)
    }
}

/// The way from the watcher's thread, which must not be held up, to the loop.
#[derive(Debug, Clone)]
struct Hints {
    sender: mpsc::Sender<Option<VmId>>,
    /// A hint found no room: everything has to be looked at.
    missed: Arc<AtomicBool>,
    /// Something happened to the directory itself.
    look: Arc<Notify>,
    /// The watch may be of a directory that is gone: also one that is made again at once, with
    /// the same number as the old one.
    doubtful: Arc<AtomicBool>,
}

impl Hints {
    fn new(sender: mpsc::Sender<Option<VmId>>) -> Self {
        Self { sender, missed: Arc::default(), look: Arc::default(), doubtful: Arc::default() }
    }

    fn send(&self, hint: Option<VmId>) {
        if self.sender.try_send(hint).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }

    /// What becomes of one event. Where events may have been lost (the kernel's queue ran over,
    /// the watcher failed), the watch is set up again, and everything is looked at.
    fn take_in(&self, event: notify::Result<notify::Event>, dir: &Path) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::debug!(%error, "watching the socket directory");
                return self.doubt();
            }
        };
        if event.need_rescan() {
            return self.doubt();
        }
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        if event.paths.iter().any(|path| path == dir) {
            match event.kind {
                EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => self.doubt(),
                _ => self.look.notify_one(),
            }
        }
        for vm in event.paths.iter().filter_map(|path| socket_vm(path)) {
            self.send(Some(vm));
        }
    }

    fn doubt(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
        self.look.notify_one();
    }
}

fn socket_vm(path: &Path) -> Option<VmId> {
    path.file_name().and_then(OsStr::to_str).and_then(VmId::from_socket_name)
}

/// Which directory stands at the path; `None`: none.
async fn identity(dir: &Path) -> Option<(u64, u64)> {
    let metadata = tokio::fs::metadata(dir).await.ok().filter(std::fs::Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino()))
}

async fn keep_watching(dir: PathBuf, hints: Hints, stop: CancellationToken) {
    let mut watched: Option<((u64, u64), RecommendedWatcher)> = None;
    loop {
        let doubtful = hints.doubtful.swap(false, Ordering::Relaxed);
        let present = identity(&dir).await;
        if doubtful || watched.as_ref().map(|(identity, _)| *identity) != present {
            watched = None;
            if let Some(identity) = present {
                match watch(dir.clone(), hints.clone()).await {
                    Ok(watcher) => watched = Some((identity, watcher)),
                    Err(error) => tracing::debug!(%error, dir = %dir.display(), "not watched yet"),
                }
            }
            // What came or went before the watch stood was not seen by it.
            hints.send(None);
        }
        if hints.missed.swap(false, Ordering::Relaxed) {
            hints.send(None);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = hints.sender.closed() => return,
            () = hints.look.notified() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("{0}")]
    Notify(#[from] notify::Error),
    #[error("the task that sets up the watch failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Setting up a watch waits for the watcher's thread.
async fn watch(dir: PathBuf, hints: Hints) -> Result<RecommendedWatcher, WatchError> {
    tokio::task::spawn_blocking(move || {
        let target = dir.clone();
        let mut watcher = notify::recommended_watcher(move |event| hints.take_in(event, &target))?;
        watcher.watch(&dir, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    })
    .await?
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn wait_for(hints: &mut mpsc::Receiver<Option<VmId>>, wanted: Option<VmId>) {
        timeout(DEADLINE, async { while hints.recv().await.expect("the watch goes on") != wanted {} })
            .await
            .unwrap_or_else(|_| panic!("no hint {wanted:?} in {DEADLINE:?}"));
    }

    #[tokio::test]
    async fn sockets_are_seen_also_in_a_directory_that_comes_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("sockets");
        let (_watch, mut hints) = SocketWatch::start(dir.clone());
        for round in 0..2 {
            std::fs::create_dir(&dir).unwrap();
            wait_for(&mut hints, None).await;
            let vm = VmId::generate();
            let path = dir.join(vm.socket_name());
            std::fs::write(dir.join("vm-nonsense.sock"), "").unwrap();
            let listener = UnixListener::bind(&path).unwrap();
            wait_for(&mut hints, Some(vm)).await;
            drop(listener);
            std::fs::remove_file(&path).unwrap();
            wait_for(&mut hints, Some(vm)).await;
            std::fs::remove_dir_all(&dir).unwrap();
            wait_for(&mut hints, None).await;
            eprintln!("round {round} seen");
        }
    }

    #[tokio::test]
    async fn a_flood_becomes_one_look_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (_watch, mut hints) = SocketWatch::start(dir.path().to_owned());
        wait_for(&mut hints, None).await;
        for _ in 0..2 * HINTS {
            let path = dir.path().join(VmId::generate().socket_name());
            std::fs::write(path, "").unwrap();
        }
        // Read only now: the channel is full, and what did not fit has to be told.
        wait_for(&mut hints, None).await;
    }

    #[tokio::test]
    async fn a_directory_that_is_replaced_at_once_is_watched_again() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("sockets");
        std::fs::create_dir(&dir).unwrap();
        let (_watch, mut hints) = SocketWatch::start(dir.clone());
        wait_for(&mut hints, None).await;
        for round in 0..3 {
            // File systems like to give the new one the old one's number.
            if round == 1 {
                std::fs::rename(&dir, root.path().join("elsewhere")).unwrap();
            } else {
                std::fs::remove_dir_all(&dir).unwrap();
            }
            std::fs::create_dir(&dir).unwrap();
            wait_for(&mut hints, None).await;
            let vm = VmId::generate();
            let _listener = UnixListener::bind(dir.join(vm.socket_name())).unwrap();
            wait_for(&mut hints, Some(vm)).await;
        }
    }

    #[test]
    fn each_event_is_taken_for_what_it_says_and_each_doubt_as_a_look_at_all() {
        use notify::{
            Event,
            event::{AccessKind, CreateKind, Flag, MetadataKind, RemoveKind, RenameMode},
        };
        let dir = Path::new("/run/sockets");
        let vm = VmId::generate();
        let of = |kind, path: &Path| Ok(Event::new(kind).add_path(path.to_owned()));
        let socket = dir.join(vm.socket_name());
        let (created, removed) = (EventKind::Create(CreateKind::File), EventKind::Remove(RemoveKind::Any));
        let moved = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        let touched = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        for (what, event, doubtful, told) in [
            ("a socket came", of(created, &socket), false, Some(vm)),
            ("a socket went", of(removed, &socket), false, Some(vm)),
            ("a socket was moved away", of(moved, &socket), false, Some(vm)),
            ("something else came", of(created, &dir.join("other.sock")), false, None),
            ("somebody looked", of(EventKind::Access(AccessKind::Any), &socket), false, None),
            ("the directory was touched", of(touched, dir), false, None),
            ("the directory was removed", of(removed, dir), true, None),
            ("the directory was moved", of(moved, dir), true, None),
            (
                "the kernel's queue ran over",
                Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)),
                true,
                None,
            ),
            ("the watcher failed", Err(notify::Error::generic("gone")), true, None),
        ] {
            let (sender, mut receiver) = mpsc::channel(4);
            let hints = Hints::new(sender);
            hints.take_in(event, dir);
            assert_eq!(hints.doubtful.load(Ordering::Relaxed), doubtful, "{what}");
            assert_eq!(receiver.try_recv().ok(), told.map(Some), "{what}");
        }
    }
}

//! One controller per state directory: an advisory lock on a file, which the kernel takes back
//! when its holder dies, however it dies.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use chrono::{SecondsFormat, Utc};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};

/// Held until it is dropped or the process ends.
#[derive(Debug)]
pub struct HostLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody holds it.
    #[error("{path} is held by another infinibayd ({holder}); end it first")]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The file cannot be used.
    #[error("locking {path}")]
    Io {
        /// The lock's file, or the directory that could not be made.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl HostLock {
    /// Takes the exclusive lock on `<state_dir>/lock`, without waiting, and writes into it who
    /// holds it. Makes the directory when it is missing.
    ///
    /// # Errors
    /// `Held`, with what the holder wrote about itself.
    pub fn acquire(state_dir: &Path) -> Result<Self, LockError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Io { path, source }
        };
        // Seeds and disks below it are read by QEMU's user, who must be able to pass through.
        DirBuilder::new().recursive(true).mode(0o711).create(state_dir).map_err(failed(state_dir))?;
        let path = state_dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(failed(&path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Held { holder: holder(&file), path }),
            Err(errno) => return Err(failed(&path)(errno.into())),
        }
        introduce(&mut file).map_err(failed(&path))?;
        Ok(Self { _file: file })
    }
}

#[allow(clippy::cast_possible_wrap)] // a bit set, whatever its sign
fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits() as i32
}

fn introduce(file: &mut File) -> io::Result<()> {
    let since = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "pid {} since {since}", std::process::id())
}

/// What the holder wrote: for people, never trusted.
fn holder(file: &File) -> String {
    let mut text = Vec::new();
    let read = file.take(200).read_to_end(&mut text);
    let text: String = String::from_utf8_lossy(&text).trim().chars().filter(|c| !c.is_control()).collect();
    match read {
        Ok(_) if !text.is_empty() => text,
        _ => "it did not say who it is".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("made/on/demand");
        let first = HostLock::acquire(&state).unwrap();
        let refused = HostLock::acquire(&state).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {} since 2", std::process::id())), "{refused}");
        drop(first);
        HostLock::acquire(&state).unwrap();
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join("lock")).unwrap();
        assert!(matches!(HostLock::acquire(dir.path()), Err(LockError::Io { .. })));
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }
}

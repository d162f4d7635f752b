//! What a VM wrote to its serial console: the end of the log that the hypervisor keeps of it, and what
//! is written to it from then on, made safe to be shown. What a guest writes there is a stranger's
//! words.

mod cleaner;
mod follow;
mod log;

pub use follow::{ConsoleFollower, ConsolePiece};

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Lifecycle, LifecycleError};
use crate::{
    access::{Action, Actor, Target, authorize},
    vm::{ResourceKind, VmId},
};
use cleaner::Cleaner;
use log::LogReader;

/// Most bytes of a log that are given.
pub const MAX_CONSOLE_BYTES: u32 = 1 << 20;

/// The end of a console's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleLog {
    /// Without escape sequences and control characters, but for line ends and tabs.
    pub text: String,
    /// Whether there is more before it.
    pub truncated: bool,
}

/// Where a VM's console is written to.
enum Place {
    /// There.
    File(PathBuf),
    /// Nowhere yet, if ever.
    None,
}

impl Lifecycle {
    /// At most the last `max_bytes` of what the VM wrote to its serial console, over all its starts;
    /// `None` where no log is kept, or nothing was written yet.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn console_log(
        &self,
        actor: &Actor,
        vm: VmId,
        max_bytes: u32,
    ) -> Result<Option<ConsoleLog>, LifecycleError> {
        let Place::File(path) = self.console_of(Some(actor), vm).await? else { return Ok(None) };
        let max = max_bytes.min(MAX_CONSOLE_BYTES);
        let read = tokio::task::spawn_blocking(move || tail(&path, max)).await;
        let read =
            read.map_err(io::Error::other).and_then(|read| read).map_err(LifecycleError::ConsoleLog)?;
        Ok(read.map(|(bytes, truncated)| {
            let mut cleaner = Cleaner::default();
            ConsoleLog { text: cleaner.clean(&bytes) + &cleaner.end(), truncated }
        }))
    }

    /// What the VM writes to its serial console, from `max_bytes` before the log's end on. One that is
    /// not kept yet is waited for.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn follow_console(
        &self,
        actor: &Actor,
        vm: VmId,
        max_bytes: u32,
    ) -> Result<ConsoleFollower, LifecycleError> {
        self.console_of(Some(actor), vm).await?;
        Ok(ConsoleFollower::new(self.clone(), vm, max_bytes.min(MAX_CONSOLE_BYTES)))
    }

    /// Where the console is written to; `actor`: who asks, unless that was looked at before.
    async fn console_of(&self, actor: Option<&Actor>, vm: VmId) -> Result<Place, LifecycleError> {
        let found = self.store.load_vm(vm).await.map_err(LifecycleError::Store)?;
        if let Some(actor) = actor {
            let owner = found.as_ref().map(|bundle| bundle.record.owner);
            authorize(actor, Action::ViewVm(Target { vm, owner }))
                .map_err(|denied| LifecycleError::denied(denied, vm))?;
        }
        let bundle = found.ok_or(LifecycleError::NotFound(vm))?;
        if bundle.record.host != self.host {
            return Ok(Place::None);
        }
        let log = bundle.resources.iter().find(|resource| resource.kind == ResourceKind::ConsoleLog);
        Ok(log.map_or(Place::None, |log| Place::File(Path::new(&log.place).join(&log.name))))
    }
}

/// The end of a log, and whether there is more before it.
fn tail(path: &Path, max: u32) -> io::Result<Option<(Vec<u8>, bool)>> {
    let mut reader = LogReader::before_end(path.to_owned(), max.into())?;
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let (mut bytes, mut truncated) = (Vec::new(), false);
    // It may grow meanwhile.
    while bytes.len() < max {
        let piece = reader.read(max - bytes.len(), u64::MAX)?;
        truncated |= piece.skipped;
        if piece.bytes.is_empty() {
            break;
        }
        bytes.extend(piece.bytes);
    }
    Ok(reader.has_begun().then_some((bytes, truncated)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_plain_files_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("vm.log");
        assert_eq!(tail(&log, 4).unwrap(), None);
        std::fs::write(&log, "abcdef").unwrap();
        assert_eq!(tail(&log, 4).unwrap(), Some((b"cdef".to_vec(), true)));
        assert_eq!(tail(&log, 6).unwrap(), Some((b"abcdef".to_vec(), false)));
        std::fs::write(dir.path().join("vm.log.0"), "0123").unwrap();
        assert_eq!(tail(&log, 8).unwrap(), Some((b"23abcdef".to_vec(), true)));
        assert_eq!(tail(&log, 6).unwrap(), Some((b"abcdef".to_vec(), true)));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&log, &link).unwrap();
        tail(&link, 4).unwrap_err();
        tail(dir.path(), 4).unwrap_err();
    }
}

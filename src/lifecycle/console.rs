//! What a VM wrote to its serial console: the end of the log that the hypervisor keeps of it, made
//! safe to be shown. What a guest writes there is a stranger's words.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{Lifecycle, LifecycleError};
use crate::{
    access::{Action, Actor, Target, authorize},
    vm::{ResourceKind, VmId},
};

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

impl Lifecycle {
    /// At most the last `max_bytes` of what the VM wrote to its serial console since it was last
    /// started; `None` where no log is kept, or nothing was written yet.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn console_log(
        &self,
        actor: &Actor,
        vm: VmId,
        max_bytes: u32,
    ) -> Result<Option<ConsoleLog>, LifecycleError> {
        let found = self.store.load_vm(vm).await.map_err(LifecycleError::Store)?;
        let owner = found.as_ref().map(|bundle| bundle.record.owner);
        authorize(actor, Action::ViewVm(Target { vm, owner }))
            .map_err(|denied| LifecycleError::denied(denied, vm))?;
        let bundle = found.ok_or(LifecycleError::NotFound(vm))?;
        if bundle.record.host != self.host {
            return Ok(None);
        }
        let log = bundle.resources.iter().find(|resource| resource.kind == ResourceKind::ConsoleLog);
        let Some(path) = log.map(|log| PathBuf::from(&log.place).join(&log.name)) else { return Ok(None) };
        let max = max_bytes.min(MAX_CONSOLE_BYTES);
        let read = tokio::task::spawn_blocking(move || tail(&path, max)).await;
        let read =
            read.map_err(io::Error::other).and_then(|read| read).map_err(LifecycleError::ConsoleLog)?;
        Ok(read.map(|(bytes, truncated)| ConsoleLog {
            text: clean(&String::from_utf8_lossy(&bytes)),
            truncated,
        }))
    }
}

/// The end of a plain file, and whether there is more before it. Never follows a link.
fn tail(path: &Path, max: u32) -> io::Result<Option<(Vec<u8>, bool)>> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("the console's log is no plain file"));
    }
    let skipped = found.len().saturating_sub(max.into());
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    // It may grow meanwhile.
    file.take(max.into()).read_to_end(&mut bytes)?;
    Ok(Some((bytes, skipped > 0)))
}

/// Takes out what would steer a terminal: escape sequences whole, other control characters, and
/// the marks that change the direction of writing.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next_if(|next| matches!(next, '[' | ']')) {
                Some('[') => {
                    while chars.next_if(|next| matches!(next, ' '..='?')).is_some() {}
                    chars.next_if(|next| matches!(next, '@'..='~'));
                }
                // A title or the like, up to its end.
                Some(_) => while chars.next_if(|next| !next.is_control()).is_some() {},
                None => drop(chars.next_if(|next| matches!(next, '@'..='_' | 'c' | '7' | '8'))),
            },
            '\n' | '\t' => out.push(c),
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_taken_out() {
        for (raw, plain) in [
            ("a\r\nb\tc", "a\nb\tc"),
            ("\u{1b}[2J\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}cx\u{1b}", "x"),
            ("\u{0}\u{8}\u{7f}\u{9b}x\u{202e}\u{61c}y", "xy"),
            ("é\u{fffd}", "é\u{fffd}"),
        ] {
            assert_eq!(clean(raw), plain, "{raw:?}");
        }
    }

    #[test]
    fn the_end_of_a_plain_file_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("vm.log");
        assert_eq!(tail(&log, 4).unwrap(), None);
        std::fs::write(&log, "abcdef").unwrap();
        assert_eq!(tail(&log, 4).unwrap(), Some((b"cdef".to_vec(), true)));
        assert_eq!(tail(&log, 6).unwrap(), Some((b"abcdef".to_vec(), false)));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&log, &link).unwrap();
        tail(&link, 4).unwrap_err();
        tail(dir.path(), 4).unwrap_err();
    }
}

//! Follows a console: a look now and then gives what was written since the last one, as much as one
//! may have at once. Files are read off the async threads.

use std::{io, time::Duration};

use tokio::time::Instant;

use super::{Cleaner, LogReader, Place};
use crate::{
    lifecycle::{Lifecycle, LifecycleError},
    vm::VmId,
};

/// Bytes of one piece at most.
const PIECE: usize = 32 << 10;
/// Who is further behind than this, bytes, loses what is between: a guest writes faster than people
/// read.
const BEHIND: u64 = 1 << 20;
/// How often is asked whether a console is kept that was not.
const ASK: Duration = Duration::from_secs(2);

/// Some of what a VM wrote to its console.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsolePiece {
    /// Without escape sequences and control characters, but for line ends and tabs. May be empty.
    pub text: String,
    /// This is from another log than what was told before: that one is gone.
    pub anew: bool,
    /// Something before it was left out.
    pub skipped: bool,
}

/// See the module.
pub struct ConsoleFollower {
    lifecycle: Lifecycle,
    vm: VmId,
    max: u32,
    log: Option<(LogReader, Cleaner)>,
    ask_at: Instant,
}

impl ConsoleFollower {
    pub(super) fn new(lifecycle: Lifecycle, vm: VmId, max: u32) -> Self {
        Self { lifecycle, vm, max, log: None, ask_at: Instant::now() }
    }

    /// What was written since the last look; `None`: nothing.
    ///
    /// # Errors
    /// The database or the file could not be read; the next look begins as the first one did.
    pub async fn look(&mut self) -> Result<Option<ConsolePiece>, LifecycleError> {
        let (path, max) = match self.log.take() {
            Some((reader, cleaner)) => return self.read(move || Ok((reader, cleaner))).await,
            None if Instant::now() < self.ask_at => return Ok(None),
            None => {
                self.ask_at = Instant::now() + ASK;
                match self.lifecycle.console_of(None, self.vm).await? {
                    Place::File(path) => (path, self.max.into()),
                    Place::None => return Ok(None),
                }
            }
        };
        self.read(move || Ok((LogReader::before_end(path, max)?, Cleaner::default()))).await
    }

    async fn read(
        &mut self,
        log: impl FnOnce() -> io::Result<(LogReader, Cleaner)> + Send + 'static,
    ) -> Result<Option<ConsolePiece>, LifecycleError> {
        let read = tokio::task::spawn_blocking(move || {
            let (mut reader, mut cleaner) = log()?;
            let piece = reader.read(PIECE, BEHIND)?;
            if piece.anew || piece.skipped {
                cleaner = Cleaner::default();
            }
            let text = cleaner.clean(&piece.bytes);
            Ok((reader, cleaner, ConsolePiece { text, anew: piece.anew, skipped: piece.skipped }))
        });
        let read = read.await.map_err(io::Error::other).and_then(|read| read);
        let (reader, cleaner, piece) = read.map_err(LifecycleError::ConsoleLog)?;
        self.log = Some((reader, cleaner));
        let says = !piece.text.is_empty() || piece.anew || piece.skipped;
        Ok(says.then_some(piece))
    }
}

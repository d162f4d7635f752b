//! Why an import does not go on, and what that means for what was read of it.

use std::io;

use crate::{
    store::StoreError,
    vm::{MediumFailure, chain},
};

/// A failure with a stable code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
    /// The same may go well a little later.
    pub(super) again: bool,
    /// What was read is a true beginning of the file.
    pub(super) keep: bool,
}

/// Why work on a medium stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// It failed.
    Failed(Failure),
    /// It failed where it cannot be given up: what is in its place stays there. It is tried again.
    Later(Failure),
    /// The database could not be asked or told; what stands there is true, and is taken up again.
    Store(StoreError),
    /// It was cancelled, or the daemon stops.
    Told,
}

impl Failure {
    /// Over: it would fail again, and what was read is of no use.
    pub(super) fn over(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), again: false, keep: false }
    }

    /// Over for now: somebody may mend it, and what was read is of use then.
    pub(super) fn mendable(code: &'static str, message: impl Into<String>) -> Self {
        Self { keep: true, ..Self::over(code, message) }
    }

    /// Worth another attempt.
    pub(super) fn passing(code: &'static str, message: impl Into<String>) -> Self {
        Self { again: true, ..Self::mendable(code, message) }
    }

    /// This host's disk.
    pub(super) fn disk(what: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::mendable("NO_SPACE", format!("{what}: the file system is full"))
            }
            _ => Self::mendable("DISK_FAILED", format!("{what}: {error}")),
        }
    }

    pub(super) fn told(&self) -> MediumFailure {
        MediumFailure { code: self.code.to_owned(), message: self.message.clone() }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A blocking piece of work, apart.
pub(super) async fn apart<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Failure::disk(what, &error)),
        Err(died) => Err(Failure::mendable("DISK_FAILED", format!("{what}: {}", chain(&died)))),
    }
}

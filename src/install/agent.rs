//! The agent as it travels on the seed medium.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Largest file read, bytes; the agent has a few million.
const MAX_BYTES: u64 = 64 << 20;
const ELF_MAGIC: &[u8] = b"\x7fELF";
/// What every program of Windows begins with.
const MZ_MAGIC: &[u8] = b"MZ";

/// The agent for Linux guests: its program and what installs it.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentFiles {
    /// `infiniservice`, a static ELF program.
    pub binary: Vec<u8>,
    /// `install-linux.sh`.
    pub installer: Vec<u8>,
    /// `infiniservice.service`, a systemd unit.
    pub unit: Vec<u8>,
}

impl std::fmt::Debug for AgentFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentFiles").field("binary", &self.binary.len()).finish_non_exhaustive()
    }
}

/// The agent for Windows guests: its program and what installs it.
#[derive(Clone, PartialEq, Eq)]
pub struct WindowsAgentFiles {
    /// `infiniservice.exe`.
    pub binary: Vec<u8>,
    /// `install-windows.ps1`; takes everything else from beside itself.
    pub installer: Vec<u8>,
}

impl std::fmt::Debug for WindowsAgentFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WindowsAgentFiles").field("binary", &self.binary.len()).finish_non_exhaustive()
    }
}

/// Why the agent cannot be put into guests.
#[derive(Debug, thiserror::Error)]
pub enum AgentFilesError {
    /// A file cannot be read.
    #[error("reading the agent's file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `AGENT_BINARY_MISSING`: there is no agent for that system at all.
    #[error("there is no agent for {system} guests: {path} is missing")]
    BinaryMissing {
        /// The system.
        system: &'static str,
        /// What is missing.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("the agent's file {path} {reason}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
}

impl AgentFiles {
    /// Reads them from `base_dir` (`INFINIBAY_BASE_DIR`):
    /// `infiniservice/binaries/linux/infiniservice` and, in `infiniservice/install/`,
    /// `install-linux.sh` and `infiniservice.service`. Reads files: not for an async thread.
    ///
    /// # Errors
    /// A file that is missing, too large, empty, or, for the program, no ELF file.
    pub fn read(base_dir: &Path) -> Result<Self, AgentFilesError> {
        let root = base_dir.join("infiniservice");
        let program = root.join("binaries/linux/infiniservice");
        let binary = read_bounded(&program)?;
        if !binary.starts_with(ELF_MAGIC) {
            return Err(AgentFilesError::Unfit { path: program, reason: "is not an ELF program" });
        }
        Ok(Self {
            binary,
            installer: read_bounded(&root.join("install/install-linux.sh"))?,
            unit: read_bounded(&root.join("install/infiniservice.service"))?,
        })
    }
}

impl WindowsAgentFiles {
    /// Reads them from `base_dir` (`INFINIBAY_BASE_DIR`):
    /// `infiniservice/binaries/windows/infiniservice.exe` and
    /// `infiniservice/install/install-windows.ps1`. Reads files: not for an async thread.
    ///
    /// # Errors
    /// [`AgentFilesError::BinaryMissing`] where either file is not there; a file that is too large,
    /// empty, or, for the program, no Windows program.
    pub fn read(base_dir: &Path) -> Result<Self, AgentFilesError> {
        let root = base_dir.join("infiniservice");
        let program = root.join("binaries/windows/infiniservice.exe");
        let present = |path: &Path| {
            read_bounded(path).map_err(|error| match error {
                AgentFilesError::Read { path, source } if is_absent(&source) => {
                    AgentFilesError::BinaryMissing { system: "Windows", path }
                }
                other => other,
            })
        };
        let binary = present(&program)?;
        if !binary.starts_with(MZ_MAGIC) {
            return Err(AgentFilesError::Unfit { path: program, reason: "is not a Windows program" });
        }
        Ok(Self { binary, installer: present(&root.join("install/install-windows.ps1"))? })
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, AgentFilesError> {
    let fail = |source| AgentFilesError::Read { path: path.to_owned(), source };
    let unfit = |reason| Err(AgentFilesError::Unfit { path: path.to_owned(), reason });
    let file = File::open(path).map_err(fail)?;
    if !file.metadata().map_err(fail)?.is_file() {
        return unfit("is not a regular file");
    }
    let mut contents = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut contents).map_err(fail)?;
    match contents.len() as u64 {
        0 => unfit("is empty"),
        length if length > MAX_BYTES => unfit("is larger than 64 MiB"),
        _ => Ok(contents),
    }
}

#[cfg(test)]
mod tests {
    use super::{AgentFiles, AgentFilesError, WindowsAgentFiles};

    #[test]
    fn a_windows_agent_that_is_not_there_is_told_by_its_own_error() {
        let base = tempfile::tempdir().unwrap();
        let put = |path: &str, contents: &[u8]| {
            let path = base.path().join("infiniservice").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        };
        let missing = |end: &str| {
            let error = WindowsAgentFiles::read(base.path()).unwrap_err();
            assert!(
                matches!(&error, AgentFilesError::BinaryMissing { path, .. } if path.ends_with(end)),
                "{error}"
            );
        };
        missing("binaries/windows/infiniservice.exe");
        put("binaries/windows/infiniservice.exe", b"<html>");
        assert!(matches!(WindowsAgentFiles::read(base.path()), Err(AgentFilesError::Unfit { .. })));
        put("binaries/windows/infiniservice.exe", b"MZ\x90");
        missing("install/install-windows.ps1");
        put("install/install-windows.ps1", b"param()");
        assert_eq!(WindowsAgentFiles::read(base.path()).unwrap().binary, b"MZ\x90");
    }

    #[test]
    fn the_agent_is_read_from_its_places_and_looked_at() {
        let base = tempfile::tempdir().unwrap();
        let put = |path: &str, contents: &[u8]| {
            let path = base.path().join("infiniservice").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        };
        let missing = AgentFiles::read(base.path()).unwrap_err();
        assert!(
            matches!(&missing, AgentFilesError::Read { path, .. } if path.ends_with("binaries/linux/infiniservice")),
            "{missing}"
        );
        put("install/install-linux.sh", b"#!/bin/sh");
        put("install/infiniservice.service", b"[Unit]");
        for wrong in [b"<html>".as_slice(), b""] {
            put("binaries/linux/infiniservice", wrong);
            assert!(matches!(AgentFiles::read(base.path()), Err(AgentFilesError::Unfit { .. })), "{wrong:?}");
        }
        put("binaries/linux/infiniservice", b"\x7fELF\x02");
        let read = AgentFiles::read(base.path()).unwrap();
        assert_eq!(
            (read.binary.as_slice(), read.unit.as_slice()),
            (b"\x7fELF\x02".as_slice(), b"[Unit]".as_slice())
        );
        put("install/install-linux.sh", b"");
        let empty = AgentFiles::read(base.path()).unwrap_err();
        assert!(empty.to_string().contains("install-linux.sh is empty"), "{empty}");
    }
}

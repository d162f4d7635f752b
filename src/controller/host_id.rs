//! Which host this is, in a database that may know several: a random number that outlives host
//! names, addresses and reinstalled databases.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use crate::vm::HostId;

const FILE: &str = "host-id";

/// The host's id, from `host-id` in the state directory; made on first use. A file that is there
/// and cannot be read is an error, never replaced: with a new id, the host's VMs would be
/// nobody's.
///
/// # Errors
/// The directory cannot be written, or the file is not ours to understand (`InvalidData`).
pub fn load_or_create(state_dir: &Path) -> io::Result<HostId> {
    let path = state_dir.join(FILE);
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        outcome => return outcome,
    }
    // Whole or not at all, and never over another's: written beside, made durable, then linked.
    let mut file = tempfile::Builder::new().prefix(".host-id-").tempfile_in(state_dir)?;
    writeln!(file, "{}", HostId(uuid::Uuid::new_v4()))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(&path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.error),
    }
    fs::File::open(state_dir)?.sync_all()?;
    read(&path)
}

fn read(path: &Path) -> io::Result<HostId> {
    let mut text = String::new();
    File::open(path)?.take(100).read_to_string(&mut text)?;
    text.trim().parse().map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no UUID: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_host_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let id = load_or_create(dir.path()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap(), id);
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [FILE], "something was left behind");
    }

    #[test]
    fn a_spoilt_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "").unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), b"");
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load_or_create(&dir.path().join("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

//! Checksums that outlive the daemon: a file of what each disk hashed to, and in what state.
//!
//! It only saves time. One that is missing, or that is not what we wrote, costs the computation
//! of its checksums anew and nothing else.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{MAX_IMAGES, digest::FileState};

const VERSION: u32 = 1;
const MAX_BYTES: u64 = 4 << 20;

/// What is known of each disk: its state, and the SHA-256 of it in that state.
pub(super) type Finished = HashMap<PathBuf, (FileState, String)>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    version: u32,
    disks: Vec<Disk>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disk {
    path: PathBuf,
    state: FileState,
    sha256: String,
}

/// What the file says; nothing where there is none. Blocking.
pub(super) fn load(path: &Path) -> io::Result<Finished> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Finished::new()),
        opened => opened?,
    };
    let odd = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    if !file.metadata()?.is_file() {
        return Err(odd("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(odd("it is too long"));
    }
    let memory: Memory = serde_json::from_slice(&bytes)?;
    if memory.version != VERSION {
        return Err(odd("it is of another version"));
    }
    if memory.disks.len() > MAX_IMAGES {
        return Err(odd("it names too many disks"));
    }
    let digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    if !memory.disks.iter().all(|disk| disk.sha256.len() == 64 && disk.sha256.bytes().all(digit)) {
        return Err(odd("it holds something that is no checksum"));
    }
    Ok(memory.disks.into_iter().map(|disk| (disk.path, (disk.state, disk.sha256))).collect())
}

/// Replaces the file, whole or not at all; nobody else may read it. Blocking, and not to be called
/// twice at once.
pub(super) fn save(path: &Path, finished: Finished) -> io::Result<()> {
    let mut disks: Vec<_> =
        finished.into_iter().map(|(path, (state, sha256))| Disk { path, state, sha256 }).collect();
    disks.sort_by(|a, b| a.path.cmp(&b.path));
    let bytes = serde_json::to_vec(&Memory { version: VERSION, disks })?;
    let dir = path.parent().ok_or_else(|| io::Error::other("its path has no directory"))?;
    let draft = path.with_extension("draft");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn some(count: usize) -> Finished {
        let file = tempfile::tempfile().unwrap();
        let state = FileState::of(&file).unwrap();
        (0..count).map(|n| (PathBuf::from(format!("/images/{n}/disk")), (state, "0a".repeat(32)))).collect()
    }

    #[test]
    fn what_is_saved_is_loaded_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("digests.json");
        assert!(load(&path).unwrap().is_empty());
        fs::write(dir.path().join("digests.draft"), "left over").unwrap();
        for count in [MAX_IMAGES, 2] {
            save(&path, some(count)).unwrap();
            assert_eq!(load(&path).unwrap().len(), count);
        }
        assert_eq!(load(&path).unwrap()[Path::new("/images/1/disk")].1, "0a".repeat(32));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a draft is left");
    }

    #[test]
    fn what_we_did_not_write_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("digests.json");
        save(&path, some(1)).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let spoilt = [
            String::new(),
            good[..good.len() - 1].to_owned(),
            good.replace("\"version\":1", "\"version\":2"),
            good.replace("0a0a", "0A0a"),
            good.replace("0a0a", "0a"),
            good.replace("\"sha256\"", "\"sha1\""),
            format!("{good}{}", " ".repeat(usize::try_from(MAX_BYTES).unwrap())),
        ];
        for text in spoilt {
            fs::write(&path, &text).unwrap();
            assert!(load(&path).is_err(), "{text:.200}");
        }
        save(&path, some(MAX_IMAGES + 1)).unwrap();
        assert!(load(&path).is_err(), "more disks than a library has");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(load(&path).is_err(), "a link was followed");
    }
}

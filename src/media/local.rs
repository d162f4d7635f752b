//! Files of this host that are imported: only below directories that an operator named, and by no
//! link out of them, however the path is written and whoever changes it meanwhile.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path},
};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::failure::Failure;

/// An open regular file below one of the directories.
#[derive(Debug)]
pub(super) struct LocalFile {
    pub(super) file: File,
    pub(super) length: u64,
    /// What tells one state of it from another.
    pub(super) stamp: String,
}

fn not_allowed(why: impl Into<String>) -> Failure {
    Failure::mendable("PATH_NOT_ALLOWED", why)
}

/// Opens it. Blocking.
pub(super) fn open(path: &str, dirs: &[impl AsRef<Path>]) -> Result<LocalFile, Failure> {
    let path = Path::new(path);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain {
        return Err(not_allowed("the path is not absolute and plain"));
    }
    let below = dirs.iter().find_map(|dir| Some((dir.as_ref(), path.strip_prefix(dir.as_ref()).ok()?)));
    let Some((dir, rest)) = below.filter(|(_, rest)| !rest.as_os_str().is_empty()) else {
        return Err(not_allowed("the path is not below one of the directories in media.import_dirs"));
    };
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => not_allowed(format!("there is no file {}", path.display())),
        _ => not_allowed(format!("{} cannot be opened: {error}", path.display())),
    };
    let opened = File::open(dir).map_err(unreadable)?;
    // Opening a pipe or a device must not block or do anything: it is looked at first.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(&opened, rest, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::XDEV) => {
            return Err(not_allowed("the path leads over a symbolic link"));
        }
        Err(error) => return Err(unreadable(error.into())),
    };
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(not_allowed(format!("{} is not a regular file", path.display())));
    }
    let stamp = format!("{}-{}-{}.{}", found.ino(), found.len(), found.mtime(), found.mtime_nsec());
    Ok(LocalFile { file, length: found.len(), stamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_below_the_directories_are_opened() {
        let root = tempfile::tempdir().unwrap();
        let (allowed, other) = (root.path().join("in"), root.path().join("out"));
        for dir in [&allowed, &other, &allowed.join("sub")] {
            std::fs::create_dir(dir).unwrap();
        }
        std::fs::write(allowed.join("sub/good"), "abc").unwrap();
        std::fs::write(other.join("secret"), "abc").unwrap();
        std::os::unix::fs::symlink(other.join("secret"), allowed.join("link")).unwrap();
        std::os::unix::fs::symlink(&other, allowed.join("dir")).unwrap();
        std::os::unix::fs::symlink("sub/good", allowed.join("inside")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, allowed.join("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
        let path = |path: &str| root.path().join(path).display().to_string();
        let ask = |path: &str| open(path, std::slice::from_ref(&allowed));
        assert_eq!(ask(&path("in/sub/good")).unwrap().length, 3);
        for (bad, why) in [
            (path("out/secret"), "not below"),
            (path("in"), "not below"),
            (path("in/../out/secret"), "not absolute and plain"),
            ("in/sub/good".to_owned(), "not absolute and plain"),
            (path("in/link"), "symbolic link"),
            (path("in/dir/secret"), "symbolic link"),
            (path("in/inside"), "symbolic link"),
            (path("in/sub"), "not a regular file"),
            (path("in/pipe"), "not a regular file"),
            (path("in/none"), "there is no file"),
            (path("in/a\0b"), "cannot be opened"),
            ("/dev/zero".to_owned(), "not below"),
        ] {
            let refused = ask(&bad).unwrap_err();
            assert!(refused.message.contains(why), "{bad}: {refused:?}");
            assert_eq!(refused.code, "PATH_NOT_ALLOWED");
        }
        assert!(open(&path("in/sub/good"), &[] as &[&Path]).is_err());
    }
}

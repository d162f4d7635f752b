//! Files that we give away and want back: libvirt makes QEMU's user their owner while a VM runs, and has its
//! log daemon write consoles as root. Root need not mind. A daemon that is another user keeps a hand on such
//! a file by an entry of its own in the file's access list, which survives a change of owner; and makes a
//! console's log itself, because what is there already keeps its owner.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::XattrFlags;

use super::files::nofollow;

const ACCESS_LIST: &str = "system.posix_acl_access";
/// Of entries that are about nobody by name.
const NOBODY: u32 = u32::MAX;

/// Lets this process' user read and write the file whoever owns it; nobody else but the owner may.
/// A file system without access lists leaves it as it is, which is enough where nobody takes it away.
pub(super) fn keep(file: &File) -> io::Result<()> {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return Ok(());
    }
    match rustix::fs::fsetxattr(file, ACCESS_LIST, &access_list(user.as_raw()), XattrFlags::empty()) {
        Err(rustix::io::Errno::OPNOTSUPP) => {
            tracing::warn!(
                "the state directory is on a file system without access lists: what is given to QEMU may not \
                 be ours to overwrite afterwards"
            );
            Ok(())
        }
        done => Ok(done?),
    }
}

/// The same of a file that is there.
pub(super) fn keep_at(path: &Path) -> io::Result<()> {
    keep(&OpenOptions::new().write(true).custom_flags(nofollow()).open(path)?)
}

/// Makes a log that is ours, where there is none. Nothing to do for root, who reads whatever is made.
pub(super) fn begin_log(path: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Version 2 of the kernel's format: entries of tag, permissions and id, in the order of their tags.
fn access_list(user: u32) -> Vec<u8> {
    const READ_WRITE: u16 = 6;
    let (owner, named, group, mask, others) = (0x01_u16, 0x02, 0x04, 0x10, 0x20);
    let entries = [
        (owner, READ_WRITE, NOBODY),
        (named, READ_WRITE, user),
        (group, 0, NOBODY),
        (mask, READ_WRITE, NOBODY),
        (others, 0, NOBODY),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, may, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(may.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn one_user_more_may_and_neither_group_nor_others() {
        // On a real file system, which says what it makes of it.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let file =
            File::options().write(true).create_new(true).mode(0o600).open(dir.path().join("a")).unwrap();
        rustix::fs::fsetxattr(&file, ACCESS_LIST, &access_list(4711), XattrFlags::empty()).unwrap();
        rustix::fs::fchown(&file, None, Some(rustix::process::getegid())).unwrap();
        let mut list = [0; 64];
        let length = rustix::fs::fgetxattr(&file, ACCESS_LIST, &mut list).unwrap();
        assert_eq!(list[..length], access_list(4711), "the file system took it otherwise");
        // The group's bits are those of the mask; the group itself has none.
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o660);
    }
}

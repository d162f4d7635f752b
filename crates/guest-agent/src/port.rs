//! The guest's end of the channel: one character device, opened once.
//!
//! The kernel lets a virtio port have a single opener, so the same descriptor reads and writes.
//! A closed host end is not the end of the port: the descriptor works on when the host comes
//! back. Only when the port itself is gone must it be opened again.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::FileTypeExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::read;

/// The channel's name, as the domain gives it.
const PORT_NAME: &str = "org.infinibay.agent";
const LINK: &str = "/dev/virtio-ports/org.infinibay.agent";

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    /// No device of the channel's name.
    #[error("there is no port {PORT_NAME}")]
    Absent,
    /// It is there and cannot be opened; `EBUSY` means that another program holds it.
    #[error("open {}: {source}", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// The kernel's words.
        #[source]
        source: io::Error,
    },
    /// Something else stands at this path.
    #[error("{} is neither a character device nor a socket", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
    },
}

/// What a read brought.
#[derive(Debug)]
pub(crate) enum Input {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now; also while the host end is closed.
    Nothing,
}

/// An open port.
#[derive(Debug)]
pub(crate) struct Port {
    fd: OwnedFd,
    /// A stream that ended stays ended: it must be opened again.
    stream: bool,
}

impl Port {
    /// Opens the device given, or the one that carries the channel's name.
    ///
    /// # Errors
    /// There is none, or it cannot be opened.
    pub(crate) fn open(device: Option<&Path>) -> Result<Self, PortError> {
        let path = match device {
            Some(path) => path.to_owned(),
            None if Path::new(LINK).exists() => PathBuf::from(LINK),
            None => find(Path::new("/sys/class/virtio-ports")).ok_or(PortError::Absent)?,
        };
        let failed = |source| PortError::Open { path: path.clone(), source };
        let kind = match fs::metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(PortError::Absent),
            Err(e) => return Err(failed(e)),
        };
        // A socket stands in for the port where there is no virtio, as in a container.
        if kind.is_socket() {
            let stream = UnixStream::connect(&path).map_err(failed)?;
            stream.set_nonblocking(true).map_err(failed)?;
            return Ok(Self { fd: stream.into(), stream: true });
        }
        if !kind.is_char_device() {
            return Err(PortError::Kind { path });
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        Ok(Self { fd, stream: false })
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// The port is gone.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Input> {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut *buffer)) {
            Ok(0) if self.stream => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) | Err(Errno::AGAIN) => Ok(Input::Nothing),
            Ok(count) => Ok(Input::Bytes(count)),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes what fits, which may be nothing.
    ///
    /// # Errors
    /// The port is gone.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, bytes)) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether nobody holds the host end.
    ///
    /// # Errors
    /// The port is gone. A terminal that was hung up says so here alone: reads find it empty.
    pub(crate) fn hung_up(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now)))?;
        let state = fds[0].revents();
        if state.intersects(PollFlags::ERR | PollFlags::NVAL) {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "it was hung up for good"));
        }
        Ok(state.contains(PollFlags::HUP))
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Looks through sysfs, for systems without udev and its links.
fn find(class: &Path) -> Option<PathBuf> {
    fs::read_dir(class).ok()?.filter_map(Result::ok).take(512).find_map(|entry| {
        let name = read::line(entry.path().join("name"))?;
        (name == PORT_NAME).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name_without_udev() {
        let class = tempfile::tempdir().unwrap();
        for (port, name) in [("vport1p1", "org.qemu.guest_agent.0\n"), ("vport1p2", "org.infinibay.agent\n")]
        {
            fs::create_dir(class.path().join(port)).unwrap();
            fs::write(class.path().join(port).join("name"), name).unwrap();
        }
        assert_eq!(find(class.path()), Some(PathBuf::from("/dev/vport1p2")));
        assert_eq!(find(&class.path().join("none")), None);
    }

    #[test]
    fn a_plain_file_is_never_written_to() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Port::open(Some(file.path())), Err(PortError::Kind { .. })));
        assert!(matches!(Port::open(Some(Path::new("/nowhere/at/all"))), Err(PortError::Absent)));
    }
}

//! A console's log as files: the one that is written to, and those that libvirt's log daemon moved
//! aside when it was full (`NAME.0` is younger than `NAME.1`). Read in the order in which it was
//! written, by whoever may fall behind. Never follows a link, and never waits.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Once,
};

use rustix::fs::OFlags;

/// Files moved aside that are looked at; the daemon keeps three unless it is told otherwise.
const MAX_ASIDE: usize = 8;

/// Said once, because somebody who follows a console looks four times a second.
static UNREADABLE: Once = Once::new();

/// What came next in a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// The log is another one than before.
    pub(super) anew: bool,
    /// Something before these bytes was left out.
    pub(super) skipped: bool,
}

/// A place in a log.
#[derive(Debug)]
pub(super) struct LogReader {
    path: PathBuf,
    open: Option<Open>,
    /// Of the first piece.
    skipped: bool,
    /// Something was read, or could have been.
    began: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    offset: u64,
}

impl LogReader {
    /// At most so many bytes before the log's end.
    pub(super) fn before_end(path: PathBuf, max: u64) -> io::Result<Self> {
        let mut reader = Self { path, open: None, skipped: false, began: false };
        let mut room = max;
        for place in 0..=MAX_ASIDE {
            let Some((file, found)) = open_plain(&reader.at(place))? else {
                // Moved aside, and not made anew yet; or not ours to read.
                if place == 0 || look(&reader.at(place))?.is_some() {
                    continue;
                }
                break;
            };
            if room == 0 {
                reader.skipped |= found.len() > 0;
                break;
            }
            let offset = found.len().saturating_sub(room);
            room -= found.len() - offset;
            reader.skipped = offset > 0;
            reader.open = Some(Open { file, offset });
        }
        Ok(reader)
    }

    /// What comes next, at most `max` bytes; nothing, where nothing was written since. Who is more than
    /// `behind` bytes behind in a file loses what is before its last `max`.
    pub(super) fn read(&mut self, max: usize, behind: u64) -> io::Result<Piece> {
        let mut piece = Piece { skipped: std::mem::take(&mut self.skipped), ..Piece::default() };
        // Each file that is done leads to a younger one, of which there are so many.
        for _ in 0..=MAX_ASIDE + 1 {
            let Some(open) = &mut self.open else {
                let Some((file, _)) = open_plain(&self.at(self.oldest()?))? else { break };
                piece.anew |= std::mem::replace(&mut self.began, true);
                self.open = Some(Open { file, offset: 0 });
                continue;
            };
            self.began = true;
            let length = open.file.metadata()?.len();
            if length < open.offset {
                (open.offset, piece.anew) = (0, true);
            }
            if length - open.offset > behind.max(max as u64) {
                open.offset = length - max as u64;
                piece.skipped = true;
            }
            if read_on(open, max, &mut piece.bytes)? {
                break;
            }
            let identity = identity(&open.file.metadata()?);
            if self.is_at(0, identity)? {
                break;
            }
            // What came before it was moved aside: nothing is written to it since.
            if self.open.as_mut().map(|open| read_on(open, max, &mut piece.bytes)).transpose()? == Some(true)
            {
                break;
            }
            let aside = (1..=MAX_ASIDE).find_map(|place| match self.is_at(place, identity) {
                Ok(false) => None,
                found => Some(found.map(|_| place)),
            });
            match aside.transpose()? {
                // Gone, and what there is begins with the oldest file.
                None => self.open = None,
                Some(place) => match open_plain(&self.at(place - 1))? {
                    Some((file, _)) => self.open = Some(Open { file, offset: 0 }),
                    None => break,
                },
            }
        }
        Ok(piece)
    }

    /// Whether there ever was a log.
    pub(super) fn has_begun(&self) -> bool {
        self.began
    }

    /// The file itself, or one that was moved aside.
    fn at(&self, place: usize) -> PathBuf {
        match place.checked_sub(1) {
            None => self.path.clone(),
            Some(aside) => {
                let mut path = self.path.clone().into_os_string();
                path.push(format!(".{aside}"));
                path.into()
            }
        }
    }

    fn is_at(&self, place: usize, file: (u64, u64)) -> io::Result<bool> {
        Ok(look(&self.at(place))?.is_some_and(|found| identity(&found) == file))
    }

    /// Where the log begins.
    fn oldest(&self) -> io::Result<usize> {
        for place in 1..=MAX_ASIDE {
            if look(&self.at(place))?.is_none() {
                return Ok(place - 1);
            }
        }
        Ok(MAX_ASIDE)
    }
}

/// Whether there was anything.
fn read_on(open: &mut Open, max: usize, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = vec![0; max];
    let length = open.file.read_at(&mut buffer, open.offset)?;
    buffer.truncate(length);
    open.offset += length as u64;
    *bytes = buffer;
    Ok(length > 0)
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

fn look(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn open_plain(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // The log daemon makes the next file for root alone; what was moved aside can still be read.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            UNREADABLE.call_once(|| {
                tracing::warn!(
                    path = %path.display(),
                    "a console's log is not ours to read: raise max_size in virtlogd.conf, or let the unit have \
                     CAP_DAC_READ_SEARCH"
                );
            });
            return Ok(None);
        }
        opened => opened?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("the console's log is no plain file"));
    }
    Ok(Some((file, found)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Log(tempfile::TempDir);

    impl Log {
        fn at(&self, place: usize) -> PathBuf {
            let aside = place.checked_sub(1).map(|aside| format!(".{aside}")).unwrap_or_default();
            self.0.path().join(format!("vm.log{aside}"))
        }

        fn write(&self, text: &str) {
            let mut file = OpenOptions::new().append(true).create(true).open(self.at(0)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        /// As the log daemon does it.
        fn rotate(&self, kept: usize) {
            for place in (0..kept).rev() {
                if self.at(place).exists() {
                    fs::rename(self.at(place), self.at(place + 1)).unwrap();
                }
            }
        }

        fn reader(&self, max: u64) -> LogReader {
            LogReader::before_end(self.at(0), max).unwrap()
        }
    }

    fn next(reader: &mut LogReader) -> (String, bool, bool) {
        let Piece { bytes, anew, skipped } = reader.read(4, 100).unwrap();
        (String::from_utf8(bytes).unwrap(), anew, skipped)
    }

    fn piece(text: &str, anew: bool, skipped: bool) -> (String, bool, bool) {
        (text.to_owned(), anew, skipped)
    }

    #[test]
    fn the_end_is_given_and_then_what_follows() {
        let log = Log(tempfile::tempdir().unwrap());
        let mut early = log.reader(5);
        assert_eq!(next(&mut early), piece("", false, false));
        log.write("abcdefgh");
        assert_eq!(next(&mut early), piece("abcd", false, false), "the log was not there before");
        let mut reader = log.reader(5);
        assert_eq!(next(&mut reader), piece("defg", false, true));
        assert_eq!(next(&mut reader), piece("h", false, false));
        assert_eq!(next(&mut reader), piece("", false, false));
        log.write("ij");
        assert_eq!(next(&mut reader), piece("ij", false, false));
    }

    #[test]
    fn what_was_moved_aside_is_read_to_its_end_and_on() {
        let log = Log(tempfile::tempdir().unwrap());
        log.write("ab");
        let mut reader = log.reader(9);
        assert_eq!(next(&mut reader), piece("ab", false, false));
        for text in ["cd", "ef", "gh"] {
            log.write(text);
            log.rotate(3);
        }
        log.write("ij");
        for text in ["cd", "ef", "gh", "ij", ""] {
            assert_eq!(next(&mut reader), piece(text, false, false));
        }
        assert_eq!(next(&mut log.reader(5)), piece("f", false, true), "an end over three files");
        // It fell behind what is kept.
        for text in ["kl", "mn", "op", "qr"] {
            log.write(text);
            log.rotate(3);
        }
        let rest: Vec<_> = (0..5).map(|_| next(&mut reader)).collect();
        assert_eq!(rest[0], piece("kl", false, false), "the file that was open is read to its end");
        assert_eq!(
            rest[1..4],
            [piece("mn", true, false), piece("op", false, false), piece("qr", false, false)]
        );
        assert_eq!(rest[4], piece("", false, false), "no file is there to be written to");
        log.write("st");
        assert_eq!(next(&mut reader), piece("st", false, false));
    }

    #[test]
    fn a_log_that_begins_anew_says_so() {
        let log = Log(tempfile::tempdir().unwrap());
        log.write("abc");
        let mut reader = log.reader(9);
        assert_eq!(next(&mut reader), piece("abc", false, false));
        fs::remove_file(log.at(0)).unwrap();
        assert_eq!(next(&mut reader), piece("", false, false), "nothing is there yet");
        log.write("de");
        assert_eq!(next(&mut reader), piece("de", true, false));
        fs::write(log.at(0), "f").unwrap();
        assert_eq!(next(&mut reader), piece("f", true, false), "emptied in its place");
    }

    #[test]
    fn who_is_far_behind_loses_the_middle_and_is_told() {
        let log = Log(tempfile::tempdir().unwrap());
        log.write("a");
        let mut reader = log.reader(9);
        assert_eq!(next(&mut reader), piece("a", false, false));
        log.write(&("x".repeat(200) + "tail"));
        assert_eq!(next(&mut reader), piece("tail", false, true));
        assert_eq!(next(&mut reader), piece("", false, false));
    }

    #[test]
    fn only_plain_files_are_read() {
        let log = Log(tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink("/etc/hostname", log.at(0)).unwrap();
        LogReader::before_end(log.at(0), 4).unwrap_err();
        fs::remove_file(log.at(0)).unwrap();
        fs::create_dir(log.at(0)).unwrap();
        LogReader::before_end(log.at(0), 4).unwrap_err();
    }
}

//! Bounded reading of small files. What `/proc` holds is written by the kernel, but its size is
//! chosen by whoever runs processes or mounts file systems here.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// At most `limit` bytes from the beginning of a file.
pub(crate) fn bytes(path: impl AsRef<Path>, limit: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    File::open(path)?.take(limit as u64).read_to_end(&mut out)?;
    Ok(out)
}

/// The same as text; what is no UTF-8 is replaced.
pub(crate) fn text(path: impl AsRef<Path>, limit: usize) -> io::Result<String> {
    bytes(path, limit).map(|raw| {
        String::from_utf8(raw).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    })
}

/// The first line, trimmed; `None` if the file is missing or empty.
pub(crate) fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = text(path, 4096).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// `text` without control characters and of at most `limit` characters.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

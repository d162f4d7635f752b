//! Whether a file is what it was said to be, once all its bytes are there.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{
    detect::detect,
    disc::{Disc, Volume, Wrong},
    failure::Failure,
};
use crate::{
    images::{DiskRefusal, check_disk},
    vm::{DiskFacts, ImageFormat, MediumFacts},
};

/// What is looked at to say what a file is instead.
const HEAD: usize = 4096;

/// Looks at a file; gives what it was recognised as. Blocking.
pub(super) fn check(file: &mut File, disk: Option<&DiskFacts>) -> Result<MediumFacts, Failure> {
    let read = |error: io::Error| Failure::disk("reading what was brought in", &error);
    let length = file.metadata().map_err(read)?.len();
    let mut head = vec![0; HEAD.min(usize::try_from(length).unwrap_or(HEAD))];
    file.read_exact_at(&mut head, 0).map_err(read)?;
    let instead = instead(&head);
    let not_an_image = |wanted: &str| {
        let what = instead.unwrap_or("something else");
        Failure::over("NOT_AN_IMAGE", format!("it is not {wanted}, but {what}"))
    };
    let Some(disk) = disk else { return check_disc(file, length, &not_an_image) };
    // A raw disk has no mark of its own: all that can be told is what it clearly is not.
    if disk.format == ImageFormat::Raw && instead.is_some() {
        return Err(not_an_image("a raw disk"));
    }
    match check_disk(file, disk.format) {
        Ok(()) => Ok(MediumFacts { os_family: Some(disk.os_family), ..MediumFacts::default() }),
        Err(DiskRefusal::Read(error)) => Err(read(error)),
        Err(DiskRefusal::NotAnImage(_)) => Err(not_an_image("a qcow2 disk")),
        Err(DiskRefusal::Truncated(why)) => Err(Failure::over("TRUNCATED", why)),
        Err(DiskRefusal::Unusable(why)) => Err(Failure::over("IMAGE_REFUSED", why)),
    }
}

fn check_disc(
    file: &File,
    length: u64,
    not_an_image: &dyn Fn(&str) -> Failure,
) -> Result<MediumFacts, Failure> {
    let disc = Disc::new(file, length);
    let volume = Volume::open(&disc).map_err(|wrong| match wrong {
        Wrong::NoDisc => not_an_image("an ISO 9660 disc"),
        Wrong::Truncated(needed) => Failure::over(
            "TRUNCATED",
            format!("the disc says that it has {needed} bytes; these are {length}"),
        ),
        Wrong::Malformed(why) => {
            Failure::over("IMAGE_REFUSED", format!("it is a broken ISO 9660 disc: {why}"))
        }
    })?;
    let traces =
        disc.traces(&volume).map_err(|error| Failure::disk("reading what was brought in", &error))?;
    Ok(detect(&traces))
}

/// What a file is that begins like this, where that is known: what people get instead of an image.
fn instead(head: &[u8]) -> Option<&'static str> {
    const MARKS: [(&[u8], &str); 15] = [
        (b"QFI\xfb", "a qcow2 disk"),
        (b"KDMV", "a VMDK disk"),
        (b"# Disk DescriptorFile", "the description of a VMDK disk"),
        (b"<<< ", "a VDI disk"),
        (b"vhdxfile", "a VHDX disk"),
        (b"conectix", "a VHD disk"),
        (b"\x1f\x8b", "a gzip file; unpack it first"),
        (b"\xfd7zXZ\0", "an xz file; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it first"),
        (b"BZh", "a bzip2 file; unpack it first"),
        (b"PK\x03\x04", "a zip file; unpack it first"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file; unpack it first"),
        (b"\x7fELF", "a program"),
        (b"-----BEGIN ", "a signature or a key"),
        (b"%PDF-", "a PDF document"),
    ];
    if head.is_empty() {
        return Some("an empty file");
    }
    if let Some((_, what)) = MARKS.iter().find(|(mark, _)| head.starts_with(mark)) {
        return Some(what);
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins = |mark: &[u8]| text.get(..mark.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(mark));
    let holds = |mark: &[u8]| text.windows(mark.len()).any(|part| part.eq_ignore_ascii_case(mark));
    let readable = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..);
    if begins(b"<!doctype html") || begins(b"<html") || (begins(b"<") && holds(b"<html")) {
        Some("an HTML page")
    } else if begins(b"<?xml") {
        Some("an XML document")
    } else if !head.iter().all(readable) {
        None
    } else if begins(b"{") || begins(b"[") {
        Some("a JSON document")
    } else {
        Some("a text")
    }
}

#[cfg(test)]
mod tests {
    use super::instead;

    #[test]
    fn what_comes_instead_of_an_image_is_named() {
        for (head, what) in [
            (&b""[..], Some("an empty file")),
            (b"<!DOCTYPE html><html>", Some("an HTML page")),
            (b"\xef\xbb\xbf \r\n<HTML lang=en>", Some("an HTML page")),
            (b"<!-- saved --><html>", Some("an HTML page")),
            (b"<?xml version='1.0'?><Error/>", Some("an XML document")),
            (b"{\"error\": 404}", Some("a JSON document")),
            (b"Not Found\n", Some("a text")),
            (b"\x1f\x8b\x08", Some("a gzip file; unpack it first")),
            (b"QFI\xfb\0\0\0\x03", Some("a qcow2 disk")),
            (b"\xeb\x63\x90\0\0", None),
            (b"\0\0\0\0", None),
        ] {
            assert_eq!(instead(head), what, "{head:?}");
        }
    }
}

//! Storage volumes: overlays made, found and removed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use quick_xml::{
    Writer,
    events::{BytesStart, BytesText, Event},
};
use virt::{error::ErrorNumber, storage_pool::StoragePool, storage_vol::StorageVol};

use super::session::{Call, absent_as_none};
use crate::{
    domain_xml::{
        Malformed,
        document::{Document, Element},
    },
    failpoint::failpoint,
    hypervisor::{HypervisorError, OverlayVolume},
};

/// Only for a volume that nothing uses yet: what stands there under its name and is not what is
/// asked for is deleted.
pub(super) fn create_overlay(
    call: &Call<'_>,
    volume: &OverlayVolume,
    limit: Duration,
) -> Result<PathBuf, HypervisorError> {
    let xml = overlay_xml(volume).map_err(|reason| call.invalid(reason))?;
    let is_it = |description: &str| is_overlay(description, volume);
    create_as(call, (&volume.pool, &volume.name), &xml, limit, is_it)
}

/// Makes a volume from its XML; `is_it` tells from libvirt's description whether one that stands
/// there is the one asked for. While another volume of the pool is being made, that cannot be told, and
/// the error is a [`HypervisorError::Deadline`] of `limit`.
pub(super) fn create_as(
    call: &Call<'_>,
    (pool_name, name): (&str, &str),
    xml: &str,
    limit: Duration,
    is_it: impl FnOnce(&str) -> Result<bool, Malformed>,
) -> Result<PathBuf, HypervisorError> {
    let pool = active_pool(call, pool_name)?;
    let create = || call.ask(|_| StorageVol::create_xml(&pool, xml, 0));
    if find(call, &pool, name)?.is_none() {
        match create() {
            // A file of that name which the pool has not heard of, left by a crash at the wrong
            // moment, or a volume that somebody else made just now.
            Err(error) if exists_already(&error) => {}
            created => return path_of(call, &created?),
        }
    }
    // What the pool remembers is what was once asked for; refreshed, it tells what the file is.
    // That is refused while a volume of the pool is being made, so nothing unfinished is judged.
    call.ask(|_| pool.refresh(0).map(drop)).map_err(|error| still_made(call, error, limit))?;
    if let Some(standing) = find(call, &pool, name)? {
        let description = call.ask(|_| standing.xml_desc(0))?;
        if is_it(&description).map_err(|error| call.invalid(error))? {
            return path_of(call, &standing);
        }
        tracing::warn!(
            pool = pool_name,
            volume = name,
            "a volume of that name is not the one to be made; it is replaced"
        );
        absent_as_none(call.ask(|_| standing.delete(0).map(drop)))?;
        failpoint!("remake-volume.deleted");
    }
    path_of(call, &create()?)
}

pub(super) fn path(call: &Call<'_>, pool: &str, name: &str) -> Result<Option<PathBuf>, HypervisorError> {
    let pool = active_pool(call, pool)?;
    path_in(call, &pool, name)
}

pub(super) fn delete(call: &Call<'_>, pool: &str, name: &str) -> Result<(), HypervisorError> {
    let pool = active_pool(call, pool)?;
    let Some(volume) = find(call, &pool, name)? else { return Ok(()) };
    absent_as_none(call.ask(|_| volume.delete(0).map(drop))).map(drop)
}

fn path_in(call: &Call<'_>, pool: &StoragePool, name: &str) -> Result<Option<PathBuf>, HypervisorError> {
    let Some(volume) = find(call, pool, name)? else { return Ok(None) };
    absent_as_none(path_of(call, &volume))
}

pub(super) fn find(
    call: &Call<'_>,
    pool: &StoragePool,
    name: &str,
) -> Result<Option<StorageVol>, HypervisorError> {
    absent_as_none(call.ask(|_| pool.lookup_storage_vol_by_name(name)))
}

pub(super) fn path_of(call: &Call<'_>, volume: &StorageVol) -> Result<PathBuf, HypervisorError> {
    call.ask(|_| volume.path()).map(PathBuf::from)
}

/// The pool, started if it was not: an inactive pool knows no volumes, and "not there" would be
/// a lie.
pub(super) fn active_pool(call: &Call<'_>, name: &str) -> Result<StoragePool, HypervisorError> {
    let pool = call.ask(|conn| conn.lookup_storage_pool_by_name(name))?;
    if call.ask(|_| pool.is_active())? {
        return Ok(pool);
    }
    match call.ask(|_| pool.create(0).map(drop)) {
        Ok(()) => Ok(pool),
        // Somebody else may have been faster.
        Err(error) => {
            if call.ask(|_| pool.is_active())? {
                Ok(pool)
            } else {
                Err(error)
            }
        }
    }
}

/// libvirt lets nobody touch a volume that it is still making, nor its pool as a whole: whoever's call
/// that is, it is not over.
pub(super) fn still_made(call: &Call<'_>, error: HypervisorError, limit: Duration) -> HypervisorError {
    if is_occupied(&error) { HypervisorError::Deadline { operation: call.operation(), limit } } else { error }
}

pub(super) fn is_occupied(error: &HypervisorError) -> bool {
    matches!(
        error,
        HypervisorError::Refused { source, .. } if matches!(
            source.code().known(),
            Some(ErrorNumber::OperationInvalid | ErrorNumber::InternalError)
        )
    )
}

pub(super) fn exists_already(error: &HypervisorError) -> bool {
    matches!(
        error,
        HypervisorError::Refused { source, .. } if matches!(
            source.code().known(),
            Some(ErrorNumber::StorageVolExist | ErrorNumber::OperationInvalid)
        )
    )
}

/// Whether libvirt's description of a volume is of this overlay: capacity, format, and what it
/// stands on. A half-made one lacks some of it: an empty file is a raw disk of no size.
fn is_overlay(description: &str, volume: &OverlayVolume) -> Result<bool, Malformed> {
    let document = Document::parse(description)?;
    let find = |parent, name| document.children(parent, name).next();
    let root = document.root();
    let text = |element: Option<&Element<'_>>| element.map(|element| document.text_of(element)).transpose();
    let format = |parent| find(parent, "format").and_then(|format| format.value("type"));

    // libvirt tells bytes unless it says otherwise, which it does not; qcow2 is made in KiB.
    let capacity = text(find(root, "capacity"))?.and_then(|bytes| bytes.trim().parse::<u64>().ok());
    let backing = find(root, "backingStore");
    let backing_path = text(backing.and_then(|backing| find(backing, "path")))?;
    Ok(capacity.map(|bytes| bytes.div_ceil(1024)) == Some(volume.capacity_bytes.div_ceil(1024))
        && find(root, "target").and_then(format) == Some("qcow2")
        && backing_path.as_deref().map(Path::new) == Some(volume.backing_path.as_path())
        && backing.and_then(format) == Some(volume.backing_format.as_str()))
}

/// The XML of a qcow2 volume over an image's disk. The backing format is always written down: a
/// probed one lets a guest choose which of the host's files it reads.
///
/// # Errors
/// What of the backing disk cannot be written down.
pub fn overlay_xml(volume: &OverlayVolume) -> Result<String, String> {
    if !matches!(volume.backing_format.as_str(), "qcow2" | "raw") {
        return Err(format!("{:?} is no format for a backing disk", volume.backing_format));
    }
    let backing = volume.backing_path.to_str().ok_or("the backing disk's path is not UTF-8")?;
    if !volume.backing_path.is_absolute() {
        return Err("the backing disk's path is not absolute".to_owned());
    }
    let capacity = volume.capacity_bytes.to_string();
    let mut writer = Writer::new(Vec::new());
    write_overlay(&mut writer, volume, &capacity, backing).map_err(|error| error.to_string())?;
    String::from_utf8(writer.into_inner()).map_err(|error| error.to_string())
}

fn write_overlay(
    writer: &mut Writer<Vec<u8>>,
    volume: &OverlayVolume,
    capacity: &str,
    backing: &str,
) -> std::io::Result<()> {
    element(writer, BytesStart::new("volume"), |writer| {
        text(writer, BytesStart::new("name"), &volume.name)?;
        text(writer, BytesStart::new("capacity").with_attributes([("unit", "bytes")]), capacity)?;
        element(writer, BytesStart::new("target"), |writer| format(writer, "qcow2"))?;
        element(writer, BytesStart::new("backingStore"), |writer| {
            text(writer, BytesStart::new("path"), backing)?;
            format(writer, &volume.backing_format)
        })
    })
}

/// The XML of a qcow2 volume that stands on nothing.
///
/// # Errors
/// Why it cannot be written.
pub fn plain_xml(name: &str, capacity_bytes: u64) -> Result<String, String> {
    let capacity = capacity_bytes.to_string();
    let mut writer = Writer::new(Vec::new());
    let written = element(&mut writer, BytesStart::new("volume"), |writer| {
        text(writer, BytesStart::new("name"), name)?;
        text(writer, BytesStart::new("capacity").with_attributes([("unit", "bytes")]), &capacity)?;
        element(writer, BytesStart::new("target"), |writer| format(writer, "qcow2"))
    });
    written.map_err(|error| error.to_string())?;
    String::from_utf8(writer.into_inner()).map_err(|error| error.to_string())
}

pub(super) fn format(writer: &mut Writer<Vec<u8>>, name: &str) -> std::io::Result<()> {
    writer.write_event(Event::Empty(BytesStart::new("format").with_attributes([("type", name)])))
}

pub(super) fn text(
    writer: &mut Writer<Vec<u8>>,
    start: BytesStart<'_>,
    content: &str,
) -> std::io::Result<()> {
    element(writer, start, |writer| writer.write_event(Event::Text(BytesText::new(content))))
}

pub(super) fn element(
    writer: &mut Writer<Vec<u8>>,
    start: BytesStart<'_>,
    content: impl FnOnce(&mut Writer<Vec<u8>>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let end = start.to_end().into_owned();
    writer.write_event(Event::Start(start))?;
    content(writer)?;
    writer.write_event(Event::End(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay() -> OverlayVolume {
        OverlayVolume {
            pool: "p".to_owned(),
            name: "n.qcow2".to_owned(),
            capacity_bytes: 1 << 30,
            backing_path: PathBuf::from("/images/debian.qcow2"),
            backing_format: "qcow2".to_owned(),
        }
    }

    #[test]
    fn the_xml_names_both_formats() {
        assert_eq!(
            overlay_xml(&overlay()).unwrap(),
            "<volume><name>n.qcow2</name><capacity unit=\"bytes\">1073741824</capacity>\
             <target><format type=\"qcow2\"/></target>\
             <backingStore><path>/images/debian.qcow2</path><format type=\"qcow2\"/></backingStore></volume>"
        );
    }

    #[test]
    fn text_stays_text() {
        let nasty = "</name><x a='\"&";
        let mut volume = overlay();
        volume.name = nasty.to_owned();
        volume.backing_path = PathBuf::from(format!("/images/{nasty}"));
        let xml = overlay_xml(&volume).unwrap();
        let mut reader = quick_xml::Reader::from_str(&xml);
        let (mut starts, mut text) = (Vec::new(), String::new());
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) => starts.push(start.name().as_ref().to_owned()),
                Event::Text(part) => text.push_str(&part),
                Event::GeneralRef(reference) => match reference.as_ref() {
                    "lt" => text.push('<'),
                    "gt" => text.push('>'),
                    "amp" => text.push('&'),
                    "quot" => text.push('"'),
                    "apos" => text.push('\''),
                    other => panic!("unexpected &{other};"),
                },
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(starts, ["volume", "name", "capacity", "target", "backingStore", "path"]);
        assert_eq!(text, format!("{nasty}1073741824/images/{nasty}"));
    }

    #[test]
    fn only_the_whole_overlay_is_the_overlay() {
        let volume = OverlayVolume { backing_path: PathBuf::from("/images/a & <b>.qcow2"), ..overlay() };
        let whole = "<volume type='file'><name>n.qcow2</name><key>/p/n.qcow2</key>\
             <capacity unit='bytes'>1073741824</capacity><allocation unit='bytes'>200704</allocation>\
             <target><path>/p/n.qcow2</path><format type='qcow2'/></target><backingStore>\
             <path>/images/a &amp; &lt;b&gt;.qcow2</path><format type='qcow2'/></backingStore></volume>";
        assert!(is_overlay(whole, &volume).unwrap());
        let (start, end) = (whole.find("<backingStore>").unwrap(), whole.find("</volume>").unwrap());
        let bare = format!("{}{}", &whole[..start], &whole[end..]);
        let others = [
            whole.replace("1073741824", "0"),
            whole.replace("1073741824", "2147483648"),
            whole.replace("n.qcow2</path><format type='qcow2'", "n.qcow2</path><format type='raw'"),
            whole.replace("/images/a", "/images/c"),
            whole.replace("<format type='qcow2'/></backingStore>", "<format type='raw'/></backingStore>"),
            bare,
            "<volume/>".to_owned(),
        ];
        for other in others {
            assert_ne!(other, whole);
            assert!(!is_overlay(&other, &volume).unwrap(), "{other}");
        }
        assert!(is_overlay("<volume>", &volume).is_err());
    }

    #[test]
    fn formats_that_could_reach_other_files_are_refused() {
        for backing_format in ["vmdk", "auto", "", "raw\"/><x"] {
            let volume = OverlayVolume { backing_format: backing_format.to_owned(), ..overlay() };
            assert!(overlay_xml(&volume).is_err(), "{backing_format:?}");
        }
        let volume = OverlayVolume { backing_path: PathBuf::from("relative"), ..overlay() };
        assert!(overlay_xml(&volume).is_err());
    }
}

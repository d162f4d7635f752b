//! The volumes of disks that are plugged in later, and their growth.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use virt::{storage_vol::StorageVol, sys};

use crate::{
    domain_xml::{Malformed, document::Document},
    hypervisor::{
        BlankVolume, HypervisorError, VolumeFacts, VolumePlace,
        libvirt::{
            session::{Call, absent_as_none},
            storage::directory,
            volumes::{active_pool, create_as, find, path_of, plain_xml},
        },
    },
    vm::VmId,
};

pub(super) fn create(
    call: &Call<'_>,
    volume: &BlankVolume,
    limit: Duration,
) -> Result<PathBuf, HypervisorError> {
    let xml = plain_xml(&volume.name, volume.capacity_bytes).map_err(|error| call.invalid(error))?;
    let is_it = |description: &str| is_blank(description, volume);
    create_as(call, (&volume.pool, &volume.name), &xml, limit, is_it)
}

pub(super) fn facts(call: &Call<'_>, pool: &str, name: &str) -> Result<Option<VolumeFacts>, HypervisorError> {
    let pool = active_pool(call, pool)?;
    let volume = match find(call, &pool, name)? {
        Some(volume) => volume,
        None => {
            // A file that somebody put there since the pool last looked. Not refreshed for nothing: where
            // that fails, libvirt stops the pool.
            if let Some(directory) = directory(call, &pool)?
                && matches!(fs::symlink_metadata(directory.join(name)), Err(error) if error.kind() == ErrorKind::NotFound)
            {
                return Ok(None);
            }
            call.ask(|_| pool.refresh(0).map(drop))?;
            let Some(volume) = find(call, &pool, name)? else { return Ok(None) };
            volume
        }
    };
    let description = call.ask(|_| volume.xml_desc(0))?;
    let read = read(&description).map_err(|error| call.invalid(error))?;
    let path = path_of(call, &volume)?;
    Ok(Some(VolumeFacts { path, capacity_bytes: read.capacity, format: read.format, is_file: read.is_file }))
}

pub(super) fn at(call: &Call<'_>, path: &Path) -> Result<Option<VolumePlace>, HypervisorError> {
    let path = path.to_str().ok_or_else(|| call.invalid("the path of a disk is not UTF-8"))?;
    let Some(volume) = absent_as_none(call.ask(|conn| conn.lookup_storage_vol_by_path(path)))? else {
        return Ok(None);
    };
    let pool = call.ask(|_| volume.lookup_storage_pool())?;
    Ok(Some(VolumePlace {
        pool: call.ask(|_| pool.name())?,
        name: call.ask(|_| volume.name())?,
        capacity_bytes: capacity(call, &volume)?,
    }))
}

pub(super) fn grow(call: &Call<'_>, pool: &str, name: &str, bytes: u64) -> Result<(), HypervisorError> {
    let pool = active_pool(call, pool)?;
    let volume = call.ask(|_| pool.lookup_storage_vol_by_name(name))?;
    if capacity(call, &volume)? >= bytes {
        return Ok(());
    }
    call.ask(|_| volume.resize(bytes, 0).map(drop))
}

fn capacity(call: &Call<'_>, volume: &StorageVol) -> Result<u64, HypervisorError> {
    let description = call.ask(|_| volume.xml_desc(0))?;
    Ok(read(&description).map_err(|error| call.invalid(error))?.capacity)
}

pub(super) fn grow_live(call: &Call<'_>, id: VmId, target: &str, bytes: u64) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    if call.ask(|_| domain.block_info(target, 0))?.capacity >= bytes {
        return Ok(());
    }
    call.ask(|_| domain.block_resize(target, bytes, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES).map(drop))
}

struct Read {
    capacity: u64,
    format: Option<String>,
    is_file: bool,
    is_backed: bool,
}

fn read(description: &str) -> Result<Read, Malformed> {
    let document = Document::parse(description)?;
    let root = document.root();
    let child = |name| document.children(root, name).next();
    let capacity = child("capacity").map(|capacity| document.text_of(capacity)).transpose()?;
    // libvirt tells bytes unless it says otherwise, which it does not.
    let capacity = capacity.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
    let format = child("target").and_then(|target| document.children(target, "format").next());
    let is_backed =
        child("backingStore").is_some_and(|store| document.children(store, "path").next().is_some());
    Ok(Read {
        capacity,
        format: format.and_then(|format| format.value("type")).map(str::to_owned),
        is_file: root.value("type").is_none_or(|kind| kind == "file"),
        is_backed,
    })
}

/// Whether a volume is what was asked for. A half-made one is an empty file: raw, of no size.
fn is_blank(description: &str, volume: &BlankVolume) -> Result<bool, Malformed> {
    let read = read(description)?;
    Ok(read.capacity == volume.capacity_bytes && read.format.as_deref() == Some("qcow2") && !read.is_backed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_volume_is_the_volume() {
        let volume = BlankVolume { pool: "p".to_owned(), name: "a<b".to_owned(), capacity_bytes: 1 << 20 };
        assert_eq!(
            plain_xml(&volume.name, volume.capacity_bytes).unwrap(),
            "<volume><name>a&lt;b</name><capacity unit=\"bytes\">1048576</capacity>\
             <target><format type=\"qcow2\"/></target></volume>"
        );
        let whole = "<volume type='file'><name>a</name><capacity unit='bytes'>1048576</capacity>\
             <target><path>/p/a</path><format type='qcow2'/></target></volume>";
        assert!(is_blank(whole, &volume).unwrap());
        for other in [
            whole.replace("1048576", "0"),
            whole.replace("qcow2", "raw"),
            whole.replace("</volume>", "<backingStore><path>/etc/shadow</path></backingStore></volume>"),
        ] {
            assert!(!is_blank(&other, &volume).unwrap(), "{other}");
        }
        assert!(read(whole).unwrap().is_file);
        assert!(!read(&whole.replace("'file'", "'block'")).unwrap().is_file);
    }
}

//! What a storage pool holds.
//!
//! libvirt hears neither of files that others remove nor of images that grow, unless it refreshes the
//! pool; and where a refresh fails, it stops the pool: an error that would have passed unmounts what
//! guests run on. So the directory of a pool is read here, and libvirt only asked to refresh what was just
//! seen to answer.

use std::{
    collections::HashSet,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use virt::{connect::Connect, storage_pool::StoragePool, storage_vol::StorageVol};

use super::{
    LibvirtHypervisor,
    error::is_connection_failure,
    gate::{Lane, Subject},
    session::Call,
    volumes::is_occupied,
};
use crate::{
    domain_xml::{Malformed, document::Document},
    hypervisor::{HypervisorError, PoolContents, Storage},
};

/// How the names of volumes begin that are made for VMs.
const OURS: &str = "infinibay-";

#[async_trait]
impl Storage for LibvirtHypervisor {
    async fn pool(&self, name: &str) -> Result<PoolContents, HypervisorError> {
        let operation = format!("look through pool {name:?}");
        let name = name.to_owned();
        let subject = Some(Subject::Pool(name.clone()));
        self.call(operation, subject, Lane::Work, move |call| look_through(call, &name)).await
    }
}

fn look_through(call: &Call<'_>, name: &str) -> Result<PoolContents, HypervisorError> {
    let pool = call.ask(|conn| conn.lookup_storage_pool_by_name(name))?;
    if !call.ask(|_| pool.is_active())? {
        return Err(call.invalid("the pool is not active"));
    }
    let Some(directory) = directory(call, &pool)? else { return remembered(call, &pool) };
    match Files::read(&directory) {
        Ok(files) => {
            let known = names(call, &pool)?;
            let is_unheard_of = |file: &&String| file.starts_with(OURS) && !known.contains(*file);
            if files.names.iter().any(|file| is_unheard_of(&file)) {
                refresh(call, &pool, name)?;
            }
            let Files { names: volumes, capacity_bytes, available_bytes } = files;
            Ok(PoolContents { capacity_bytes, available_bytes, volumes })
        }
        // Not for us to read: what libvirt finds has to do.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            refresh(call, &pool, name)?;
            remembered(call, &pool)
        }
        // The pools of libvirt's test driver are in its memory alone.
        Err(error) if error.kind() == ErrorKind::NotFound && is_test_driver(call)? => remembered(call, &pool),
        Err(error) => Err(call.invalid(format_args!("its directory cannot be read: {error}"))),
    }
}

/// What stands in a directory, and what room there is.
struct Files {
    names: HashSet<String>,
    capacity_bytes: u64,
    available_bytes: u64,
}

impl Files {
    fn read(directory: &Path) -> io::Result<Self> {
        let mut names = HashSet::new();
        for entry in fs::read_dir(directory)? {
            // A name that is no text is none of a volume's.
            names.extend(entry?.file_name().into_string());
        }
        let space = rustix::fs::statvfs(directory)?;
        Ok(Self {
            names,
            capacity_bytes: space.f_blocks.saturating_mul(space.f_frsize),
            available_bytes: space.f_bfree.saturating_mul(space.f_frsize),
        })
    }
}

/// What libvirt knows of a pool without looking.
fn remembered(call: &Call<'_>, pool: &StoragePool) -> Result<PoolContents, HypervisorError> {
    let volumes = names(call, pool)?;
    let info = call.ask(|_| pool.info())?;
    Ok(PoolContents { capacity_bytes: info.capacity, available_bytes: info.available, volumes })
}

fn names(call: &Call<'_>, pool: &StoragePool) -> Result<HashSet<String>, HypervisorError> {
    let volumes = call.ask(|_| pool.list_all_volumes(0))?;
    // Names come with the list; asking for them sends nothing.
    let names = volumes.iter().map(StorageVol::name).collect::<Result<_, _>>();
    names.map_err(|error| call.sort(error))
}

/// While a volume of the pool is being made libvirt refuses, and what it remembers stands.
fn refresh(call: &Call<'_>, pool: &StoragePool, name: &str) -> Result<(), HypervisorError> {
    match call.ask_raw(|_| pool.refresh(0).map(drop)) {
        Ok(()) => Ok(()),
        Err(error) if is_connection_failure(&error) => Err(call.sort(error)),
        Err(error) => {
            let error = call.sort(error);
            if is_occupied(&error) {
                tracing::debug!(pool = name, %error, "the pool was not refreshed");
            } else {
                tracing::warn!(pool = name, %error, "the pool could not be refreshed, which stops it");
            }
            Ok(())
        }
    }
}

/// Where a pool of files keeps them; other pools have no such place.
pub(super) fn directory(call: &Call<'_>, pool: &StoragePool) -> Result<Option<PathBuf>, HypervisorError> {
    let description = call.ask(|_| pool.xml_desc(0))?;
    directory_in(&description).map_err(|error| call.invalid(error))
}

fn directory_in(description: &str) -> Result<Option<PathBuf>, Malformed> {
    let document = Document::parse(description)?;
    let root = document.root();
    if !matches!(root.value("type"), Some("dir" | "fs" | "netfs")) {
        return Ok(None);
    }
    let target = document.children(root, "target").next();
    let path = target.and_then(|target| document.children(target, "path").next());
    let path = path.map(|path| document.text_of(path)).transpose()?;
    Ok(path.map(PathBuf::from).filter(|path| path.is_absolute()))
}

fn is_test_driver(call: &Call<'_>) -> Result<bool, HypervisorError> {
    Ok(call.ask(Connect::driver_type)?.eq_ignore_ascii_case("test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pool_of_files_has_a_directory() {
        let pool = |kind: &str, path: &str| {
            directory_in(&format!(
                "<pool type='{kind}'><name>p</name><source><dir path='/other'/></source>\
                 <target><path>{path}</path></target></pool>"
            ))
            .unwrap()
        };
        for kind in ["dir", "fs", "netfs"] {
            assert_eq!(pool(kind, "/a &amp; b"), Some("/a & b".into()), "{kind}");
        }
        for (kind, path) in [("logical", "/dev/vg"), ("rbd", "/p"), ("dir", "p"), ("dir", "")] {
            assert_eq!(pool(kind, path), None, "{kind} {path}");
        }
        assert_eq!(directory_in("<pool type='dir'/>").unwrap(), None);
        assert!(directory_in("<pool>").is_err());
    }
}

//! Discs that are in their place and that the database knows nothing of: after it was lost, they come
//! back into the library, for VMs may have them in their drives. Nothing is taken on trust: what such a
//! file is, and what it hashes to, is looked at as if it had just been brought in.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use chrono::Utc;
use rustix::fs::OFlags;

use super::{MAX_MEDIA, check, sink};
use crate::{
    store::{FoundDisc, Store, StoreError},
    vm::{HostId, MediumId, ResourceName, disc_file_name, truncate_to_micros},
};

/// Why discs were not looked for, or not stored.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The directory could not be read.
    #[error("reading the directory of discs")]
    Disk(#[from] io::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A disc that the library did not know: in it now, or why not, for people.
pub type Found = (ResourceName, Result<(), String>);

/// Takes up the discs of a directory that have no row, while nobody imports anything; at most as many
/// as a library holds. A directory that is not there has none.
///
/// # Errors
/// See [`FindError`]. What was stored before stays.
pub async fn find_discs(store: &Store, host: HostId, dir: &Path) -> Result<Vec<Found>, FindError> {
    let place = dir.to_owned();
    let names = tokio::task::spawn_blocking(move || names(&place)).await.map_err(io::Error::other)??;
    let mut found = Vec::new();
    for name in names {
        if store.medium(host, &name).await?.is_some() {
            continue;
        }
        let path = dir.join(disc_file_name(&name));
        let looked = tokio::task::spawn_blocking({
            let path = path.clone();
            move || look(&path)
        });
        let disc = match looked.await.map_err(io::Error::other)? {
            Ok((bytes, sha256, facts)) => {
                FoundDisc { id: MediumId::generate(), host, name: name.clone(), path, bytes, sha256, facts }
            }
            Err(why) => {
                found.push((name, Err(why)));
                continue;
            }
        };
        if store.restore_disc(&disc, truncate_to_micros(Utc::now())).await? {
            found.push((name, Ok(())));
        }
    }
    Ok(found)
}

fn names(dir: &Path) -> io::Result<Vec<ResourceName>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let name =
            file.to_str().and_then(|file| file.strip_suffix(".iso")).and_then(|name| name.parse().ok());
        names.extend(name);
        if names.len() >= MAX_MEDIA as usize {
            break;
        }
    }
    names.sort_by(|a: &ResourceName, b| a.as_str().cmp(b.as_str()));
    Ok(names)
}

/// Length, digest and nature of a plain file. Blocking, for as long as it takes to read it.
fn look(path: &Path) -> Result<(u64, String, crate::vm::MediumFacts), String> {
    let unreadable = |error: io::Error| format!("it cannot be read: {error}");
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file = File::options().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err("it is no plain file".to_owned());
    }
    let facts = check::check(&mut file, None).map_err(|failure| failure.message)?;
    let sha256 = sink::sha256_of(&mut file).map_err(unreadable)?;
    Ok((found.len(), sha256, facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_discs_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("page.iso"), "<html>").unwrap();
        fs::write(at("disc.img"), "").unwrap();
        fs::write(at(".part.iso"), "").unwrap();
        fs::create_dir(at("folder.iso")).unwrap();
        std::os::unix::fs::symlink(at("page.iso"), at("link.iso")).unwrap();
        let found: Vec<_> = names(dir.path()).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["folder", "link", "page"]);
        assert!(look(&at("page.iso")).unwrap_err().contains("an HTML page"));
        assert!(look(&at("folder.iso")).unwrap_err().contains("no plain file"));
        assert!(look(&at("link.iso")).unwrap_err().contains("cannot be read"));
        assert_eq!(names(&at("nothing")).unwrap(), Vec::new());
    }
}

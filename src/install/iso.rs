//! The medium that carries a seed: an ISO 9660 image, labelled as its reader looks for it, with Rock
//! Ridge and Joliet names, because plain ones are too short for `network-config`.

use std::{collections::BTreeMap, io::Cursor};

use hadris_iso::{
    joliet::JolietLevel,
    read::PathSeparator,
    rrip::RripOptions,
    write::{
        InputEntry, InputMetadata, InputTree, IsoImageWriter, estimator,
        options::{BaseIsoLevel, CreationFeatures, IsoFormatOptions},
    },
};

use super::seed::SeedFile;

/// The label that cloud-init looks for.
pub(super) const LABEL: &str = "cidata";
const SECTOR: usize = 2048;
/// Where the primary volume descriptor says how many sectors the volume has: two copies of a
/// 32-bit number, little-endian first.
const VOLUME_SECTORS_AT: usize = 16 * SECTOR + 80;
const MAX_NAME: usize = 64;
const MAX_FILES: usize = 128;
/// Longest label: what the primary volume descriptor has room for.
const MAX_LABEL: usize = 32;
const MAX_TOTAL: usize = 256 << 20;

/// Why there is no medium.
#[derive(Debug, thiserror::Error)]
pub enum IsoError {
    /// A file has a name that the medium cannot carry for every reader.
    #[error("{0:?} cannot be the name of a file on the seed medium")]
    Name(String),
    /// A label that readers would not see as it is.
    #[error("{0:?} cannot be the label of a medium")]
    Label(String),
    /// More than a seed ever has.
    #[error("the seed has more than {MAX_FILES} files, or more than {MAX_TOTAL} bytes")]
    TooLarge,
    /// The image could not be written.
    #[error("writing the seed medium")]
    Write(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was written makes no sense.
    #[error("the seed medium came out wrong: {0}")]
    Broken(&'static str),
}

/// The image of a medium for cloud-init, ready to be written to a file. Files stand in the root or
/// in one folder.
///
/// # Errors
/// See [`IsoError`].
pub fn build_iso(files: &[SeedFile]) -> Result<Vec<u8>, IsoError> {
    build_medium(LABEL, files)
}

/// The image of a medium with any label of 1 to 32 letters, digits and `_`.
///
/// # Errors
/// See [`IsoError`].
pub fn build_medium(label: &str, files: &[SeedFile]) -> Result<Vec<u8>, IsoError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if label.is_empty() || label.len() > MAX_LABEL || !label.chars().all(plain) {
        return Err(IsoError::Label(label.to_owned()));
    }
    let total: usize = files.iter().map(|file| file.contents.len()).sum();
    if files.len() > MAX_FILES || total > MAX_TOTAL {
        return Err(IsoError::TooLarge);
    }
    let tree = InputTree::new(PathSeparator::ForwardSlash, entries(files)?);
    let options = options(label);
    let room = usize::try_from(estimator::estimate_tree(&tree, &options).minimum_bytes())
        .map_err(|_| IsoError::TooLarge)?;
    let mut image = IsoImageWriter::create(Cursor::new(vec![0; room]), tree, options)
        .map_err(|e| IsoError::Write(e.into()))?
        .into_inner();
    let sectors = image
        .get(VOLUME_SECTORS_AT..VOLUME_SECTORS_AT + 4)
        .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
        .ok_or(IsoError::Broken("it has no volume descriptor"))?;
    let length = usize::try_from(u32::from_le_bytes(sectors))
        .ok()
        .and_then(|sectors| sectors.checked_mul(SECTOR))
        .ok_or(IsoError::Broken("its size overflows"))?;
    if length < total || length > image.len() {
        return Err(IsoError::Broken("its volume is not as long as its files"));
    }
    // The writer's room is an estimate; a device longer than its volume confuses some readers.
    image.truncate(length);
    Ok(image)
}

pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn entries(files: &[SeedFile]) -> Result<Vec<InputEntry>, IsoError> {
    let mut folders: BTreeMap<&str, BTreeMap<&str, &[u8]>> = BTreeMap::new();
    for file in files {
        let refuse = || IsoError::Name(file.path.clone());
        let (folder, name) = match file.path.split_once('/') {
            Some((folder, name)) if is_plain_name(folder) => (folder, name),
            Some(_) => return Err(refuse()),
            None => ("", file.path.as_str()),
        };
        if !is_plain_name(name) {
            return Err(refuse());
        }
        if folders.entry(folder).or_default().insert(name, &file.contents).is_some() {
            return Err(refuse());
        }
    }
    let entry = |(name, contents): (&str, &[u8])| {
        let metadata =
            InputMetadata { mode: Some(0o444), uid: Some(0), gid: Some(0), ..InputMetadata::default() };
        InputEntry::file(name, contents).with_metadata(metadata)
    };
    let mut root: Vec<_> = folders.remove("").unwrap_or_default().into_iter().map(entry).collect();
    for (folder, files) in folders {
        if files_has(&root, folder) {
            return Err(IsoError::Name(folder.to_owned()));
        }
        root.push(InputEntry::directory(folder, files.into_iter().map(entry).collect()));
    }
    Ok(root)
}

fn files_has(entries: &[InputEntry], name: &str) -> bool {
    entries.iter().any(|entry| entry.name.as_str() == name)
}

fn options(label: &str) -> IsoFormatOptions {
    IsoFormatOptions {
        volume_name: label.to_owned(),
        system_id: None,
        volume_set_id: None,
        publisher_id: None,
        preparer_id: None,
        application_id: None,
        sector_size: SECTOR,
        path_separator: PathSeparator::ForwardSlash,
        // Upper-case the label, and cloud-init of some distributions does not see it.
        strict_charset: false,
        features: CreationFeatures {
            filenames: BaseIsoLevel::Level1 { supports_lowercase: false, supports_rrip: true },
            joliet: Some(JolietLevel::Level3),
            rock_ridge: Some(RripOptions::default()),
            ..CreationFeatures::default()
        },
    }
}

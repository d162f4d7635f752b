//! ISO 9660 (ECMA-119) with Rock Ridge's and Joliet's names.

use super::{Disc, Extents, MAX_DIRECTORY, MAX_EXTENTS, SECTOR, size, u16_at, u32_at, udf::Udf};

/// The first volume descriptor.
const FIRST: u64 = 16;
/// Volume descriptors that are looked at.
const MAX_DESCRIPTORS: u64 = 32;

/// Why it is no disc that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::media) enum Wrong {
    /// It is none at all.
    #[error("it is not an ISO 9660 disc")]
    NoDisc,
    /// It says that it has so many bytes, and has fewer.
    #[error("it says that it has {0} bytes, and has fewer")]
    Truncated(u64),
    /// It is one, and makes no sense.
    #[error("{0}")]
    Malformed(&'static str),
}

/// A volume.
#[derive(Debug)]
pub(in crate::media) struct Volume {
    /// Without blanks at its end and without control characters.
    pub(in crate::media) label: String,
    pub(in crate::media) bootable: bool,
    root: Extents,
    joliet: Option<Extents>,
}

/// A directory's entry.
struct Entry {
    plain: String,
    rock_ridge: Option<String>,
    directory: bool,
    place: (u64, u64),
    /// Another entry goes on with the same file.
    goes_on: bool,
}

impl Volume {
    /// Reads the volume descriptors.
    ///
    /// # Errors
    /// Why it is no such disc.
    pub(in crate::media) fn open(disc: &Disc<'_>) -> Result<Self, Wrong> {
        let (mut primary, mut joliet, mut bootable) = (None, None, false);
        for sector in FIRST..FIRST + MAX_DESCRIPTORS {
            let Some(descriptor) = disc.sector(sector) else { break };
            if descriptor.get(1..6) != Some(b"CD001") {
                break;
            }
            match descriptor[0] {
                0 if descriptor[7..].starts_with(b"EL TORITO SPECIFICATION") => bootable = true,
                1 if primary.is_none() => primary = Some(descriptor),
                2 if matches!(&descriptor[88..91], b"%/@" | b"%/C" | b"%/E") => joliet = Some(descriptor),
                255 => break,
                _ => {}
            }
        }
        let primary = primary.ok_or(Wrong::NoDisc)?;
        if u16_at(&primary, 128) != Some(2048) {
            return Err(Wrong::Malformed("its blocks do not have 2,048 bytes"));
        }
        let sectors = u64::from(u32_at(&primary, 80).unwrap_or_default());
        if sectors <= FIRST {
            return Err(Wrong::Malformed("its volume has no room for anything"));
        }
        let needed = sectors * SECTOR;
        if needed > disc.length {
            return Err(Wrong::Truncated(needed));
        }
        // Windows' discs: what ISO 9660 says of their length is that of a note.
        if let Some(needed) = Udf::open(disc).map(|udf| udf.end()).filter(|end| *end > disc.length) {
            return Err(Wrong::Truncated(needed));
        }
        let root = root(&primary).ok_or(Wrong::Malformed("it has no root directory"))?;
        // A root that is not there: the descriptors are all that came.
        if disc.read(root.0[0].0, SECTOR).is_none() {
            return Err(Wrong::Malformed("its root directory lies outside of it"));
        }
        let label: String =
            String::from_utf8_lossy(&primary[40..72]).chars().filter(|c| !c.is_control()).collect();
        let label = label.trim_end().to_owned();
        Ok(Self { label, bootable, root, joliet: joliet.as_deref().and_then(root_of_joliet) })
    }

    /// A file, by its path; in any case, as readers of such discs do.
    pub(super) fn find(&self, disc: &Disc<'_>, path: &str) -> Option<Extents> {
        find(disc, &self.root, path, false)
            .or_else(|| self.joliet.as_ref().and_then(|root| find(disc, root, path, true)))
    }
}

fn root(descriptor: &[u8]) -> Option<Extents> {
    let record = &descriptor[156..190];
    let place = u64::from(u32_at(record, 2)?) * SECTOR;
    let length = u64::from(u32_at(record, 10)?);
    (place > 0 && length > 0).then(|| Extents(vec![(place, length)]))
}

fn root_of_joliet(descriptor: &[u8]) -> Option<Extents> {
    root(descriptor)
}

fn find(disc: &Disc<'_>, root: &Extents, path: &str, joliet: bool) -> Option<Extents> {
    let mut here = root.clone();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        // So a directory calls itself in Rock Ridge.
        if part.is_empty() {
            return None;
        }
        let (found, directory) = entry(disc, &here, part, joliet)?;
        match (parts.peek().is_some(), directory) {
            (true, true) => here = found,
            (false, false) => return Some(found),
            _ => return None,
        }
    }
    None
}

/// What a directory has by that name, and whether it is a directory itself.
fn entry(disc: &Disc<'_>, directory: &Extents, name: &str, joliet: bool) -> Option<(Extents, bool)> {
    let bytes = disc.read_of(directory, 0, directory.length().min(MAX_DIRECTORY))?;
    let mut found = Extents::default();
    let mut at = 0;
    while at < bytes.len() {
        let length = usize::from(bytes[at]);
        if length == 0 {
            // Records do not cross sectors: the rest of this one is empty.
            at = (at / 2048 + 1) * 2048;
            continue;
        }
        let record = bytes.get(at..at + length)?;
        at += length;
        let Some(entry) = parse(disc, record, joliet) else { continue };
        let named = |other: &str| other.eq_ignore_ascii_case(name);
        if named(&entry.plain) || entry.rock_ridge.as_deref().is_some_and(named) {
            if found.0.len() >= MAX_EXTENTS {
                return None;
            }
            found.0.push(entry.place);
            if !entry.goes_on {
                return Some((found, entry.directory));
            }
        }
    }
    None
}

fn parse(disc: &Disc<'_>, record: &[u8], joliet: bool) -> Option<Entry> {
    let flags = *record.get(25)?;
    let length = usize::from(*record.get(32)?);
    let id = record.get(33..33 + length)?;
    let text = if joliet {
        let units: Vec<u16> = id.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    } else {
        String::from_utf8_lossy(id).into_owned()
    };
    let plain = text.split(';').next().unwrap_or_default().trim_end_matches('.').to_owned();
    // Attributes before the bytes; and bytes with gaps between, which nobody writes any more.
    let attributes = u64::from(*record.get(1)?);
    if record.get(26..28)? != [0, 0] {
        return None;
    }
    // The system's area begins at an even place.
    let system = record.get(33 + length + usize::from(length.is_multiple_of(2))..).unwrap_or_default();
    Some(Entry {
        plain,
        rock_ridge: if joliet { None } else { rock_ridge(disc, system) },
        directory: flags & 2 != 0,
        place: ((u64::from(u32_at(record, 2)?) + attributes) * SECTOR, u64::from(u32_at(record, 10)?)),
        goes_on: flags & 0x80 != 0,
    })
}

/// The name in the `NM` fields of a record's system area. What has no room there goes on elsewhere,
/// in one more area: a name is shorter than that.
fn rock_ridge(disc: &Disc<'_>, system: &[u8]) -> Option<String> {
    let (mut name, next) = names(system);
    if let Some((place, length)) = next {
        let more = names(&disc.read(place, length)?).0;
        name = name.into_iter().chain(more).reduce(|begin, end| [begin, end].concat());
    }
    name.map(|name| String::from_utf8_lossy(&name).into_owned())
}

/// What an area holds of a name, and where it says that it goes on: place and length, bytes.
fn names(system: &[u8]) -> (Option<Vec<u8>>, Option<(u64, u64)>) {
    let (mut name, mut next, mut at) = (None::<Vec<u8>>, None, 0);
    while let Some(field) = system.get(at..) {
        let (Some(signature), Some(&length)) = (field.get(..2), field.get(2)) else { break };
        let length = size(length.into());
        let Some(field) = field.get(..length).filter(|field| field.len() >= 4) else { break };
        match signature {
            b"NM" if length >= 5 => name.get_or_insert_default().extend_from_slice(&field[5..]),
            b"CE" => next = continuation(field),
            _ => {}
        }
        at += length;
    }
    (name, next)
}

/// Where a `CE` field leads; none where that is no part of one sector.
fn continuation(field: &[u8]) -> Option<(u64, u64)> {
    let [sector, from, length] = [4, 12, 20].map(|at| u32_at(field, at).map(u64::from));
    let (from, length) = (from?, length?);
    (from + length <= SECTOR).then_some((sector? * SECTOR + from, length))
}

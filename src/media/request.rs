//! A request for a medium, from what a client wrote to what is valid.

use super::{MediaError, fetch::checked_url};
use crate::vm::{
    DiskFacts, ImageFormat, InvalidName, MediumKind, MediumSource, OsFamily, Provisioning, ResourceName,
};

/// Longest path.
const MAX_PATH: usize = 4096;
/// So long may a disc's name be, so that its file's name is a name, too.
const MAX_DISC_NAME: usize = ResourceName::MAX_CHARS - 4;
/// As the library's manifests have it.
const MAX_DESCRIPTION: usize = 512;

/// A request, as a client wrote it: nothing checked yet.
#[derive(Debug, Clone)]
pub struct ImportMedium {
    /// See [`ResourceName`].
    pub name: String,
    /// What for.
    pub kind: MediumKind,
    /// Where from: this or `path`.
    pub url: Option<String>,
    /// Where from: this or `url`.
    pub path: Option<String>,
    /// What it must hash to.
    pub sha256: Option<String>,
    /// For people; of a disk image.
    pub description: Option<String>,
    /// Needed for a disk image.
    pub os_family: Option<OsFamily>,
    /// Needed for a disk image.
    pub provisioning: Option<Provisioning>,
    /// Of a disk image; qcow2 when absent.
    pub format: Option<ImageFormat>,
}

/// What could be checked without asking anybody.
pub(super) struct Parsed {
    pub(super) name: ResourceName,
    pub(super) source: MediumSource,
    pub(super) sha256: Option<String>,
    pub(super) disk: Option<DiskFacts>,
}

fn invalid(field: &'static str, reason: impl Into<String>) -> MediaError {
    MediaError::Invalid { field, reason: reason.into() }
}

impl ImportMedium {
    pub(super) fn parse(self) -> Result<Parsed, MediaError> {
        let name: ResourceName =
            self.name.parse().map_err(|error: InvalidName| invalid("name", error.to_string()))?;
        let source = match (self.url, self.path) {
            (Some(url), None) => {
                MediumSource::Url(checked_url(&url).map_err(|why| invalid("url", why))?.to_string())
            }
            (None, Some(path)) if path.len() > MAX_PATH => {
                return Err(invalid("path", "has more than 4,096 bytes"));
            }
            (None, Some(path)) if path.chars().any(char::is_control) => {
                return Err(invalid("path", "holds control characters"));
            }
            (None, Some(path)) => MediumSource::Path(path),
            (Some(_), Some(_)) => return Err(invalid("path", "give either a url or a path")),
            (None, None) => return Err(invalid("url", "give a url or a path")),
        };
        let sha256 = self.sha256.map(|sum| sum.to_ascii_lowercase());
        if sha256.as_ref().is_some_and(|sum| sum.len() != 64 || !sum.bytes().all(|c| c.is_ascii_hexdigit())) {
            return Err(invalid("sha256", "is not 64 hexadecimal digits"));
        }
        let disk = match self.kind {
            MediumKind::DiskImage => {
                let description = self.description.unwrap_or_default();
                if description.len() > MAX_DESCRIPTION || description.chars().any(char::is_control) {
                    return Err(invalid("description", "is not one line of at most 512 bytes"));
                }
                Some(DiskFacts {
                    description,
                    os_family: self.os_family.ok_or_else(|| invalid("osFamily", "a disk image needs it"))?,
                    provisioning: self
                        .provisioning
                        .ok_or_else(|| invalid("provisioning", "a disk image needs it"))?,
                    format: self.format.unwrap_or(ImageFormat::Qcow2),
                })
            }
            MediumKind::Installation => {
                if name.as_str().len() > MAX_DISC_NAME {
                    return Err(invalid(
                        "name",
                        format!("that of a disc has at most {MAX_DISC_NAME} characters"),
                    ));
                }
                for (field, given) in [
                    ("description", self.description.is_some()),
                    ("osFamily", self.os_family.is_some()),
                    ("provisioning", self.provisioning.is_some()),
                    ("format", self.format.is_some()),
                ] {
                    if given {
                        return Err(invalid(
                            field,
                            "is of disk images only; a disc says for itself what it is",
                        ));
                    }
                }
                None
            }
        };
        Ok(Parsed { name, source, sha256, disk })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disc() -> ImportMedium {
        ImportMedium {
            name: "debian".to_owned(),
            kind: MediumKind::Installation,
            url: Some("https://example.org/debian.iso".to_owned()),
            path: None,
            sha256: Some("AB".repeat(32)),
            description: None,
            os_family: None,
            provisioning: None,
            format: None,
        }
    }

    #[test]
    fn mistakes_are_told_with_their_field() {
        let disk = || ImportMedium {
            kind: MediumKind::DiskImage,
            os_family: Some(OsFamily::Linux),
            provisioning: Some(Provisioning::None),
            ..disc()
        };
        assert_eq!(disc().parse().ok().unwrap().sha256, Some("ab".repeat(32)));
        assert_eq!(disk().parse().ok().unwrap().disk.unwrap().format, ImageFormat::Qcow2);
        let url = |url: &str| ImportMedium { url: Some(url.to_owned()), ..disc() };
        let path = |path: &str| ImportMedium { url: None, path: Some(path.to_owned()), ..disc() };
        for (field, request) in [
            ("name", ImportMedium { name: "../x".to_owned(), ..disc() }),
            ("name", ImportMedium { name: String::new(), ..disc() }),
            ("name", ImportMedium { name: "x".repeat(125), ..disc() }),
            ("url", url("file:///etc/shadow")),
            ("url", url("https://u:p@example.org/")),
            ("url", url("nonsense")),
            ("url", url(&format!("https://example.org/{}", "x".repeat(3000)))),
            ("url", ImportMedium { url: None, ..disc() }),
            ("path", ImportMedium { path: Some("/a".to_owned()), ..disc() }),
            ("path", path(&"x".repeat(5000))),
            ("path", path("/a\nb")),
            ("sha256", ImportMedium { sha256: Some("abc".to_owned()), ..disc() }),
            ("sha256", ImportMedium { sha256: Some("é".repeat(32)), ..disc() }),
            ("osFamily", ImportMedium { os_family: None, ..disk() }),
            ("provisioning", ImportMedium { provisioning: None, ..disk() }),
            ("description", ImportMedium { description: Some("a\nb".to_owned()), ..disk() }),
            ("description", ImportMedium { description: Some("x".repeat(513)), ..disk() }),
            ("format", ImportMedium { format: Some(ImageFormat::Raw), ..disc() }),
        ] {
            match request.parse() {
                Err(MediaError::Invalid { field: told, .. }) => assert_eq!(told, field),
                Err(other) => panic!("{field}: {other}"),
                Ok(_) => panic!("{field} was accepted"),
            }
        }
    }
}

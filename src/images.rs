//! The image library: a directory with one folder per image, each with a `manifest.toml`.

use std::path::PathBuf;

use crate::vm::{Image, ResourceName};

/// The library. Clones share it.
#[derive(Debug, Clone)]
pub struct Images {}

/// An image that is there but cannot be used.
#[derive(Debug, Clone)]
pub struct BrokenImage {
    /// Its folder's name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No such image. Code `IMAGE_NOT_FOUND`.
    #[error("there is no image {0:?}")]
    NotFound(String),
    /// It is there, and not fit for use. Code `IMAGE_UNUSABLE`.
    #[error("image {name:?} cannot be used: {reason}")]
    Unusable {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The library could not be read.
    #[error("the image library {path} cannot be read")]
    Library {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Images {
    /// The library in `dir`, which may be missing: an empty library.
    #[must_use]
    pub fn new(_dir: PathBuf) -> Self {
        todo!()
    }

    /// All images fit for use, by name, and those that are not.
    pub async fn list(&self) -> Result<(Vec<Image>, Vec<BrokenImage>), ImageError> {
        todo!()
    }

    /// One image, checked: manifest, format, no backing or external data file, checksum (computed
    /// once per change of the file).
    pub async fn get(&self, _name: &ResourceName) -> Result<Image, ImageError> {
        todo!()
    }
}

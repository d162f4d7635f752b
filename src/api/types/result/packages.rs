//! Packages.

use async_graphql::SimpleObject;

use super::read::Fields;

/// The packages of a guest.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct InstalledPackages {
    /// In the order of the guest's package manager.
    packages: Vec<InstalledPackage>,
    /// Whether the agent left some out.
    truncated: Option<bool>,
}

/// A package that is installed.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct InstalledPackage {
    /// Its name.
    name: Option<String>,
    /// Its version.
    version: Option<String>,
    /// The architecture it was built for.
    architecture: Option<String>,
}

/// The packages that a search found.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct FoundPackages {
    /// In the order of the guest's package manager.
    packages: Vec<FoundPackage>,
    /// Whether the agent left some out.
    truncated: Option<bool>,
}

/// A package that could be installed.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub(crate) struct FoundPackage {
    /// Its name.
    name: Option<String>,
    /// In one line.
    description: Option<String>,
}

impl InstalledPackages {
    pub(super) fn of(data: Fields<'_>) -> Option<Self> {
        let packages = data.rows("packages", |row| InstalledPackage {
            name: row.text("name"),
            version: row.text("version"),
            architecture: row.text("architecture"),
        })?;
        Some(Self { packages, truncated: data.flag("truncated") })
    }
}

impl FoundPackages {
    pub(super) fn of(data: Fields<'_>) -> Option<Self> {
        let packages = data.rows("packages", |row| FoundPackage {
            name: row.text("name"),
            description: row.text("description"),
        })?;
        Some(Self { packages, truncated: data.flag("truncated") })
    }
}

//! Media, and how the bringing in of them fares.

use async_graphql::{ComplexObject, Context, Enum, InputObject, SimpleObject};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    PageInfo,
    host::{OsFamilyName, ProvisioningName},
};
use crate::{
    api::{auth::Call, error::ApiError, scalars::BigInt},
    media::ImportMedium,
    vm::{ImageFormat, Medium, MediumFacts, MediumFailure, MediumKind, MediumState, disc_file_name},
};

/// What a medium is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "MediumKind", name = "MediumKind")]
pub(crate) enum MediumKindName {
    /// A disk that VMs are made from: once ready, it is one of the `images`.
    DiskImage,
    /// A disc that an operating system is installed from: an ISO 9660 image.
    Installation,
}

/// How far a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "MediumState", name = "MediumState")]
pub(crate) enum MediumStateName {
    /// It waits for its turn.
    Queued,
    /// Its bytes are being read.
    Downloading,
    /// All bytes are there; it is put in its place.
    Checking,
    /// It can be used.
    Ready,
    /// It was given up; `error` says why.
    Failed,
    /// It is on its way out.
    Deleting,
}

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "ImageFormat", name = "ImageFormat")]
pub(crate) enum ImageFormatName {
    /// QEMU copy-on-write.
    #[graphql(name = "QCOW2")]
    Qcow2,
    /// A plain sequence of sectors.
    Raw,
}

/// A medium to be brought in.
#[derive(InputObject)]
pub(crate) struct ImportMediumInput {
    /// 1 to 128 letters, digits, `-`, `_`, `.`; unique on the host.
    name: String,
    /// What it is for.
    kind: MediumKindName,
    /// Where it comes from, http or https, without user and password; this or `path`.
    url: Option<String>,
    /// A file of the host, below one of the directories in `media.import_dirs`; this or `url`.
    path: Option<String>,
    /// The SHA-256 that it must have, hexadecimal.
    sha256: Option<String>,
    /// For people; of a disk image.
    description: Option<String>,
    /// Needed for a disk image.
    os_family: Option<OsFamilyName>,
    /// Needed for a disk image: how a first boot is configured.
    provisioning: Option<ProvisioningName>,
    /// Of a disk image; `QCOW2` when absent. Never guessed.
    format: Option<ImageFormatName>,
}

impl From<ImportMediumInput> for ImportMedium {
    fn from(input: ImportMediumInput) -> Self {
        Self {
            name: input.name,
            kind: input.kind.into(),
            url: input.url,
            path: input.path,
            sha256: input.sha256,
            description: input.description,
            os_family: input.os_family.map(Into::into),
            provisioning: input.provisioning.map(Into::into),
            format: input.format.map(Into::into),
        }
    }
}

/// Why an import was given up.
#[derive(Debug, SimpleObject)]
pub(crate) struct MediumError {
    /// A stable code.
    code: String,
    /// For people.
    message: String,
}

impl From<MediumFailure> for MediumError {
    fn from(failure: MediumFailure) -> Self {
        Self { code: failure.code, message: failure.message }
    }
}

/// What an installation disc was recognised as; null where it does not say clearly.
#[derive(Debug, SimpleObject)]
#[graphql(name = "MediumFacts")]
pub(crate) struct MediumFactsObject {
    /// The volume's label.
    label: Option<String>,
    /// Linux or Windows; of a disk image, what was declared.
    os_family: Option<OsFamilyName>,
    /// `ubuntu`, `debian`, `fedora`, `rhel`, `centos`, `rocky`, `almalinux`, `windows`,
    /// `windows-server`.
    distribution: Option<String>,
    /// As in `24.04.2`, `9.4`, `11`, `2022`.
    version: Option<String>,
    /// As in `server`, `netinst`, `Pro`.
    variant: Option<String>,
    /// As in `amd64`, `x86_64`, `arm64`.
    arch: Option<String>,
    /// Whether firmware finds something to boot.
    bootable: bool,
    /// Which of the files that installations begin with are there, by path.
    boot_files: Vec<String>,
}

impl From<MediumFacts> for MediumFactsObject {
    fn from(facts: MediumFacts) -> Self {
        Self {
            label: facts.label,
            os_family: facts.os_family.map(Into::into),
            distribution: facts.distribution,
            version: facts.version,
            variant: facts.variant,
            arch: facts.arch,
            bootable: facts.bootable,
            boot_files: facts.boot_files,
        }
    }
}

/// A disk or an installation disc that was, or is being, brought in.
#[derive(SimpleObject)]
#[graphql(name = "Medium", complex)]
pub(crate) struct MediumObject {
    #[graphql(skip)]
    medium: Medium,
    /// Its id.
    id: Uuid,
    /// What requests name.
    name: String,
    /// What it is for.
    kind: MediumKindName,
    /// How far it is.
    state: MediumStateName,
    /// Of an installation disc, its file's name: what a storage pool over the directory of discs
    /// calls its volume.
    file_name: Option<String>,
    /// Where it comes from, without a URL's query; for admins.
    source: Option<String>,
    /// The SHA-256 that it must have, where one was given.
    expected_sha256: Option<String>,
    /// The SHA-256 that it has; null before all bytes were there.
    sha256: Option<String>,
    /// Bytes that are on the host's disk.
    bytes_done: BigInt,
    /// Bytes that there will be; null where the source did not say.
    bytes_total: Option<BigInt>,
    /// Per cent of the bytes; null where it is not known how many there will be.
    progress: Option<i32>,
    /// Why it was given up.
    error: Option<MediumError>,
    /// What it was recognised as.
    facts: MediumFactsObject,
    /// Who asked for it.
    requested_by_id: Uuid,
    /// When it was asked for.
    created_at: DateTime<Utc>,
    /// When work on it began.
    started_at: Option<DateTime<Utc>>,
    /// When it was ready, or given up.
    finished_at: Option<DateTime<Utc>>,
}

/// What a look for a medium's users costs.
const USES_COMPLEXITY: usize = 5;

#[ComplexObject]
impl MediumObject {
    /// How many VMs use it, or are about to; it cannot be deleted while there are any. For admins.
    #[graphql(complexity = "USES_COMPLEXITY")]
    async fn use_count(&self, ctx: &Context<'_>) -> Result<Option<i32>, ApiError> {
        let call = Call::of(ctx)?;
        if !call.actor.is_admin() {
            return Ok(None);
        }
        let uses = call.api.media.uses(&self.medium).await?;
        Ok(Some(i32::try_from(uses.count).unwrap_or(i32::MAX)))
    }
}

impl MediumObject {
    /// Where it comes from is the operators' affair.
    pub(crate) fn new(medium: Medium, admin: bool) -> Self {
        let percent =
            |total: u64| medium.bytes_done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
        Self {
            id: medium.id.uuid(),
            name: medium.name.to_string(),
            kind: medium.kind.into(),
            state: medium.state.into(),
            file_name: (medium.kind == MediumKind::Installation).then(|| disc_file_name(&medium.name)),
            source: admin.then(|| medium.source.shown().to_owned()),
            expected_sha256: medium.expected_sha256.clone(),
            sha256: medium.sha256.clone(),
            bytes_done: medium.bytes_done.into(),
            bytes_total: medium.bytes_total.map(Into::into),
            progress: medium.bytes_total.map(|total| i32::try_from(percent(total)).unwrap_or(100)),
            error: medium.failure.clone().map(Into::into),
            facts: medium.facts.clone().into(),
            requested_by_id: medium.requested_by.uuid(),
            created_at: medium.created_at,
            started_at: medium.started_at,
            finished_at: medium.finished_at,
            medium,
        }
    }
}

/// Media.
#[derive(SimpleObject)]
pub(crate) struct MediumConnection {
    /// Newest first.
    pub(crate) nodes: Vec<MediumObject>,
    /// Where the page ends.
    pub(crate) page_info: PageInfo,
}

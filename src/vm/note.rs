//! What a VM's own domain says of it, so that the VM outlives the database: enough to know whose it
//! is, what it is made of, and what deletion has to remove. Never a secret: whoever may ask libvirt
//! can read it.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Base, Disc, HostId, Image, Installation, Resource, ResourceKind, UserId, VmRecord, VmSpec};

/// One thing that was made for the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedResource {
    /// What it is.
    pub kind: ResourceKind,
    /// The pool or directory.
    pub place: String,
    /// The volume's or file's name.
    pub name: String,
}

/// What is noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmNote {
    /// The controller's host.
    pub host: HostId,
    /// Whose it is.
    pub owner: UserId,
    /// The owner's name; not part of the digest.
    pub owner_name: String,
    /// What it is made of, without secrets and without the image's paths.
    pub spec: VmSpec,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When its first boot was finished.
    pub installed_at: Option<DateTime<Utc>>,
    /// When the seed's secrets were removed.
    pub seed_scrubbed_at: Option<DateTime<Utc>>,
    /// What was made for it.
    pub resources: Vec<NotedResource>,
}

impl VmNote {
    /// What is to be noted of a VM; without its owner's name.
    #[must_use]
    pub fn of<'a>(record: &VmRecord, resources: impl IntoIterator<Item = &'a Resource>) -> Self {
        let mut resources: Vec<_> = resources
            .into_iter()
            .map(|Resource { kind, place, name, .. }| NotedResource {
                kind: *kind,
                place: place.clone(),
                name: name.clone(),
            })
            .collect();
        resources.sort_by(|a, b| (&a.place, &a.name).cmp(&(&b.place, &b.name)));
        let spec = &record.spec;
        Self {
            host: record.host,
            owner: record.owner,
            owner_name: String::new(),
            spec: VmSpec {
                // The domain itself tells what is plugged in.
                devices: crate::vm::Plugged::default(),
                // A path that comes back from a domain could be anybody's.
                base: without_paths(&spec.base),
                unattended: spec.unattended.without_secrets(),
                ..spec.clone()
            },
            created_at: record.created_at,
            installed_at: record.milestones.installed,
            seed_scrubbed_at: record.milestones.seed_scrubbed,
            resources,
        }
    }

    /// A short word that differs where anything but the owner's name differs.
    #[must_use]
    pub fn digest(&self) -> String {
        let nameless = Self { owner_name: String::new(), ..self.clone() };
        let bytes = Sha256::digest(nameless.text());
        bytes.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
    }

    /// As JSON.
    #[must_use]
    pub fn text(&self) -> String {
        // Plain data with text keys: writing it cannot fail, and an empty note is none.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What a VM is made of without paths, and without what its installer proves itself with.
fn without_paths(base: &Base) -> Base {
    let disc = |disc: &Disc| Disc { path: PathBuf::new(), ..disc.clone() };
    match base {
        Base::Image(image) => Base::Image(Image { disk: PathBuf::new(), kernel: None, ..image.clone() }),
        Base::Installation(installation) => Base::Installation(Box::new(Installation {
            disc: disc(&installation.disc),
            drivers: installation.drivers.as_ref().map(disc),
            token: None,
            ..(**installation).clone()
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{
        DesiredPower, Firmware, ImageFormat, KernelBoot, Milestones, NetworkAttachment, Origin, OsFamily,
        Provisioning, ResourceState, Unattended, VmId, VmIntent,
    };

    fn record() -> VmRecord {
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        VmRecord {
            id: VmId::generate(),
            host: HostId::generate(),
            owner: UserId::generate(),
            spec: VmSpec {
                devices: crate::vm::Plugged::default(),
                keeping: crate::vm::PowerKeeping::default(),
                name: "noted".parse().unwrap(),
                firmware: Firmware::Bios,
                tpm: false,
                base: Base::Image(Image {
                    name: "debian".parse().unwrap(),
                    description: String::new(),
                    os_family: OsFamily::Linux,
                    provisioning: Provisioning::CloudInit,
                    disk: PathBuf::from("/images/disk.qcow2"),
                    format: ImageFormat::Qcow2,
                    virtual_bytes: 1,
                    sha256: String::new(),
                    kernel: Some(KernelBoot {
                        kernel: PathBuf::from("/images/kernel"),
                        initrd: None,
                        cmdline: "secret-cmdline".to_owned(),
                    }),
                }),
                vcpus: 1,
                memory_mib: 64,
                disk_bytes: 1,
                pool: "default".parse().unwrap(),
                network: NetworkAttachment::None,
                unattended: Unattended {
                    password_hash: Some("$6$hash".to_owned()),
                    first_boot_commands: vec!["echo hunter2".to_owned()],
                    ssh_keys: vec!["ssh-ed25519 AAAA".to_owned()],
                    ..Unattended::default()
                },
                origin: Origin::Created,
            },
            intent: VmIntent {
                power: DesiredPower::Running,
                deleting: false,
                generation: 1,
                satisfied: 0,
                given_up: 0,
                asked_at: at,
            },
            milestones: Milestones::default(),
            created_at: at,
        }
    }

    #[test]
    fn a_note_holds_no_secret_and_no_path() {
        let text = VmNote::of(&record(), &[]).text();
        for secret in ["$6$hash", "hunter2", "/images", "secret-cmdline"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(text.contains("ssh-ed25519 AAAA"));
        assert_eq!(serde_json::from_str::<VmNote>(&text).unwrap().text(), text);
    }

    #[test]
    fn the_digest_changes_with_what_is_noted_and_with_nothing_else() {
        let record = record();
        let note = VmNote::of(&record, &[]);
        let named = VmNote { owner_name: "ana".to_owned(), ..note.clone() };
        assert_eq!(named.digest(), note.digest());
        let volume = Resource {
            vm: record.id,
            kind: ResourceKind::Volume,
            place: "default".to_owned(),
            name: "a".to_owned(),
            state: ResourceState::Creating,
        };
        let made = Resource { state: ResourceState::Created, ..volume.clone() };
        let with = VmNote::of(&record, [&volume]);
        assert_ne!(with.digest(), note.digest());
        assert_eq!(with.digest(), VmNote::of(&record, [&made]).digest());
        let mut installed = record;
        installed.milestones.installed = Some(installed.created_at);
        assert_ne!(VmNote::of(&installed, &[]).digest(), note.digest());
    }
}

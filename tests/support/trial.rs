//! A daemon on libvirt's test driver: everything real but the hypervisor, which lives in the
//! daemon's own process. The guest's end of the channel is played by the story.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::{Value, json};

use super::{
    daemon::{Client, Daemon, Home, Setup},
    database::TestDatabase,
};

/// A home, its daemon, an admin's client, and the database's keeper.
pub struct Trial {
    // Ended, and its log read, before its home is removed.
    pub daemon: Daemon,
    pub home: Home,
    pub client: Client,
    pub token: String,
    pub library: tempfile::TempDir,
}

impl Trial {
    /// With an image `blank` of 64 MiB, on this database.
    pub async fn start(db: &TestDatabase) -> Self {
        Self::start_with(db, &[]).await
    }

    /// The same with more configuration.
    pub async fn start_with(db: &TestDatabase, env: &[(&str, &str)]) -> Self {
        let library = library();
        let base_dir = library.path().join("base");
        let home = Home::new(Setup {
            uri: "test:///default".into(),
            database_url: Some(db.url.clone()),
            images_dir: library.path().to_owned(),
            base_dir,
            env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        });
        let token = home.admin();
        let daemon = home.start();
        let client = daemon.client(&token);
        Self { home, daemon, client, token, library }
    }

    /// A request for a VM that can be made.
    pub fn request(&self, name: &str) -> Value {
        json!({ "name": name, "image": "blank", "vcpus": 1, "memoryMib": 128, "pool": "default-pool", "network": "none" })
    }
}

fn library() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    image(&dir.path().join("blank"), None);
    dir
}

/// An image folder with a 64 MiB qcow2 disk, on top of `backing` where given.
pub fn image(folder: &Path, backing: Option<&str>) {
    std::fs::create_dir(folder).unwrap();
    let disk = folder.join("disk.qcow2");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2"]);
    if let Some(backing) = backing {
        create.args(["-u", "-b", backing, "-F", "raw"]);
    }
    let status = create.arg(&disk).arg("64M").status().expect("qemu-img is needed; scripts/test installs it");
    assert!(status.success());
    let sum = Command::new("sha256sum").arg(&disk).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let sha256 = sum.split_whitespace().next().unwrap();
    let manifest = format!(
        "description = \"An empty disk\"\nos_family = \"linux\"\nprovisioning = \"none\"\ndisk = \"disk.qcow2\"\n\
         format = \"qcow2\"\nsha256 = \"{sha256}\"\n"
    );
    std::fs::write(folder.join("manifest.toml"), manifest).unwrap();
}

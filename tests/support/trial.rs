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
        Self::start_over(&db.url, env).await
    }

    /// The same by another way to the database.
    pub async fn start_over(url: &str, env: &[(&str, &str)]) -> Self {
        let library = library();
        let base_dir = library.path().join("base");
        let home = Home::new(Setup {
            uri: "test:///default".into(),
            database_url: Some(url.to_owned()),
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
    image(&dir.path().join("blank"), &Blank::default());
    dir
}

/// An empty disk and what its manifest says of it.
pub struct Blank<'a> {
    pub size: &'a str,
    pub backing: Option<&'a str>,
    pub os_family: &'a str,
    pub provisioning: &'a str,
}

impl Default for Blank<'_> {
    /// 64 MiB of Linux that carries everything.
    fn default() -> Self {
        Self { size: "64M", backing: None, os_family: "linux", provisioning: "none" }
    }
}

/// An image folder with a sparse qcow2 disk.
pub fn image(folder: &Path, blank: &Blank<'_>) {
    std::fs::create_dir(folder).unwrap();
    let disk = folder.join("disk.qcow2");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2"]);
    if let Some(backing) = blank.backing {
        create.args(["-u", "-b", backing, "-F", "raw"]);
    }
    let status =
        create.arg(&disk).arg(blank.size).status().expect("qemu-img is needed; scripts/test installs it");
    assert!(status.success());
    let sum = Command::new("sha256sum").arg(&disk).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let sha256 = sum.split_whitespace().next().unwrap();
    let Blank { os_family, provisioning, .. } = blank;
    let manifest = format!(
        "description = \"An empty disk\"\nos_family = \"{os_family}\"\nprovisioning = \"{provisioning}\"\n\
         disk = \"disk.qcow2\"\nformat = \"qcow2\"\nsha256 = \"{sha256}\"\n"
    );
    std::fs::write(folder.join("manifest.toml"), manifest).unwrap();
}

//! A disk is read once per change, in the background, and never while somebody waits for long.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use infinibay::{
    images::{ImageError, Images},
    vm::{Image, ResourceName},
};
use sha2::{Digest, Sha256};

/// Images `a` and `b`, and where their checksums are remembered.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::Builder::new().prefix("images-").tempdir().unwrap());
        for image in ["a", "b"] {
            fs::create_dir_all(place.folder(image)).unwrap();
            place.write(image, &vec![image.as_bytes()[0]; 16 << 20]);
        }
        place
    }

    fn folder(&self, image: &str) -> PathBuf {
        self.0.path().join("library").join(image)
    }

    fn memory(&self) -> PathBuf {
        self.0.path().join("digests.json")
    }

    /// Another disk, with a manifest that is right.
    fn write(&self, image: &str, disk: &[u8]) {
        let folder = self.folder(image);
        fs::write(folder.join("disk"), disk).unwrap();
        let sha256: String = Sha256::digest(disk).iter().map(|byte| format!("{byte:02x}")).collect();
        let manifest = format!(
            "os_family = \"linux\"\nprovisioning = \"none\"\ndisk = \"disk\"\nformat = \"raw\"\nsha256 = \"{sha256}\"\n"
        );
        fs::write(folder.join("manifest.toml"), manifest).unwrap();
    }

    /// As a daemon that was just started has it; whoever asks does not wait for a disk to be read.
    async fn started(&self) -> Images {
        let library = self.0.path().join("library");
        Images::new(library).waiting(Duration::ZERO).remembering(self.memory()).await
    }
}

async fn ask(images: &Images, image: &str) -> Result<Image, ImageError> {
    images.get(&image.parse::<ResourceName>().unwrap()).await
}

/// Asks again until it is checked, as callers are told to.
async fn checked(images: &Images, image: &str) -> Image {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match ask(images, image).await {
            Ok(image) => return image,
            Err(ImageError::BeingChecked(name)) => assert_eq!(name, image),
            Err(error) => panic!("{image}: {error}"),
        }
        assert!(Instant::now() < deadline, "{image} was not checked in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_being_checked(answer: &Result<Image, ImageError>) -> bool {
    matches!(answer, Err(ImageError::BeingChecked(_)))
}

#[tokio::test]
async fn who_asks_too_early_is_told_so_and_the_check_goes_on() {
    let place = Place::new();
    let images = place.started().await;
    let early = ask(&images, "a").await;
    assert!(is_being_checked(&early), "{early:?}");
    let (usable, broken) = images.list().await.unwrap();
    let reasons: Vec<_> = broken.iter().map(|image| image.reason.as_str()).collect();
    assert!(
        usable.len() + broken.len() == 2 && reasons.iter().all(|r| r.contains("try again")),
        "{reasons:?}"
    );
    checked(&images, "a").await;
    checked(&images, "b").await;
    assert_eq!(images.list().await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn a_restart_reads_only_what_changed() {
    let place = Place::new();
    place.started().await.check_all().await;
    let mode = fs::metadata(place.memory()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Not a moment is waited, so what is answered was known.
    let images = place.started().await;
    for image in ["a", "b"] {
        assert_eq!(ask(&images, image).await.unwrap().name.as_str(), image);
    }

    place.write("b", &vec![1; 16 << 20]);
    let images = place.started().await;
    ask(&images, "a").await.unwrap();
    let changed = ask(&images, "b").await;
    assert!(is_being_checked(&changed), "{changed:?}");
    checked(&images, "b").await;
}

#[tokio::test]
async fn a_memory_that_is_spoilt_is_begun_anew() {
    let place = Place::new();
    place.started().await.check_all().await;
    let good = fs::read(place.memory()).unwrap();
    for spoilt in [&b""[..], b"[]", &good[..good.len() / 2], &[0xff; 100]] {
        fs::write(place.memory(), spoilt).unwrap();
        place.started().await.check_all().await;
        assert_eq!(fs::read(place.memory()).unwrap(), good, "{spoilt:?}");
    }
    // A place that cannot be written to costs the memory, not the images.
    fs::remove_file(place.memory()).unwrap();
    fs::create_dir(place.memory()).unwrap();
    checked(&place.started().await, "a").await;
}

#[tokio::test]
async fn a_disk_that_is_wrong_stays_wrong() {
    let place = Place::new();
    let folder = place.folder("a");
    fs::write(folder.join("disk"), vec![7; 16 << 20]).unwrap();
    place.started().await.check_all().await;
    let refused = ask(&place.started().await, "a").await;
    assert!(
        matches!(&refused, Err(ImageError::Unusable { reason, .. }) if reason.contains("SHA-256")),
        "{refused:?}"
    );
}

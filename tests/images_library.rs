//! The image library, with disks made by QEMU's own tool.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use infinibay::{
    images::{ImageError, Images},
    vm::{ImageFormat, KernelBoot, OsFamily, Provisioning, ResourceName},
};

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program} cannot be run ({e}); it is needed for this test"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn name(text: &str) -> ResourceName {
    text.parse().unwrap()
}

/// A library of its own for each test.
struct Library(tempfile::TempDir);

impl Library {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("images-").tempdir().unwrap())
    }

    fn images(&self) -> Images {
        Images::new(self.0.path().to_owned()).waiting(Duration::from_secs(60))
    }

    fn folder(&self, image: &str) -> PathBuf {
        let folder = self.0.path().join(image);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// A folder whose disk is what `qemu-img create ARGS` makes, with a manifest that is right.
    fn create(&self, image: &str, format: &str, args: &[&str]) -> PathBuf {
        let folder = self.folder(image);
        let disk = folder.join("disk");
        let mut all = vec!["create", "-q", "-f", format];
        let (options, size) = args.split_at(args.len() - 1);
        all.extend(options);
        all.extend([disk.to_str().unwrap(), size[0]]);
        run("qemu-img", &all);
        write_manifest(&folder, format, &sha256(&disk), "");
        folder
    }

    async fn reason(&self, image: &str) -> String {
        match self.images().get(&name(image)).await {
            Err(ImageError::Unusable { name, reason }) => {
                assert_eq!(name, image);
                reason
            }
            other => panic!("{image}: {other:?}"),
        }
    }
}

fn sha256(path: &Path) -> String {
    run("sha256sum", &[path.to_str().unwrap()])[..64].to_owned()
}

fn write_manifest(folder: &Path, format: &str, sha256: &str, rest: &str) {
    let text = format!(
        "description = \"of {format}\"\nos_family = \"linux\"\nprovisioning = \"cloud-init\"\n\
         disk = \"disk\"\nformat = \"{format}\"\nsha256 = \"{sha256}\"\n{rest}"
    );
    std::fs::write(folder.join("manifest.toml"), text).unwrap();
}

#[tokio::test]
async fn good_images_of_both_formats_are_read() {
    let library = Library::new();
    let v3 = library.create("v3", "qcow2", &["3G"]);
    library.create("v2", "qcow2", &["-o", "compat=0.10", "1G"]);
    library.create("zstd", "qcow2", &["-o", "compression_type=zstd,cluster_size=2M", "1G"]);
    library.create("sub", "qcow2", &["-o", "extended_l2=on", "1G"]);
    library.create("small", "qcow2", &["-o", "cluster_size=512", "1M"]);
    library.create("raw", "raw", &["1M"]);
    std::fs::write(v3.join("vmlinuz"), "k").unwrap();
    std::fs::write(v3.join("initrd.img"), "i").unwrap();
    let boot = "[kernel]\nkernel = \"vmlinuz\"\ninitrd = \"initrd.img\"\ncmdline = \"root=LABEL=root rw\"\n";
    write_manifest(&v3, "qcow2", &sha256(&v3.join("disk")).to_uppercase(), boot);

    let (images, broken) = library.images().list().await.unwrap();
    assert!(broken.is_empty(), "{broken:?}");
    let sizes: Vec<_> = images.iter().map(|image| (image.name.as_str(), image.virtual_bytes)).collect();
    let gib = 1 << 30;
    assert_eq!(
        sizes,
        [("raw", 1 << 20), ("small", 1 << 20), ("sub", gib), ("v2", gib), ("v3", 3 * gib), ("zstd", gib)]
    );
    let image = library.images().get(&name("v3")).await.unwrap();
    assert_eq!(image, images[4]);
    assert_eq!((image.format, image.os_family), (ImageFormat::Qcow2, OsFamily::Linux));
    assert_eq!((image.provisioning, image.description.as_str()), (Provisioning::CloudInit, "of qcow2"));
    assert_eq!((&image.disk, &image.sha256), (&v3.join("disk"), &sha256(&v3.join("disk"))));
    let kernel = KernelBoot {
        kernel: v3.join("vmlinuz"),
        initrd: Some(v3.join("initrd.img")),
        cmdline: "root=LABEL=root rw".to_owned(),
    };
    assert_eq!(image.kernel, Some(kernel));
}

#[tokio::test]
async fn images_that_name_other_files_are_refused() {
    let library = Library::new();
    let base = library.create("base", "qcow2", &["1M"]);
    let backing = base.join("disk");
    library.create("overlay", "qcow2", &["-b", backing.to_str().unwrap(), "-F", "qcow2", "1M"]);
    let data = library.0.path().join("data");
    library.create("external", "qcow2", &["-o", &format!("data_file={}", data.display()), "1M"]);
    assert!(library.reason("overlay").await.contains("backing file"));
    assert!(library.reason("external").await.contains("external data file"));
    let (images, broken) = library.images().list().await.unwrap();
    assert_eq!(images.len(), 1);
    let names: Vec<_> = broken.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["external", "overlay"]);
}

#[tokio::test]
async fn a_format_is_declared_and_never_guessed() {
    let library = Library::new();
    let raw = library.create("raw", "raw", &["1M"]);
    write_manifest(&raw, "qcow2", &sha256(&raw.join("disk")), "");
    assert!(library.reason("raw").await.contains("qcow2 header"));
    // A raw disk whose guest wrote a qcow2 header to its first sector is a raw disk.
    let qcow2 = library.create("qcow2", "qcow2", &["1G"]);
    let disk = qcow2.join("disk");
    let length = std::fs::metadata(&disk).unwrap().len().next_multiple_of(512);
    std::fs::File::options().write(true).open(&disk).unwrap().set_len(length).unwrap();
    write_manifest(&qcow2, "raw", &sha256(&disk), "");
    let image = library.images().get(&name("qcow2")).await.unwrap();
    assert_eq!((image.format, image.virtual_bytes), (ImageFormat::Raw, length));
}

#[tokio::test]
async fn a_disk_that_is_not_what_the_manifest_says_is_refused() {
    let library = Library::new();
    let folder = library.create("a", "qcow2", &["1M"]);
    let images = library.images();
    images.get(&name("a")).await.unwrap();
    // The same library notices that the file is another one now.
    run("qemu-img", &["create", "-q", "-f", "qcow2", folder.join("disk").to_str().unwrap(), "2M"]);
    let error = images.get(&name("a")).await.unwrap_err();
    assert!(matches!(&error, ImageError::Unusable { reason, .. } if reason.contains("SHA-256")), "{error}");
    write_manifest(&folder, "qcow2", &sha256(&folder.join("disk")), "");
    assert_eq!(images.get(&name("a")).await.unwrap().virtual_bytes, 2 << 20);
}

#[tokio::test]
async fn a_family_that_cannot_be_built_is_not_fit_for_use() {
    let library = Library::new();
    library.create("debian", "qcow2", &["1M"]);
    let folder = library.create("win11", "qcow2", &["1M"]);
    let manifest = std::fs::read_to_string(folder.join("manifest.toml")).unwrap();
    std::fs::write(folder.join("manifest.toml"), manifest.replace("linux", "windows")).unwrap();
    let (all, broken) = library.images().list().await.unwrap();
    assert_eq!((all.len(), broken.len()), (2, 0), "{broken:?}");
    let images = library.images().only(|family| family == OsFamily::Linux);
    let (usable, broken) = images.list().await.unwrap();
    assert_eq!((usable.len(), broken.len()), (1, 1));
    assert_eq!(
        (broken[0].name.as_str(), &*broken[0].reason),
        ("win11", "no domain template for windows VMs yet")
    );
    let refused = images.get(&name("win11")).await;
    assert!(
        matches!(&refused, Err(ImageError::Unusable { reason, .. }) if reason.contains("template")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn nothing_outside_of_the_folder_is_reached() {
    let library = Library::new();
    let good = library.create("good", "qcow2", &["1M"]);
    let disk = good.join("disk");
    let link = library.folder("link");
    std::os::unix::fs::symlink(&disk, link.join("disk")).unwrap();
    write_manifest(&link, "qcow2", &sha256(&disk), "");
    assert!(library.reason("link").await.contains("disk is not a regular file"));

    let fifo = library.folder("fifo");
    run("mkfifo", &[fifo.join("disk").to_str().unwrap()]);
    write_manifest(&fifo, "raw", &sha256(&disk), "");
    assert!(library.reason("fifo").await.contains("disk is not a regular file"));

    let kernel = library.create("kernel", "qcow2", &["1M"]);
    std::os::unix::fs::symlink("/etc/hostname", kernel.join("vmlinuz")).unwrap();
    let sha = sha256(&kernel.join("disk"));
    write_manifest(&kernel, "qcow2", &sha, "[kernel]\nkernel = \"vmlinuz\"\n");
    assert!(library.reason("kernel").await.contains("vmlinuz is not a regular file"));
    write_manifest(&kernel, "qcow2", &sha, "[kernel]\nkernel = \"../good/disk\"\n");
    assert!(library.reason("kernel").await.contains("kernel.kernel"));

    std::os::unix::fs::symlink(&good, library.0.path().join("alias")).unwrap();
    assert!(library.reason("alias").await.contains("not a folder"));
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let library = Library::new();
    assert!(
        matches!(library.images().get(&name("nothing")).await, Err(ImageError::NotFound(n)) if n == "nothing")
    );
    let empty = library.folder("empty");
    assert!(library.reason("empty").await.contains("manifest.toml"));
    write_manifest(&empty, "raw", &"0".repeat(64), "");
    assert!(library.reason("empty").await.contains("disk cannot be read"));
    std::fs::write(empty.join("disk"), "").unwrap();
    assert!(library.reason("empty").await.contains("empty"));
    std::fs::write(empty.join("disk"), "abc").unwrap();
    assert!(library.reason("empty").await.contains("512"));
    std::fs::write(empty.join("manifest.toml"), vec![b'#'; 70_000]).unwrap();
    assert!(library.reason("empty").await.contains("64 KiB"));
    std::fs::write(empty.join("manifest.toml"), b"\xff").unwrap();
    assert!(library.reason("empty").await.contains("manifest.toml"));
}

#[tokio::test]
async fn a_library_that_is_not_there_is_empty() {
    let images = Images::new("/nowhere/images".into());
    let (found, broken) = images.list().await.unwrap();
    assert!(found.is_empty() && broken.is_empty());
    assert!(matches!(images.get(&name("a")).await, Err(ImageError::NotFound(_))));
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(Images::new(file.path().to_owned()).list().await, Err(ImageError::Library { .. })));
}

#[tokio::test]
async fn folders_with_odd_names_are_shown_and_hidden_ones_are_not() {
    let library = Library::new();
    library.folder(".part");
    library.folder("a b\u{1b}[2J");
    std::fs::write(library.0.path().join("README"), "").unwrap();
    let (images, broken) = library.images().list().await.unwrap();
    assert!(images.is_empty());
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0].name, "a b[2J", "control characters reach a terminal");
    assert!(broken[0].reason.contains("name"), "{}", broken[0].reason);
}

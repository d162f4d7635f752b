//! Discs made by the tools that people make them with, and discs that were made to hurt.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

/// A small disc of this tree.
fn disc(dir: &Path, files: &[(&str, &str)], options: &[&str]) -> PathBuf {
    let tree = dir.join("tree");
    for (name, text) in files {
        let path = tree.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let iso = dir.join("disc.iso");
    let output = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-V", "A_DISC"])
        .args(options)
        .arg("-o")
        .args([&iso, &tree])
        .output()
        .expect("xorriso is needed; scripts/test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    iso
}

fn look(path: &Path) -> Result<Traces, Wrong> {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let disc = Disc::new(&file, length);
    let volume = Volume::open(&disc)?;
    let traces = disc.traces(&volume).unwrap();
    assert!(disc.state.borrow().read <= MAX_READ);
    Ok(traces)
}

const FILES: [(&str, &str); 4] = [
    (".disk/info", "Ubuntu-Server"),
    (".treeinfo", "[general]"),
    ("casper/vmlinuz", "k"),
    ("images/pxeboot/initrd.img", "i"),
];

#[test]
fn names_are_found_in_each_kind_of_tree() {
    for options in [&["-R"][..], &["-J"], &["-R", "-J"]] {
        let dir = tempfile::tempdir().unwrap();
        let traces = look(&disc(dir.path(), &FILES, options)).unwrap();
        assert_eq!(traces.label, "A_DISC");
        assert_eq!(traces.disk_info.as_deref(), Some("Ubuntu-Server"), "{options:?}");
        assert_eq!(traces.treeinfo.as_deref(), Some("[general]"), "{options:?}");
        assert_eq!(traces.boot_files, ["casper/vmlinuz", "images/pxeboot/initrd.img"], "{options:?}");
        assert!(!traces.bootable);
    }
    let dir = tempfile::tempdir().unwrap();
    let boot = [("boot/grub.img", "boots"), ("bootmgr", "b")];
    let iso = disc(dir.path(), &boot, &["-R", "-b", "boot/grub.img", "-no-emul-boot"]);
    assert!(look(&iso).unwrap().bootable);
}

#[test]
fn a_long_text_is_read_up_to_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let traces = look(&disc(dir.path(), &[(".treeinfo", &"x".repeat(200_000))], &["-R"])).unwrap();
    assert_eq!(traces.treeinfo.unwrap().len() as u64, MAX_TEXT);
}

#[test]
fn a_disc_cut_anywhere_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let iso = disc(dir.path(), &FILES, &["-R", "-J"]);
    let whole = std::fs::metadata(&iso).unwrap().len();
    let file = File::options().write(true).open(&iso).unwrap();
    for (length, wrong) in [
        (whole - 1, Wrong::Truncated(whole)),
        (40_000, Wrong::Truncated(whole)),
        (33_000, Wrong::NoDisc),
        (0, Wrong::NoDisc),
    ] {
        file.set_len(length).unwrap();
        assert_eq!(look(&iso), Err(wrong), "{length}");
    }
}

/// Writes over what stands there.
fn spoil(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn a_root_as_long_as_the_sea_or_that_holds_itself_costs_no_more_than_any() {
    let dir = tempfile::tempdir().unwrap();
    let iso = disc(dir.path(), &FILES, &["-R"]);
    // A sparse file is as long as it says, and so is its root directory.
    let mut file = File::options().append(true).open(&iso).unwrap();
    file.write_all(&[0]).unwrap();
    file.set_len(1 << 40).unwrap();
    let root = 16 * SECTOR + 156;
    spoil(&iso, root + 10, &u32::MAX.to_le_bytes());
    let begun = Instant::now();
    look(&iso).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    // Every entry of the root is the root, under the name that is looked for.
    let mut sector = Vec::new();
    let mut place = [0; 4];
    File::open(&iso).unwrap().read_exact_at(&mut place, root + 2).unwrap();
    for name in [".disk", "casper", "install", "sources", "images", "efi", "boot", "pxeboot"] {
        let mut record = vec![0; 33];
        record[2..6].copy_from_slice(&place);
        record[10..14].copy_from_slice(&2048_u32.to_le_bytes());
        record[25] = 2;
        record[32] = u8::try_from(name.len()).unwrap();
        record.extend(name.as_bytes());
        record.resize(record.len().next_multiple_of(2), 0);
        record[0] = u8::try_from(record.len()).unwrap();
        sector.extend(record);
    }
    sector.resize(2048, 0);
    spoil(&iso, u64::from(u32::from_le_bytes(place)) * SECTOR, &sector);
    let traces = look(&iso).unwrap();
    assert_eq!((traces.disk_info, traces.boot_files), (None, Vec::<String>::new()));
}

/// Looks at a disc of which any bytes of the first so many may be others.
fn spoilt(iso: &Path, sectors: std::ops::Range<usize>) {
    let good = std::fs::read(iso).unwrap();
    let bytes = sectors.start * 2048..good.len().min(sectors.end * 2048);
    let spots = prop::collection::vec((bytes, any::<u8>()), 1..40);
    proptest!(ProptestConfig::with_cases(256), |(spots in spots)| {
        let mut bad = good.clone();
        for (at, byte) in spots {
            bad[at] = byte;
        }
        std::fs::write(iso, &bad).unwrap();
        let _ = look(iso);
    });
}

#[test]
fn no_disc_with_spoilt_bytes_makes_it_panic_or_read_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    spoilt(&disc(dir.path(), &FILES, &["-R", "-J"]), 16..64);
}

#[test]
fn neither_does_one_of_udf() {
    let dir = tempfile::tempdir().unwrap();
    disc(dir.path(), &FILES, &[]);
    let iso = dir.path().join("udf.iso");
    let output = Command::new("genisoimage")
        .args(["-quiet", "-udf", "-hide", ".disk", "-hide", "casper", "-o"])
        .args([&iso, &dir.path().join("tree")])
        .output()
        .expect("genisoimage is needed; scripts/test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let traces = look(&iso).unwrap();
    assert_eq!(traces.disk_info.as_deref(), Some("Ubuntu-Server"));
    assert!(traces.boot_files.contains(&"casper/vmlinuz".to_owned()), "{:?}", traces.boot_files);
    // Descriptors, then files and directories.
    spoilt(&iso, 256..300);
    spoilt(&iso, 32..60);
}

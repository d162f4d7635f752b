//! Which pair a disc has, and discs whose numbers lie.

use std::process::Command;

use super::*;

fn facts(boot_files: &[&str]) -> MediumFacts {
    let boot_files = boot_files.iter().map(|&path| path.to_owned()).collect();
    MediumFacts { boot_files, ..MediumFacts::default() }
}

#[test]
fn a_pair_is_whole_or_none() {
    let debian = BootPair::of(&facts(&["install.amd/vmlinuz", "install.amd/initrd.gz", "bootmgr"])).unwrap();
    assert_eq!((debian.kernel, debian.initrd), ("install.amd/vmlinuz", "install.amd/initrd.gz"));
    for none in
        [&[][..], &["casper/vmlinuz"], &["casper/vmlinuz", "install/initrd.gz"], &["sources/boot.wim"]]
    {
        assert_eq!(BootPair::of(&facts(none)), None, "{none:?}");
    }
}

/// A disc with plain names alone; gives its bytes.
fn plain(dir: &Path, files: &[(&str, &[u8])]) -> Vec<u8> {
    let tree = dir.join("tree");
    fs::create_dir(&tree).unwrap();
    for (name, bytes) in files {
        fs::write(tree.join(name), bytes).unwrap();
    }
    let iso = dir.join("disc.iso");
    let mut mkisofs = Command::new("xorriso");
    mkisofs.args(["-as", "mkisofs", "-quiet", "-no-pad", "-o"]).args([&iso, &tree]);
    let output = mkisofs.output().expect("xorriso is needed; scripts/test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(iso).unwrap()
}

/// Where the directory's record of this name begins.
fn record(disc: &[u8], name: &str) -> usize {
    let id = disc.windows(name.len()).position(|part| part == name.as_bytes()).unwrap();
    id - 33
}

#[test]
fn a_file_in_pieces_is_put_together() {
    let dir = tempfile::tempdir().unwrap();
    let (begin, end) = (vec![b'a'; 4096], vec![b'b'; 100]);
    let mut disc = plain(dir.path(), &[("KERNELA", &begin), ("KERNELB", &end)]);
    let (first, second) = (record(&disc, "KERNELA"), record(&disc, "KERNELB"));
    disc[first + 25] |= 0x80;
    disc[second + 33 + 6] = b'A';
    let (iso, to) = (dir.path().join("pieces.iso"), dir.path().join("kernel"));
    fs::write(&iso, &disc).unwrap();
    assert_eq!(extract(&iso, "kernela", &to, 5000).unwrap(), 4196);
    assert_eq!(fs::read(&to).unwrap(), [begin, end].concat());
    // Only the whole counts for the bound, and it leaves nothing.
    fs::remove_file(&to).unwrap();
    let refused = extract(&iso, "kernela", &to, 4195).unwrap_err();
    assert!(matches!(refused, DiscError::TooLarge { length: 4196, limit: 4195, .. }), "{refused:?}");
    assert!(!to.exists() && !draft(&to).exists());
}

#[test]
fn a_file_that_says_it_is_larger_than_its_disc_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let good = plain(dir.path(), &[("KERNEL", &[7; 100])]);
    let (iso, to) = (dir.path().join("lying.iso"), dir.path().join("kernel"));
    let at = record(&good, "KERNEL");
    for (field, number) in [(10, u32::MAX), (10, 1 << 30), (10, 0), (2, u32::MAX), (2, 1 << 20)] {
        let mut bad = good.clone();
        bad[at + field..at + field + 4].copy_from_slice(&number.to_le_bytes());
        fs::write(&iso, &bad).unwrap();
        let refused = extract(&iso, "KERNEL", &to, u64::MAX).unwrap_err();
        assert!(matches!(refused, DiscError::Broken(_)), "{field} {number}: {refused:?}");
    }
    assert!(!to.exists() && !draft(&to).exists());
    fs::write(&iso, "<!doctype html>").unwrap();
    assert!(matches!(extract(&iso, "KERNEL", &to, 1000), Err(DiscError::Broken(_))));
    assert!(matches!(extract(&dir.path().join("none"), "KERNEL", &to, 1000), Err(DiscError::Io { .. })));
}

//! An installer's kernel and initrd, had from discs of every kind without unpacking these.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use infinibay::{
    install::{SeedFile, build_medium},
    media::{DiscError, extract},
};

fn kernel() -> Vec<u8> {
    (0..3_000_000_u32).flat_map(|word| u8::try_from(word % 251)).collect()
}

fn listed(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_comes_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let file = |path: &str, contents: Vec<u8>| SeedFile { path: path.to_owned(), contents };
    let files = [
        file("casper/vmlinuz", kernel()),
        file("casper/initrd", b"initrd".to_vec()),
        file("a-long-name-for-a-file.that-is-none-of-iso-9660", b"long".to_vec()),
    ];
    let iso = dir.path().join("disc.iso");
    fs::write(&iso, build_medium("UBUNTU", &files).unwrap()).unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let to = out.join("kernel");
    // What stands there, and what a crash left of an attempt before, gives way; no link is followed.
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, "not to be touched").unwrap();
    symlink(&elsewhere, &to).unwrap();
    symlink(&elsewhere, out.join(".kernel.part")).unwrap();
    for _ in 0..2 {
        assert_eq!(extract(&iso, "casper/vmlinuz", &to, 3_000_000).unwrap(), 3_000_000);
        assert!(fs::read(&to).unwrap() == kernel(), "the kernel came out otherwise");
        assert_eq!(listed(&out), ["kernel"]);
    }
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "not to be touched");
    assert_eq!(extract(&iso, "CASPER/INITRD", &to, 100).unwrap(), 6);
    assert_eq!(extract(&iso, "a-long-name-for-a-file.that-is-none-of-iso-9660", &to, 100).unwrap(), 4);
    let refused = extract(&iso, "casper/vmlinuz", &to, 2_999_999).unwrap_err();
    assert!(matches!(refused, DiscError::TooLarge { length: 3_000_000, .. }), "{refused:?}");
    for none in
        ["casper/none", "casper", "", "/", "/casper/vmlinuz", "casper/../casper/vmlinuz", "casper//vmlinuz"]
    {
        let refused = extract(&iso, none, &to, 100).unwrap_err();
        assert!(matches!(refused, DiscError::NoFile(_)), "{none:?}: {refused:?}");
    }
    assert_eq!(fs::read(&to).unwrap(), b"long", "a refusal changed what was there");
    let nowhere = extract(&iso, "casper/initrd", &out.join("none/kernel"), 100).unwrap_err();
    assert!(matches!(nowhere, DiscError::Io { .. }), "{nowhere:?}");
    assert_eq!(listed(&out), ["kernel"]);
}

#[test]
fn every_kind_of_tree_gives_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    // So long that Rock Ridge has no room for it in the directory itself.
    let long = format!("install.amd/{}", "x".repeat(240));
    fs::create_dir_all(tree.join("install.amd")).unwrap();
    fs::write(tree.join("install.amd/vmlinuz"), kernel()).unwrap();
    fs::write(tree.join(&long), "long").unwrap();
    let (iso, to) = (dir.path().join("disc.iso"), dir.path().join("kernel"));
    let udf = ["-udf", "-hide", "install.amd"];
    for (program, options, has_long) in [
        ("xorriso", &["-R"][..], true),
        ("xorriso", &["-R", "-J"], true),
        ("xorriso", &["-J"], false),
        ("genisoimage", &["-R"], true),
        ("genisoimage", &udf, false),
    ] {
        let mut make = Command::new(program);
        if program == "xorriso" {
            make.args(["-as", "mkisofs"]);
        }
        make.arg("-quiet").args(options).arg("-o").args([&iso, &tree]);
        let output = make
            .output()
            .unwrap_or_else(|error| panic!("{program} is needed ({error}); scripts/test installs it"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            extract(&iso, "install.amd/vmlinuz", &to, 1 << 24).unwrap(),
            3_000_000,
            "{program} {options:?}"
        );
        assert!(fs::read(&to).unwrap() == kernel(), "{program} {options:?}");
        if has_long {
            assert_eq!(extract(&iso, &long, &to, 100).unwrap(), 4, "{program} {options:?}");
        }
    }
}

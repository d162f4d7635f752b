//! The seed medium, read back by a program that is not ours.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{collections::BTreeMap, path::Path, process::Command};

use infinibay::install::{IsoError, SeedFile, build_iso};

fn file(path: &str, contents: impl Into<Vec<u8>>) -> SeedFile {
    SeedFile { path: path.to_owned(), contents: contents.into() }
}

fn xorriso(args: &[&str]) -> String {
    let output = Command::new("xorriso").args(args).output().unwrap_or_else(|e| {
        panic!("xorriso cannot be run ({e}); the package xorriso is needed for this test")
    });
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "xorriso {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &said
}

/// Everything in the image by path, through Rock Ridge or through Joliet.
fn read_back(image: &Path, into: &Path, joliet: bool) -> BTreeMap<String, Vec<u8>> {
    let tree = if joliet { "norock" } else { "nojoliet" };
    let (image, target) = (image.to_str().unwrap(), into.to_str().unwrap());
    xorriso(&["-read_fs", tree, "-osirrox", "on", "-indev", image, "-extract", "/", target]);
    let mut files = BTreeMap::new();
    let mut pending = vec![into.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(into).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn seed() -> Vec<SeedFile> {
    let binary: Vec<u8> = (0..1_400_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vec![
        file("user-data", "#cloud-config\n{}\n"),
        file("meta-data", "{}\n"),
        file("network-config", "{ \"version\": 2 }\n"),
        file("infiniservice/infiniservice", binary),
        file("infiniservice/install-linux.sh", "#!/bin/sh\n"),
        file("infiniservice/infiniservice.service", "[Unit]\n"),
        file("infiniservice/infiniservice.env", ""),
    ]
}

#[test]
fn every_file_comes_back_with_its_name_and_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("seed.iso");
    let bytes = build_iso(&seed()).unwrap();
    assert_eq!(bytes.len() % 2048, 0);
    assert!(bytes.len() < 1_400_001 + 200 * 1024, "{} bytes: the room was not cut off", bytes.len());
    std::fs::write(&image, &bytes).unwrap();
    let expected: BTreeMap<_, _> = seed().into_iter().map(|f| (f.path, f.contents)).collect();
    for (joliet, name) in [(false, "rock-ridge"), (true, "joliet")] {
        let found = read_back(&image, &dir.path().join(name), joliet);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        assert!(found == expected, "{name}: a file has other contents");
    }
}

#[test]
fn the_label_is_the_one_that_cloud_init_looks_for() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("seed.iso");
    std::fs::write(&image, build_iso(&seed()).unwrap()).unwrap();
    let output = Command::new("blkid").args(["-p", "-o", "export"]).arg(&image).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let has = |line: &str| said.lines().any(|l| l == line);
    assert!(has("LABEL=cidata") && has("TYPE=iso9660"), "{said}");
    let told = xorriso(&["-indev", image.to_str().unwrap(), "-toc"]);
    assert!(told.contains("cidata"), "{told}");
}

#[test]
fn names_that_are_no_plain_names_are_refused() {
    let long = "a".repeat(65);
    for bad in
        ["", "/a", "a/", "../a", "a/../b", ".a", "a/.b", "a b", "a\nb", "ä", "a/b/c", "a\\b", long.as_str()]
    {
        let refused = build_iso(&[file(bad, "")]);
        assert!(matches!(refused, Err(IsoError::Name(_))), "{bad:?}");
    }
    assert!(matches!(build_iso(&[file("a", ""), file("a", "")]), Err(IsoError::Name(_))));
    assert!(matches!(build_iso(&[file("a", ""), file("a/b", "")]), Err(IsoError::Name(_))));
    let many: Vec<_> = (0..129).map(|n| file(&format!("f{n}"), "")).collect();
    assert!(matches!(build_iso(&many), Err(IsoError::TooLarge)));
}

#[test]
fn sizes_from_nothing_to_many_sectors() {
    let dir = tempfile::tempdir().unwrap();
    for size in [0, 1, 2047, 2048, 2049, 100_000] {
        let image = dir.path().join(format!("{size}.iso"));
        let contents = vec![b'x'; size];
        std::fs::write(&image, build_iso(&[file("user-data", contents.clone())]).unwrap()).unwrap();
        let found = read_back(&image, &dir.path().join(size.to_string()), false);
        assert_eq!(found.get("user-data"), Some(&contents), "{size} bytes");
    }
}

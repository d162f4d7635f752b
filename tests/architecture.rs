//! The rooms know only what `docs/ARCHITECTURE.md` says they may: no arrow runs upward, and
//! between rooms of one floor only where the table says so.

use std::{fs, path::Path};

/// Each room with its floor, and whom of its own floor it knows.
const ROOMS: [(&str, u8, &[&str]); 22] = [
    ("vm", 0, &[]),
    ("config", 0, &["vm"]),
    ("failpoint", 0, &[]),
    ("template", 0, &[]),
    ("access", 1, &[]),
    ("domain_xml", 1, &[]),
    ("events", 1, &[]),
    ("install", 1, &[]),
    ("agents", 2, &[]),
    ("hypervisor", 2, &[]),
    ("store", 2, &[]),
    ("accounts", 3, &[]),
    ("alerts", 3, &[]),
    ("commands", 3, &[]),
    ("images", 3, &[]),
    ("media", 3, &["images"]),
    ("metrics", 3, &[]),
    ("reconcile", 3, &["media"]),
    ("lifecycle", 4, &[]),
    ("api", 5, &[]),
    ("controller", 6, &[]),
    ("cli", 6, &["controller"]),
];

fn room(name: &str) -> Option<(&'static str, u8, &'static [&'static str])> {
    ROOMS.into_iter().find(|(room, ..)| *room == name)
}

/// The rooms that a text names after `crate::`, grouped imports included.
fn named(text: &str) -> Vec<String> {
    let code =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => names.push(after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()),
            Some(group) => {
                let mut depth = 1;
                let mut name = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    if depth == 1 && (c.is_alphanumeric() || c == '_') {
                        name.push(c);
                    } else if !name.is_empty() && depth <= 1 {
                        // Only the first segment of each entry is a room.
                        names.push(std::mem::take(&mut name));
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    names
}

fn look(dir: &Path, of: &str, faults: &mut Vec<String>, arrows: &mut usize) {
    let files = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.expect("a directory entry").path());
    for path in files {
        if path.is_dir() {
            look(&path, of, faults, arrows);
        } else {
            judge(&path, of, faults, arrows);
        }
    }
}

fn judge(path: &Path, of: &str, faults: &mut Vec<String>, arrows: &mut usize) {
    let (_, floor, same_floor) = room(of).expect("a room");
    let text = fs::read_to_string(path).expect("a source file");
    for other in named(&text) {
        let Some((other, its_floor, _)) = room(&other) else { continue };
        if other == of {
            continue;
        }
        *arrows += 1;
        if its_floor > floor || (its_floor == floor && !same_floor.contains(&other)) {
            faults
                .push(format!("{}: {of} (floor {floor}) knows {other} (floor {its_floor})", path.display()));
        }
    }
}

#[test]
fn no_arrow_runs_upward() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut faults, mut arrows) = (Vec::new(), 0);
    for (of, ..) in ROOMS {
        judge(&src.join(format!("{of}.rs")), of, &mut faults, &mut arrows);
        look(&src.join(of), of, &mut faults, &mut arrows);
    }
    assert!(arrows > 100, "only {arrows} arrows were seen: the reader is blind");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_room_is_in_the_plan() {
    let lib =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("src/lib.rs");
    for line in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let name = line.trim_end_matches(';');
        assert!(room(name).is_some(), "{name} has no floor");
    }
}

#[test]
fn the_reader_sees_groups_and_paths() {
    let text = "use crate::{\n    config::X,\n    vm::{A, b::C},\n};\ncrate::store::y(); // crate::api";
    let seen = named(text);
    for expected in ["config", "vm", "store"] {
        assert!(seen.iter().any(|name| name == expected), "{expected} not in {seen:?}");
    }
    assert!(!seen.iter().any(|name| name == "api"), "{seen:?}");
}

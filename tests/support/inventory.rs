//! What there is on the host of a story and its VMs: taken before a VM is made and after it is deleted,
//! it must be the same.
//!
//! Other stories run beside, so what is theirs has to be told apart. What belongs to a story alone, its
//! home and its pool, is taken wholly. Elsewhere everything counts that has
//! one of the story's words in its path, or in what it holds: a pool or a network under a name that
//! nobody gave it still says whose files it is about.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use infinibay::{domain_xml::mac_address, vm::VmId};

use super::{daemon::Home, host::Pool};

/// A line for each thing that was found.
pub type Inventory = BTreeSet<String>;

/// Where libvirt, its QEMU and its TPMs keep what belongs to domains. Their logs stay, in `/var/log`.
const LIBVIRTS: [&str; 5] =
    ["/etc/libvirt", "/run/libvirt", "/run/swtpm", "/var/lib/libvirt", "/var/cache/libvirt"];
/// Where files of everybody lie, looked at by name.
const EVERYBODYS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// What daemons keep of their own in a home, whatever VMs there are.
const DAEMONS: [&str; 12] = [
    "sockets",
    "state",
    "state/console",
    "state/host-id",
    "state/image-digests.json",
    "state/infinibay.db",
    "state/infinibay.db-shm",
    "state/infinibay.db-wal",
    "state/lock",
    "state/media",
    "state/seeds",
    "state/spool",
];
/// Of a file, so much is read: descriptions are shorter, and saved memory begins with one.
const READ: u64 = 256 << 10;
/// libvirt cuts names off after so many characters, where it makes directories of them.
const SHORT: usize = 20;

/// What is looked for, and where.
#[derive(Debug, Clone)]
pub struct Survey {
    home: PathBuf,
    pool: String,
    words: Vec<String>,
}

impl Survey {
    pub fn of(home: &Home, pool: &Pool) -> Self {
        let home = home.path().to_owned();
        let name = home.file_name().unwrap().to_str().unwrap().to_owned();
        Self { home, pool: pool.name.clone(), words: vec![name, pool.name.clone()] }
    }

    /// With a VM, by its id and all its names.
    pub fn with_vm(mut self, id: &str, names: &[&str]) -> Self {
        let vm = VmId::from(id.parse::<uuid::Uuid>().unwrap());
        self.words.extend([id.to_owned(), mac_address(vm)]);
        for name in names {
            let short = name.chars().take(SHORT).collect::<String>();
            self.words.extend([(*name).to_owned(), format!("-{short}")]);
        }
        self
    }

    /// All of it, now.
    pub fn take(&self) -> Inventory {
        let mut found = Inventory::new();
        self.libvirts_own_word(&mut found);
        for root in LIBVIRTS {
            self.mentioned(Path::new(root), &mut found);
        }
        for root in EVERYBODYS {
            let named = entries(Path::new(root)).into_iter().filter(|path| self.is_named(path));
            found.extend(named.map(|path| format!("file {}", path.display())));
        }
        self.whole(&self.home, &mut found);
        self.processes(&mut found);
        found
    }

    fn mentions(&self, text: &str) -> bool {
        self.words.iter().any(|word| text.contains(word))
    }

    fn is_named(&self, path: &Path) -> bool {
        self.mentions(&path.to_string_lossy())
    }

    /// What libvirt tells of, which may differ from the files that it keeps.
    fn libvirts_own_word(&self, found: &mut Inventory) {
        for (what, list, show) in [
            ("domain", &["list", "--all", "--name"][..], "dumpxml"),
            ("pool", &["pool-list", "--all", "--name"], "pool-dumpxml"),
            ("network", &["net-list", "--all", "--name"], "net-dumpxml"),
            ("secret", &["secret-list"], "secret-dumpxml"),
        ] {
            let list = virsh(list).unwrap_or_else(|| panic!("virsh {list:?}"));
            for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
                // What others had may be gone by now.
                let Some(shown) = virsh(&[show, name]) else { continue };
                if !self.mentions(&shown) && !self.mentions(name) {
                    continue;
                }
                found.insert(format!("{what} {name}"));
                if what == "domain" {
                    let snapshots = virsh(&["snapshot-list", name, "--name"]).unwrap_or_default();
                    found.extend(snapshots.lines().map(|snapshot| format!("snapshot {name} {snapshot}")));
                }
            }
        }
        for pool in virsh(&["pool-list", "--name"]).unwrap().lines().map(str::trim) {
            let volumes = virsh(&["vol-list", pool]).unwrap_or_default();
            let ours = volumes.lines().filter(|line| pool == self.pool || self.mentions(line));
            found.extend(ours.map(|line| {
                format!("volume {pool} {}", line.split_whitespace().collect::<Vec<_>>().join(" "))
            }));
        }
    }

    /// The files below `dir` that have one of the words in their path or in themselves.
    fn mentioned(&self, dir: &Path, found: &mut Inventory) {
        for path in entries(dir) {
            let Ok(meta) = path.symlink_metadata() else { continue };
            if self.is_named(&path) || (meta.is_file() && self.mentions(&beginning(&path))) {
                found.insert(format!("file {}", path.display()));
            }
            if meta.is_dir() {
                self.mentioned(&path, found);
            }
        }
    }

    /// Everything below `dir` but what daemons keep for themselves.
    fn whole(&self, dir: &Path, found: &mut Inventory) {
        for path in entries(dir) {
            let Ok(meta) = path.symlink_metadata() else { continue };
            let below = path.strip_prefix(&self.home).unwrap().to_str().unwrap();
            if !DAEMONS.contains(&below) && !below.starts_with("log-") {
                let kind = meta.file_type();
                let kind = match () {
                    () if kind.is_dir() => "directory",
                    () if kind.is_file() => "file",
                    () if kind.is_socket() => "socket",
                    () => "other",
                };
                // Not whose it is: libvirt gives a disc to QEMU's user, and others may have it in use.
                found.insert(format!("{kind} {} {:o}", path.display(), meta.mode() & 0o7777));
            }
            if meta.is_dir() {
                self.whole(&path, found);
            }
        }
    }

    /// Programs that were started for the VM, and those of others that hold a file of the story open:
    /// one that is removed would go on taking its room.
    fn processes(&self, found: &mut Inventory) {
        for process in entries(Path::new("/proc")) {
            let name = process.file_name().unwrap().to_string_lossy().into_owned();
            if name.parse::<u32>().is_err() {
                continue;
            }
            // Others' end while they are looked at, and kernel threads have no words.
            let words = fs::read(process.join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            let program = words.split_whitespace().next().unwrap_or_default();
            let program = program.rsplit('/').next().unwrap_or_default().to_owned();
            // Another story that looks around asks libvirt of each pool and domain, of ours too; and nothing
            // of the product runs virsh.
            if ["infinibayd", "virsh"].contains(&&*program) || name == std::process::id().to_string() {
                continue;
            }
            if self.mentions(&words) {
                found.insert(format!("process {program}"));
            }
            let files = entries(&process.join("fd")).into_iter().filter_map(|fd| fs::read_link(fd).ok());
            let held = files.filter(|file| file.starts_with(&self.home));
            found.extend(held.map(|file| format!("held by {program}: {}", file.display())));
        }
    }
}

/// What is in a directory; nothing, when it is gone.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

fn beginning(path: &Path) -> String {
    let mut bytes = Vec::new();
    // A file that goes meanwhile holds nothing.
    let read = File::open(path).and_then(|file| file.take(READ).read_to_end(&mut bytes));
    read.map(|_| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// `None`: it failed, as it does for what is gone.
fn virsh(args: &[&str]) -> Option<String> {
    let told = Command::new("virsh").args(["-q", "-c", "qemu:///system"]).args(args).output();
    let told = told.expect("virsh is needed; scripts/test installs it");
    told.status.success().then(|| String::from_utf8_lossy(&told.stdout).into_owned())
}

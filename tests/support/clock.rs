//! A daemon whose clock on the wall can be set while it runs, by libfaketime. What passes (timers,
//! waits) goes on as before, as where an administrator or a time server sets a host's clock.
#![allow(dead_code)] // each story uses a part of it

use std::{fs, path::PathBuf};

/// The wall of one daemon.
pub(crate) struct Clock {
    dir: tempfile::TempDir,
}

impl Clock {
    /// One that shows the time.
    pub(crate) fn new() -> Self {
        let clock = Self { dir: tempfile::tempdir().unwrap() };
        clock.set(0);
        clock
    }

    /// From now on it is off by so many seconds.
    pub(crate) fn set(&self, seconds: i64) {
        // Whole or not at all: it is read at every look at the clock.
        let draft = self.dir.path().join("draft");
        fs::write(&draft, format!("{seconds:+}\n")).unwrap();
        fs::rename(draft, self.file()).unwrap();
    }

    /// For the daemon's environment.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let file = self.file().display().to_string();
        let set = [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        set.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("offset")
    }
}

fn library() -> PathBuf {
    let below = |dir: &str| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let places = below("/usr/lib").chain(["/usr/lib".into(), "/usr/lib64".into()]);
    let mut libraries = places.map(|place| place.join("faketime/libfaketimeMT.so.1"));
    libraries
        .find(|library| library.exists())
        .expect("this story needs libfaketime; scripts/test installs it")
}

//! When an installation last showed anything new. Part of a worker's memory: losing it costs time,
//! never truth.

use std::collections::{HashSet, VecDeque};

use chrono::{DateTime, Utc};

use super::observation::InstallSigns;

/// Lines of a console that are known again.
const KNOWN_LINES: usize = 4096;
/// Less that is written to a disk than this is an installer that waits, bytes.
const WRITTEN: u64 = 1 << 20;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// When something new was seen last.
    pub last_news: Option<DateTime<Utc>>,
    /// When the installer was started, where this controller did it.
    pub started: Option<DateTime<Utc>>,
    /// When Enter was pressed last.
    pub pressed: Option<DateTime<Utc>>,
    /// What its console said last of where it is.
    pub stage: Option<String>,
    reported: Option<String>,
    known: HashSet<u64>,
    order: VecDeque<u64>,
    disk_bytes: u64,
}

impl Progress {
    /// The installer was started, from its beginning.
    pub fn begin(&mut self, now: DateTime<Utc>) {
        *self = Self { started: Some(now), last_news: Some(now), ..Self::default() };
    }

    /// It could show nothing meanwhile: its machine does not run.
    pub fn rest(&mut self, now: DateTime<Utc>) {
        self.last_news = Some(now);
    }

    /// Looks whether there is anything new.
    pub fn look(&mut self, reported: Option<&str>, signs: &InstallSigns, now: DateTime<Utc>) {
        let mut news = self.last_news.is_none();
        if reported != self.reported.as_deref() {
            self.reported = reported.map(ToOwned::to_owned);
            news = true;
        }
        // A stage is a line, too: that it is new is seen by that.
        if signs.stage.is_some() {
            self.stage.clone_from(&signs.stage);
        }
        for line in &signs.lines {
            if self.known.insert(*line) {
                self.order.push_back(*line);
                news = true;
            }
        }
        while self.order.len() > KNOWN_LINES {
            self.order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
        let written = signs.disk_bytes.unwrap_or_default();
        if written >= self.disk_bytes.saturating_add(WRITTEN) {
            self.disk_bytes = written;
            news = true;
        }
        if news {
            self.last_news = Some(now);
        }
    }

    /// See [`super::memory::Memory::shift`].
    pub fn shift(&mut self, shifted: impl Fn(DateTime<Utc>) -> DateTime<Utc>) {
        for at in [&mut self.last_news, &mut self.started, &mut self.pressed] {
            *at = at.map(&shifted);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn only_what_is_new_is_news() {
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut progress = Progress::default();
        let mut at = start;
        let mut is_news = |stage: Option<&str>, lines: &[u64], disk_bytes: Option<u64>| {
            at += TimeDelta::seconds(30);
            let signs = InstallSigns { lines: lines.to_vec(), disk_bytes, ..InstallSigns::default() };
            progress.look(stage, &signs, at);
            progress.last_news == Some(at)
        };
        assert!(is_news(None, &[1, 2], None), "the first look");
        assert!(!is_news(None, &[2, 1, 1], None), "the same lines, in any order");
        assert!(is_news(Some("started"), &[1], None), "a stage");
        assert!(!is_news(Some("started"), &[], None));
        assert!(is_news(Some("started"), &[3], None), "a line");
        assert!(is_news(Some("started"), &[3], Some(WRITTEN)), "the disk");
        assert!(!is_news(Some("started"), &[1, 2, 3], Some(2 * WRITTEN - 1)), "next to nothing");
        let flood: Vec<u64> = (10..10 + 2 * KNOWN_LINES as u64).collect();
        assert!(is_news(Some("started"), &flood, None));
        assert!(progress.known.len() == KNOWN_LINES && progress.order.len() == KNOWN_LINES);
    }
}

//! The spool's directory. Everything here blocks.
//!
//! Segments are numbered in the order of their readings. New readings go into the last, old ones
//! leave from the first; a segment goes as a whole, when the database has all of it or when there
//! is no room. A new controller never appends to what an old one wrote.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::segment::{self, Writer};
use crate::{metrics::losses::Losses, store::PackedSample, vm::LossReason};

/// A segment is closed when it has this many bytes: what is sent to the database at once when it
/// is back, and what goes at once when there is no room.
const SEGMENT_BYTES: u64 = 4 << 20;

/// A small spool has this many segments all the same.
const MIN_SEGMENTS: u64 = 16;

/// Segments given up for one write to a disk that is full. They make more than the room that it
/// needs: where it fails all the same, somebody else fills the disk, and giving up more would help
/// only him.
const MAX_GIVEN_UP: u32 = 2;

/// Failures in a row after which a segment that is there but cannot be read is given up. One that
/// passes (no file descriptors, no memory) must not cost what is whole on disk.
const MAX_FAILURES: u32 = 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    max_bytes: u64,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// Writes the last segment; `None`: the next reading begins another.
    writer: Option<Writer>,
    next: u64,
    /// What [`Self::oldest`] gave last, until it is known whether it is stored.
    lent: Option<Lent>,
    /// Left-over segments have been looked for.
    listed: bool,
    /// The sum of all segments, for those who only want to know that.
    bytes: Arc<AtomicU64>,
    losses: Arc<Losses>,
}

/// A segment on its way to the database. Its file may have to make room meanwhile; its readings are
/// lost only if they do not arrive.
#[derive(Debug)]
struct Lent {
    number: u64,
    /// Readings of the file that made room.
    given_up: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// Known of those that this process wrote or read.
    rows: Option<u64>,
    /// To read it, in a row.
    failures: u32,
}

impl Segment {
    fn new(number: u64, bytes: u64, rows: Option<u64>) -> Self {
        Self { number, bytes, rows, failures: 0 }
    }
}

impl Disk {
    pub(super) fn new(dir: PathBuf, max_bytes: u64, bytes: Arc<AtomicU64>, losses: Arc<Losses>) -> Self {
        Self {
            dir,
            max_bytes,
            segment_bytes: SEGMENT_BYTES.min(max_bytes / MIN_SEGMENTS),
            segments: VecDeque::new(),
            writer: None,
            next: 0,
            lent: None,
            listed: false,
            bytes,
            losses,
        }
    }

    /// Finds what an earlier controller left; makes the directory.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.listed {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(number) else { continue };
            let bytes = entry.metadata()?.len();
            if bytes == 0 {
                // A crash came between the file and its first record.
                fs::remove_file(entry.path())?;
                continue;
            }
            found.push(Segment::new(number, bytes, None));
        }
        found.sort_unstable_by_key(|segment| segment.number);
        self.next = found.last().map_or(0, |last| last.number + 1);
        self.segments = found.into();
        self.listed = true;
        self.tell();
        Ok(())
    }

    /// Puts readings behind all others. An error leaves the spool as it was, or with some of
    /// them: to put them there again does no harm.
    pub(super) fn append(&mut self, samples: &[PackedSample]) -> io::Result<()> {
        self.open()?;
        let (mut bytes, mut rows) = (Vec::new(), 0);
        for sample in samples {
            segment::write_record(&mut bytes, sample);
            rows += 1;
            let last = self.last().map_or(0, |last| last.bytes);
            if last + bytes.len() as u64 >= self.segment_bytes {
                self.write(&bytes, rows)?;
                self.writer = None;
                (bytes, rows) = (Vec::new(), 0);
            }
        }
        if rows > 0 { self.write(&bytes, rows) } else { Ok(()) }
    }

    /// The segment that is being written.
    fn last(&mut self) -> Option<&mut Segment> {
        if self.writer.is_some() { self.segments.back_mut() } else { None }
    }

    fn write(&mut self, bytes: &[u8], rows: u64) -> io::Result<()> {
        let length = bytes.len() as u64;
        if length > self.max_bytes {
            self.losses.add(LossReason::SpoolFull, rows);
            return Ok(());
        }
        while self.total() + length > self.max_bytes && self.drop_oldest() {}
        let mut given_up = 0;
        loop {
            match self.try_write(bytes) {
                Ok(()) => break,
                Err(error) => {
                    // What was half written must stay the end of its segment.
                    self.writer = None;
                    let full =
                        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                    if !full || given_up == MAX_GIVEN_UP || !self.drop_oldest() {
                        return Err(error);
                    }
                    given_up += 1;
                }
            }
        }
        if let Some(last) = self.last() {
            last.bytes += length;
            last.rows = last.rows.map(|known| known + rows);
        }
        self.tell();
        Ok(())
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(writer) = &mut self.writer {
            return writer.append(bytes);
        }
        let number = self.next;
        // Never the same name twice, whatever comes of it.
        self.next += 1;
        let mut writer = Writer::create(&self.path(number))?;
        let written = writer.append(bytes).and_then(|()| fs::File::open(&self.dir)?.sync_all());
        if let Err(error) = written {
            // At worst it is found empty by the next controller.
            let _ = fs::remove_file(self.path(number));
            return Err(error);
        }
        self.segments.push_back(Segment::new(number, 0, Some(0)));
        self.writer = Some(writer);
        Ok(())
    }

    /// Makes room; gives whether there was anything to give up.
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.segments.front() else { return false };
        let rows = oldest.rows.unwrap_or_else(|| {
            segment::read(&self.path(oldest.number)).map_or(1, |content| content.samples.len() as u64)
        });
        match &mut self.lent {
            Some(lent) if lent.number == oldest.number => lent.given_up = rows,
            _ => self.losses.add(LossReason::SpoolFull, rows),
        }
        self.forget_first();
        true
    }

    /// The oldest readings, with their segment's number. After an error they are still there, to be
    /// asked for again after a while.
    pub(super) fn oldest(&mut self) -> io::Result<Option<(u64, Vec<PackedSample>)>> {
        self.not_stored();
        loop {
            if self.segments.len() == 1 {
                self.writer = None;
            }
            let Some(first) = self.segments.front() else { return Ok(None) };
            let number = first.number;
            let path = self.path(number);
            match segment::read(&path) {
                Ok(content) => {
                    if let Some(damage) = content.damage {
                        let kind = damage.word();
                        ::metrics::counter!("infinibay_spool_damaged_total", "kind" => kind).increment(1);
                        tracing::error!(path = %path.display(), kind, "readings on disk are damaged and lost");
                        let known = self.segments.front().and_then(|first| first.rows);
                        let read = content.samples.len() as u64;
                        // Of what another process wrote, the damaged record is known, and no more.
                        self.losses.add(
                            LossReason::SpoolDamaged,
                            known.map_or(1, |known| known.saturating_sub(read)),
                        );
                    }
                    if content.samples.is_empty() {
                        self.forget_first();
                        continue;
                    }
                    if let Some(first) = self.segments.front_mut() {
                        first.bytes = content.good;
                        first.rows = Some(content.samples.len() as u64);
                        first.failures = 0;
                    }
                    self.tell();
                    self.lent = Some(Lent { number, given_up: 0 });
                    return Ok(Some((number, content.samples)));
                }
                Err(error) => self.unread(error)?,
            }
        }
    }

    /// What [`Self::oldest`] gave did not arrive.
    pub(super) fn not_stored(&mut self) {
        if let Some(lent) = self.lent.take() {
            self.losses.add(LossReason::SpoolFull, lent.given_up);
        }
    }

    /// The first segment could not be read: gives it up where there is no hope, and otherwise the
    /// error back.
    fn unread(&mut self, error: io::Error) -> io::Result<()> {
        let Some(first) = self.segments.front_mut() else { return Ok(()) };
        first.failures += 1;
        if error.kind() != io::ErrorKind::NotFound && first.failures < MAX_FAILURES {
            return Err(error);
        }
        let (number, rows) = (first.number, first.rows.unwrap_or(1));
        tracing::error!(path = %self.path(number).display(), %error, "readings on disk cannot be read");
        self.losses.add(LossReason::SpoolDamaged, rows);
        // The file, if there is one, stays for the next controller to try.
        self.segments.pop_front();
        self.tell();
        Ok(())
    }

    /// The first segment's readings are where they belong.
    pub(super) fn remove(&mut self, number: u64) {
        self.lent = None;
        if self.segments.front().is_some_and(|first| first.number == number) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some(first) = self.segments.pop_front() else { return };
        if self.segments.is_empty() {
            self.writer = None;
        }
        let path = self.path(first.number);
        if let Err(error) = fs::remove_file(&path) {
            // Found again, it is stored again, which does nothing.
            tracing::warn!(path = %path.display(), %error, "a segment of readings could not be removed");
        }
        self.tell();
    }

    fn total(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn tell(&self) {
        let total = self.total();
        self.bytes.store(total, Ordering::Release);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        ::metrics::gauge!("infinibay_spool_bytes").set(total as f64);
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:020}.{SUFFIX}"))
    }
}

const SUFFIX: &str = "readings";

fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use uuid::Uuid;

    use super::*;
    use crate::vm::{FrameText, MetricsSample, Readings, VmId};

    fn samples() -> Vec<PackedSample> {
        let sample = MetricsSample {
            id: Uuid::now_v7(),
            vm: VmId::generate(),
            timestamp: Utc::now(),
            received_at: Utc::now(),
            readings: Readings { cpu_usage: 1.0, memory_used: 1, memory_total: 2, disk: None, network: None },
            frame: FrameText::new("{}"),
        };
        PackedSample::pack(&[sample]).0
    }

    #[test]
    fn what_made_room_on_its_way_to_the_database_is_lost_only_if_it_does_not_arrive() {
        let dir = tempfile::tempdir().expect("a directory");
        let losses = Arc::<Losses>::default();
        let lost = || losses.snapshot().counts[LossReason::SpoolFull];
        let mut bytes = Vec::new();
        segment::write_record(&mut bytes, &samples()[0]);
        // Room for four, each a segment of its own.
        let max_bytes = 4 * bytes.len() as u64;
        let mut disk = Disk::new(dir.path().to_owned(), max_bytes, Arc::default(), Arc::clone(&losses));
        let fill = |disk: &mut Disk| (0..4).for_each(|_| disk.append(&samples()).expect("room"));
        fill(&mut disk);
        let (number, _) = disk.oldest().unwrap().expect("the first");
        fill(&mut disk);
        assert_eq!(lost(), 3, "the first may arrive yet");
        disk.remove(number);
        assert_eq!((lost(), disk.segments.len()), (3, 4));

        disk.oldest().unwrap().expect("the fifth");
        fill(&mut disk);
        assert_eq!(lost(), 6);
        disk.not_stored();
        assert_eq!(lost(), 7, "it did not arrive");
        disk.not_stored();
        assert_eq!(lost(), 7, "counted once");
    }

    /// Two segments of one reading each.
    fn filled(dir: &tempfile::TempDir) -> (Disk, Arc<Losses>, [Vec<PackedSample>; 2]) {
        let losses = Arc::<Losses>::default();
        let bytes = Arc::default();
        let mut disk = Disk::new(dir.path().to_owned(), 1 << 20, bytes, Arc::clone(&losses));
        let both = [samples(), samples()];
        for samples in &both {
            disk.append(samples).unwrap();
            disk.writer = None;
        }
        (disk, losses, both)
    }

    /// Something stands in the file's place that opens but cannot be read.
    fn spoil(disk: &Disk, number: u64) -> PathBuf {
        let (path, aside) = (disk.path(number), disk.path(number).with_extension("aside"));
        fs::rename(&path, &aside).unwrap();
        fs::create_dir(&path).unwrap();
        aside
    }

    #[test]
    fn a_failure_that_passes_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, losses, [first, second]) = filled(&dir);
        let aside = spoil(&disk, 0);
        for _ in 1..MAX_FAILURES {
            disk.oldest().unwrap_err();
        }
        fs::remove_dir(disk.path(0)).unwrap();
        fs::rename(aside, disk.path(0)).unwrap();
        for (number, samples) in [(0, first), (1, second)] {
            assert_eq!(disk.oldest().unwrap(), Some((number, samples)));
            disk.remove(number);
        }
        assert_eq!(disk.oldest().unwrap(), None);
        assert_eq!(losses.snapshot().counts[LossReason::SpoolDamaged], 0);
    }

    #[test]
    fn one_that_stays_costs_its_segment_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, losses, [_, second]) = filled(&dir);
        let aside = spoil(&disk, 0);
        for _ in 1..MAX_FAILURES {
            disk.oldest().unwrap_err();
        }
        assert_eq!(disk.oldest().unwrap(), Some((1, second)));
        assert_eq!(losses.snapshot().counts[LossReason::SpoolDamaged], 1);
        assert!(aside.exists());
    }

    #[test]
    fn a_segment_that_is_gone_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, losses, [_, second]) = filled(&dir);
        fs::remove_file(disk.path(0)).unwrap();
        assert_eq!(disk.oldest().unwrap(), Some((1, second)));
        assert_eq!(losses.snapshot().counts[LossReason::SpoolDamaged], 1);
    }
}

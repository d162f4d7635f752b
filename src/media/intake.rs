//! What comes in, within its bounds: size, room on the disk; and what is told of it.

use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;

use super::{
    failure::{Failure, Stop, apart},
    sink::Sink,
};
use crate::{config::MediaConfig, store::Store, vm::MediumId};

/// Collected before it is written.
const BATCH: usize = 1 << 20;
/// How often progress is stored; what a crash costs at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Bytes of one medium on their way to the disk.
pub(super) struct Intake {
    medium: MediumId,
    config: MediaConfig,
    store: Store,
    // Away while it is being written to.
    sink: Option<Sink>,
    batch: Vec<u8>,
    written: u64,
    /// Bytes that the source said there will be.
    pub(super) total: Option<u64>,
    /// The source's state.
    pub(super) validator: Option<String>,
    told_at: Instant,
}

impl Intake {
    /// Opens the file, keeping so many bytes.
    pub(super) async fn open(
        medium: MediumId,
        path: PathBuf,
        keep: u64,
        config: MediaConfig,
        store: Store,
    ) -> Result<Self, Failure> {
        let sink = apart("opening the file", move || Sink::open(&path, keep)).await?;
        let written = sink.written();
        Ok(Self {
            medium,
            config,
            store,
            sink: Some(sink),
            batch: Vec::new(),
            written,
            total: None,
            validator: None,
            told_at: Instant::now(),
        })
    }

    /// Bytes that came so far.
    pub(super) fn done(&self) -> u64 {
        self.written + self.batch.len() as u64
    }

    /// The source's word on how long it is; held to the bounds before anything is read.
    pub(super) async fn expect(&mut self, total: Option<u64>) -> Result<(), Stop> {
        self.total = total;
        let Some(total) = total else { return Ok(()) };
        if total > self.config.max_bytes {
            return Err(self.too_large(&format!("{total} bytes")).into());
        }
        self.check_room(total.saturating_sub(self.done())).await
    }

    /// More bytes.
    pub(super) async fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if self.done().saturating_add(bytes.len() as u64) > self.config.max_bytes {
            return Err(self.too_large("more").into());
        }
        self.batch.extend_from_slice(bytes);
        if self.batch.len() >= BATCH {
            self.flush().await?;
        }
        if self.told_at.elapsed() >= TELL_EVERY {
            self.tell().await?;
        }
        Ok(())
    }

    fn too_large(&self, has: &str) -> Failure {
        let most = self.config.max_bytes;
        Failure::over("TOO_LARGE", format!("the file has {has}; media.max_bytes allows {most}"))
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        let batch = std::mem::take(&mut self.batch);
        let (sink, batch) =
            self.with("writing the file", move |mut sink| sink.write(&batch).map(|()| (sink, batch))).await?;
        self.written = sink.written();
        self.sink = Some(sink);
        self.batch = batch;
        self.batch.clear();
        Ok(())
    }

    /// Lends the file to a blocking piece of work.
    async fn with<T: Send + 'static>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(Sink) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let Some(sink) = self.sink.take() else {
            return Err(Failure::mendable("DISK_FAILED", format!("{what}: the file was lost")));
        };
        apart(what, move || work(sink)).await
    }

    /// Forgets everything that came: the source is another one now.
    pub(super) async fn restart(&mut self) -> Result<(), Stop> {
        self.batch.clear();
        let sink = self.with("emptying the file", |mut sink| sink.restart().map(|()| sink)).await?;
        self.sink = Some(sink);
        self.written = 0;
        Ok(())
    }

    /// Everything that came goes to the disk, and that is stored.
    pub(super) async fn tell(&mut self) -> Result<(), Stop> {
        self.flush().await?;
        let sink = self.with("writing the file", |sink| sink.sync().map(|()| sink)).await?;
        self.sink = Some(sink);
        self.check_room(0).await?;
        let validator = self.validator.as_deref();
        if !self.store.medium_progress(self.medium, self.written, self.total, validator).await? {
            return Err(Stop::Told);
        }
        self.told_at = Instant::now();
        Ok(())
    }

    async fn check_room(&mut self, needed: u64) -> Result<(), Stop> {
        let (sink, room) = self.with("looking for room", |sink| sink.room().map(|room| (sink, room))).await?;
        self.sink = Some(sink);
        let reserve = self.config.reserve_bytes;
        if room < needed.saturating_add(reserve) {
            let words = format!(
                "{needed} bytes more are needed, {room} are free on the file system, and media.reserve_bytes keeps {reserve}"
            );
            return Err(Failure::mendable("NO_SPACE", words).into());
        }
        Ok(())
    }

    /// All bytes came: the file, its length and its checksum.
    pub(super) async fn finish(mut self) -> Result<(std::fs::File, u64, String), Stop> {
        self.tell().await?;
        let written = self.written;
        let (file, sha256) = self.with("reading the file", Sink::finish).await?;
        Ok((file, written, sha256))
    }
}

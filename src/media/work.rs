//! One medium, from its row to its place. Every step is one that can be taken again: after a
//! crash the row says how many bytes are there for certain, and the file how far it is beyond.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    time::Duration,
};

use chrono::Utc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    Media, check,
    failure::{Failure, Stop, apart},
    intake::Intake,
    local::{self, LocalFile},
    place::Put,
    sink,
};
use crate::{
    failpoint::failpoint,
    images::incoming_manifest,
    store::MediumEnd,
    vm::{Medium, MediumSource, MediumState, chain, truncate_to_micros},
};

/// What an attempt must bring, so that the next failure is the first one again.
const GAIN: u64 = 1 << 20;
/// First wait after a failed attempt; doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Read at once of a local file.
const CHUNK: u64 = 1 << 20;

impl Media {
    /// Brings a medium in and notes how that ended.
    pub(super) async fn bring_in(&self, medium: Medium, told: CancellationToken) -> Result<(), Stop> {
        let done = match medium.state {
            MediumState::Checking => self.settle(&medium).await,
            _ => match self.receive(&medium, &told).await {
                Ok(checked) => self.settle(&checked).await,
                Err(stop) => Err(stop),
            },
        };
        let end = match done {
            Ok(()) => MediumEnd::Ready,
            Err(Stop::Failed(failure)) => {
                tracing::warn!(
                    medium = %medium.id, name = %medium.name, code = failure.code, reason = failure.message,
                    "an import was given up"
                );
                MediumEnd::Failed { failure: failure.told(), keep: failure.keep }
            }
            Err(stop) => return Err(stop),
        };
        if !self.store().medium_ended(medium.id, &end, truncate_to_micros(Utc::now())).await? {
            return Err(Stop::Told);
        }
        failpoint!("import-medium.ended");
        if end == MediumEnd::Ready {
            tracing::info!(medium = %medium.id, name = %medium.name, "a medium is ready");
            self.introduce(&medium).await;
        }
        Ok(())
    }

    /// Reads all bytes and looks at them; gives the medium as it is stored then.
    async fn receive(&self, medium: &Medium, told: &CancellationToken) -> Result<Medium, Stop> {
        let started = truncate_to_micros(Utc::now());
        if !self.store().medium_started(medium.id, started).await? {
            return Err(Stop::Told);
        }
        let (places, row) = (self.places().clone(), medium.clone());
        failpoint!("import-medium.started");
        apart("making the directory", move || places.prepare(&row)).await?;
        let resumes = medium.validator.is_some() || medium.expected_sha256.is_some();
        let mut intake = Intake::open(
            medium.id,
            self.places().partial(medium),
            if resumes { medium.bytes_done } else { 0 },
            self.config().clone(),
            self.store().clone(),
        )
        .await?;
        intake.validator.clone_from(&medium.validator);
        intake.total = medium.bytes_total;
        // What went by before a crash counts.
        let gone = (started - medium.started_at.unwrap_or(started)).to_std().unwrap_or_default();
        let deadline = Instant::now() + self.config().max_duration.saturating_sub(gone);
        tokio::select! {
            biased;
            () = told.cancelled() => return Err(Stop::Told),
            read = timeout_at(deadline, self.attempts(medium, &mut intake)) => match read {
                Ok(read) => read?,
                Err(_) => {
                    let words = format!("it takes longer than {:?}", self.config().max_duration);
                    return Err(Failure::mendable("TOO_SLOW", words).into());
                }
            },
        }
        let (mut file, bytes, sha256) = intake.finish().await?;
        failpoint!("import-medium.read");
        if let Some(expected) = medium.expected_sha256.as_deref().filter(|expected| *expected != sha256) {
            let words = format!("the file's SHA-256 is {sha256}, not {expected}");
            return Err(Failure::over("CHECKSUM_MISMATCH", words).into());
        }
        let disk = medium.disk.clone();
        let looked = apart("looking at the file", move || Ok(check::check(&mut file, disk.as_ref()))).await?;
        let facts = looked?;
        if !self.store().medium_checked(medium.id, bytes, &sha256, &facts).await? {
            return Err(Stop::Told);
        }
        failpoint!("import-medium.checked");
        let bytes_done = bytes;
        Ok(Medium { state: MediumState::Checking, sha256: Some(sha256), facts, bytes_done, ..medium.clone() })
    }

    /// Tries until all bytes are there or it is not worth it any more.
    async fn attempts(&self, medium: &Medium, intake: &mut Intake) -> Result<(), Stop> {
        let (mut failed, mut wait, mut most) = (0, FIRST_WAIT, intake.done());
        loop {
            let tried = match &medium.source {
                MediumSource::Url(url) => {
                    self.fetcher().fetch(url, medium.expected_sha256.is_some(), intake).await
                }
                MediumSource::Path(path) => self.copy(path, intake).await,
            };
            let failure = match tried {
                Err(Stop::Failed(failure)) if failure.again => failure,
                other => {
                    if other.is_err() {
                        self.keep(intake).await;
                    }
                    return other;
                }
            };
            // Counted from the most there ever was: what is read again after a restart is no gain.
            if intake.done() >= most.saturating_add(GAIN) {
                (failed, wait, most) = (0, FIRST_WAIT, intake.done());
            }
            failed += 1;
            tracing::info!(
                medium = %medium.id, code = failure.code, reason = failure.message, failed,
                "an attempt at an import failed"
            );
            intake.tell().await?;
            if failed >= self.config().max_attempts {
                return Err(failure.into());
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// What came is stored as far as that goes; another failure is on its way already.
    async fn keep(&self, intake: &mut Intake) {
        match intake.tell().await {
            Ok(()) | Err(Stop::Told) => {}
            Err(Stop::Failed(failure) | Stop::Later(failure)) => {
                tracing::debug!(reason = failure.message, "what came last was not kept");
            }
            Err(Stop::Store(error)) => {
                tracing::debug!(error = chain(&error), "what came last was not noted");
            }
        }
    }

    /// The rest of a file of this host.
    async fn copy(&self, path: &str, intake: &mut Intake) -> Result<(), Stop> {
        let (wanted, dirs) = (path.to_owned(), self.config().import_dirs.0.clone());
        let opened = apart("opening the source", move || Ok(local::open(&wanted, &dirs))).await??;
        let LocalFile { mut file, length, stamp } = opened;
        if intake.done() > 0 && intake.validator.as_ref() != Some(&stamp) {
            intake.restart().await?;
        }
        intake.validator = Some(stamp.clone());
        intake.expect(Some(length)).await?;
        let mut from = intake.done();
        loop {
            let (back, bytes) = apart("reading the source", move || {
                file.seek(SeekFrom::Start(from))?;
                let mut bytes = Vec::new();
                (&file).take(CHUNK).read_to_end(&mut bytes)?;
                Ok((file, bytes))
            })
            .await?;
            file = back;
            if bytes.is_empty() {
                break;
            }
            from += bytes.len() as u64;
            intake.take(&bytes).await?;
        }
        let same = apart("looking at the source", move || same_state(&file, &stamp)).await?;
        if !same || intake.done() != length {
            let words = "the file was changed while it was read";
            return Err(Failure::over("SOURCE_CHANGED", words).into());
        }
        Ok(())
    }

    /// Puts a checked medium in its place. The file may be there already, from before a crash.
    async fn settle(&self, medium: &Medium) -> Result<(), Stop> {
        let sha256 = medium.sha256.clone().unwrap_or_default();
        let manifest = match &medium.disk {
            Some(disk) => {
                Some(incoming_manifest(disk, &sha256).map_err(|why| Failure::over("IMAGE_REFUSED", why))?)
            }
            None => None,
        };
        let (places, row) = (self.places().clone(), medium.clone());
        let put = apart("putting the file in its place", move || {
            if places.partial(&row).try_exists()? {
                return places.put(&row, manifest.as_deref());
            }
            // Ours, from before a crash, or somebody else's.
            match File::open(places.file(&row)) {
                Ok(mut file) => {
                    if sink::sha256_of(&mut file)? != sha256 {
                        return Ok(Put::Taken);
                    }
                    places.keep(&row)
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Put::Lost),
                Err(error) => Err(error),
            }
        })
        .await?;
        match put {
            Put::Done => Ok(()),
            Put::Loose(error) => Err(Stop::Later(Failure::disk("keeping the file in its place", &error))),
            Put::Taken => {
                let words = format!("something named {} stands in its place already", medium.name);
                Err(Failure::over("NAME_TAKEN", words).into())
            }
            Put::Lost => {
                let words = "what was read is gone from the disk; ask for it again";
                Err(Failure::over("DISK_FAILED", words).into())
            }
        }
    }

    /// Lets the library read a new disk before somebody waits for it.
    async fn introduce(&self, medium: &Medium) {
        if medium.disk.is_some()
            && let Err(error) = self.images().get(&medium.name).await
        {
            tracing::info!(name = %medium.name, error = chain(&error), "a new image is not usable yet");
        }
    }
}

fn same_state(file: &File, stamp: &str) -> std::io::Result<bool> {
    let found = file.metadata()?;
    Ok(format!("{}-{}-{}.{}", found.ino(), found.len(), found.mtime(), found.mtime_nsec()) == stamp)
}

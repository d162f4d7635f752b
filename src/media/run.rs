//! The importer: takes what there is to do from the database, a bounded number at once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Media,
    failure::{Failure, Stop, apart},
};
use crate::{
    failpoint::failpoint,
    store::StoreError,
    vm::{Medium, MediumId, MediumState, chain},
};

/// How often is looked, also where nobody says that there is something.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long something that could not be done is left alone.
const REST: Duration = Duration::from_secs(5);

impl Media {
    /// Carries out what is asked for, until `stop`: what is under way then is taken up again by
    /// the next start.
    pub async fn run(self, stop: CancellationToken) {
        let turns = usize::try_from(self.config().max_parallel).unwrap_or(1);
        let turns = Arc::new(Semaphore::new(turns.min(Semaphore::MAX_PERMITS)));
        let mut tasks: JoinSet<Result<(), Stop>> = JoinSet::new();
        let mut ids: HashMap<tokio::task::Id, MediumId> = HashMap::new();
        let mut resting: HashMap<MediumId, Instant> = HashMap::new();
        while !stop.is_cancelled() {
            let now = Instant::now();
            resting.retain(|_, until| *until > now);
            let mut next = now + LOOK_EVERY;
            match self.store().media_to_do(self.shared.host).await {
                Ok(to_do) => {
                    for medium in to_do {
                        if resting.contains_key(&medium.id) || self.under_way().contains_key(&medium.id) {
                            continue;
                        }
                        let id = medium.id;
                        if medium.state.is_open() {
                            let Ok(turn) = Arc::clone(&turns).try_acquire_owned() else { continue };
                            let (media, told) = (self.clone(), stop.child_token());
                            self.under_way().insert(id, told.clone());
                            let task = tasks.spawn(async move {
                                let done = media.bring_in(medium, told).await;
                                drop(turn);
                                done
                            });
                            ids.insert(task.id(), id);
                        } else if let Err(stopped) = self.take_away(&medium).await {
                            self.complain(id, &stopped);
                            resting.insert(id, now + REST);
                        }
                    }
                }
                Err(error) => {
                    self.wait_for_store(&error);
                    next = now + REST;
                }
            }
            next = resting.values().copied().fold(next, Instant::min);
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(next.max(now + Duration::from_millis(50))) => {}
                Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    let (task, stopped, rests) = match ended {
                        Ok((task, Ok(()))) => (task, None, false),
                        // One that was cancelled is cleaned up at once.
                        Ok((task, Err(stopped))) => {
                            let rests = !matches!(stopped, Stop::Told);
                            (task, Some(stopped), rests)
                        }
                        Err(died) => {
                            tracing::error!(error = chain(&died), "an import died; it is taken up again");
                            (died.id(), None, true)
                        }
                    };
                    let Some(id) = ids.remove(&task) else { continue };
                    self.under_way().remove(&id);
                    if let Some(stopped) = stopped {
                        self.complain(id, &stopped);
                    }
                    if rests {
                        resting.insert(id, Instant::now() + REST);
                    }
                }
            }
        }
        // They were told, and end at their next step.
        while tasks.join_next().await.is_some() {}
    }

    /// Removes a medium that is on its way out, or what an import left that was given up.
    async fn take_away(&self, medium: &Medium) -> Result<(), Stop> {
        let (places, row) = (self.places().clone(), medium.clone());
        let deleting = medium.state == MediumState::Deleting;
        apart("removing a medium", move || {
            // One that was given up never was in its place: what stands there is somebody else's.
            if deleting && row.failure.is_none() { places.remove(&row) } else { places.discard(&row) }
        })
        .await?;
        if deleting {
            failpoint!("delete-medium.removed");
            self.store().medium_gone(medium.id).await?;
            failpoint!("delete-medium.gone");
            tracing::info!(medium = %medium.id, name = %medium.name, "a medium was deleted");
        } else {
            failpoint!("cancel-medium.removed");
            self.store().medium_discarded(medium.id).await?;
            failpoint!("cancel-medium.discarded");
        }
        Ok(())
    }

    fn complain(&self, medium: MediumId, stopped: &Stop) {
        match stopped {
            Stop::Told => tracing::debug!(%medium, "work on a medium was broken off"),
            Stop::Failed(Failure { message, .. }) | Stop::Later(Failure { message, .. }) => {
                tracing::warn!(%medium, reason = message, "work on a medium failed; it is tried again");
            }
            Stop::Store(error) => self.wait_for_store(error),
        }
    }

    fn wait_for_store(&self, error: &StoreError) {
        tracing::warn!(error = chain(error), "the importer waits for the database");
    }
}

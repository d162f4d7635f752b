//! All guests together.

use std::{io, path::Path, sync::Arc};

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Kind, Plan, Report, guest::Guest, limits::raise_open_files, report::Counters};

/// A running fleet. Dropped, it is gone with its sockets.
#[derive(Debug)]
pub struct Fleet {
    guests: Vec<(Uuid, Kind, Arc<Counters>)>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// For each guest renders its frames and binds `dir/vm-<uuid>.sock`; then all serve. Raises this
    /// process's limit of open files. Rendering takes about 20 µs per frame, on this thread.
    ///
    /// # Errors
    /// What kept a socket from being bound; then none is left.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(dir: &Path, plan: Plan) -> io::Result<Self> {
        let _ = raise_open_files();
        let mut bound = Vec::with_capacity(plan.guests.len());
        for guest in plan.guests {
            let path = dir.join(format!("vm-{}.sock", guest.vm));
            bound.push(Guest::bind(guest, path, Arc::default())?);
        }
        let guests =
            bound.iter().map(|guest| (guest.plan.vm, guest.plan.kind, Arc::clone(&guest.counters))).collect();
        let tasks = bound.into_iter().map(Guest::run).collect();
        Ok(Self { guests, tasks })
    }

    /// The guests' ids, in the plan's order.
    pub fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.guests.iter().map(|(vm, ..)| *vm)
    }

    /// What each guest counted until now, in the plan's order.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.guests.iter().map(|(vm, kind, counters)| counters.report(*vm, *kind)).collect()
    }

    /// One guest's counts; `None` where there is no such guest.
    #[must_use]
    pub fn report(&self, vm: Uuid) -> Option<Report> {
        let (vm, kind, counters) = self.guests.iter().find(|(id, ..)| *id == vm)?;
        Some(counters.report(*vm, *kind))
    }

    /// Ends all guests, removes their sockets and gives the last counts.
    pub async fn stop(mut self) -> Vec<Report> {
        self.tasks.shutdown().await;
        self.reports()
    }
}

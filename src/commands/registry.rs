//! The commands under way, by id: so that one can be cancelled, and no id is used twice.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    store::CommandRecord,
    vm::{CommandId, VmId},
};

/// Those who cancel one command and wait for its entry, at most.
const MAX_LISTENERS: usize = 16;

/// See the module. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry {
    under_way: Arc<Mutex<HashMap<CommandId, UnderWay>>>,
}

#[derive(Debug)]
struct UnderWay {
    vm: VmId,
    kind: &'static str,
    created_at: DateTime<Utc>,
    cancel: CancellationToken,
    listeners: Vec<oneshot::Sender<CommandRecord>>,
}

/// One command's entry, gone when dropped.
#[derive(Debug)]
pub(super) struct Entered {
    id: CommandId,
    registry: Registry,
    told: bool,
    pub(super) cancel: CancellationToken,
}

impl Registry {
    fn under_way(&self) -> MutexGuard<'_, HashMap<CommandId, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: a command of this id is under way.
    pub(super) fn enter(
        &self,
        id: CommandId,
        vm: VmId,
        kind: &'static str,
        created_at: DateTime<Utc>,
    ) -> Option<Entered> {
        match self.under_way().entry(id) {
            Entry::Occupied(_) => None,
            Entry::Vacant(vacant) => {
                let cancel = CancellationToken::new();
                vacant.insert(UnderWay {
                    vm,
                    kind,
                    created_at,
                    cancel: cancel.clone(),
                    listeners: Vec::new(),
                });
                Some(Entered { id, registry: self.clone(), told: false, cancel })
            }
        }
    }

    /// When the oldest was asked for, by the clock as it was then.
    pub(super) fn oldest(&self) -> Option<DateTime<Utc>> {
        self.under_way().values().map(|command| command.created_at).min()
    }

    /// The kind of a command of this VM that is under way.
    pub(super) fn kind(&self, vm: VmId, id: CommandId) -> Option<&'static str> {
        self.under_way().get(&id).filter(|command| command.vm == vm).map(|command| command.kind)
    }

    /// Cancels a command of this VM; gives where its entry will be told. `None`: none is under
    /// way, or too many wait for it already.
    pub(super) fn cancel(&self, vm: VmId, id: CommandId) -> Option<oneshot::Receiver<CommandRecord>> {
        let mut under_way = self.under_way();
        let command = under_way.get_mut(&id).filter(|command| command.vm == vm)?;
        command.cancel.cancel();
        command.listeners.retain(|listener| !listener.is_closed());
        if command.listeners.len() >= MAX_LISTENERS {
            return None;
        }
        let (listener, told) = oneshot::channel();
        command.listeners.push(listener);
        Some(told)
    }
}

impl Entered {
    /// It has ended; whoever waits is told.
    pub(super) fn ended(mut self, record: &CommandRecord) {
        self.told = true;
        let removed = self.registry.under_way().remove(&self.id);
        for listener in removed.into_iter().flat_map(|command| command.listeners) {
            // One who is gone need not be told.
            let _ = listener.send(record.clone());
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Once told, the id may be another's already.
        if !self.told {
            self.registry.under_way().remove(&self.id);
        }
    }
}
